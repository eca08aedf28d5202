//! Poison and probation: a message that crashes its actors again spends no budget, a child on probation has one chance.

use std::time::Duration;

use obtrace::domain::failure::FailureClass;
use obtrace::supervisors::kernel::exit::ExitReason;
use obtrace::supervisors::kernel::lane::{Lane, LaneView};
use obtrace::supervisors::kernel::policy::{LanePolicy, OnLimit, Poison, Policy, QuarantinePolicy};
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::ChildSpec;

use crate::support::{Cast, Job, Order, Rig, Script, Trace, bounds, ms, pass, paused, policy, puppet};

/// One restart is tolerated, and a message may crash its actor five times.
async fn under(script: Script) -> (Lane<Job>, Trace, Rig) {
    let (trace, lane) = (Trace::default(), Lane::new("hand", bounds(9, 64 << 10, 5)));
    let hand = puppet("hand", policy(), &trace, script).reads(&lane).build();
    let rig = Rig::up(Policy { intensity: 1, ..policy() }, vec![hand]).await;
    (lane, trace, rig)
}

#[test]
fn only_the_first_crash_over_a_message_spends_a_restart() {
    paused(async {
        let script = Script::default().consume(|lease, _| {
            assert_ne!(lease.id, 1, "boom");
            assert!(lease.ack());
        });
        let (lane, trace, rig) = under(script).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::traced(id, &trace)).unwrap());
        pass(Duration::from_secs(30)).await;
        assert_eq!((rig.state("hand"), rig.node("hand").restarts), (ChildState::Running, 5));
        assert_eq!(rig.node("").window.unwrap().spent, 1);
        assert_eq!((lane.stats().poisoned, lane.stats().acked), (1, 1));
        rig.stop().await;
    });
}

#[test]
fn the_same_holds_where_the_message_is_held_by_a_future_of_the_actor_or_outlives_it() {
    paused(async {
        let own = Script::default().consume(|lease, ctx| {
            actix::AsyncContext::spawn(
                ctx,
                actix::fut::wrap_future(async move {
                    let _held = lease;
                    tokio::task::yield_now().await;
                    panic!("boom");
                }),
            );
        });
        let detached = Script::default().consume(|lease, _| {
            actix_rt::spawn(async move {
                let _held = lease;
                std::future::pending::<()>().await;
            });
            panic!("boom");
        });
        for script in [own, detached] {
            let (lane, trace, rig) = under(script).await;
            lane.port().try_send(Job::traced(1, &trace)).unwrap();
            pass(Duration::from_secs(30)).await;
            assert_eq!((rig.state("hand"), rig.node("").window.unwrap().spent), (ChildState::Running, 1));
            assert_eq!((rig.node("hand").restarts, lane.stats().poisoned), (5, 1));
            rig.stop().await;
        }
    });
}

#[test]
fn different_messages_spend_a_restart_each() {
    paused(async {
        let script =
            Script::default().consume(|lease, _| assert!(lease.attempts() > 0 && lease.ack(), "boom"));
        let (lane, trace, mut rig) = under(script).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::traced(id, &trace)).unwrap());
        let reason = rig.tree().failed().await.to_string();
        assert!(reason.contains("more than 1 restarts"), "{reason}");
        rig.stop().await;
    });
}

#[test]
fn a_message_that_only_waited_is_not_blamed() {
    paused(async {
        let script = Script::default().consume(|lease, _| {
            lease.passed();
            panic!("boom, and not over this message");
        });
        let (lane, trace, mut rig) = under(script).await;
        lane.port().try_send(Job::traced(1, &trace)).unwrap();
        rig.tree().failed().await;
        assert_eq!((lane.stats().poisoned, trace.count("hand got 1#1")), (0, 2));
        rig.stop().await;
    });
}

#[test]
fn a_child_on_probation_goes_back_at_once_and_is_healthy_after_its_good_runs() {
    paused(async {
        let (trace, bad, calm) = (Trace::default(), Cast::new("bad"), Cast::new("calm"));
        let quarantine = QuarantinePolicy { cool_down: Duration::from_secs(300), probes: 2 };
        // Static children of a supervisor that puts aside.
        let rules = Policy { intensity: 1, on_limit: OnLimit::Quarantine, quarantine, ..policy() };
        let children = vec![
            bad.plays(policy(), &trace, Script::default()),
            calm.plays(policy(), &trace, Script::default()),
        ];
        let mut rig = Rig::up(rules, children).await;
        for _ in 0..2 {
            bad.told(Order::Panic).await;
            pass(ms(500)).await;
        }
        assert_eq!(
            (rig.state("bad"), rig.node("bad").quarantine_left_s),
            (ChildState::Quarantined, Some(300))
        );
        assert!(rig.tree().view().is_up());
        pass(Duration::from_secs(301)).await;
        assert_eq!(rig.state("bad"), ChildState::Running);
        // One good run of the two, then a failure: back at once, though the window has long been empty.
        pass(Duration::from_secs(70)).await;
        bad.told(Order::Panic).await;
        assert_eq!(rig.state("bad"), ChildState::Quarantined);
        assert_eq!(rig.node("").window.unwrap().spent, 0, "the others still have their whole budget");
        calm.told(Order::Panic).await;
        pass(ms(500)).await;
        assert_eq!(rig.state("calm"), ChildState::Running);
        pass(Duration::from_secs(301 + 130)).await;
        bad.told(Order::Panic).await;
        assert_eq!(rig.state("bad"), ChildState::BackingOff, "healthy again: a failure counts as any other");
        pass(ms(500)).await;
        assert_eq!(rig.state("bad"), ChildState::Running);
        rig.stop().await;
    });
}

fn rule(poison: Poison, max_attempts: u32) -> LanePolicy {
    LanePolicy { poison, ..bounds(9, 64 << 10, max_attempts) }
}

/// Job 1 is poison, every other one is not.
fn one_is_poison() -> Script {
    Script::default().consume(|lease, _| {
        assert_ne!(lease.id, 1, "boom");
        assert!(lease.ack());
    })
}

#[test]
fn a_lane_that_drops_poison_does_so_with_an_event_and_a_count() {
    paused(async {
        let (trace, lane) = (Trace::default(), Lane::new("hand", rule(Poison::Drop, 2)));
        let hand = puppet("hand", policy(), &trace, one_is_poison()).reads(&lane).build();
        let rig = Rig::up(policy(), vec![hand]).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::traced(id, &trace)).unwrap());
        pass(Duration::from_secs(30)).await;
        let stats = rig.node("hand").lanes[0].clone();
        assert_eq!((stats.dropped, stats.poisoned, stats.acked), (1, 1, 1));
        assert_eq!((stats.queued, stats.leased, stats.bytes), (0, 0, 0), "its room is free again");
        assert_eq!(trace.count("dropped 1 after 2"), 1, "who sent it is told once");
        assert_eq!(trace.count("poisoned 1 after 2"), 0, "and is not asked to look into it");
        let dropped: Vec<String> =
            rig.chronicle("hand", 0).into_iter().filter(|event| event.starts_with("dropped")).collect();
        assert_eq!(dropped, ["dropped 2 Job, 1 bytes"]);
        assert_eq!(rig.state("hand"), ChildState::Running);
        rig.stop().await;
    });
}

#[test]
fn a_lane_that_escalates_poison_fails_its_supervisor_and_passes_over_nothing() {
    paused(async {
        let (trace, lane) = (Trace::default(), Lane::new("stage.hand", rule(Poison::Escalate, 2)));
        let hand = puppet("hand", policy(), &trace, one_is_poison()).reads(&lane).build();
        let calm = puppet("calm", policy(), &trace, Script::default()).build();
        let stage = ChildSpec::supervisor("stage", policy(), vec![calm, hand]);
        let mut rig = Rig::up(Policy { intensity: 1, ..policy() }, vec![stage]).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::traced(id, &trace)).unwrap());
        let reason = rig.tree().failed().await;
        let ExitReason::Failed(FailureClass::Bug, why) = &reason else { panic!("{reason}") };
        assert!(why.contains("stage: more than 1 restarts"), "the stage spends its parent's budget: {why}");
        let stage = rig.node("stage");
        assert_eq!(stage.restarts, 1);
        let failure = stage.last_failure.unwrap();
        assert!(failure.contains("stage.hand: Job, 1 bytes failed 3 times"), "{failure}");
        assert!(
            rig.node("stage.hand").last_failure.unwrap().contains("boom"),
            "the first fault has the blame"
        );
        let escalated =
            |event: &String| event.starts_with("escalated stage.hand: Job, 1 bytes failed 2 times");
        assert!(rig.chronicle("stage", 0).iter().any(escalated), "{:?}", rig.chronicle("stage", 0));
        assert_eq!((trace.count("+calm"), trace.count("-calm")), (2, 2), "all of the stage went with it");
        let stats = lane.stats();
        assert_eq!(
            (stats.queued, stats.acked, stats.dropped),
            (2, 0, 0),
            "nothing is lost, nothing is passed over"
        );
        assert!(trace.count("poisoned 1 after 2") + trace.count("dropped 1 after 2") == 0);
        rig.stop().await;
    });
}

#[test]
fn what_is_let_go_too_often_without_a_crash_escalates_too_and_the_rule_is_changed_live() {
    paused(async {
        let (trace, lane) = (Trace::default(), Lane::new("stage.hand", rule(Poison::Escalate, 2)));
        let lets_go = Script::default().consume(|lease, _| {
            if lease.id != 1 {
                assert!(lease.ack());
            }
        });
        let rules = Policy { lane: rule(Poison::Escalate, 2), ..policy() };
        let hand = puppet("hand", rules.clone(), &trace, lets_go).reads(&lane).build();
        let rig = Rig::up(policy(), vec![ChildSpec::supervisor("stage", policy(), vec![hand])]).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::traced(id, &trace)).unwrap());
        pass(ms(100)).await;
        assert_eq!((rig.state("stage"), rig.node("stage").restarts), (ChildState::BackingOff, 0));
        assert_eq!(lane.stats().queued, 2, "once it has failed for good, nothing more is handed out");
        let failure = rig.node("stage.hand").last_failure;
        assert_eq!(failure.as_deref(), Some("poison: Job, 1 bytes failed 2 times"));
        let isolates = Policy { lane: rule(Poison::Isolate, 2), ..rules };
        rig.apply("stage.hand", isolates).await.unwrap();
        pass(Duration::from_secs(1)).await;
        assert_eq!((rig.state("stage.hand"), rig.node("stage").restarts), (ChildState::Running, 1));
        assert_eq!((lane.stats().acked, lane.stats().queued, trace.count("poisoned 1 after 3")), (1, 0, 1));
        rig.stop().await;
    });
}
