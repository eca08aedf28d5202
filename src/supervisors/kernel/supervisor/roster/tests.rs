//! The roster against what a look at every slot says: the same child starts next, the same ones are due.

use std::time::Duration;

use futures_util::future::AbortHandle;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::clock;
use crate::supervisors::kernel::liveness::Liveness;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::slot::{Leaving, Running, Then};

#[derive(Debug, Clone, Copy)]
enum Step {
    Add,
    Plan(Turn, u64),
    Launch,
    Up,
    Look(u64),
    Leave(u64),
    End,
    Gone,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let turn = prop_oneof![Just(Turn::InOrder), Just(Turn::Alone), Just(Turn::Probation)];
    prop_oneof![
        3 => Just(Step::Add),
        4 => (turn, 0_u64..8).prop_map(|(turn, after)| Step::Plan(turn, after)),
        4 => Just(Step::Launch),
        3 => Just(Step::Up),
        1 => (0_u64..8).prop_map(Step::Look),
        1 => (0_u64..8).prop_map(Step::Leave),
        2 => Just(Step::End),
        1 => Just(Step::Gone),
        4 => (0_u64..5).prop_map(Step::Wait),
    ]
}

fn running(now: Instant) -> Running {
    Running {
        launch: 1,
        probe: Probe::detached(),
        abort: AbortHandle::new_pair().0,
        arbiter: None,
        started: now,
        up: false,
        ready_by: Some(now + s(5)),
        leaving: None,
        liveness: Liveness::new(Duration::ZERO),
        look_at: Some(now),
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The rule for one child, by a look at all of them.
fn may_start(roster: &Roster, child: usize, now: Instant, at_once: usize, group: bool) -> bool {
    let Some(pending) = &roster[child].pending else { return false };
    let ahead = match pending.turn {
        Turn::InOrder => (0..child).filter(|other| roster[*other].is_coming()).count(),
        Turn::Alone | Turn::Probation if group => roster.iter().filter(|slot| slot.is_starting()).count(),
        Turn::Alone | Turn::Probation => 0,
    };
    ahead < at_once && pending.at <= now
}

fn check(roster: &mut Roster, now: Instant, at_once: usize, group: bool) -> Result<(), TestCaseError> {
    let expected = (0..roster.len()).find(|child| may_start(roster, *child, now, at_once, group));
    let others = !group || roster.starting() < at_once;
    prop_assert_eq!(roster.next_start(now, at_once, others), expected);
    let late = |slot: &Slot| slot.patience().into_iter().chain(slot.look_at()).min();
    let due: Vec<usize> =
        (0..roster.len()).filter(|child| late(&roster[*child]).is_some_and(|at| at <= now)).collect();
    prop_assert_eq!(roster.due(now), due);
    // A start that has only to wait for its turn needs no timer; any other does.
    let starts = roster.iter().filter_map(|slot| slot.pending.as_ref()).map(|p| p.at).filter(|at| *at > now);
    let next = roster.iter().filter_map(late).chain(starts).min();
    prop_assert_eq!(roster.next_time(), next);
    prop_assert_eq!(roster.is_any_coming(), roster.iter().any(Slot::is_coming));
    let names = roster.iter().filter(|slot| !slot.free).count();
    prop_assert_eq!(roster.children(), names);
    Ok(())
}

fn act(roster: &mut Roster, step: Step, child: usize, now: Instant, made: &mut u32) {
    if matches!(step, Step::Add) {
        *made += 1;
        let spec = ChildSpec::supervisor(made.to_string(), Policy::default(), Vec::new());
        let node = Node::root(&spec);
        let (child, _) = roster.add(Slot::new(spec, node, 0, 0));
        roster.edit(child).pending = Some(Pending { at: now, turn: Turn::InOrder });
        return;
    }
    if roster.len() == 0 || roster[child % roster.len()].free {
        return;
    }
    let child = child % roster.len();
    let mut slot = roster.edit(child);
    match step {
        Step::Plan(turn, after) if slot.run.is_none() => {
            slot.pending = Some(Pending { at: now + s(after), turn });
        }
        Step::Launch if slot.pending.is_some() && slot.run.is_none() => {
            slot.pending = None;
            slot.run = Some(running(now));
        }
        Step::Up => slot.run.iter_mut().for_each(|run| {
            run.up = true;
            run.ready_by = None;
        }),
        Step::Look(after) => slot.run.iter_mut().for_each(|run| run.look_at = Some(now + s(after))),
        Step::Leave(after) => slot.run.iter_mut().for_each(|run| {
            let until = Some(now + s(after));
            run.leaving = Some(Box::new(Leaving { until, aborted: false, then: Then::Forget }));
        }),
        Step::End => slot.run = None,
        Step::Gone if slot.run.is_none() => {
            drop(slot);
            roster.free(child);
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn the_roster_says_what_a_look_at_every_slot_says(
        steps in proptest::collection::vec((step(), 0_usize..12), 1..150), at_once in 1_usize..4, group in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let (mut roster, mut now, mut made) = (Roster::default(), clock::now(), 0);
        for (step, child) in steps {
            match step {
                Step::Wait(after) => now += s(after),
                step => act(&mut roster, step, child, now, &mut made),
            }
            check(&mut roster, now, at_once, group)?;
        }
    }
}
