//! `obtrace tree`: draws the supervision tree of a running Obtrace, and gives orders to its nodes.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::look::nodes;
use super::look::text::Paper;
use super::remote::Remote;

mod draw;

pub(super) use draw::mark;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// Where to look, how to draw, what to order.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(super) struct TreeArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    drawing: Drawing,
    #[command(subcommand)]
    order: Option<Order>,
}

/// How the tree is drawn.
#[derive(Debug, Args)]
struct Drawing {
    /// The snapshot as JSON
    #[arg(long)]
    json: bool,
    /// Every member of groups and of workers side by side, one line each
    #[arg(long)]
    all: bool,
    /// Again every two seconds, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Without colours, also on a terminal
    #[arg(long)]
    no_color: bool,
}

/// Orders to a node of the tree, such as `obtrace tree restart store.writer --why "new library"`.
#[derive(Debug, Subcommand)]
enum Order {
    /// Ends a node after what it has in hand, and starts it anew
    Restart(To),
    /// Has a node finish what is in hand and stay down, until it is resumed or restarted; its lane keeps what it holds
    Drain(To),
    /// Has a node take nothing more from its lane; what comes in waits there
    Pause(To),
    /// Lets a paused node take work again, and starts one that was drained
    Resume(To),
    /// Tries a node that is quarantined or backs off at once, with a clean record
    Release(To),
}

/// Whom an order goes to.
#[derive(Debug, Args)]
struct To {
    /// Path of the node as `obtrace tree --all` shows it, such as store.writer.1
    path: String,
    /// Reason, kept with the event
    #[arg(long, default_value = "")]
    why: String,
    /// Who you are, kept with the event; your login name when absent
    #[arg(long, env = "USER", hide_env_values = true)]
    who: Option<String>,
}

impl Order {
    fn parts(&self) -> (&'static str, &To) {
        match self {
            Self::Restart(to) => ("restart", to),
            Self::Drain(to) => ("drain", to),
            Self::Pause(to) => ("pause", to),
            Self::Resume(to) => ("resume", to),
            Self::Release(to) => ("release", to),
        }
    }
}

pub(super) async fn run(args: TreeArgs) -> ExitCode {
    let done = match &args.order {
        Some(order) => give(&args.remote, order).await,
        None if args.drawing.watch => watch(&args.remote, &args.drawing).await,
        None => show(&args.remote, &args.drawing).await.map(|text| print!("{text}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("obtrace: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn show(remote: &Remote, drawing: &Drawing) -> Result<String, String> {
    let snapshot = remote.get("/admin/tree").await?;
    if drawing.json {
        return Ok(format!("{snapshot:#}\n"));
    }
    let root = nodes::read(&snapshot)?;
    let paper = Paper::of_stdout(drawing.no_color);
    Ok(draw::draw(&root, drawing.all, crate::clock::unix_nanos(), paper))
}

/// Draws over what was drawn before. A look that fails is shown in its place: the process may be on its way back.
async fn watch(remote: &Remote, drawing: &Drawing) -> Result<(), String> {
    loop {
        let page = show(remote, drawing).await.unwrap_or_else(|why| format!("{why}\n"));
        let lines: String = page.lines().map(|line| format!("{line}\x1b[K\n")).collect();
        print!("\x1b[H{lines}\x1b[J");
        tokio::time::sleep(EVERY).await;
    }
}

async fn give(remote: &Remote, order: &Order) -> Result<(), String> {
    let (action, to) = order.parts();
    let who = to.who.as_deref().filter(|who| !who.is_empty());
    let mut body = json!({"why": to.why});
    if let Some(who) = who {
        body["who"] = json!(who);
    }
    remote.post(&format!("/admin/tree/{}/{action}", to.path), &body).await?;
    println!("{action} of {}: done", to.path);
    Ok(())
}
