//! Asks the API for everything a run stored and holds it against the ledger: ledger in, one verdict a signal out.
//!
//! Rows become visible a little after their acknowledgement, so missing ones are waited for; doubled ones may come later
//! still, so a run that looks whole is counted once more after it had time to settle.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{Api, Row};
use super::identity::{Identity, hex};
use super::journal::Ledger;
use super::payload::{BATCH_KEY, METRIC, RECORD_SPACING_NS, RUN_KEY};
use super::tally::{SeqCounts, Verdict, judge};
use crate::clock;
use crate::domain::signal::Signal;
use crate::tools::error::ToolError;

/// Rows asked for at once: the API's largest page.
const PAGE: u32 = 10_000;
/// Batches whose points are asked for at once; each is one series of the answer, which holds at most 10,000.
const BATCHES_PER_WINDOW: usize = 4_000;
/// Pause between two counts while rows are missing.
const POLL: Duration = Duration::from_millis(500);
/// What is added to the time range of a run on both sides.
const MARGIN_NS: u64 = 60_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Where and how long to look.
#[derive(Debug, Clone)]
pub struct VerifyPlan {
    /// `http://HOST:PORT` of the API.
    pub api: String,
    /// Sent as `authorization: Bearer …`.
    pub api_key: Option<String>,
    /// How long missing rows are waited for.
    pub timeout: Duration,
    /// How long a run that is whole is left alone before it is counted for good.
    pub settle: Duration,
}

/// Verifies all signals of a ledger.
///
/// # Errors
/// [`ToolError::Api`] where the API still cannot be asked when the timeout is over.
pub async fn verify(ledger: &Ledger, plan: &VerifyPlan) -> Result<Vec<Verdict>, ToolError> {
    let api = Api::new(&plan.api, plan.api_key.as_deref())?;
    let deadline = clock::now() + plan.timeout;
    loop {
        let counted = count_all(&api, ledger).await;
        let late = clock::now() >= deadline;
        match counted {
            Ok(verdicts) if verdicts.iter().all(|v| v.missing == 0) => break,
            Ok(verdicts) if late => return Ok(verdicts),
            Err(error) if late => return Err(error),
            _ => tokio::time::sleep(POLL).await,
        }
    }
    tokio::time::sleep(plan.settle).await;
    count_all(&api, ledger).await
}

async fn count_all(api: &Api, ledger: &Ledger) -> Result<Vec<Verdict>, ToolError> {
    let mut verdicts = Vec::new();
    for signal in ledger.signals() {
        verdicts.push(match signal {
            Signal::Metrics => count_points(api, ledger).await?,
            Signal::Traces | Signal::Logs => count_rows(api, ledger, signal).await?,
        });
    }
    Ok(verdicts)
}

/// Time range of a signal's records, with a margin, Unix nanoseconds.
fn time_range(ledger: &Ledger, signal: Signal) -> (u64, u64) {
    let times = || ledger.of(signal).map(|(_, b)| (b.base_ns, b.base_ns + b.count * RECORD_SPACING_NS));
    let start = times().map(|t| t.0).min().unwrap_or(0);
    let end = times().map(|t| t.1).max().unwrap_or(0);
    (start.saturating_sub(MARGIN_NS), end + MARGIN_NS)
}

/// Pages through all spans or log records of the run.
async fn count_rows(api: &Api, ledger: &Ledger, signal: Signal) -> Result<Verdict, ToolError> {
    let end = ledger.of(signal).map(|(n, b)| n * ledger.info.batch_size + b.count).max().unwrap_or(0);
    let identity = Identity::new(&ledger.info.run, ledger.info.seed);
    let (mut counts, mut verdict) = (SeqCounts::new(end), Verdict::new(signal));
    let (start, stop) = time_range(ledger, signal);
    let (path, filter) = match signal {
        Signal::Logs => ("logs", ("q".to_owned(), format!("attr.{RUN_KEY}={}", ledger.info.run))),
        _ => ("spans", (format!("attr.{RUN_KEY}"), ledger.info.run.clone())),
    };
    let query = [filter, number("start", start), number("end", stop), number("limit", PAGE.into())];
    let mut cursor = None;
    loop {
        let page = api.rows(path, &query, cursor.as_deref()).await?;
        for row in &page.items {
            count_row(row, identity, &mut counts, &mut verdict);
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(judge(ledger, verdict, &counts)),
        }
    }
}

fn count_row(row: &Row, identity: Identity, counts: &mut SeqCounts, verdict: &mut Verdict) {
    verdict.returned += 1;
    let seq = row.seq();
    if !seq.is_some_and(|seq| counts.add(seq)) {
        verdict.stray += 1;
        verdict.name(|| format!("a row has sequence {seq:?}, which was never sent"));
        return;
    }
    let expected = seq.map(|seq| hex(&identity.trace_id(seq))).unwrap_or_default();
    if row.trace_id.as_ref().is_some_and(|id| *id != expected) {
        verdict.altered += 1;
        verdict.name(|| format!("sequence {seq:?} has trace id {:?}, sent was {expected}", row.trace_id));
    }
}

/// Counts data points by batch, one window of time after the other.
async fn count_points(api: &Api, ledger: &Ledger) -> Result<Verdict, ToolError> {
    let mut verdict = Verdict::new(Signal::Metrics);
    let mut stored: BTreeMap<u64, u64> = BTreeMap::new();
    for (start, end) in windows(ledger) {
        let query = [
            ("name".to_owned(), METRIC.to_owned()),
            ("agg".to_owned(), "count".to_owned()),
            ("by".to_owned(), BATCH_KEY.to_owned()),
            (format!("attr.{RUN_KEY}"), ledger.info.run.clone()),
            ("step".to_owned(), format!("{}s", (end - start) / SECOND_NS)),
            number("start", start),
            number("end", end),
            number("limit", PAGE.into()),
        ];
        for (batch, points) in api.counts_by(BATCH_KEY, &query).await? {
            *stored.entry(batch).or_default() += points;
        }
    }
    for (number, batch) in ledger.of(Signal::Metrics) {
        let points = stored.remove(&number).unwrap_or(0);
        verdict.returned += points;
        let doubled = points.saturating_sub(batch.count);
        verdict.batch(number, batch.count, batch.fate, points.min(batch.count), doubled);
    }
    for (number, points) in stored {
        verdict.stray += points;
        verdict.name(|| format!("{points} points of batch {number}, which was never sent"));
    }
    Ok(verdict)
}

/// Cuts the time of the data points into windows whose start lies on a multiple of their width, as the API aligns steps;
/// each is as wide as the densest stretch of the run allows.
fn windows(ledger: &Ledger) -> Vec<(u64, u64)> {
    let mut bases: Vec<u64> = ledger.of(Signal::Metrics).map(|(_, b)| b.base_ns).collect();
    bases.sort_unstable();
    let mut width = 3_600;
    let dense =
        |width: u64| bases.windows(BATCHES_PER_WINDOW).any(|w| w[w.len() - 1] - w[0] < width * SECOND_NS);
    while width > 1 && dense(width) {
        width = (width / 2).max(1);
    }
    let width = width * SECOND_NS;
    let longest = ledger.of(Signal::Metrics).map(|(_, b)| b.count * RECORD_SPACING_NS).max().unwrap_or(0);
    let mut starts: Vec<u64> = Vec::new();
    for base in bases {
        let (first, last) = (base / width, (base + longest) / width);
        starts.extend(
            (first..=last)
                .filter(|n| starts.last().is_none_or(|s| n * width > *s))
                .map(|n| n * width)
                .collect::<Vec<_>>(),
        );
    }
    starts.into_iter().map(|start| (start, start + width)).collect()
}

fn number(name: &str, value: u64) -> (String, String) {
    (name.to_owned(), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Batch, Fate, RunInfo};
    use super::*;

    fn ledger(bases: impl Iterator<Item = u64>) -> Ledger {
        let info = RunInfo { run: "r".to_owned(), seed: 0, batch_size: 10 };
        let batch = |base_ns| Batch { count: 10, base_ns, fate: Fate::Accepted };
        Ledger {
            info,
            batches: bases.enumerate().map(|(n, b)| ((Signal::Metrics, n as u64), batch(b))).collect(),
        }
    }

    #[test]
    fn windows_cover_every_point_once_and_skip_quiet_time() {
        let second = SECOND_NS;
        let quiet = ledger([10 * second, 100_000 * second].into_iter());
        assert_eq!(windows(&quiet).len(), 2);
        let dense = ledger((0..20_000).map(|n| 1_700_000_000 * second + n * second / 2_000));
        let cut = windows(&dense);
        assert!(cut.len() >= 10, "{cut:?}");
        assert!(cut.windows(2).all(|w| w[0].1 <= w[1].0));
        for (_, batch) in dense.of(Signal::Metrics) {
            assert_eq!(cut.iter().filter(|(s, e)| (*s..*e).contains(&batch.base_ns)).count(), 1);
        }
    }
}
