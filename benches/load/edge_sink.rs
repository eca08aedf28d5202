//! The ingest edge alone, for `make bench`: OTLP gRPC in, through listener, receivers and producer, into an event log that
//! only counts and acknowledges. Prints `ready`, and at its end what it counted as JSON. Fails when it cannot bind.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::Parser;
use futures_util::future::BoxFuture;
use obtrace::backends::blobs::folder::FolderBlobs;
use obtrace::backends::event_log::{
    Appended, Claim, Committed, EventLog, LogError, Offset, Record, StoredRecord,
};
use obtrace::backends::plans::ConfiguredPlans;
use obtrace::backends::state::sqlite::SqliteState;
use obtrace::backends::telemetry::client::{TelemetryClient, TelemetrySettings};
use obtrace::config::Config;
use obtrace::config::live::LiveConfig;
use obtrace::domain::admin::AdminAccess;
use obtrace::domain::auth::{Grant, KeyLog, KeyTable, hash_key};
use obtrace::domain::envelope::WireFormat;
use obtrace::domain::gate::GateAnswer;
use obtrace::domain::plan::Plan;
use obtrace::domain::refusal::Refusal;
use obtrace::domain::scope::Scope;
use obtrace::domain::signal::Signal;
use obtrace::domain::usage::{Day, Meter, Usage};
use obtrace::domain::versions::VersionLog;
use obtrace::messages::tenant::TenantGate;
use obtrace::supervisors::kernel::lane::Lane;
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;
use obtrace::supervisors::{Parts, backends, ingest, policies, store, stream};
use obtrace::telemetry::metrics::Metrics;
use obtrace::wire::envelope::record_count;
use tokio::signal::unix::{SignalKind, signal};

// As in the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The edge of Obtrace over a log that only counts.
#[derive(Parser)]
struct Args {
    /// Address of OTLP gRPC
    #[arg(long)]
    otlp_grpc: SocketAddr,
    /// Encoding of the payloads that are appended: json or otlp
    #[arg(long, value_parser = ["json", "otlp"])]
    wire_format: String,
    /// The one API key that is let in
    #[arg(long)]
    key: String,
}

/// Counts what is appended and says that it is there. It keeps nothing: no compression, no dedup window, no disk.
struct CountingLog {
    partitions: u32,
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Lets everything in: what the gate costs is not measured here.
struct OpenGate;

impl TenantGate for OpenGate {
    fn admit<'a>(&'a self, _: &'a Arc<str>, _: Signal) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn plan<'a>(&'a self, _: &'a Arc<str>) -> BoxFuture<'a, Option<Plan>> {
        Box::pin(std::future::ready(None))
    }

    fn answer<'a>(&'a self, _: &'a Arc<str>) -> BoxFuture<'a, GateAnswer> {
        Box::pin(std::future::ready(GateAnswer::unknown(Usage::default(), Day(0))))
    }
}

impl EventLog for CountingLog {
    fn partitions(&self, _topic: &str) -> Option<u32> {
        Some(self.partitions)
    }

    fn append(
        &self,
        _topic: &str,
        _partition: u32,
        record: Record,
        _dedup: Option<u128>,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.records.fetch_add(u64::from(record_count(&record.headers)), Ordering::Relaxed);
        self.bytes.fetch_add(record.size() as u64, Ordering::Relaxed);
        let offset = self.batches.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Appended { offset, duplicate: false })))
    }

    fn read(
        &self,
        _topic: &str,
        _partition: u32,
        _from: Offset,
        _max_records: usize,
        _max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredRecord>, LogError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn wait_for(
        &self,
        _topic: &str,
        _partition: u32,
        _at: Offset,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        Box::pin(std::future::pending())
    }

    fn bounds(&self, _topic: &str, _partition: u32) -> Result<(Offset, Offset), LogError> {
        Ok((0, 0))
    }

    fn claim(
        &self,
        _group: &str,
        _topic: &str,
        _partition: u32,
    ) -> BoxFuture<'static, Result<(Claim, Committed), LogError>> {
        Box::pin(std::future::ready(Ok((Claim(1), Committed::default()))))
    }

    fn commit(
        &self,
        _group: &str,
        _topic: &str,
        _partition: u32,
        _claim: Claim,
        _position: Committed,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn committed(&self, _group: &str, _topic: &str, _partition: u32) -> Result<Option<Committed>, LogError> {
        Ok(None)
    }
}

fn main() -> ExitCode {
    // As the program itself.
    nix::sys::prctl::set_thp_disable(true).ok();
    let args = Args::parse();
    let io =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("io").enable_all().build();
    let io = match io {
        Ok(io) => io,
        Err(error) => return fail(&error.to_string()),
    };
    let ended = actix::System::new().block_on(serve(&args, io.handle().clone()));
    io.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("edge sink: {why}");
    ExitCode::FAILURE
}

/// Runs the two subtrees of the edge, as the whole tree wires them, until it is told to stop.
async fn serve(args: &Args, io: tokio::runtime::Handle) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let config = config(args);
    let pools = config.supervision.pools.all().map(|(name, pool)| (name.to_owned(), pool.threads as usize));
    let log = Arc::new(CountingLog {
        partitions: config.stream.partitions,
        batches: AtomicU64::default(),
        records: AtomicU64::default(),
        bytes: AtomicU64::default(),
    });
    let parts = parts(args, config, log.clone(), io)?;
    let (broker_out, ports) = stream::broker_out(&parts);
    let edge = vec![broker_out, ingest::subtree(&parts, ports.producer, Arc::new(OpenGate))];
    let mut tree =
        Tree::start(&ChildSpec::supervisor("root", parts.policy(""), edge), Pools::new(pools.into()));
    tree.ready().await.map_err(|reason| reason.to_string())?;
    println!("ready");
    tokio::select! {
        reason = tree.failed() => return Err(reason.to_string()),
        _ = terminate.recv() => {}
    }
    tree.stop(Duration::from_secs(10)).await;
    let [batches, records, bytes] =
        [&log.batches, &log.records, &log.bytes].map(|count| count.load(Ordering::Relaxed));
    println!("{}", serde_json::json!({ "batches": batches, "records": records, "bytes": bytes }));
    Ok(())
}

fn config(args: &Args) -> Config {
    let mut config = Config::default();
    config.ingest.otlp_grpc = args.otlp_grpc;
    config.ingest.otlp_http = SocketAddr::from(([127, 0, 0, 1], 0));
    config.ingest.wire_format = if args.wire_format == "otlp" { WireFormat::Otlp } else { WireFormat::Json };
    config
}

fn parts(
    args: &Args,
    config: Config,
    log: Arc<CountingLog>,
    io: tokio::runtime::Handle,
) -> Result<Parts, String> {
    let telemetry_settings = TelemetrySettings { url: None, ..store::telemetry_settings(&config) };
    let client = TelemetryClient::new(telemetry_settings).map_err(|error| error.to_string())?;
    let grant = Grant {
        scope: Scope::new("bench", "default", "", "").map_err(|error| error.to_string())?,
        retention_days: config.ingest.retention_days,
        expires_at: None,
        key: None,
    };
    // Nothing here calls the stores: they open at their first call.
    let nowhere = std::env::temp_dir().join("obtrace-edge-sink");
    let reloads = Lane::new("serve.reloader", policies::resolve(&config, "serve.reloader").lane);
    let shared = backends::shared(&config, &io)?;
    let live = LiveConfig::from(config);
    Ok(Parts {
        reloads,
        origin: Arc::default(),
        live: live.clone(),
        log,
        telemetry: Arc::new(client),
        state: Arc::new(SqliteState::new(&nowhere.join("state.db")).map_err(|error| error.to_string())?),
        blobs: Arc::new(FolderBlobs::new(&nowhere)),
        shared,
        node: "edge-sink".into(),
        plans: Arc::new(ConfiguredPlans(live)),
        meter: Meter::default(),
        versions: VersionLog::default(),
        key_log: KeyLog::default(),
        keys: Arc::new(ArcSwap::from_pointee(KeyTable::new([(hash_key(&args.key), grant)], None))),
        admin: Arc::new(ArcSwap::from_pointee(AdminAccess::default())),
        metrics: Metrics::new(),
        io,
        view: Arc::new(ArcSwap::from_pointee(None)),
    })
}
