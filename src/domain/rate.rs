//! Rate limits that several nodes share: a common clock of what was given out, and what one node holds of it.
//!
//! [`Gcra`] is the limit itself, one number a tenant: when the next request would be due. Who keeps that number for all
//! nodes gives out *leases*: some permits at once, for a short time. [`LeasedRate`] is one node's side: it spends its
//! lease, says when to ask for the next one, and, while nobody answers, goes on with its share of the rate. Then all nodes
//! together let through at most the rate, and one lease a node more.

use std::time::Duration;

use parking_lot::Mutex;

const SECOND: u64 = 1_000_000_000;
/// How long nobody is asked after an ask that failed.
const AWAY: Duration = Duration::from_secs(1);
/// Longest that a refusal of the keeper is believed.
const MOST_REFUSED: Duration = Duration::from_secs(1);

/// A rate with room for a burst, as one number. Times are nanoseconds on any clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gcra {
    due_ns: u64,
}

impl Gcra {
    /// Takes up to `want` permits of a rate at which one comes every `step_ns`, of which `burst` may come at once.
    ///
    /// # Errors
    /// The wait until there is one, where there is none.
    pub fn take(&mut self, step_ns: u64, burst: u32, want: u32, now_ns: u64) -> Result<u32, Duration> {
        let horizon = step_ns.saturating_mul(u64::from(burst.max(1)));
        // What was taken elsewhere may be more than there was: it is made up for, but never for longer than a burst.
        let due = self.due_ns.clamp(now_ns, now_ns.saturating_add(horizon.saturating_mul(2)));
        let ahead = due - now_ns;
        let permits = horizon.saturating_sub(ahead) / step_ns.max(1);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX).min(want);
        if permits == 0 {
            return Err(Duration::from_nanos((ahead + step_ns).saturating_sub(horizon).max(1)));
        }
        self.due_ns = due.saturating_add(step_ns.saturating_mul(u64::from(permits)));
        Ok(permits)
    }

    /// Counts permits that were taken elsewhere since it was last asked.
    pub fn spend(&mut self, step_ns: u64, spent: u32) {
        self.due_ns = self.due_ns.saturating_add(step_ns.saturating_mul(u64::from(spent)));
    }
}

/// The nanoseconds between two permits of a rate, at least one. 0 a second is no limit ([`Rate`]), for which nobody asks;
/// here it counts as 1.
pub fn step_ns(per_second: u32) -> u64 {
    (SECOND / u64::from(per_second.max(1))).max(1)
}

/// What a tenant may send, and for how long a node keeps permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second; 0 is no limit.
    pub per_second: u32,
    /// How long a lease holds.
    pub term: Duration,
}

impl Rate {
    /// The most permits that one node holds at a time: what the rate gives in one term.
    pub fn most(&self) -> u32 {
        let most = self.term.as_nanos() * u128::from(self.per_second) / u128::from(SECOND);
        u32::try_from(most).unwrap_or(u32::MAX).max(1)
    }
}

/// What the keeper of a rate answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Permits, perhaps fewer than were asked for.
    pub permits: u32,
    /// Nodes that asked of late, this one with them.
    pub nodes: u32,
    /// Without permits: when to ask again.
    pub retry_after: Duration,
}

/// What a node asks the keeper for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Permits; none by a node that only tells.
    pub permits: u32,
    /// Requests that it let in by itself, which the keeper has not heard of.
    pub spent: u32,
}

/// What a node does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Lets it in.
    Admitted,
    /// Lets it in, and asks before its permits run out.
    AdmittedLow(Wanted),
    /// Asks first.
    Ask(Wanted),
    /// Nobody answers at the moment: [`LeasedRate::take_alone`] decides.
    Alone,
    /// Refuses it for so long.
    Refused(Duration),
}

/// One node's part of a rate. Shared; no call waits.
#[derive(Debug, Default)]
pub struct LeasedRate {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Permits that are left, until a time.
    permits: u32,
    until_ns: u64,
    /// Permits that were spent since the last grant; what the next one is sized by.
    spent: u32,
    want: u32,
    refused_until_ns: u64,
    keeper: Keeper,
    ask_at_ns: u64,
    /// What was let in without the keeper.
    alone: Gcra,
    untold: u32,
}

/// How the keeper stands, as this node sees it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// It answers.
    #[default]
    There,
    /// It does not.
    Away,
    /// It does again, and has been told what was let in meanwhile. The other nodes may not have told yet: until the next
    /// ask nothing changes.
    Told,
}

impl Held {
    /// What to ask for: what the last term needed, twice that where it was not enough, so that a quiet node does not keep
    /// from the others what it does not use.
    fn wanted(&self, rate: &Rate) -> Wanted {
        let permits = self.want.clamp(1, rate.most()).saturating_sub(self.permits).max(1);
        let tells = self.keeper == Keeper::Away;
        Wanted { permits: if tells { 0 } else { permits }, spent: self.untold }
    }

    fn double(&mut self, rate: &Rate) {
        self.want = self.want.max(1).saturating_mul(2).min(rate.most());
    }

    fn expire(&mut self, now_ns: u64) {
        if self.permits > 0 && now_ns >= self.until_ns {
            self.permits = 0;
            self.want = self.spent;
            self.spent = 0;
        }
    }
}

impl LeasedRate {
    /// Decides on a request.
    pub fn take(&self, rate: &Rate, now_ns: u64) -> Take {
        if rate.per_second == 0 {
            return Take::Admitted;
        }
        let held = &mut *self.held.lock();
        held.expire(now_ns);
        let is_there = held.keeper == Keeper::There;
        if held.permits > 0 {
            held.permits -= 1;
            held.spent += 1;
            let is_low = held.permits.saturating_mul(4) <= held.want && held.want > 1;
            if is_low && is_there && now_ns >= held.refused_until_ns {
                held.double(rate);
                return Take::AdmittedLow(held.wanted(rate));
            }
            return Take::Admitted;
        }
        if !is_there {
            return Take::Alone;
        }
        if now_ns < held.refused_until_ns {
            return Take::Refused(Duration::from_nanos(held.refused_until_ns - now_ns));
        }
        if now_ns < held.until_ns {
            held.double(rate);
        }
        Take::Ask(held.wanted(rate))
    }

    /// The keeper answered to `asked`.
    pub fn granted(&self, rate: &Rate, asked: Wanted, grant: &Grant, now_ns: u64) {
        let held = &mut *self.held.lock();
        held.untold = held.untold.saturating_sub(asked.spent);
        if held.keeper == Keeper::Away {
            held.keeper = Keeper::Told;
            held.ask_at_ns = now_ns.saturating_add(nanos(AWAY));
            return;
        }
        held.keeper = Keeper::There;
        held.permits = held.permits.saturating_add(grant.permits).min(rate.most());
        if grant.permits > 0 {
            held.until_ns = now_ns.saturating_add(nanos(rate.term));
            held.spent = 0;
        } else {
            held.refused_until_ns = now_ns.saturating_add(nanos(grant.retry_after.min(MOST_REFUSED)));
        }
    }

    /// The keeper did not answer.
    pub fn unanswered(&self, now_ns: u64) {
        let held = &mut *self.held.lock();
        held.keeper = Keeper::Away;
        held.ask_at_ns = now_ns.saturating_add(nanos(AWAY));
    }

    /// While nobody answers: what to ask for now. Says so once in a while, to one.
    pub fn may_ask(&self, rate: &Rate, now_ns: u64) -> Option<Wanted> {
        let held = &mut *self.held.lock();
        let due = held.keeper != Keeper::There && now_ns >= held.ask_at_ns;
        due.then(|| {
            held.ask_at_ns = now_ns.saturating_add(nanos(AWAY));
            held.wanted(rate)
        })
    }

    /// Decides on a request by this node's share of the rate, one of `nodes`, with a lease's worth at once.
    ///
    /// # Errors
    /// The wait until there is room.
    pub fn take_alone(&self, rate: &Rate, nodes: u32, now_ns: u64) -> Result<(), Duration> {
        let step = step_ns(rate.per_second).saturating_mul(u64::from(nodes.max(1)));
        let held = &mut *self.held.lock();
        held.alone.take(step, rate.most(), 1, now_ns)?;
        held.untold = held.untold.saturating_add(1);
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const RATE: Rate = Rate { per_second: 100, term: Duration::from_millis(200) };

    /// A keeper as all nodes see it.
    fn ask(keeper: &mut Gcra, wanted: Wanted, now_ns: u64) -> Grant {
        keeper.spend(step_ns(RATE.per_second), wanted.spent);
        let taken = keeper.take(step_ns(RATE.per_second), RATE.per_second, wanted.permits, now_ns);
        let (permits, retry_after) = taken.map_or_else(|wait| (0, wait), |permits| (permits, Duration::ZERO));
        Grant { permits, nodes: 3, retry_after }
    }

    /// A request at a node that asks the keeper where it has to; `None` is a keeper that is away.
    fn request(node: &LeasedRate, mut keeper: Option<&mut Gcra>, now_ns: u64) -> bool {
        loop {
            match (node.take(&RATE, now_ns), keeper.as_deref_mut()) {
                (Take::Admitted, _) => return true,
                (Take::Refused(_), _) => return false,
                (Take::AdmittedLow(want), Some(keeper)) => {
                    node.granted(&RATE, want, &ask(keeper, want, now_ns), now_ns);
                    return true;
                }
                (Take::AdmittedLow(_), None) => {
                    node.unanswered(now_ns);
                    return true;
                }
                (Take::Ask(want), Some(keeper)) => {
                    node.granted(&RATE, want, &ask(keeper, want, now_ns), now_ns)
                }
                (Take::Ask(_), None) => node.unanswered(now_ns),
                (Take::Alone, keeper) => {
                    if let (Some(want), Some(keeper)) = (node.may_ask(&RATE, now_ns), keeper) {
                        node.granted(&RATE, want, &ask(keeper, want, now_ns), now_ns);
                        continue;
                    }
                    return node.take_alone(&RATE, 3, now_ns).is_ok();
                }
            }
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let mut rate = Gcra::default();
        assert_eq!(rate.take(10 * MS, 5, 9, 1_000 * MS), Ok(5), "as many as there are");
        assert_eq!(rate.take(10 * MS, 5, 1, 1_000 * MS), Err(Duration::from_millis(10)));
        assert_eq!(rate.take(10 * MS, 5, 1, 1_010 * MS), Ok(1));
        assert_eq!(rate.take(10 * MS, 5, 9, 9_000 * MS), Ok(5), "nothing is saved up beyond the burst");
        rate.spend(10 * MS, 3);
        assert_eq!(rate.take(10 * MS, 5, 1, 9_000 * MS), Err(Duration::from_millis(40)), "it is made up for");
        rate.spend(10 * MS, 1_000);
        assert_eq!(rate.take(10 * MS, 5, 1, 9_000 * MS), Err(Duration::from_millis(60)), "but not for ever");
    }

    #[test]
    fn a_rate_above_one_a_nanosecond_refuses_nobody() {
        for per_second in [1_000_000_001, u32::MAX] {
            let taken = Gcra::default().take(step_ns(per_second), per_second, 9, 1_000 * MS);
            assert_eq!(taken, Ok(9), "{per_second} a second");
        }
    }

    #[test]
    fn nodes_together_get_the_rate_and_no_more() {
        let (mut keeper, nodes) = (Gcra::default(), [(); 3].map(|()| LeasedRate::default()));
        let start = 10_000 * MS;
        let mut admitted = 0;
        // Six times the rate, for ten seconds.
        for tick in 0..6_000_u64 {
            let node = &nodes[(tick % 3) as usize];
            admitted += u32::from(request(node, Some(&mut keeper), start + tick * 10_000 * MS / 6_000));
        }
        assert!((1_000..=1_100).contains(&admitted), "{admitted} of 10 s at 100 and a burst of 100");
    }

    #[test]
    fn a_quiet_node_leaves_the_rate_to_the_others() {
        let (mut keeper, nodes) = (Gcra::default(), [(); 10].map(|()| LeasedRate::default()));
        let start = 10_000 * MS;
        // 80 a second in all, in turn over ten nodes: below the rate, so that none is refused.
        let refused = (0..2_000_u64).filter(|tick| {
            let node = &nodes[(tick % 10) as usize];
            !request(node, Some(&mut keeper), start + tick * 12_500_000)
        });
        assert_eq!(refused.count(), 0);
    }

    #[test]
    fn with_the_keeper_away_nodes_overshoot_by_at_most_a_lease_each() {
        let (mut keeper, nodes) = (Gcra::default(), [(); 3].map(|()| LeasedRate::default()));
        let start = 10_000 * MS;
        let mut admitted = [0_u32; 3];
        for tick in 0..18_000_u64 {
            let now = start + tick * 30_000 * MS / 18_000;
            // There for ten seconds, away for ten, back for ten.
            let phase = (tick / 6_000) as usize;
            let keeper = (phase != 1).then_some(&mut keeper);
            admitted[phase] += u32::from(request(&nodes[(tick % 3) as usize], keeper, now));
        }
        let lease = RATE.most();
        assert!(admitted[1] >= 990, "the rate goes on: {admitted:?}");
        // What they held of the keeper when it went is none of it over the rate.
        assert!(admitted[1] <= 1_000 + 3 * lease + 3 * lease, "{admitted:?}, a lease is {lease}");
        assert!(
            admitted.iter().sum::<u32>() <= 3_000 + 100 + 3 * lease,
            "{admitted:?}: in all one lease a node over"
        );
        assert!(admitted[2] >= 900, "it is asked again: {admitted:?}");
    }

    #[test]
    fn no_limit_is_no_limit() {
        let (node, free) = (LeasedRate::default(), Rate { per_second: 0, ..RATE });
        assert!((0..1_000).all(|_| node.take(&free, 1) == Take::Admitted));
    }
}
