//! The schema in Postgres: each step in a transaction of its own, under an advisory lock, as `obtrace_owner`.

use std::time::Duration;

use deadpool_postgres::{Client, GenericClient, Transaction};

use super::fault::{fault_of, fault_of_pool};
use super::{PORT, PgSettings, open};
use crate::backends::fault::PortFault;
use crate::backends::state::migrate::{Note, Plan, STEPS, Step, checksum, plan_of, refuse_newer, same_text};
use crate::domain::failure::FailureClass;

/// Longest that one step takes, with the wait for another process that migrates.
const STEP_WITHIN: Duration = Duration::from_secs(600);
/// The lock of those who migrate, in the database.
const LOCK: i64 = 0x6f62_7472_6163_6501;

const NOTES: &str = "CREATE TABLE IF NOT EXISTS obtrace.schema_migrations \
    (version bigint NOT NULL PRIMARY KEY, name text NOT NULL, checksum text NOT NULL); \
    GRANT SELECT ON obtrace.schema_migrations TO obtrace_app, obtrace_migrate";
const READ_NOTES: &str = "SELECT version, name, checksum FROM obtrace.schema_migrations ORDER BY version";
const NOTE: &str = "INSERT INTO obtrace.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)";

/// What is there and what is to come.
///
/// # Errors
/// As [`crate::backends::state::migrate::plan`].
pub async fn plan(settings: &PgSettings) -> Result<Plan, PortFault> {
    let client = connect(settings).await?;
    let notes = notes(&client).await?;
    plan_of(store(&client).await?, &notes, |step| step.postgres)
}

/// Brings the schema to what this build knows.
///
/// # Errors
/// As [`crate::backends::state::migrate::migrate`].
pub async fn run(settings: &PgSettings) -> Result<(), PortFault> {
    let mut client = connect(settings).await?;
    let prepare = async |tx: &Transaction<'_>| -> Result<Vec<Note>, PortFault> {
        tx.batch_execute(NOTES).await.map_err(|error| fault_of(&error))?;
        notes(tx).await
    };
    let tx = as_owner(&mut client).await?;
    refuse_newer(&prepare(&tx).await?, STEPS.len())?;
    tx.commit().await.map_err(|error| fault_of(&error))?;
    for (version, step) in (1..).zip(STEPS) {
        apply(&mut client, version, step).await?;
    }
    Ok(())
}

/// What a process looks at before it works: every step of its own must be there. A schema that is newer is well: steps
/// only add, so that the old and the new run side by side while a cluster is brought to a new version.
///
/// # Errors
/// Class `Config` where a step is missing or was made from another text.
pub(super) async fn check(client: &Client) -> Result<(), PortFault> {
    let notes = notes(client).await?;
    for (version, step) in (1..).zip(STEPS) {
        match notes.iter().find(|(noted, ..)| *noted == version) {
            Some((.., noted)) => same_text(version, step.name, noted, &checksum(step.postgres))?,
            None => {
                let what = format!("the schema lacks V{version} ({}): run obtrace migrate", step.name);
                return Err(PortFault::new(PORT, FailureClass::Config, what));
            }
        }
    }
    Ok(())
}

async fn connect(settings: &PgSettings) -> Result<Client, PortFault> {
    let one = PgSettings { pool: 1, timeout: STEP_WITHIN, ..settings.clone() };
    open::pool(&one)?.get().await.map_err(|error| fault_of_pool(&error))
}

/// Host and database, for people.
async fn store(client: &Client) -> Result<String, PortFault> {
    let at = "SELECT current_database(), coalesce(host(inet_server_addr()), 'local')";
    let row = client.query_one(at, &[]).await.map_err(|error| fault_of(&error))?;
    let text = |column| row.try_get::<_, String>(column).map_err(|error| fault_of(&error));
    Ok(format!("postgres {} at {}", text(0)?, text(1)?))
}

/// The notes; none where nothing was ever applied.
async fn notes(client: &impl GenericClient) -> Result<Vec<Note>, PortFault> {
    let read = async {
        let made = "SELECT to_regclass('obtrace.schema_migrations') IS NOT NULL";
        if !client.query_one(made, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(Vec::new());
        }
        let rows = client.query(READ_NOTES, &[]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
    };
    read.await.map_err(|error: tokio_postgres::Error| fault_of(&error))
}

/// A transaction as the owner that holds the lock: of several processes one is in it.
async fn as_owner(client: &mut Client) -> Result<Transaction<'_>, PortFault> {
    let begun = async {
        let tx = client.transaction().await?;
        let limit = STEP_WITHIN.as_millis();
        let opening = format!(
            "SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}; SET LOCAL search_path = obtrace; \
             SET LOCAL ROLE obtrace_owner; SELECT pg_advisory_xact_lock({LOCK})"
        );
        tx.batch_execute(&opening).await?;
        Ok(tx)
    };
    begun.await.map_err(|error: tokio_postgres::Error| fault_of(&error))
}

async fn apply(client: &mut Client, version: i64, step: &Step) -> Result<(), PortFault> {
    let checksum = checksum(step.postgres);
    let tx = as_owner(client).await?;
    let found = notes(&tx).await?;
    if let Some((.., noted)) = found.iter().find(|(noted, ..)| *noted == version) {
        return same_text(version, step.name, noted, &checksum);
    }
    let applied = async {
        tx.batch_execute(step.postgres).await?;
        tx.execute(NOTE, &[&version, &step.name, &checksum]).await?;
        tx.commit().await
    };
    applied.await.map_err(|error| {
        let fault = fault_of(&error);
        PortFault { what: format!("migration V{version} ({}): {}", step.name, fault.what), ..fault }
    })?;
    tracing::info!(version, name = step.name, "state migration applied");
    Ok(())
}
