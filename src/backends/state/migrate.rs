//! The schema of the state store: the steps this build carries in → each applied once, with its checksum noted.
//!
//! SQLite and Postgres have the same steps under the same numbers, each in its own dialect. A step goes in with its note
//! in one transaction, so a run that was cut short is simply run again; of several that run at once, one applies a step.
//! [`plan`] says what is there and what is to come, [`migrate`] does it. What may fail: the database; a schema that is
//! newer than the build, or was made from another text, is refused.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use super::PORT;
use super::postgres::{self, PgSettings};
use super::sqlite::fault_of;
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// One step of the schema. One that was released is never changed: what is to change comes as a new one.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Name, for people.
    pub name: &'static str,
    /// Its text for SQLite.
    pub sqlite: &'static str,
    /// Its text for Postgres.
    pub postgres: &'static str,
}

/// All steps, from version 1 on.
pub const STEPS: &[Step] = &[
    Step {
        name: "usage_and_keys",
        sqlite: include_str!("../../../migrations/sqlite/V1__usage_and_keys.sql"),
        postgres: include_str!("../../../migrations/postgres/V1__usage_and_keys.sql"),
    },
    Step {
        name: "deploys",
        sqlite: include_str!("../../../migrations/sqlite/V2__deploys.sql"),
        postgres: include_str!("../../../migrations/postgres/V2__deploys.sql"),
    },
    Step {
        name: "versions",
        sqlite: include_str!("../../../migrations/sqlite/V3__versions.sql"),
        postgres: include_str!("../../../migrations/postgres/V3__versions.sql"),
    },
];

/// The roles and the schema in Postgres, which somebody who may make roles runs once for each database.
pub const POSTGRES_ROLES: &str = include_str!("../../../migrations/postgres/roles.sql");

/// Where a state store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// An SQLite file.
    Sqlite(PathBuf),
    /// A Postgres database; the user of its URL is one that may become `obtrace_owner`.
    Postgres(PgSettings),
}

/// A step as it stands in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its number, from 1.
    pub version: u32,
    /// Its name.
    pub name: &'static str,
    /// Its text in the dialect of the store.
    pub text: &'static str,
    /// Whether it has been applied.
    pub applied: bool,
}

/// What is there of the schema, and what is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The store, for people: a path, or host and database.
    pub store: String,
    /// Every step of this build, in order.
    pub steps: Vec<PlannedStep>,
}

impl Plan {
    /// The steps that have not been applied.
    pub fn pending(&self) -> impl Iterator<Item = &PlannedStep> {
        self.steps.iter().filter(|step| !step.applied)
    }
}

/// What a store has noted of a step: number, name and checksum.
pub(super) type Note = (i64, String, String);

/// Says what [`migrate`] would do, and changes nothing.
///
/// # Errors
/// [`PortFault`]: of class `Config` where the schema belongs to a newer or another build.
pub async fn plan(place: &Place) -> Result<Plan, PortFault> {
    match place.clone() {
        Place::Postgres(settings) => postgres::migrate::plan(&settings).await,
        Place::Sqlite(file) => {
            off_thread(move || {
                let notes = if file.exists() { sqlite_notes(&file)? } else { Vec::new() };
                plan_of(file.display().to_string(), &notes, |step| step.sqlite)
            })
            .await
        }
    }
}

/// Brings the schema to what this build knows. Returns the plan as it was before: what was pending has been applied.
///
/// # Errors
/// As [`plan`], and what the database says to a step; those before it stay.
pub async fn migrate(place: &Place) -> Result<Plan, PortFault> {
    let before = plan(place).await?;
    match place.clone() {
        Place::Postgres(settings) => postgres::migrate::run(&settings).await?,
        Place::Sqlite(file) => off_thread(move || super::sqlite::open(&file).map(drop)).await?,
    }
    Ok(before)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortFault> + Send + 'static,
) -> Result<T, PortFault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(PortFault::new(PORT, FailureClass::Bug, error.to_string())))
}

/// Lays the notes of a store beside the steps of this build.
///
/// # Errors
/// Class `Config`, where a step was applied with another text or one is noted that this build does not have.
pub(super) fn plan_of(
    store: String,
    notes: &[Note],
    text: impl Fn(&Step) -> &'static str,
) -> Result<Plan, PortFault> {
    refuse_newer(notes, STEPS.len())?;
    let steps = (1..).zip(STEPS).map(|(version, step)| {
        let note = notes.iter().find(|(noted, ..)| *noted == i64::from(version));
        if let Some((.., noted)) = note {
            same_text(i64::from(version), step.name, noted, &checksum(text(step)))?;
        }
        Ok(PlannedStep { version, name: step.name, text: text(step), applied: note.is_some() })
    });
    Ok(Plan { store, steps: steps.collect::<Result<_, _>>()? })
}

/// # Errors
/// Class `Config`, where the store knows more steps than `known`.
pub(super) fn refuse_newer(notes: &[Note], known: usize) -> Result<(), PortFault> {
    let newest = notes.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    if usize::try_from(newest).is_ok_and(|newest| newest <= known) {
        return Ok(());
    }
    let what = format!(
        "the schema is at version {newest}, this build knows up to {known}: start the newer obtrace that wrote it"
    );
    Err(PortFault::new(PORT, FailureClass::Config, what))
}

/// # Errors
/// Class `Config`, where the two checksums differ.
pub(super) fn same_text(version: i64, name: &str, noted: &str, ours: &str) -> Result<(), PortFault> {
    if noted == ours {
        return Ok(());
    }
    let what = format!("migration V{version} ({name}) was applied with another text than this build carries");
    Err(PortFault::new(PORT, FailureClass::Config, what))
}

/// The checksum that is noted of a text.
pub(super) fn checksum(sql: &str) -> String {
    Sha256::digest(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

// === SQLite ===

const NOTES: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
    (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL) STRICT";
const READ_NOTES: &str = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";

/// Brings an SQLite file to what this build knows.
///
/// # Errors
/// [`PortFault`]: of class `Config` where the file belongs to a newer or another build.
pub(super) fn sqlite(connection: &mut Connection) -> Result<(), PortFault> {
    connection.execute_batch(NOTES).map_err(|error| fault_of(&error))?;
    refuse_newer(&notes(connection).map_err(|error| fault_of(&error))?, STEPS.len())?;
    for (version, step) in (1..).zip(STEPS) {
        apply(connection, version, step)?;
    }
    Ok(())
}

/// The notes of a file, which is not written to.
fn sqlite_notes(file: &std::path::Path) -> Result<Vec<Note>, PortFault> {
    let read = || {
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let made = "SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'";
        if connection.query_row(made, [], |_| Ok(())).optional()?.is_none() {
            return Ok(Vec::new());
        }
        notes(&connection)
    };
    read().map_err(|error: rusqlite::Error| fault_of(&error))
}

fn notes(connection: &Connection) -> rusqlite::Result<Vec<Note>> {
    let mut read = connection.prepare(READ_NOTES)?;
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn apply(connection: &mut Connection, version: i64, step: &Step) -> Result<(), PortFault> {
    let checksum = checksum(step.sqlite);
    let mut run = || -> rusqlite::Result<Option<String>> {
        // The lock comes first: two processes that start at once apply it once.
        let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let noted = "SELECT checksum FROM schema_migrations WHERE version = ?1";
        let noted: Option<String> = write.query_row(noted, [version], |row| row.get(0)).optional()?;
        if noted.is_none() {
            write.execute_batch(step.sqlite)?;
            write.execute(
                "INSERT INTO schema_migrations VALUES (?1, ?2, ?3)",
                params![version, step.name, checksum],
            )?;
            tracing::info!(version, name = step.name, "state migration applied");
        }
        write.commit()?;
        Ok(noted)
    };
    match run().map_err(|error| fault_of(&error))? {
        Some(noted) => same_text(version, step.name, &noted, &checksum),
        None => Ok(()),
    }
}
