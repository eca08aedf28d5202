//! Obtrace as many processes: edges, workers and a gateway that share a Kafka, a store, a Postgres, a Redis and a bucket,
//! each of them this test's own. In: how many of each. Out: processes that can be asked, loaded, killed and started again.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::links::Links;
use super::load::{self, Load};
use super::pg::Database;
use super::proxy::Proxy;
use super::services::Private;
use super::store::Store;
use super::{Obtrace, Options, binary, block_on, wait};

/// Time that the store has to come up, and the load to end after its last batch.
const STORE_WITHIN: Duration = Duration::from_secs(60);
/// Time after a fault until every process is ready again.
const WHOLE_WITHIN: Duration = Duration::from_secs(90);

/// How many of each, and what they are set to beside the addresses.
pub struct Plan<'a> {
    pub edges: usize,
    pub workers: usize,
    pub set: &'a [&'a str],
    /// Three brokers that ask for a certificate, in place of one in clear.
    pub three_brokers: bool,
    /// Folder of the engine, where it is not the cluster's own.
    pub store: Option<&'a Path>,
}

impl Plan<'_> {
    /// Two edges and three workers. Short sessions, so that a worker that is gone is noticed soon.
    pub const SIX: Plan<'static> = Plan {
        edges: 2,
        workers: 3,
        set: &["stream.kafka.session_timeout=6s"],
        three_brokers: false,
        store: None,
    };
}

/// The processes and what they share.
pub struct Cluster {
    pub edges: Vec<Obtrace>,
    pub workers: Vec<Obtrace>,
    pub gateway: Obtrace,
    // Before the server that it is on.
    _database: Database,
    pub store: Store,
    /// The way to Redis.
    pub redis_link: Proxy,
    pub kafka: Private,
    /// What stands between the brokers, where there are three.
    pub links: Option<Links>,
    pub postgres: Private,
    pub redis: Private,
    pub s3: Private,
    dir: TempDir,
}

impl Cluster {
    /// Starts all of it, the schema made by `obtrace migrate`, and waits until each process is ready.
    pub fn start(plan: &Plan<'_>) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let own = dir.path().join("store");
        let store = Store::start(plan.store.unwrap_or(&own));
        let [postgres, redis, s3] = ["postgres", "redis", "s3"].map(Private::start);
        let (kafka, links) = match plan.three_brokers {
            true => {
                let (kafka, links) = Links::start();
                (kafka, Some(links))
            }
            false => (Private::start("kafka"), None),
        };
        let database = block_on(Database::bare(&postgres.line("OBTRACE_TEST_POSTGRES")));
        let redis_url = redis.line("OBTRACE_TEST_REDIS");
        let redis_link = Proxy::start(redis_url.trim_start_matches("redis://"));
        let bucket = s3.s3();
        let mut options = Options {
            set: vec![
                // One engine in place of the profile's two.
                "stream.partitions=4".into(),
                "telemetry.more_urls=[]".into(),
                "telemetry.user=default".into(),
                format!("telemetry.url={}", store.url()),
                "store.state.tls=off".into(),
                "supervision.lame_duck=1s".into(),
                "ingest.dev_loopback=true".into(),
                "serve.admin_loopback=true".into(),
                format!("store.blobs.endpoint={}", bucket.endpoint),
                format!("store.blobs.bucket={}", bucket.bucket),
                format!("store.blobs.access_key={}", bucket.key),
                "process.linger=50ms".into(),
            ],
            env: vec![
                ("OBTRACE__TELEMETRY__PASSWORD".into(), store.secret().to_owned()),
                ("OBTRACE__STORE__STATE__URL".into(), database.url("obtrace_app")),
                ("OBTRACE__STORE__CACHE__URL".into(), redis_link.in_front_of(&redis_url)),
                ("OBTRACE__STORE__BLOBS__SECRET_KEY".into(), bucket.secret),
            ],
            serve: true,
            config: vec![profile(dir.path())],
            ..Options::default()
        };
        options.set.extend(brokers(&kafka, plan.three_brokers));
        options.set.extend(plan.set.iter().map(|&set| set.to_owned()));
        migrate(dir.path(), &options, &database.url("obtrace_migrate"));
        let process = |name: String, role: &str| {
            let mut options = options.clone();
            options.set.push(format!("roles={role}"));
            Obtrace::start(&dir.path().join(name), options)
        };
        let edges = (0..plan.edges).map(|n| process(format!("edge-{n}"), "ingest-edge")).collect();
        let workers = (0..plan.workers).map(|n| process(format!("worker-{n}"), "worker-otlp")).collect();
        let gateway = process("gateway".into(), "query-gateway");
        Self {
            edges,
            workers,
            gateway,
            _database: database,
            store,
            redis_link,
            kafka,
            links,
            postgres,
            redis,
            s3,
            dir,
        }
    }

    /// Load of all signals against each edge, for `seconds`.
    pub fn load(&self, rate: u64, seconds: u64) -> Vec<Load> {
        let plan = load::Plan::mixed(rate, seconds);
        (0..self.edges.len()).map(|edge| self.load_at(edge, &plan)).collect()
    }

    /// All processes of Obtrace, with a name.
    pub fn all(&mut self) -> impl Iterator<Item = (String, &mut Obtrace)> {
        let name = |kind: &'static str| move |(n, it)| (format!("{kind} {n}"), it);
        let edges = self.edges.iter_mut().enumerate().map(name("edge"));
        let workers = self.workers.iter_mut().enumerate().map(name("worker"));
        edges.chain(workers).chain([("gateway".to_owned(), &mut self.gateway)])
    }

    /// Every process is ready again soon.
    pub fn recovers(&mut self, after: &str) {
        let until = Instant::now() + WHOLE_WITHIN;
        for (name, process) in self.all() {
            assert!(process.is_alive(), "{after}: {name} ended");
            while process.try_get("/readyz").is_none_or(|(status, _)| status != 200) {
                assert!(
                    Instant::now() < until,
                    "{after}: {name} is not ready: {:?}",
                    process.try_get("/readyz")
                );
                sleep(Duration::from_millis(100));
            }
        }
    }

    /// Waits for loads, and until the gateway finds each record that they were acknowledged, once.
    pub fn settle(&self, loads: Vec<Load>, after: &str) {
        self.reports(loads, after);
    }

    /// As [`Cluster::settle`]; returns what the generators report.
    pub fn reports(&self, loads: Vec<Load>, after: &str) -> Vec<Value> {
        let settled = loads.into_iter().map(|mut load| {
            let report = load.end(after);
            load.verified(&self.gateway.api, after);
            report
        });
        settled.collect()
    }

    /// A load of one's own against an edge.
    pub fn load_at(&self, edge: usize, plan: &load::Plan) -> Load {
        // A name of its own for each load, so that one does not look for what another has sent.
        let name: u32 = rand::random();
        Load::start(&self.edges[edge], self.dir.path(), &format!("{name:x}-{edge}"), plan)
    }

    /// Waits for loads as [`Cluster::settle`] does, and for an orderly end of each process.
    pub fn verify(mut self, loads: Vec<Load>, after: &str) {
        self.settle(loads, after);
        for (name, process) in self.all() {
            assert_eq!(process.stop().code(), Some(0), "{after}: the stop of {name} is in order");
        }
    }
}

/// How the brokers are found: three with certificates, as the profile has them, or one in their place.
fn brokers(kafka: &Private, three: bool) -> Vec<String> {
    if !three {
        return vec![
            "stream.kafka.replication_factor=1".into(),
            "stream.kafka.min_insync_replicas=1".into(),
            format!("stream.kafka.brokers={}", kafka.line("OBTRACE_TEST_KAFKA")),
        ];
    }
    let cluster = kafka.kafka_cluster();
    vec![
        format!("stream.kafka.brokers=[\"{}\"]", cluster.brokers.replace(',', "\",\"")),
        "stream.kafka.tls.enabled=true".into(),
        format!("stream.kafka.tls.ca={}", cluster.ca.display()),
        format!("stream.kafka.tls.certificate={}", cluster.certificate.display()),
        format!("stream.kafka.tls.key={}", cluster.key.display()),
    ]
}

/// `config/profiles/cluster.toml` without what the engine has not: a second node, and users of its own. Its path.
fn profile(dir: &Path) -> String {
    let text = include_str!("../../config/profiles/cluster.toml");
    let sections = text.split("\n\n");
    let kept: Vec<&str> = sections
        .filter(|section| {
            !["[telemetry.cluster]", "[telemetry.reader]"].iter().any(|of| section.starts_with(of))
        })
        .collect();
    assert_eq!(kept.len(), text.split("\n\n").count() - 2, "both sections are left out, and no other");
    let path = dir.join("cluster.toml");
    std::fs::write(&path, kept.join("\n\n")).expect("written");
    path.display().to_string()
}

/// What an operator does once. The processes have no right to it.
fn migrate(dir: &Path, options: &Options, url: &str) {
    let mut command = Command::new(binary());
    command.arg("migrate").arg("--data-dir").arg(dir.join("migrate"));
    options.set.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    for file in &options.config {
        command.args(["--config", file]);
    }
    command.envs(options.env.iter().cloned()).env("OBTRACE__STORE__STATE__MIGRATE_URL", url);
    command.stdin(Stdio::null());
    let mut child = command.spawn().expect("spawn migrate");
    let status = wait(&mut child, STORE_WITHIN).expect("it ends");
    assert!(status.success(), "obtrace migrate: {status}");
}
