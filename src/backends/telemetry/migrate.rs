//! The schema of the store: the migrations this build carries in → each applied once, in order, with its checksum noted.
//!
//! Run at every start. Every statement can be repeated, so a run that was cut short is simply run
//! again, and two runs at once do no harm. What may fail: [`MigrateError`]; a schema newer than the build is refused.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use sha2::{Digest, Sha256};

use super::client::{TelemetryClient, TelemetryError};
use super::read::QueryLimits;
use crate::domain::failure::{Classified, FailureClass};

const DEADLINE: Duration = Duration::from_secs(30);

/// Where applied versions are noted. Not a migration: it has to be there before the first.
const NOTES: &str = "CREATE TABLE IF NOT EXISTS schema_migrations
(version UInt32, name String, checksum String, build String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = MergeTree ORDER BY version
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1";

/// A step of the schema.
#[derive(Debug, Clone, Copy)]
struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

/// All steps in order. A step that was released is never changed: what is to change comes as a new one.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "telemetry",
    sql: include_str!("../../../migrations/clickhouse/V1__telemetry.sql"),
}];

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Version of the schema now.
    pub version: u32,
    /// Versions applied by this run.
    pub applied: Vec<u32>,
}

/// Why the schema is not as this build needs it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// Written by a newer Obtrace.
    #[error(
        "telemetry schema is at version {found}, this build knows up to {known}: start the newer obtrace that wrote it"
    )]
    Newer {
        /// Version in the store.
        found: u32,
        /// Latest version of this build.
        known: u32,
    },
    /// Applied with another text than this build has.
    #[error("telemetry migration V{version} ({name}) was applied with another text than this build carries")]
    Changed {
        /// Its version.
        version: u32,
        /// Its name.
        name: &'static str,
    },
    /// A statement failed.
    #[error("telemetry migration V{version}, statement {statement}: {source}")]
    Statement {
        /// Version of the migration.
        version: u32,
        /// Which statement of it, from 1.
        statement: usize,
        /// What the store said.
        source: TelemetryError,
    },
    /// The store failed before or after the statements.
    #[error("telemetry schema cannot be read: {0}")]
    Store(#[from] TelemetryError),
}

impl Classified for MigrateError {
    fn class(&self) -> FailureClass {
        match self {
            Self::Newer { .. } | Self::Changed { .. } => FailureClass::Config,
            Self::Statement { source, .. } | Self::Store(source) => source.class(),
        }
    }
}

/// A version noted in the store.
struct Noted {
    version: u32,
    checksum: String,
}

/// Brings the schema to what this build needs.
///
/// # Errors
/// Any [`MigrateError`].
pub async fn run(client: &TelemetryClient) -> Result<Migrated, MigrateError> {
    client.create_database().await?;
    client.command(NOTES).await?;
    let noted = noted(client).await?;
    let due = due(MIGRATIONS, &noted)?;
    for migration in &due {
        apply(client, migration).await?;
        note(client, migration).await?;
        tracing::info!(version = migration.version, name = migration.name, "telemetry migration applied");
    }
    let version = MIGRATIONS.last().map_or(0, |migration| migration.version);
    Ok(Migrated { version, applied: due.iter().map(|migration| migration.version).collect() })
}

/// The steps that are still to do, after a look at those that were done.
fn due<'a>(known: &'a [Migration], noted: &[Noted]) -> Result<Vec<&'a Migration>, MigrateError> {
    let latest = known.last().map_or(0, |migration| migration.version);
    if let Some(newest) = noted.iter().map(|note| note.version).max().filter(|version| *version > latest) {
        return Err(MigrateError::Newer { found: newest, known: latest });
    }
    let mut due = Vec::new();
    for migration in known {
        match noted.iter().find(|note| note.version == migration.version) {
            None => due.push(migration),
            Some(note) if note.checksum == checksum(migration.sql) => {}
            Some(_) => {
                return Err(MigrateError::Changed { version: migration.version, name: migration.name });
            }
        }
    }
    Ok(due)
}

async fn noted(client: &TelemetryClient) -> Result<Vec<Noted>, TelemetryError> {
    let sql = "SELECT version, checksum FROM schema_migrations ORDER BY version";
    let result = client.query(sql, &[], &[], QueryLimits::default(), DEADLINE).await?;
    let mut noted = Vec::new();
    for batch in &result.batches {
        let versions = batch.column(0).as_primitive_opt::<UInt32Type>();
        let (Some(versions), Some(checksums)) = (versions, batch.column(1).as_string_opt::<i32>()) else {
            return Err(TelemetryError::Malformed("schema_migrations has columns of other types".into()));
        };
        let rows = versions.values().iter().zip(checksums.iter());
        noted.extend(
            rows.map(|(version, sum)| Noted { version: *version, checksum: sum.unwrap_or("").into() }),
        );
    }
    Ok(noted)
}

async fn apply(client: &TelemetryClient, migration: &Migration) -> Result<(), MigrateError> {
    for (index, sql) in statements(migration.sql).iter().enumerate() {
        let failed =
            |source| MigrateError::Statement { version: migration.version, statement: index + 1, source };
        client.command(sql).await.map_err(failed)?;
    }
    Ok(())
}

async fn note(client: &TelemetryClient, migration: &Migration) -> Result<(), TelemetryError> {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let version: ArrayRef = Arc::new(UInt32Array::from(vec![migration.version]));
    let row = RecordBatch::try_from_iter([
        ("version", version),
        ("name", text(migration.name)),
        ("checksum", text(&checksum(migration.sql))),
        ("build", text(env!("CARGO_PKG_VERSION"))),
    ])?;
    let token = format!("migration-{}", migration.version);
    client.insert("schema_migrations", &[row], &token, DEADLINE).await.map(drop)
}

/// The statements of a file: each ends with a semicolon at the end of a line; lines of comment are left out.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in sql.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let line = line.trim_end();
        current.push_str(line.strip_suffix(';').unwrap_or(line));
        current.push('\n');
        if line.ends_with(';') {
            statements.push(std::mem::take(&mut current).trim().to_owned());
        }
    }
    if !current.trim().is_empty() {
        statements.push(current.trim().to_owned());
    }
    statements
}

/// SHA-256 of what is executed, so that a comment may be mended and line ends do not matter.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(statements(sql).join("\n;\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Migration = Migration { version: 1, name: "old", sql: "-- why\nSELECT 1;\n" };
    const NEW: Migration = Migration { version: 2, name: "new", sql: "SELECT\n  2;\nSELECT 3;" };

    fn noted(migration: &Migration) -> Noted {
        Noted { version: migration.version, checksum: checksum(migration.sql) }
    }

    #[test]
    fn a_file_is_cut_into_statements() {
        assert_eq!(statements(OLD.sql), ["SELECT 1"]);
        assert_eq!(statements(NEW.sql), ["SELECT\n  2", "SELECT 3"]);
        assert_eq!(statements("-- a;\r\n\r\nSELECT ';'\r\n, 1;\r\n"), ["SELECT ';'\n, 1"]);
        assert_eq!(checksum("-- a\nSELECT 1;"), checksum("SELECT 1;\r\n-- b\n"));
        assert_ne!(checksum("SELECT 1;"), checksum("SELECT 2;"));
    }

    #[test]
    fn what_is_due_follows_what_is_noted() {
        let known = [OLD, NEW];
        let versions =
            |noted: &[Noted]| due(&known, noted).map(|due| due.iter().map(|m| m.version).collect::<Vec<_>>());
        assert_eq!(versions(&[]), Ok(vec![1, 2]));
        assert_eq!(versions(&[noted(&OLD)]), Ok(vec![2]));
        assert_eq!(versions(&[noted(&OLD), noted(&OLD), noted(&NEW)]), Ok(vec![]));
        let newer = Noted { version: 3, checksum: String::new() };
        assert_eq!(versions(&[newer]), Err(MigrateError::Newer { found: 3, known: 2 }));
        let changed = Noted { version: 1, checksum: "other".into() };
        assert_eq!(versions(&[changed]), Err(MigrateError::Changed { version: 1, name: "old" }));
    }

    #[test]
    fn the_migrations_of_this_build_are_in_order_and_can_be_repeated() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            for statement in statements(migration.sql) {
                assert!(
                    statement.contains("IF NOT EXISTS") || statement.contains("IF EXISTS"),
                    "{statement}"
                );
            }
        }
    }
}
