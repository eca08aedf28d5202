//! Messages to the store stage: rows to insert.

use arrow_array::RecordBatch;

use crate::backends::telemetry::client::TelemetryError;
use crate::supervisors::kernel::lane::Cargo;
use crate::supervisors::kernel::port::Reply;

/// process → telemetry writer · at least once · ≤ the block bounds · idempotent by `token`.
///
/// Insert rows into one table and answer when they are on disk.
pub struct StoreRows {
    /// Table.
    pub table: &'static str,
    /// The rows.
    pub batch: RecordBatch,
    /// Deduplication token: the block id.
    pub token: String,
    /// Answered when the rows are stored, or when the store says that these rows can never be.
    pub reply: Reply<Result<(), TelemetryError>>,
}

impl Cargo for StoreRows {
    fn weight(&self) -> usize {
        self.batch.get_array_memory_size()
    }

    fn poisoned(&self, _attempts: u32) {
        // Dropping the reply tells the sender that the writer is gone; it asks again under the same token.
    }
}

impl std::fmt::Debug for StoreRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreRows({} {} rows, {})", self.table, self.batch.num_rows(), self.token)
    }
}
