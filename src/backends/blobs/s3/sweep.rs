//! Removes the parts of uploads that never ended: a process that died in the midst of one left them, and they cost money.
//!
//! `object_store` can abort an upload and not list them, so the list is one signed request of our own. What may fail: the
//! server; what was removed until then stays removed.

use std::time::Duration;

use jiff::Timestamp;
use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};

use super::PORT;
use super::fault::{class_of, fault_of};
use crate::backends::blobs::objects;
use crate::backends::fault::PortFault;
use crate::clock;
use crate::domain::failure::FailureClass;

/// How long the signature of a list holds.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Largest answer of the server that is read: a page has a thousand entries.
const MOST_ANSWER: usize = 4 << 20;

/// An upload that was begun.
#[derive(Debug, PartialEq, Eq)]
struct Upload {
    key: String,
    id: String,
    begun_ns: u64,
}

/// Aborts our uploads that were begun before `older_than`; returns how many.
pub(super) async fn sweep(
    store: &AmazonS3,
    http: &reqwest::Client,
    older_than: Duration,
) -> Result<u64, PortFault> {
    let now = clock::unix_nanos();
    let before = now.saturating_sub(u64::try_from(older_than.as_nanos()).unwrap_or(u64::MAX));
    let mut aborted = 0;
    let mut from: Option<(String, String)> = None;
    loop {
        let page = page(store, http, from.as_ref()).await?;
        for upload in uploads(&page) {
            let place = Path::from(upload.key.as_str());
            // What we could not have begun is not ours to end.
            if upload.begun_ns < before && objects::key_of(&place).is_some() {
                match store.abort_multipart(&place, &upload.id).await {
                    // One that ended meanwhile is gone too.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => aborted += 1,
                    Err(error) => return Err(fault_of(&error)),
                }
            }
        }
        let next = (element(&page, "NextKeyMarker"), element(&page, "NextUploadIdMarker"));
        match (element(&page, "IsTruncated").as_deref(), next) {
            (Some("true"), (Some(key), Some(id))) if from.as_ref() != Some(&(key.clone(), id.clone())) => {
                from = Some((key, id));
            }
            _ => return Ok(aborted),
        }
    }
}

/// One page of the list of uploads, as XML.
async fn page(
    store: &AmazonS3,
    http: &reqwest::Client,
    from: Option<&(String, String)>,
) -> Result<String, PortFault> {
    let mut query = vec![("uploads", String::new())];
    if let Some((key, id)) = from {
        query.extend([("key-marker", key.clone()), ("upload-id-marker", id.clone())]);
    }
    let options = SignedUrlOptions::default().with_query(query);
    let bucket = Path::default();
    let url = store.signed_url_opts(http::Method::GET, &bucket, SIGNED_FOR, &options).await;
    let url = url.map_err(|error| fault_of(&error))?;
    let away = |what: String| PortFault::new(PORT, FailureClass::Dependency, what);
    // Without the URL: a signature is in it.
    let mut answer = http.get(url).send().await.map_err(|error| away(error.without_url().to_string()))?;
    let status = answer.status().as_u16();
    if status != 200 {
        let (class, advice) = class_of(Some(status));
        return Err(PortFault::new(PORT, class, format!("the list of uploads: status {status} ({advice})")));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| away(error.without_url().to_string()))? {
        if body.len() + chunk.len() > MOST_ANSWER {
            return Err(away(format!("the list of uploads has more than {MOST_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn uploads(page: &str) -> impl Iterator<Item = Upload> {
    page.split("<Upload>").skip(1).filter_map(|rest| {
        let upload = rest.split("</Upload>").next()?;
        let begun: Timestamp = element(upload, "Initiated")?.parse().ok()?;
        Some(Upload {
            key: element(upload, "Key")?,
            id: element(upload, "UploadId")?,
            begun_ns: u64::try_from(begun.as_nanosecond()).ok()?,
        })
    })
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    Some(plain.iter().fold(text.to_owned(), |text, (coded, plain)| text.replace(coded, plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "<?xml version=\"1.0\"?><ListMultipartUploadsResult><Bucket>b</Bucket><IsTruncated>false</IsTruncated>\
            <Upload><Key>a/x</Key><UploadId>1&amp;2</UploadId><Initiated>1970-01-01T00:00:01.500Z</Initiated></Upload>\
            <Upload><Key>a/y</Key><UploadId>3</UploadId><Initiated>soon</Initiated></Upload></ListMultipartUploadsResult>";
        let found: Vec<Upload> = uploads(page).collect();
        assert_eq!(found, [Upload { key: "a/x".into(), id: "1&2".into(), begun_ns: 1_500_000_000 }]);
        assert_eq!(element(page, "IsTruncated").as_deref(), Some("false"));
        assert_eq!(element(page, "NextKeyMarker"), None);
    }
}
