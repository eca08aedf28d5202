//! Does a configuration fit together? Arithmetic over the resolved tree: a configuration in, one line a rule out.
//!
//! Each line has its numbers, a verdict, and the key that weighs most with the place that set it. A `FAIL` keeps
//! `obtrace serve` from starting (unless `--force`) and a reload from being applied. Pure but for the machine it is given.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::super::policies::{self, LANES, PATHS, REPLICATED};
use super::super::roles;
use super::changes::policy_path;
use super::machine::Machine;
use crate::config::Loaded;
use crate::config::kafka::LogBackend;
use crate::config::policy::{NodePolicy, OnLimit};
use crate::config::units::{ByteSize, format_duration};
use crate::domain::signal::Signal;

/// Longest time that OpenTelemetry SDKs wait for an answer, where nobody set another.
const SDK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker waits for the store before its block is given back.
const BLOCK_DEADLINE: Duration = Duration::from_secs(90);

/// How a rule came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It may hurt under load or when something fails.
    Warn,
    /// It cannot work as it is written.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        })
    }
}

/// One rule's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Name of the rule.
    pub name: &'static str,
    /// The arithmetic.
    pub sum: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The key that weighs most, and what set it: `store.toml:7 supervision.tree.store.writer.lane.bytes`.
    pub place: String,
    /// What would come of it and what to do; empty for [`Verdict::Ok`].
    pub advice: String,
}

impl fmt::Display for Line {
    /// The line without alignment, as it is logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} [{}] {}", self.verdict, self.name, self.sum, self.place, self.advice)
    }
}

/// All rules of a configuration on a machine.
pub fn lint(loaded: &Loaded, machine: Machine) -> Vec<Line> {
    let rules = Rules { loaded, machine };
    vec![
        rules.restarts(),
        rules.backoff(),
        rules.shutdown(),
        rules.lame_duck(),
        rules.memory(),
        rules.threads(),
        rules.blocks(),
        rules.stalls(),
        rules.breaker(),
        rules.requests(),
        rules.engine(),
    ]
}

/// The lines as a table for people: aligned, advice below its line.
pub fn table(lines: &[Line]) -> String {
    let width =
        lines.iter().flat_map(|line| wrapped(&line.sum)).map(|part| part.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let parts = wrapped(&line.sum);
        let mut parts = parts.iter();
        let first = parts.next().map_or("", String::as_str);
        writeln!(text, "{:<10} {first:<width$}  {:<4}  {}", line.name, line.verdict, line.place).ok();
        for part in parts {
            writeln!(text, "{:<12} {part}", "").ok();
        }
        if line.verdict > Verdict::Ok {
            writeln!(text, "{:<10} {}", "", line.advice).ok();
        }
    }
    text
}

/// A sum in lines of a readable length.
fn wrapped(sum: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sum.split(' ') {
        let last = lines.len() - 1;
        if lines[last].chars().count() + word.chars().count() > 66 {
            lines.push(word.to_owned());
        } else {
            let gap = if lines[last].is_empty() { "" } else { " " };
            lines[last] = format!("{}{gap}{word}", lines[last]);
        }
    }
    lines
}

struct Rules<'a> {
    loaded: &'a Loaded,
    machine: Machine,
}

impl Rules<'_> {
    fn policy(&self, path: &str) -> NodePolicy {
        policies::node(&self.loaded.config, path)
    }

    /// The leaves of the tree that run in this process.
    fn leaves(&self) -> impl Iterator<Item = &'static str> {
        leaves().filter(|leaf| roles::runs(&self.loaded.config, leaf))
    }

    fn line(&self, name: &'static str, sum: String, verdict: Verdict, key: &str, advice: &str) -> Line {
        let source = self
            .loaded
            .provenance
            .explain(key)
            .map_or_else(|| "default".to_owned(), |v| v.source.to_string());
        let advice = if verdict == Verdict::Ok { String::new() } else { advice.to_owned() };
        Line { name, sum, verdict, place: format!("{source} {key}"), advice }
    }

    /// Crashes of one worker until the process ends: each level takes one more than its intensity.
    fn restarts(&self) -> Line {
        let mut paths: Vec<(u64, String, String)> = Vec::new();
        for leaf in self.leaves() {
            let above = supervisors_of(leaf);
            if above.iter().any(|path| self.policy(path).on_limit == OnLimit::Quarantine) {
                continue;
            }
            let levels = above.iter().map(|path| (name_of(path), u64::from(self.policy(path).intensity) + 1));
            let (mut product, mut text) = (1_u64, Vec::new());
            for (name, each) in levels {
                product = product.saturating_mul(each);
                text.push(format!("{name} {each}"));
            }
            paths.push((product, text.join(" × "), leaf.to_owned()));
        }
        let Some((product, text, leaf)) = paths.into_iter().max_by_key(|(product, ..)| *product) else {
            return self.line(
                "restarts",
                "every crash is put aside".into(),
                Verdict::Ok,
                "supervision.defaults.on_limit",
                "",
            );
        };
        let verdict = match product {
            0..=1 => Verdict::Warn,
            2..=1000 => Verdict::Ok,
            _ => Verdict::Warn,
        };
        let advice = match product {
            0..=1 => "the first crash ends the process: raise an intensity",
            _ => "a worker can crash that often before anybody hears of it: lower an intensity",
        };
        let heaviest = supervisors_of(&leaf)
            .into_iter()
            .max_by_key(|path| self.policy(path).intensity)
            .unwrap_or_default();
        let key = policy_path(heaviest, "intensity");
        self.line(
            "restarts",
            format!("{leaf}: {text} = {product} crashes before the process exits"),
            verdict,
            &key,
            advice,
        )
    }

    /// Restarts so far apart that they never fall into one window: the limit is then never passed.
    fn backoff(&self) -> Line {
        let mut worst: Option<(f64, String, String)> = None;
        for leaf in self.leaves() {
            let Some(parent) = supervisors_of(leaf).into_iter().next() else { continue };
            let (child, window) = (self.policy(leaf), self.policy(parent));
            let apart = least_time_of(&child, window.intensity);
            let ratio = apart.as_secs_f64() / window.period.as_secs_f64().max(1e-9);
            if worst.as_ref().is_none_or(|(most, ..)| ratio > *most) {
                let times = window.intensity.saturating_add(1);
                let sum = format!(
                    "{leaf}: {times} crashes take at least {}, window {}",
                    short(apart),
                    short(window.period)
                );
                worst = Some((ratio, sum, policy_path(leaf, "backoff.min")));
            }
        }
        let (ratio, sum, key) = worst.unwrap_or_default();
        let verdict = if ratio > 1.0 { Verdict::Warn } else { Verdict::Ok };
        let advice = "the window never trips, so it crashes for ever without escalation: a longer period or a shorter backoff";
        self.line("backoff", sum, verdict, &key, advice)
    }

    /// What a stop may take when everything uses all of its time, against the budget of the process.
    fn shutdown(&self) -> Line {
        let supervision = &self.loaded.config.supervision;
        let (budget, duck) = (supervision.shutdown_budget, supervision.lame_duck);
        let mut parts = vec![("lame duck".to_owned(), duck)];
        let mut longest = (Duration::ZERO, "");
        for top in PATHS.iter().rev().filter(|path| !path.is_empty() && !path.contains('.')) {
            let mut sum = Duration::ZERO;
            for leaf in self.leaves().filter(|leaf| leaf.split('.').next() == Some(top)) {
                let policy = self.policy(leaf);
                // Members of a group and replicas drain at the same time, from what they have in hand.
                sum += policy.stop.drain;
                longest = longest.max((policy.stop.drain, leaf));
            }
            parts.push(((*top).to_owned(), sum));
        }
        let total: Duration = parts.iter().map(|(_, time)| *time).sum();
        let sum = parts
            .iter()
            .map(|(name, time)| format!("{name} {}", short(*time)))
            .collect::<Vec<_>>()
            .join(" + ");
        let (drain, leaf) = longest;
        let (verdict, advice) = if duck + drain > budget {
            (
                Verdict::Fail,
                format!(
                    "{leaf} alone is given more than is left of the budget: raise supervision.shutdown_budget"
                ),
            )
        } else if total > budget {
            let advice = "if all use their time, what is left after the budget is aborted and named, and the exit code is 75";
            (Verdict::Warn, advice.to_owned())
        } else {
            (Verdict::Ok, String::new())
        };
        let key = policy_path(leaf, "stop.drain");
        self.line(
            "shutdown",
            format!("{sum} = {}, budget {}", short(total), short(budget)),
            verdict,
            &key,
            &advice,
        )
    }

    fn lame_duck(&self) -> Line {
        let supervision = &self.loaded.config.supervision;
        let (budget, duck) = (supervision.shutdown_budget, supervision.lame_duck);
        let verdict = if duck * 2 > budget { Verdict::Warn } else { Verdict::Ok };
        let sum = format!("{} of a budget of {}", short(duck), short(budget));
        self.line(
            "lame duck",
            sum,
            verdict,
            "supervision.lame_duck",
            "more than half of the budget passes before anything drains",
        )
    }

    /// Everything that is bounded in bytes, full at once.
    fn memory(&self) -> Line {
        let config = &self.loaded.config;
        let lanes: Vec<(u64, String)> = LANES
            .iter()
            .filter(|path| roles::runs(config, path))
            .map(|path| (self.policy(path).lane.bytes.as_u64(), policy_path(path, "lane.bytes")))
            .collect();
        let all_lanes: u64 = lanes.iter().map(|(bytes, _)| *bytes).sum();
        let queue = config.stream.queue_bytes.as_u64();
        let consumers = match roles::runs(config, policies::GROUP) {
            true => Signal::ALL.len() as u64 * u64::from(config.stream.partitions),
            false => 0,
        };
        let blocks = consumers * config.process.block_bytes.as_u64();
        let fetched = match config.stream.backend {
            LogBackend::Kafka => consumers * config.stream.kafka.fetch_bytes.as_u64(),
            LogBackend::Embedded => 0,
        };
        let engine = match &config.telemetry.url {
            None if roles::runs(config, "store.engine") => config.telemetry.engine.memory_limit.as_u64(),
            _ => 0,
        };
        let own = all_lanes + queue + blocks + fetched;
        let mut sum = format!(
            "lanes {} + log queue {} + {consumers} blocks {}",
            size(all_lanes),
            size(queue),
            size(blocks)
        );
        if fetched > 0 {
            write!(sum, " + fetched ahead {}", size(fetched)).ok();
        }
        if engine > 0 {
            write!(sum, " + engine {}", size(engine)).ok();
        }
        write!(sum, " = {}", size(own + engine)).ok();
        let mut weights = lanes;
        weights.push((queue, "stream.queue_bytes".into()));
        weights.push((blocks, "process.block_bytes".into()));
        weights.push((fetched, "stream.kafka.fetch_bytes".into()));
        weights.push((engine, "telemetry.engine.memory_limit".into()));
        let key = weights.into_iter().max().map(|(_, key)| key).unwrap_or_default();
        let Some(memory) = self.machine.memory else {
            return self.line("memory", sum, Verdict::Ok, &key, "");
        };
        write!(sum, " of {}", size(memory)).ok();
        let (verdict, advice) = if own > memory {
            (
                Verdict::Fail,
                "full lanes alone are more than the machine has: examples/tuning/laptop.toml shows small ones",
            )
        } else if own + engine > memory / 10 * 9 {
            (
                Verdict::Warn,
                "with all of it full the machine swaps or kills: examples/tuning/laptop.toml shows smaller bounds",
            )
        } else {
            (Verdict::Ok, "")
        };
        self.line("memory", sum, verdict, &key, advice)
    }

    fn threads(&self) -> Line {
        let cores = self.machine.cores;
        let pools = &self.loaded.config.supervision.pools;
        let count = |threads: u32| if threads == 0 { cores } else { threads as usize };
        let total: usize = pools.all().iter().map(|(_, pool)| count(pool.threads)).sum();
        let busy = count(pools.ingest.threads) + count(pools.process.threads);
        let sum = format!(
            "ingest {} + process {} work, {total} in all pools, on {cores} cores",
            count(pools.ingest.threads),
            count(pools.process.threads)
        );
        let verdict = if busy > 4 * cores { Verdict::Warn } else { Verdict::Ok };
        let key =
            if count(pools.ingest.threads) > count(pools.process.threads) { "ingest" } else { "process" };
        let advice = "threads that compute take turns on too few cores: 0 makes one for each";
        self.line("threads", sum, verdict, &format!("supervision.pools.{key}.threads"), advice)
    }

    /// A lane that is smaller than a block takes one at a time, whatever its capacity says.
    fn blocks(&self) -> Line {
        let block = self.loaded.config.process.block_bytes.as_u64();
        let lane = |path| self.policy(path).lane.bytes.as_u64();
        let smallest =
            ["process.otlp", "store.writer"].into_iter().min_by_key(|path| lane(path)).unwrap_or_default();
        let verdict = if lane(smallest) < block { Verdict::Warn } else { Verdict::Ok };
        let sum = format!("{smallest} holds {} of blocks up to {}", size(lane(smallest)), size(block));
        self.line(
            "blocks",
            sum,
            verdict,
            &policy_path(smallest, "lane.bytes"),
            "it holds one block at a time: raise it or lower process.block_bytes",
        )
    }

    /// Waits that are long but right must end before they count as a stall.
    fn stalls(&self) -> Line {
        let config = &self.loaded.config;
        let waits = [
            ("store.writer", "telemetry.insert_timeout", config.telemetry.insert_timeout),
            ("serve.query", "serve.deadline", config.serve.deadline),
            ("ingest.receiver", "ingest.ack_timeout", config.ingest.ack_timeout),
            ("process.otlp", "supervision.tree.process.otlp.liveness.wait_after", BLOCK_DEADLINE),
        ];
        let share = |(path, _, wait): &(&str, &str, Duration)| {
            wait.as_secs_f64() / self.policy(path).liveness.wait_after.as_secs_f64().max(1e-9)
        };
        let Some(tightest) = waits.into_iter().max_by(|a, b| share(a).total_cmp(&share(b))) else {
            return self.line(
                "stalls",
                String::new(),
                Verdict::Ok,
                "supervision.defaults.liveness.wait_after",
                "",
            );
        };
        let (path, key, wait) = tightest;
        let limit = self.policy(path).liveness.wait_after;
        let verdict = if wait >= limit { Verdict::Warn } else { Verdict::Ok };
        let sum = format!("{path} may wait {}, stalled after {}", short(wait), short(limit));
        self.line(
            "stalls",
            sum,
            verdict,
            key,
            "a slow answer would count as a stall and cost a restart: raise liveness.wait_after of that node",
        )
    }

    fn breaker(&self) -> Line {
        let every = |path| self.policy(path).breaker.probe_every;
        let slowest =
            ["store.engine", "store.writer"].into_iter().max_by_key(|path| every(path)).unwrap_or_default();
        let verdict = if every(slowest) >= BLOCK_DEADLINE { Verdict::Warn } else { Verdict::Ok };
        let sum = format!(
            "{slowest} probes every {}, a block waits {}",
            short(every(slowest)),
            short(BLOCK_DEADLINE)
        );
        self.line(
            "breaker",
            sum,
            verdict,
            &policy_path(slowest, "breaker.probe_every"),
            "blocks are given back before the store is tried again: lower breaker.probe_every",
        )
    }

    fn requests(&self) -> Line {
        let ack = self.loaded.config.ingest.ack_timeout;
        let drain = self.policy("ingest.receiver").stop.drain;
        let sum = format!(
            "a request waits up to {}, SDKs {}, a drain {}",
            short(ack),
            short(SDK_TIMEOUT),
            short(drain)
        );
        let (verdict, advice) = if ack > SDK_TIMEOUT {
            (
                Verdict::Warn,
                "SDKs give up first and send again what may be durable already: the window of stream.dedup must catch it",
            )
        } else if drain < ack {
            (
                Verdict::Warn,
                "requests under way at a stop can be cut off: raise supervision.tree.ingest.receiver.stop.drain",
            )
        } else {
            (Verdict::Ok, "")
        };
        self.line("requests", sum, verdict, "ingest.ack_timeout", advice)
    }

    fn engine(&self) -> Line {
        let config = &self.loaded.config;
        if config.telemetry.url.is_some() {
            return self.line(
                "engine",
                "a server keeps the telemetry".into(),
                Verdict::Ok,
                "telemetry.url",
                "",
            );
        }
        let (timeout, drain) = (config.telemetry.engine.stop_timeout, self.policy("store.engine").stop.drain);
        let verdict = if drain <= timeout { Verdict::Warn } else { Verdict::Ok };
        let sum = format!("the engine has {} to end, its keeper {}", short(timeout), short(drain));
        self.line("engine", sum, verdict, "telemetry.engine.stop_timeout", "the keeper is aborted first, and the engine killed: raise supervision.tree.store.engine.stop.drain")
    }
}

/// Nodes that have no node below them.
fn leaves() -> impl Iterator<Item = &'static str> {
    let is_parent =
        |path: &str| PATHS.iter().any(|p| p.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
    PATHS.into_iter().filter(move |path| !path.is_empty() && !is_parent(path))
}

/// The supervisors above one worker of a leaf, nearest first; a replicated node and a group are one themselves.
fn supervisors_of(leaf: &str) -> Vec<&str> {
    let own = (REPLICATED.contains(&leaf) || leaf == policies::GROUP).then_some(leaf);
    let above = leaf.rmatch_indices('.').map(|(at, _)| &leaf[..at]);
    own.into_iter().chain(above).chain(std::iter::once("")).collect()
}

fn name_of(path: &str) -> &str {
    match path.rsplit('.').next() {
        None | Some("") => "root",
        Some(name) => name,
    }
}

/// The least time in which a child that crashes at once comes back `restarts` times.
fn least_time_of(policy: &NodePolicy, restarts: u32) -> Duration {
    let backoff = &policy.backoff;
    let mut wait = backoff.min.as_secs_f64();
    let mut total = 0.0;
    for _ in 0..restarts.min(10_000) {
        total += wait.min(backoff.max.as_secs_f64()) * (1.0 - backoff.jitter);
        wait = (wait * backoff.factor).min(backoff.max.as_secs_f64());
    }
    Duration::from_secs_f64(total.min(1e9))
}

/// A duration to three digits or so: `1m17s`, `4.7s`, `200ms`.
fn short(duration: Duration) -> String {
    let step = match duration.as_secs() {
        0 => 1,
        1..10 => 100,
        _ => 1000,
    };
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let rounded = ms.saturating_add(step / 2) / step * step;
    if (1000..10_000).contains(&rounded) && !rounded.is_multiple_of(1000) {
        return format!("{}s", rounded as f64 / 1000.0);
    }
    format_duration(Duration::from_millis(rounded))
}

/// Bytes to two digits or so: `1.9GiB`, `512MiB`.
fn size(bytes: u64) -> String {
    let exact = ByteSize::bytes(bytes).to_string();
    let digits = exact.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.len() <= 3 {
        return exact;
    }
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1}{name}", bytes as f64 / *unit as f64),
        None => exact,
    }
}
