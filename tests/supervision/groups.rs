//! Dynamic groups: what runs is what is wanted, one bad member is put aside, the bound on members holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::ActorFutureExt;
use obtrace::supervisors::kernel::control::Action;
use obtrace::supervisors::kernel::policy::{
    IntensityPer, OnLimit, Policy, QuarantinePolicy, Restart, StopPolicy, Strategy,
};
use obtrace::supervisors::kernel::seat::Seat;
use obtrace::supervisors::kernel::snapshot::{ChildState, LISTED, SHOWN};
use obtrace::supervisors::kernel::spec::{ChildSpec, Group};

use crate::support::{
    Cast, Job, Order, Puppet, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet, strategy,
};

fn member(name: &str, trace: &Trace) -> ChildSpec {
    puppet(name, policy(), trace, Script::default()).build()
}

async fn group_of(policy_: Policy, group: &Group) -> Rig {
    Rig::up(policy(), vec![ChildSpec::group("all", policy_, group.clone())]).await
}

fn names(rig: &Rig) -> Vec<String> {
    rig.node("all").children.into_iter().map(|node| node.name).collect()
}

#[test]
fn members_come_and_go_with_the_wish() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        group.want(member("one", &trace));
        let rig = group_of(policy(), &group).await;
        pass(ms(1)).await;
        group.want(member("two", &trace));
        group.want(member("two", &trace));
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["+one", "+two"]);
        assert_eq!(rig.state("all.two"), ChildState::Running);
        group.unwant("one");
        group.unwant("nobody");
        pass(ms(1)).await;
        assert_eq!((trace.take(), names(&rig)), (vec!["-one".to_owned()], vec!["two".to_owned()]));
        // The slot is used again, with a clean record.
        group.want(member("three", &trace));
        pass(ms(1)).await;
        let three = rig.node("all.three");
        assert_eq!((three.state, three.generation, three.restarts), (ChildState::Running, 1, 0));
        rig.stop().await;
    });
}

#[test]
fn a_member_dropped_and_wanted_anew_is_replaced() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let old = lane("old");
        let new = lane("new");
        group.want(puppet("p", policy(), &trace, Script::default()).reads(&old).build());
        let rig = group_of(policy(), &group).await;
        pass(ms(1)).await;
        group.unwant("p");
        group.want(puppet("p", policy(), &trace, Script::default()).reads(&new).build());
        pass(ms(1)).await;
        new.port().try_send(Job::new(5)).unwrap();
        pass(ms(1)).await;
        assert_eq!(trace.take(), ["+p", "-p", "+p", "p got 5#1"]);
        rig.stop().await;
    });
}

#[test]
fn a_hung_leaver_keeps_nobody_waiting() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let hangs = Script::default().never_drains();
        group.want(puppet("hung", policy(), &trace, hangs).build());
        let cast = Cast::new("other");
        group.want(cast.plays(policy(), &trace, Script::default()));
        let rig = group_of(policy(), &group).await;
        pass(ms(1)).await;
        group.unwant("hung");
        pass(ms(1)).await;
        assert_eq!(rig.state("all.hung"), ChildState::Draining);
        cast.told(Order::Panic).await;
        group.want(member("late", &trace));
        pass(ms(200)).await;
        assert_eq!(rig.state("all.other"), ChildState::Running);
        assert_eq!(rig.state("all.late"), ChildState::Running);
        pass(Duration::from_secs(11)).await;
        assert_eq!(names(&rig), ["other", "late"]);
        assert_eq!(rig.stop().await.forced, Vec::<String>::new());
    });
}

#[test]
fn all_members_drain_at_once_when_the_group_stops() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        for name in ["a", "b", "c", "d"] {
            group.want(puppet(name, policy(), &trace, Script::default().never_drains()).build());
        }
        let rig = group_of(policy(), &group).await;
        pass(ms(1)).await;
        let before = obtrace::clock::now();
        let report = rig.stop().await;
        assert_eq!(report.forced.len(), 4, "{report:?}");
        assert!(obtrace::clock::now() - before < Duration::from_secs(11), "one drain time, not four");
    });
}

#[test]
fn a_bad_member_is_put_aside_and_comes_back_after_its_cool_down() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let healed = Arc::new(AtomicBool::new(false));
        let seen = healed.clone();
        let script = Script::default().started(move |probe, _| {
            assert!(seen.load(Ordering::SeqCst), "still bad");
            probe.ready();
        });
        group.want(puppet("bad", policy(), &trace, script).build());
        group.want(member("good", &trace));
        let rules = Policy {
            intensity: 2,
            intensity_per: IntensityPer::Child,
            on_limit: OnLimit::Quarantine,
            quarantine: QuarantinePolicy { cool_down: Duration::from_secs(300), probes: 1 },
            ..policy()
        };
        let mut rig = group_of(rules, &group).await;
        pass(Duration::from_secs(10)).await;
        assert_eq!(
            (rig.state("all.bad"), rig.state("all.good")),
            (ChildState::Quarantined, ChildState::Running)
        );
        assert_eq!(trace.count("+bad"), 3);
        assert!(rig.tree().view().is_up(), "one bad key does not make the process unready");
        pass(Duration::from_secs(285)).await;
        assert_eq!(trace.count("+bad"), 3);
        healed.store(true, Ordering::SeqCst);
        pass(Duration::from_secs(10)).await;
        assert_eq!((rig.state("all.bad"), trace.count("+bad")), (ChildState::Running, 4));
        rig.stop().await;
    });
}

#[test]
fn a_group_that_restarts_comes_back_to_what_is_wanted_now() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let cast = Cast::new("frail");
        group.want(cast.plays(policy(), &trace, Script::default()));
        group.want(member("gone", &trace));
        let rig = group_of(Policy { intensity: 0, ..policy() }, &group).await;
        pass(ms(1)).await;
        let _ = cast.known.ask(Order::Panic, ms(10)).await;
        pass(ms(1)).await;
        assert_eq!(rig.state("all"), ChildState::BackingOff);
        group.unwant("gone");
        group.want(member("new", &trace));
        pass(ms(200)).await;
        assert_eq!(rig.node("all").restarts, 1);
        assert_eq!(names(&rig), ["frail", "new"]);
        assert_eq!(rig.node("all.frail").generation, 2);
        assert_eq!(rig.state("all.new"), ChildState::Running);
        rig.stop().await;
    });
}

#[test]
fn a_full_group_lets_members_wait_and_temporary_ones_make_room() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let session = Cast::new("s1");
        let temporary = Policy { restart: Restart::Temporary, ..policy() };
        group.want(session.plays(temporary, &trace, Script::default()));
        group.want(member("s2", &trace));
        group.want(member("s3", &trace));
        let rig = group_of(Policy { max_children: 2, ..policy() }, &group).await;
        pass(ms(1)).await;
        assert_eq!(names(&rig), ["s1", "s2"]);
        session.told(Order::Stop).await;
        pass(ms(1)).await;
        assert_eq!(names(&rig), ["s2", "s3"]);
        assert_eq!(group.names(), ["s2", "s3"], "a temporary member is over with its end");
        rig.stop().await;
    });
}

#[test]
fn a_leaver_that_crashes_while_draining_does_not_come_back() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let stop = StopPolicy { drain: Duration::from_secs(1), kill: Duration::from_secs(1) };
        let crash = Script::default().drain(|_, _| panic!("while draining"));
        group.want(puppet("p", Policy { stop, ..policy() }, &trace, crash).build());
        let rig = group_of(policy(), &group).await;
        pass(ms(1)).await;
        group.unwant("p");
        pass(Duration::from_secs(60)).await;
        assert_eq!((trace.take(), names(&rig)), (vec!["+p".to_owned(), "-p".to_owned()], vec![]));
        rig.stop().await;
    });
}

/// Drains for two seconds.
fn slow() -> Script {
    Script::default().drain(|_, ctx| {
        let done = actix::fut::wrap_future::<_, Seat<Puppet>>(tokio::time::sleep(Duration::from_secs(2)));
        actix::AsyncContext::spawn(ctx, done.map(|(), _, ctx| actix::ActorContext::stop(ctx)));
    })
}

#[test]
fn a_restart_of_the_whole_group_does_not_bring_a_leaver_back() {
    paused(async {
        for shared in [Strategy::OneForAll, Strategy::RestForOne] {
            let (group, trace) = (Group::default(), Trace::default());
            let b = Cast::new("b");
            group.want(puppet("c", policy(), &trace, slow()).build());
            let rig = group_of(strategy(shared), &group).await;
            pass(ms(1)).await;
            group.want(b.plays(policy(), &trace, Script::default()));
            pass(ms(1)).await;
            // It comes after the one that fails.
            group.want(puppet("a", policy(), &trace, slow()).build());
            pass(ms(1)).await;
            group.unwant("a");
            pass(ms(1)).await;
            assert_eq!(rig.state("all.a"), ChildState::Draining);
            b.told(Order::Panic).await;
            pass(Duration::from_secs(60)).await;
            assert_eq!((names(&rig), trace.count("+a")), (vec!["c".to_owned(), "b".to_owned()], 1));
            assert_eq!((rig.state("all.b"), rig.state("all.c")), (ChildState::Running, ChildState::Running));
            assert_eq!(rig.node("all").restarts, 0);
            rig.stop().await;
        }
    });
}

#[test]
fn a_leaver_that_is_wanted_anew_comes_as_another_after_a_restart_of_the_group() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let b = Cast::new("b");
        group.want(puppet("a", policy(), &trace, slow()).build());
        group.want(b.plays(policy(), &trace, Script::default()));
        let rules = Policy { max_children: 2, ..strategy(Strategy::OneForAll) };
        let rig = group_of(rules, &group).await;
        pass(ms(1)).await;
        group.unwant("a");
        pass(ms(1)).await;
        group.want(member("a", &trace));
        group.want(member("d", &trace));
        pass(ms(1)).await;
        b.told(Order::Panic).await;
        pass(Duration::from_secs(60)).await;
        let a = rig.node("all.a");
        assert_eq!((a.state, a.generation, trace.count("+a")), (ChildState::Running, 1, 2));
        assert_eq!(trace.count("+d"), 0, "there is no room for it");
        rig.stop().await;
    });
}

#[test]
fn a_large_group_of_passing_members_is_told_in_figures() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        let rules = Policy { restart: Restart::Temporary, max_children: 5_000, ..policy() };
        let work = lane("work");
        let name = |n: usize| format!("m{n:04}");
        let member = |n| puppet(&name(n), rules.clone(), &trace, Script::default()).reads(&work).build();
        (0..LISTED).for_each(|n| group.want(member(n)));
        let rig = group_of(rules.clone(), &group).await;
        pass(ms(100)).await;
        assert!(rig.node("all").crowd.is_none());
        assert_eq!(rig.node("all").children.len(), LISTED, "so many are listed in full");
        (LISTED..2_000).for_each(|n| group.want(member(n)));
        (0..7).for_each(|id| work.port().try_send(Job::new(id)).unwrap());
        pass(ms(100)).await;
        let all = rig.node("all");
        let crowd = all.crowd.unwrap();
        assert_eq!((crowd.members, crowd.shown, crowd.left_out), (2_000, SHOWN, 2_000 - SHOWN));
        assert_eq!(crowd.states, [("running", 2_000)].into());
        assert_eq!((crowd.generation, crowd.restarts, crowd.handled), (1, 0, 7));
        let shown: Vec<String> = all.children.iter().map(|child| child.name.clone()).collect();
        assert_eq!(shown, (0..SHOWN).map(name).collect::<Vec<_>>(), "the oldest are");
        // Members that are not shown are still known by their path.
        assert_eq!(rig.order("all.m1999", Action::Pause).await, Ok(()));
        assert_eq!(rig.node("all").crowd.unwrap().states, [("paused", 1), ("running", 1_999)].into());
        (10..2_000).for_each(|n| group.unwant(&name(n)));
        pass(ms(100)).await;
        let all = rig.node("all");
        assert!(all.crowd.is_none());
        assert_eq!(names(&rig), (0..10).map(name).collect::<Vec<_>>());
        // Places are used again.
        (10..2_000).for_each(|n| group.want(member(n)));
        pass(ms(100)).await;
        assert_eq!(rig.node("all").crowd.unwrap().states, [("running", 2_000)].into());
        rig.stop().await;
    });
}
