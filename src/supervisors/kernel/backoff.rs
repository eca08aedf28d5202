//! The wait before a restart: `min · factorⁿ`, capped at `max`, then shortened by up to `jitter`.

use std::time::Duration;

use super::policy::BackoffPolicy;

/// Counts the restarts of one child and says how long to wait before the next.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    restarts: u32,
}

impl Backoff {
    /// The wait before the restart now due. `ran` is how long the last incarnation ran, `chance` is in [0, 1).
    pub fn next(&mut self, policy: &BackoffPolicy, ran: Duration, chance: f64) -> Duration {
        if ran >= policy.reset_after {
            self.restarts = 0;
        }
        let wait = Self::uncut(policy, self.restarts);
        self.restarts = self.restarts.saturating_add(1);
        wait.mul_f64(1.0 - policy.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0))
    }

    /// The wait before restart number `restarts` (from 0), without jitter.
    pub fn uncut(policy: &BackoffPolicy, restarts: u32) -> Duration {
        let grown = policy.min.as_secs_f64() * policy.factor.max(1.0).powi(restarts.min(1_000) as i32);
        Duration::from_secs_f64(grown.min(policy.max.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(min: u64, max: u64, factor: f64, jitter: f64) -> BackoffPolicy {
        BackoffPolicy {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
            factor,
            jitter,
            reset_after: Duration::from_secs(60),
        }
    }

    proptest! {
        #[test]
        fn stays_between_its_bounds_and_grows_until_the_cap(
            min in 1_u64..1_000, extra in 0_u64..100_000, factor in 1.0_f64..4.0, jitter in 0.0_f64..1.0,
            chance in 0.0_f64..1.0,
        ) {
            let policy = policy(min, min + extra, factor, jitter);
            let mut backoff = Backoff::default();
            let mut before = Duration::ZERO;
            for n in 0..40 {
                let uncut = Backoff::uncut(&policy, n);
                prop_assert!(uncut >= before && uncut <= policy.max);
                before = uncut;
                let wait = backoff.next(&policy, Duration::ZERO, chance);
                prop_assert!(wait <= policy.max && wait <= uncut + Duration::from_nanos(1));
                prop_assert!(wait.as_secs_f64() >= uncut.as_secs_f64() * (1.0 - jitter) - 1e-6);
            }
        }
    }

    #[test]
    fn a_long_run_starts_over() {
        let policy = policy(100, 10_000, 2.0, 0.0);
        let mut backoff = Backoff::default();
        backoff.next(&policy, Duration::ZERO, 0.0);
        assert_eq!(backoff.next(&policy, Duration::ZERO, 0.0), Duration::from_millis(200));
        assert_eq!(backoff.next(&policy, Duration::from_secs(60), 0.0), Duration::from_millis(100));
    }
}
