//! Orders to nodes: what each does to a worker, a supervisor and a group, what it costs, and when it is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::AsyncContext;
use obtrace::supervisors::kernel::control::{Action, OrderError};
use obtrace::supervisors::kernel::lane::LaneView;
use obtrace::supervisors::kernel::policy::{IntensityPer, OnLimit, Policy, Strategy};
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::{ChildSpec, Group};

use crate::support::{
    Cast, Job, Order, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet, strategy,
};

/// Takes a second over each job.
fn slow() -> Script {
    Script::default().consume(|lease, ctx| {
        ctx.spawn(actix::fut::wrap_future(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(lease.ack());
        }));
    })
}

fn refused(answer: Result<(), OrderError>, because: &str) {
    let text = answer.expect_err("it had to be refused").to_string();
    assert!(text.contains(because), "{text}");
}

#[test]
fn a_restart_finishes_what_is_in_hand_and_costs_nothing() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        // No restart is tolerated, and a sibling would share the fate of a failure.
        let strict = Policy { intensity: 0, ..strategy(Strategy::OneForAll) };
        let children = vec![
            puppet("hand", policy(), &trace, slow()).reads(&lane).build(),
            puppet("other", policy(), &trace, Script::default()).build(),
        ];
        let rig = Rig::up(strict, children).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        let before = rig.view().journal().newest();
        trace.take();
        rig.order("hand", Action::Restart).await.unwrap();
        assert_eq!(rig.state("hand"), ChildState::Draining);
        refused(rig.order("hand", Action::Restart).await, "is being restarted already");
        pass(Duration::from_secs(3)).await;
        assert_eq!(trace.take(), ["-hand", "+hand", "hand got 2#1"]);
        assert_eq!((lane.stats().acked, lane.stats().redelivered), (2, 0));
        assert_eq!((rig.node("hand").generation, rig.node("other").generation), (2, 1));
        assert_eq!(rig.node("").window.unwrap().spent, 0);
        assert_eq!(
            rig.chronicle("hand", before),
            ["action restart ann a test", "draining", "exited null shutdown shutdown", "launched", "ready"]
        );
        rig.stop().await;
    });
}

#[test]
fn a_restart_that_does_not_drain_is_forced_and_comes_back_all_the_same() {
    paused(async {
        let trace = Trace::default();
        let hung = puppet("hung", policy(), &trace, Script::default().never_drains()).build();
        let rig = Rig::up(Policy { intensity: 0, ..policy() }, vec![hung]).await;
        rig.order("hung", Action::Restart).await.unwrap();
        pass(Duration::from_secs(11)).await;
        assert_eq!(trace.take(), ["+hung", "-hung", "+hung"]);
        assert!(rig.chronicle("hung", 0).contains(&String::from("forced")));
        rig.stop().await;
    });
}

#[test]
fn a_drained_child_stays_down_until_it_is_resumed_and_its_lane_keeps_what_comes() {
    paused(async {
        let (trace, lane, other) = (Trace::default(), lane("hand"), Cast::new("other"));
        let children = vec![
            other.plays(policy(), &trace, Script::default()),
            puppet("hand", policy(), &trace, slow()).reads(&lane).build(),
        ];
        let mut rig = Rig::up(strategy(Strategy::OneForAll), children).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        rig.order("hand", Action::Drain).await.unwrap();
        refused(rig.order("hand", Action::Drain).await, "is drained already");
        pass(Duration::from_secs(5)).await;
        assert_eq!(rig.state("hand"), ChildState::Drained);
        assert!(rig.tree().view().is_up(), "what an operator wants down does not make the process unready");
        lane.port().try_send(Job::new(3)).unwrap();
        // A sibling's failure, whose fate it shares, does not bring it back.
        other.told(Order::Panic).await;
        pass(Duration::from_secs(5)).await;
        assert_eq!((rig.state("other"), rig.state("hand")), (ChildState::Running, ChildState::Drained));
        assert_eq!((lane.stats().acked, lane.stats().queued), (1, 2));
        refused(rig.order("hand", Action::Release).await, "it is drained, and only what is quarantined");
        rig.order("hand", Action::Resume).await.unwrap();
        pass(Duration::from_secs(5)).await;
        assert_eq!((rig.state("hand"), lane.stats().acked), (ChildState::Running, 3));
        refused(rig.order("hand", Action::Resume).await, "is neither paused nor drained");
        rig.stop().await;
    });
}

#[test]
fn a_drained_child_stays_down_through_its_supervisors_restart_and_a_restart_brings_it_back() {
    paused(async {
        let (trace, frail) = (Trace::default(), Cast::new("frail"));
        let stage = ChildSpec::supervisor(
            "stage",
            Policy { intensity: 0, ..policy() },
            vec![
                frail.plays(policy(), &trace, Script::default()),
                puppet("hand", policy(), &trace, Script::default()).build(),
            ],
        );
        let rig = Rig::up(policy(), vec![stage]).await;
        rig.order("stage.hand", Action::Drain).await.unwrap();
        pass(ms(1)).await;
        frail.told(Order::Panic).await;
        pass(ms(500)).await;
        assert_eq!((rig.node("stage").restarts, rig.state("stage")), (1, ChildState::Running));
        assert_eq!((rig.state("stage.hand"), trace.count("+hand")), (ChildState::Drained, 1));
        rig.order("stage.hand", Action::Restart).await.unwrap();
        pass(ms(1)).await;
        assert_eq!((rig.state("stage.hand"), trace.count("+hand")), (ChildState::Running, 2));
        rig.stop().await;
    });
}

#[test]
fn a_supervisor_is_restarted_and_drained_with_all_below_it() {
    paused(async {
        let trace = Trace::default();
        let child = |name: &str| puppet(name, policy(), &trace, Script::default()).build();
        let stage = ChildSpec::supervisor("stage", policy(), vec![child("a"), child("b")]);
        let rig = Rig::up(strategy(Strategy::RestForOne), vec![stage, child("after")]).await;
        trace.take();
        rig.order("stage", Action::Restart).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["-b", "-a", "+a", "+b"], "and nobody else");
        assert_eq!((rig.node("stage").generation, rig.node("stage.a").generation), (2, 2));
        rig.order("stage", Action::Drain).await.unwrap();
        pass(ms(1)).await;
        assert_eq!((rig.state("stage"), rig.state("stage.a")), (ChildState::Drained, ChildState::Stopped));
        let order = rig.order("stage.a", Action::Restart).await;
        assert!(matches!(order, Err(OrderError::NoAnswer { .. })), "{order:?}");
        rig.order("stage", Action::Resume).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["-b", "-a", "+a", "+b"], "the order that nobody took was withdrawn");
        rig.stop().await;
    });
}

#[test]
fn a_paused_subtree_takes_no_leases_and_goes_on_where_it_was() {
    paused(async {
        let (trace, lane, free) = (Trace::default(), lane("stage.hand"), lane("free"));
        let cast = Cast::new("hand");
        let hand =
            puppet("hand", policy(), &trace, Script::default()).reads(&lane).known_as(&cast.known).build();
        let children = vec![
            ChildSpec::supervisor("stage", policy(), vec![hand]),
            puppet("free", policy(), &trace, Script::default()).reads(&free).build(),
        ];
        let mut rig = Rig::up(policy(), children).await;
        rig.order("stage", Action::Pause).await.unwrap();
        assert_eq!((rig.state("stage"), rig.state("stage.hand")), (ChildState::Paused, ChildState::Paused));
        assert!(rig.node("stage.hand").paused && !rig.node("free").paused);
        assert!(rig.tree().view().is_up());
        refused(rig.order("stage", Action::Pause).await, "is paused already");
        lane.port().try_send(Job::new(1)).unwrap();
        free.port().try_send(Job::new(2)).unwrap();
        pass(Duration::from_secs(60)).await;
        assert_eq!((lane.stats().acked, lane.stats().queued, free.stats().acked), (0, 1, 1));
        // A later incarnation is paused as well.
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(1)).await;
        assert_eq!((rig.node("stage.hand").generation, rig.state("stage.hand")), (2, ChildState::Paused));
        assert_eq!(lane.stats().queued, 1);
        rig.order("stage", Action::Resume).await.unwrap();
        pass(ms(1)).await;
        assert_eq!((rig.state("stage.hand"), lane.stats().acked), (ChildState::Running, 1));
        let told = rig.chronicle("stage", 0);
        let expected = ["action pause ann a test", "paused", "action resume ann a test", "resumed"];
        assert_eq!(told[2..], expected, "{told:?}");
        rig.stop().await;
    });
}

#[test]
fn a_loop_hears_of_a_pause_and_a_stop_works_off_a_paused_lane() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        let seen = trace.clone();
        let script = Script::default().started(move |probe, ctx| {
            probe.ready();
            let (probe, seen) = (probe.clone(), seen.clone());
            ctx.spawn(actix::fut::wrap_future(async move {
                for round in 0..2 {
                    probe.paused_changed(true).await;
                    seen.add(format!("pause {round} {}", probe.paused()));
                    probe.paused_changed(false).await;
                    seen.add(format!("resume {round} {}", probe.paused()));
                }
            }));
        });
        let rig =
            Rig::up(policy(), vec![puppet("hand", policy(), &trace, script).reads(&lane).build()]).await;
        trace.take();
        for action in [Action::Pause, Action::Resume, Action::Pause] {
            rig.order("", action).await.unwrap();
            pass(ms(1)).await;
        }
        assert_eq!(trace.take(), ["pause 0 true", "resume 0 false", "pause 1 true"]);
        lane.port().try_send(Job::new(1)).unwrap();
        pass(ms(1)).await;
        assert_eq!(lane.stats().queued, 1);
        let report = rig.stop().await;
        assert_eq!((report.forced, lane.stats().acked), (vec![], 1));
    });
}

#[test]
fn members_of_a_group_take_orders_and_new_ones_join_its_pause() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let member = |name: &str| puppet(name, policy(), &trace, Script::default()).build();
        group.want(member("one"));
        let rig = Rig::up(policy(), vec![ChildSpec::group("all", policy(), group.clone())]).await;
        pass(ms(1)).await;
        rig.order("all", Action::Pause).await.unwrap();
        group.want(member("two"));
        pass(ms(1)).await;
        assert_eq!((rig.state("all.one"), rig.state("all.two")), (ChildState::Paused, ChildState::Paused));
        rig.order("all", Action::Resume).await.unwrap();
        rig.order("all.one", Action::Restart).await.unwrap();
        rig.order("all.two", Action::Drain).await.unwrap();
        pass(ms(1)).await;
        assert_eq!((rig.node("all.one").generation, rig.state("all.two")), (2, ChildState::Drained));
        // Nobody wants it any more: it is gone, drained or not.
        group.unwant("two");
        pass(ms(1)).await;
        let gone = rig.order("all.two", Action::Resume).await;
        assert_eq!(
            gone.unwrap_err().to_string(),
            "no node \"all.two\" in the tree, did you mean \"all.one\"?"
        );
        rig.stop().await;
    });
}

#[test]
fn a_release_tries_at_once_with_a_clean_record() {
    paused(async {
        let (trace, healed) = (Trace::default(), Arc::new(AtomicBool::new(false)));
        let seen = healed.clone();
        let script = Script::default().started(move |probe, _| {
            assert!(seen.load(Ordering::SeqCst), "still bad");
            probe.ready();
        });
        let rules = Policy {
            intensity: 2,
            intensity_per: IntensityPer::Child,
            on_limit: OnLimit::Quarantine,
            ..policy()
        };
        let rig = Rig::start(rules, vec![puppet("bad", policy(), &trace, script).build()]);
        pass(ms(150)).await;
        assert_eq!(rig.state("bad"), ChildState::BackingOff);
        rig.order("bad", Action::Release).await.unwrap();
        pass(ms(50)).await;
        assert_eq!(
            (rig.state("bad"), trace.count("+bad")),
            (ChildState::BackingOff, 3),
            "tried, and bad still"
        );
        pass(Duration::from_secs(10)).await;
        assert_eq!(
            (rig.state("bad"), trace.count("+bad")),
            (ChildState::Quarantined, 5),
            "a record of its own"
        );
        healed.store(true, Ordering::SeqCst);
        rig.order("bad", Action::Release).await.unwrap();
        pass(ms(1)).await;
        assert_eq!(rig.state("bad"), ChildState::Running);
        refused(rig.order("bad", Action::Release).await, "is running, and only what is quarantined");
        rig.stop().await;
    });
}

#[test]
fn an_order_to_nobody_and_one_to_the_root_are_refused() {
    paused(async {
        let trace = Trace::default();
        let store = ChildSpec::supervisor(
            "store",
            policy(),
            vec![puppet("writer", policy(), &trace, Script::default()).build()],
        );
        let rig = Rig::up(policy(), vec![store]).await;
        let unknown = rig.order("store.wirter", Action::Restart).await.unwrap_err();
        assert_eq!(
            unknown,
            OrderError::Unknown { path: "store.wirter".into(), meant: Some("store.writer".into()) }
        );
        let unknown = rig.order("store.writer.x", Action::Restart).await.unwrap_err();
        assert!(matches!(unknown, OrderError::Unknown { .. }));
        refused(rig.order("", Action::Restart).await, "the root cannot restart: it has no supervisor");
        rig.stop().await;
    });
}

#[test]
fn an_order_to_a_supervisor_that_is_busy_stopping_is_withdrawn_at_its_deadline() {
    paused(async {
        let (trace, crash) = (Trace::default(), Cast::new("crash"));
        let children = vec![
            crash.plays(policy(), &trace, Script::default()),
            puppet("hung", policy(), &trace, Script::default().never_drains()).build(),
            puppet("idle", policy(), &trace, Script::default()).build(),
        ];
        let rig = Rig::up(strategy(Strategy::OneForAll), children).await;
        crash.told(Order::Panic).await;
        let before = obtrace::clock::now();
        let order = rig.order("idle", Action::Drain).await.unwrap_err();
        assert_eq!(order, OrderError::NoAnswer { path: "idle".into(), within: Duration::from_secs(1) });
        assert_eq!(obtrace::clock::now() - before, Duration::from_secs(1));
        pass(Duration::from_secs(20)).await;
        assert_eq!(rig.state("idle"), ChildState::Running, "never carried out");
        rig.stop().await;
    });
}
