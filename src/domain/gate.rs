//! The billing gate: plan and usage of a tenant in, whether it may send more out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plan::{Limits, Plan};
use super::signal::Signal;
use super::usage::{Day, Usage};

/// Longest wait that a client is told: what it may send next may change at any time, by another plan for one.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// What the projector knows of a tenant; the edge decides by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSnapshot {
    /// Tenant.
    pub tenant: String,
    /// Name of its plan.
    pub plan: String,
    /// Limits of its plan.
    pub limits: Limits,
    /// What all processes together had counted for `day`.
    pub usage: Usage,
    /// The day that was counted.
    pub day: Day,
    /// When this was projected, Unix seconds.
    pub projected_at_s: u64,
}

/// Why a tenant may not send more of a signal today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The limit that was reached, for a person.
    pub reason: String,
    /// When to try again.
    pub retry_after: Duration,
}

impl GateSnapshot {
    /// The snapshot of a tenant on `plan`.
    pub fn project(tenant: &str, plan: &Plan, usage: Usage, day: Day, now_s: u64) -> Self {
        Self {
            tenant: tenant.to_owned(),
            plan: plan.name.to_string(),
            limits: plan.limits,
            usage,
            day,
            projected_at_s: now_s,
        }
    }

    /// Whether `signal` may come in when `used` was used today. The request that crosses a limit is still taken whole;
    /// the next one is refused.
    ///
    /// # Errors
    /// [`Limited`], naming the limit.
    pub fn admits(&self, signal: Signal, used: Usage, now_s: u64) -> Result<(), Limited> {
        let limits = &self.limits;
        let (name, count, limit) = match signal {
            Signal::Traces => ("spans", used.spans, limits.spans_per_day),
            Signal::Logs => ("log records", used.logs, limits.log_records_per_day),
            Signal::Metrics => ("metric points", used.points, limits.metric_points_per_day),
        };
        let over = [(name, count, limit), ("bytes", used.bytes, limits.bytes_per_day)]
            .into_iter()
            .find(|(_, count, limit)| *limit > 0 && count >= limit);
        let Some((name, count, limit)) = over else { return Ok(()) };
        let reason = format!(
            "tenant {} has used {count} of the {limit} {name} a day of plan {}; the day ends at midnight UTC",
            self.tenant, self.plan
        );
        let left = Duration::from_secs(self.day.ends_at_s().saturating_sub(now_s));
        Err(Limited { reason, retry_after: left.clamp(Duration::from_secs(1), MOST_WAIT) })
    }

    /// Reasons for which some signal is refused when `used` was used today.
    pub fn reasons(&self, used: Usage, now_s: u64) -> Vec<String> {
        let mut reasons: Vec<String> = Signal::ALL
            .iter()
            .filter_map(|signal| self.admits(*signal, used, now_s).err())
            .map(|limited| limited.reason)
            .collect();
        reasons.dedup();
        reasons
    }
}

/// How a tenant stands, as the API tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GateAnswer {
    /// Name of the plan.
    #[schema(example = "team")]
    pub plan: String,
    /// Its limits; 0 is no limit.
    pub limits: Limits,
    /// Used today.
    pub usage: UsageToday,
    /// `allowed`; `limited` where some signal is refused; `unknown` where nothing is known, which lets everything in.
    #[schema(example = "allowed")]
    pub state: String,
    /// Why signals are refused.
    pub reasons: Vec<String>,
    /// When the projection behind this was made, Unix seconds.
    pub projected_at: u64,
    /// The API keys of the tenant.
    pub keys: Vec<KeyAnswer>,
}

/// What was used of a UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageToday {
    /// Spans.
    pub spans: u64,
    /// Log records.
    pub log_records: u64,
    /// Metric points.
    pub metric_points: u64,
    /// Bytes of requests as sent.
    pub bytes: u64,
    /// When the day ends, Unix seconds.
    pub ends_at: u64,
}

/// An API key as its tenant sees it: never the key, nor its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyAnswer {
    /// Its name.
    pub name: String,
    /// When it ends, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<u64>,
    /// When it was last used, Unix seconds, to some seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_at: Option<u64>,
}

impl GateAnswer {
    /// The answer for what is known.
    pub fn of(known: &GateSnapshot, used: Usage, now_s: u64, keys: Vec<KeyAnswer>) -> Self {
        let reasons = known.reasons(used, now_s);
        Self {
            plan: known.plan.clone(),
            limits: known.limits,
            usage: UsageToday {
                spans: used.spans,
                log_records: used.logs,
                metric_points: used.points,
                bytes: used.bytes,
                ends_at: known.day.ends_at_s(),
            },
            state: if reasons.is_empty() { "allowed" } else { "limited" }.to_owned(),
            reasons,
            projected_at: known.projected_at_s,
            keys,
        }
    }

    /// The answer where nothing is known.
    pub fn unknown(used: Usage, day: Day) -> Self {
        let nothing = GateSnapshot {
            tenant: String::new(),
            plan: String::new(),
            limits: Limits::default(),
            usage: used,
            day,
            projected_at_s: 0,
        };
        Self { state: "unknown".to_owned(), ..Self::of(&nothing, used, 0, Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::plan::built_in;
    use super::*;

    fn snapshot() -> GateSnapshot {
        let plan = Plan { name: Arc::from("free"), limits: built_in("free").unwrap() };
        GateSnapshot::project("acme", &plan, Usage::default(), Day(10), 864_000)
    }

    #[test]
    fn a_limit_holds_for_its_signal_and_bytes_hold_for_all() {
        let gate = snapshot();
        let spans = Usage { spans: 1_000_000, ..Usage::default() };
        let limited = gate.admits(Signal::Traces, spans, 864_000).unwrap_err();
        assert!(limited.reason.contains("1000000 spans a day of plan free"), "{}", limited.reason);
        assert_eq!(limited.retry_after, Duration::from_secs(60), "never told to wait until midnight");
        assert_eq!(gate.admits(Signal::Logs, spans, 864_000), Ok(()));
        assert_eq!(gate.admits(Signal::Traces, Usage { spans: 999_999, ..spans }, 864_000), Ok(()));
        let bytes = Usage { bytes: 1 << 30, ..Usage::default() };
        assert!(Signal::ALL.iter().all(|signal| gate.admits(*signal, bytes, 864_000).is_err()));
        assert_eq!(gate.reasons(bytes, 864_000).len(), 1, "one reason, said once");
        assert_eq!(gate.admits(Signal::Traces, spans, 950_399).unwrap_err().retry_after.as_secs(), 1);
    }

    #[test]
    fn the_unlimited_plan_admits_everything() {
        let gate = GateSnapshot { limits: Limits::default(), ..snapshot() };
        let much = Usage { spans: u64::MAX, logs: u64::MAX, points: u64::MAX, bytes: u64::MAX };
        assert!(Signal::ALL.iter().all(|signal| gate.admits(*signal, much, 0).is_ok()));
    }
}
