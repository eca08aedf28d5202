//! The door both listeners share: who is it, may it send, and the wait for the session's answer.
//!
//! In: a body and its metadata. Out: [`ReceiveExport`] to the session of its connection, and the answer. What may fail:
//! a missing or wrong key, a plan that allows no more (retryable), a full lane or a failed session (retryable).

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::session::{Connection, SessionDesk, now_s};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::auth::{Denied, Grant, KeyLog, KeyTable};
use crate::domain::envelope::WireFormat;
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::messages::ingest::ReceiveExport;
use crate::messages::tenant::TenantGate;
use crate::telemetry::metrics::Metrics;
use crate::wire::compress::Encoding;
use crate::wire::response::Rejected;
use crate::wire::status::Status;

/// What the listeners hold. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    /// All API keys; replaced as a whole when they change.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// When keys were last used.
    pub key_log: KeyLog,
    /// What tenants may send.
    pub gate: Arc<dyn TenantGate>,
    /// Opens the sessions of connections.
    pub desk: Arc<SessionDesk>,
    /// Counts requests that are refused here.
    pub metrics: Metrics,
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

    /// Who the client is. What the connection has shown before is not looked up again while the key table is the same.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`].
    pub fn admit(
        &self,
        connection: &Connection,
        key: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<Grant, Refusal> {
        let (now_s, table) = (now_s(), self.keys.load_full());
        let remembered = key.and_then(|key| connection.remembers(key, &table, now_s));
        let grant = match remembered {
            Some(grant) => grant,
            None => {
                let denied = |denied: Denied| Refusal::Unauthenticated(denied.to_string());
                let grant = table.admit(key, peer, now_s).map_err(denied)?;
                if let (Some(key), Some(_)) = (key, &grant.key) {
                    connection.remember(key, table, &grant);
                }
                grant
            }
        };
        if let Some(name) = &grant.key {
            self.key_log.touch(name, now_s);
        }
        Ok(grant)
    }

    /// Hands a request to the session of its connection and waits until its batch is on disk.
    ///
    /// # Errors
    /// The receiver's [`Refusal`], or a retryable one where the tenant's plan allows no more for now, the connection has
    /// too much in flight, or the receivers are full, restarting or too slow.
    pub async fn take(
        &self,
        connection: &Connection,
        export: Export,
        grant: Grant,
    ) -> Result<Accepted, Refusal> {
        if let Err(refusal) = self.gate.admit(&grant.scope.tenant, export.signal).await {
            self.metrics.turned_away(export.signal, &refusal);
            return Err(refusal);
        }
        let message = |reply| ReceiveExport {
            signal: export.signal,
            body: export.body,
            format: export.format,
            encoding: export.encoding,
            grant,
            received_at_ns: clock::unix_nanos(),
            trace_context: export.trace_context,
            reply,
        };
        connection.ask(message).await
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

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({:?})", self.desk)
    }
}
