//! The command line: what was typed in, one of the parts of Obtrace out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::actors::process::trial;
use crate::backends::telemetry::engine;
use crate::boot;
use crate::config::{Flag, LoadArgs, Loaded};
use crate::supervisors::tuning;
use crate::supervisors::tuning::lint::{self, Verdict};
use crate::supervisors::tuning::machine::Machine;
use crate::supervisors::tuning::reload::Origin;
use crate::telemetry::logging;
use crate::tools::demo::{self, DemoArgs};
use crate::tools::error::ToolError;
use crate::tools::load::{self, LoadArgs as LoadGeneratorArgs};

mod config;
mod deploy;
mod dlq;
mod doctor;
mod key;
mod look;
mod migrate;
mod remote;
mod top;
mod tree;

/// An observability backend: OpenTelemetry in, durable, stored and found again, on supervised actors.
#[derive(Debug, Parser)]
#[command(name = "obtrace", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process on embedded backends, for this machine: no key needed from loopback
    Dev(RunArgs),
    /// As configured: everything in one process, or some --roles of it
    Serve(RunArgs),
    /// Brings the schemas of all stores up to date, or says what that would do (--plan)
    Migrate(migrate::MigrateArgs),
    /// A simulated shop that sends traces, logs and metrics to a running Obtrace
    Demo(DemoArgs),
    /// Load generator; with --verify it asks the API what is missing or doubled
    Load(Box<LoadGeneratorArgs>),
    /// The supervision tree of a running Obtrace
    Tree(tree::TreeArgs),
    /// Dead letters of a running Obtrace: what could not be stored, and putting it back
    Dlq(dlq::DlqArgs),
    /// Tells a running Obtrace that a version of a service begins to run
    Deploy(deploy::DeployArgs),
    /// A live view of a running Obtrace: lanes, rates, restarts, events
    Top(top::TopArgs),
    /// Looks at this machine, the configuration and a running Obtrace, and says what to do
    Doctor(Box<doctor::DoctorArgs>),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make an API key, or hash one
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// The embedded ClickHouse engine; started by `dev` and `serve`, seldom by hand
    Engine(engine::EngineArgs),
    /// Tries a block that ended a worker; started by the workers, never by hand
    #[command(hide = true)]
    Trial,
}

/// Where settings come from. A flag stands above the environment, that above the files, those above the defaults.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Folder of everything Obtrace keeps
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file; may be given more than once, a later one stands above an earlier one
    #[arg(long, value_name = "FILE", env = "OBTRACE_CONFIG")]
    config: Vec<PathBuf>,
    /// Address of OTLP gRPC
    #[arg(long, value_name = "ADDRESS")]
    otlp_grpc: Option<SocketAddr>,
    /// Address of OTLP HTTP
    #[arg(long, value_name = "ADDRESS")]
    otlp_http: Option<SocketAddr>,
    /// Address of the API
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// What this process does: some of ingest-edge, worker-otlp, query-gateway; all of them when absent
    #[arg(long, value_name = "ROLE,ROLE")]
    roles: Option<String>,
    /// Any other key, such as --set process.linger=100ms
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What `dev` and `serve` take.
#[derive(Debug, Clone, Args)]
struct RunArgs {
    #[command(flatten)]
    layers: ServeArgs,
    /// Start although `obtrace config lint` says FAIL
    #[arg(long)]
    force: bool,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Dev(args) => serve(&args, Some("dev")),
            Command::Serve(args) => serve(&args, None),
            Command::Migrate(args) => client(migrate::run(args)),
            Command::Demo(args) => tool(demo::run(args)),
            Command::Load(args) => tool(load::run(*args)),
            Command::Tree(args) => client(tree::run(args)),
            Command::Dlq(args) => client(dlq::run(args)),
            Command::Deploy(args) => client(deploy::run(args)),
            Command::Top(args) => client(top::run(args)),
            Command::Config(command) => config::run(&command),
            Command::Doctor(args) => client(doctor::run(*args)),
            Command::Key(command) => key::run(&command),
            Command::Engine(args) => engine::run(args),
            Command::Trial => trial::child::main(),
        }
    }
}

/// A development machine is as it is; anywhere else, numbers that cannot work are not started with.
fn serve(args: &RunArgs, profile: Option<&str>) -> ExitCode {
    let (layers, loaded) = match load_config(&args.layers, profile) {
        Ok(found) => found,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(boot::EXIT_CONFIG);
        }
    };
    logging::install(&loaded.config.log, loaded.config.log_format);
    let force = args.force || profile == Some("dev");
    for line in lint::lint(&loaded, Machine::here()).iter().filter(|line| line.verdict == Verdict::Fail) {
        if !force {
            eprintln!(
                "obtrace: {line}\nobtrace: `obtrace config lint` shows all rules, --force starts anyway"
            );
            return ExitCode::from(boot::EXIT_CONFIG);
        }
        tracing::warn!("{line}");
    }
    boot::run(loaded, Origin { layers, force })
}

fn load_config(args: &ServeArgs, profile: Option<&str>) -> Result<(LoadArgs, Loaded), String> {
    let args = load_args(args, profile)?;
    let loaded = tuning::load(&args).map_err(|errors| errors.to_string())?;
    Ok((args, loaded))
}

fn load_args(args: &ServeArgs, profile: Option<&str>) -> Result<LoadArgs, String> {
    let mut flags: Vec<Flag> = Vec::new();
    let mut flag = |name: &str, key: &str, value: Option<String>| {
        flags.extend(value.map(|value| Flag::new(name, key, value)));
    };
    flag("--data-dir", "data_dir", args.data_dir.as_ref().map(|dir| dir.display().to_string()));
    flag("--otlp-grpc", "ingest.otlp_grpc", args.otlp_grpc.map(|a| a.to_string()));
    flag("--otlp-http", "ingest.otlp_http", args.otlp_http.map(|a| a.to_string()));
    flag("--http", "serve.http", args.http.map(|a| a.to_string()));
    flag("--roles", "roles", args.roles.clone());
    for set in &args.set {
        flags.push(Flag::assignment(set).map_err(|why| format!("--set: {why}"))?);
    }
    let files = args.config.clone();
    let args = LoadArgs { profile: profile.map(str::to_owned), files, flags, ..LoadArgs::default() };
    Ok(args.with_process_env())
}

fn tool(command: impl Future<Output = Result<ExitCode, ToolError>>) -> ExitCode {
    client(async {
        command.await.unwrap_or_else(|error| {
            eprintln!("obtrace: {error}");
            ExitCode::from(2)
        })
    })
}

fn client(command: impl Future<Output = ExitCode>) -> ExitCode {
    match boot::run_client(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("obtrace: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
