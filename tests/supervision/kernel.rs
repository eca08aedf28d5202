//! Restarts of workers: where a fault may happen, what a restart keeps, how it is paced, who shares its fate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{ActorContext, AsyncContext};
use obtrace::domain::failure::FailureClass;
use obtrace::supervisors::kernel::exit::ExitReason;
use obtrace::supervisors::kernel::policy::{Policy, Restart, StartPolicy, Strategy};
use obtrace::supervisors::kernel::snapshot::ChildState;

use crate::support::{
    Cast, Job, Order, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet, strategy,
};

/// A puppet that reads a lane and misbehaves by `script` in its first incarnation; returns what was traced.
async fn one_fault(script: Script) -> (Vec<String>, Rig) {
    let (trace, lane) = (Trace::default(), lane("hand"));
    lane.port().try_send(Job::traced(1, &trace)).unwrap();
    lane.port().try_send(Job::traced(2, &trace)).unwrap();
    let rig = Rig::start(policy(), vec![puppet("hand", policy(), &trace, script).reads(&lane).build()]);
    pass(ms(2000)).await;
    assert_eq!(rig.state("hand"), ChildState::Running);
    assert_eq!(rig.node("hand").restarts, 1);
    assert_eq!(rig.node("hand").generation, 2);
    let stats = lane.port().stats();
    assert_eq!((stats.acked, stats.queued, stats.leased, stats.bytes), (2, 0, 0, 0));
    (trace.take(), rig)
}

fn first(calls: &Arc<AtomicUsize>) -> bool {
    calls.fetch_add(1, Ordering::SeqCst) == 0
}

#[test]
fn a_panic_in_consume_brings_the_message_back_first_with_one_attempt_more() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default().consume(move |lease, _| {
            assert!(!first(&calls), "boom");
            assert!(lease.ack());
        });
        let (trace, rig) = one_fault(script).await;
        assert_eq!(trace, ["+hand", "hand got 1#1", "-hand", "+hand", "hand got 1#2", "hand got 2#1"]);
        let failure = rig.node("hand").last_failure.unwrap();
        assert!(failure.contains("boom") && failure.contains("kernel.rs:"), "{failure}");
        assert_eq!(rig.stop().await.reason, ExitReason::Shutdown);
    });
}

#[test]
fn a_panic_after_the_acknowledgement_does_not_bring_the_message_back() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default().consume(move |lease, _| {
            assert!(lease.ack());
            assert!(!first(&calls), "boom");
        });
        let (trace, rig) = one_fault(script).await;
        assert_eq!(trace, ["+hand", "hand got 1#1", "-hand", "+hand", "hand got 2#1"]);
        rig.stop().await;
    });
}

#[test]
fn a_panic_in_started_leaves_the_lane_untouched() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default().started(move |probe, _| {
            assert!(!first(&calls), "boom");
            probe.ready();
        });
        let (trace, rig) = one_fault(script).await;
        assert_eq!(trace, ["+hand", "-hand", "+hand", "hand got 1#1", "hand got 2#1"]);
        rig.stop().await;
    });
}

#[test]
fn a_panic_in_the_factory_is_a_failed_start() {
    paused(async {
        let script = Script::default().factory(|generation| assert!(generation > 1, "boom"));
        let (trace, rig) = one_fault(script).await;
        assert_eq!(trace, ["+hand", "hand got 1#1", "hand got 2#1"]);
        let failure = rig.node("hand").last_failure.unwrap();
        assert!(failure.starts_with("could not start: boom at "), "{failure}");
        rig.stop().await;
    });
}

#[test]
fn a_panic_in_a_spawned_future_takes_the_actor_along_and_comes_back() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default().consume(move |lease, ctx| {
            if first(&calls) {
                ctx.spawn(actix::fut::wrap_future(async move {
                    let _held = lease;
                    tokio::task::yield_now().await;
                    panic!("boom");
                }));
            } else {
                assert!(lease.ack());
            }
        });
        let (trace, rig) = one_fault(script).await;
        assert_eq!(trace, ["+hand", "hand got 1#1", "-hand", "+hand", "hand got 1#2", "hand got 2#1"]);
        rig.stop().await;
    });
}

#[test]
fn a_panic_in_the_drop_of_the_worker_leaves_the_blame_with_the_first_fault() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default()
            .consume(move |lease, _| {
                assert!(!first(&calls), "first fault");
                assert!(lease.ack());
            })
            .dropped(|generation| assert!(generation > 1, "second fault"));
        let (_, rig) = one_fault(script).await;
        let failure = rig.node("hand").last_failure.unwrap();
        assert!(failure.contains("first fault") && !failure.contains("second"), "{failure}");
        rig.stop().await;
    });
}

#[test]
fn a_panic_only_in_the_drop_is_a_failure_of_its_own() {
    paused(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default()
            .consume(move |lease, ctx| {
                assert!(lease.ack());
                if first(&calls) {
                    ctx.stop();
                }
            })
            .dropped(|generation| assert!(generation > 1, "only in drop"));
        let (_, rig) = one_fault(script).await;
        assert!(rig.node("hand").last_failure.unwrap().contains("only in drop"));
        rig.stop().await;
    });
}

#[test]
fn backoff_doubles_up_to_its_ceiling_in_virtual_time() {
    paused(async {
        let (trace, starts) = (Trace::default(), Trace::default());
        let (born, seen) = (obtrace::clock::now(), starts.clone());
        let script = Script::default()
            .factory(move |_| seen.add((obtrace::clock::now() - born).as_millis().to_string()))
            .started(|_, _| panic!("always"));
        let rig = Rig::start(policy(), vec![puppet("bad", policy(), &trace, script).build()]);
        pass(ms(4600)).await;
        let at: Vec<u64> = starts.take().iter().map(|at| at.parse().unwrap()).collect();
        let waits: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // The timer wheel of tokio rounds up to the next millisecond.
        let near = |wait: u64, want: u64| (want..=want + 2).contains(&wait);
        let want = [100, 200, 400, 800, 1000, 1000, 1000];
        assert!(waits.len() == want.len() && waits.iter().zip(want).all(|(w, n)| near(*w, n)), "{waits:?}");
        assert_eq!(rig.state("bad"), ChildState::BackingOff);
        rig.stop().await;
    });
}

#[test]
fn passing_the_window_escalates_along_the_exact_path_and_stops_everything() {
    paused(async {
        let trace = Trace::default();
        let bad = Script::default().started(|_, _| panic!("always"));
        let inner = Policy { intensity: 2, ..policy() };
        let outer = Policy { intensity: 1, ..policy() };
        let stage = obtrace::supervisors::kernel::spec::ChildSpec::supervisor(
            "stage",
            inner,
            vec![
                puppet("good", policy(), &trace, Script::default()).build(),
                puppet("bad", policy(), &trace, bad).build(),
            ],
        );
        let other = puppet("other", policy(), &trace, Script::default()).build();
        let mut rig = Rig::start(outer, vec![other, stage]);
        let reason = rig.tree().failed().await;
        let ExitReason::Failed(FailureClass::Bug, why) = &reason else { panic!("{reason:?}") };
        assert!(why.starts_with("stage: more than 1 restarts in 60s"), "{why}");
        assert!(why.contains("stage.bad: more than 2 restarts in 60s") && why.contains("always"), "{why}");
        let trace = trace.take();
        // Two lives of the stage, each with three tries of the bad child.
        assert_eq!(trace.iter().filter(|line| *line == "+bad").count(), 6);
        assert_eq!(trace.iter().filter(|line| *line == "+good").count(), 2);
        assert_eq!(trace.last().unwrap(), "-other");
        // Asking again is harmless, and so is the stop after it.
        assert_eq!(rig.tree().failed().await, reason);
        assert_eq!(rig.tree().ready().await, Err(reason.clone()));
        let report = rig.stop().await;
        assert_eq!((report.reason, report.forced, report.over_budget), (reason, vec![], false));
    });
}

async fn trio(strategy_: Strategy, restart_of_b: Restart) -> (Trace, [Cast; 4], Rig) {
    let trace = Trace::default();
    let casts = ["a", "b", "c", "d"].map(Cast::new);
    let children = casts
        .iter()
        .map(|cast| {
            let restart = if cast.name == "b" { restart_of_b } else { Restart::Permanent };
            cast.plays(Policy { restart, ..policy() }, &trace, Script::default())
        })
        .collect();
    let rig = Rig::up(strategy(strategy_), children).await;
    assert_eq!(trace.take(), ["+a", "+b", "+c", "+d"]);
    (trace, casts, rig)
}

#[test]
fn one_for_one_restarts_only_the_one() {
    paused(async {
        let (trace, casts, rig) = trio(Strategy::OneForOne, Restart::Permanent).await;
        casts[2].told(Order::Panic).await;
        assert_eq!(rig.state("c"), ChildState::BackingOff);
        pass(ms(200)).await;
        assert_eq!(trace.take(), ["-c", "+c"]);
        rig.stop().await;
        assert_eq!(trace.take(), ["-d", "-c", "-b", "-a"]);
    });
}

#[test]
fn rest_for_one_takes_the_later_ones_along_in_order() {
    paused(async {
        let (trace, casts, rig) = trio(Strategy::RestForOne, Restart::Permanent).await;
        casts[1].told(Order::PanicInSpawned).await;
        pass(ms(200)).await;
        assert_eq!(trace.take(), ["-b", "-d", "-c", "+b", "+c", "+d"]);
        assert_eq!(casts[0].generation().await, Some(1));
        assert_eq!(casts[3].generation().await, Some(2));
        rig.stop().await;
    });
}

#[test]
fn one_for_all_takes_all_along_but_brings_no_temporary_one_back() {
    paused(async {
        let (trace, casts, rig) = trio(Strategy::OneForAll, Restart::Temporary).await;
        casts[2].told(Order::Panic).await;
        pass(ms(200)).await;
        assert_eq!(trace.take(), ["-c", "-d", "-b", "-a", "+a", "+c", "+d"]);
        assert_eq!(rig.state("b"), ChildState::Stopped);
        rig.stop().await;
    });
}

#[test]
fn a_group_restart_brings_a_transient_child_back_that_had_ended() {
    paused(async {
        let (trace, casts, rig) = trio(Strategy::OneForAll, Restart::Transient).await;
        casts[1].told(Order::Stop).await;
        pass(ms(500)).await;
        assert_eq!((trace.take(), rig.state("b")), (vec!["-b".to_owned()], ChildState::Stopped));
        casts[0].told(Order::Panic).await;
        pass(ms(500)).await;
        assert_eq!(trace.take(), ["-a", "-d", "-c", "+a", "+b", "+c", "+d"]);
        rig.stop().await;
    });
}

#[test]
fn two_crashes_at_once_are_one_group_restart() {
    paused(async {
        let (trace, casts, mut rig) = trio(Strategy::OneForAll, Restart::Permanent).await;
        // Both panic before the supervisor looks at either.
        let (first, second) =
            tokio::join!(casts[0].known.ask(Order::Panic, ms(10)), casts[2].known.ask(Order::Panic, ms(10)),);
        assert!(first.is_err() && second.is_err());
        pass(ms(5000)).await;
        assert_eq!(trace.take(), ["-a", "-c", "-d", "-b", "+a", "+b", "+c", "+d"]);
        for path in ["a", "b", "c", "d"] {
            assert_eq!(rig.node(path).restarts, 1, "{path}");
        }
        assert!(rig.tree().view().is_up());
        rig.stop().await;
    });
}

#[test]
fn transient_stays_down_after_a_normal_end_and_comes_back_after_a_panic() {
    paused(async {
        let (_, casts, mut rig) = trio(Strategy::OneForOne, Restart::Transient).await;
        casts[1].told(Order::Panic).await;
        pass(ms(200)).await;
        assert_eq!(rig.state("b"), ChildState::Running);
        casts[1].told(Order::Stop).await;
        pass(Duration::from_secs(60)).await;
        assert_eq!(rig.state("b"), ChildState::Stopped);
        assert!(
            rig.tree().view().is_up(),
            "a child that ended by its restart type does not hold readiness back"
        );
        rig.stop().await;
    });
}

#[test]
fn temporary_never_comes_back() {
    paused(async {
        let (_, casts, rig) = trio(Strategy::OneForOne, Restart::Temporary).await;
        casts[1].told(Order::Panic).await;
        pass(Duration::from_secs(60)).await;
        assert_eq!((rig.state("b"), rig.node("b").restarts), (ChildState::Stopped, 0));
        rig.stop().await;
    });
}

#[test]
fn a_child_that_ends_before_it_was_ready_counts_by_its_restart_type() {
    paused(async {
        let trace = Trace::default();
        let ends = Script::default().started(|_, ctx| ctx.stop());
        let transient = Policy { restart: Restart::Transient, ..policy() };
        let spec = |name: &str, policy: Policy, script: &Script| {
            puppet(name, policy, &trace, script.clone()).build()
        };
        let mut rig = Rig::up(
            policy(),
            vec![spec("once", transient, &ends), spec("next", policy(), &Script::default())],
        )
        .await;
        assert_eq!(trace.take(), ["+once", "-once", "+next"]);
        assert!(rig.tree().view().is_up());
        rig.stop().await;
        trace.take();

        let impatient = Policy { intensity: 2, ..policy() };
        let mut rig = Rig::start(
            impatient,
            vec![spec("ever", policy(), &ends), spec("next", policy(), &Script::default())],
        );
        let reason = rig.tree().ready().await.unwrap_err();
        assert!(reason.to_string().contains("ever: more than 2 restarts"), "{reason}");
        assert_eq!(trace.count("+ever"), 3);
        assert_eq!(trace.count("+next"), 0);
        rig.stop().await;
    });
}

#[test]
fn a_configuration_error_escalates_at_once_and_keeps_its_class() {
    paused(async {
        let trace = Trace::default();
        let cast = Cast::new("http");
        let child = cast.plays(policy(), &trace, Script::default());
        let stage =
            obtrace::supervisors::kernel::spec::ChildSpec::supervisor("ingest", policy(), vec![child]);
        let mut rig = Rig::up(policy(), vec![stage]).await;
        cast.told(Order::Fail(FailureClass::Config)).await;
        let reason = rig.tree().failed().await;
        assert_eq!(reason, ExitReason::Failed(FailureClass::Config, "ingest.http: told to".to_owned()));
        assert_eq!(trace.count("+http"), 1);
        rig.stop().await;
    });
}

#[test]
fn a_factory_that_notes_a_failure_is_not_started() {
    paused(async {
        use obtrace::supervisors::kernel::{seat::Worker, spec::ChildSpec};
        struct Never;
        impl Worker for Never {
            fn started(
                &mut self,
                _: &obtrace::supervisors::kernel::probe::Probe,
                _: &mut obtrace::supervisors::kernel::seat::Seated<Self>,
            ) {
                unreachable!("its factory said no");
            }
        }
        let child = ChildSpec::worker("listener", policy(), |probe| {
            probe.fail(FailureClass::Config, "the port is taken");
            Never
        });
        let mut rig = Rig::start(policy(), vec![child.build()]);
        let reason = rig.tree().ready().await.unwrap_err();
        assert_eq!(
            reason,
            ExitReason::Failed(FailureClass::Config, "listener: the port is taken".to_owned())
        );
        rig.stop().await;
    });
}

#[test]
fn a_fenced_child_stays_down_and_a_dependency_never_passes_the_window() {
    paused(async {
        let (_, casts, rig) = trio(Strategy::OneForOne, Restart::Permanent).await;
        casts[0].told(Order::Fail(FailureClass::Fenced)).await;
        for _ in 0..30 {
            casts[3].told(Order::Fail(FailureClass::Dependency)).await;
            pass(ms(1100)).await;
        }
        assert_eq!((rig.state("a"), rig.node("a").restarts), (ChildState::Stopped, 0));
        assert_eq!((rig.state("d"), rig.node("d").restarts), (ChildState::Running, 30));
        rig.stop().await;
    });
}

#[test]
fn a_late_child_holds_the_next_one_back() {
    paused(async {
        let trace = Trace::default();
        let late = Script::default().started(|probe, ctx| {
            let probe = probe.clone();
            ctx.run_later(Duration::from_secs(5), move |_, _| probe.ready());
        });
        let children = vec![
            puppet("late", policy(), &trace, late).build(),
            puppet("next", policy(), &trace, Script::default()).build(),
        ];
        let mut rig = Rig::start(policy(), children);
        pass(Duration::from_secs(4)).await;
        assert_eq!(trace.take(), ["+late"]);
        assert_eq!((rig.state("late"), rig.state("next")), (ChildState::Starting, ChildState::Starting));
        assert!(!rig.tree().view().is_up());
        rig.tree().ready().await.unwrap();
        assert_eq!(trace.take(), ["+next"]);
        assert!(rig.tree().view().is_up());
        rig.stop().await;
    });
}

#[test]
fn a_child_that_never_reports_ready_times_out() {
    paused(async {
        let trace = Trace::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let mute = Script::default().started(move |probe, _| {
            if !first(&calls) {
                probe.ready();
            }
        });
        let quick =
            Policy { start: StartPolicy { timeout: Duration::from_secs(3), ..policy().start }, ..policy() };
        let mut rig = Rig::up(policy(), vec![puppet("mute", quick, &trace, mute).build()]).await;
        assert_eq!(rig.node("mute").last_failure.as_deref(), Some("start_timeout"));
        assert_eq!(trace.take(), ["+mute", "-mute", "+mute"]);
        rig.tree();
        assert_eq!(
            rig.stop().await.forced,
            Vec::<String>::new(),
            "aborting a late starter is no unclean stop"
        );
    });
}

#[test]
fn a_slow_restart_does_not_keep_siblings_from_theirs() {
    paused(async {
        let trace = Trace::default();
        let slow = Cast::new("slow");
        let quick = Cast::new("quick");
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Script::default().started(move |probe, ctx| {
            let probe = probe.clone();
            let wait = if first(&calls) { 0 } else { 9 };
            ctx.run_later(Duration::from_secs(wait), move |_, _| probe.ready());
        });
        let children =
            vec![slow.plays(policy(), &trace, script), quick.plays(policy(), &trace, Script::default())];
        let rig = Rig::up(policy(), children).await;
        slow.told(Order::Panic).await;
        pass(ms(500)).await;
        assert_eq!(rig.state("slow"), ChildState::Starting);
        quick.told(Order::Panic).await;
        pass(ms(200)).await;
        assert_eq!((rig.state("slow"), rig.state("quick")), (ChildState::Starting, ChildState::Running));
        rig.stop().await;
    });
}
