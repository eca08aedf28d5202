//! What an S3 server says when a call fails → the class that decides what happens next.

use std::error::Error as _;

use object_store::Error;

use super::PORT;
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// About a key of the key service that it does not give.
const NO_KEY: &str =
    "see to store.blobs.kms_key: the key has to be there, enabled and in the region of the bucket";

/// The fault of a call. That an object is not there is no fault, and does not come here but where the bucket is meant.
pub(super) fn fault_of(error: &Error) -> PortFault {
    let text = chain(error);
    let (class, advice) = match error {
        Error::InvalidPath { .. } => (FailureClass::Poison, "the key is none"),
        Error::NotFound { .. } => {
            (FailureClass::Config, "there is no such bucket: make it, or see to store.blobs.bucket")
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            (FailureClass::Config, "see to the keys in store.blobs and what they may do")
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
            (FailureClass::Bug, "send a bug report")
        }
        // Codes of AWS: KMS.NotFoundException, KMS.DisabledException and so on, with 400.
        _ if text.contains("<Code>KMS.") && status_in(&text) == Some(400) => (FailureClass::Config, NO_KEY),
        _ => class_of(status_in(&text)),
    };
    PortFault::new(PORT, class, format!("{text} ({advice})"))
}

/// The class of an HTTP status, or of no answer at all.
pub(super) fn class_of(status: Option<u16>) -> (FailureClass, &'static str) {
    match status {
        Some(401 | 403) => (FailureClass::Config, "see to the keys in store.blobs and what they may do"),
        Some(404) => (FailureClass::Config, "there is no such bucket: make it, or see to store.blobs.bucket"),
        Some(301 | 307 | 308) => (FailureClass::Config, "see to store.blobs.region and endpoint"),
        Some(409 | 429) => (FailureClass::Overload, "others write the same, or it is asked too much"),
        Some(408 | 500..) | None => (FailureClass::Dependency, "see to the S3 server"),
        Some(_) => (FailureClass::Config, "the server refuses the request: see to store.blobs"),
    }
}

/// The status that the client's words name.
fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn chain(error: &Error) -> String {
    let text = error.to_string();
    // The client's words hold those of its sources; one that does not say its source is asked for it.
    match error.source() {
        Some(source) if !text.contains(&source.to_string()) => format!("{text}: {source}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_class_that_helps() {
        let words =
            "Error performing PUT http://h/b/k in 3ms - Server returned non-2xx status code: 503 Slow: x";
        assert_eq!(status_in(words), Some(503));
        assert_eq!(status_in("error sending request"), None);
        for (status, class) in [
            (None, FailureClass::Dependency),
            (Some(500), FailureClass::Dependency),
            (Some(503), FailureClass::Dependency),
            (Some(429), FailureClass::Overload),
            (Some(403), FailureClass::Config),
            (Some(400), FailureClass::Config),
            (Some(301), FailureClass::Config),
        ] {
            assert_eq!(class_of(status).0, class, "{status:?}");
        }
    }
}
