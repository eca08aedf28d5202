//! `obtrace migrate`: the schemas of all stores as the configuration names them, brought up to date or only looked at.
//!
//! With `--plan` nothing changes. Exit codes: 0 nothing is left to do, 1 (`--plan`) something is, 69 a store cannot be
//! reached, 78 a schema or the configuration does not allow it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{ServeArgs, load_config};
use crate::backends::event_log::kafka::topics::{ensure_topics, plan_topics};
use crate::backends::state::migrate as state_schema;
use crate::backends::telemetry::access;
use crate::backends::telemetry::client::{TelemetryClient, TelemetrySettings};
use crate::backends::telemetry::engine::{EngineChild, USER};
use crate::backends::telemetry::migrate::{self, Plan, Step};
use crate::boot;
use crate::config::Config;
use crate::config::kafka::LogBackend;
use crate::domain::failure::{Classified, FailureClass};
use crate::supervisors::{backends, log, store};

/// Something is left to do.
const EXIT_PENDING: u8 = 1;
/// Longest wait for the brokers.
const TOPICS_WITHIN: Duration = Duration::from_secs(30);
/// A store does not answer.
const EXIT_UNAVAILABLE: u8 = 69;

/// What to migrate, and whether to do it.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    layers: ServeArgs,
    /// Only say what would be done; exit code 1 where there is something
    #[arg(long)]
    plan: bool,
    /// Show every statement whole
    #[arg(long)]
    sql: bool,
}

/// Why a store is as it was, and the exit code that says so.
struct Refused {
    why: String,
    code: u8,
}

impl Refused {
    fn of(error: &(impl Classified + ToString)) -> Self {
        let code = match error.class() {
            FailureClass::Config => boot::EXIT_CONFIG,
            _ => EXIT_UNAVAILABLE,
        };
        Self { why: error.to_string(), code }
    }
}

pub(super) async fn run(args: MigrateArgs) -> ExitCode {
    let config = match load_config(&args.layers, None) {
        Ok((_, loaded)) => loaded.config,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(boot::EXIT_CONFIG);
        }
    };
    // What takes data in waits for its log, what stores it for its tables: the log last. Each is tried, whatever became of
    // the others.
    let found = [state(&config, &args).await, telemetry(&config, &args).await, topics(&config, &args).await];
    let mut code = boot::EXIT_OK;
    for found in found {
        code = code.max(match found {
            Ok(pending) if pending && args.plan => EXIT_PENDING,
            Ok(_) => boot::EXIT_OK,
            Err(refused) => {
                eprintln!("obtrace: {}", refused.why);
                refused.code
            }
        });
    }
    match code {
        EXIT_PENDING => println!("run `obtrace migrate` without --plan to do this"),
        boot::EXIT_OK => println!("nothing is left to do"),
        _ => {}
    }
    ExitCode::from(code)
}

/// The state store: whether something was to be done.
async fn state(config: &Config, args: &MigrateArgs) -> Result<bool, Refused> {
    let place = backends::state_place(config).map_err(|why| Refused { why, code: boot::EXIT_CONFIG })?;
    let before =
        if args.plan { state_schema::plan(&place).await } else { state_schema::migrate(&place).await };
    let before = before.map_err(|fault| Refused::of(&fault))?;
    let due: Vec<String> = before.pending().map(|step| format!("V{} {}", step.version, step.name)).collect();
    print!("{}", short_report("state", &before.store, before.steps.len(), &due, args.plan));
    Ok(!due.is_empty())
}

/// The topics, where the log is at brokers: whether something was to be done.
async fn topics(config: &Config, args: &MigrateArgs) -> Result<bool, Refused> {
    if config.stream.backend != LogBackend::Kafka {
        return Ok(false);
    }
    let settings = log::kafka_settings(config);
    let before = match args.plan {
        true => plan_topics(&settings, TOPICS_WITHIN).await,
        false => ensure_topics(&settings, TOPICS_WITHIN).await,
    };
    let before = before.map_err(|error| Refused::of(&error))?;
    let due: Vec<String> = before.missing().map(ToString::to_string).collect();
    let place = settings.connection.brokers.join(", ");
    print!("{}", short_report("topics", &place, settings.topics.len(), &due, args.plan));
    for step in before.differences() {
        println!("  note   {step}");
    }
    Ok(!due.is_empty())
}

/// What is there and what is, or would be, done, one line a step.
fn short_report(store: &str, place: &str, all: usize, due: &[String], plan: bool) -> String {
    let mut text = format!("{store:<10} {place}: {} of {all} in place\n", all.saturating_sub(due.len()));
    for step in due {
        writeln!(text, "  {}   {step}", if plan { "to do" } else { "done " }).ok();
    }
    text
}

/// The telemetry store: whether something was to be done.
async fn telemetry(config: &Config, args: &MigrateArgs) -> Result<bool, Refused> {
    let (settings, layout) = (store::telemetry_settings(config), store::layout(config));
    let mut settings = TelemetrySettings { reader: None, ..settings };
    let engine = store::engine_spec(config);
    let folder = config.data_dir.join("engine");
    let place = match &settings.url {
        Some(url) => format!("{url}, database {}", settings.database),
        None => format!("the engine in {}", folder.display()),
    };
    // An engine that has never run is not made for a look.
    if engine.is_some() && args.plan && !folder.exists() {
        let plan = migrate::whole(&layout, &settings.database);
        print!("{}", report("telemetry", &place, &plan, args));
        return Ok(!plan.steps.is_empty());
    }
    let child = match engine {
        Some(spec) => Some(EngineChild::spawn(spec).await.map_err(|error| Refused::of(&error))?),
        None => None,
    };
    if let Some(endpoint) = child.as_ref().and_then(EngineChild::endpoint) {
        settings = TelemetrySettings {
            url: Some(endpoint.url),
            user: USER.into(),
            password: endpoint.secret,
            ..settings
        };
    }
    let client = TelemetryClient::new(settings).map_err(|error| Refused::of(&error))?;
    let done = async {
        let mut plan = migrate::plan(&client, &layout).await?;
        let wanted = store::server_access(config);
        if let Some(wanted) = &wanted {
            plan.steps.extend(access::plan(&client, &layout, wanted).await?);
        }
        print!("{}", report("telemetry", &place, &plan, args));
        if !args.plan && !plan.steps.is_empty() {
            migrate::run(&client, &layout).await?;
            if let Some(wanted) = &wanted {
                access::run(&client, &layout, wanted).await?;
            }
        }
        Ok(!plan.steps.is_empty())
    }
    .await;
    if let Some(child) = child {
        child.stop(config.telemetry.engine.stop_timeout).await;
    }
    done.map_err(|error: migrate::MigrateError| Refused::of(&error))
}

/// A statement without the hash of a password in it.
fn masked(sql: &str) -> String {
    let Some((before, rest)) = sql.split_once("IDENTIFIED WITH sha256_hash BY '") else {
        return sql.to_owned();
    };
    let after = rest.split_once('\'').map_or("", |(_, after)| after);
    format!("{before}IDENTIFIED WITH sha256_hash BY '***'{after}")
}

/// What is there of a schema, and what is, or would be, done.
fn report(store: &str, place: &str, plan: &Plan, args: &MigrateArgs) -> String {
    let Plan { version, latest, steps } = plan;
    let mut text = format!("{store:<10} {place}: version {version} of {latest}\n");
    for Step { name, statements } in steps {
        let does = if args.plan { "to do" } else { "doing" };
        writeln!(text, "  {does}  {name}, {} statements", statements.len()).ok();
        for statement in statements.iter().filter(|_| args.plan || args.sql).map(|sql| masked(sql)) {
            let shown = match args.sql {
                true => format!("{statement};").replace('\n', "\n         "),
                false => statement.lines().next().unwrap_or_default().to_owned(),
            };
            writeln!(text, "         {shown}").ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: MigrateArgs,
    }

    fn args(typed: &[&str]) -> MigrateArgs {
        Typed::parse_from(std::iter::once("migrate").chain(typed.iter().copied())).args
    }

    #[test]
    fn steps_are_listed_as_to_do_or_done() {
        let due = ["V2 deploys".to_owned()];
        assert_eq!(
            short_report("state", "here", 2, &due, true),
            "state      here: 1 of 2 in place\n  to do   V2 deploys\n"
        );
        assert!(short_report("state", "here", 2, &due, false).ends_with("  done    V2 deploys\n"));
    }

    #[test]
    fn a_plan_lists_steps_and_the_beginning_of_each_statement_or_all_of_it() {
        let step =
            Step { name: "V2 more".into(), statements: vec!["ALTER TABLE a\n  ADD COLUMN b Int8".into()] };
        let plan = Plan { version: 1, latest: 2, steps: vec![step] };
        assert_eq!(
            report("telemetry", "here", &plan, &args(&["--plan"])),
            "telemetry  here: version 1 of 2\n  to do  V2 more, 1 statements\n         ALTER TABLE a\n"
        );
        assert!(
            report("telemetry", "here", &plan, &args(&["--sql"]))
                .ends_with("ALTER TABLE a\n           ADD COLUMN b Int8;\n")
        );
        assert_eq!(
            masked("CREATE USER a IDENTIFIED WITH sha256_hash BY 'abc' HOST ANY"),
            "CREATE USER a IDENTIFIED WITH sha256_hash BY '***' HOST ANY"
        );
        let done = Plan { version: 2, latest: 2, steps: Vec::new() };
        assert_eq!(report("t", "here", &done, &args(&[])), "t          here: version 2 of 2\n");
    }
}
