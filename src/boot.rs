//! Brings the process up and down: runtimes, stores, the tree, signals, and the exit code that says how it went.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::actors::serve::reloader::RELOAD_DEADLINE;
use crate::backends::event_log::EventLog;
use crate::backends::plans::ConfiguredPlans;
use crate::backends::telemetry::client::{TelemetryClient, TelemetrySettings};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::config::roles::Role;
use crate::config::supervision::{OnRootLimit, PoolRuntime};
use crate::config::{Config, Loaded};
use crate::domain::auth::KeyLog;
use crate::domain::failure::FailureClass;
use crate::domain::usage::Meter;
use crate::domain::versions::VersionLog;
use crate::messages::serve::ReloadConfig;
use crate::supervisors::kernel::black_box::BlackBox;
use crate::supervisors::kernel::exit::ExitReason;
use crate::supervisors::kernel::lane::Lane;
use crate::supervisors::kernel::pools::{PoolSizes, Pools};
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::tree::{Tree, TreeView};
use crate::supervisors::kernel::watchdog::WatchdogPolicy;
use crate::supervisors::tuning::reload::Origin;
use crate::supervisors::{
    IO_THREADS, Parts, access, backends, black_boxes, inspection, log, policies, store, tree,
};
use crate::telemetry::metrics::Metrics;

/// Drained and stopped in order.
pub const EXIT_OK: u8 = 0;
/// The root's restart limit was passed.
pub const EXIT_ROOT_LIMIT: u8 = 70;
/// Something had to be aborted, or the shutdown budget ran out.
pub const EXIT_UNCLEAN: u8 = 75;
/// The configuration, a port or the data folder does not allow a start.
pub const EXIT_CONFIG: u8 = 78;

/// Runs Obtrace until it is told to stop or its root fails.
pub fn run(loaded: Loaded, origin: Origin) -> ExitCode {
    let Ok(io) = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .thread_name("io")
        .enable_all()
        .build()
    else {
        return fail(EXIT_CONFIG, "the I/O runtime cannot be started: is the limit of threads reached?");
    };
    let system = actix::System::new();
    let io = Arc::new(io);
    let code = system.block_on(serve(LiveConfig::new(loaded), origin, &io));
    // Connections that outlived their listener are not waited for. An arbiter thread that did not end may hold it still.
    if let Ok(io) = Arc::try_unwrap(io) {
        io.shutdown_timeout(Duration::from_secs(1));
    }
    ExitCode::from(code)
}

async fn serve(live: LiveConfig, origin: Origin, io: &Arc<Runtime>) -> u8 {
    let config = live.now();
    tracing::info!(roles = config.roles_text(), "starting");
    let log = match log::open(&config) {
        Ok(log) => log,
        Err(error) => return report_failure(EXIT_CONFIG, &error.to_string()),
    };
    let parts = match parts(&live, origin, &log, io.handle().clone()) {
        Ok(parts) => parts,
        Err(error) => return report_failure(EXIT_CONFIG, &error),
    };
    // Before anything is announced: without a handler the signal would end the process.
    actix_rt::spawn(reload_on_signal(parts.reloads.port()));
    let pools = Pools::watched(pool_sizes(&config), watchdog(&config));
    let sharing =
        config.supervision.pools.all().into_iter().filter(|(_, pool)| pool.runtime == PoolRuntime::Io);
    sharing.for_each(|(name, _)| pools.share(name, io.clone()));
    let mut running = match black_box(&live) {
        Ok(black_box) => Tree::start_recorded(&tree(&parts), pools, black_box),
        Err(why) => return report_failure(EXIT_CONFIG, &why),
    };
    parts.view.store(Arc::new(Some(running.view())));
    let mut stop = std::pin::pin!(stop_signal());
    tokio::select! {
        up = running.ready() => match up {
            Ok(()) => announce(&config),
            Err(reason) => return ended_by_itself(running, &reason, &parts, stop, &log).await,
        },
        () = &mut stop => return stopped(running, &live, &log).await,
    }
    tokio::select! {
        reason = running.failed() => ended_by_itself(running, &reason, &parts, stop, &log).await,
        () = &mut stop => stopped(running, &live, &log).await,
    }
}

fn watchdog(config: &Config) -> WatchdogPolicy {
    let watchdog = &config.supervision.watchdog;
    WatchdogPolicy {
        beat_every: watchdog.beat_every,
        condemn_after: watchdog.condemn_after,
        max_condemned: watchdog.max_condemned,
        per: watchdog.per,
    }
}

fn pool_sizes(config: &Config) -> PoolSizes {
    config.supervision.pools.all().map(|(name, pool)| (name.to_owned(), pool.threads as usize)).into()
}

fn parts(
    live: &LiveConfig,
    origin: Origin,
    log: &Arc<dyn EventLog>,
    io: tokio::runtime::Handle,
) -> Result<Parts, String> {
    let config = live.now();
    let telemetry_settings = store::telemetry_settings(&config);
    // Checks the address too; the client that is kept gets it once the schema is up to date.
    TelemetryClient::new(telemetry_settings.clone()).map_err(|error| error.to_string())?;
    let closed = TelemetrySettings { url: None, more_urls: Vec::new(), ..telemetry_settings };
    let telemetry = TelemetryClient::new(closed).map_err(|error| error.to_string())?;
    Ok(Parts {
        live: live.clone(),
        origin: Arc::new(origin),
        reloads: Lane::new("serve.reloader", policies::resolve(&config, "serve.reloader").lane),
        log: Arc::clone(log),
        telemetry: Arc::new(telemetry),
        state: backends::state(&config, &io)?,
        blobs: backends::blobs(&config, &io)?,
        shared: backends::shared(&config, &io)?,
        node: uuid::Uuid::now_v7().to_string().into(),
        plans: Arc::new(ConfiguredPlans(live.clone())),
        meter: Meter::default(),
        versions: VersionLog::default(),
        key_log: KeyLog::default(),
        keys: Arc::new(ArcSwap::from_pointee(access::key_table(&config)?)),
        admin: Arc::new(ArcSwap::from_pointee(access::admin_access(&config)?)),
        metrics: Metrics::new(),
        io,
        view: Arc::new(ArcSwap::from_pointee(None)),
    })
}

/// Tells a person where to send and where to look.
fn announce(config: &Config) {
    let (ingest, http) = (&config.ingest, config.serve.http);
    let key = if ingest.dev_loopback { "no key needed from this machine" } else { "with an API key" };
    println!("Obtrace is up: {}.", config.roles_text());
    let (edge, gateway) = (config.has_role(Role::IngestEdge), config.has_role(Role::QueryGateway));
    if edge {
        println!("  send   OTLP gRPC   http://{}   ({key})", ingest.otlp_grpc);
        println!("         OTLP HTTP   http://{}   (/v1/traces, /v1/logs, /v1/metrics)", ingest.otlp_http);
    }
    if gateway {
        println!("  look   API         http://{http}/api/v1/services");
        println!("         manual      http://{http}/api/docs");
    }
    println!("  steer  tree        http://{http}/admin/tree   or: obtrace tree --api http://{http}");
    println!("  data   {}", config.data_dir.display());
    if edge && gateway {
        println!("  try    obtrace demo");
    }
}

/// Has the configuration reloaded at each SIGHUP. What came of it is in the log.
async fn reload_on_signal(reloads: Port<ReloadConfig>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            return tracing::error!(%error, "SIGHUP cannot be listened for, it would end the process");
        }
    };
    while hangups.recv().await.is_some() {
        let make = |reply| ReloadConfig { who: "SIGHUP".into(), reply };
        if let Err(error) = reloads.ask(make, RELOAD_DEADLINE * 2).await {
            tracing::error!(%error, "the reloader did not answer to SIGHUP");
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT.
async fn stop_signal() {
    let waits = [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(error) => {
                tracing::error!(%error, "a signal handler cannot be installed");
                std::future::pending().await
            }
        }
    });
    let [terminate, interrupt] = waits;
    tokio::select! {
        () = terminate => {}
        () = interrupt => {}
    }
}

/// Fails `/readyz` for `supervision.lame_duck`, so that a balancer turns away before the listeners close; another signal
/// cuts it short.
async fn lame_duck(view: &TreeView, wait: Duration) {
    view.announce_stop();
    if wait.is_zero() {
        return;
    }
    tracing::info!(?wait, "not ready any more, stopping after this wait; another signal stops at once");
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stop_signal() => tracing::info!("a second signal: stopping at once"),
    }
}

async fn stopped(running: Tree, live: &LiveConfig, log: &Arc<dyn EventLog>) -> u8 {
    let (begun, supervision) = (clock::now(), live.now().supervision.clone());
    lame_duck(&running.view(), supervision.lame_duck).await;
    tracing::info!("stopping");
    // The budget counts from the signal.
    let left = supervision.shutdown_budget.saturating_sub(clock::now() - begun);
    let report = running.stop(left).await;
    let closed = log.close(Duration::from_secs(5));
    if let Err(error) = &closed {
        tracing::error!(%error, "the event log did not close in order");
    }
    if report.forced.is_empty() && !report.over_budget && closed.is_ok() {
        tracing::info!("stopped in order");
        return EXIT_OK;
    }
    report_failure(EXIT_UNCLEAN, &format!("did not stop in order, aborted: {}", report.forced.join(", ")))
}

/// Where crashes are written down, each with the values of its node's policy that somebody set.
fn black_box(live: &LiveConfig) -> Result<BlackBox, String> {
    let config = live.now();
    let (dir, keep) = (black_boxes(&config), config.supervision.black_box.keep as usize);
    let live = live.clone();
    let provenance = move |path: &str| policies::provenance(&live.running().provenance, path);
    BlackBox::open(dir.clone(), keep, Box::new(provenance))
        .map_err(|error| format!("supervision.black_box.dir: {} cannot be used: {error}", dir.display()))
}

async fn ended_by_itself(
    running: Tree,
    reason: &ExitReason,
    parts: &Parts,
    stop: Pin<&mut impl Future<Output = ()>>,
    log: &Arc<dyn EventLog>,
) -> u8 {
    let is_config = matches!(reason, ExitReason::Failed(FailureClass::Config, _));
    if parts.config().supervision.on_root_limit == OnRootLimit::Halt && !is_config {
        halted(parts, reason, stop).await;
    }
    running.abandon();
    // What was acknowledged is on disk already; this only ends the writer.
    log.close(Duration::from_secs(5)).ok();
    match reason {
        ExitReason::Failed(FailureClass::Config, why) => report_failure(EXIT_CONFIG, why),
        other => report_failure(EXIT_ROOT_LIMIT, &format!("the root supervisor gave up: {other}")),
    }
}

/// Stays up until it is told to stop, with nothing but the API to look at what the tree was when it gave up.
async fn halted(parts: &Parts, reason: &ExitReason, stop: Pin<&mut impl Future<Output = ()>>) {
    let http = parts.config().serve.http;
    tracing::error!(%reason, "the root supervisor gave up: halted for inspection at http://{http}/admin/tree");
    let api = Tree::start(&inspection(parts), Pools::new(pool_sizes(&parts.config())));
    stop.await;
    api.stop(Duration::from_secs(5)).await;
}

fn report_failure(code: u8, why: &str) -> u8 {
    tracing::error!(code, at = clock::unix_nanos(), "{why}");
    eprintln!("obtrace: {why}");
    code
}

fn fail(code: u8, why: &str) -> ExitCode {
    ExitCode::from(report_failure(code, why))
}

/// Runs a client-side command on a small runtime of its own.
pub fn run_client<T>(command: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(command))
}
