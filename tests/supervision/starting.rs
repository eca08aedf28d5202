//! How children start: how many at a time, when the next one's turn is, on which thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::System;
use obtrace::supervisors::kernel::policy::{Place, Policy, Ready, StartPolicy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::probe::Probe;
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::{ChildSpec, Group};
use parking_lot::Mutex;

use crate::support::{Rig, Script, Trace, ms, pass, paused, policy, puppet};

fn starting(at_once: usize) -> Policy {
    Policy { start: StartPolicy { at_once, timeout: Duration::from_secs(60), ..policy().start }, ..policy() }
}

/// Children that report ready when the test says so.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<Vec<Probe>>>);

impl Doors {
    fn script(&self) -> Script {
        let doors = self.clone();
        Script::default().started(move |probe, _| doors.0.lock().push(probe.clone()))
    }

    /// How many wait to be let in.
    fn waiting(&self) -> usize {
        self.0.lock().len()
    }

    async fn let_one_in(&self) {
        self.0.lock().remove(0).ready();
        pass(ms(1)).await;
    }
}

#[test]
fn members_of_a_group_start_so_many_at_a_time() {
    paused(async {
        let (group, trace, doors) = (Group::default(), Trace::default(), Doors::default());
        for name in ["a", "b", "c", "d", "e"] {
            group.want(puppet(name, starting(16), &trace, doors.script()).build());
        }
        let rig = Rig::up(policy(), vec![ChildSpec::group("all", starting(2), group)]).await;
        pass(ms(10)).await;
        assert_eq!(trace.take(), ["+a", "+b"]);
        doors.let_one_in().await;
        assert_eq!((trace.take(), doors.waiting()), (vec!["+c".to_owned()], 2));
        doors.let_one_in().await;
        doors.let_one_in().await;
        assert_eq!((trace.take().len(), doors.waiting()), (2, 2));
        doors.let_one_in().await;
        doors.let_one_in().await;
        assert!(rig.node("all").children.iter().all(|child| child.state == ChildState::Running));
        rig.stop().await;
    });
}

#[test]
fn a_member_that_never_gets_ready_gives_its_place_back_at_its_timeout() {
    paused(async {
        let (group, trace) = (Group::default(), Trace::default());
        group.want(puppet("a", starting(1), &trace, Script::default().started(|_, _| {})).build());
        group.want(puppet("b", starting(1), &trace, Script::default()).build());
        let rig = Rig::up(policy(), vec![ChildSpec::group("all", starting(1), group)]).await;
        pass(Duration::from_secs(59)).await;
        assert_eq!(trace.take(), ["+a"]);
        pass(Duration::from_secs(2)).await;
        assert_eq!(rig.state("all.b"), ChildState::Running);
        rig.stop().await;
    });
}

#[test]
fn replicas_start_side_by_side_and_what_has_an_order_does_not() {
    paused(async {
        let (trace, doors) = (Trace::default(), Doors::default());
        let four = Policy { replicas: 4, ..starting(3) };
        let (traced, script) = (trace.clone(), doors.script());
        let crew = ChildSpec::replicated("crew", four, move |name, policy| {
            puppet(&name, policy, &traced, script.clone()).build()
        });
        let after = puppet("after", starting(16), &trace, Script::default()).build();
        let rig = Rig::start(starting(16), vec![crew, after]);
        pass(ms(10)).await;
        assert_eq!(trace.take(), ["+1", "+2", "+3"]);
        doors.let_one_in().await;
        assert_eq!(trace.take(), ["+4"]);
        for _ in 0..3 {
            assert_eq!(trace.take(), Vec::<String>::new(), "the next sibling waits for all of them");
            doors.let_one_in().await;
        }
        assert_eq!(trace.take(), ["+after"]);
        rig.stop().await;
    });
}

#[test]
fn a_child_that_counts_as_up_when_it_runs_keeps_nobody_waiting() {
    paused(async {
        let trace = Trace::default();
        let ready = Policy { start: StartPolicy { ready: Ready::Started, ..policy().start }, ..policy() };
        let silent = Script::default().started(|_, _| {});
        let children = vec![
            puppet("silent", ready, &trace, silent).build(),
            puppet("next", policy(), &trace, Script::default()).build(),
        ];
        let rig = Rig::up(policy(), children).await;
        assert_eq!(trace.take(), ["+silent", "+next"]);
        pass(Duration::from_secs(60)).await;
        assert_eq!((rig.state("silent"), rig.node("silent").restarts), (ChildState::Running, 0));
        rig.stop().await;
    });
}

#[test]
fn the_same_name_stays_on_the_same_thread() {
    System::new().block_on(async {
        let pools = Pools::new([("p".to_owned(), 4)].into());
        let place = |name: &str| pools.place("p", Place::ByKey, name).arbiter().unwrap();
        let names: Vec<String> = (0..64).map(|n| format!("consumer-{n}")).collect();
        let first: BTreeMap<&String, u64> = names.iter().map(|name| (name, place(name))).collect();
        let used: std::collections::BTreeSet<u64> = first.values().copied().collect();
        assert_eq!(used.len(), 4, "names are spread over all threads");
        assert!(names.iter().rev().all(|name| place(name) == first[name]));
        // A thread is lost: its names move together, all others stay.
        let lost = place("consumer-0");
        pools.condemn(lost);
        let instead = place("consumer-0");
        for name in &names {
            let expected = if first[name] == lost { instead } else { first[name] };
            assert_eq!(place(name), expected, "{name}");
        }
        assert_eq!(pools.stop(Duration::from_secs(10)).await, 0);
    });
}

#[test]
fn children_are_spread_over_the_threads_of_their_pool() {
    System::new().block_on(async {
        let trace = Trace::default();
        let on = |name: &str| Policy { pool: name.to_owned(), ..policy() };
        let names = ["a", "b", "c", "d", "e", "f"];
        let children = names.map(|name| puppet(name, on("p"), &trace, Script::default()).build());
        let pools = Pools::new([("p".to_owned(), 3)].into());
        let mut rig = Rig::over(policy(), children.into(), pools);
        rig.tree().ready().await.unwrap();
        let shown = rig.tree().view().snapshot().arbiters;
        assert_eq!(shown.iter().map(|arbiter| arbiter.residents).collect::<Vec<_>>(), [2, 2, 2], "{shown:?}");
        assert!(shown.iter().all(|arbiter| arbiter.pool == "p"));
        rig.stop().await;
    });
}

#[test]
fn by_key_holds_for_children_of_a_tree_across_their_restarts() {
    System::new().block_on(async {
        let (trace, cast) = (Trace::default(), crate::support::Cast::new("key"));
        let threads = Arc::new(Mutex::new(Vec::new()));
        let (seen, starts) = (threads.clone(), Arc::new(AtomicUsize::new(0)));
        let count = starts.clone();
        let script = Script::default().started(move |probe, _| {
            seen.lock().push(std::thread::current().id());
            count.fetch_add(1, Ordering::SeqCst);
            probe.ready();
        });
        let rules = Policy { pool: "p".to_owned(), place: Place::ByKey, ..policy() };
        let pools = Pools::new([("p".to_owned(), 4)].into());
        let mut rig = Rig::over(policy(), vec![cast.plays(rules, &trace, script)], pools);
        rig.tree().ready().await.unwrap();
        for restarts in 1..4 {
            let _ = cast.known.ask(crate::support::Order::Panic, Duration::from_secs(5)).await;
            while starts.load(Ordering::SeqCst) == restarts {
                tokio::time::sleep(ms(5)).await;
            }
        }
        let threads = threads.lock().clone();
        assert!(threads.len() == 4 && threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
        rig.stop().await;
    });
}
