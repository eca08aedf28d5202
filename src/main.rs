//! The `obtrace` binary: command line in, one of the parts of Obtrace out.

use std::process::ExitCode;

use clap::Parser;
use obtrace::backends::telemetry::engine;

#[derive(Parser)]
#[command(name = "obtrace", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The embedded ClickHouse engine; started by `obtrace dev` and `obtrace serve`, seldom by hand.
    Engine(engine::EngineArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Engine(args) => engine::run(args),
    }
}
