//! The journal of the tree: what happened to which child, in one order for the whole process.
//!
//! In: events from supervisors, probes and lanes, on any thread. Out: the newest [`KEPT`] of them for whoever asks or
//! waits. It is a ring: recording never waits and never fails, and a reader that is too slow is told how much it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::control::Action;
use super::exit::ExitReason;
use crate::clock;

/// Events kept.
pub const KEPT: usize = 1024;

/// One thing that happened to one child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEvent {
    /// Number in the order of the whole process, from 1, without gaps.
    pub seq: u64,
    /// When, as Unix nanoseconds.
    pub at_unix_ns: u64,
    /// Path of the child; empty for the root.
    pub path: String,
    /// Its incarnation; 0 before the first.
    pub generation: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen to a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// An incarnation was started.
    Launched,
    /// It can do its work.
    Ready,
    /// It ended.
    Exited {
        /// [`ExitReason::label`].
        reason: String,
        /// The failure class; none for an orderly end.
        class: Option<String>,
        /// The reason in full, for a reader.
        detail: String,
    },
    /// It will be started again.
    RestartPlanned {
        /// Wait until then.
        after_ms: u64,
    },
    /// It failed too often and was put aside.
    Quarantined {
        /// Wait until it is tried again.
        after_ms: u64,
    },
    /// It is tried again after a quarantine.
    Probing,
    /// Its failure is handed up: its supervisor stops everything below it and fails.
    Escalated {
        /// Why.
        why: String,
    },
    /// Something that it depends on is down.
    Degraded {
        /// What.
        cause: String,
    },
    /// What was down is back.
    Recovered,
    /// It has work in hand and made no progress.
    Stalled {
        /// For how long.
        for_ms: u64,
    },
    /// Its thread was given up.
    Condemned {
        /// Number of the arbiter.
        arbiter: u64,
    },
    /// It was asked to finish up.
    Draining,
    /// It is down and stays so.
    Stopped,
    /// It did not finish in time and was aborted.
    Forced,
    /// A message in its hands failed too often and took the poison path.
    Poisoned {
        /// Deliveries that failed.
        attempts: u32,
    },
    /// A message in its hands failed too often and was dropped, as its lane's policy has it.
    Dropped {
        /// Deliveries that failed.
        attempts: u32,
        /// The message in its own words.
        message: String,
    },
    /// The circuit breaker in front of its dependency changed.
    Breaker {
        /// Into which state.
        state: String,
    },
    /// It takes no more work until it is resumed.
    Paused,
    /// It takes work again.
    Resumed,
    /// An operator ordered something.
    Action {
        /// What.
        action: Action,
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
    /// An operator did something to the data that the child keeps, beside the orders of [`EventKind::Action`].
    Operated {
        /// What, in a few words.
        what: String,
        /// Who.
        who: String,
    },
    /// An operator's new policy took effect.
    PolicyApplied {
        /// Which keys differ from before.
        keys: Vec<String>,
    },
}

impl EventKind {
    pub(super) fn exited(reason: &ExitReason) -> Self {
        Self::Exited {
            reason: reason.label().to_owned(),
            class: reason.class().map(|class| class.as_str().to_owned()),
            detail: reason.to_string(),
        }
    }
}

/// The journal. Clones are handles of the same ring; any thread may record and read.
///
/// ```
/// use obtrace::supervisors::kernel::journal::{EventKind, Journal};
///
/// let journal = Journal::default();
/// journal.record("store.writer.1", 1, EventKind::Launched);
/// journal.record("store.writer.1", 1, EventKind::Ready);
/// assert_eq!(journal.recent(1)[0].kind, EventKind::Ready);
/// let (news, missed) = journal.after(1);
/// assert_eq!((news.len(), news[0].seq, missed), (1, 2, 0));
/// ```
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    newest: u64,
    events: VecDeque<TreeEvent>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { ring: Mutex::default(), newest: watch::Sender::new(0) }) }
    }
}

impl Journal {
    /// Writes an event down; the oldest one falls out where the ring is full.
    pub fn record(&self, path: &str, generation: u64, kind: EventKind) {
        let mut ring = self.inner.ring.lock();
        ring.newest += 1;
        let seq = ring.newest;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        let path = path.to_owned();
        ring.events.push_back(TreeEvent { seq, at_unix_ns: clock::unix_nanos(), path, generation, kind });
        // Still under the lock, so that the number a waiter sees never goes back.
        self.inner.newest.send_replace(seq);
    }

    /// The newest events, at most `most`, oldest of them first.
    pub fn recent(&self, most: usize) -> Vec<TreeEvent> {
        let ring = self.inner.ring.lock();
        ring.events.iter().skip(ring.events.len().saturating_sub(most)).cloned().collect()
    }

    /// Every event after number `seq` that is still kept, and how many after it are not.
    pub fn after(&self, seq: u64) -> (Vec<TreeEvent>, u64) {
        let ring = self.inner.ring.lock();
        let oldest = ring.events.front().map_or(ring.newest + 1, |event| event.seq);
        let missed = oldest.saturating_sub(seq.saturating_add(1));
        let known = usize::try_from(seq.saturating_add(1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        (ring.events.iter().skip(known).cloned().collect(), missed)
    }

    /// Number of the newest event; 0 before the first.
    pub fn newest(&self) -> u64 {
        *self.inner.newest.borrow()
    }

    /// Resolves as soon as there is an event after number `seq`.
    pub async fn wait_past(&self, seq: u64) {
        let mut newest = self.inner.newest.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = newest.wait_for(|newest| *newest > seq).await;
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({} events)", self.newest())
    }
}

/// Writes about one child into the journal.
#[derive(Debug, Clone)]
pub(super) struct Scribe {
    path: Arc<str>,
    journal: Journal,
}

impl Scribe {
    pub(super) fn new(path: Arc<str>, journal: Journal) -> Self {
        Self { path, journal }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn note(&self, generation: u64, kind: EventKind) {
        self.journal.record(&self.path, generation, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(events: u64) -> Journal {
        let journal = Journal::default();
        (0..events).for_each(|n| journal.record("a", n, EventKind::Launched));
        journal
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told_what_it_missed() {
        let journal = filled(KEPT as u64 + 10);
        let (events, missed) = journal.after(0);
        assert_eq!((events.len(), events[0].seq, missed), (KEPT, 11, 10));
        assert_eq!(journal.after(10).1, 0);
        assert_eq!(journal.after(5).1, 5);
        let (events, missed) = journal.after(KEPT as u64 + 8);
        assert_eq!((events.iter().map(|event| event.seq).collect::<Vec<_>>(), missed), (vec![1033, 1034], 0));
        assert_eq!(journal.after(u64::MAX), (vec![], 0));
        assert_eq!(Journal::default().after(0), (vec![], 0));
        assert_eq!(journal.recent(2)[1].seq, journal.newest());
        assert_eq!(journal.recent(usize::MAX).len(), KEPT);
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_next_event_and_not_by_an_old_one() {
        let journal = filled(3);
        journal.wait_past(2).await;
        let mut next = std::pin::pin!(journal.wait_past(3));
        assert!(futures_util::poll!(&mut next).is_pending());
        journal.record("a", 1, EventKind::Ready);
        next.await;
    }

    #[test]
    fn an_event_keeps_its_shape() {
        let kind = EventKind::Action { action: Action::Restart, who: "ann".into(), why: "new key".into() };
        let event = TreeEvent { seq: 7, at_unix_ns: 5, path: "serve.http".into(), generation: 2, kind };
        let shown = serde_json::to_string(&event).unwrap();
        assert_eq!(
            shown,
            r#"{"seq":7,"at_unix_ns":5,"path":"serve.http","generation":2,"event":"action","action":"restart","who":"ann","why":"new key"}"#
        );
        assert_eq!(serde_json::from_str::<TreeEvent>(&shown).unwrap(), event);
        let kind = EventKind::exited(&ExitReason::Stalled);
        let shown = serde_json::to_string(&TreeEvent { kind, ..event }).unwrap();
        assert!(
            shown.ends_with(r#""event":"exited","reason":"stalled","class":"bug","detail":"stalled"}"#),
            "{shown}"
        );
    }
}
