//! `obtrace deploy`: tells a running Obtrace that a version of a service begins to run, at the end of a pipeline.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::remote::Remote;
use crate::clock;
use crate::domain::query::time::format_rfc3339;

/// Time the answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What began to run, and where it is told.
#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    /// Service, as its telemetry names it
    service: String,
    /// The version: a tag, a commit
    version: String,
    /// When, such as 2026-01-31T12:00:00Z, Unix seconds or now-5m; now when absent. The same again is the same marker
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
    /// Who deploys, beside the name of the key
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Address of the API
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "OBTRACE_API")]
    api: String,
    /// API key of the tenant; none is needed on the machine of an `obtrace dev`
    #[arg(long, env = "OBTRACE_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Prints the marker as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DeployArgs) -> ExitCode {
    let now = format_rfc3339(i64::try_from(clock::unix_nanos()).unwrap_or(i64::MAX));
    let body = body(&args, now);
    let remote = Remote::at(args.api, args.key, PATIENCE);
    match remote.post("/api/v1/deploys", &body).await {
        Ok(marker) if args.json => println!("{marker}"),
        Ok(marker) => println!("{}", line(&marker)),
        Err(why) => {
            eprintln!("obtrace: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The time goes along in any case: a proxy that sends it twice makes one marker.
fn body(args: &DeployArgs, now: String) -> Value {
    let at = args.at.clone().unwrap_or(now);
    let mut body = json!({"service": args.service, "version": args.version, "at": at});
    if let Some(by) = &args.by {
        body["by"] = json!(by);
    }
    body
}

fn line(marker: &Value) -> String {
    let text = |key: &str| marker[key].as_str().unwrap_or("?");
    format!("{} {} since {}, told by {}", text("service"), text("version"), text("time"), text("by"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: DeployArgs,
    }

    fn typed(words: &[&str]) -> Value {
        let args = Typed::parse_from([&["deploy", "cart", "1.4.2"], words].concat()).args;
        body(&args, "2026-01-31T12:00:00Z".to_owned())
    }

    #[test]
    fn what_is_typed_becomes_a_body_with_a_time() {
        let cart = |at: &str| json!({"service": "cart", "version": "1.4.2", "at": at});
        assert_eq!(typed(&[]), cart("2026-01-31T12:00:00Z"));
        assert_eq!(typed(&["--at", "now-5m"]), cart("now-5m"));
        assert_eq!(typed(&["--by", "ann"])["by"], "ann");
        let marker = json!({"service": "cart", "version": "1.4.2", "time": "2026-01-31T12:00:00Z", "by": "ann (key ci)"});
        assert_eq!(line(&marker), "cart 1.4.2 since 2026-01-31T12:00:00Z, told by ann (key ci)");
    }
}
