//! `obtrace demo`: a simulated shop sends traces, logs and metrics over OTLP, with a fault planted on request.
//!
//! The shop runs on simulated time: the same seed makes the same requests at the same offsets, whenever it is started.

mod fault;
mod flows;
mod metrics;
mod otlp;
mod services;
mod shop;
#[cfg(test)]
mod tests;
mod trace;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use self::fault::Fault;
pub use self::shop::{Export, Shop, ShopPlan};
use super::error::ToolError;
use super::otlp_client::{Compression, Encoding, OtlpClient, OtlpTarget, Outcome, Protocol};
use super::units::{parse_duration, parse_rate};
use crate::clock;
use crate::domain::signal::Signal;

const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Tries of one export before it is dropped: a demo does not hold history back for a server that is gone.
const TRIES: u32 = 30;
const SECOND: u64 = 1_000_000_000;

/// Sends the telemetry of a shop of eight services to a running Obtrace.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// OTLP endpoint, http://HOST:PORT [default: port 4317 for gRPC, 4318 for HTTP, on 127.0.0.1]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// How to speak to it
    #[arg(long, value_enum, default_value = "grpc")]
    pub protocol: Protocol,
    /// API key
    #[arg(long, env = "OBTRACE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Customer requests a second
    #[arg(long, value_parser = parse_rate, default_value = "10/s")]
    pub rate: f64,
    /// How long to send; 0 until Ctrl-C
    #[arg(long, value_parser = parse_duration, default_value = "0")]
    pub duration: Duration,
    /// Seed; the same seed makes the same shop
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// What goes wrong
    #[arg(long, value_enum, default_value = "none")]
    pub fault: Fault,
    /// When it goes wrong, from the start of the live part
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub fault_after: Duration,
    /// Send this much history first
    #[arg(long, value_parser = parse_duration, default_value = "0")]
    pub backfill: Duration,
    /// Where the API is, for the hints that are printed
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub api: String,
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Sent {
    spans: u64,
    logs: u64,
    points: u64,
    dropped: u64,
}

/// Runs the shop until its time is over or Ctrl-C.
///
/// # Errors
/// [`ToolError`] where the endpoint is unusable or refuses the data for good.
pub async fn run(args: DemoArgs) -> Result<ExitCode, ToolError> {
    let usual = match args.protocol {
        Protocol::Grpc => "http://127.0.0.1:4317",
        Protocol::Http => "http://127.0.0.1:4318",
    };
    let target = OtlpTarget {
        endpoint: args.endpoint.clone().unwrap_or_else(|| usual.to_owned()),
        protocol: args.protocol,
        encoding: Encoding::Protobuf,
        compression: Compression::Gzip,
        api_key: args.api_key.clone(),
        timeout: TIMEOUT,
    };
    let client = OtlpClient::new(&target)?;
    introduce(&args, &target.endpoint);
    let mut sent = Sent::default();
    let result = tokio::select! {
        result = play(&args, &target.endpoint, &client, &mut sent) => result,
        Ok(()) = tokio::signal::ctrl_c() => Ok(()),
    };
    println!(
        "sent {} spans, {} log records, {} data points; {} records dropped",
        sent.spans, sent.logs, sent.points, sent.dropped
    );
    result?;
    Ok(if sent.dropped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays the shop second by second: history as fast as it is taken, then live.
async fn play(
    args: &DemoArgs,
    endpoint: &str,
    client: &OtlpClient,
    sent: &mut Sent,
) -> Result<(), ToolError> {
    let backfill = args.backfill.as_secs();
    let base_ns = clock::unix_nanos().saturating_sub(backfill * SECOND);
    let plan = ShopPlan {
        seed: args.seed,
        rate: args.rate,
        base_ns,
        fault: args.fault,
        fault_from_ns: base_ns + backfill * SECOND + args.fault_after.as_nanos() as u64,
    };
    let mut shop = Shop::new(plan);
    let live = clock::now();
    let end = (!args.duration.is_zero()).then(|| backfill + args.duration.as_secs().max(1));
    for second in 0.. {
        if end == Some(second) {
            break;
        }
        if let Some(ahead) = (second + 1).checked_sub(backfill) {
            tokio::time::sleep_until(live + Duration::from_secs(ahead)).await;
        }
        if second == backfill && backfill > 0 {
            println!(
                "{backfill} s of history sent: {} spans, {} log records; now live",
                sent.spans, sent.logs
            );
        }
        for export in shop.second() {
            deliver(endpoint, client, export, sent).await?;
        }
    }
    for export in shop.close() {
        deliver(endpoint, client, export, sent).await?;
    }
    Ok(())
}

/// Sends one export, again while the server is away or asks for it.
async fn deliver(
    endpoint: &str,
    client: &OtlpClient,
    export: Export,
    sent: &mut Sent,
) -> Result<(), ToolError> {
    let (signal, records) = (export.signal, export.records);
    let body: Bytes = export.body;
    for attempt in 0..TRIES {
        let outcome = client.export(signal, body.clone()).await;
        let (wait, reason) = match outcome {
            Outcome::Accepted => {
                sent.count(signal, records, 0);
                return Ok(());
            }
            Outcome::Rejected { records: refused, message } => {
                eprintln!("{endpoint} refused {refused} {signal} records: {message}");
                sent.count(signal, records, refused);
                return Ok(());
            }
            Outcome::Permanent { code, message } => {
                let reason = format!("{code}: {message}");
                return Err(ToolError::Refused {
                    endpoint: endpoint.to_owned(),
                    signal: signal.as_str(),
                    reason,
                });
            }
            Outcome::Retryable { after, code, message } => {
                (after.unwrap_or(RETRY_PAUSE), format!("{code}: {message}"))
            }
            Outcome::Unknown { code, message } => (RETRY_PAUSE, format!("{code}: {message}")),
        };
        if attempt == 0 {
            eprintln!("{endpoint} does not take {signal} yet, trying again: {reason}");
        }
        let wake: Instant = clock::now() + wait;
        tokio::time::sleep_until(wake).await;
    }
    sent.count(signal, 0, records);
    Ok(())
}

impl Sent {
    fn count(&mut self, signal: Signal, taken: u64, dropped: u64) {
        let counter = match signal {
            Signal::Traces => &mut self.spans,
            Signal::Logs => &mut self.logs,
            Signal::Metrics => &mut self.points,
        };
        *counter += taken.saturating_sub(dropped);
        self.dropped += dropped;
    }
}

/// Says what is sent, where to look, and what the fault does.
fn introduce(args: &DemoArgs, endpoint: &str) {
    println!(
        "a shop of {} services sends {} requests/s to {endpoint}",
        services::Service::ALL.len(),
        args.rate
    );
    if !args.backfill.is_zero() {
        println!("first {} s of history", args.backfill.as_secs());
    }
    println!("services  {}/api/v1/services", args.api);
    println!("traces    {}/api/v1/traces?service=checkout&limit=20", args.api);
    println!("logs      {}/api/v1/logs?q=level%3E%3Dwarn", args.api);
    println!(
        "metrics   {}/api/v1/metrics/query?name=http.server.request.duration&agg=p95&by=service",
        args.api
    );
    if args.fault != Fault::None {
        let name = clap::ValueEnum::to_possible_value(&args.fault).map(|v| v.get_name().to_owned());
        println!(
            "fault     {} after {} s: {}",
            name.unwrap_or_default(),
            args.fault_after.as_secs(),
            args.fault.effect()
        );
    }
}
