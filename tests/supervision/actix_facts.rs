//! What the kernel assumes of actix 0.13, one test a fact: an upgrade that changes one shows up here by name.
//!
//! Two facts would take the test process with them (a core that is never yielded, an abort); those run this test binary
//! again as a child, told apart by an environment variable.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::{
    Actor, ActorContext, AsyncContext, Context, Handler, MailboxError, Message, ResponseFuture, Supervised,
    Supervisor, System, SystemService,
};
use obtrace::clock;

const CHILD: &str = "OBTRACE_FACTS_CHILD";

fn run<T>(test: impl Future<Output = T>) -> T {
    System::new().block_on(test)
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

#[derive(Clone, Default)]
struct Seen(Arc<Counters>);

#[derive(Default)]
struct Counters {
    handled: AtomicUsize,
    restarting: AtomicUsize,
    stopping: AtomicUsize,
    stopped: AtomicUsize,
    hooks_while_unwinding: AtomicBool,
    timer_after: AtomicUsize,
    ticks: AtomicUsize,
}

#[derive(Default)]
struct Subject(Seen);

impl Actor for Subject {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Self::Context) -> actix::Running {
        add(&self.0.0.stopping);
        self.0.0.hooks_while_unwinding.store(std::thread::panicking(), Ordering::SeqCst);
        actix::Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        add(&self.0.0.stopped);
    }
}

impl Supervised for Subject {
    fn restarting(&mut self, _: &mut Self::Context) {
        add(&self.0.0.restarting);
    }
}

impl actix::SystemService for Subject {}

macro_rules! message {
    ($name:ident => $result:ty) => {
        impl Message for $name {
            type Result = $result;
        }
    };
}

struct Work;
struct Crash;
struct CrashInFuture;
struct Pause(Duration);
struct Tick;
message!(Work => ());
message!(Crash => ());
message!(CrashInFuture => ());
message!(Pause => ());
message!(Tick => ());

impl Handler<Work> for Subject {
    type Result = ();
    fn handle(&mut self, _: Work, _: &mut Self::Context) {
        add(&self.0.0.handled);
    }
}

impl Handler<Crash> for Subject {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crash");
    }
}

impl Handler<CrashInFuture> for Subject {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: CrashInFuture, _: &mut Self::Context) -> Self::Result {
        Box::pin(async { panic!("crash in a future") })
    }
}

impl Handler<Pause> for Subject {
    type Result = ();
    fn handle(&mut self, pause: Pause, ctx: &mut Self::Context) {
        ctx.wait(actix::fut::wrap_future(tokio::time::sleep(pause.0)));
    }
}

impl Handler<Tick> for Subject {
    type Result = ();
    fn handle(&mut self, _: Tick, ctx: &mut Self::Context) {
        let seen = self.0.clone();
        ctx.run_interval(Duration::from_millis(10), move |_, _| add(&seen.0.ticks));
    }
}

#[test]
fn a_panic_under_actix_supervisor_ends_the_actor_and_does_not_restart_it() {
    run(async {
        let seen = Seen::default();
        let subject = seen.clone();
        let addr = Supervisor::start(move |_| Subject(subject));
        assert_eq!(addr.send(Crash).await, Err(MailboxError::Closed));
        settle().await;
        assert!(!addr.connected());
        assert_eq!(seen.0.restarting.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn siblings_on_the_same_arbiter_live_on() {
    run(async {
        let sibling = Subject::default().start();
        let crashing = Subject::default().start();
        assert_eq!(crashing.send(Crash).await, Err(MailboxError::Closed));
        assert_eq!(sibling.send(Work).await, Ok(()));
    });
}

#[test]
fn messages_queued_behind_a_panic_are_dropped_and_their_senders_hear_closed() {
    run(async {
        let seen = Seen::default();
        let addr = Subject(seen.clone()).start();
        let (crash, queued) = tokio::join!(addr.send(Crash), addr.send(Work));
        assert_eq!((crash, queued), (Err(MailboxError::Closed), Err(MailboxError::Closed)));
        assert_eq!(seen.0.handled.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn stopping_and_stopped_run_after_a_panic_and_while_it_unwinds() {
    run(async {
        let seen = Seen::default();
        let addr = Subject(seen.clone()).start();
        let _ = addr.send(Crash).await;
        settle().await;
        assert_eq!(seen.0.stopping.load(Ordering::SeqCst), 1);
        assert_eq!(seen.0.stopped.load(Ordering::SeqCst), 1);
        // The kernel catches the panic further in, so that its actors' hooks do not run like this.
        assert!(seen.0.hooks_while_unwinding.load(Ordering::SeqCst));
    });
}

#[test]
fn a_panic_in_a_response_future_leaves_the_actor_alive() {
    run(async {
        let addr = Subject::default().start();
        assert_eq!(addr.send(CrashInFuture).await, Err(MailboxError::Closed));
        assert_eq!(addr.send(Work).await, Ok(()));
    });
}

#[test]
fn the_registry_hands_out_a_dead_address() {
    run(async {
        let first = Subject::from_registry();
        let _ = first.send(Crash).await;
        settle().await;
        let again = Subject::from_registry();
        assert!(!again.connected());
        assert_eq!(again.send(Work).await, Err(MailboxError::Closed));
    });
}

struct StopsAtOnce(usize);

impl Actor for StopsAtOnce {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Supervised for StopsAtOnce {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.0 += 1;
        if self.0 == 100_000 {
            std::process::exit(42);
        }
    }
}

#[test]
fn stop_in_started_under_actix_supervisor_never_yields() {
    if std::env::var_os(CHILD).is_some() {
        run(async {
            let _addr = Supervisor::start(|_| StopsAtOnce(0));
            settle().await;
            std::process::exit(0);
        });
    }
    let code = rerun("actix_facts::stop_in_started_under_actix_supervisor_never_yields").code();
    assert_eq!(code, Some(42), "100 000 restarts passed before any other task of the thread was polled");
}

struct PanicsTwice;

impl Actor for PanicsTwice {
    type Context = Context<Self>;
    fn stopped(&mut self, _: &mut Self::Context) {
        panic!("second panic");
    }
}

impl Handler<Crash> for PanicsTwice {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("first panic");
    }
}

#[test]
fn a_second_panic_in_the_hooks_aborts_the_process() {
    if std::env::var_os(CHILD).is_some() {
        run(async {
            let addr = PanicsTwice.start();
            let _ = addr.send(Crash).await;
            settle().await;
        });
        std::process::exit(7);
    }
    let status = rerun("actix_facts::a_second_panic_in_the_hooks_aborts_the_process");
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status:?}");
}

/// Runs one test of this binary in a process of its own, at most for a minute.
fn rerun(test: &str) -> std::process::ExitStatus {
    let binary = std::env::current_exe().expect("the test binary has a path");
    let mut child = Command::new(binary)
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the test binary runs");
    for _ in 0..600 {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return status;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = child.kill();
    panic!("{test} did not end within a minute");
}

/// An actor with a mailbox of one that is kept busy, so that nothing leaves the mailbox.
async fn busy(seen: &Seen) -> actix::Addr<Subject> {
    let subject = Subject(seen.clone());
    let addr = Subject::create(|ctx| {
        ctx.set_mailbox_capacity(1);
        ctx.wait(actix::fut::wrap_future(std::future::pending()));
        subject
    });
    settle().await;
    addr
}

#[test]
fn try_send_through_a_fresh_clone_is_never_full() {
    run(async {
        let addr = busy(&Seen::default()).await;
        let mut refused_by_one = false;
        for _ in 0..100 {
            assert!(addr.clone().try_send(Work).is_ok());
            refused_by_one |= addr.try_send(Work).is_err();
        }
        assert!(refused_by_one, "one and the same address does hear of the bound");
    });
}

#[test]
fn send_goes_past_the_capacity() {
    run(async {
        let addr = busy(&Seen::default()).await;
        let mut sends: Vec<_> = (0..100).map(|_| Box::pin(addr.send(Work))).collect();
        for send in &mut sends {
            assert!(futures_util::poll!(send).is_pending());
        }
        // All were enqueued at their first poll: an address that still honours the bound stays refused, and dropping
        // the requests takes nothing out again.
        drop(sends);
        settle().await;
        assert!(addr.try_send(Work).is_err());
    });
}

#[test]
fn a_flooded_mailbox_starves_timers() {
    const FLOOD: usize = 200;
    run(async {
        let seen = Seen::default();
        let subject = Subject(seen.clone());
        let addr = Subject::create(|ctx| {
            ctx.run_later(Duration::from_millis(1), |subject: &mut Subject, _| {
                let handled = subject.0.0.handled.load(Ordering::SeqCst);
                // 1 stands for a timer that fired before the first message was done.
                subject.0.0.timer_after.store(handled.max(1), Ordering::SeqCst);
            });
            subject
        });
        struct Slow;
        message!(Slow => ());
        impl Handler<Slow> for Subject {
            type Result = ();
            fn handle(&mut self, _: Slow, _: &mut Self::Context) {
                std::thread::sleep(Duration::from_millis(1));
                add(&self.0.0.handled);
            }
        }
        for _ in 0..FLOOD {
            addr.do_send(Slow);
        }
        while seen.0.timer_after.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            seen.0.timer_after.load(Ordering::SeqCst),
            FLOOD,
            "due after 1 ms, fired after the whole flood"
        );
    });
}

#[test]
fn system_stop_discards_queued_messages() {
    let seen = Seen::default();
    let system = System::new();
    let addr = system.block_on(async { Subject(seen.clone()).start() });
    system.block_on(async {
        addr.do_send(Work);
        addr.do_send(Pause(Duration::from_millis(20)));
        addr.do_send(Work);
        settle().await;
        System::current().stop();
    });
    assert!(system.run().is_ok());
    drop(addr);
    assert_eq!(seen.0.handled.load(Ordering::SeqCst), 1);
}

#[test]
fn run_interval_catches_up_in_a_burst() {
    let paused = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime can be built")
    };
    System::with_tokio_rt(paused).block_on(async {
        let seen = Seen::default();
        let addr = Subject(seen.clone()).start();
        assert_eq!(addr.send(Tick).await, Ok(()));
        settle().await;
        let before = clock::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        settle().await;
        assert_eq!(clock::now() - before, Duration::from_millis(100));
        assert_eq!(seen.0.ticks.load(Ordering::SeqCst), 10, "one stall, all missed ticks at one instant");
    });
}

#[test]
fn the_arbiter_of_a_panicked_actor_lives_on() {
    run(async {
        let arbiter = actix::Arbiter::new();
        let start = |seen: &Seen| {
            let seen = seen.clone();
            Subject::start_in_arbiter(&arbiter.handle(), move |_| Subject(seen))
        };
        let (doomed, calm) = (start(&Seen::default()), start(&Seen::default()));
        assert_eq!(doomed.send(Crash).await, Err(MailboxError::Closed));
        assert!(calm.send(Work).await.is_ok());
        assert!(arbiter.spawn_fn(|| {}), "it takes new work");
        arbiter.stop();
    });
}

#[test]
fn a_factory_that_panics_on_its_arbiter_leaves_the_caller_with_a_dead_address() {
    run(async {
        let arbiter = actix::Arbiter::new();
        let addr = Subject::start_in_arbiter(&arbiter.handle(), |_| panic!("in the factory"));
        assert_eq!(addr.send(Work).await, Err(MailboxError::Closed));
        arbiter.stop();
    });
}

/// An actor of a pool of threads.
struct Pooled;

impl Actor for Pooled {
    type Context = actix::SyncContext<Self>;
}

impl Handler<Crash> for Pooled {
    type Result = ();

    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("told to");
    }
}

impl Handler<Work> for Pooled {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Self::Context) {}
}

#[test]
fn a_sync_arbiter_does_not_replace_the_thread_it_loses() {
    run(async {
        let pool = actix::SyncArbiter::start(1, || Pooled);
        assert_eq!(pool.send(Work).await, Ok(()));
        let _ = tokio::time::timeout(Duration::from_secs(5), pool.send(Crash)).await;
        for _ in 0..2 {
            let after = tokio::time::timeout(Duration::from_millis(500), pool.send(Work)).await;
            assert!(!matches!(after, Ok(Ok(()))), "{after:?}");
        }
    });
}
