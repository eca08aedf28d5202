//! Blobs in a bucket of an S3 server, through `object_store`. The bucket is Obtrace's own: `TENANT/PATH` in it.
//!
//! In: objects. Out: the same, whole or a range. A large body goes in parts, side by side; parts of a write that never
//! ended are removed by `S3Blobs::sweep`. Each write carries an id in its metadata, so that one whose answer was lost is
//! known again. The order of a list is made here: servers differ in theirs. What may fail: see `fault::fault_of`.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, Error, GetOptions, MultipartUpload,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use tokio::runtime::Handle;

use super::{Answer, BlobKey, BlobMeta, BlobStore, PORT, bad_name, is_part, objects};
use crate::backends::fault::PortFault;
use crate::backends::remote::Remote;
use crate::domain::failure::FailureClass;

mod fault;
mod listing;
mod sweep;

use fault::fault_of;

/// Metadata of an object: the id of the write that made it.
const WRITE: &str = "obtrace-write";
/// Smallest part that S3 takes, but for the last one.
pub const MIN_PART: usize = 5 << 20;
/// Parts of one write that are on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// How the server encrypts what it stores.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket is set up.
    #[default]
    Bucket,
    /// SSE-S3: keys of the server (`AES256`).
    S3,
    /// SSE-KMS: a key of its key service (`aws:kms`).
    Kms(String),
}

/// How to reach a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Address of the server; that of AWS for the region where unset.
    pub endpoint: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// Region.
    pub region: String,
    /// Access key and secret; where unset, those of the machine's role (the usual `AWS_…` variables and metadata).
    pub keys: Option<(String, String)>,
    /// Encryption at the server.
    pub encryption: Encryption,
    /// Bodies of more than two parts go in parts of this size.
    pub part_bytes: usize,
    /// Longest wait for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest that one call takes, with all its tries.
    pub timeout: Duration,
    /// For `https`: certificates of the authority that signed the server's, as a PEM file, beside those of the system.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, bucket, region, encryption, .. } = self;
        write!(f, "S3Settings({endpoint:?} {bucket} in {region}, encryption {encryption:?})")
    }
}

/// Blobs in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    store: AmazonS3,
    remote: Remote,
    part_bytes: usize,
    /// For what `object_store` has no call.
    http: reqwest::Client,
}

impl S3Blobs {
    /// Blobs in the bucket of `settings`, by connections on `io`. Connects at the first call.
    ///
    /// # Errors
    /// [`PortFault`] of class `Config`: an address or a certificate that is no such thing.
    pub fn new(settings: &S3Settings, io: Handle) -> Result<Self, PortFault> {
        let config = |what: String| PortFault::new(PORT, FailureClass::Config, what);
        let ca = settings.ca.as_ref().map(|ca| {
            std::fs::read(ca).map_err(|error| config(format!("store.blobs.tls_ca {}: {error}", ca.display())))
        });
        let ca = ca.transpose()?;
        let store = builder(settings, ca.as_deref()).and_then(AmazonS3Builder::build);
        let http = reqwest::Client::builder().connect_timeout(settings.connect_timeout);
        let http = match &ca {
            None => http,
            Some(pem) => {
                let found = reqwest::Certificate::from_pem_bundle(pem);
                let found = found.map_err(|error| config(format!("store.blobs.tls_ca: {error}")))?;
                found.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate)
            }
        };
        Ok(Self {
            store: store.map_err(|error| config(format!("store.blobs: {error}")))?,
            remote: Remote { port: PORT, io, deadline: settings.timeout },
            part_bytes: settings.part_bytes.max(MIN_PART),
            http: http.timeout(settings.timeout).build().map_err(|error| config(error.to_string()))?,
        })
    }

    /// Runs one call on the I/O runtime.
    fn run<T, F>(&self, call: impl FnOnce(Self) -> F) -> Answer<T>
    where
        F: Future<Output = Result<T, PortFault>> + Send + 'static,
        T: Send + 'static,
    {
        self.remote.run(call(self.clone()))
    }

    /// Whether the object at `place` is what the write `id` made.
    async fn is_of(&self, place: &Path, id: &str) -> bool {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let Ok(found) = self.store.get_opts(place, options).await else { return false };
        found.attributes.get(&Attribute::Metadata(WRITE.into())).is_some_and(|made_by| **made_by == *id)
    }

    /// Writes a body part by part.
    async fn put_parts(&self, place: &Path, body: Bytes) -> Result<(), PortFault> {
        let (id, attributes) = marked();
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let mut upload =
            self.store.put_multipart_opts(place, options).await.map_err(|error| fault_of(&error))?;
        match self.upload_parts(&mut *upload, body).await {
            Ok(()) => Ok(()),
            // The answer to the end of the upload may have been lost, and the end have come.
            Err(_) if self.is_of(place, &id).await => Ok(()),
            Err(error) => {
                // Where this fails too, the sweep finds them.
                upload.abort().await.ok();
                Err(fault_of(&error))
            }
        }
    }

    async fn upload_parts(&self, upload: &mut dyn MultipartUpload, body: Bytes) -> Result<(), Error> {
        let parts = (0..body.len()).step_by(self.part_bytes).map(|from| {
            let part = body.slice(from..body.len().min(from + self.part_bytes));
            upload.put_part(PutPayload::from_bytes(part))
        });
        // Numbered in this order, whichever arrives first.
        let parts: Vec<_> = parts.collect();
        stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
        upload.complete().await.map(drop)
    }
}

fn builder(settings: &S3Settings, ca: Option<&[u8]>) -> Result<AmazonS3Builder, Error> {
    let mut client = ClientOptions::new()
        .with_connect_timeout(settings.connect_timeout)
        .with_timeout(settings.timeout)
        .with_allow_http(true);
    if let Some(pem) = ca {
        for certificate in Certificate::from_pem_bundle(pem)? {
            client = client.with_root_certificate(certificate);
        }
    }
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 10,
        retry_timeout: settings.timeout,
    };
    // The environment counts only where the configuration leaves the keys to the machine.
    let from = if settings.keys.is_some() { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
    let mut builder = from
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some((key, secret)) = &settings.keys {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    Ok(match &settings.encryption {
        Encryption::Bucket => builder,
        Encryption::S3 => {
            builder.with_config("aws_server_side_encryption".parse::<AmazonS3ConfigKey>()?, "AES256")
        }
        Encryption::Kms(key) => builder.with_sse_kms_encryption(key),
    })
}

/// The id of a new write, and the metadata that carries it.
fn marked() -> (String, Attributes) {
    let id = uuid::Uuid::now_v7().to_string();
    let attributes = Attributes::from_iter([(Attribute::Metadata(WRITE.into()), id.clone())]);
    (id, attributes)
}

impl BlobStore for S3Blobs {
    fn put(&self, key: &BlobKey, body: Bytes) -> Answer<()> {
        let place = objects::place(key);
        self.run(|this| async move {
            if body.len() > this.part_bytes * 2 {
                return this.put_parts(&place, body).await;
            }
            this.store.put(&place, body.into()).await.map(drop).map_err(|error| fault_of(&error))
        })
    }

    fn put_new(&self, key: &BlobKey, body: Bytes) -> Answer<bool> {
        let place = objects::place(key);
        self.run(|this| async move {
            let (id, attributes) = marked();
            let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
            match this.store.put_opts(&place, body.into(), options).await {
                Ok(_) => Ok(true),
                // It may be there because an earlier try of this very write put it there.
                Err(Error::AlreadyExists { .. }) => Ok(this.is_of(&place, &id).await),
                Err(_) if this.is_of(&place, &id).await => Ok(true),
                Err(error) => Err(fault_of(&error)),
            }
        })
    }

    fn get(&self, key: &BlobKey, range: Option<Range<u64>>) -> Answer<Option<Bytes>> {
        let place = objects::place(key);
        self.run(|this| async move { objects::read(&this.store, &place, range, fault_of).await })
    }

    fn list(&self, tenant: &str, under: &str, after: Option<&str>, most: usize) -> Answer<Vec<BlobMeta>> {
        let parts = under.split('/').filter(|part| !part.is_empty());
        if !is_part(tenant) || !parts.clone().all(is_part) {
            let fault = bad_name(tenant, under);
            return Box::pin(async { Err(fault) });
        }
        let under: String = parts.flat_map(|part| [part, "/"]).collect();
        let (tenant, after): (Arc<str>, _) = (tenant.into(), after.map(str::to_owned));
        self.run(|this| async move { listing::list(&this.store, &tenant, &under, after, most).await })
    }

    fn delete(&self, key: &BlobKey) -> Answer<()> {
        let place = objects::place(key);
        self.run(|this| async move {
            match this.store.delete(&place).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(fault_of(&error)),
            }
        })
    }

    fn sweep(&self, older_than: Duration) -> Answer<u64> {
        self.run(|this| async move { sweep::sweep(&this.store, &this.http, older_than).await })
    }
}
