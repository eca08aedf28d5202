//! What only the inside can provoke: a disk whose syncs fail.

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
