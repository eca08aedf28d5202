//! A new policy for a node that runs: what holds at once, what restarts the child, what nobody loses by it.

use std::time::Duration;

use actix::AsyncContext;
use futures_util::StreamExt;
use obtrace::supervisors::kernel::lane::{Lane, LaneView};
use obtrace::supervisors::kernel::policy::{LanePolicy, Overflow, Policy, Restart, StopPolicy};
use obtrace::supervisors::kernel::port::PortError;
use obtrace::supervisors::kernel::probe::Probe;
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::{ChildSpec, Group};

use crate::support::{Cast, Job, Order, Rig, Script, Trace, bounds, lane, ms, pass, paused, policy, puppet};

#[test]
fn a_supervisor_takes_a_new_budget_over_the_history_there_is() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("frail"));
        let mut rig = Rig::up(policy(), vec![cast.plays(policy(), &trace, Script::default())]).await;
        for _ in 0..2 {
            cast.told(Order::Panic).await;
            pass(ms(500)).await;
        }
        assert_eq!(rig.node("").window.unwrap().spent, 2);
        rig.apply("", Policy { intensity: 2, ..policy() }).await.unwrap();
        assert_eq!(rig.chronicle("", 0).last().unwrap(), "policy_applied [\"intensity\"]");
        assert_eq!(rig.node("").intensity, 2);
        cast.told(Order::Panic).await;
        let reason = rig.tree().failed().await.to_string();
        assert!(reason.contains("more than 2 restarts"), "{reason}");
        rig.stop().await;
    });
}

#[test]
fn a_child_takes_new_restart_backoff_and_stop_rules_without_a_restart() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("hand"));
        let script = Script::default().never_drains();
        let rig = Rig::up(policy(), vec![cast.plays(policy(), &trace, script)]).await;
        let mut new = policy();
        new.backoff.min = Duration::from_secs(30);
        new.backoff.max = Duration::from_secs(60);
        new.stop = StopPolicy { drain: Duration::from_secs(3), kill: ms(100) };
        rig.apply("hand", new.clone()).await.unwrap();
        assert_eq!(rig.node("hand").generation, 1);
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(29)).await;
        assert_eq!(rig.state("hand"), ChildState::BackingOff);
        pass(Duration::from_secs(2)).await;
        assert_eq!(rig.state("hand"), ChildState::Running);
        rig.apply("hand", Policy { restart: Restart::Temporary, ..new }).await.unwrap();
        let before = obtrace::clock::now();
        let report = rig.stop().await;
        assert_eq!(
            (report.forced, obtrace::clock::now() - before),
            (vec!["hand".to_owned()], Duration::from_secs(3))
        );
    });
}

#[test]
fn a_child_made_temporary_does_not_come_back() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("hand"));
        let rig = Rig::up(policy(), vec![cast.plays(policy(), &trace, Script::default())]).await;
        rig.apply("hand", Policy { restart: Restart::Temporary, ..policy() }).await.unwrap();
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(5)).await;
        assert_eq!((rig.state("hand"), trace.count("+hand")), (ChildState::Stopped, 1));
        rig.stop().await;
    });
}

#[test]
fn a_new_control_capacity_restarts_the_child_and_the_same_policy_does_nothing() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("hand"));
        let rig = Rig::up(
            Policy { intensity: 0, ..policy() },
            vec![cast.plays(policy(), &trace, Script::default())],
        )
        .await;
        let before = rig.view().journal().newest();
        rig.apply("hand", policy()).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(rig.view().journal().newest(), before);
        rig.apply("hand", Policy { control_capacity: 3, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(cast.generation().await, Some(2));
        assert_eq!(rig.view().policy("hand").unwrap().control_capacity, 3);
        assert_eq!(rig.chronicle("hand", before)[0], "policy_applied [\"control.capacity\"]");
        rig.stop().await;
    });
}

/// Replicas that hold each job for a second.
fn replicas(trace: &Trace, lane: &Lane<Job>, count: usize) -> ChildSpec {
    let (trace, lane) = (trace.clone(), lane.clone());
    let slow = Script::default().consume(|lease, ctx| {
        ctx.spawn(actix::fut::wrap_future(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(lease.ack());
        }));
    });
    ChildSpec::replicated("set", Policy { replicas: count, ..policy() }, move |name, policy| {
        puppet(&name, policy, &trace, slow.clone()).reads(&lane).build()
    })
}

#[test]
fn replicas_come_and_go_while_the_others_work_on() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("set"));
        let rig = Rig::up(policy(), vec![replicas(&trace, &lane, 2)]).await;
        assert_eq!(trace.take(), ["+1", "+2"]);
        rig.apply("set", Policy { replicas: 4, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["+3", "+4"]);
        (1..=4).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        assert_eq!(lane.stats().leased, 4);
        trace.take();
        rig.apply("set", Policy { replicas: 1, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(rig.state("set.3"), ChildState::Draining);
        pass(Duration::from_secs(2)).await;
        let names: Vec<_> = rig.node("set").children.into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["1"]);
        assert_eq!(
            (lane.stats().acked, lane.stats().redelivered),
            (4, 0),
            "each finished what it had in hand"
        );
        // Wanted again before it is gone.
        rig.apply("set", Policy { replicas: 2, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        trace.take();
        (5..=6).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        rig.apply("set", Policy { replicas: 1, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        rig.apply("set", Policy { replicas: 2, ..policy() }).await.unwrap();
        pass(Duration::from_secs(2)).await;
        assert_eq!((rig.state("set.2"), rig.node("set").generation), (ChildState::Running, 1));
        rig.stop().await;
    });
}

#[test]
fn what_lives_by_the_same_policy_follows_and_what_has_its_own_does_not() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let own = Policy { control_capacity: 9, ..policy() };
        group.want(puppet("follows", policy(), &trace, Script::default()).build());
        group.want(puppet("own", own.clone(), &trace, Script::default()).build());
        let rig = Rig::up(policy(), vec![ChildSpec::group("all", policy(), group.clone())]).await;
        pass(ms(1)).await;
        let new = Policy { control_capacity: 5, ..policy() };
        rig.apply("all", new.clone()).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(
            (rig.view().policy("all.follows"), rig.view().policy("all.own")),
            (Some(new.clone()), Some(own))
        );
        assert_eq!((rig.node("all.follows").generation, rig.node("all.own").generation), (2, 1));
        // One that comes later with the policy of before follows as well.
        group.want(puppet("late", policy(), &trace, Script::default()).build());
        pass(ms(1)).await;
        assert_eq!(rig.view().policy("all.late"), Some(new));
        rig.stop().await;
    });
}

#[test]
fn a_group_takes_a_new_bound_at_once() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        for name in ["a", "b", "c"] {
            group.want(puppet(name, policy(), &trace, Script::default()).build());
        }
        let small = Policy { max_children: 1, ..policy() };
        let rig = Rig::up(policy(), vec![ChildSpec::group("all", small, group)]).await;
        pass(ms(1)).await;
        assert_eq!(rig.node("all").children.len(), 1);
        rig.apply("all", Policy { max_children: 3, ..policy() }).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(rig.node("all").children.len(), 3);
        rig.stop().await;
    });
}

#[test]
fn a_lane_grows_and_shrinks_under_its_messages() {
    paused(async {
        let trace = Trace::default();
        let lane = Lane::new("hand", bounds(4, 64 << 10, 3));
        let hold =
            puppet("hand", Policy { lane: bounds(4, 64 << 10, 3), ..policy() }, &trace, Script::default());
        let rig = Rig::up(policy(), vec![hold.reads(&lane).build()]).await;
        rig.order("hand", obtrace::supervisors::kernel::control::Action::Pause).await.unwrap();
        let port = lane.port();
        (1..=4).for_each(|id| port.try_send(Job::new(id)).unwrap());
        assert_eq!(port.try_send(Job::new(5)), Err(PortError::Full));
        // A sender that waits already gets the new room.
        let waiting = port.clone();
        let fifth = actix_rt::spawn(async move { waiting.send(Job::new(5), Duration::from_secs(60)).await });
        pass(ms(1)).await;
        let sized = |capacity, bytes| Policy { lane: bounds(capacity, bytes, 3), ..policy() };
        rig.apply("hand", sized(6, 64 << 10)).await.unwrap();
        assert_eq!(fifth.await.unwrap(), Ok(()));
        rig.apply("hand", sized(2, 64 << 10)).await.unwrap();
        assert_eq!((lane.stats().queued, lane.stats().capacity), (5, 2), "nothing is dropped");
        assert_eq!(port.try_send(Job::new(6)), Err(PortError::Full));
        rig.order("hand", obtrace::supervisors::kernel::control::Action::Resume).await.unwrap();
        pass(ms(1)).await;
        assert_eq!((lane.stats().acked, lane.stats().queued), (5, 0));
        rig.order("hand", obtrace::supervisors::kernel::control::Action::Pause).await.unwrap();
        (7..=8).for_each(|id| port.try_send(Job::new(id)).unwrap());
        assert_eq!(port.try_send(Job::new(9)), Err(PortError::Full));
        // Full, and shedding from now on: the one that waits hears it at once.
        let waiting = port.clone();
        let ninth = actix_rt::spawn(async move { waiting.send(Job::new(9), Duration::from_secs(60)).await });
        pass(ms(1)).await;
        let shed = LanePolicy { overflow: Overflow::ShedNewest, ..bounds(2, 64 << 10, 3) };
        rig.apply("hand", Policy { lane: shed, ..policy() }).await.unwrap();
        assert_eq!(ninth.await.unwrap(), Err(PortError::Full));
        rig.stop().await;
        assert_eq!((lane.stats().acked, lane.stats().bytes), (7, 0));
    });
}

#[test]
fn a_sender_that_waits_for_more_bytes_than_a_shrunk_lane_has_gets_it_alone() {
    paused(async {
        let lane = Lane::new("l", bounds(9, 8 << 10, 3));
        let port = lane.port();
        port.try_send(Job { bytes: 8 << 10, ..Job::new(1) }).unwrap();
        let waiting = port.clone();
        let large = actix_rt::spawn(async move {
            waiting.send(Job { bytes: 6 << 10, ..Job::new(2) }, Duration::from_secs(60)).await
        });
        pass(ms(1)).await;
        lane.resize(bounds(9, 4 << 10, 3));
        let mut inbox = lane.inbox(Probe::detached());
        assert!(inbox.next().await.unwrap().ack());
        assert_eq!(large.await.unwrap(), Ok(()), "it counts for the whole bound, which is smaller now");
        assert_eq!(port.try_send(Job::new(3)), Err(PortError::Full));
        assert!(inbox.next().await.unwrap().ack());
        port.try_send(Job { bytes: 4 << 10, ..Job::new(4) }).unwrap();
    });
}
