//! A member of a consumer group: holds partitions for this process, and commits for those it holds.
//!
//! It fetches nothing (the [`fetcher`](super::fetcher) does). Its thread polls, so that the group sees it alive whatever
//! the consumers do. When partitions go to another process, they leave the set that is shown ([`Assigned`]); the group is
//! kept waiting until their claims are released, or for a bounded time, after which the claims are void. Only then is the
//! group told. A claim is therefore never good for longer than the assignment it was made under, whatever the member is by
//! then. What may fail: the brokers; a claim that came too late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{Notify, watch};

use super::counters::Counters;
use super::ears::{Ears, Trouble, write_line};
use super::errors::{is_groups, log_error};
use super::{KafkaLogConfig, spawn};
use crate::backends::event_log::{Assigned, Claim, LogError};
use crate::clock;

/// How long one poll for events waits.
const POLL: Duration = Duration::from_millis(100);
/// As long as partitions are being given back.
const POLL_REVOKING: Duration = Duration::from_millis(10);
/// How long commits under way may take before partitions are given back without them.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// Topic, by its name in the port, and partition.
pub(super) type Place = (String, u32);

/// The member.
pub(super) struct Member {
    pub(super) group: String,
    consumer: Mutex<Option<Arc<BaseConsumer<Book>>>>,
    pub(super) hold: Arc<Hold>,
    ended: Arc<Ended>,
}

/// Set when the thread has ended and let go of the client. The group is left with the last who holds that: a commit or a
/// question that is under way then comes before.
#[derive(Default)]
struct Ended {
    done: AtomicBool,
    told: Notify,
}

/// What the member holds.
pub(super) struct Hold {
    group: String,
    trouble: Trouble,
    assigned: watch::Sender<Assigned>,
    inner: Mutex<Inner>,
    counters: Arc<Counters>,
    revoke_timeout: Duration,
    closing: AtomicBool,
}

#[derive(Default)]
struct Inner {
    assignments: u64,
    claims: HashMap<Place, Held>,
    /// Commits that the broker has not answered.
    under_way: HashSet<Place>,
    revoking: Option<Revoking>,
    /// Places that were here once: whoever claims one need not wait for it.
    known: HashSet<Place>,
}

#[derive(Clone, Copy)]
struct Held {
    claim: Claim,
    assignment: u64,
}

struct Revoking {
    list: TopicPartitionList,
    places: Vec<Place>,
    until: tokio::time::Instant,
}

/// The context of the member's client.
pub(super) struct Book {
    hold: Arc<Hold>,
    ears: Ears,
    prefix: String,
}

impl Member {
    /// Joins `group` for `topics`, as they are named at the broker.
    pub(super) fn join(
        config: &KafkaLogConfig,
        group: &str,
        topics: &[String],
        counters: Arc<Counters>,
        ears: Ears,
    ) -> Result<Self, LogError> {
        let hold = Arc::new(Hold::new(group, config.group.revoke_timeout, counters, ears.trouble.clone()));
        let book = Book { hold: Arc::clone(&hold), ears, prefix: config.prefix.clone() };
        let made = config.member(group).create_with_context(book);
        let consumer: Arc<BaseConsumer<Book>> =
            Arc::new(made.map_err(|error| LogError::Settings(format!("a client cannot be made: {error}")))?);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| log_error("joining a group", &error))?;
        let this = Self {
            group: group.to_owned(),
            consumer: Mutex::new(Some(Arc::clone(&consumer))),
            hold: Arc::clone(&hold),
            ended: Arc::default(),
        };
        let ended = Arc::clone(&this.ended);
        spawn("kafka-group", move || {
            poll_until_closed(&consumer, &hold);
            // The last handle leaves the group as it goes: this one, if nothing is under way.
            drop(consumer);
            ended.done.store(true, Ordering::Release);
            ended.told.notify_waiters();
        })?;
        Ok(this)
    }

    /// The client, to ask about the group.
    pub(super) fn client(&self) -> Result<Arc<BaseConsumer<Book>>, LogError> {
        self.consumer.lock().clone().ok_or(LogError::Closed)
    }

    /// Gives everything back and leaves the group; [`Member::left`] tells when the thread is done with that.
    pub(super) fn leave(&self) {
        self.hold.closing.store(true, Ordering::Release);
        drop(self.consumer.lock().take());
    }

    /// Resolves when the thread has ended: the group was left, or is as soon as what is under way has ended.
    pub(super) async fn left(&self) {
        loop {
            let told = self.ended.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.has_left() {
                return;
            }
            tokio::time::timeout(POLL, told).await.ok();
        }
    }

    /// Whether the thread has ended.
    pub(super) fn has_left(&self) -> bool {
        self.ended.done.load(Ordering::Acquire)
    }
}

/// Polls, and gives partitions back when their time has come.
fn poll_until_closed(consumer: &Arc<BaseConsumer<Book>>, hold: &Hold) {
    while !hold.closing.load(Ordering::Acquire) {
        let revoking = hold.inner.lock().revoking.is_some();
        // Nothing is fetched here; errors were heard by the book.
        drop(consumer.poll(if revoking { POLL_REVOKING } else { POLL }));
        // What is another's already, nobody need wait for.
        let lost = revoking && consumer.assignment_lost();
        if let Some(list) = hold.given_back(lost) {
            give_back(consumer, &list);
        }
    }
    hold.void_all();
    let until = clock::now() + COMMIT_GRACE;
    while !hold.inner.lock().under_way.is_empty() && clock::now() < until {
        drop(consumer.poll(POLL_REVOKING));
    }
    let left = hold.inner.lock().revoking.take();
    if let Some(revoking) = left {
        give_back(consumer, &revoking.list);
    }
}

fn give_back<C: ConsumerContext>(consumer: &BaseConsumer<C>, list: &TopicPartitionList) {
    let done = match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        _ => consumer.unassign(),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "partitions could not be given back");
    }
}

// === impl Hold ===

impl Hold {
    fn new(group: &str, revoke_timeout: Duration, counters: Arc<Counters>, trouble: Trouble) -> Self {
        Self {
            group: group.to_owned(),
            trouble,
            assigned: watch::Sender::new(Assigned::new()),
            inner: Mutex::default(),
            counters,
            revoke_timeout,
            closing: AtomicBool::new(false),
        }
    }

    /// The set of partitions, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Assigned> {
        self.assigned.subscribe()
    }

    /// True for a place that this process held and does not hold any more.
    pub(super) fn was_lost(&self, place: &Place) -> bool {
        let inner = self.inner.lock();
        inner.known.contains(place) && !self.assigned.borrow().contains_key(place)
    }

    /// Makes `claim` the one that may commit, if the place is still here by `assignment`. Each claim has a number of its
    /// own, so that an earlier one under the same assignment is void from here on.
    pub(super) fn claim(&self, place: &Place, claim: Claim, assignment: u64) -> Result<(), LogError> {
        let mut inner = self.inner.lock();
        if self.assigned.borrow().get(place) != Some(&assignment) {
            return Err(LogError::Fenced);
        }
        inner.claims.insert(place.clone(), Held { claim, assignment });
        Ok(())
    }

    /// Whether `claim` is still the latest and the place here by the assignment it was made under: what was read about the
    /// place since then holds.
    pub(super) fn still(&self, place: &Place, claim: Claim) -> Result<(), LogError> {
        let inner = self.inner.lock();
        let held = inner.claims.get(place).filter(|held| held.claim == claim).ok_or(LogError::Fenced)?;
        let here = self.assigned.borrow().get(place) == Some(&held.assignment);
        if here { Ok(()) } else { Err(LogError::Fenced) }
    }

    /// Whether a commit is under way there, of whichever claim.
    pub(super) fn is_committing(&self, place: &Place) -> bool {
        self.inner.lock().under_way.contains(place)
    }

    /// Forgets `claim`, if it is the latest.
    pub(super) fn release(&self, place: &Place, claim: Claim) {
        let mut inner = self.inner.lock();
        if inner.claims.get(place).is_some_and(|held| held.claim == claim) {
            inner.claims.remove(place);
        }
    }

    /// Notes a commit as under way, which `claim` must allow. False where another one still is.
    pub(super) fn begin(&self, place: &Place, claim: Claim) -> Result<bool, LogError> {
        let mut inner = self.inner.lock();
        inner.claims.get(place).filter(|held| held.claim == claim).ok_or(LogError::Fenced)?;
        Ok(inner.under_way.insert(place.clone()))
    }

    /// The commit is under way no longer.
    pub(super) fn end(&self, place: &Place) {
        self.inner.lock().under_way.remove(place);
    }

    /// The broker says that the claim is void. Where the partition is still here, it counts as assigned anew.
    pub(super) fn fenced(&self, place: &Place, claim: Claim) {
        self.counters.fence();
        let mut inner = self.inner.lock();
        let Some(held) = inner.claims.get(place).copied().filter(|held| held.claim == claim) else { return };
        inner.claims.remove(place);
        inner.assignments += 1;
        let number = inner.assignments;
        self.assigned.send_if_modified(|assigned| {
            let mine = assigned.get_mut(place).filter(|now| **now == held.assignment);
            mine.map(|now| *now = number).is_some()
        });
    }

    fn gained(&self, places: Vec<Place>) {
        self.counters.rebalance();
        self.trouble.joined(&self.group);
        let mut inner = self.inner.lock();
        for place in places {
            inner.assignments += 1;
            let number = inner.assignments;
            inner.known.insert(place.clone());
            self.assigned.send_modify(|assigned| {
                assigned.insert(place, number);
            });
        }
    }

    /// Takes the places out of sight; their claims stay good until they are given back.
    fn going(&self, list: &TopicPartitionList, places: Vec<Place>) {
        self.counters.rebalance();
        self.assigned.send_modify(|assigned| assigned.retain(|place, _| !places.contains(place)));
        let until = clock::now() + self.revoke_timeout;
        self.inner.lock().revoking = Some(Revoking { list: list.clone(), places, until });
    }

    /// The places are another's already.
    fn lost(&self, places: &[Place]) {
        self.counters.rebalance();
        self.assigned.send_modify(|assigned| assigned.retain(|place, _| !places.contains(place)));
        let mut inner = self.inner.lock();
        inner.revoking = None;
        inner.claims.retain(|place, _| !places.contains(place));
    }

    fn void_all(&self) {
        self.assigned.send_modify(Assigned::clear);
        self.inner.lock().claims.clear();
    }

    /// What can be given back now: its claims are released or void, and no commit is under way.
    fn given_back(&self, lost: bool) -> Option<TopicPartitionList> {
        let mut inner = self.inner.lock();
        let revoking = inner.revoking.as_ref()?;
        let now = clock::now();
        let held = revoking.places.iter().any(|place| inner.claims.contains_key(place));
        if held && !lost && now < revoking.until {
            return None;
        }
        let committing = revoking.places.iter().any(|place| inner.under_way.contains(place));
        let (places, until) = (revoking.places.clone(), revoking.until);
        if held {
            tracing::warn!(?places, lost, "consumers did not end in time, their claims are void");
            self.counters.fence();
        }
        inner.claims.retain(|place, _| !places.contains(place));
        if committing && now < until + COMMIT_GRACE {
            return None;
        }
        inner.revoking.take().map(|revoking| revoking.list)
    }
}

// === impl Book ===

impl Book {
    fn places(&self, list: &TopicPartitionList) -> Vec<Place> {
        let place = |topic: &str, partition: i32| {
            let topic = topic.strip_prefix(&self.prefix)?.to_owned();
            Some((topic, u32::try_from(partition).ok()?))
        };
        list.elements().iter().filter_map(|one| place(one.topic(), one.partition())).collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        // From somewhere, and paused: it is not fetched here, and nothing need be asked about where to begin.
        list.set_all_offsets(rdkafka::Offset::Offset(0))?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list)?,
            _ => consumer.assign(list)?,
        }
        if list.count() > 0 {
            consumer.pause(list)?;
        }
        self.hold.gained(self.places(list));
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let places = self.places(list);
        if consumer.assignment_lost() || self.hold.closing.load(Ordering::Acquire) || places.is_empty() {
            self.hold.lost(&places);
            give_back(consumer, list);
        } else {
            self.hold.going(list, places);
        }
    }
}

impl ClientContext for Book {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        write_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => {
                let why = format!("{reason}; when that is mended, the process has to be started again");
                self.hold.trouble.group(&self.hold.group, why);
            }
            Some(code) if is_groups(code) => self.hold.trouble.group(&self.hold.group, reason),
            _ => {}
        }
        self.ears.hear(&error, reason);
    }
}

impl ConsumerContext for Book {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(partitions = ?self.places(list), "the group gave partitions");
                if let Err(error) = self.assign(consumer, list) {
                    tracing::error!(%error, "partitions could not be taken over");
                }
            }
            _ => {
                tracing::info!(partitions = ?self.places(list), "the group takes partitions away");
                self.revoke(consumer, list);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold() -> Hold {
        Hold::new("g", Duration::from_secs(1), Arc::default(), Trouble::default())
    }

    #[test]
    fn a_claim_is_for_the_assignment_under_which_the_position_was_read() {
        let (hold, place) = (hold(), ("t".to_owned(), 0));
        let number = || hold.watch().borrow().get(&place).copied();
        hold.gained(vec![place.clone()]);
        let before = number().unwrap();
        hold.claim(&place, Claim(1), before).unwrap();
        hold.lost(std::slice::from_ref(&place));
        assert!(matches!(hold.still(&place, Claim(1)), Err(LogError::Fenced)), "it is gone");
        assert!(matches!(hold.claim(&place, Claim(2), before), Err(LogError::Fenced)), "it is gone");
        hold.gained(vec![place.clone()]);
        let late = hold.claim(&place, Claim(3), before);
        assert!(matches!(late, Err(LogError::Fenced)), "another may have committed meanwhile: {late:?}");
        assert!(matches!(hold.still(&place, Claim(1)), Err(LogError::Fenced)));
        hold.claim(&place, Claim(4), number().unwrap()).unwrap();
        hold.still(&place, Claim(4)).unwrap();
        assert!(hold.begin(&place, Claim(4)).unwrap());
    }

    #[test]
    fn of_two_claims_under_one_assignment_the_earlier_is_void() {
        let (hold, place) = (hold(), ("t".to_owned(), 0));
        hold.gained(vec![place.clone()]);
        let number = hold.watch().borrow()[&place];
        hold.claim(&place, Claim(1), number).unwrap();
        assert!(hold.begin(&place, Claim(1)).unwrap());
        hold.claim(&place, Claim(2), number).unwrap();
        assert!(hold.is_committing(&place), "the position is not read before this has ended");
        hold.end(&place);
        assert!(!hold.is_committing(&place));
        assert!(matches!(hold.begin(&place, Claim(1)), Err(LogError::Fenced)));
        assert!(matches!(hold.still(&place, Claim(1)), Err(LogError::Fenced)));
        // Who ended late does not take the place from who has it now.
        hold.release(&place, Claim(1));
        hold.still(&place, Claim(2)).unwrap();
        assert!(hold.begin(&place, Claim(2)).unwrap());
    }

    #[test]
    fn what_ends_a_member_or_keeps_it_out_is_the_groups_trouble() {
        use RDKafkaErrorCode as Code;
        let trouble = Trouble::default();
        let hold = Arc::new(Hold::new("g", Duration::from_secs(1), Arc::default(), trouble.clone()));
        let book = Book { hold, ears: Ears { trouble: trouble.clone() }, prefix: String::new() };
        book.error(KafkaError::Global(Code::RebalanceInProgress), "a moment");
        assert_eq!(trouble.get(), None);
        book.error(KafkaError::Global(Code::InvalidSessionTimeout), "JoinGroup failed");
        assert_eq!(trouble.get().as_deref(), Some("group g: JoinGroup failed"));
        // What librdkafka says of brokers that do not share groups out themselves.
        book.error(KafkaError::Global(Code::Fatal), "Fatal error: not supported");
        let fatal = trouble.get().unwrap();
        assert!(fatal.contains("Fatal error: not supported; when that is mended"), "{fatal}");
    }

    #[test]
    fn a_group_that_gives_is_in_no_trouble() {
        let hold = hold();
        hold.trouble.group("g", "not allowed");
        hold.gained(Vec::new());
        assert_eq!(hold.trouble.get(), None);
    }
}
