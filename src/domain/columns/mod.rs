//! OTLP requests as Arrow columns, one builder a table: request and envelope header in, `RecordBatch` for the store out.
//!
//! The columns are those of `migrations/clickhouse`, by name and type. A record the tables cannot hold is returned as
//! [`Rejected`] with its reason while the rest goes on; a block that would grow too big is [`BlockFull`], and the caller
//! finishes it and appends again. [`restore`] turns stored text back into OTLP values.

mod common;
mod logs;
mod metrics;
mod parts;
mod point;
pub mod restore;
mod spans;
#[cfg(test)]
mod tests;
mod value;

pub use logs::LogColumns;
pub use metrics::MetricColumns;
pub use spans::SpanColumns;
pub use value::Kind;

use crate::domain::failure::{Classified, FailureClass};

/// Most bytes of text a block may hold. Far below the 2 GiB of an Arrow offset and small beside the engine's memory.
pub const MAX_COLUMN_BYTES: usize = 256 * 1024 * 1024;

/// What became of the records of one request.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct AppendOutcome {
    /// Rows added to the block.
    pub stored: u32,
    /// Records left out, in order.
    pub rejected: Vec<Rejected>,
}

/// A record that the table cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which record of the request, counted from 0 in the order of the request.
    pub index: u32,
    /// Why.
    pub reason: Unfit,
}

/// Why a record does not fit the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// An id of the wrong length.
    #[error("{field} has {actual} bytes, it must have {expected} or none")]
    IdLength {
        /// The field of the record.
        field: &'static str,
        /// Bytes it has.
        actual: usize,
        /// Bytes it must have.
        expected: usize,
    },
    /// A time later than the column can hold.
    #[error("{field} is {nanos} ns since 1970, later than the latest time kept ({latest} ns)")]
    Time {
        /// The field of the record.
        field: &'static str,
        /// Its value.
        nanos: u64,
        /// The largest value that would do.
        latest: u64,
    },
    /// An enum value outside 0 to 255.
    #[error("{field} is {value}, it must be from 0 to 255")]
    Enum {
        /// The field of the record.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// The record together with its resource and scope, which are repeated in every row, is too much for one block.
    #[error("record with its resource and scope attributes does not fit into a block of {limit} bytes")]
    TooLarge {
        /// Bytes a block may have.
        limit: usize,
    },
}

impl Unfit {
    /// Short fixed name for counters and the ledger.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::IdLength { .. } => "id_length",
            Self::Time { .. } => "time_range",
            Self::Enum { .. } => "enum_range",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

impl Classified for Unfit {
    fn class(&self) -> FailureClass {
        FailureClass::Poison
    }
}

/// The block has no room for the request. Nothing of it was added: finish the block, then append the request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block holds {held} bytes and the request needs about {needed} more than {MAX_COLUMN_BYTES} allow")]
pub struct BlockFull {
    /// Bytes of text in the block.
    pub held: usize,
    /// Bytes the request would add, estimated.
    pub needed: usize,
}

impl Classified for BlockFull {
    fn class(&self) -> FailureClass {
        FailureClass::Overload
    }
}
