//! The schema of the store: the migrations this build carries in → each applied once, in order, with its checksum noted.
//!
//! Run by `obtrace migrate`, and at a start where `migrate_on_start` says so. Every statement can be repeated, so a run
//! that was cut short is simply run again, and two runs at once do no harm. [`plan`] says what a run would do. What may
//! fail: [`MigrateError`]; a schema newer than the build is refused.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array};

use super::client::{TelemetryClient, TelemetryError};
use super::read::QueryLimits;
use super::schema::{Layout, checksum};
use crate::domain::failure::{Classified, FailureClass};

const DEADLINE: Duration = Duration::from_secs(30);
/// What a store says of a database and of a table that is not there.
const NOTHING_THERE: [i32; 2] = [81, 60];

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

/// What there is of the schema, and what a run would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Version of the schema as it is; 0 where there is none.
    pub version: u32,
    /// Version that this build needs.
    pub latest: u32,
    /// What is to be done, in order.
    pub steps: Vec<Step>,
}

/// A step to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name, such as `V1 telemetry`.
    pub name: String,
    /// Its statements.
    pub statements: Vec<String>,
}

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
    /// Made for one server where a cluster is wanted, or the other way round.
    #[error(
        "telemetry migration V{version} was applied as {found:?}, telemetry.cluster asks for {wanted:?}: set another telemetry.database, what is there stays as it is"
    )]
    OtherLayout {
        /// Its version.
        version: u32,
        /// The name it was noted under.
        found: String,
        /// The name it has here.
        wanted: String,
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
    /// A statement of the users and policies failed.
    #[error("telemetry access, {step}, statement {statement}: {source}")]
    Access {
        /// The step.
        step: String,
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
            Self::Newer { .. } | Self::Changed { .. } | Self::OtherLayout { .. } => FailureClass::Config,
            Self::Statement { source, .. } | Self::Access { source, .. } | Self::Store(source) => {
                source.class()
            }
        }
    }
}

/// A version noted in the store.
struct Noted {
    version: u32,
    name: String,
    checksum: String,
}

/// Says what [`run`] would do, and changes nothing.
///
/// # Errors
/// Any [`MigrateError`] but that of a statement.
pub async fn plan(client: &TelemetryClient, layout: &Layout) -> Result<Plan, MigrateError> {
    let noted = match noted(client).await {
        Err(TelemetryError::Exception { code, .. }) if NOTHING_THERE.contains(&code) => Vec::new(),
        noted => noted?,
    };
    let due = due(MIGRATIONS, &noted, layout)?;
    let steps = due.iter().map(|migration| Step {
        name: format!("V{} {}", migration.version, layout.name_of(migration.name)),
        statements: layout.statements(migration.sql, client.database()),
    });
    let version = noted.iter().map(|note| note.version).max().unwrap_or(0);
    Ok(Plan { version, latest: latest(), steps: steps.collect() })
}

/// What a run does in a store in which there is nothing yet.
pub fn whole(layout: &Layout, database: &str) -> Plan {
    let steps = MIGRATIONS.iter().map(|migration| Step {
        name: format!("V{} {}", migration.version, layout.name_of(migration.name)),
        statements: layout.statements(migration.sql, database),
    });
    Plan { version: 0, latest: latest(), steps: steps.collect() }
}

/// Brings the schema to what this build needs.
///
/// # Errors
/// Any [`MigrateError`].
pub async fn run(client: &TelemetryClient, layout: &Layout) -> Result<Migrated, MigrateError> {
    client.create_database(&layout.on_cluster()).await?;
    client.command(&layout.notes()).await?;
    let noted = noted(client).await?;
    let due = due(MIGRATIONS, &noted, layout)?;
    for migration in &due {
        apply(client, migration, layout).await?;
        note(client, migration, layout).await?;
        tracing::info!(version = migration.version, name = migration.name, "telemetry migration applied");
    }
    Ok(Migrated { version: latest(), applied: due.iter().map(|migration| migration.version).collect() })
}

fn latest() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// The steps that are still to do, after a look at those that were done.
fn due<'a>(
    known: &'a [Migration],
    noted: &[Noted],
    layout: &Layout,
) -> Result<Vec<&'a Migration>, MigrateError> {
    let latest = known.last().map_or(0, |migration| migration.version);
    if let Some(newest) = noted.iter().map(|note| note.version).max().filter(|version| *version > latest) {
        return Err(MigrateError::Newer { found: newest, known: latest });
    }
    let mut due = Vec::new();
    for migration in known {
        let (version, name) = (migration.version, migration.name);
        let wanted = layout.name_of(name);
        match noted.iter().find(|note| note.version == version) {
            None => due.push(migration),
            Some(Noted { name: found, .. }) if *found != wanted => {
                return Err(MigrateError::OtherLayout { version, found: found.clone(), wanted });
            }
            Some(note) if note.checksum == checksum(migration.sql) => {}
            Some(_) => return Err(MigrateError::Changed { version, name }),
        }
    }
    Ok(due)
}

async fn noted(client: &TelemetryClient) -> Result<Vec<Noted>, TelemetryError> {
    let sql = "SELECT version, name, checksum FROM schema_migrations ORDER BY version";
    let result = client.query(sql, &[], &[], QueryLimits::default(), DEADLINE).await?;
    let mut noted = Vec::new();
    for batch in &result.batches {
        let versions = batch.column(0).as_primitive_opt::<UInt32Type>();
        let texts = |column| batch.column(column).as_string_opt::<i32>();
        let (Some(versions), Some(names), Some(checksums)) = (versions, texts(1), texts(2)) else {
            return Err(TelemetryError::Malformed("schema_migrations has columns of other types".into()));
        };
        let rows = versions.values().iter().zip(names.iter()).zip(checksums.iter());
        noted.extend(rows.map(|((version, name), sum)| Noted {
            version: *version,
            name: name.unwrap_or("").into(),
            checksum: sum.unwrap_or("").into(),
        }));
    }
    Ok(noted)
}

/// The first column of a statement about the store itself, which names the database of each table.
pub(super) async fn texts(client: &TelemetryClient, sql: &str) -> Result<Vec<String>, TelemetryError> {
    let result = client.query_system(sql, QueryLimits::default(), DEADLINE).await?;
    let mut texts = Vec::new();
    for batch in &result.batches {
        let Some(column) = batch.column(0).as_string_opt::<i32>() else {
            return Err(TelemetryError::Malformed("a name is no text".into()));
        };
        texts.extend(column.iter().flatten().map(str::to_owned));
    }
    Ok(texts)
}

async fn apply(client: &TelemetryClient, migration: &Migration, layout: &Layout) -> Result<(), MigrateError> {
    for (index, sql) in layout.statements(migration.sql, client.database()).iter().enumerate() {
        let failed =
            |source| MigrateError::Statement { version: migration.version, statement: index + 1, source };
        client.command(sql).await.map_err(failed)?;
    }
    Ok(())
}

async fn note(
    client: &TelemetryClient,
    migration: &Migration,
    layout: &Layout,
) -> Result<(), TelemetryError> {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let version: ArrayRef = Arc::new(UInt32Array::from(vec![migration.version]));
    let row = RecordBatch::try_from_iter([
        ("version", version),
        ("name", text(&layout.name_of(migration.name))),
        ("checksum", text(&checksum(migration.sql))),
        ("build", text(env!("CARGO_PKG_VERSION"))),
    ])?;
    let token = format!("migration-{}", migration.version);
    client.insert("schema_migrations", &[row], &token, DEADLINE).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::telemetry::schema::Cluster;

    const OLD: Migration = Migration { version: 1, name: "old", sql: "-- why\nSELECT 1;\n" };
    const NEW: Migration = Migration { version: 2, name: "new", sql: "SELECT\n  2;\nSELECT 3;" };

    fn noted(migration: &Migration) -> Noted {
        Noted { version: migration.version, name: migration.name.into(), checksum: checksum(migration.sql) }
    }

    #[test]
    fn what_is_due_follows_what_is_noted() {
        let known = [OLD, NEW];
        let versions = |noted: &[Noted]| {
            due(&known, noted, &Layout::Single).map(|due| due.iter().map(|m| m.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(&[]), Ok(vec![1, 2]));
        assert_eq!(versions(&[noted(&OLD)]), Ok(vec![2]));
        assert_eq!(versions(&[noted(&OLD), noted(&OLD), noted(&NEW)]), Ok(vec![]));
        let newer = Noted { version: 3, ..noted(&NEW) };
        assert_eq!(versions(&[newer]), Err(MigrateError::Newer { found: 3, known: 2 }));
        let changed = Noted { checksum: "other".into(), ..noted(&OLD) };
        assert_eq!(versions(&[changed]), Err(MigrateError::Changed { version: 1, name: "old" }));
        let other = Noted { name: "old (cluster)".into(), ..noted(&OLD) };
        let (found, wanted) = ("old (cluster)".into(), "old".into());
        assert_eq!(versions(&[other]), Err(MigrateError::OtherLayout { version: 1, found, wanted }));
    }

    #[test]
    fn the_migrations_of_this_build_are_in_order_and_can_be_repeated() {
        let cluster = Layout::Cluster(Cluster {
            name: "c".into(),
            keeper_path: "/p".into(),
            replica: "r".into(),
            window_seconds: 1,
        });
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            for layout in [&Layout::Single, &cluster] {
                for statement in layout.statements(migration.sql, "db") {
                    assert!(!statement.contains("${"), "{statement}");
                    assert!(
                        statement.contains("IF NOT EXISTS") || statement.contains("IF EXISTS"),
                        "{statement}"
                    );
                }
            }
        }
    }

    /// Stores that exist have noted this: a released step is never changed.
    #[test]
    fn a_released_migration_keeps_its_checksum() {
        assert_eq!(
            checksum(MIGRATIONS[0].sql),
            "f498e03e1428b347cfb799d417ca9a9ea83d543e226f319e35725cd54af5983c"
        );
    }
}
