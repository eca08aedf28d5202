//! `obtrace load`: flags in, marked records out to an OTLP endpoint, a report and, on request, proof that all of it was stored once.

mod api;
mod histogram;
mod identity;
mod journal;
mod payload;
mod report;
mod send;
mod tally;
#[cfg(test)]
mod tests;
mod verify;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

pub use self::identity::{Identity, hex};
pub use self::journal::{Batch, Fate, Journal, Ledger, RunInfo};
pub use self::payload::{BATCH_KEY, METRIC, PayloadMaker, RUN_KEY, SEQ_KEY, Shape};
pub use self::report::Report;
pub use self::send::{SendPlan, SignalMix, send};
pub use self::tally::Verdict;
pub use self::verify::{VerifyPlan, verify};
use super::error::ToolError;
use super::otlp_client::{Compression, Encoding, OtlpClient, OtlpTarget, Protocol};
use super::units::{parse_duration, parse_rate};
use crate::clock;

/// Length of a run that is bounded neither by time nor by records.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Sends marked telemetry at a fixed rate or as fast as it is taken, and verifies what became of it.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// OTLP endpoint, http://HOST:PORT [default: port 4317 for gRPC, 4318 for HTTP, on 127.0.0.1]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// How to speak to it
    #[arg(long, value_enum, default_value = "grpc")]
    pub protocol: Protocol,
    /// What to send
    #[arg(long, value_enum, default_value = "traces")]
    pub signal: SignalMix,
    /// Records a second; latency counts from the intended send time
    #[arg(long, value_name = "N/s", value_parser = parse_rate, default_value = "1000/s")]
    pub rate: f64,
    /// Send as fast as answers come instead of at a rate
    #[arg(long)]
    pub saturate: bool,
    /// Connections
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// Requests in flight on each connection (over HTTP each takes a socket of its own)
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,
    /// Records of a batch
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: u32,
    /// Attributes of a record, its marks included
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(3..=256))]
    pub attributes: u16,
    /// Bytes of each attribute value
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(0..=8_192))]
    pub attribute_bytes: u16,
    /// How long to send [default: 10s, or until --records are sent]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How many records to send
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub records: Option<u64>,
    /// Compression of requests
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// API key, for the OTLP endpoint and the API
    #[arg(long, env = "OBTRACE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Name of the run on every record [default: random]
    #[arg(long, value_parser = parse_run_id)]
    pub run_id: Option<String>,
    /// Seed of ids and values
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Append what becomes of every batch to this new file, so that another process can verify
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Send identical bytes again after a lost connection or a retryable refusal, until accepted
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub retry: bool,
    /// Deadline of one request
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// How long batches not yet accepted are carried on after the end
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub drain_timeout: Duration,
    /// Ask the API afterwards which acknowledged records are missing or doubled
    #[arg(long)]
    pub verify: bool,
    /// Send nothing; verify the run of --journal
    #[arg(long, requires = "journal")]
    pub verify_only: bool,
    /// Where the API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub api: String,
    /// How long missing rows are waited for
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub verify_timeout: Duration,
    /// How long a run that looks whole may settle before it is counted for good
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub verify_settle: Duration,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the load generator until it is done or Ctrl-C, and prints the report.
///
/// Success means that every record sent was accepted or, where verification was asked for, that none that was acknowledged
/// is missing and none is there twice.
///
/// # Errors
/// [`ToolError`] for flags that make no sense, a journal that cannot be used, and an API that cannot be asked.
pub async fn run(args: LoadArgs) -> Result<ExitCode, ToolError> {
    if args.verify_only {
        return verify_journal(&args).await;
    }
    let interrupt = async {
        // Without a handler Ctrl-C ends the process as it does any other; nothing to be done about it here.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let (mut report, ledger) = generate(&args, interrupt).await?;
    if args.verify {
        report.verified = Some(verify(&ledger, &args.verify_plan()).await?);
    }
    let good = match &report.verified {
        Some(verdicts) => proven(verdicts),
        None => report.accepted == report.sent,
    };
    print(&report, args.json);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends one run and says what became of it.
///
/// # Errors
/// As [`run`].
pub async fn generate(
    args: &LoadArgs,
    interrupt: impl Future<Output = ()>,
) -> Result<(Report, Ledger), ToolError> {
    let run_id = args.run_id.clone().unwrap_or_else(random_run_id);
    let batch_size = u64::from(args.batch);
    let shape = Shape {
        attributes: usize::from(args.attributes),
        attribute_bytes: usize::from(args.attribute_bytes),
    };
    let maker = PayloadMaker::new(&run_id, args.seed, batch_size, shape);
    let info = RunInfo { run: run_id.clone(), seed: args.seed, batch_size };
    let journal = Journal::create(info, args.journal.as_deref())?;
    let target = args.target();
    let clients =
        (0..args.connections).map(|_| OtlpClient::new(&target)).collect::<Result<Vec<_>, ToolError>>()?;
    let (cpu, start) = (own_cpu()?, clock::now());
    let (stats, journal) = send(args.plan(), maker, journal, clients, interrupt).await?;
    let report = Report::new(&run_id, stats, start.elapsed(), own_cpu()?.saturating_sub(cpu));
    Ok((report, journal.ledger()))
}

async fn verify_journal(args: &LoadArgs) -> Result<ExitCode, ToolError> {
    let path = args.journal.as_deref().ok_or_else(|| ToolError::Usage {
        flag: "--verify-only",
        reason: "needs --journal FILE of the run to verify".to_owned(),
    })?;
    let verdicts = verify(&Ledger::read(path)?, &args.verify_plan()).await?;
    if args.json {
        println!("{}", serde_json::json!({ "verified": verdicts }));
    } else {
        verdicts.iter().for_each(|verdict| print!("{verdict}"));
    }
    let good = proven(&verdicts);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl LoadArgs {
    fn target(&self) -> OtlpTarget {
        let usual = match self.protocol {
            Protocol::Grpc => "http://127.0.0.1:4317",
            Protocol::Http => "http://127.0.0.1:4318",
        };
        OtlpTarget {
            endpoint: self.endpoint.clone().unwrap_or_else(|| usual.to_owned()),
            protocol: self.protocol,
            encoding: Encoding::Protobuf,
            compression: self.compression,
            api_key: self.api_key.clone(),
            timeout: self.timeout,
        }
    }

    fn plan(&self) -> SendPlan {
        let interval = Duration::from_secs_f64(f64::from(self.batch) / self.rate);
        SendPlan {
            mix: self.signal,
            batch_size: u64::from(self.batch),
            records: self.records,
            interval: (!self.saturate).then_some(interval),
            duration: self.duration.or(self.records.is_none().then_some(DEFAULT_DURATION)),
            in_flight: usize::from(self.in_flight),
            retry: self.retry,
            drain: self.drain_timeout,
        }
    }

    fn verify_plan(&self) -> VerifyPlan {
        VerifyPlan {
            api: self.api.clone(),
            api_key: self.api_key.clone(),
            timeout: self.verify_timeout,
            settle: self.verify_settle,
        }
    }
}

/// Nothing acknowledged is missing or doubled; a run of which nothing was acknowledged proves nothing.
fn proven(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(Verdict::holds) && verdicts.iter().any(|verdict| verdict.acknowledged > 0)
}

/// A run id travels in attributes, query strings and the journal, so it is kept to harmless characters.
fn parse_run_id(text: &str) -> Result<String, String> {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(harmless) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 of a-z, A-Z, 0-9, '-', '_', '.'".to_owned())
}

fn random_run_id() -> String {
    format!("run-{:012x}", rand::random::<u64>() >> 16)
}

/// CPU time of this process so far, user and system.
fn own_cpu() -> Result<Duration, ToolError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)
        .map_err(|e| ToolError::System { what: "reading the own CPU time", source: e.into() })?;
    let micros = |t: nix::sys::time::TimeVal| {
        let micros = t.tv_sec().saturating_mul(1_000_000).saturating_add(t.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

fn print(report: &Report, json: bool) {
    match serde_json::to_string(report) {
        Ok(text) if json => println!("{text}"),
        _ => print!("{report}"),
    }
}
