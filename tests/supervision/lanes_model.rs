//! A lane against a model: random sends, leases, acknowledgements, crashes and fencings; the books must always close.

use futures_util::{FutureExt, StreamExt};
use obtrace::supervisors::kernel::generation::Generations;
use obtrace::supervisors::kernel::lane::{Inbox, Lane, LaneView, Lease};
use obtrace::supervisors::kernel::policy::LanePolicy;
use obtrace::supervisors::kernel::port::PortError;
use obtrace::supervisors::kernel::probe::Probe;
use proptest::prelude::*;

use crate::support::{Job, Trace, bounds};

const CAPACITY: usize = 4;
const UNITS: usize = 8;
const ATTEMPTS: u32 = 3;
const CREDITS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Op {
    Send { kib: usize },
    Take,
    Ack { which: usize },
    Drop { which: usize },
    Fence,
    AckZombie { which: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0_usize..12).prop_map(|kib| Op::Send { kib }),
        4 => Just(Op::Take),
        2 => (0_usize..4).prop_map(|which| Op::Ack { which }),
        2 => (0_usize..4).prop_map(|which| Op::Drop { which }),
        1 => Just(Op::Fence),
        1 => (0_usize..4).prop_map(|which| Op::AckZombie { which }),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: u32,
    units: usize,
    attempts: u32,
}

/// The lane as it should be: what waits in order of arrival, what is in hand, what became of the rest.
#[derive(Default)]
struct Model {
    queue: Vec<Entry>,
    hand: Vec<Entry>,
    poisoned: Vec<u32>,
    acked: u64,
}

impl Model {
    fn resident(&self) -> (usize, usize) {
        let all = || self.queue.iter().chain(&self.hand);
        (all().count(), all().map(|entry| entry.units).sum())
    }

    fn give_back(&mut self, mut entry: Entry) {
        entry.attempts += 1;
        if entry.attempts >= ATTEMPTS {
            self.poisoned.push(entry.id);
        } else {
            let at = self.queue.iter().position(|other| other.id > entry.id).unwrap_or(self.queue.len());
            self.queue.insert(at, entry);
        }
    }
}

struct Run {
    lane: Lane<Job>,
    model: Model,
    generations: Generations,
    inbox: Inbox<Job>,
    hand: Vec<Lease<Job>>,
    zombies: Vec<Lease<Job>>,
    trace: Trace,
    ids: u32,
}

impl Run {
    fn new() -> Self {
        let policy = LanePolicy { credits: CREDITS, ..bounds(CAPACITY, UNITS * 1024, ATTEMPTS) };
        let lane = Lane::new("model", policy);
        let generations = Generations::default();
        let inbox = lane.inbox(Probe::for_generation(generations.advance()));
        let (hand, zombies, model) = (Vec::new(), Vec::new(), Model::default());
        Self { lane, model, generations, inbox, hand, zombies, trace: Trace::default(), ids: 0 }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Send { kib } => self.send(kib),
            Op::Take => self.take(),
            Op::Ack { which } if which < self.hand.len() => {
                assert!(self.hand.remove(which).ack());
                self.model.hand.remove(which);
                self.model.acked += 1;
            }
            Op::Drop { which } if which < self.hand.len() => {
                drop(self.hand.remove(which));
                let entry = self.model.hand.remove(which);
                self.model.give_back(entry);
            }
            Op::Fence => self.fence(),
            Op::AckZombie { which } if which < self.zombies.len() => {
                assert!(!self.zombies.remove(which).ack(), "a zombie's acknowledgement must not count");
            }
            Op::Ack { .. } | Op::Drop { .. } | Op::AckZombie { .. } => {}
        }
        self.check();
    }

    fn send(&mut self, kib: usize) {
        let units = kib.clamp(1, UNITS);
        let (count, resident) = self.model.resident();
        let fits = count < CAPACITY && resident + units <= UNITS;
        let job = Job { id: self.ids, bytes: kib * 1024, trace: self.trace.clone() };
        let sent = self.lane.port().try_send(job);
        assert_eq!(sent, if fits { Ok(()) } else { Err(PortError::Full) });
        if fits {
            self.model.queue.push(Entry { id: self.ids, units, attempts: 0 });
            self.ids += 1;
        }
    }

    fn take(&mut self) {
        let taken = self.inbox.next().now_or_never().flatten();
        let may = self.hand.len() < CREDITS && !self.model.queue.is_empty();
        assert_eq!(taken.is_some(), may);
        if let Some(lease) = taken {
            let entry = self.model.queue.remove(0);
            assert_eq!((lease.id, lease.attempts()), (entry.id, entry.attempts));
            self.hand.push(lease);
            self.model.hand.push(entry);
        }
    }

    /// A successor takes over while the predecessor still holds its leases.
    fn fence(&mut self) {
        let successor = self.generations.advance();
        assert_eq!(self.lane.revoke(true), self.hand.len());
        for entry in std::mem::take(&mut self.model.hand) {
            self.model.give_back(entry);
        }
        assert!(self.inbox.next().now_or_never().flatten().is_none(), "a fenced inbox hands nothing out");
        self.zombies.append(&mut self.hand);
        self.inbox = self.lane.inbox(Probe::for_generation(successor));
    }

    fn check(&self) {
        let stats = self.lane.stats();
        let (count, units) = self.model.resident();
        assert_eq!((stats.queued, stats.leased), (self.model.queue.len(), self.model.hand.len()));
        assert_eq!((stats.queued + stats.leased, stats.bytes), (count, units * 1024));
        assert!(count <= CAPACITY && stats.bytes <= UNITS * 1024);
        assert_eq!((stats.acked, stats.poisoned), (self.model.acked, self.model.poisoned.len() as u64));
        assert_eq!(
            u64::from(self.ids),
            stats.acked + stats.poisoned + count as u64,
            "received = done + resident"
        );
    }

    /// Settles everything and proves that every permit came back: the whole lane can be filled again.
    fn finish(mut self) {
        self.zombies.clear();
        self.hand.drain(..).for_each(|lease| assert!(lease.ack()));
        while let Some(Some(lease)) = self.inbox.next().now_or_never() {
            assert!(lease.ack());
        }
        let poisoned: Vec<String> =
            self.model.poisoned.iter().map(|id| format!("poisoned {id} after {ATTEMPTS}")).collect();
        let mut told = self.trace.take();
        let mut expected = poisoned;
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
        let fill = |bytes: usize| Job { bytes, ..Job::new(u32::MAX) };
        for _ in 0..CAPACITY {
            self.lane.port().try_send(fill(UNITS / CAPACITY * 1024)).expect("all permits are back");
        }
        assert_eq!(self.lane.stats().bytes, UNITS * 1024);
    }
}

proptest! {
    #[test]
    fn the_books_of_a_lane_always_close(ops in proptest::collection::vec(op(), 1..300)) {
        let mut run = Run::new();
        for op in ops {
            run.step(op);
        }
        run.finish();
    }
}
