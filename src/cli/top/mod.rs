//! `obtrace top`: a live view of a running Obtrace in the terminal, from its tree, its metrics and its events.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::look::nodes;
use super::look::text::Paper;
use super::remote::Remote;
use crate::clock;
use model::{Look, Model};
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
        update(&mut model, &args.remote).await?;
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
    let mut keys = screen::keys();
    let mut model = Model::new(&args.remote.api);
    let mut timer = tokio::time::interval(Duration::from_secs_f64(args.every));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        let (width, height) = screen.size();
        screen.show(&frame::frame(&model, width, height));
        tokio::select! {
            () = &mut stop => return Ok(()),
            key = keys.recv() => match key {
                Some(key) if model.press(key) => {}
                _ => return Ok(()),
            },
            _ = timer.tick() => {
                if !model.paused && let Err(why) = update(&mut model, &args.remote).await {
                    // It may be on its way back; what was seen last stays on the screen.
                    model.trouble = Some(why);
                }
            }
        }
    }
}

async fn update(model: &mut Model, remote: &Remote) -> Result<(), String> {
    let events = format!("/admin/events?follow=false&after={}", model.seq);
    let (tree, metrics, events) =
        tokio::try_join!(remote.get("/admin/tree"), remote.text("/metrics"), remote.get(&events))?;
    model.seen(Look {
        at: clock::now().saturating_duration_since(model.since),
        wall_ns: clock::unix_nanos(),
        root: nodes::read(&tree)?,
        readings: Readings::of(&metrics),
    });
    model.happened(&events);
    Ok(())
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
