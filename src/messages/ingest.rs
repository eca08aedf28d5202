//! Messages to the ingest stage.

use bytes::Bytes;

use crate::domain::auth::Grant;
use crate::domain::envelope::WireFormat;
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;
use crate::wire::compress::Encoding;

/// listener → receiver · at least once · ≤ the body limit · idempotent by content hash.
///
/// One export request as it came off the wire, from a client that has been authenticated.
pub struct ReceiveExport {
    /// Which signal the request exports.
    pub signal: Signal,
    /// The body as sent.
    pub body: Bytes,
    /// Encoding of the decompressed body.
    pub format: WireFormat,
    /// Compression of the body.
    pub encoding: Encoding,
    /// What the client may do.
    pub grant: Grant,
    /// When the request came in, Unix nanoseconds.
    pub received_at_ns: u64,
    /// W3C `traceparent` of the request.
    pub trace_context: Option<String>,
    /// Answered once the batch is durable in the log, or refused.
    pub reply: Reply<Result<Accepted, Refusal>>,
}

impl Cargo for ReceiveExport {
    fn weight(&self) -> usize {
        self.body.len()
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }

    fn poisoned(&self, attempts: u32) {
        let text = format!(
            "this request failed inside Obtrace {attempts} times and was given up: send a bug report"
        );
        self.reply.send(Err(Refusal::Internal(text)));
    }
}

impl std::fmt::Debug for ReceiveExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiveExport({} {} bytes, {:?})", self.signal, self.body.len(), self.grant.scope)
    }
}
