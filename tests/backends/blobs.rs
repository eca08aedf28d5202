//! The contract of the blob port, as functions over any implementation, and its run against a local folder and a bucket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use obtrace::backends::blobs::folder::FolderBlobs;
use obtrace::backends::blobs::{BlobKey, BlobStore};
use obtrace::domain::failure::FailureClass;

use crate::{bucket, services};

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

pub async fn a_large_body_comes_back_whole_and_in_any_range(blobs: Blobs) {
    let body: Bytes = (0..13_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let at = key("a", "large");
    blobs.put(&at, body.clone()).await.unwrap();
    assert!(blobs.get(&at, None).await.unwrap().unwrap() == body);
    for range in [0..1, 5_242_879..5_242_881, 12_999_999..20_000_000] {
        let want = body.slice(range.start as usize..(range.end as usize).min(body.len()));
        assert!(blobs.get(&at, Some(range.clone())).await.unwrap().unwrap() == want, "{range:?}");
    }
    assert!(!blobs.put_new(&at, body.clone()).await.unwrap());
    assert!(blobs.put_new(&key("a", "large2"), body.clone()).await.unwrap());
    assert_eq!(blobs.list("a", "", None, 9).await.unwrap().iter().map(|m| m.size).sum::<u64>(), 26_000_000);
}

pub async fn pages_of_a_list_join_without_a_gap_whatever_sorts_beside_a_slash(blobs: Blobs) {
    // A file and a folder of one name cannot stand side by side on a disk: in a bucket they can (`blobs_s3`).
    let mut all: Vec<String> =
        ["a-b", "a.b/x", "a/b/c", "a/z", "a0", "aa/1/2/3", "b/1-1", "b/10"].map(str::to_owned).into();
    all.extend((0..40).map(|n| format!("many/{n}/x")));
    for path in &all {
        blobs.put(&key("t", path), Bytes::from_static(b"x")).await.unwrap();
    }
    all.sort();
    for most in [1, 2, 3, 7, 100] {
        let (mut joined, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page = paths(&blobs, "t", "", after.as_deref(), most).await;
            assert!(page.len() <= most);
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            joined.extend(page);
        }
        assert_eq!(joined, all, "by pages of {most}");
    }
    for after in ["", "a-", "a.", "a.b/y", "a/", "m", "many/2/x", "many/2/z", "zz"] {
        let want: Vec<&String> = all.iter().filter(|path| path.as_str() > after).collect();
        assert_eq!(
            paths(&blobs, "t", "", Some(after), 100).await.iter().collect::<Vec<_>>(),
            want,
            "{after:?}"
        );
    }
}

pub async fn a_sweep_touches_no_object(blobs: Blobs) {
    assert_eq!(blobs.sweep(Duration::ZERO).await.unwrap(), 0, "nothing is there yet");
    blobs.put(&key("a", "x/one"), Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(blobs.sweep(Duration::ZERO).await.unwrap(), 0);
    assert!(blobs.get(&key("a", "x/one"), None).await.unwrap().is_some());
}

/// Every case against a folder and against a bucket of its own.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod a_folder_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let dir = tempfile::tempdir().expect("tempdir");
                std::fs::create_dir(dir.path().join("blobs")).expect("folder");
                let blobs = std::sync::Arc::new(super::FolderBlobs::new(&dir.path().join("blobs")));
                let run = super::$case(blobs);
                tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("in time");
            }
        )+ }
        mod a_bucket_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let settings = super::bucket::fresh(&super::services::s3()).await;
                let run = super::$case(std::sync::Arc::new(super::bucket::blobs(&settings)));
                tokio::time::timeout(std::time::Duration::from_secs(120), run).await.expect("in time");
            }
        )+ }
    };
}

contract!(
    what_was_put_is_read_whole_or_in_part,
    of_many_who_create_one_wins,
    lists_are_in_order_by_tenant_and_page_by_page,
    what_was_deleted_is_gone_and_twice_is_once,
    no_key_leads_out_of_its_tenant,
    a_large_body_comes_back_whole_and_in_any_range,
    pages_of_a_list_join_without_a_gap_whatever_sorts_beside_a_slash,
    a_sweep_touches_no_object,
);

#[tokio::test]
async fn a_sweep_of_a_folder_takes_files_that_were_never_renamed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let blobs = FolderBlobs::new(dir.path());
    blobs.put(&key("a", "x/one"), Bytes::from_static(b"1")).await.unwrap();
    std::fs::write(dir.path().join("a/x/two#1"), b"half").unwrap();
    assert_eq!(blobs.sweep(Duration::from_secs(3600)).await.unwrap(), 0, "it is young");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(blobs.sweep(Duration::from_millis(10)).await.unwrap(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("a/x")).unwrap().count(), 1);
}

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
