//! The `obtrace` binary: command line in, exit code out.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use obtrace::tools::{demo, load};

/// An observability backend: OpenTelemetry in, durable, stored and found again.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send marked telemetry and verify what became of it
    Load(Box<load::LoadArgs>),
    /// Send the telemetry of a simulated shop
    Demo(demo::DemoArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Load(args) => load::run(*args).await,
        Command::Demo(args) => demo::run(args).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("obtrace: {error}");
        ExitCode::from(2)
    })
}
