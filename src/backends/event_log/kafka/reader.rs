//! Reading one partition: fetched messages in, the records from an offset on out, without repeats.
//!
//! Whoever reads on gets what comes next; whoever reads elsewhere makes the reader go there. Before a partition that is
//! consumed by groups is read from some place, the filter is told what stands before it. What was read stays at hand until
//! it is read beyond, so that the same records can be had again. What may fail: the brokers, retention.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::{Mutex, Notify};

use super::ears::Ears;
use super::errors::log_error;
use super::fetcher::Fetcher;
use super::filter::{Filter, Reach, Trace};
use super::partition::Partition;
use super::record::{Fetched, fetched};
use super::{Shared, ask_bounds};
use crate::backends::event_log::{LogError, Offset, StoredRecord};
use crate::clock;

/// How long a record that is known to be there may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether something came, whatever the queue says.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The broker says that no more is there: how long what should be there may still take.
const AFTER_END: Duration = Duration::from_secs(2);
/// Most that is taken in by a wait.
const WAIT_RECORDS: usize = 1024;
/// Most bytes that are taken in by a wait.
const WAIT_BYTES: usize = 8 << 20;
/// The first step back for the filter; each further one is four times as long.
const STEP_BACK: u64 = 64;

/// The reading end of one partition.
pub(super) struct Reader {
    name: String,
    number: u32,
    reach: Option<Reach>,
    arrived: Arc<Notify>,
    used_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Option<PartitionQueue<Ears>>,
    /// Whether the fetcher fetches it.
    fetched: bool,
    /// Whether `low`, `next` and the buffer hold.
    placed: bool,
    /// The buffer has all records of `low..next` that are to be read.
    low: Offset,
    next: Offset,
    buffer: VecDeque<StoredRecord>,
    bytes: usize,
    /// The broker said that nothing stands at `next`, and nothing came since.
    at_end: bool,
    broken: Option<LogError>,
    filter: Option<Filter>,
}

/// What a queue had.
enum Event {
    Message(Fetched),
    End,
    /// Something of the moment, which librdkafka mends.
    Passing,
    Broken(LogError),
}

impl Reader {
    pub(super) fn new(name: String, number: u32, reach: Option<Reach>) -> Self {
        let (arrived, used_ns) = (Arc::default(), AtomicU64::new(0));
        Self { name, number, reach, arrived, used_ns, state: Mutex::default() }
    }

    /// Has whoever waits look again.
    pub(super) fn wake(&self) {
        self.arrived.notify_waiters();
    }

    /// Stops fetching when nobody read for `idle`; where it is is not forgotten.
    pub(super) fn rest(&self, fetcher: &Fetcher, idle: Duration) {
        let unused = clock::steady_nanos().saturating_sub(self.used_ns.load(Ordering::Relaxed));
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.fetched && u128::from(unused) > idle.as_nanos() {
            state.drop_place();
            state.fetched = fetcher.stop(&self.name, self.number).is_err();
        }
    }

    /// Lets go of the queue, which belongs to the client; whoever is reading at the moment keeps it until he is done.
    pub(super) fn close(&self) {
        if let Ok(mut state) = self.state.try_lock() {
            state.drop_place();
            state.fetched = false;
            state.queue = None;
        }
        self.wake();
    }

    /// The first offset from `from` on at which there is, or may come, something to read.
    pub(super) fn skip(&self, from: Offset) -> Offset {
        let Ok(state) = self.state.try_lock() else { return from };
        if !state.covers(from) {
            return from;
        }
        state.buffer.iter().map(|record| record.offset).find(|offset| *offset >= from).unwrap_or(state.next)
    }

    fn used(&self) {
        self.used_ns.store(clock::steady_nanos(), Ordering::Relaxed);
    }
}

impl State {
    fn covers(&self, from: Offset) -> bool {
        self.placed && (self.low..=self.next).contains(&from)
    }

    fn drop_place(&mut self) {
        self.placed = false;
        self.buffer.clear();
        self.bytes = 0;
        self.broken = None;
        self.at_end = false;
    }

    fn trim(&mut self, from: Offset) {
        self.low = from;
        while self.buffer.front().is_some_and(|record| record.offset < from) {
            self.bytes -= self.buffer.pop_front().map_or(0, |record| record.record.size());
        }
    }

    /// The next event, without waiting.
    fn event(&mut self) -> Option<Event> {
        let event = self.queue.as_ref()?.poll(Duration::ZERO)?;
        Some(match event {
            Ok(message) => Event::Message(fetched(&message)),
            Err(KafkaError::PartitionEOF(_)) => Event::End,
            Err(error) => Event::Broken(log_error("reading", &error)).or_passing(&error),
        })
    }
}

impl Event {
    /// A place or topic that does not exist is for us to deal with, all else is not.
    fn or_passing(self, error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => self,
            _ => Self::Passing,
        }
    }
}

/// One call that reads.
pub(super) struct Reading<'a> {
    pub(super) shared: &'a Shared,
    pub(super) partition: &'a Partition,
}

impl Reading<'_> {
    /// The records from `from` on that are there.
    pub(super) async fn read(
        &self,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let (first, end) = self.bounds().await?;
        if from < first {
            return Err(LogError::OutOfRange { offset: from, start: first });
        }
        let reader = &self.partition.reader;
        reader.used();
        let mut state = reader.state.lock().await;
        if !state.covers(from) {
            if from >= end {
                return Ok(Vec::new());
            }
            self.place(&mut state, from).await?;
        }
        state.trim(from);
        let until = clock::now() + PATIENCE;
        let mut ended = None;
        loop {
            let arrived = reader.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            self.pull(&mut state, max_records.max(1), max_bytes);
            if let Some(error) = state.broken.take() {
                state.placed = false;
                return Err(self.what_broke(error, from).await);
            }
            let full = state.buffer.len() >= max_records || state.bytes >= max_bytes;
            if full || state.next >= end {
                break;
            }
            // What stands before the end need not be a record: transactions leave marks there.
            ended = if state.at_end { ended.or_else(|| Some(clock::now() + AFTER_END)) } else { None };
            let now = clock::now();
            if ended.is_some_and(|ended| now >= ended) {
                break;
            }
            if now >= until {
                if state.buffer.is_empty() {
                    return Err(LogError::Away(format!("{} {} does not come", reader.name, reader.number)));
                }
                break;
            }
            tokio::time::timeout(if ended.is_some() { AFTER_END } else { LOOK_EVERY }, arrived).await.ok();
        }
        Ok(state.take(max_records, max_bytes))
    }

    /// Resolves when there is a record to read at `at` or after it, or a reason why not, which reading tells.
    pub(super) async fn wait_for(&self, at: Offset) -> Result<(), LogError> {
        let reader = &self.partition.reader;
        loop {
            let arrived = reader.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            reader.used();
            if self.is_there(at).await? {
                return Ok(());
            }
            tokio::time::timeout(LOOK_EVERY, arrived).await.ok();
        }
    }

    async fn is_there(&self, at: Offset) -> Result<bool, LogError> {
        self.shared.open_for_use()?;
        let (first, end) = self.bounds().await?;
        let mut state = self.partition.reader.state.lock().await;
        if !state.placed {
            // Nobody reads here at the moment: whoever waits will.
            self.place(&mut state, at.min(end).max(first)).await?;
        }
        if at < state.low {
            return Ok(end > at);
        }
        self.pull(&mut state, WAIT_RECORDS, WAIT_BYTES);
        let stuffed = state.buffer.len() >= WAIT_RECORDS || state.bytes >= WAIT_BYTES;
        let here = state.buffer.back().is_some_and(|record| record.offset >= at);
        Ok(here || state.broken.is_some() || (stuffed && end > at))
    }

    /// Takes in what is fetched, up to the bounds.
    fn pull(&self, state: &mut State, max_records: usize, max_bytes: usize) {
        while state.buffer.len() < max_records && state.bytes < max_bytes && state.broken.is_none() {
            match state.event() {
                None => return,
                Some(Event::End) => state.at_end = true,
                Some(Event::Passing) => {}
                Some(Event::Broken(error)) => state.broken = Some(error),
                Some(Event::Message(message)) => self.take_in(state, message),
            }
        }
    }

    fn take_in(&self, state: &mut State, message: Fetched) {
        let offset = message.stored.offset;
        if offset < state.next {
            return; // of a place where we are no longer
        }
        self.partition.saw(offset);
        state.at_end = false;
        state.next = offset + 1;
        let trace = trace_of(&message);
        if state.filter.as_mut().is_none_or(|filter| filter.is_first(&trace)) {
            state.bytes += message.stored.record.size();
            state.buffer.push_back(message.stored);
        } else {
            self.shared.counters.duplicate();
        }
    }

    /// Goes to `from`.
    async fn place(&self, state: &mut State, from: Offset) -> Result<(), LogError> {
        let reader = &self.partition.reader;
        state.drop_place();
        if let Some(reach) = reader.reach
            && state.filter.as_ref().map(Filter::next) != Some(from)
        {
            let before = self.look_back(state, reach, from).await?;
            state.filter = Some(Filter::new(reach, &before, from));
        }
        self.go_to(state, from)?;
        (state.low, state.next, state.placed) = (from, from, true);
        Ok(())
    }

    fn go_to(&self, state: &mut State, from: Offset) -> Result<(), LogError> {
        let (reader, fetcher) = (&self.partition.reader, &self.shared.fetcher);
        if state.queue.is_none() {
            let arrived = Arc::clone(&reader.arrived);
            let wake = move || arrived.notify_waiters();
            state.queue = Some(fetcher.queue(&reader.name, reader.number, wake)?);
        }
        let again = std::mem::replace(&mut state.fetched, true);
        state.at_end = false;
        fetcher.start(&reader.name, reader.number, from, again)
    }

    /// What stands before `from`, as far back as matters.
    async fn look_back(&self, state: &mut State, reach: Reach, from: Offset) -> Result<Vec<Trace>, LogError> {
        let (first, _) = self.bounds().await?;
        let lowest = first.max(from.saturating_sub(reach.offsets));
        let (mut traces, mut upto, mut step, mut bytes) = (Vec::new(), from, STEP_BACK, 0);
        while upto > lowest {
            let low = upto.saturating_sub(step).max(lowest);
            let mut stretch = self.scan(state, low, upto).await?;
            bytes += stretch.iter().map(|trace| trace.size).sum::<u64>();
            stretch.append(&mut traces);
            traces = stretch;
            if let Some((oldest, newest)) = traces.first().zip(traces.last())
                && reach.ends(from - oldest.offset, bytes, newest.time_ms - oldest.time_ms)
            {
                break;
            }
            (upto, step) = (low, step * 4);
        }
        Ok(traces)
    }

    /// The traces of `low..upto`.
    async fn scan(&self, state: &mut State, low: Offset, upto: Offset) -> Result<Vec<Trace>, LogError> {
        let reader = &self.partition.reader;
        self.go_to(state, low)?;
        let (mut traces, mut next) = (Vec::new(), low);
        let mut until = clock::now() + PATIENCE;
        while next < upto {
            let arrived = reader.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match state.event() {
                Some(Event::Message(message)) if message.stored.offset < next => {}
                Some(Event::Message(message)) => {
                    next = message.stored.offset + 1;
                    until = clock::now() + PATIENCE;
                    traces.extend((next <= upto).then(|| trace_of(&message)));
                }
                Some(Event::End) => break,
                Some(Event::Passing) => {}
                Some(Event::Broken(error)) => return Err(self.what_broke(error, low).await),
                None if clock::now() >= until => {
                    return Err(LogError::Away(format!("{} {} does not come", reader.name, reader.number)));
                }
                None => drop(tokio::time::timeout(LOOK_EVERY, arrived).await),
            }
        }
        Ok(traces)
    }

    /// The bounds; asks for them where none are known yet.
    async fn bounds(&self) -> Result<(Offset, Offset), LogError> {
        match self.partition.bounds() {
            Some(bounds) => Ok(bounds),
            None => ask_bounds(self.shared, self.partition).await,
        }
    }

    /// A place that is not there has been removed by retention, most likely.
    async fn what_broke(&self, error: LogError, at: Offset) -> LogError {
        if matches!(error, LogError::Settings(_)) {
            return error;
        }
        match ask_bounds(self.shared, self.partition).await {
            Ok((start, _)) => LogError::OutOfRange { offset: at, start },
            Err(error) => error,
        }
    }
}

impl State {
    /// The first records of the buffer, at least one.
    fn take(&self, max_records: usize, max_bytes: usize) -> Vec<StoredRecord> {
        let mut bytes = 0_usize;
        let fits = |record: &&StoredRecord| {
            let before = bytes;
            bytes = bytes.saturating_add(record.record.size());
            before == 0 || bytes <= max_bytes
        };
        self.buffer.iter().take(max_records).take_while(fits).cloned().collect()
    }
}

fn trace_of(message: &Fetched) -> Trace {
    Trace {
        offset: message.stored.offset,
        key: message.dedup,
        time_ms: message.time_ms,
        size: message.stored.record.size() as u64,
    }
}
