//! Sends the batches of a run: tickets in, acknowledgements counted and journalled; open loop or as fast as answers come.
//!
//! Each worker takes the next ticket, waits for its intended time and carries its batch to an end. Latency counts from the
//! intended time, so a server that stalls cannot hide behind a generator that waits with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::journal::{Fate, Journal};
use super::payload::PayloadMaker;
use super::report::Stats;
use crate::clock;
use crate::domain::signal::Signal;
use crate::tools::error::ToolError;
use crate::tools::otlp_client::{OtlpClient, Outcome};

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Which signals a run sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SignalMix {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Gauge points.
    Metrics,
    /// Of four batches two with spans, one with logs, one with points.
    Mixed,
}

impl SignalMix {
    /// The signal of a ticket and the number of its batch among those of the signal.
    pub fn assign(self, ticket: u64) -> (Signal, u64) {
        match (self, ticket % 4) {
            (Self::Traces, _) => (Signal::Traces, ticket),
            (Self::Logs, _) => (Signal::Logs, ticket),
            (Self::Metrics, _) => (Signal::Metrics, ticket),
            (Self::Mixed, 2) => (Signal::Logs, ticket / 4),
            (Self::Mixed, 3) => (Signal::Metrics, ticket / 4),
            (Self::Mixed, turn) => (Signal::Traces, ticket / 4 * 2 + turn),
        }
    }
}

/// How a run goes.
#[derive(Debug, Clone)]
pub struct SendPlan {
    /// What is sent.
    pub mix: SignalMix,
    /// Records of a full batch.
    pub batch_size: u64,
    /// Records in all; `None` until the time is over.
    pub records: Option<u64>,
    /// Time between two batches; `None` for as fast as answers come.
    pub interval: Option<Duration>,
    /// How long new batches are begun; `None` until the records are sent.
    pub duration: Option<Duration>,
    /// Requests in flight on each connection.
    pub in_flight: usize,
    /// Send again until accepted.
    pub retry: bool,
    /// How long batches that are still not accepted are carried on after the end.
    pub drain: Duration,
}

impl SendPlan {
    /// Records of the batch of this ticket; `None` past the last one.
    fn count_of(&self, ticket: u64) -> Option<u64> {
        let Some(records) = self.records else { return Some(self.batch_size) };
        let left = records.checked_sub(ticket.checked_mul(self.batch_size)?)?;
        (left > 0).then_some(left.min(self.batch_size))
    }
}

/// Everything the workers of a run share.
struct Run {
    plan: SendPlan,
    maker: PayloadMaker,
    journal: Journal,
    stats: Mutex<Stats>,
    next: AtomicU64,
    start: Instant,
    /// `Some` once no new batch is begun: when to give up on those under way.
    stop: watch::Receiver<Option<Instant>>,
}

/// Sends a whole run over the given connections. Ends early, and in order, when `interrupt` resolves.
///
/// # Errors
/// [`ToolError::Journal`] where the journal cannot be written: without it nothing could be verified.
pub async fn send(
    plan: SendPlan,
    maker: PayloadMaker,
    journal: Journal,
    clients: Vec<OtlpClient>,
    interrupt: impl Future<Output = ()>,
) -> Result<(Stats, Journal), ToolError> {
    let (stop_sender, stop) = watch::channel(None);
    let (in_flight, duration, drain) = (plan.in_flight, plan.duration, plan.drain);
    let start = clock::now();
    let (stats, next) = (Mutex::default(), AtomicU64::new(0));
    let run = Arc::new(Run { plan, maker, journal, stats, next, start, stop });
    let mut workers = JoinSet::new();
    for client in clients.iter().flat_map(|client| std::iter::repeat_n(client, in_flight)) {
        workers.spawn(work(Arc::clone(&run), client.clone()));
    }
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep_until(start + duration).await,
            None => std::future::pending().await,
        }
    };
    let mut ended = std::pin::pin!(async {
        tokio::select! { () = over => {}, () = interrupt => {} }
    });
    let mut stopped = false;
    loop {
        tokio::select! {
            () = &mut ended, if !stopped => {
                stopped = true;
                stop_sender.send_replace(Some(clock::now() + drain));
            }
            joined = workers.join_next() => match joined {
                None => break,
                Some(Ok(result)) => result?,
                Some(Err(panic)) => {
                    return Err(ToolError::System { what: "a sending task ended", source: std::io::Error::other(panic) });
                }
            }
        }
    }
    let source = || std::io::Error::other("a worker still holds the run");
    let run =
        Arc::into_inner(run).ok_or_else(|| ToolError::System { what: "ending the run", source: source() })?;
    Ok((run.stats.into_inner(), run.journal))
}

async fn work(run: Arc<Run>, client: OtlpClient) -> Result<(), ToolError> {
    let mut stop = run.stop.clone();
    while stop.borrow().is_none() {
        let ticket = run.next.fetch_add(1, Ordering::Relaxed);
        let Some(count) = run.plan.count_of(ticket) else { break };
        let intended = match run.plan.interval {
            Some(interval) => run.start + interval.mul_f64(ticket as f64),
            None => clock::now(),
        };
        tokio::select! {
            () = tokio::time::sleep_until(intended) => {}
            _ = stop.wait_for(Option::is_some) => break,
        }
        run.carry(&client, ticket, count, intended).await?;
    }
    Ok(())
}

impl Run {
    /// Carries one batch to its end and counts it.
    async fn carry(
        &self,
        client: &OtlpClient,
        ticket: u64,
        count: u64,
        intended: Instant,
    ) -> Result<(), ToolError> {
        let (signal, number) = self.plan.mix.assign(ticket);
        let base_ns = clock::unix_nanos();
        let body = self.maker.batch(signal, number, count, base_ns);
        let bytes = body.len() as u64;
        self.journal.intend(signal, number, count, base_ns)?;
        {
            let mut stats = self.stats.lock();
            stats.batches += 1;
            stats.sent += count;
        }
        let fate = self.deliver(client, signal, ticket, body).await;
        self.journal.settle(signal, number, fate)?;
        let micros = u64::try_from(clock::now().duration_since(intended).as_micros()).unwrap_or(u64::MAX);
        self.count(fate, count, bytes, micros);
        Ok(())
    }

    /// Sends the same bytes until there is an end to it.
    async fn deliver(&self, client: &OtlpClient, signal: Signal, ticket: u64, body: Bytes) -> Fate {
        for attempt in 0.. {
            let after = match client.export(signal, body.clone()).await {
                Outcome::Accepted => return Fate::Accepted,
                Outcome::Rejected { records, message } => {
                    self.stats.lock().error("partial success", &message);
                    return Fate::Partial(records);
                }
                Outcome::Permanent { code, message } => {
                    self.stats.lock().error(&code, &message);
                    return Fate::Refused;
                }
                Outcome::Retryable { after, code, message } => {
                    self.stats.lock().error(&code, &message);
                    after
                }
                Outcome::Unknown { code, message } => {
                    self.stats.lock().error(&code, &message);
                    None
                }
            };
            let wait = after.unwrap_or_else(|| backoff(ticket, attempt));
            if !self.plan.retry || !self.pause(wait).await {
                break;
            }
            self.stats.lock().retried += 1;
        }
        Fate::Unknown
    }

    /// Waits before a repeated send; false when there is no time for one.
    async fn pause(&self, wait: Duration) -> bool {
        let mut stop = self.stop.clone();
        let wake = clock::now() + wait;
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            _ = stop.wait_for(|s| s.is_some_and(|give_up| give_up < wake)) => {}
        }
        let give_up = *stop.borrow();
        give_up.is_none_or(|give_up| clock::now() < give_up && wake <= give_up)
    }

    fn count(&self, fate: Fate, count: u64, bytes: u64, micros: u64) {
        let mut stats = self.stats.lock();
        match fate {
            Fate::Accepted | Fate::Partial(_) => {
                let rejected = if let Fate::Partial(rejected) = fate { rejected.min(count) } else { 0 };
                stats.accepted += count - rejected;
                stats.rejected += rejected;
                stats.bytes += bytes;
                stats.latency.record(micros);
            }
            Fate::Refused => stats.rejected += count,
            Fate::Unknown => stats.unknown += count,
        }
    }
}

/// Doubles up to two seconds; spread by ticket, so that workers do not come back all at once.
fn backoff(ticket: u64, attempt: u32) -> Duration {
    let full = FIRST_BACKOFF.saturating_mul(1 << attempt.min(10)).min(LONGEST_BACKOFF);
    let spread = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    full.mul_f64(0.5 + spread as f64 / 512.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_ticket_is_another_batch_and_batches_of_a_signal_have_no_gaps() {
        for mix in [SignalMix::Traces, SignalMix::Logs, SignalMix::Metrics, SignalMix::Mixed] {
            let batches: HashSet<_> = (0..400).map(|t| mix.assign(t)).collect();
            assert_eq!(batches.len(), 400);
            for signal in Signal::ALL {
                let numbers: HashSet<_> = batches.iter().filter(|b| b.0 == signal).map(|b| b.1).collect();
                assert!((0..numbers.len() as u64).all(|n| numbers.contains(&n)), "{mix:?} {signal}");
            }
        }
    }

    #[test]
    fn the_last_batch_is_as_short_as_it_must_be() {
        let mut plan = SendPlan {
            mix: SignalMix::Traces,
            batch_size: 100,
            records: Some(250),
            interval: None,
            duration: None,
            in_flight: 1,
            retry: true,
            drain: Duration::ZERO,
        };
        let counts: Vec<_> = (0..5).map(|t| plan.count_of(t)).collect();
        assert_eq!(counts, [Some(100), Some(100), Some(50), None, None]);
        plan.records = None;
        assert_eq!(plan.count_of(1 << 50), Some(100));
    }

    #[test]
    fn backoff_grows_to_its_bound() {
        assert!(backoff(1, 0) < FIRST_BACKOFF);
        assert!((0..40).all(|attempt| backoff(7, attempt) <= LONGEST_BACKOFF));
    }
}
