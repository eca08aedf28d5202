//! Load in the background and what became of it: which records were acknowledged, which are stored and how often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use obtrace::domain::signal::Signal;
use obtrace::tools::load::{Fate, Ledger, VerifyPlan, verify};
use serde_json::Value;

use super::{Obtrace, binary, block_on, wait};

/// What is sent.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `traces`, `logs`, `metrics` or `mixed`.
    pub signal: &'static str,
    /// Records a second.
    pub rate: u64,
    /// For how long.
    pub seconds: u64,
    /// Records of a request.
    pub batch: u64,
    /// Whose it is; the loopback tenant's where it says nothing.
    pub key: Option<&'static str>,
    /// Name of the run on every record, where it matters.
    pub run: Option<&'static str>,
    /// Whether a batch that is refused is sent again, as clients should.
    pub retry: bool,
}

impl Plan {
    /// Load of all signals.
    pub fn mixed(rate: u64, seconds: u64) -> Self {
        Self { signal: "mixed", rate, seconds, batch: 50, key: None, run: None, retry: true }
    }

    /// Log records alone.
    pub fn logs(rate: u64, seconds: u64) -> Self {
        Self { signal: "logs", ..Self::mixed(rate, seconds) }
    }
}

/// What a report says was refused, by kind; not what took longer than the generator waits, as on a machine that is busy.
pub fn refusals(report: &Value) -> Vec<String> {
    let errors = report["errors"].as_object().expect("by kind");
    let told = errors.iter().filter(|(kind, _)| kind.as_str() != "deadline");
    told.map(|(kind, count)| format!("{count} × {kind}: {}", report["error_messages"][kind])).collect()
}

/// A load generator at work. It sends each batch again, byte for byte, until it is accepted.
pub struct Load {
    child: Child,
    journal: PathBuf,
    report: PathBuf,
    key: Option<&'static str>,
    longest: Duration,
}

impl Load {
    /// Starts it; `name` tells it from others in the same folder.
    pub fn start(obtrace: &Obtrace, dir: &Path, name: &str, plan: &Plan) -> Self {
        let (journal, report) = (dir.join(format!("{name}.journal")), dir.join(format!("{name}.json")));
        let out = std::fs::File::create(&report).expect("the report");
        let mut command = Command::new(binary());
        command
            .args(["load", "--endpoint", &obtrace.grpc, "--protocol", "grpc", "--signal", plan.signal])
            .args(["--rate", &plan.rate.to_string(), "--duration", &format!("{}s", plan.seconds)])
            .args(["--batch", &plan.batch.to_string(), "--connections", "2", "--drain-timeout", "90s"])
            .args(["--json", "--journal"])
            .arg(&journal);
        command.args(plan.key.iter().flat_map(|key| ["--api-key", key]));
        command.args(["--retry", if plan.retry { "true" } else { "false" }]);
        command.args(plan.run.iter().flat_map(|run| ["--run-id", run]));
        let child = command.stdin(Stdio::null()).stdout(out).spawn().expect("spawn load");
        let longest = Duration::from_secs(plan.seconds + 120);
        Self { child, journal, report, key: plan.key, longest }
    }

    /// What was sent so far, with its fate.
    pub fn ledger(&self) -> Option<Ledger> {
        Ledger::read(&self.journal).ok()
    }

    /// Waits for its end; every batch must have been acknowledged. Returns its report.
    pub fn end(&mut self, after: &str) -> Value {
        let (good, report) = self.over();
        assert!(good, "{after}: not everything was acknowledged in the end: {report:#}");
        report
    }

    /// Waits for its end, whatever was acknowledged. Returns whether all was, and its report.
    pub fn over(&mut self) -> (bool, Value) {
        let status = wait(&mut self.child, self.longest).expect("the load generator ends");
        let text = std::fs::read_to_string(&self.report).expect("the report");
        (
            status.success(),
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}, {error}: {text}")),
        )
    }

    /// Waits until every acknowledged record is stored, all signals. Fails where one is missing or doubled.
    pub fn verified(&self, api: &str, after: &str) {
        let plan = VerifyPlan {
            api: api.to_owned(),
            api_key: self.key.map(str::to_owned),
            timeout: Duration::from_secs(90),
            settle: Duration::from_secs(1),
        };
        let ledger = self.ledger().expect("the journal");
        let verdicts = block_on(verify(&ledger, &plan)).unwrap_or_else(|error| panic!("{after}: {error}"));
        for verdict in &verdicts {
            assert!(verdict.holds(), "{after}: {verdict}");
        }
        assert!(verdicts.iter().any(|verdict| verdict.acknowledged > 0), "{after}: nothing was acknowledged");
    }

    /// How often each record of a signal (spans or logs) is stored, by its sequence number. `None` where the store
    /// cannot be asked at the moment.
    pub fn stored(&self, obtrace: &Obtrace, signal: Signal) -> Option<BTreeMap<u64, u64>> {
        let ledger = self.ledger()?;
        let times = || ledger.of(signal).map(|(_, batch)| batch.base_ns);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return Some(BTreeMap::new()) };
        let run = &ledger.info.run;
        let asked = match signal {
            Signal::Logs => format!("logs?q=attr.obtrace.load.run%3D{run}"),
            _ => format!("spans?attr.obtrace.load.run={run}"),
        };
        let (from, to) = (first.saturating_sub(60_000_000_000), last + 60_000_000_000);
        let mut path = format!("/api/v1/{asked}&start={from}&end={to}&limit=10000");
        let mut counts = BTreeMap::new();
        loop {
            let (status, page) = obtrace.try_get_as(&path, self.key)?;
            if status != 200 {
                return None;
            }
            for row in page["items"].as_array().into_iter().flatten() {
                let seq = &row["attributes"]["obtrace.load.seq"];
                let seq = seq.as_u64().or_else(|| seq.as_str()?.parse().ok()).expect("a sequence number");
                *counts.entry(seq).or_default() += 1;
            }
            let base = path.split("&cursor=").next().unwrap_or_default().to_owned();
            match page["next_cursor"].as_str() {
                Some(next) => path = format!("{base}&cursor={next}"),
                None => return Some(counts),
            }
        }
    }

    /// Waits until of the acknowledged records of a signal exactly those are missing that `dead` names, none is there
    /// twice, and none is there that was never sent. Returns those that are missing.
    pub fn settled(&self, obtrace: &Obtrace, signal: Signal, dead: fn(u64) -> bool, after: &str) -> Vec<u64> {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let ledger = self.ledger().expect("the journal");
            let size = ledger.info.batch_size;
            let acknowledged: Vec<u64> = ledger
                .of(signal)
                .filter(|(_, batch)| batch.fate == Fate::Accepted)
                .flat_map(|(number, batch)| number * size..number * size + batch.count)
                .collect();
            let stored = self.stored(obtrace, signal).unwrap_or_default();
            let doubled: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).take(5).collect();
            assert!(doubled.is_empty(), "{after}: {signal} are there more than once: {doubled:?}");
            let missing: Vec<u64> =
                acknowledged.iter().copied().filter(|seq| !stored.contains_key(seq)).collect();
            if missing.iter().all(|seq| dead(*seq)) {
                return missing;
            }
            let lost: Vec<_> = missing.iter().filter(|seq| !dead(**seq)).take(5).collect();
            assert!(Instant::now() < until, "{after}: acknowledged {signal} are not stored, first {lost:?}");
            sleep(Duration::from_millis(300));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
