//! The contract of the blob port, as functions over any implementation, and its run against a local folder.

use std::sync::Arc;

use bytes::Bytes;
use obtrace::backends::blobs::folder::FolderBlobs;
use obtrace::backends::blobs::{BlobKey, BlobStore};
use obtrace::domain::failure::FailureClass;

/// A store under test, empty.
pub type Blobs = Arc<dyn BlobStore>;

fn key(tenant: &str, path: &str) -> BlobKey {
    BlobKey::new(tenant, path).expect("a good key")
}

async fn paths(blobs: &Blobs, tenant: &str, under: &str, after: Option<&str>, most: usize) -> Vec<String> {
    let listed = blobs.list(tenant, under, after, most).await.expect("list");
    assert!(listed.iter().all(|meta| meta.key.tenant() == tenant));
    listed.into_iter().map(|meta| meta.key.path().to_owned()).collect()
}

pub async fn what_was_put_is_read_whole_or_in_part(blobs: Blobs) {
    let at = key("a", "x/one");
    assert_eq!(blobs.get(&at, None).await.unwrap(), None);
    blobs.put(&at, Bytes::from_static(b"0123456789")).await.unwrap();
    for (range, want) in
        [(None, "0123456789"), (Some(2..5), "234"), (Some(8..99), "89"), (Some(50..60), ""), (Some(3..3), "")]
    {
        let got = blobs.get(&at, range.clone()).await.unwrap().expect("it is there");
        assert_eq!(got, want.as_bytes(), "{range:?}");
    }
    blobs.put(&at, Bytes::new()).await.unwrap();
    assert_eq!(blobs.get(&at, None).await.unwrap(), Some(Bytes::new()), "the newer one holds");
}

pub async fn of_many_who_create_one_wins(blobs: Blobs) {
    let at = key("a", "lock");
    let tries = (0..8_u8).map(|n| {
        let (blobs, at) = (blobs.clone(), at.clone());
        tokio::spawn(async move { blobs.put_new(&at, Bytes::from(vec![n; 100])).await.unwrap().then_some(n) })
    });
    let mut won = Vec::new();
    for attempt in tries.collect::<Vec<_>>() {
        won.extend(attempt.await.unwrap());
    }
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(blobs.get(&at, None).await.unwrap().unwrap(), vec![won[0]; 100]);
}

pub async fn lists_are_in_order_by_tenant_and_page_by_page(blobs: Blobs) {
    for path in ["b/2", "a/1", "b/1", "c", "b/10"] {
        blobs.put(&key("a", path), Bytes::from_static(b"x")).await.unwrap();
    }
    blobs.put(&key("b", "a/1"), Bytes::from_static(b"y")).await.unwrap();
    blobs.put(&key("ab", "z"), Bytes::from_static(b"z")).await.unwrap();
    assert_eq!(paths(&blobs, "a", "", None, 100).await, ["a/1", "b/1", "b/10", "b/2", "c"]);
    assert_eq!(paths(&blobs, "a", "b", None, 2).await, ["b/1", "b/10"]);
    assert_eq!(paths(&blobs, "a", "b", Some("b/10"), 2).await, ["b/2"]);
    assert!(paths(&blobs, "a", "nothing", None, 9).await.is_empty());
    assert!(paths(&blobs, "nobody", "", None, 9).await.is_empty());
    assert_eq!(
        blobs.list("a", "c", None, 9).await.unwrap().len(),
        0,
        "a folder is asked for, not a beginning"
    );
}

pub async fn what_was_deleted_is_gone_and_twice_is_once(blobs: Blobs) {
    let at = key("a", "x");
    blobs.put(&at, Bytes::from_static(b"1")).await.unwrap();
    blobs.delete(&at).await.unwrap();
    blobs.delete(&at).await.unwrap();
    assert_eq!(blobs.get(&at, None).await.unwrap(), None);
    assert!(blobs.put_new(&at, Bytes::from_static(b"2")).await.unwrap());
}

pub async fn no_key_leads_out_of_its_tenant(blobs: Blobs) {
    for (tenant, path) in [
        ("a", "../b/x"),
        ("..", "x"),
        ("a", "/x"),
        ("a", "x//y"),
        ("", "x"),
        ("a", ""),
        ("a", "."),
        ("a/b", "x"),
        ("a", "x/../../y"),
        ("a", "x\\y"),
        ("a", "x%2F"),
        ("a", "x y"),
        ("a", "\u{0}"),
    ] {
        let fault = BlobKey::new(tenant, path).unwrap_err();
        assert_eq!(fault.class, FailureClass::Poison, "{tenant:?} {path:?}");
    }
    for (tenant, under) in [("..", ""), ("a", ".."), ("a", "x/../.."), ("", "")] {
        assert!(blobs.list(tenant, under, None, 9).await.is_err(), "{tenant:?} {under:?}");
    }
}

macro_rules! contract {
    ($($case:ident),+ $(,)?) => { mod a_folder_keeps_the_contract { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let dir = tempfile::tempdir().expect("tempdir");
            let blobs = std::sync::Arc::new(super::FolderBlobs::new(&dir.path().join("blobs")));
            let run = super::$case(blobs);
            tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("in time");
        }
    )+ } };
}

contract!(
    what_was_put_is_read_whole_or_in_part,
    of_many_who_create_one_wins,
    lists_are_in_order_by_tenant_and_page_by_page,
    what_was_deleted_is_gone_and_twice_is_once,
    no_key_leads_out_of_its_tenant,
);

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_a_dependency_that_is_down() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("blobs"), b"").unwrap();
    let blobs = FolderBlobs::new(&dir.path().join("blobs"));
    let fault = blobs.put(&key("a", "x"), Bytes::new()).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "{fault}");
    std::fs::remove_file(dir.path().join("blobs")).unwrap();
    blobs.put(&key("a", "x"), Bytes::new()).await.expect("it is back");
    assert!(dir.path().join("blobs/a/x").is_file(), "an object is a file below its tenant");
}
