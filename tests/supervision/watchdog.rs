//! The watchdog over real threads: one that is blocked is given up, one that slept with the whole process is not.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use actix::{AsyncContext, System};
use obtrace::supervisors::kernel::lane::LaneView;
use obtrace::supervisors::kernel::policy::{LivenessPolicy, Policy, StopPolicy};
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::watchdog::WatchdogPolicy;
use parking_lot::Mutex;

use crate::support::{Job, Rig, Script, Trace, lane, ms, policy, puppet};

fn quick(max_condemned: u32) -> WatchdogPolicy {
    WatchdogPolicy {
        beat_every: ms(50),
        condemn_after: ms(1500),
        max_condemned,
        per: Duration::from_secs(3600),
    }
}

fn pools(max_condemned: u32) -> Pools {
    Pools::watched([("shared".to_owned(), 1)].into(), quick(max_condemned))
}

/// Stalls are left to the watchdog, and so is patience.
fn shared() -> Policy {
    Policy {
        pool: "shared".to_owned(),
        liveness: LivenessPolicy { stall_after: Duration::ZERO, wait_after: Duration::ZERO },
        stop: StopPolicy { drain: ms(500), kill: ms(500) },
        ..policy()
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        tokio::time::sleep(ms(10)).await;
    }
    panic!("never came true: {what}");
}

/// A puppet that blocks its thread at the first delivery of a message until the sender is dropped or sends.
fn blocks() -> (Script, mpsc::Sender<()>, Arc<Mutex<Option<bool>>>) {
    let (unblock, blocked) = mpsc::channel::<()>();
    let (blocked, verdict) = (Mutex::new(blocked), Arc::new(Mutex::new(None)));
    let say = verdict.clone();
    let script = Script::default().consume(move |lease, _| {
        if lease.attempts() == 0 {
            let _ = blocked.lock().recv();
            *say.lock() = Some(lease.ack());
        } else {
            assert!(lease.ack());
        }
    });
    (script, unblock, verdict)
}

#[test]
fn a_blocked_thread_is_condemned_and_only_the_one_who_blocks_it_is_to_blame() {
    System::new().block_on(async {
        let (trace, jobs, calm) = (Trace::default(), lane("blocks"), lane("calm"));
        let (script, unblock, verdict) = blocks();
        // Has a message in hand as well, but does not block.
        let holds = Script::default().consume(|lease, ctx| {
            if lease.generation().number() > 1 {
                assert!(lease.ack());
                return;
            }
            ctx.spawn(actix::fut::wrap_future(async move {
                let _held = lease;
                std::future::pending::<()>().await;
            }));
        });
        // One restart is all that is tolerated: displaced children cost nothing.
        let strict = Policy { intensity: 1, ..policy() };
        let children = vec![
            puppet("calm", shared(), &trace, holds).reads(&calm).build(),
            puppet("idle", shared(), &trace, Script::default()).build(),
            puppet("blocks", shared(), &trace, script).reads(&jobs).build(),
        ];
        let mut rig = Rig::over(strict, children, pools(3));
        rig.tree().ready().await.unwrap();
        assert!(rig.tree().view().is_alive());
        calm.port().try_send(Job::new(7)).unwrap();
        until("the calm one holds it", || calm.stats().leased == 1).await;
        jobs.port().try_send(Job::new(1)).unwrap();
        until("the successor did the work elsewhere", || jobs.stats().acked == 1).await;
        until("the calm one's message is done", || calm.stats().acked == 1).await;
        until("all are up", || {
            ["calm", "idle", "blocks"].iter().all(|name| rig.state(name) == ChildState::Running)
        })
        .await;
        assert_eq!(rig.node("blocks").last_failure.as_deref(), Some("stalled"));
        for name in ["calm", "idle"] {
            let node = rig.node(name);
            assert_eq!((node.restarts, node.last_failure.as_deref()), (1, Some("displaced")), "{name}");
        }
        let snapshot = rig.tree().view().snapshot();
        assert_eq!((snapshot.condemned, snapshot.arbiters.len()), (1, 1));
        assert!(trace.take().contains(&"calm got 7#1".to_owned()));

        unblock.send(()).unwrap();
        until("the zombie came back", || verdict.lock().is_some()).await;
        assert_eq!(*verdict.lock(), Some(false));
        assert_eq!((jobs.stats().acked, jobs.stats().fenced), (1, 1));
        assert_eq!(rig.stop().await.threads_left, 0);
    });
}

#[test]
fn too_many_lost_threads_make_the_root_fail() {
    System::new().block_on(async {
        let (trace, jobs) = (Trace::default(), lane("blocks"));
        let (script, unblock, _) = blocks();
        let blocks = puppet("blocks", shared(), &trace, script).reads(&jobs).build();
        let mut rig = Rig::over(policy(), vec![blocks], pools(1));
        rig.tree().ready().await.unwrap();
        jobs.port().try_send(Job::new(1)).unwrap();
        let reason = tokio::time::timeout(Duration::from_secs(60), rig.tree().failed()).await.unwrap();
        assert_eq!(reason.to_string(), "bug: 1 blocked threads had to be given up within 3600s");
        drop(unblock);
        rig.stop().await;
    });
}

#[test]
fn a_thread_that_is_late_without_work_is_shown_and_left_alone() {
    System::new().block_on(async {
        let trace = Trace::default();
        let (tell, thread) = mpsc::channel();
        let script = Script::default().started(move |probe, _| {
            probe.ready();
            tell.send(actix_rt::Arbiter::current()).unwrap();
        });
        let mut rig = Rig::over(policy(), vec![puppet("idle", shared(), &trace, script).build()], pools(3));
        rig.tree().ready().await.unwrap();
        let arbiter = thread.recv().unwrap();
        // Foreign work, which no child has in hand.
        arbiter.spawn_fn(|| std::thread::sleep(ms(3000)));
        let view = rig.tree().view();
        until("it is late", || view.snapshot().arbiters.iter().any(|arbiter| arbiter.lag_s > 1.6)).await;
        until("it is back", || view.snapshot().arbiters.iter().all(|arbiter| arbiter.lag_s < 0.5)).await;
        assert_eq!((view.snapshot().condemned, rig.node("idle").restarts), (0, 0));
        rig.stop().await;
    });
}

#[test]
fn a_blocked_root_thread_shows_from_outside_and_passes() {
    System::new().block_on(async {
        let trace = Trace::default();
        let mut rig =
            Rig::over(policy(), vec![puppet("a", shared(), &trace, Script::default()).build()], pools(3));
        rig.tree().ready().await.unwrap();
        let view = rig.tree().view();
        assert!(view.is_alive());
        let seen_dead = Arc::new(AtomicBool::new(false));
        let (looks, dead) = (view.clone(), seen_dead.clone());
        let onlooker = std::thread::spawn(move || {
            while looks.is_alive() {
                std::thread::sleep(ms(10));
            }
            dead.store(true, Ordering::SeqCst);
        });
        // Blocks the root's thread, as nothing ever should, until somebody saw it.
        while !seen_dead.load(Ordering::SeqCst) {
            std::thread::sleep(ms(10));
        }
        onlooker.join().unwrap();
        until("it is alive again", || view.is_alive()).await;
        assert_eq!(rig.tree().view().snapshot().condemned, 0);
        rig.stop().await;
        assert!(view.root_lag().is_some());
    });
}

/// The child's half of the test below: holds a message in a pending future, so that there is work on its thread.
fn sleeper() {
    System::new().block_on(async {
        let (trace, jobs) = (Trace::default(), lane("holds"));
        let holds = Script::default().consume(|lease, ctx| {
            ctx.spawn(actix::fut::wrap_future(async move {
                let _held = lease;
                std::future::pending::<()>().await;
            }));
        });
        let stalls =
            LivenessPolicy { stall_after: Duration::from_secs(5), wait_after: Duration::from_secs(5) };
        let holds =
            puppet("holds", Policy { liveness: stalls, ..shared() }, &trace, holds).reads(&jobs).build();
        let mut rig = Rig::over(policy(), vec![holds], pools(3));
        rig.tree().ready().await.unwrap();
        jobs.port().try_send(Job::new(1)).unwrap();
        until("it is held", || jobs.stats().leased == 1).await;
        println!("held");
        let mut line = String::new();
        // Stopped meanwhile by the parent, then told to look.
        let line = tokio::task::spawn_blocking(move || {
            std::io::stdin().read_line(&mut line).unwrap();
            line
        });
        assert_eq!(line.await.unwrap().trim(), "look");
        // Some ticks of the watchdog and looks of the supervisor after it woke up.
        tokio::time::sleep(ms(700)).await;
        let snapshot = rig.tree().view().snapshot();
        assert_eq!((snapshot.condemned, rig.node("holds").restarts), (0, 0));
        rig.stop().await;
    });
}

#[test]
fn a_process_that_was_stopped_condemns_nobody() {
    const MARK: &str = "OBTRACE_TEST_SLEEPER";
    if std::env::var_os(MARK).is_some() {
        return sleeper();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "watchdog::a_process_that_was_stopped_condemns_nobody", "--nocapture"])
        .env(MARK, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("held")));
    let signal = |name: &str| {
        let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("STOP");
    // Longer than the watchdog's and the supervisor's patience together.
    std::thread::sleep(Duration::from_secs(7));
    signal("CONT");
    use std::io::Write;
    child.stdin.take().unwrap().write_all(b"look\n").unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
}
