//! Stalled children: who holds work and makes no progress is aborted and started anew, who is idle or waits is not.

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Message, ResponseFuture};
use obtrace::supervisors::kernel::child_ref::ChildRef;
use obtrace::supervisors::kernel::lane::{Lane, LaneView};
use obtrace::supervisors::kernel::policy::{LanePolicy, LivenessPolicy, Policy};
use obtrace::supervisors::kernel::port::PortError;
use obtrace::supervisors::kernel::seat::{Handle, Seated, Worker};
use obtrace::supervisors::kernel::snapshot::ChildState;
use obtrace::supervisors::kernel::spec::ChildSpec;
use parking_lot::Mutex;

use crate::support::{Job, Rig, Script, Trace, lane, ms, pass, paused, policy, puppet};

const STALL: Duration = Duration::from_secs(15);
const WAIT: Duration = Duration::from_secs(120);

fn watched() -> Policy {
    Policy { liveness: LivenessPolicy { stall_after: STALL, wait_after: WAIT }, ..policy() }
}

/// Never comes to an end with its first delivery of a message.
fn hangs() -> Script {
    Script::default().consume(|lease, ctx| {
        if lease.attempts() > 0 {
            assert!(lease.ack());
            return;
        }
        ctx.spawn(actix::fut::wrap_future(async move {
            let _held = lease;
            std::future::pending::<()>().await;
        }));
    })
}

#[test]
fn a_lease_without_progress_stalls_the_child_and_its_successor_gets_the_message() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        let rig =
            Rig::up(policy(), vec![puppet("hand", watched(), &trace, hangs()).reads(&lane).build()]).await;
        pass(Duration::from_secs(3600)).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(STALL - ms(100)).await;
        assert_eq!((rig.node("hand").restarts, lane.stats().leased), (0, 1));
        pass(STALL / 4 + ms(300)).await;
        let node = rig.node("hand");
        assert_eq!((node.state, node.restarts), (ChildState::Running, 1));
        assert_eq!(node.last_failure.as_deref(), Some("stalled"));
        assert_eq!(trace.take(), ["+hand", "hand got 1#1", "-hand", "+hand", "hand got 1#2"]);
        assert_eq!((lane.stats().acked, lane.stats().redelivered), (1, 1));
        rig.stop().await;
    });
}

#[test]
fn a_child_that_is_idle_or_slow_with_progress_is_never_stalled() {
    paused(async {
        let (trace, jobs) = (Trace::default(), lane("slow"));
        let slow = Script::default().consume(|lease, ctx| {
            ctx.spawn(actix::fut::wrap_future(async move {
                tokio::time::sleep(STALL - Duration::from_secs(1)).await;
                assert!(lease.ack());
            }));
        });
        let children = vec![
            puppet("idle", watched(), &trace, Script::default()).reads(&lane("idle")).build(),
            puppet("slow", watched(), &trace, slow).reads(&jobs).build(),
        ];
        let rig = Rig::up(policy(), children).await;
        (0..20).for_each(|id| jobs.port().try_send(Job::new(id)).unwrap());
        pass(Duration::from_secs(3600)).await;
        assert_eq!((rig.node("idle").restarts, rig.node("slow").restarts), (0, 0));
        assert_eq!(jobs.stats().acked, 20);
        rig.stop().await;
    });
}

#[test]
fn a_declared_wait_may_take_longer_but_not_for_ever() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("waits"));
        let script = Script::default().consume(|lease, ctx| {
            ctx.spawn(actix::fut::wrap_future(async move {
                // The second message is waited for ever for, at its first delivery.
                let wait = lease.wait();
                match (lease.id, lease.attempts()) {
                    (2, 0) => std::future::pending().await,
                    _ => tokio::time::sleep(Duration::from_secs(100)).await,
                }
                drop(wait);
                assert!(lease.ack());
            }));
        });
        let rig =
            Rig::up(policy(), vec![puppet("waits", watched(), &trace, script).reads(&lane).build()]).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(Duration::from_secs(101)).await;
        assert_eq!((rig.node("waits").restarts, lane.stats().acked), (0, 1));
        lane.port().try_send(Job::new(2)).unwrap();
        pass(WAIT - Duration::from_secs(1)).await;
        assert_eq!(rig.node("waits").restarts, 0);
        pass(Duration::from_secs(10)).await;
        assert_eq!(rig.node("waits").restarts, 1);
        pass(Duration::from_secs(101)).await;
        assert_eq!((rig.node("waits").restarts, lane.stats().acked), (1, 2));
        rig.stop().await;
    });
}

#[test]
fn asking_another_actor_is_a_declared_wait_and_each_answer_is_progress() {
    paused(async {
        use obtrace::supervisors::kernel::lane::Cargo;
        use obtrace::supervisors::kernel::port::Reply;

        struct Ask(Reply<()>);
        impl Cargo for Ask {
            fn weight(&self) -> usize {
                1
            }
            fn poisoned(&self, _: u32) {}
        }
        let (trace, jobs) = (Trace::default(), lane("asks"));
        let slow: Lane<Ask> = Lane::new("slow", policy().lane);
        let port = slow.port();
        // Answers each question after a time that would be a stall, but for the wait.
        let mut questions = slow.inbox(obtrace::supervisors::kernel::probe::Probe::detached());
        actix_rt::spawn(async move {
            use futures_util::StreamExt;
            while let Some(question) = questions.next().await {
                tokio::time::sleep(Duration::from_secs(60)).await;
                question.0.send(());
                question.ack();
            }
        });
        let script = Script::default().consume(move |lease, ctx| {
            let port = port.clone();
            ctx.spawn(actix::fut::wrap_future(async move {
                for _ in 0..10 {
                    port.ask(Ask, Duration::from_secs(90)).await.unwrap();
                }
                assert!(lease.ack());
            }));
        });
        let rig =
            Rig::up(policy(), vec![puppet("asks", watched(), &trace, script).reads(&jobs).build()]).await;
        jobs.port().try_send(Job::new(1)).unwrap();
        pass(Duration::from_secs(601)).await;
        assert_eq!((rig.node("asks").restarts, jobs.stats().acked), (0, 1));
        rig.stop().await;
    });
}

#[test]
fn zero_switches_the_detection_off() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        let liveness = LivenessPolicy { stall_after: Duration::ZERO, wait_after: WAIT };
        let off = Policy { liveness, ..policy() };
        let rig = Rig::up(policy(), vec![puppet("hand", off, &trace, hangs()).reads(&lane).build()]).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(Duration::from_secs(3600)).await;
        assert_eq!((rig.node("hand").restarts, lane.stats().leased), (0, 1));
        assert_eq!(rig.stop().await.forced, ["hand"]);
    });
}

#[test]
fn what_had_passed_comes_back_without_blame_and_the_rest_with() {
    paused(async {
        let trace = Trace::default();
        let lane = Lane::new("hand", LanePolicy { credits: 2, max_attempts: 1, ..policy().lane });
        let script = Script::default().consume(|lease, ctx| {
            if lease.id == 1 {
                lease.passed();
            }
            if lease.id != 1 || lease.generation().number() == 1 {
                ctx.spawn(actix::fut::wrap_future(async move {
                    let _held = lease;
                    std::future::pending::<()>().await;
                }));
            } else {
                assert!(lease.ack());
            }
        });
        let rig =
            Rig::up(policy(), vec![puppet("hand", watched(), &trace, script).reads(&lane).build()]).await;
        lane.port().try_send(Job::traced(1, &trace)).unwrap();
        lane.port().try_send(Job::traced(2, &trace)).unwrap();
        pass(STALL * 2).await;
        assert_eq!((lane.stats().acked, lane.stats().poisoned), (1, 1));
        assert_eq!(trace.count("poisoned 2 after 1"), 1);
        rig.stop().await;
    });
}

/// Takes a question and never answers it.
struct Mute;

struct Question;

impl Message for Question {
    type Result = ();
}

impl Worker for Mute {}

impl Handle<Question> for Mute {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Question, _: &mut Seated<Self>) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_control_message_without_answer_stalls_the_child_as_well() {
    paused(async {
        let known = ChildRef::default();
        let mute = ChildSpec::worker("mute", watched(), |_| Mute).known_as(&known).build();
        let rig = Rig::up(policy(), vec![mute]).await;
        let asks = known.clone();
        let asked = actix_rt::spawn(async move { asks.ask(Question, Duration::from_secs(300)).await });
        pass(STALL - ms(100)).await;
        assert_eq!(rig.node("mute").restarts, 0);
        pass(STALL / 4 + ms(300)).await;
        assert_eq!((rig.node("mute").restarts, rig.state("mute")), (1, ChildState::Running));
        drop(asked);
        pass(Duration::from_secs(600)).await;
        assert_eq!(rig.node("mute").restarts, 1, "nobody asks any more");
        assert_eq!(known.ask(Question, ms(10)).await, Err(PortError::NoAnswer));
        rig.stop().await;
    });
}

#[test]
fn what_a_stalled_one_does_later_is_fenced_and_counted() {
    paused(async {
        let (trace, lane) = (Trace::default(), lane("hand"));
        let verdicts = Arc::new(Mutex::new(Vec::new()));
        let said = verdicts.clone();
        // Detached work outlives the abort of its actor.
        let script = Script::default().consume(move |lease, _| {
            let said = said.clone();
            actix_rt::spawn(async move {
                if lease.attempts() == 0 {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    let current = lease.is_current();
                    said.lock().push((current, lease.ack()));
                } else {
                    assert!(lease.ack());
                }
            });
        });
        let rig =
            Rig::up(policy(), vec![puppet("hand", watched(), &trace, script).reads(&lane).build()]).await;
        lane.port().try_send(Job::new(1)).unwrap();
        pass(Duration::from_secs(120)).await;
        assert_eq!(*verdicts.lock(), [(false, false)]);
        let stats = lane.stats();
        assert_eq!((stats.acked, stats.fenced, stats.redelivered, rig.node("hand").restarts), (1, 1, 1, 1));
        rig.stop().await;
    });
}

#[test]
fn a_first_stall_spends_the_budget_like_any_bug() {
    paused(async {
        let (trace, jobs) = (Trace::default(), lane("hand"));
        let always = Script::default().consume(|lease, ctx| {
            ctx.spawn(actix::fut::wrap_future(async move {
                let _held = lease;
                std::future::pending::<()>().await;
            }));
        });
        let strict = Policy { intensity: 0, ..policy() };
        let hand = puppet("hand", watched(), &trace, always).reads(&jobs).build();
        let mut rig = Rig::up(strict, vec![hand]).await;
        jobs.port().try_send(Job::new(1)).unwrap();
        let reason = rig.tree().failed().await;
        assert!(reason.to_string().contains("hand: more than 0 restarts"), "{reason}");
        rig.stop().await;
    });
}
