//! Real threads: actors on arbiter pools, one that blocks its thread, and the end of the threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actix::System;
use obtrace::supervisors::kernel::lane::LaneView;
use obtrace::supervisors::kernel::policy::{Place, Policy, StopPolicy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::snapshot::ChildState;
use parking_lot::Mutex;

use crate::support::{Cast, Job, Order, Rig, Script, Trace, lane, ms, policy, puppet, strategy};

/// Waits in real time until `is` holds; the limit only bounds a failing test.
async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("never came true: {what}");
}

fn on(pool: &str) -> Policy {
    Policy { pool: pool.to_owned(), stop: StopPolicy { drain: ms(200), kill: ms(200) }, ..policy() }
}

#[test]
fn actors_on_pools_restart_drain_and_end_with_their_threads() {
    System::new().block_on(async {
        let (trace, lane) = (Trace::default(), lane("far"));
        let cast = Cast::new("far");
        let far =
            puppet("far", on("far"), &trace, Script::default()).reads(&lane).known_as(&cast.known).build();
        let rig = Rig::up(policy(), vec![far]).await;
        let _ = cast.known.ask(Order::Panic, Duration::from_secs(5)).await;
        lane.port().send(Job::new(1), Duration::from_secs(5)).await.unwrap();
        until("the message is done", || lane.stats().acked == 1).await;
        assert_eq!(rig.node("far").restarts, 1);
        let report = rig.stop().await;
        assert_eq!((report.forced, report.threads_left), (vec![], 0));
        assert_eq!(trace.take(), ["+far", "-far", "+far", "far got 1#1", "-far"]);
    });
}

#[test]
fn a_blocked_thread_is_left_behind_and_its_zombie_cannot_acknowledge() {
    System::new().block_on(async {
        let (trace, lane) = (Trace::default(), lane("blocked"));
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = Mutex::new(blocked);
        let entered = Arc::new(AtomicBool::new(false));
        let verdict = Arc::new(Mutex::new(None));
        let (enter, say) = (entered.clone(), verdict.clone());
        let script = Script::default().consume(move |lease, _| {
            if lease.attempts() == 0 {
                enter.store(true, Ordering::SeqCst);
                let _ = blocked.lock().recv();
                *say.lock() = Some(lease.ack());
            } else {
                assert!(lease.ack());
            }
        });
        let (crash, neighbour) = (Cast::new("crash"), Cast::new("neighbour"));
        let stage = obtrace::supervisors::kernel::spec::ChildSpec::supervisor(
            "stage",
            policy(),
            vec![neighbour.plays(on("shared"), &trace, Script::default())],
        );
        let rig = Rig::up(
            strategy(obtrace::supervisors::kernel::policy::Strategy::RestForOne),
            vec![
                stage,
                crash.plays(policy(), &trace, Script::default()),
                puppet("blocked", on("shared"), &trace, script).reads(&lane).build(),
            ],
        )
        .await;
        lane.port().try_send(Job::new(1)).unwrap();
        until("the thread is blocked", || entered.load(Ordering::SeqCst)).await;
        // A sibling's restart wants the blocked one to go, which it cannot.
        let _ = crash.known.ask(Order::Panic, Duration::from_secs(1)).await;
        until("the successor did the work elsewhere", || lane.stats().acked == 1).await;
        // Another supervisor's child on the same thread is started elsewhere as well.
        until("the neighbour moved", || rig.node("stage.neighbour").restarts == 1).await;
        until("the neighbour is up", || rig.state("stage.neighbour") == ChildState::Running).await;
        assert_eq!(rig.node("stage.neighbour").last_failure.as_deref(), Some("displaced"));
        assert_eq!((lane.stats().redelivered, lane.stats().queued, lane.stats().leased), (1, 0, 0));

        unblock.send(()).unwrap();
        until("the zombie came back", || verdict.lock().is_some()).await;
        assert_eq!(*verdict.lock(), Some(false), "a zombie's acknowledgement does not count");
        assert_eq!(lane.stats().acked, 1);
        assert_eq!(rig.stop().await.threads_left, 0, "the condemned thread ended once it came back");
    });
}

#[test]
fn a_thread_that_never_comes_back_does_not_hang_the_stop() {
    System::new().block_on(async {
        let (trace, lane) = (Trace::default(), lane("blocked"));
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = Mutex::new(blocked);
        let entered = Arc::new(AtomicBool::new(false));
        let enter = entered.clone();
        let script = Script::default().consume(move |_lease, _| {
            enter.store(true, Ordering::SeqCst);
            let _ = blocked.lock().recv();
        });
        let rig = Rig::up(
            policy(),
            vec![
                puppet("calm", on("other"), &trace, Script::default()).build(),
                puppet("blocked", on("shared"), &trace, script).reads(&lane).build(),
            ],
        )
        .await;
        lane.port().try_send(Job::new(1)).unwrap();
        until("the thread is blocked", || entered.load(Ordering::SeqCst)).await;
        let report = rig.stop().await;
        assert_eq!(
            (report.forced, report.over_budget, report.threads_left),
            (vec!["blocked".to_owned()], false, 1)
        );
        assert_eq!(trace.count("-calm"), 1);
        assert_eq!((lane.stats().queued, lane.stats().leased), (1, 0), "its lease was taken back");
        drop(unblock);
    });
}

#[test]
fn a_pool_replaces_the_thread_it_gives_up() {
    System::new().block_on(async {
        let pools = Pools::new([("p".to_owned(), 2)].into());
        let mut ids: Vec<_> =
            (0..4).map(|_| pools.place("p", Place::Spread, "x").arbiter().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 2);
        pools.condemn(ids[0]);
        let mut after: Vec<_> =
            (0..4).map(|_| pools.place("p", Place::Spread, "x").arbiter().unwrap()).collect();
        after.sort_unstable();
        after.dedup();
        assert!(after.len() == 2 && !after.contains(&ids[0]) && after.contains(&ids[1]));
        assert_eq!(pools.stop(Duration::from_secs(10)).await, 0);
    });
}

#[test]
fn a_pool_may_share_the_runtime_of_the_io_clients_and_its_actors_stay_on_their_thread() {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let io = Arc::new(threads.worker_threads(1).thread_name("io").enable_all().build().unwrap());
    let shared = io.clone();
    System::new().block_on(async move {
        let (trace, cast, seen) = (Trace::default(), Cast::new("adapter"), Trace::default());
        let notes = seen.clone();
        let name = || std::thread::current().name().unwrap_or_default().to_owned();
        let script = Script::default().started(move |probe, _| {
            let (notes, probe) = (notes.clone(), probe.clone());
            let own = if name().starts_with("actix-rt") { "an arbiter" } else { "elsewhere" };
            tokio::spawn(async move {
                tokio::time::sleep(ms(1)).await;
                notes.add(format!("actor on {own}, detached work on {}", name()));
                probe.ready();
            });
        });
        let pools = Pools::new([("store".to_owned(), 1)].into());
        pools.share("store", shared);
        let mut rig = Rig::over(policy(), vec![cast.plays(on("store"), &trace, script)], pools);
        rig.tree().ready().await.unwrap();
        let _ = cast.known.ask(Order::Panic, Duration::from_secs(5)).await;
        until("it is up again", || rig.node("adapter").generation == 2 && rig.view().is_up()).await;
        assert_eq!(seen.take(), vec!["actor on an arbiter, detached work on io"; 2]);
        let report = rig.stop().await;
        assert_eq!((report.over_budget, report.threads_left), (false, 0));
    });
    let mut io = io;
    for _ in 0..500 {
        match Arc::try_unwrap(io) {
            Ok(io) => return io.shutdown_timeout(Duration::from_secs(1)),
            Err(held) => io = held,
        }
        std::thread::sleep(ms(10));
    }
    panic!("something still holds the runtime");
}
