//! Stopping: in reverse, what is queued is finished, what hangs is named, the budget holds.

use std::time::Duration;

use actix::AsyncContext;
use obtrace::supervisors::kernel::exit::ExitReason;
use obtrace::supervisors::kernel::lane::LaneView;
use obtrace::supervisors::kernel::policy::{Policy, StopPolicy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::port::PortError;
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;

use crate::support::{Cast, Job, Order, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet};

/// Takes a second over each job.
fn slow() -> Script {
    Script::default().consume(|lease, ctx| {
        ctx.spawn(actix::fut::wrap_future(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(lease.ack());
        }));
    })
}

#[test]
fn a_stop_drains_in_reverse_order_and_finishes_what_is_queued() {
    paused(async {
        let trace = Trace::default();
        let (front, back) = (lane("stage.front"), lane("back"));
        let forward = back.port();
        let relay = Script::default().consume(move |lease, _| {
            forward.try_send(Job::new(lease.id)).expect("what stands below still takes messages in");
            assert!(lease.ack());
        });
        let children = vec![
            puppet("back", policy(), &trace, slow()).reads(&back).build(),
            ChildSpec::supervisor(
                "stage",
                policy(),
                vec![puppet("front", policy(), &trace, relay).reads(&front).build()],
            ),
        ];
        let rig = Rig::up(policy(), children).await;
        trace.take();
        (1..=3).for_each(|id| front.port().try_send(Job::new(id)).unwrap());
        let report = rig.stop().await;
        assert_eq!((report.reason, report.forced, report.over_budget), (ExitReason::Shutdown, vec![], false));
        assert_eq!((front.stats().acked, back.stats().acked, back.stats().queued), (3, 3, 0));
        let trace = trace.take();
        let fall = |name: &str| trace.iter().position(|line| line == name).unwrap();
        assert!(fall("-front") < fall("-back"), "{trace:?}");
        assert_eq!(front.port().try_send(Job::new(9)), Err(PortError::Draining));
        assert_eq!(back.port().send(Job::new(9), ms(1)).await, Err(PortError::Draining));
    });
}

#[test]
fn a_restart_of_a_sibling_finishes_only_what_is_in_hand_and_leaves_the_lane_open() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("slow"));
        let cast = Cast::new("crash");
        let all = Policy { strategy: obtrace::supervisors::kernel::policy::Strategy::OneForAll, ..policy() };
        let children = vec![
            cast.plays(policy(), &trace, Script::default()),
            puppet("slow", policy(), &trace, slow()).reads(&lane).build(),
        ];
        let rig = Rig::up(all, children).await;
        (1..=2).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(1)).await;
        trace.take();
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(3)).await;
        assert_eq!(trace.take(), ["-crash", "-slow", "+crash", "+slow", "slow got 2#1"]);
        assert_eq!((lane.stats().acked, lane.stats().redelivered), (2, 0));
        rig.stop().await;
    });
}

#[test]
fn a_child_that_does_not_drain_is_aborted_and_named_and_its_message_kept() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hung"));
        let stop = StopPolicy { drain: Duration::from_secs(3), kill: Duration::from_secs(1) };
        let hung = Script::default().consume(|lease, ctx| {
            ctx.spawn(actix::fut::wrap_future(async move {
                let _held = lease;
                std::future::pending().await
            }));
        });
        let children = vec![
            puppet("first", policy(), &trace, Script::default()).build(),
            puppet("hung", Policy { stop, ..policy() }, &trace, hung).reads(&lane).build(),
        ];
        let rig = Rig::up(policy(), children).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(ms(1)).await;
        let before = obtrace::clock::now();
        let report = rig.stop().await;
        assert_eq!((report.reason, report.over_budget), (ExitReason::Shutdown, false));
        assert_eq!(report.forced, ["hung"]);
        assert!((ms(3000)..ms(3100)).contains(&(obtrace::clock::now() - before)));
        assert_eq!((lane.stats().queued, lane.stats().leased, lane.stats().acked), (1, 0, 0));
        assert_eq!(trace.take().last().unwrap(), "-first", "the rest stops cleanly");
    });
}

#[test]
fn replicas_drain_at_the_same_time() {
    paused(async {
        let trace = Trace::default();
        let stop = StopPolicy { drain: ms(3000), kill: ms(100) };
        let many = Policy { stop, replicas: 4, ..policy() };
        let children = vec![ChildSpec::replicated("hung", many, move |name, policy| {
            puppet(&name, policy, &trace, Script::default().never_drains()).build()
        })];
        let rig = Rig::up(policy(), children).await;
        let before = obtrace::clock::now();
        let report = rig.stop().await;
        assert_eq!((report.forced.len(), report.over_budget), (4, false));
        // The first uses all of its time; the others' ran beside it.
        assert!((ms(3000)..ms(3500)).contains(&(obtrace::clock::now() - before)));
    });
}

#[test]
fn the_budget_of_the_whole_stop_is_a_ceiling() {
    paused(async {
        let trace = Trace::default();
        let never = || Script::default().never_drains();
        let stage = |name: &str, child: &str| {
            ChildSpec::supervisor(name, policy(), vec![puppet(child, policy(), &trace, never()).build()])
        };
        let root = ChildSpec::supervisor("root", policy(), vec![stage("s", "a"), stage("t", "b")]);
        let mut tree = Tree::start(&root, Pools::new([].into()));
        tree.ready().await.unwrap();
        let before = obtrace::clock::now();
        let report = tree.stop(Duration::from_secs(5)).await;
        assert!(obtrace::clock::now() - before < Duration::from_secs(8));
        assert_eq!((report.reason, report.over_budget), (ExitReason::Killed, true));
        let mut forced = report.forced;
        forced.sort();
        assert_eq!(forced, ["s.a", "t.b"], "those that had no chance to drain are named as well");
        pass(ms(1)).await;
        let mut trace = trace.take();
        trace.sort();
        assert_eq!(trace, ["+a", "+b", "-a", "-b"], "aborted actors are gone");
    });
}

#[test]
fn a_stop_before_the_tree_is_up_and_one_during_a_backoff_are_clean() {
    paused(async {
        let trace = Trace::default();
        let mute = Script::default().started(|_, _| {});
        let rig = Rig::start(
            policy(),
            vec![
                puppet("mute", policy(), &trace, mute).build(),
                puppet("next", policy(), &trace, Script::default()).build(),
            ],
        );
        pass(ms(1)).await;
        let report = rig.stop().await;
        assert_eq!((report.reason, report.forced), (ExitReason::Shutdown, vec![]));
        assert_eq!(trace.take(), ["+mute", "-mute"]);

        let lane = lane("bad");
        let bad = Script::default().started(|_, _| panic!("always"));
        let rig = Rig::start(policy(), vec![puppet("bad", policy(), &trace, bad).reads(&lane).build()]);
        pass(ms(50)).await;
        assert_eq!(rig.stop().await.reason, ExitReason::Shutdown);
        assert_eq!(
            lane.port().try_send(Job::new(1)),
            Err(PortError::Draining),
            "closed although nobody reads it"
        );
    });
}

#[test]
fn a_stop_that_comes_while_a_group_restart_drains_is_heard() {
    paused(async {
        let trace = Trace::default();
        let cast = Cast::new("crash");
        let all = Policy { strategy: obtrace::supervisors::kernel::policy::Strategy::OneForAll, ..policy() };
        let children = vec![
            cast.plays(policy(), &trace, Script::default()),
            puppet("hung", policy(), &trace, Script::default().never_drains()).build(),
        ];
        let rig = Rig::up(all, children).await;
        cast.told(Order::Panic).await;
        pass(Duration::from_secs(1)).await;
        let report = rig.stop().await;
        assert_eq!((report.reason, report.over_budget), (ExitReason::Shutdown, false));
        assert_eq!(report.forced, ["hung"]);
        assert_eq!(trace.take(), ["+crash", "+hung", "-crash", "-hung"], "nobody is started again");
    });
}

#[test]
fn a_supervisor_that_is_aborted_takes_its_children_along() {
    paused(async {
        let trace = Trace::default();
        let never = puppet("deep", policy(), &trace, Script::default().never_drains()).build();
        let nested = ChildSpec::supervisor("b", policy(), vec![never]);
        let root =
            ChildSpec::supervisor("root", policy(), vec![ChildSpec::supervisor("a", policy(), vec![nested])]);
        let mut tree = Tree::start(&root, Pools::new([].into()));
        tree.ready().await.unwrap();
        let report = tree.stop(ms(1)).await;
        assert_eq!((report.forced, report.over_budget), (vec!["a.b.deep".to_owned()], true));
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["+deep", "-deep"]);
    });
}

#[test]
fn when_the_root_fails_waiting_senders_hear_draining() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        let cast = Cast::new("bad");
        let children = vec![
            puppet("hand", policy(), &trace, slow()).reads(&lane).build(),
            cast.plays(policy(), &trace, Script::default()),
        ];
        let mut rig = Rig::up(Policy { intensity: 0, ..policy() }, children).await;
        let _ = cast.known.ask(Order::Panic, ms(10)).await;
        rig.tree().failed().await;
        assert_eq!(lane.port().send(Job::new(1), ms(1)).await, Err(PortError::Draining));
        rig.stop().await;
    });
}
