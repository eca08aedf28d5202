//! `obtrace tree`: draws the supervision tree of a running Obtrace.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::look::nodes;
use super::look::text::Paper;
use super::remote::Remote;

mod draw;

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// Where to look, and how to draw.
#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    drawing: Drawing,
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

pub(super) async fn run(args: TreeArgs) -> ExitCode {
    let done = if args.drawing.watch {
        watch(&args.remote, &args.drawing).await
    } else {
        show(&args.remote, &args.drawing).await.map(|text| print!("{text}"))
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
