//! The door both listeners share: who is it, is there room, and the wait for the receiver's answer.
//!
//! In: a body and its metadata. Out: [`ReceiveExport`] to the receivers, and their answer. What may fail: a missing or
//! wrong key, a full lane (retryable), a receiver that is gone (retryable).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::auth::{Denied, Grant, KeyTable};
use crate::domain::envelope::WireFormat;
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::messages::ingest::ReceiveExport;
use crate::supervisors::kernel::port::{Port, PortError};
use crate::wire::compress::Encoding;
use crate::wire::response::Rejected;
use crate::wire::status::Status;

/// How long a client waits for room in the receivers' lane before it is told to come back.
const ROOM_DEADLINE: Duration = Duration::from_secs(2);

/// What the listeners hold. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    /// All API keys; replaced as a whole when they change.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// The receivers.
    pub receivers: Port<ReceiveExport>,
    /// What a request may cost (`ingest.*`), read for each.
    pub config: LiveConfig,
}

/// One export request before it is let in.
pub struct Export {
    /// Signal.
    pub signal: Signal,
    /// Body as sent.
    pub body: Bytes,
    /// Encoding of the decompressed body.
    pub format: WireFormat,
    /// Compression of the body.
    pub encoding: Encoding,
    /// W3C `traceparent`.
    pub trace_context: Option<String>,
}

impl Door {
    /// Most bytes of a body as sent.
    pub fn max_body(&self) -> usize {
        self.config.now().ingest.max_body.as_usize()
    }

    /// Most bytes of a gRPC message, decompressed.
    pub fn max_message(&self) -> usize {
        self.config.now().ingest.grpc_max_message.as_usize()
    }

    /// Time from a request being read to its answer. The receiver gives up first and says why; this only bounds a
    /// receiver that is gone.
    fn deadline(&self) -> Duration {
        self.config.now().ingest.ack_timeout * 2
    }

    /// Who the client is.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`].
    pub fn admit(&self, key: Option<&str>, peer: Option<IpAddr>) -> Result<Grant, Refusal> {
        let now_s = clock::unix_nanos() / 1_000_000_000;
        let denied = |denied: Denied| Refusal::Unauthenticated(denied.to_string());
        self.keys.load().admit(key, peer, now_s).map_err(denied)
    }

    /// Hands a request to the receivers and waits until its batch is on disk.
    ///
    /// # Errors
    /// The receiver's [`Refusal`], or a retryable one where the receivers are full, restarting or too slow.
    pub async fn take(&self, export: Export, grant: Grant) -> Result<Accepted, Refusal> {
        let received_at_ns = clock::unix_nanos();
        let (reply, answer) = crate::supervisors::kernel::port::Reply::new();
        let message = ReceiveExport {
            signal: export.signal,
            body: export.body,
            format: export.format,
            encoding: export.encoding,
            grant,
            received_at_ns,
            trace_context: export.trace_context,
            reply,
        };
        self.receivers.send(message, ROOM_DEADLINE).await.map_err(no_room)?;
        match tokio::time::timeout(self.deadline(), answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(Refusal::unavailable("the receiver restarted while it held this request, send it again"))
            }
            Err(_) => {
                Err(Refusal::unavailable("the request was not durable within the deadline, send it again"))
            }
        }
    }
}

/// The refusal as the `google.rpc.Status` that both transports send.
pub fn status_of(refusal: &Refusal) -> Status {
    let status = Status::new(refusal.grpc_code(), refusal.message());
    match (refusal, refusal.retry_after()) {
        (_, Some(after)) => status.retry_after(after),
        (Refusal::BadData(what), None) => status.violation("body", what),
        _ => status,
    }
}

/// What was refused of a request that was otherwise taken, as OTLP's partial success says it.
pub fn rejected_of(accepted: &Accepted) -> Option<Rejected> {
    (accepted.rejected > 0).then(|| Rejected {
        records: i64::try_from(accepted.rejected).unwrap_or(i64::MAX),
        reason: accepted.message.clone().unwrap_or_default(),
    })
}

fn no_room(error: PortError) -> Refusal {
    match error {
        PortError::Draining => Refusal::unavailable("this instance is shutting down"),
        _ => Refusal::unavailable("the edge is at its limit of requests in flight"),
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({:?})", self.receivers)
    }
}
