//! The partition consumer over a real log of which a part cannot be seen: a block that was announced keeps its id, whatever
//! is left of it, and is not held up by what will never come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_rt::System;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use obtrace::actors::stream::consumer::{ConsumerDeps, PartitionConsumer};
use obtrace::backends::event_log::embedded::{EmbeddedLog, EmbeddedLogConfig, TopicConfig};
use obtrace::backends::event_log::{
    Appended, Claim, Committed, EventLog, LogError, Offset, Record, StoredRecord,
};
use obtrace::config::live::LiveConfig;
use obtrace::config::{Config, LoadArgs};
use obtrace::domain::block::Plan;
use obtrace::messages::process::{BlockOutcome, ProcessBlock};
use obtrace::supervisors::kernel::lane::{Lane, Lease};
use obtrace::supervisors::kernel::policy::Policy;
use obtrace::supervisors::kernel::pools::Pools;
use obtrace::supervisors::kernel::seat::{Consume, Seated, Worker};
use obtrace::supervisors::kernel::spec::ChildSpec;
use obtrace::supervisors::kernel::tree::Tree;
use tokio::sync::mpsc;
use tokio::time::timeout;

const TOPIC: &str = "t";
const GROUP: &str = "g";
const RECORDS: u64 = 5;
const SOON: Duration = Duration::from_secs(20);

/// A log that shows its records from `start` to `end` only.
struct Window {
    log: EmbeddedLog,
    start: AtomicU64,
    end: AtomicU64,
}

impl Window {
    fn shown(&self) -> (Offset, Offset) {
        (self.start.load(Ordering::SeqCst), self.end.load(Ordering::SeqCst))
    }
}

impl EventLog for Window {
    fn partitions(&self, topic: &str) -> Option<u32> {
        self.log.partitions(topic)
    }

    fn append(
        &self,
        topic: &str,
        partition: u32,
        record: Record,
        dedup: Option<u128>,
    ) -> BoxFuture<'static, Result<Appended, LogError>> {
        self.log.append(topic, partition, record, dedup)
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: Offset,
        max_records: usize,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredRecord>, LogError>> {
        let (start, end) = self.shown();
        if from < start {
            return Box::pin(async move { Err(LogError::OutOfRange { offset: from, start }) });
        }
        let read = self.log.read(topic, partition, from, max_records, max_bytes);
        Box::pin(async move { Ok(read.await?.into_iter().filter(|record| record.offset < end).collect()) })
    }

    fn wait_for(&self, topic: &str, partition: u32, at: Offset) -> BoxFuture<'static, Result<(), LogError>> {
        self.log.wait_for(topic, partition, at)
    }

    fn bounds(&self, _: &str, _: u32) -> Result<(Offset, Offset), LogError> {
        Ok(self.shown())
    }

    fn claim(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> BoxFuture<'static, Result<(Claim, Committed), LogError>> {
        self.log.claim(group, topic, partition)
    }

    fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
        claim: Claim,
        position: Committed,
    ) -> BoxFuture<'static, Result<(), LogError>> {
        self.log.commit(group, topic, partition, claim, position)
    }

    fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<Committed>, LogError> {
        self.log.committed(group, topic, partition)
    }
}

/// Takes every block, and tells of it.
struct Taker(mpsc::Sender<(String, Vec<Offset>)>);

impl Worker for Taker {}

impl Consume<ProcessBlock> for Taker {
    fn consume(&mut self, lease: Lease<ProcessBlock>, _: &mut Seated<Self>) {
        let offsets = lease.records.iter().map(|record| record.offset).collect();
        self.0.try_send((lease.block.to_string(), offsets)).expect("room");
        lease.reply.send(BlockOutcome::Settled { rows: 0, aside: 0 });
        lease.ack();
    }
}

/// A log of five records, of which a former owner has announced the block `0..3`, as far as it is shown.
async fn announced(folder: &std::path::Path, start: Offset, end: Offset) -> Arc<Window> {
    let (log, _) =
        EmbeddedLog::open(EmbeddedLogConfig::new(folder, vec![TopicConfig::new(TOPIC, 1)])).expect("open");
    for n in 0..RECORDS {
        let record = Record { key: Bytes::new(), headers: vec![], payload: Bytes::from(n.to_string()) };
        log.append(TOPIC, 0, record, None).await.expect("appended");
    }
    let (claim, at) = log.claim(GROUP, TOPIC, 0).await.expect("claimed");
    assert_eq!(at.offset, 0);
    let position = Committed { offset: 0, metadata: Plan::new(3, 1).to_metadata(4096) };
    log.commit(GROUP, TOPIC, 0, claim, position).await.expect("committed");
    Arc::new(Window { log, start: start.into(), end: end.into() })
}

/// Runs a consumer over the log; the tree, and what is given to the process stage.
fn consume(log: &Arc<Window>) -> (Tree, mpsc::Receiver<(String, Vec<Offset>)>) {
    let (told, blocks) = mpsc::channel(16);
    let policy = Policy::default();
    let lane = Lane::new("taker", policy.lane);
    let deps = ConsumerDeps {
        log: Arc::clone(log) as Arc<dyn EventLog>,
        process: lane.port(),
        group: GROUP,
        topic: TOPIC,
        partition: 0,
        config: LiveConfig::new(Config::load(&LoadArgs::default()).expect("the defaults")),
        rung: None,
        process_id: 2,
    };
    let taker = ChildSpec::worker("taker", policy.clone(), move |_| Taker(told.clone())).reads(&lane).build();
    let consumer =
        ChildSpec::worker("consumer", policy.clone(), move |_| PartitionConsumer::new(deps.clone())).build();
    let root = ChildSpec::supervisor("root", policy, vec![taker, consumer]);
    (Tree::start(&root, Pools::new([].into())), blocks)
}

async fn next(blocks: &mut mpsc::Receiver<(String, Vec<Offset>)>) -> (String, Vec<Offset>) {
    timeout(SOON, blocks.recv()).await.expect("a block comes").expect("the taker lives")
}

/// Waits until everything up to the end is committed, and ends the tree in order.
async fn done(log: &Window, tree: Tree) {
    let committed = async {
        loop {
            let at = log.committed(GROUP, TOPIC, 0).expect("the log is open").unwrap_or_default();
            if at.offset == RECORDS {
                return assert_eq!(at.metadata, "");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, committed).await.expect("all is committed");
    assert!(tree.stop(SOON).await.forced.is_empty());
}

#[test]
fn an_announced_block_keeps_its_id_when_its_head_is_gone() {
    System::new().block_on(async {
        let folder = tempfile::tempdir().expect("tempdir");
        let log = announced(folder.path(), 1, RECORDS).await;
        let (tree, mut blocks) = consume(&log);
        assert_eq!(next(&mut blocks).await, ("t-0-0-3".to_owned(), vec![1, 2]));
        assert_eq!(next(&mut blocks).await, ("t-0-3-5".to_owned(), vec![3, 4]));
        done(&log, tree).await;
    });
}

#[test]
fn an_announced_block_of_which_nothing_is_left_is_passed() {
    System::new().block_on(async {
        let folder = tempfile::tempdir().expect("tempdir");
        let log = announced(folder.path(), 4, RECORDS).await;
        let (tree, mut blocks) = consume(&log);
        assert_eq!(next(&mut blocks).await, ("t-0-4-5".to_owned(), vec![4]));
        done(&log, tree).await;
    });
}

#[test]
fn an_announced_block_is_not_cut_short_by_a_log_that_seems_to_end_in_it() {
    System::new().block_on(async {
        let folder = tempfile::tempdir().expect("tempdir");
        let log = announced(folder.path(), 0, 2).await;
        let (tree, mut blocks) = consume(&log);
        let waited = timeout(Duration::from_millis(800), blocks.recv()).await;
        assert!(waited.is_err(), "{waited:?} was cut from a log that ends early");
        log.end.store(RECORDS, Ordering::SeqCst);
        assert_eq!(next(&mut blocks).await, ("t-0-0-3".to_owned(), vec![0, 1, 2]));
        assert_eq!(next(&mut blocks).await, ("t-0-3-5".to_owned(), vec![3, 4]));
        done(&log, tree).await;
    });
}
