//! What a run did, as text for a person and as JSON for a script.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;
use super::tally::Verdict;

/// Counters of a run while it goes on.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Batches sent at least once.
    pub batches: u64,
    /// Records in them.
    pub sent: u64,
    /// Records acknowledged.
    pub accepted: u64,
    /// Records refused, in part or for good.
    pub rejected: u64,
    /// Records whose batch was never answered for.
    pub unknown: u64,
    /// Sends beyond the first of a batch.
    pub retried: u64,
    /// Encoded bytes of acknowledged batches, before compression.
    pub bytes: u64,
    /// Failed sends by kind.
    pub errors: BTreeMap<String, u64>,
    /// The last message of each kind.
    pub messages: BTreeMap<String, String>,
    /// Time from the intended send to the acknowledgement.
    pub latency: Histogram,
}

impl Stats {
    /// Counts a failed send.
    pub fn error(&mut self, code: &str, message: &str) {
        *self.errors.entry(code.to_owned()).or_default() += 1;
        self.messages.insert(code.to_owned(), message.to_owned());
    }
}

/// Acknowledgement latency, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Run id.
    pub run: String,
    /// Wall seconds from the first intended send to the last answer.
    pub seconds: f64,
    /// CPU seconds the load generator used itself, user and system.
    pub own_cpu_seconds: f64,
    /// Batches sent at least once.
    pub batches: u64,
    /// Records in them.
    pub sent: u64,
    /// Records acknowledged.
    pub accepted: u64,
    /// Records refused.
    pub rejected: u64,
    /// Records without an answer.
    pub unknown: u64,
    /// Repeated sends.
    pub retried: u64,
    /// Failed sends by kind.
    pub errors: BTreeMap<String, u64>,
    /// An example message of each kind.
    pub error_messages: BTreeMap<String, String>,
    /// Acknowledged records a second.
    pub records_per_second: f64,
    /// Acknowledged encoded megabytes a second.
    pub megabytes_per_second: f64,
    /// Acknowledgement latency, milliseconds, from the intended send time.
    pub ack_ms: Latency,
    /// Verdicts of the verification, where it was asked for.
    pub verified: Option<Vec<Verdict>>,
}

impl Report {
    /// Puts the counters of a run that took `wall` together.
    pub fn new(run: &str, stats: Stats, wall: Duration, own_cpu: Duration) -> Self {
        let seconds = wall.as_secs_f64().max(1e-9);
        Self {
            run: run.to_owned(),
            seconds,
            own_cpu_seconds: own_cpu.as_secs_f64(),
            batches: stats.batches,
            sent: stats.sent,
            accepted: stats.accepted,
            rejected: stats.rejected,
            unknown: stats.unknown,
            retried: stats.retried,
            errors: stats.errors,
            error_messages: stats.messages,
            records_per_second: real(stats.accepted) / seconds,
            megabytes_per_second: real(stats.bytes) / 1e6 / seconds,
            ack_ms: Latency::of(&stats.latency),
            verified: None,
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let ms = |q| real(histogram.quantile(q)) / 1e3;
        Self { p50: ms(0.5), p90: ms(0.9), p99: ms(0.99), p999: ms(0.999), max: real(histogram.max()) / 1e3 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run        {}", self.run)?;
        writeln!(
            f,
            "sent       {} records in {} batches over {:.1} s",
            self.sent, self.batches, self.seconds
        )?;
        writeln!(
            f,
            "accepted   {} ({:.0}/s, {:.1} MB/s)",
            self.accepted, self.records_per_second, self.megabytes_per_second
        )?;
        writeln!(
            f,
            "rejected   {}   unknown {}   repeated sends {}",
            self.rejected, self.unknown, self.retried
        )?;
        let Latency { p50, p90, p99, p999, max } = self.ack_ms;
        writeln!(f, "ack ms     p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        writeln!(f, "own cpu    {:.2} s", self.own_cpu_seconds)?;
        for (code, count) in &self.errors {
            let message = self.error_messages.get(code).map_or("", String::as_str);
            writeln!(f, "error      {count} × {code}: {message}")?;
        }
        self.verified.iter().flatten().try_for_each(|verdict| verdict.fmt(f))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds() { "verified " } else { "NOT RIGHT" };
        writeln!(
            f,
            "{word}  {}: {} acknowledged, {} rows, {} missing, {} doubled, {} stray, {} altered; {} unknown ({} of them stored), {} refused but stored",
            self.signal,
            self.acknowledged,
            self.returned,
            self.missing,
            self.doubled,
            self.stray,
            self.altered,
            self.unknown,
            self.unknown_stored,
            self.refused_stored
        )?;
        self.offenders.iter().try_for_each(|offender| writeln!(f, "           {offender}"))
    }
}

#[allow(clippy::cast_precision_loss)]
fn real(number: u64) -> f64 {
    number as f64
}
