//! A bucket of a test's own on a real S3 server, and requests past everything of Obtrace.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use obtrace::backends::blobs::s3::{Encryption, MIN_PART, S3Blobs, S3Settings};

use super::services::S3;

/// A bucket, as its settings. Emptied and removed with its value.
pub struct Bucket(S3Settings);

impl std::ops::Deref for Bucket {
    type Target = S3Settings;

    fn deref(&self) -> &S3Settings {
        &self.0
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let settings = self.0.clone();
        let emptying = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            // Where the test has ended the server, there is nothing to remove.
            let removing =
                async { tokio::time::timeout(Duration::from_secs(20), remove(&settings)).await.ok() };
            runtime.block_on(removing);
        });
        emptying.join().ok();
    }
}

async fn remove(settings: &S3Settings) -> object_store::Result<()> {
    let store = raw(settings);
    let places = store.list(None).map_ok(|meta| meta.location).boxed();
    store.delete_stream(places).try_collect::<Vec<_>>().await?;
    request(settings, "DELETE", "", &[]).await;
    Ok(())
}

/// Settings for a new bucket on this server.
pub async fn fresh(server: &S3) -> Bucket {
    let settings = S3Settings {
        endpoint: Some(server.endpoint.clone()),
        bucket: format!("t-{}", uuid::Uuid::now_v7().simple()),
        region: "us-east-1".into(),
        keys: Some((server.key.clone(), server.secret.clone())),
        encryption: Encryption::Bucket,
        part_bytes: MIN_PART,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(60),
        ca: None,
    };
    let (status, body) = request(&settings, "PUT", "", &[]).await;
    assert_eq!(status, 200, "the bucket is made: {body}");
    Bucket(settings)
}

/// Blobs by these settings, on the runtime of the test.
pub fn blobs(settings: &S3Settings) -> S3Blobs {
    S3Blobs::new(settings, tokio::runtime::Handle::current()).expect("settings")
}

/// The client without anything around it.
pub fn raw(settings: &S3Settings) -> AmazonS3 {
    let (key, secret) = settings.keys.clone().expect("keys");
    let builder = AmazonS3Builder::new()
        .with_endpoint(settings.endpoint.clone().expect("an endpoint"))
        .with_allow_http(true)
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(key)
        .with_secret_access_key(secret);
    builder.build().expect("settings")
}

/// A signed request: status and body.
pub async fn request(
    settings: &S3Settings,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
) -> (u16, String) {
    let answer = send(settings, method, path, query).await;
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// A header of an object.
pub async fn header(settings: &S3Settings, path: &str, name: &str) -> Option<String> {
    let answer = send(settings, "HEAD", path, &[]).await;
    answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
}

async fn send(settings: &S3Settings, method: &str, path: &str, query: &[(&str, &str)]) -> reqwest::Response {
    let method: reqwest::Method = method.parse().expect("a method");
    let options = SignedUrlOptions::default().with_query(query.iter().copied());
    let (client, place) = (raw(settings), Path::from(path));
    let url = client.signed_url_opts(method.clone(), &place, Duration::from_secs(60), &options).await;
    let url = url.expect("signed");
    reqwest::Client::new().request(method, url).send().await.expect("an answer")
}

/// How many uploads have begun and not ended.
pub async fn open_uploads(settings: &S3Settings) -> usize {
    let (status, body) = request(settings, "GET", "", &[("uploads", "")]).await;
    assert_eq!(status, 200, "{body}");
    body.matches("<Upload>").count()
}
