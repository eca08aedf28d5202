//! Lanes and ports: bounds in count and bytes, waiting and shedding, order, poison, fencing, closing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use obtrace::supervisors::kernel::lane::{Cargo, Lane, LaneView};
use obtrace::supervisors::kernel::policy::{LanePolicy, Overflow};
use obtrace::supervisors::kernel::port::{PortError, Reply};
use obtrace::supervisors::kernel::probe::Probe;

use crate::support::{Job, Trace, bounds, ms, paused};

const KIB: usize = 1024;

fn job(id: u32, bytes: usize) -> Job {
    Job { bytes, ..Job::new(id) }
}

#[test]
fn a_sender_waits_for_room_and_gets_it() {
    paused(async {
        let lane = Lane::new("l", bounds(1, 64 * KIB, 3));
        let port = lane.port();
        port.send(Job::new(1), ms(10)).await.unwrap();
        let waiting = port.clone();
        let second = actix_rt::spawn(async move { waiting.send(Job::new(2), Duration::from_secs(60)).await });
        tokio::time::sleep(ms(100)).await;
        assert!(!second.is_finished());
        let mut inbox = lane.inbox(Probe::detached());
        let lease = inbox.next().await.unwrap();
        tokio::time::sleep(ms(100)).await;
        assert!(!second.is_finished(), "a message in hand is still resident");
        assert!(lease.ack());
        assert_eq!(second.await.unwrap(), Ok(()));
        assert_eq!(inbox.next().await.unwrap().id, 2);
    });
}

#[test]
fn a_sender_gives_up_at_its_deadline_and_a_shedding_lane_refuses_at_once() {
    paused(async {
        let lane = Lane::new("l", bounds(1, 64 * KIB, 3));
        lane.port().try_send(Job::new(1)).unwrap();
        let before = obtrace::clock::now();
        assert_eq!(lane.port().send(Job::new(2), ms(500)).await, Err(PortError::Full));
        assert!(obtrace::clock::now() - before >= ms(500));

        let lane = Lane::new("l", LanePolicy { overflow: Overflow::ShedNewest, ..bounds(1, 64 * KIB, 3) });
        lane.port().try_send(Job::new(1)).unwrap();
        let before = obtrace::clock::now();
        assert_eq!(lane.port().send(Job::new(2), ms(500)).await, Err(PortError::Full));
        assert_eq!(obtrace::clock::now(), before);
        assert_eq!(lane.stats().shed, 1);
    });
}

#[test]
fn bytes_bound_a_lane_as_well_as_messages_and_a_large_one_passes_alone() {
    paused(async {
        let lane = Lane::new("l", bounds(100, 8 * KIB, 3));
        let port = lane.port();
        port.try_send(job(1, 5 * KIB)).unwrap();
        assert_eq!(port.try_send(job(2, 4 * KIB)), Err(PortError::Full));
        port.try_send(job(3, 3 * KIB)).unwrap();
        assert_eq!(lane.stats().bytes, 8 * KIB);

        let mut inbox = lane.inbox(Probe::detached());
        let huge = port.send(job(4, 900 * KIB), Duration::from_secs(9));
        let drain = async {
            assert!(inbox.next().await.unwrap().ack());
            assert_eq!(lane.stats().queued, 1, "the large one waits until it has the lane for itself");
            assert!(inbox.next().await.unwrap().ack());
        };
        assert_eq!(tokio::join!(huge, drain).0, Ok(()));
        assert_eq!(lane.stats().bytes, 8 * KIB);
        assert_eq!(port.try_send(job(5, 1)), Err(PortError::Full));
        let lease = inbox.next().await.unwrap();
        assert_eq!(lease.id, 4);
        assert!(lease.ack());
        port.try_send(job(5, 1)).unwrap();
    });
}

#[test]
fn an_abandoned_send_takes_no_room() {
    paused(async {
        let lane = Lane::new("l", bounds(2, 4 * KIB, 3));
        let port = lane.port();
        port.try_send(job(1, 4 * KIB)).unwrap();
        {
            // Holds a slot already and waits for bytes.
            let mut pending = Box::pin(port.send(job(2, KIB), Duration::from_secs(9)));
            assert!(futures_util::poll!(&mut pending).is_pending());
        }
        assert!(lane.inbox(Probe::detached()).next().await.unwrap().ack());
        port.try_send(job(3, 2 * KIB)).unwrap();
        port.try_send(job(4, 2 * KIB)).unwrap();
    });
}

#[test]
fn credits_bound_what_one_actor_has_in_hand() {
    paused(async {
        let lane = Lane::new("l", LanePolicy { credits: 2, ..bounds(9, 64 * KIB, 3) });
        (1..=3).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        let mut inbox = lane.inbox(Probe::detached());
        let first = inbox.next().await.unwrap();
        let _second = inbox.next().await.unwrap();
        assert!(inbox.next().now_or_never().is_none());
        let next = actix_rt::spawn(async move { inbox.next().await.unwrap().id });
        tokio::time::sleep(ms(1)).await;
        assert!(first.ack());
        assert_eq!(next.await.unwrap(), 3, "an acknowledgement wakes the inbox");
    });
}

#[test]
fn redelivery_keeps_the_order_of_arrival() {
    paused(async {
        let lane = Lane::new("l", LanePolicy { credits: 3, ..bounds(9, 64 * KIB, 9) });
        (1..=4).for_each(|id| lane.port().try_send(Job::new(id)).unwrap());
        let mut inbox = lane.inbox(Probe::detached());
        let (one, two, three) =
            (inbox.next().await.unwrap(), inbox.next().await.unwrap(), inbox.next().await.unwrap());
        drop(one);
        drop(three);
        assert!(two.ack());
        let mut seen = Vec::new();
        for _ in 0..3 {
            let lease = inbox.next().await.unwrap();
            seen.push((lease.id, lease.attempts()));
            assert!(lease.ack());
        }
        assert_eq!(seen, [(1, 1), (3, 1), (4, 0)]);
    });
}

#[test]
fn the_last_attempt_takes_the_poison_path_and_returns_the_room() {
    paused(async {
        let trace = Trace::default();
        let lane = Lane::new("l", bounds(1, KIB, 2));
        lane.port().try_send(Job::traced(7, &trace)).unwrap();
        let mut inbox = lane.inbox(Probe::detached());
        drop(inbox.next().await.unwrap());
        assert!(trace.take().is_empty());
        drop(inbox.next().await.unwrap());
        assert_eq!(trace.take(), ["poisoned 7 after 2"]);
        let stats = lane.stats();
        assert_eq!((stats.poisoned, stats.redelivered, stats.queued, stats.bytes), (1, 2, 0, 0));
        lane.port().try_send(Job::new(8)).unwrap();
    });
}

#[test]
fn a_poison_path_that_panics_while_a_panic_unwinds_does_not_abort_the_process() {
    struct Nasty;
    impl Cargo for Nasty {
        fn weight(&self) -> usize {
            1
        }
        fn poisoned(&self, _: u32) {
            panic!("second panic");
        }
    }
    paused(async {
        let lane = Lane::new("l", bounds(1, KIB, 1));
        lane.port().try_send(Nasty).unwrap();
        let lease = lane.inbox(Probe::detached()).next().await.unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _lease = lease;
            panic!("first panic");
        }));
        assert!(caught.is_err());
        lane.port().try_send(Nasty).unwrap();
    });
}

#[test]
fn a_closed_lane_refuses_wakes_its_senders_and_hands_out_the_rest() {
    paused(async {
        let lane = Lane::new("l", bounds(1, 64 * KIB, 3));
        lane.port().try_send(Job::new(1)).unwrap();
        let port = lane.port();
        let waiting = actix_rt::spawn(async move { port.send(Job::new(2), Duration::from_secs(60)).await });
        let mut inbox = lane.inbox(Probe::detached());
        tokio::time::sleep(ms(1)).await;
        lane.close();
        assert_eq!(waiting.await.unwrap(), Err(PortError::Draining));
        assert_eq!(lane.port().try_send(Job::new(3)), Err(PortError::Draining));
        assert_eq!(lane.port().send(Job::new(3), ms(1)).await, Err(PortError::Draining));
        let lease = inbox.next().await.unwrap();
        assert!(inbox.next().now_or_never().is_none(), "not at its end while something is in hand");
        drop(lease);
        assert!(inbox.next().await.unwrap().ack());
        assert!(inbox.next().await.is_none());
    });
}

#[test]
fn an_answer_comes_back_and_a_lost_message_is_told_from_a_slow_one() {
    struct Question(Reply<u32>);
    impl Cargo for Question {
        fn weight(&self) -> usize {
            1
        }
        fn poisoned(&self, _: u32) {}
    }
    paused(async {
        let lane: Lane<Question> = Lane::new("l", bounds(4, 64 * KIB, 1));
        let port = lane.port();
        let mut inbox = lane.inbox(Probe::detached());
        let answer = async {
            let lease = inbox.next().await.unwrap();
            assert!(lease.0.send(42) && !lease.0.send(43));
            assert!(lease.ack());
        };
        assert_eq!(tokio::join!(port.ask(Question, ms(10)), answer).0, Ok(42));
        let lose = async { drop(inbox.next().await.unwrap()) };
        assert_eq!(tokio::join!(port.ask(Question, ms(10)), lose).0, Err(PortError::Gone));
        assert_eq!(port.ask(Question, ms(10)).await, Err(PortError::NoAnswer));
        assert!(inbox.next().await.unwrap().0.is_abandoned());
    });
}

#[test]
fn many_threads_send_and_crash_and_every_message_is_settled_once() {
    const SENDERS: u32 = 4;
    const EACH: u32 = 500;
    let lane = Lane::new("l", LanePolicy { credits: 4, ..bounds(8, 64 * KIB, u32::MAX) });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    let acked = runtime.block_on(async {
        for sender in 0..SENDERS {
            let port = lane.port();
            tokio::spawn(async move {
                for n in 0..EACH {
                    port.send(Job::new(sender * EACH + n), Duration::from_secs(60)).await.unwrap();
                }
            });
        }
        let readers: Vec<_> = (0..3_u32)
            .map(|reader| {
                let lane = lane.clone();
                tokio::spawn(async move {
                    let mut acked = Vec::new();
                    let mut turn = reader;
                    while let Ok(Some(lease)) =
                        tokio::time::timeout(Duration::from_secs(2), next_of(&lane)).await
                    {
                        turn += 1;
                        let stats = lane.stats();
                        assert!(stats.queued + stats.leased <= 8, "{stats:?}");
                        match turn % 5 {
                            0 => drop(lease),
                            _ => {
                                acked.push(lease.id);
                                assert!(lease.ack());
                            }
                        }
                    }
                    acked
                })
            })
            .collect();
        let mut all = Vec::new();
        for reader in readers {
            all.extend(reader.await.unwrap());
        }
        all
    });
    let mut once = acked.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((acked.len(), once.len()), ((SENDERS * EACH) as usize, (SENDERS * EACH) as usize));
    let stats = lane.stats();
    assert_eq!((stats.queued, stats.leased, stats.bytes), (0, 0, 0));
}

#[test]
fn a_message_that_meets_the_closing_of_its_lane_is_refused_and_not_lost() {
    /// Closes its lane between the sender's look at the lane and its taking of room.
    struct Closer(Arc<OnceLock<Lane<Closer>>>);
    impl Cargo for Closer {
        fn weight(&self) -> usize {
            self.0.get().unwrap().close();
            1
        }
        fn poisoned(&self, _: u32) {}
    }
    let slot = Arc::new(OnceLock::new());
    let lane = slot.get_or_init(|| Lane::new("l", bounds(1, KIB, 3))).clone();
    assert_eq!(lane.port().try_send(Closer(slot.clone())), Err(PortError::Draining));
    assert_eq!((lane.stats().sent, lane.stats().queued), (0, 0), "its inbox may have ended already");
}

/// One lease through an inbox of its own, as an actor that lives for one message.
async fn next_of(lane: &Lane<Job>) -> Option<obtrace::supervisors::kernel::lane::Lease<Job>> {
    lane.inbox(Probe::detached()).next().await
}
