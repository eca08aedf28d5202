//! Claims and commits: a position in a group's partition, read and written as long as the partition is ours.
//!
//! One commit a partition is under way at a time. While the group is about to change hands the broker refuses commits that
//! may pass a moment later, so they are tried again as long as the claim is good. What may fail: the claim is void
//! ([`LogError::Fenced`]), the brokers are away; whether the position was written is then not known.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::oneshot;

use super::errors::{is_rebalancing, log_error};
use super::fetcher::number;
use super::member::{Hold, Member, Place};
use super::partition::Partition;
use super::{ASK, JOIN, Shared, ask, ask_bounds, ask_marks, spawn};
use crate::backends::event_log::{Claim, Committed, LogError, MAX_METADATA_BYTES, Offset};
use crate::clock;

/// How long a commit may take.
const COMMIT: Duration = Duration::from_secs(15);
/// Wait before a commit that may pass a moment later.
const AGAIN: Duration = Duration::from_millis(100);

type Claimed = Result<(Claim, Committed), LogError>;

/// Takes a partition over that the group has given to this process, or is about to.
pub(super) fn claim(
    shared: &Arc<Shared>,
    group: &str,
    topic: &str,
    partition: u32,
) -> BoxFuture<'static, Claimed> {
    let (shared, group) = (Arc::clone(shared), group.to_owned());
    let found = shared.partition(topic, partition);
    async move { claim_found(&shared, &group, &*found?).await }.boxed()
}

async fn claim_found(shared: &Shared, group: &str, partition: &Partition) -> Claimed {
    let place = (partition.topic.clone(), partition.number);
    let member = shared.member(group)?;
    let assignment = until_assigned(&member, &place).await?;
    let claim = Claim(shared.claims.fetch_add(1, Ordering::AcqRel) + 1);
    // Earlier claims are void before the position is read. To the brokers all holders in this process are one member, so
    // only this keeps an earlier one from committing after that.
    member.hold.claim(&place, claim, assignment)?;
    let unheard = Unheard { hold: &member.hold, place: &place, claim };
    until_quiet(&member.hold, &place).await?;
    let known = read_position(shared, &member, partition).await?;
    let position = match &known {
        Some(position) => within(shared, partition, position.clone()).await?,
        None => Committed { offset: start(shared, partition).await?, metadata: String::new() },
    };
    // Nothing is waited for from here on: a claim that nobody heard of would never be released.
    member.hold.still(&place, claim)?;
    std::mem::forget(unheard);
    let (mut positions, key) = (shared.positions.lock(), (group.to_owned(), place));
    match &known {
        Some(position) => drop(positions.insert(key, position.clone())),
        None => drop(positions.remove(&key)),
    }
    Ok((claim, position))
}

/// A claim that is released unless it comes to be held.
struct Unheard<'a> {
    hold: &'a Hold,
    place: &'a Place,
    claim: Claim,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        self.hold.release(self.place, self.claim);
    }
}

/// Waits until no commit of an earlier claim is under way.
async fn until_quiet(hold: &Hold, place: &Place) -> Result<(), LogError> {
    let until = clock::now() + COMMIT;
    while hold.is_committing(place) {
        if clock::now() >= until {
            return Err(late());
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// The position, if the log reaches so far: what is written below it from here on would never be read.
async fn within(shared: &Shared, partition: &Partition, position: Committed) -> Result<Committed, LogError> {
    let (_, end) = ask_marks(shared, partition).await?;
    if position.offset <= end {
        return Ok(position);
    }
    let (name, number, offset) =
        (shared.config.topic_name(&partition.topic), partition.number, position.offset);
    let what = format!("{name} {number} ends at {end}, committed is {offset}: the brokers lost records");
    Err(LogError::Away(what))
}

/// The first offset still there.
async fn start(shared: &Shared, partition: &Partition) -> Result<Offset, LogError> {
    match partition.bounds() {
        Some((first, _)) => Ok(first),
        None => Ok(ask_bounds(shared, partition).await?.0),
    }
}

/// Waits until the group gives the place, and returns the assignment's number; not where it took it away before.
async fn until_assigned(member: &Member, place: &Place) -> Result<u64, LogError> {
    let mut assigned = member.hold.watch();
    if member.hold.was_lost(place) {
        return Err(LogError::Fenced);
    }
    let given = tokio::time::timeout(JOIN, assigned.wait_for(|now| now.contains_key(place))).await;
    match given {
        Ok(Ok(now)) => now.get(place).copied().ok_or(LogError::Fenced),
        Ok(Err(_)) => Err(LogError::Closed),
        Err(_) => {
            Err(LogError::Away(format!("group {} does not give {} {}", member.group, place.0, place.1)))
        }
    }
}

/// What the broker has as the committed position.
async fn read_position(
    shared: &Shared,
    member: &Member,
    partition: &Partition,
) -> Result<Option<Committed>, LogError> {
    let client = member.client()?;
    let (name, number) = (shared.config.topic_name(&partition.topic), number(partition.number));
    let asked = ask(move || -> KafkaResult<Option<Committed>> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&name, number);
        let list = client.committed_offsets(list, ASK)?;
        let Some(one) = list.find_partition(&name, number) else { return Ok(None) };
        one.error()?;
        Ok(match one.offset() {
            KafkaOffset::Offset(offset) => Some(Committed {
                offset: u64::try_from(offset).unwrap_or(0),
                // Some clients write the NUL that ends a C string along.
                metadata: one.metadata().trim_end_matches('\0').to_owned(),
            }),
            _ => None,
        })
    });
    asked.await?.map_err(|error| log_error("asking for the committed position", &error))
}

/// Commits a position.
pub(super) fn commit(
    shared: &Arc<Shared>,
    group: &str,
    topic: &str,
    partition: u32,
    claim: Claim,
    position: Committed,
) -> BoxFuture<'static, Result<(), LogError>> {
    let found = shared.open_for_use().and_then(|()| shared.partition(topic, partition));
    let checked = found.and_then(|partition| check(&partition, &position).map(|()| partition));
    let member = shared.members.lock().get(group).cloned().ok_or(LogError::Fenced);
    match checked.and_then(|partition| Ok((partition, member?))) {
        Ok((partition, member)) => {
            let shared = Arc::clone(shared);
            async move { Committing { shared: &shared, member: &member, claim }.run(&partition, position).await }
                .boxed()
        }
        Err(error) => ready(Err(error)).boxed(),
    }
}

fn check(partition: &Partition, position: &Committed) -> Result<(), LogError> {
    if let Some((_, end)) = partition.bounds().filter(|(_, end)| position.offset > *end) {
        return Err(LogError::BeyondEnd { offset: position.offset, end });
    }
    let size = position.metadata.len();
    if size > MAX_METADATA_BYTES { Err(LogError::MetadataTooLong { size }) } else { Ok(()) }
}

struct Committing<'a> {
    shared: &'a Shared,
    member: &'a Member,
    claim: Claim,
}

impl Committing<'_> {
    async fn run(&self, partition: &Partition, position: Committed) -> Result<(), LogError> {
        let place = (partition.topic.clone(), partition.number);
        let until = clock::now() + COMMIT;
        loop {
            let error = match self.once(&place, &position, until).await? {
                Ok(()) => {
                    self.shared.positions.lock().insert((self.member.group.clone(), place), position);
                    return Ok(());
                }
                Err(error) => error,
            };
            let passing = error.rdkafka_error_code().is_some_and(is_rebalancing);
            if !passing || clock::now() >= until {
                let error = log_error("committing", &error);
                if matches!(error, LogError::Fenced) {
                    self.member.hold.fenced(&place, self.claim);
                }
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends the position once and hears what the broker says.
    async fn once(
        &self,
        place: &Place,
        position: &Committed,
        until: tokio::time::Instant,
    ) -> Result<KafkaResult<()>, LogError> {
        let hold = &self.member.hold;
        // An earlier one whose sender has given up may still be under way.
        while !hold.begin(place, self.claim)? {
            if clock::now() >= until {
                return Err(late());
            }
            tokio::time::sleep(AGAIN).await;
        }
        let told = self.send(place, position).inspect_err(|_| hold.end(place))?;
        match tokio::time::timeout_at(until, told).await {
            Ok(told) => told.map_err(|_| LogError::Closed),
            Err(_) => Err(late()),
        }
    }

    /// Sends the position. The client's call blocks until the broker answers, so it has a thread of its own; there is one
    /// a partition at the most.
    fn send(
        &self,
        place: &Place,
        position: &Committed,
    ) -> Result<oneshot::Receiver<KafkaResult<()>>, LogError> {
        let (list, client) = (self.list(place, position)?, self.member.client()?);
        let (hold, place) = (Arc::clone(&self.member.hold), place.clone());
        let (tell, told) = oneshot::channel();
        spawn("kafka-commit", move || {
            let result = client.commit(&list, CommitMode::Sync);
            drop(client);
            hold.end(&place);
            drop(tell.send(result));
        })?;
        Ok(told)
    }

    fn list(&self, (topic, partition): &Place, position: &Committed) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::with_capacity(1);
        let mut one = list.add_partition(&self.shared.config.topic_name(topic), number(*partition));
        let offset = KafkaOffset::Offset(i64::try_from(position.offset).unwrap_or(i64::MAX));
        one.set_offset(offset).map_err(|error| log_error("committing", &error))?;
        one.set_metadata(&position.metadata);
        Ok(list)
    }
}

fn late() -> LogError {
    LogError::Away("a commit is not answered in time".into())
}
