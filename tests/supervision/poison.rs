//! Poison and probation: a message that crashes its actors again spends no budget, a child on probation has one chance.

use std::time::Duration;

use obtrace::supervisors::kernel::lane::{Lane, LaneView};
use obtrace::supervisors::kernel::policy::{OnLimit, Policy, QuarantinePolicy};
use obtrace::supervisors::kernel::snapshot::ChildState;

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
