//! `obtrace top`: a live view of a running Obtrace in the terminal, from its tree, its metrics and its events.

use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::future::OptionFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::look::nodes;
use super::look::text::Paper;
use super::remote::Remote;
use crate::clock;
use model::{Key, Look, Model};
use readings::Readings;
use screen::Screen;

mod frame;
mod model;
mod pressure;
mod readings;
mod screen;

/// Where to look, and how.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    remote: Remote,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    every: f64,
    /// One frame as text, after two looks for the rates
    #[arg(long)]
    once: bool,
    /// Cells of a line with --once
    #[arg(long, default_value_t = 120)]
    width: usize,
    /// Lines with --once
    #[arg(long, default_value_t = 40)]
    height: usize,
    /// Without colours
    #[arg(long)]
    no_color: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, such as 0.5".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.1 to 3600 seconds".to_owned())
    }
}

pub(super) async fn run(args: TopArgs) -> ExitCode {
    let done = if args.once { once(&args).await } else { live(&args).await };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("obtrace: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn once(args: &TopArgs) -> Result<(), String> {
    let mut model = Model::new(&args.remote.api);
    for look in 0..2 {
        if look > 0 {
            tokio::time::sleep(Duration::from_secs_f64(args.every)).await;
        }
        let seen = look_at(args.remote.clone(), model.since, model.seq).await?;
        take_in(&mut model, seen);
    }
    let colour = Paper::of_stdout(args.no_color).colour;
    for line in frame::frame(&model, args.width, args.height) {
        println!("{}", line.render(args.width, colour));
    }
    Ok(())
}

async fn live(args: &TopArgs) -> Result<(), String> {
    let colour = Paper::of_stdout(args.no_color).colour;
    let screen = Screen::open(colour)?;
    let every = Duration::from_secs_f64(args.every);
    let show = |model: &Model| {
        let (width, height) = screen.size();
        screen.show(&frame::frame(model, width, height));
    };
    follow(&args.remote, every, screen::keys(), stop_signal(), show).await;
    Ok(())
}

/// Looks again and again and does what the keys mean, until one of them or a signal says that it is enough: also while a
/// look is under way, which may take long.
async fn follow(
    remote: &Remote,
    every: Duration,
    mut keys: mpsc::Receiver<Key>,
    stop: impl Future<Output = ()>,
    show: impl Fn(&Model),
) {
    let mut model = Model::new(&remote.api);
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    let mut look: Option<Looking> = None;
    loop {
        show(&model);
        tokio::select! {
            () = &mut stop => return,
            key = keys.recv() => match key {
                Some(key) if model.press(key) => {
                    // What is standing still takes nothing in.
                    look = look.filter(|_| !model.paused);
                }
                _ => return,
            },
            _ = timer.tick(), if look.is_none() => {
                let begin = || Box::pin(look_at(remote.clone(), model.since, model.seq)) as Looking;
                look = (!model.paused).then(begin);
            }
            Some(seen) = OptionFuture::from(look.as_mut()) => {
                look = None;
                match seen {
                    Ok(seen) => take_in(&mut model, seen),
                    // It may be on its way back; what was seen last stays on the screen.
                    Err(why) => model.trouble = Some(why),
                }
            }
        }
    }
}

/// What one look brings: the process, and its events since the look before.
type Seen = (Look, Value);

/// A look under way.
type Looking = Pin<Box<dyn Future<Output = Result<Seen, String>>>>;

async fn look_at(remote: Remote, since: Instant, seq: u64) -> Result<Seen, String> {
    let events = format!("/admin/events?follow=false&after={seq}");
    let (tree, metrics, events) =
        tokio::try_join!(remote.get("/admin/tree"), remote.text("/metrics"), remote.get(&events))?;
    let look = Look {
        at: clock::now().saturating_duration_since(since),
        wall_ns: clock::unix_nanos(),
        root: nodes::read(&tree)?,
        readings: Readings::of(&metrics),
    };
    Ok((look, events))
}

fn take_in(model: &mut Model, (look, events): Seen) {
    model.seen(look);
    model.happened(&events);
}

/// SIGTERM and SIGHUP, so that the terminal is put back before the end. Ctrl-C is a key here.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// Follows a process that takes connections and never answers. What ends it comes while a look is under way.
    async fn ends(key: Option<Key>) {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", silent.local_addr().unwrap());
        let remote = Remote::at(api, None, Duration::from_secs(45));
        let (send, keys) = mpsc::channel(1);
        let (signal, signalled) = tokio::sync::oneshot::channel();
        let stop = async move {
            match signalled.await {
                Ok(()) => {}
                Err(_) => pending().await,
            }
        };
        let asked = async move {
            let _open = silent.accept().await.unwrap();
            match key {
                Some(key) => send.send(key).await.unwrap(),
                None => signal.send(()).unwrap(),
            }
            pending::<()>().await
        };
        let every = Duration::from_millis(100);
        let followed = async {
            tokio::select! {
                () = follow(&remote, every, keys, stop, |_| {}) => {}
                () = asked => {}
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), followed).await.is_ok(), "deaf to {key:?}");
    }

    #[tokio::test]
    async fn a_look_that_is_not_answered_keeps_nobody_from_leaving() {
        ends(Some(Key::Quit)).await;
        ends(None).await;
    }
}
