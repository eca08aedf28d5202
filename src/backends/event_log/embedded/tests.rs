//! What only the inside can provoke: a disk whose syncs fail, hang or panic.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;

fn record(text: &str) -> Record {
    Record { key: Bytes::new(), headers: vec![], payload: Bytes::copy_from_slice(text.as_bytes()) }
}

#[tokio::test]
async fn a_failed_sync_takes_the_round_back_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let config = EmbeddedLogConfig::new(dir.path(), vec![TopicConfig::new("t", 1)]);
    let sync = {
        let broken = Arc::clone(&broken);
        move |file: &File| match broken.load(Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(nix::libc::EIO)),
            false => file.sync_data(),
        }
    };
    let (log, _) = EmbeddedLog::open_with(config.clone(), Box::new(sync)).unwrap();
    log.append("t", 0, record("first"), Some(1)).await.unwrap();
    let (claim, _) = log.claim("g", "t", 0).await.unwrap();

    broken.store(true, Ordering::SeqCst);
    let refused = log.append("t", 0, record("lost"), Some(2)).await;
    assert!(matches!(refused, Err(LogError::Io(_))), "{refused:?}");
    let position = Committed { offset: 1, metadata: "lost".into() };
    assert!(matches!(log.commit("g", "t", 0, claim, position.clone()).await, Err(LogError::Io(_))));
    assert_eq!(log.bounds("t", 0).unwrap(), (0, 1));
    assert_eq!(log.committed("g", "t", 0).unwrap(), None);

    broken.store(false, Ordering::SeqCst);
    let appended = log.append("t", 0, record("second"), Some(2)).await.unwrap();
    assert_eq!(appended, Appended { offset: 1, duplicate: false }, "the lost record is no first copy");
    log.commit("g", "t", 0, claim, position.clone()).await.unwrap();
    drop(log);

    let (log, report) = EmbeddedLog::open(config).unwrap();
    assert_eq!((report.torn_bytes, report.corrupt), (0, 0));
    let read = log.read("t", 0, 0, 10, 1000).await.unwrap();
    assert_eq!(read.iter().map(|r| &r.record.payload[..]).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
    assert_eq!(log.committed("g", "t", 0).unwrap(), Some(position));
}

#[test]
fn nothing_is_answered_or_readable_before_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (entered, syncing) = std::sync::mpsc::channel();
    let gate = Arc::new(parking_lot::Mutex::new(()));
    let sync = {
        let gate = Arc::clone(&gate);
        move |file: &File| {
            let _ = entered.send(());
            let _open = gate.lock();
            file.sync_data()
        }
    };
    let config = EmbeddedLogConfig::new(dir.path(), vec![TopicConfig::new("t", 1)]);
    let (log, _) = EmbeddedLog::open_with(config, Box::new(sync)).unwrap();
    let shut = gate.lock();
    let mut first = log.append("t", 0, record("first"), Some(1));
    syncing.recv().unwrap();
    let mut repeat = log.append("t", 0, record("first"), Some(1));
    assert!((&mut first).now_or_never().is_none() && (&mut repeat).now_or_never().is_none());
    assert_eq!(log.bounds("t", 0).unwrap(), (0, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(log.read("t", 0, 0, 1, 1)).unwrap().is_empty());
    drop(shut);
    assert_eq!(runtime.block_on(first).unwrap(), Appended { offset: 0, duplicate: false });
    assert_eq!(runtime.block_on(repeat).unwrap(), Appended { offset: 0, duplicate: true });
}

#[tokio::test]
async fn a_writer_that_panics_closes_the_log_and_frees_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedLogConfig::new(dir.path(), vec![TopicConfig::new("t", 1)]);
    let sync = |_: &File| -> io::Result<()> { panic!("planted") };
    let (log, _) = EmbeddedLog::open_with(config.clone(), Box::new(sync)).unwrap();
    let waiter = log.wait_for("t", 0, 0);
    assert!(matches!(log.append("t", 0, record("x"), None).await, Err(LogError::Closed)));
    assert!(matches!(waiter.await, Err(LogError::Closed)));
    assert!(matches!(log.append("t", 0, record("x"), None).await, Err(LogError::Closed)));
    let (log, _) = EmbeddedLog::open(config).unwrap();
    log.append("t", 0, record("y"), None).await.unwrap();
}
