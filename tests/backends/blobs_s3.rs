//! Blobs in a bucket beyond the contract: encryption, writes whose answers are lost, a server that is away or overloaded,
//! and the sweep.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions};
use obtrace::backends::blobs::s3::{Encryption, MIN_PART, S3Blobs, S3Settings};
use obtrace::backends::blobs::{BlobKey, BlobStore};
use obtrace::domain::failure::FailureClass;
use tokio::runtime::Handle;

use crate::bucket;
use crate::bucket::Bucket;
use crate::proxy::{Instead, Mode, Proxy};
use crate::services::{self, Private};

const SLOW_DOWN: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn key(path: &str) -> BlobKey {
    BlobKey::new("a", path).expect("a good key")
}

fn large() -> Bytes {
    (0..12_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// The paths below `under`, by pages of at most `most`.
async fn pages(blobs: &S3Blobs, under: &str, most: usize) -> Vec<String> {
    let (mut joined, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page = blobs.list("a", under, after.as_deref(), most).await.unwrap();
        assert!(page.len() <= most);
        let Some(last) = page.last() else { return joined };
        after = Some(last.key.path().to_owned());
        joined.extend(page.into_iter().map(|meta| meta.key.path().to_owned()));
    }
}

/// A bucket behind a proxy: settings that lead through it, and past it.
async fn behind_a_proxy() -> (S3Settings, Bucket, Proxy) {
    let direct = bucket::fresh(&services::s3()).await;
    let endpoint = direct.endpoint.clone().expect("an endpoint");
    let proxy = Proxy::start(endpoint.trim_start_matches("http://"));
    let through = S3Settings { endpoint: Some(proxy.in_front_of(&endpoint)), ..direct.clone() };
    (through, direct, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_asked_to_encrypt_what_is_put_in_one_piece_and_in_parts() {
    let plain = bucket::fresh(&services::s3()).await;
    let settings = S3Settings { encryption: Encryption::S3, ..plain.clone() };
    let blobs = bucket::blobs(&settings);
    blobs.put(&key("small"), Bytes::from_static(b"secret")).await.unwrap();
    blobs.put_new(&key("new"), Bytes::from_static(b"secret")).await.unwrap();
    blobs.put(&key("large"), large()).await.unwrap();
    for path in ["a/small", "a/new", "a/large"] {
        let found = bucket::header(&settings, path, "x-amz-server-side-encryption").await;
        assert_eq!(found.as_deref(), Some("AES256"), "{path}");
    }
    assert_eq!(blobs.get(&key("large"), Some(7..9)).await.unwrap().unwrap(), large().slice(7..9));
    bucket::blobs(&plain).put(&key("plain"), Bytes::new()).await.unwrap();
    let found = bucket::header(&plain, "a/plain", "x-amz-server-side-encryption").await;
    assert_eq!(found, None, "it is the setting that does it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_key_service_encrypts_what_is_put_in_one_piece_and_in_parts() {
    // Its key service makes a key when it is first named, and forgets them all when it ends.
    let server = Private::start("s3");
    let plain = bucket::fresh(&server.s3()).await;
    let settings = S3Settings { encryption: Encryption::Kms("obtrace-blobs".into()), ..plain.clone() };
    let blobs = bucket::blobs(&settings);
    blobs.put(&key("small"), Bytes::from_static(b"secret")).await.unwrap();
    blobs.put_new(&key("new"), Bytes::from_static(b"secret")).await.unwrap();
    blobs.put(&key("large"), large()).await.unwrap();
    bucket::blobs(&plain).put(&key("plain"), Bytes::from_static(b"open")).await.unwrap();
    for (path, how, by) in [
        ("a/small", Some("aws:kms"), Some("obtrace-blobs")),
        ("a/new", Some("aws:kms"), Some("obtrace-blobs")),
        ("a/large", Some("aws:kms"), Some("obtrace-blobs")),
        ("a/plain", None, None),
    ] {
        let found = bucket::header(&settings, path, "x-amz-server-side-encryption").await;
        assert_eq!(found.as_deref(), how, "{path}");
        let found = bucket::header(&settings, path, "x-amz-server-side-encryption-aws-kms-key-id").await;
        assert_eq!(found.as_deref(), by, "{path}");
    }
    assert_eq!(blobs.get(&key("small"), None).await.unwrap().unwrap(), "secret");
    assert!(blobs.get(&key("large"), None).await.unwrap().unwrap() == large());
    // Across the border of two parts, which have keys of their own.
    let border = MIN_PART - 5..MIN_PART + 5;
    let range = border.start as u64..border.end as u64;
    assert_eq!(blobs.get(&key("large"), Some(range)).await.unwrap().unwrap(), large().slice(border));
    assert!(!blobs.put_new(&key("new"), Bytes::from_static(b"other")).await.unwrap(), "it is there");
}

/// Method and query of each request, and what its head says of encryption.
fn asked(proxy: &Proxy) -> Vec<(String, Option<String>, Option<String>)> {
    let of = |head: &String| {
        let line = head.lines().next().unwrap_or_default();
        let header = |name: &str| {
            let values = head.lines().filter_map(|line| line.split_once(": "));
            let mut values = values.filter(|(found, _)| found.eq_ignore_ascii_case(name));
            values.next().map(|(_, value)| value.to_owned())
        };
        let encryption = "x-amz-server-side-encryption";
        (line.to_owned(), header(encryption), header(&format!("{encryption}-aws-kms-key-id")))
    };
    proxy.heads().iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_asked_for_where_an_object_begins_and_nowhere_else() {
    let server = Private::start("s3");
    for (encryption, how, by) in [
        (Encryption::S3, Some("AES256"), None),
        (Encryption::Kms("obtrace-blobs".into()), Some("aws:kms"), Some("obtrace-blobs")),
        (Encryption::Bucket, None, None),
    ] {
        let direct = bucket::fresh(&server.s3()).await;
        let endpoint = direct.endpoint.clone().expect("an endpoint");
        let proxy = Proxy::start(endpoint.trim_start_matches("http://"));
        let endpoint = Some(proxy.in_front_of(&endpoint));
        let blobs = bucket::blobs(&S3Settings { endpoint, encryption, ..direct.clone() });
        proxy.record();
        blobs.put(&key("small"), Bytes::from_static(b"1")).await.unwrap();
        assert!(blobs.put_new(&key("new"), Bytes::from_static(b"1")).await.unwrap());
        blobs.put(&key("large"), large()).await.unwrap();
        blobs.get(&key("large"), Some(1..2)).await.unwrap().unwrap();
        blobs.list("a", "", None, 10).await.unwrap();
        blobs.delete(&key("small")).await.unwrap();

        let (mut begins, mut parts, mut others) = (0, 0, 0);
        for (line, found, with) in asked(&proxy) {
            // AWS refuses the header on parts, on the end of an upload and on reads.
            let (count, how, by) = match &line {
                line if line.contains("partNumber=") => (&mut parts, None, None),
                line if line.starts_with("PUT ") || line.contains("?uploads") => (&mut begins, how, by),
                _ => (&mut others, None, None),
            };
            *count += 1;
            assert_eq!((found.as_deref(), with.as_deref()), (how, by), "{line}");
        }
        assert_eq!((begins, parts), (3, 3), "two whole objects and one of three parts: {:?}", asked(&proxy));
        assert!(others >= 4, "the end of the upload, a read, a list, a removal: {:?}", asked(&proxy));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_key_service_does_not_give_is_for_the_operator() {
    let (through, _bucket, proxy) = behind_a_proxy().await;
    let blobs = bucket::blobs(&S3Settings { encryption: Encryption::Kms("gone".into()), ..through });
    // What AWS answers.
    let body = "<Error><Code>KMS.NotFoundException</Code><Message>Invalid keyId 'gone'</Message></Error>";
    let length = body.len();
    let answer =
        format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    proxy.on_request("PUT /", 1, Instead::Answer(answer.into_bytes()));
    let fault = blobs.put(&key("x"), Bytes::from_static(b"1")).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    for word in ["Invalid keyId 'gone'", "store.blobs.kms_key"] {
        assert!(fault.what.contains(word), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_whose_answer_is_lost_is_still_known_as_ours() {
    let (through, direct, proxy) = behind_a_proxy().await;
    let blobs = bucket::blobs(&through);
    proxy.on_request("PUT /", 1, Instead::LoseAnswer);
    assert!(blobs.put_new(&key("x"), Bytes::from_static(b"mine")).await.unwrap(), "it was written, by us");
    assert_eq!(proxy.applied(), 1);
    assert!(!bucket::blobs(&direct).put_new(&key("x"), Bytes::from_static(b"other")).await.unwrap());
    assert_eq!(blobs.get(&key("x"), None).await.unwrap().unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lost_end_of_an_upload_is_found_to_have_come() {
    let (through, direct, proxy) = behind_a_proxy().await;
    let blobs = bucket::blobs(&through);
    // The second request of that kind, with the id of the upload, is its end.
    proxy.on_request("?uploadId=", 1, Instead::LoseAnswer);
    blobs.put(&key("x"), large()).await.expect("the server had it all");
    assert_eq!(proxy.applied(), 1);
    assert!(blobs.get(&key("x"), None).await.unwrap().unwrap() == large());
    assert_eq!(bucket::open_uploads(&direct).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_overloaded_is_asked_again() {
    let (through, _bucket, proxy) = behind_a_proxy().await;
    let blobs = bucket::blobs(&through);
    proxy.on_request("PUT /", 3, Instead::Answer(SLOW_DOWN.to_vec()));
    blobs.put(&key("x"), Bytes::from_static(b"1")).await.expect("the fourth try");
    proxy.on_request("partNumber=2", 2, Instead::Answer(SLOW_DOWN.to_vec()));
    blobs.put(&key("y"), large()).await.expect("its part was sent again");
    assert_eq!(proxy.applied(), 5);
    assert!(blobs.get(&key("y"), None).await.unwrap().unwrap() == large());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_a_dependency_that_is_down_within_the_deadline() {
    let (through, _bucket, proxy) = behind_a_proxy().await;
    let limit = Duration::from_secs(2);
    let blobs = bucket::blobs(&S3Settings { timeout: limit, connect_timeout: limit, ..through });
    for mode in [Mode::Reset, Mode::HalfOpen] {
        blobs.put(&key("x"), Bytes::from_static(b"1")).await.expect("it is there");
        proxy.set(mode);
        let begun = Instant::now();
        let fault = blobs.put(&key("x"), Bytes::from_static(b"2")).await.unwrap_err();
        assert_eq!(fault.class, FailureClass::Dependency, "{mode:?}: {fault}");
        assert!(begun.elapsed() < limit * 2, "{mode:?}: {:?}", begun.elapsed());
        proxy.set(Mode::Pass);
    }
    proxy.on_request("PUT /", 1000, Instead::Answer(SLOW_DOWN.to_vec()));
    let fault = blobs.put(&key("x"), Bytes::from_static(b"3")).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "it never gets better: {fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_without_an_end_are_swept_and_no_other() {
    let settings = bucket::fresh(&services::s3()).await;
    let (raw, blobs) = (bucket::raw(&settings), bucket::blobs(&settings));
    for path in ["a/one", "b/two/three", "not!ours"] {
        let place = Path::from(path);
        let id = raw.create_multipart(&place).await.unwrap();
        raw.put_part(&place, &id, 0, Bytes::from_static(b"half").into()).await.unwrap();
    }
    blobs.put(&key("whole"), large()).await.unwrap();
    assert_eq!(bucket::open_uploads(&settings).await, 3);
    assert_eq!(blobs.sweep(Duration::from_secs(3600)).await.unwrap(), 0, "they are young");
    // The server tells when they began in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(blobs.sweep(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(bucket::open_uploads(&settings).await, 1, "what no key of ours stands for is left alone");
    assert!(blobs.get(&key("whole"), None).await.unwrap().unwrap() == large());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_uploads_without_an_end_is_read_up_to_a_bound() {
    let (through, _bucket, proxy) = behind_a_proxy().await;
    // More is told of than comes: who waits for all of it fails for another reason.
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\nconnection: close\r\n\r\n".to_vec();
    endless.resize(endless.len() + (5 << 20), b' ');
    proxy.on_request("uploads", 1, Instead::Answer(endless));
    let fault = bucket::blobs(&through).sweep(Duration::ZERO).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Dependency, "{fault}");
    assert!(fault.what.contains("more than 4194304 bytes"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_stands_beside_a_folder_of_its_name_and_pages_join_without_a_gap() {
    let settings = bucket::fresh(&services::s3()).await;
    let blobs = bucket::blobs(&settings);
    let mut all = ["a", "a-b", "a.b/x", "a/b", "a/b/c", "a/z", "a0", "b/1", "b/1-1", "b/1/x", "b/10"];
    for path in all {
        blobs.put(&key(path), Bytes::from_static(b"x")).await.unwrap();
    }
    all.sort();
    for most in [1, 2, 3] {
        assert_eq!(pages(&blobs, "", most).await, all, "by pages of {most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_of_more_than_one_answer_is_whole_and_what_others_put_there_is_passed_over() {
    let settings = bucket::fresh(&services::s3()).await;
    let (raw, blobs) = (bucket::raw(&settings), bucket::blobs(&settings));
    let odd = [
        "0 0",
        "0%",
        "0%20",
        "0+0",
        "0&amp;",
        "0<>\"'",
        "0#?",
        "0~",
        "0[0]",
        "\u{fc}",
        "\u{1f980}/0",
        "x y/0",
    ];
    for name in odd {
        let place = Path::parse(format!("a/many/{name}")).unwrap();
        raw.put_opts(&place, Bytes::from_static(b"odd").into(), PutOptions::default()).await.unwrap();
    }
    // The server tells of a thousand at once.
    let ours: Vec<String> = (0..1_100).map(|n| format!("many/{n:04}.-_Z")).collect();
    let puts = ours.iter().map(|path| blobs.put(&key(path), Bytes::from_static(b"x")));
    futures_util::stream::iter(puts).buffer_unordered(16).try_collect::<()>().await.unwrap();
    let there = raw.list(None).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(there.len(), ours.len() + odd.len());
    for most in [400, 5_000] {
        assert_eq!(pages(&blobs, "many", most).await, ours, "by pages of {most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_leaves_no_parts() {
    let (through, direct, proxy) = behind_a_proxy().await;
    let blobs = bucket::blobs(&S3Settings { timeout: Duration::from_secs(60), ..through });
    let refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    proxy.on_request("partNumber=3", 1, Instead::Answer(refused.to_vec()));
    let fault = blobs.put(&key("x"), large()).await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    assert_eq!(bucket::open_uploads(&direct).await, 0, "it was called off");
    assert_eq!(blobs.get(&key("x"), None).await.unwrap(), None);
}

#[tokio::test]
async fn wrong_keys_and_a_missing_bucket_are_for_the_operator() {
    let good = bucket::fresh(&services::s3()).await;
    let keys = Some(("obtrace-test".to_owned(), "secret-word".to_owned()));
    for settings in
        [S3Settings { keys, ..good.clone() }, S3Settings { bucket: "no-such-bucket".into(), ..good.clone() }]
    {
        let fault = bucket::blobs(&settings).put(&key("x"), Bytes::new()).await.unwrap_err();
        assert_eq!(fault.class, FailureClass::Config, "{fault}");
        assert!(!fault.what.contains("secret-word") && !format!("{settings:?}").contains("secret-word"));
    }
    let fault =
        S3Blobs::new(&S3Settings { ca: Some("no-such-file".into()), ..good.clone() }, Handle::current());
    assert!(fault.unwrap_err().what.contains("tls_ca"));
}
