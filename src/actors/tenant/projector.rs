//! The gate projector: plans and usage in, what each tenant may do out, every 30 s.
//!
//! In: the plan source, the process's meter and the versions it saw, the totals of all processes in the state store. Out: the
//! totals of this process and those versions into the state store, one [`GateSnapshot`] a tenant into the cache. What may fail: any of the ports. With the
//! state store away it goes on with what it last read and what it counts itself; with the cache away the edge falls back
//! to letting everybody in. At a drain it writes the totals once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};

use crate::backends::plans::PlanSource;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::deploy::KEEP_DAYS;
use crate::domain::gate::GateSnapshot;
use crate::domain::usage::{Day, Meter, Usage};
use crate::domain::versions::VersionLog;
use crate::messages::store::{CacheCall, StateCall, settled};
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seat, Seated, Worker};

/// Longest wait for one answer of a port.
const ASK: Duration = Duration::from_secs(10);
/// Versions that are written down in one go.
const MOST_NOTED: usize = 1_000;

/// What the projector works with.
#[derive(Clone)]
pub struct ProjectorDeps {
    /// Which tenant has which plan.
    pub plans: Arc<dyn PlanSource>,
    /// What this process counted.
    pub meter: Meter,
    /// Which versions of services came in.
    pub versions: VersionLog,
    /// Name of this process in the totals.
    pub source: Arc<str>,
    /// The state adapter.
    pub state: Port<StateCall>,
    /// The cache adapter.
    pub cache: Port<CacheCall>,
    /// How often it looks and writes (`tenant.gate`), read each time.
    pub config: LiveConfig,
}

/// Actor that projects the gate.
pub struct GateProjector {
    deps: ProjectorDeps,
}

impl GateProjector {
    /// A projector.
    pub fn new(deps: ProjectorDeps) -> Self {
        Self { deps }
    }
}

impl Worker for GateProjector {
    /// Ready after the first projection, whatever became of it: the edge starts with what can be known.
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        let mut round = Round { deps: self.deps.clone(), probe: probe.clone(), elsewhere: None };
        ctx.spawn(wrap_future(async move {
            loop {
                chaos::point("projector.before");
                round.project().await;
                round.probe.ready();
                round.probe.progress();
                let next = clock::now() + round.deps.config.now().tenant.gate.every;
                while clock::now() < next {
                    let pause = (next - clock::now()).min(round.deps.config.now().tenant.gate.flush_every);
                    tokio::time::sleep(pause).await;
                    round.note(round.flush().await);
                }
            }
        }));
    }

    fn drain(&mut self, probe: &Probe, _reads_lane: bool, ctx: &mut Seated<Self>) {
        let last = Round { deps: self.deps.clone(), probe: probe.clone(), elsewhere: None };
        ctx.spawn(wrap_future::<_, Seat<Self>>(async move { last.flush().await }).map(|written, _, ctx| {
            if let Err(why) = written {
                tracing::warn!(why, "usage since the last write is not counted, nor are versions noted");
            }
            ctx.stop();
        }));
    }
}

struct Round {
    deps: ProjectorDeps,
    probe: Probe,
    /// What other processes had counted at the last look, and on which day that was.
    elsewhere: Option<(Day, HashMap<Arc<str>, Usage>)>,
}

impl Round {
    /// One projection of every tenant.
    async fn project(&mut self) {
        let today = Day::of_nanos(clock::unix_nanos());
        let flushed = self.flush().await;
        let read = if flushed.is_ok() { self.read(today).await } else { Ok(()) };
        let put = self.put(today).await;
        self.note(flushed.and(read).and(put));
    }

    /// Writes what this process counted and saw.
    async fn flush(&self) -> Result<(), String> {
        self.flush_totals().await?;
        self.flush_versions().await
    }

    /// Writes the totals of this process; days that are over and written are forgotten.
    async fn flush_totals(&self) -> Result<(), String> {
        let rows = self.deps.meter.totals(&self.deps.source);
        if rows.is_empty() {
            return Ok(());
        }
        let yesterday = Day(Day::of_nanos(clock::unix_nanos()).0.saturating_sub(1));
        settled(self.deps.state.ask(|reply| StateCall::PutUsage(rows, reply), ASK).await)?;
        // Yesterday's last requests may still be on their way.
        self.deps.meter.forget_before(yesterday);
        Ok(())
    }

    /// Writes the versions that this process saw; what cannot be written waits for the next time.
    async fn flush_versions(&self) -> Result<(), String> {
        let (seen, over) = self.deps.versions.take(MOST_NOTED);
        if over > 0 {
            tracing::warn!(
                over,
                "more versions of services than are noted in a day: no deploy markers of these"
            );
        }
        if seen.is_empty() {
            return Ok(());
        }
        let again = seen.clone();
        let noted = settled(self.deps.state.ask(|reply| StateCall::NoteVersions(seen, reply), ASK).await);
        if noted.is_err() {
            self.deps.versions.put_back(again);
        }
        noted
    }

    async fn read(&mut self, today: Day) -> Result<(), String> {
        let rows = settled(self.deps.state.ask(|reply| StateCall::ReadUsage(today, reply), ASK).await)?;
        let mut elsewhere: HashMap<Arc<str>, Usage> = HashMap::new();
        for row in rows.into_iter().filter(|row| row.source != self.deps.source) {
            let sum = elsewhere.entry(row.tenant).or_default();
            *sum = *sum + row.usage;
        }
        let first_today = self.elsewhere.as_ref().is_none_or(|(day, _)| *day != today);
        self.elsewhere = Some((today, elsewhere));
        if first_today {
            let oldest = Day(today.0.saturating_sub(KEEP_DAYS));
            settled(self.deps.state.ask(|reply| StateCall::ForgetUsage(oldest, reply), ASK).await)?;
            let oldest_ms = u64::from(oldest.0) * 86_400_000;
            settled(self.deps.state.ask(|reply| StateCall::ForgetDeploys(oldest_ms, reply), ASK).await)?;
            settled(self.deps.state.ask(|reply| StateCall::ForgetVersions(oldest_ms, reply), ASK).await)?;
        }
        Ok(())
    }

    async fn put(&self, today: Day) -> Result<(), String> {
        let plans = self.deps.plans.plans().await.map_err(|fault| fault.to_string())?;
        self.probe.progress();
        let now_s = clock::unix_nanos() / 1_000_000_000;
        let mut outcome = Ok(());
        for tenant in plans {
            let usage = self.elsewhere(&tenant.tenant, today) + self.deps.meter.usage(&tenant.tenant, today);
            let snapshot = GateSnapshot::project(&tenant.tenant, &tenant.plan, usage, today, now_s);
            let value = serde_json::to_vec(&snapshot).map_err(|error| error.to_string())?;
            // Kept for longer than it counts as fresh: the edge says "stale", and not "missing".
            let ttl = self.deps.config.now().tenant.gate.stale_after * 10;
            let make = |reply| CacheCall::Put(super::gate::key_of(&tenant.tenant), value.into(), ttl, reply);
            outcome = outcome.and(settled(self.deps.cache.ask(make, ASK).await));
        }
        outcome
    }

    fn elsewhere(&self, tenant: &Arc<str>, today: Day) -> Usage {
        let known = self.elsewhere.as_ref().filter(|(day, _)| *day == today);
        known.and_then(|(_, usage)| usage.get(tenant)).copied().unwrap_or_default()
    }

    fn note(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.probe.recovered(),
            Err(why) => self.probe.degraded(why),
        }
    }
}
