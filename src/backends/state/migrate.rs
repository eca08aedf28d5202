//! The schema of the state store: the migrations this build carries in → each applied once, with its checksum noted.
//!
//! A version goes in with its note in one transaction, so a run that was cut short is simply run again. What may fail:
//! SQLite itself; a schema that is newer than the build, or was made from another text, is refused.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use super::sqlite::{PORT, fault_of};
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// All steps in order: name and text. One that was released is never changed: what is to change comes as a new one.
pub const MIGRATIONS: &[(&str, &str)] =
    &[("usage_and_keys", include_str!("../../../migrations/sqlite/V1__usage_and_keys.sql"))];

const NOTES: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
    (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL) STRICT";

/// Brings the schema to what `steps` make of it.
///
/// # Errors
/// [`PortFault`]: of class `Config` where the file belongs to a newer or another build.
pub fn run(connection: &mut Connection, steps: &[(&str, &str)]) -> Result<(), PortFault> {
    connection.execute_batch(NOTES).map_err(|error| fault_of(&error))?;
    refuse_newer(connection, steps.len())?;
    for (version, step) in (1..).zip(steps) {
        apply(connection, version, step)?;
    }
    Ok(())
}

fn refuse_newer(connection: &Connection, known: usize) -> Result<(), PortFault> {
    let newest: i64 = connection
        .query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |row| row.get(0))
        .map_err(|error| fault_of(&error))?;
    if usize::try_from(newest).is_ok_and(|newest| newest <= known) {
        return Ok(());
    }
    let what = format!(
        "the schema is at version {newest}, this build knows up to {known}: start the newer obtrace that wrote it"
    );
    Err(PortFault::new(PORT, FailureClass::Config, what))
}

fn apply(connection: &mut Connection, version: i64, (name, sql): &(&str, &str)) -> Result<(), PortFault> {
    let checksum = checksum(sql);
    let run = || -> rusqlite::Result<Option<String>> {
        // The lock comes first: two processes that start at once apply it once.
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let noted = "SELECT checksum FROM schema_migrations WHERE version = ?1";
        let noted: Option<String> = step.query_row(noted, [version], |row| row.get(0)).optional()?;
        if noted.is_none() {
            step.execute_batch(sql)?;
            step.execute(
                "INSERT INTO schema_migrations VALUES (?1, ?2, ?3)",
                params![version, name, checksum],
            )?;
            tracing::info!(version, name, "state migration applied");
        }
        step.commit()?;
        Ok(noted)
    };
    let mut run = run;
    match run().map_err(|error| fault_of(&error))? {
        Some(noted) if noted != checksum => {
            let what = format!(
                "migration V{version} ({name}) was applied with another text than this build carries"
            );
            Err(PortFault::new(PORT, FailureClass::Config, what))
        }
        _ => Ok(()),
    }
}

fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
