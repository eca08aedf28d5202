//! Neighbours that take no heed: a tenant far over its plan, clients that open connections and say nothing, clients that
//! send everything twice. The others are refused nothing, and what was acknowledged is stored once. What the quiet tenant
//! waits is printed beside what it waits alone; machines that run tests are too noisy to hold it to a figure.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use obtrace::config::tenant::KeyHash;
use obtrace::domain::signal::Signal;
use obtrace::tools::otlp_client::{Compression, Encoding, OtlpClient, OtlpTarget, Outcome, Protocol};
use serde_json::{Value, json};

use crate::field::{Field, SOON, rounds, row};
use crate::poison::counter;
use crate::support::cluster::{Cluster, Plan as Of};
use crate::support::invariants::Expect;
use crate::support::load::{Load, Plan, refusals};
use crate::support::{Obtrace, Options, block_on, post};

const QUIET: &str = "quiet-tenants-key";
const HOT: &str = "hot-tenants-key";
/// Requests a second of the hot tenant's plan, and how many times as many it sends.
const RATE: u64 = 10;
const TIMES: u64 = 20;
/// Records of a request.
const BATCH: u64 = 5;
/// Requests a second of the quiet tenant, and how long it sends.
const QUIETLY: u64 = 40;
const SECONDS: u64 = 6;
/// Connections that say nothing or next to nothing, over all edges.
const IDLE: usize = 5000;

/// Both tenants, with a plan each.
fn tenants() -> Vec<String> {
    let entry = |name: &str, key: &str, plan: &str| {
        let hash = KeyHash::of(key);
        format!("{{name=\"{name}\",hash=\"{hash}\",tenant=\"{name}\",plan=\"{plan}\"}}")
    };
    vec![
        format!("tenant.plans.small.requests_per_second={RATE}"),
        "tenant.plans.wide.requests_per_second=1000".to_owned(),
        format!("tenant.keys=[{},{}]", entry("quiet", QUIET, "wide"), entry("hot", HOT, "small")),
    ]
}

fn quiet(seconds: u64) -> Plan {
    Plan { batch: BATCH, key: Some(QUIET), ..Plan::mixed(QUIETLY * BATCH, seconds) }
}

/// So many requests a second of the hot tenant, none of them sent again.
fn hot(requests: u64, seconds: u64) -> Plan {
    Plan { batch: BATCH, key: Some(HOT), retry: false, ..Plan::mixed(requests * BATCH, seconds) }
}

fn of_quiet<'a>(reports: impl IntoIterator<Item = &'a Value>, after: &str) -> f64 {
    let p99 = reports.into_iter().map(|report| {
        assert_eq!(refusals(report), [""; 0], "{after}: the quiet tenant was refused");
        report["ack_ms"]["p99"].as_f64().expect("a figure")
    });
    p99.fold(0.0, f64::max)
}

fn compared(what: &str, alone: f64, beside: f64) {
    println!("{what}: p99 {alone:.1} ms alone, {beside:.1} ms beside, × {:.2}", beside / alone);
    assert!(beside <= alone * 10.0 + 3000.0, "{what}: p99 went from {alone} ms to {beside} ms");
}

/// Of the storm a part was let in, at about the plan's rate over all edges, and all else told to come back.
fn held_to_its_plan(reports: &[Value], after: &str) {
    let sum = |key: &str| reports.iter().map(|report| report[key].as_u64().expect("a count")).sum::<u64>();
    let (sent, accepted) = (sum("sent"), sum("accepted"));
    let seconds =
        reports.iter().map(|report| report["seconds"].as_f64().expect("a figure")).fold(0.0, f64::max);
    let refused: u64 = reports.iter().filter_map(|r| r["errors"]["ResourceExhausted"].as_u64()).sum();
    for report in reports {
        let others = refusals(report).into_iter().filter(|told| !told.contains("ResourceExhausted"));
        assert_eq!(others.count(), 0, "{after}: {report:#}");
    }
    assert_eq!(sum("rejected"), 0, "{after}: nothing is refused for good");
    let late: u64 = reports.iter().filter_map(|r| r["errors"]["deadline"].as_u64()).sum();
    assert_eq!((refused + late) * BATCH, sent - accepted, "{after}: what was not let in was told so");
    let by_plan = RATE as f64 * seconds;
    let let_in = accepted as f64 / BATCH as f64;
    println!("{after}: {let_in} of {} requests in {seconds:.1} s, {by_plan:.0} by plan", sent / BATCH);
    assert!(sent / BATCH > 5 * RATE * seconds as u64, "{after}: it was no storm: {sent} records");
    assert!(let_in >= by_plan / 4.0, "{after}: its own share was withheld: {let_in} of {by_plan}");
    assert!(let_in <= by_plan * 2.0 + 40.0, "{after}: more than its share: {let_in} of {by_plan}");
}

/// Sends as the hot tenant, one request after the other, until both transports have said when to come back.
fn told_when_to_come_back(edge: &Obtrace, after: &str) {
    let until = Instant::now() + SOON;
    let target = OtlpTarget {
        endpoint: edge.grpc.clone(),
        protocol: Protocol::Grpc,
        encoding: Encoding::Protobuf,
        compression: Compression::None,
        api_key: Some(HOT.to_owned()),
        timeout: SOON,
    };
    let refused = async || {
        let client = OtlpClient::new(&target).expect("client");
        loop {
            match client.export(Signal::Logs, Bytes::new()).await {
                Outcome::Retryable { after: said, code, message } => {
                    assert_eq!(code, "ResourceExhausted", "{after}: {message}");
                    return assert!(said.is_some_and(|said| said > Duration::ZERO), "{after}: {said:?}");
                }
                Outcome::Accepted => assert!(Instant::now() < until, "{after}: it is not refused"),
                other => panic!("{after}: {other:?}"),
            }
        }
    };
    let headers = [("content-type", "application/json"), ("x-api-key", HOT)];
    loop {
        block_on(refused());
        let body = json!({"resourceLogs": []}).to_string().into_bytes();
        let (status, headers, answer) = post(&format!("{}/v1/logs", edge.http), &headers, body);
        if status == 429 {
            let said = headers.iter().find(|(name, _)| name == "retry-after").map(|(_, value)| value.parse());
            return assert!(matches!(said, Some(Ok(1..=60_u64))), "{after}: {headers:?} {answer:?}");
        }
        assert_eq!(status, 200, "{after}: {}", String::from_utf8_lossy(&answer));
        assert!(Instant::now() < until, "{after}: it is not refused over HTTP");
    }
}

/// Waits until plans are known at the gate.
fn plan_is_known(to: &Obtrace) {
    let until = Instant::now() + SOON;
    while to.try_get_as("/api/v1/gate", Some(HOT)).is_none_or(|(_, gate)| gate["plan"] != "small") {
        assert!(Instant::now() < until, "{:?}", to.try_get_as("/api/v1/gate", Some(HOT)));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_hot_tenant_is_told_to_come_back_and_a_quiet_one_beside_it_is_refused_nothing() {
    row("neighbours::a_hot_tenant", |_, after| {
        let mut field = Field::new(Options { set: tenants(), ..Options::default() });
        plan_is_known(&field.obtrace);
        let start = |name: &str, plan: &Plan| Load::start(&field.obtrace, &field.dir, name, plan);
        let mut calm = start("calm", &quiet(SECONDS));
        let alone = of_quiet([&calm.end(after)], after);
        let mut storm = start("storm", &hot(RATE * TIMES, SECONDS + 2));
        let load = field.load(&quiet(SECONDS));
        std::thread::sleep(Duration::from_secs(2));
        field.sight(&load);
        let (_, report) = storm.over();
        held_to_its_plan(&[report], after);
        told_when_to_come_back(&field.obtrace, after);
        storm.verified(&field.obtrace.api, after);
        let outcome = field.verify(load, &Expect::default(), after);
        compared(after, alone, of_quiet([&outcome.report], after));
    });
}

/// Two edges that share what a tenant may send by Redis, a worker and a gateway: a storm that is spread over both edges;
/// each request sent to both; connections that do nothing.
#[test]
fn edges_hold_out_against_a_hot_tenant_repeats_and_idle_connections() {
    let (set, may_be_idle) = (tenants(), may_be_idle());
    let mut set: Vec<&str> = set.iter().map(String::as_str).collect();
    set.extend(Of::SIX.set);
    let mut cluster = Cluster::start(&Of { workers: 1, set: &set, ..Of::SIX });
    plan_is_known(&cluster.gateway);
    for round in 0..rounds(1) {
        let after = format!("neighbours of a cluster, round {round}");
        let quietly = |cluster: &Cluster| [0, 1].map(|edge| cluster.load_at(edge, &quiet(SECONDS)));
        let calm = quietly(&cluster);
        let alone = of_quiet(&cluster.reports(calm.into(), &after), &after);

        let each = RATE * TIMES / 2;
        let mut storm = [0, 1].map(|edge| cluster.load_at(edge, &hot(each, SECONDS + 2)));
        let loads = quietly(&cluster);
        let reports = cluster.reports(loads.into(), &after);
        let open = |edge: &Obtrace| counter(edge, "obtrace_gate_fail_open", "");
        println!("{after}: let in unchecked: {:?}", cluster.edges.iter().map(open).collect::<Vec<_>>());
        held_to_its_plan(&storm.each_mut().map(|load| load.over().1), &after);
        cluster.edges.iter().for_each(|edge| told_when_to_come_back(edge, &after));
        storm.iter().for_each(|load| load.verified(&cluster.gateway.api, &after));
        compared(&format!("{after}, a hot tenant"), alone, of_quiet(&reports, &after));

        repeats_are_stored_once(&cluster, round);

        let idle = Idle::open(&cluster.edges, may_be_idle);
        let loads = quietly(&cluster);
        let reports = cluster.reports(loads.into(), &after);
        let what = format!("{after}, {} idle connections", idle.count);
        compared(&what, alone, of_quiet(&reports, &after));
        drop(idle);
        cluster.recovers(&after);
    }
    cluster.verify(Vec::new(), "neighbours");
}

/// Each request goes to one edge and, byte for byte, to the other one at the same time.
fn repeats_are_stored_once(cluster: &Cluster, round: u64) {
    let (requests, records) = (30, 25);
    let run = format!("twice{round}x");
    for n in 0..requests {
        let time = obtrace::clock::unix_nanos().to_string();
        let body =
            |m: usize| json!({"timeUnixNano": time, "body": {"stringValue": format!("{run} {n} {m}")}});
        let logs: Vec<Value> = (0..records).map(body).collect();
        let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}).to_string().into_bytes();
        std::thread::scope(|scope| {
            for edge in &cluster.edges {
                let (url, logs) = (format!("{}/v1/logs", edge.http), logs.clone());
                scope.spawn(move || {
                    let headers = [("content-type", "application/json"), ("x-api-key", QUIET)];
                    assert_eq!(post(&url, &headers, logs).0, 200, "both are acknowledged");
                });
            }
        });
    }
    let path = format!("/api/v1/logs?q={run}&limit=10000&start=now-1h");
    let count = || {
        let answer = cluster.gateway.try_get_as(&path, Some(QUIET));
        answer.and_then(|(_, answer)| answer["items"].as_array().map(Vec::len)).unwrap_or_default()
    };
    let until = Instant::now() + SOON;
    while count() < requests * records {
        assert!(Instant::now() < until, "{} of {} are stored", count(), requests * records);
        std::thread::sleep(Duration::from_millis(200));
    }
    // Long enough for a second copy to come, if there were one.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(), requests * records, "a request that comes in twice is stored once");
}

/// Connections that do nothing, and as many that send a byte now and then, until this ends.
struct Idle {
    count: usize,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Idle {
    fn open(edges: &[Obtrace], count: usize) -> Self {
        let addresses = edges.iter().flat_map(|edge| [&edge.http, &edge.grpc]);
        let addresses: Vec<SocketAddr> =
            addresses.map(|url| url.trim_start_matches("http://").parse().expect("an address")).collect();
        let connect = |n: usize| {
            let stream = TcpStream::connect_timeout(&addresses[n % addresses.len()], SOON);
            stream.expect("it takes the connection")
        };
        let still: Vec<TcpStream> = (0..count / 2).map(connect).collect();
        let mut slow: Vec<TcpStream> = (0..count - count / 2).map(connect).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for byte in b"POST /v1/logs HTTP/1.1\r\nhost: nobody\r\nx-slow: ".iter().chain(&[b'x'; 4000]) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                // One that was closed for it is what it asked for.
                slow.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
                std::thread::sleep(Duration::from_millis(300));
            }
            drop(still);
        });
        Self { count, stop, thread: Some(thread) }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

/// As many of [`IDLE`] as this user may open, with what else a test has open; processes that are started later may as many.
fn may_be_idle() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("the limit is raised");
    usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(1500).min(IDLE)
}
