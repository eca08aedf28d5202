//! What is measured: gauges and handled messages in the tree, busy threads, waiting in lanes, attempts on what is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{AsyncContext, System};
use obtrace::domain::failure::FailureClass;
use obtrace::supervisors::kernel::breaker::{BreakerState, Gate};
use obtrace::supervisors::kernel::lane::{Lane, LaneView};
use obtrace::supervisors::kernel::policy::{BreakerPolicy, LanePolicy, Policy};
use obtrace::supervisors::kernel::probe::Probe;
use obtrace::supervisors::kernel::snapshot::ChildState;

use crate::support::{Cast, Job, Order, Rig, Script, Trace, bounds, lane, ms, pass, paused, policy, puppet};

#[test]
fn the_tree_shows_gauges_and_breaker_of_the_incarnation_that_runs() {
    paused(async {
        let (trace, cast) = (Trace::default(), Cast::new("adapter"));
        let script = Script::default().started(|probe, _| {
            if probe.generation().number() == 1 {
                probe.gauge("lag", 7.0);
                probe.gauge("lag", 9.5);
                probe.breaker(BreakerState::Open);
            }
            probe.ready();
        });
        let rig = Rig::up(policy(), vec![cast.plays(policy(), &trace, script)]).await;
        let node = rig.node("adapter");
        assert_eq!((node.gauges.get("lag"), node.gauges.len()), (Some(&9.5), 1));
        assert_eq!(node.breaker, Some(BreakerState::Open));
        cast.told(Order::Panic).await;
        pass(ms(200)).await;
        let node = rig.node("adapter");
        assert_eq!((node.generation, node.gauges.len(), node.breaker), (2, 0, None));
        rig.stop().await;
    });
}

#[test]
fn what_was_handled_is_counted_across_restarts() {
    paused(async {
        let (trace, lane, cast) = (Trace::default(), lane("hand"), Cast::new("hand"));
        let script = Script::default().consume(|lease, _| {
            assert!(lease.id != 3 || lease.attempts() > 0, "boom");
            assert!(lease.ack());
        });
        let hand = puppet("hand", policy(), &trace, script).reads(&lane).known_as(&cast.known).build();
        let rig = Rig::up(policy(), vec![hand]).await;
        (1..=4).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        pass(ms(300)).await;
        assert_eq!(cast.generation().await, Some(2));
        let node = rig.node("hand");
        assert_eq!((node.restarts, node.handled), (1, 5), "four messages and one question");
        rig.stop().await;
    });
}

#[test]
fn a_busy_worker_is_told_from_an_idle_one() {
    System::new().block_on(async {
        let (trace, jobs) = (Trace::default(), lane("busy"));
        let script = Script::default().consume(|lease, _| {
            let until = obtrace::clock::now() + ms(30);
            while obtrace::clock::now() < until {}
            assert!(lease.ack());
        });
        let on = |pool: &str| Policy { pool: pool.to_owned(), ..policy() };
        let busy = puppet("busy", on("busy"), &trace, script).reads(&jobs).build();
        let idle = puppet("idle", on("idle"), &trace, Script::default()).build();
        let rig = Rig::up(policy(), vec![busy, idle]).await;
        for id in 0..20 {
            jobs.port().send(Job::new(id), Duration::from_secs(60)).await.unwrap();
        }
        while jobs.stats().acked < 20 {
            tokio::time::sleep(ms(5)).await;
        }
        let (busy, idle) = (rig.node("busy"), rig.node("idle"));
        assert!(busy.busy_ratio > Some(0.05) && idle.busy_ratio < busy.busy_ratio, "{busy:?} {idle:?}");
        assert!(busy.polls.busy >= ms(600) && busy.polls.longest >= ms(30), "{:?}", busy.polls);
        assert_eq!(busy.polls.buckets.iter().sum::<u64>(), busy.polls.count);
        let over_25_ms: u64 = busy.polls.buckets[5..].iter().sum();
        assert!(over_25_ms >= 1, "{:?}", busy.polls);
        rig.stop().await;
    });
}

#[test]
fn a_lane_knows_how_long_its_messages_waited() {
    paused(async {
        use futures_util::StreamExt;
        let lane = Lane::new("l", bounds(8, 64 * 1024, 3));
        lane.port().try_send(Job::new(1)).unwrap();
        lane.port().try_send(Job::new(2)).unwrap();
        pass(ms(1500)).await;
        let mut inbox = lane.inbox(Probe::detached());
        let first = inbox.next().await.unwrap();
        assert_eq!((lane.stats().waited, lane.stats().waited_for.as_secs_f64()), (1, 1.5));
        drop(first);
        pass(ms(1000)).await;
        // A redelivery is no second wait.
        assert!(inbox.next().await.unwrap().ack());
        assert_eq!((lane.stats().waited, lane.stats().waited_for.as_secs_f64()), (1, 1.5));
        assert!(inbox.next().await.unwrap().ack());
        assert_eq!((lane.stats().waited, lane.stats().waited_for.as_secs_f64()), (2, 4.0));
    });
}

/// A dependency that is up in every other second, and counts who calls it when.
#[derive(Clone, Default)]
struct Flapping {
    calls: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
}

impl Flapping {
    async fn call(&self, begun: tokio::time::Instant) -> Result<(), &'static str> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(ms(5)).await;
        match (obtrace::clock::now() - begun).as_secs() % 2 {
            0 => Ok(()),
            _ => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                Err("refused")
            }
        }
    }
}

#[test]
fn attempts_on_a_flapping_dependency_are_bounded_and_the_child_is_never_restarted() {
    paused(async {
        let trace = Trace::default();
        let (store, begun) = (Flapping::default(), obtrace::clock::now());
        let rules = BreakerPolicy { open_after: 3, probe_every: ms(1700) };
        let gates: Arc<parking_lot::Mutex<Option<Gate>>> = Arc::default();
        let (called, kept) = (store.clone(), gates.clone());
        let script = Script::default()
            .started(move |probe, _| {
                *kept.lock() = Some(Gate::new(rules, probe));
                probe.ready();
            })
            .consume(move |lease, ctx| {
                let (store, gate) = (called.clone(), gates.lock().clone().unwrap());
                ctx.spawn(actix::fut::wrap_future(async move {
                    loop {
                        let attempt = gate.enter().await;
                        match store.call(begun).await {
                            Ok(()) => break attempt.answered(),
                            Err(why) => attempt.failed(FailureClass::Dependency, why),
                        }
                    }
                    assert!(lease.ack());
                }));
            });
        let jobs = Lane::new("adapter", LanePolicy { credits: 50, ..policy().lane });
        let rig =
            Rig::up(policy(), vec![puppet("adapter", policy(), &trace, script).reads(&jobs).build()]).await;
        let port = jobs.port();
        actix_rt::spawn(async move {
            for id in 0.. {
                if port.send(Job::new(id), Duration::from_secs(60)).await.is_err() {
                    break;
                }
                tokio::time::sleep(ms(100)).await;
            }
        });
        let mut seen = Vec::new();
        for _ in 0..600 {
            pass(ms(100)).await;
            let node = rig.node("adapter");
            seen.push((node.state, node.breaker));
        }
        assert!(seen.contains(&(ChildState::Degraded, Some(BreakerState::Open))));
        assert!(seen.contains(&(ChildState::Running, Some(BreakerState::Closed))));
        let node = rig.node("adapter");
        assert_eq!((node.restarts, node.generation), (0, 1));
        // Each time it opens costs three failures and what was in flight; each probe while it is open costs one.
        let failed = store.failed.load(Ordering::SeqCst);
        assert!(failed <= 60 / 2 * 3 + 60, "{failed} failed calls in a minute");
        assert!(jobs.stats().acked > 100, "it works while the store is up: {:?}", jobs.stats());
        rig.stop().await;
    });
}

#[test]
fn a_dependency_that_is_down_is_probed_by_one_at_a_time_and_one_success_lets_all_in() {
    paused(async {
        let probe = Probe::detached();
        let gate = Gate::new(BreakerPolicy { open_after: 2, probe_every: Duration::from_secs(2) }, &probe);
        for _ in 0..2 {
            gate.enter().await.failed(FailureClass::Dependency, "down");
        }
        assert_eq!((gate.state(), probe.breaker_state()), (BreakerState::Open, Some(BreakerState::Open)));
        assert_eq!(probe.degradation().as_deref(), Some("down"));
        assert!(gate.try_enter().is_none());
        let inside = Arc::new(AtomicUsize::new(0));
        let up = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tries = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let (gate, inside, up, tries) = (gate.clone(), inside.clone(), up.clone(), tries.clone());
                actix_rt::spawn(async move {
                    loop {
                        let attempt = gate.enter().await;
                        tries.fetch_add(1, Ordering::SeqCst);
                        let together = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(together == 1 || gate.state() == BreakerState::Closed);
                        tokio::time::sleep(ms(300)).await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        match up.load(Ordering::SeqCst) {
                            true => return attempt.answered(),
                            false => attempt.failed(FailureClass::Dependency, "still down"),
                        }
                    }
                })
            })
            .collect();
        pass(Duration::from_secs(60)).await;
        let tried = tries.load(Ordering::SeqCst);
        assert!((24..=30).contains(&tried), "{tried} probes in a minute, one every 2.3 s");
        up.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!((gate.state(), probe.degradation()), (BreakerState::Closed, None));
        assert_eq!(tries.load(Ordering::SeqCst), tried + 50, "one probe, then everybody else at once");
    });
}

#[test]
fn a_probe_that_is_given_up_leaves_its_place_to_the_next() {
    paused(async {
        let gate = Gate::new(BreakerPolicy { open_after: 1, probe_every: ms(100) }, &Probe::detached());
        gate.enter().await.failed(FailureClass::Dependency, "down");
        let first = gate.enter().await;
        assert!(gate.try_enter().is_none());
        let waits = gate.clone();
        let next = actix_rt::spawn(async move { waits.enter().await.answered() });
        pass(ms(1)).await;
        drop(first);
        next.await.unwrap();
        assert_eq!(gate.state(), BreakerState::Closed);
    });
}
