//! The embedded state store: one SQLite file, one thread that owns the connection.
//!
//! In: calls from any thread, through a bounded queue. Out: answers once the transaction is synced (WAL,
//! `synchronous = FULL`). The file is opened at the first call and again after it was found damaged, so that a folder
//! that cannot be written is a fault of each call and not of the start. What may fail: a file that is busy, full, damaged or not ours (`fault_of`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, KeyUse, PORT, StateStore, after, in_order, migrate, signed, statements, unsigned};
use crate::backends::fault::PortFault;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::failure::FailureClass;
use crate::domain::usage::{Day, Usage, UsageRow};
use crate::domain::versions::VersionSeen;

/// Calls that wait for the thread.
const QUEUE: usize = 256;
/// How long SQLite waits for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(1);

/// A call on its way to the thread.
type Job = Box<dyn FnOnce(&mut File) + Send>;

/// State in an SQLite file. Cheap to clone; the thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct SqliteState {
    jobs: mpsc::Sender<Job>,
}

/// The file as the thread sees it.
struct File {
    path: PathBuf,
    open: Option<Connection>,
}

impl SqliteState {
    /// State in the file at `path`, which is made at the first call.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let mut file = File { path: path.to_owned(), open: None };
        std::thread::Builder::new().name("state".into()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut file);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the thread, in its turn. Work that nobody waits for any more is skipped.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |file| {
            if !reply.is_closed() {
                reply.send(file.run(work)).ok();
            }
        });
        let queued = self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                PortFault::new(PORT, FailureClass::Overload, format!("{QUEUE} calls wait already"))
            }
            mpsc::error::TrySendError::Closed(_) => gone(),
        });
        Box::pin(async move {
            queued?;
            answer.await.map_err(|_| gone())?
        })
    }
}

fn gone() -> PortFault {
    PortFault::new(PORT, FailureClass::Bug, "its thread has ended")
}

impl File {
    fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, PortFault> {
        if self.open.is_none() {
            self.open = Some(open(&self.path)?);
        }
        let Some(connection) = &mut self.open else { return Err(gone()) };
        let result = work(connection).map_err(|error| fault_of(&error));
        if result.as_ref().is_err_and(|fault| fault.class == FailureClass::Config) {
            // Somebody may put a whole file in its place.
            self.open = None;
        }
        result
    }
}

/// Opens the file and brings its schema up to date.
pub(super) fn open(path: &Path) -> Result<Connection, PortFault> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            let what = format!("cannot make the folder {}: {error}", folder.display());
            PortFault::new(PORT, FailureClass::Dependency, what)
        })?;
    }
    let set_up = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    let mut connection = set_up().map_err(|error: rusqlite::Error| {
        let fault = fault_of(&error);
        PortFault { what: format!("{}: {}", path.display(), fault.what), ..fault }
    })?;
    migrate::sqlite(&mut connection)?;
    Ok(connection)
}

/// SQLite's error by what can be done about it: a lock passes, a full or lost disk is a dependency that is down, a
/// damaged file needs an operator, and all else is a fault of this code.
pub(super) fn fault_of(error: &rusqlite::Error) -> PortFault {
    let code = error.sqlite_error_code();
    let (class, advice) = match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (FailureClass::Overload, "another process holds the file")
        }
        Some(ErrorCode::DiskFull) => (FailureClass::Dependency, "make room on the disk of the data folder"),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory,
        ) => (FailureClass::Dependency, "check the disk and the rights of the data folder"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (FailureClass::Config, "the file is damaged: stop, move it away or put a copy back, start")
        }
        _ => (FailureClass::Bug, "send a bug report"),
    };
    PortFault::new(PORT, class, format!("{error} ({advice})"))
}

impl StateStore for SqliteState {
    fn put_usage(&self, rows: Vec<UsageRow>) -> Answer<()> {
        self.run(move |connection| {
            let write = connection.transaction()?;
            {
                let mut put = write.prepare(statements::PUT_USAGE.text)?;
                for UsageRow { tenant, day, source, usage } in &rows {
                    let [spans, logs, points, bytes] =
                        [usage.spans, usage.logs, usage.points, usage.bytes].map(signed);
                    put.execute(params![tenant, day.0, source, spans, logs, points, bytes])?;
                }
            }
            write.commit()
        })
    }

    fn usage(&self, day: Day) -> Answer<Vec<UsageRow>> {
        self.run(move |connection| {
            let mut read = connection.prepare(statements::READ_USAGE.text)?;
            let rows = read.query_map([day.0], |row| {
                let count = |column| row.get::<_, i64>(column).map(unsigned);
                let usage = Usage { spans: count(2)?, logs: count(3)?, points: count(4)?, bytes: count(5)? };
                Ok(UsageRow { tenant: text(row, 0)?, day, source: text(row, 1)?, usage })
            })?;
            rows.collect()
        })
    }

    fn forget_usage_before(&self, day: Day) -> Answer<u64> {
        self.run(move |connection| {
            connection.execute(statements::FORGET_USAGE.text, [day.0]).map(|rows| rows as u64)
        })
    }

    fn touch_keys(&self, uses: Vec<KeyUse>) -> Answer<()> {
        self.run(move |connection| {
            let write = connection.transaction()?;
            {
                let mut put = write.prepare(statements::TOUCH_KEY.text)?;
                for KeyUse { name, last_used_s } in &uses {
                    put.execute(params![name, signed(*last_used_s)])?;
                }
            }
            write.commit()
        })
    }

    fn key_uses(&self) -> Answer<Vec<KeyUse>> {
        self.run(|connection| {
            let mut read = connection.prepare(statements::READ_KEY_USES.text)?;
            let rows = read.query_map([], |row| {
                Ok(KeyUse { name: text(row, 0)?, last_used_s: unsigned(row.get(1)?) })
            })?;
            rows.collect()
        })
    }

    fn put_deploy(&self, tenant: &str, deploy: Deploy) -> Answer<bool> {
        let tenant = tenant.to_owned();
        self.run(move |connection| {
            let Deploy { service, version, at_ms, who } = &deploy;
            let values = params![tenant, service, version, signed(*at_ms), who];
            connection.execute(statements::PUT_DEPLOY.text, values).map(|rows| rows == 1)
        })
    }

    fn note_versions(&self, seen: Vec<VersionSeen>) -> Answer<()> {
        self.run(move |connection| {
            let write = connection.transaction()?;
            {
                let mut note = write.prepare(statements::NOTE_VERSION.text)?;
                for VersionSeen { tenant, service, version, at_ms } in in_order(seen) {
                    note.execute(params![tenant, service, version, signed(at_ms), signed(at_ms)])?;
                }
            }
            write.commit()
        })
    }

    fn deploys(&self, tenant: &str, query: DeployQuery) -> Answer<Vec<Deploy>> {
        let tenant = tenant.to_owned();
        self.run(move |connection| {
            let mut read = connection.prepare(statements::READ_DEPLOYS.text)?;
            let service = query.service.as_deref().unwrap_or_default();
            let (after_ms, after) = after(&query);
            let [from_ms, until_ms, after_ms] = [query.from_ms, query.until_ms, after_ms].map(signed);
            let [behind, version, who] = after;
            let values =
                params![tenant, service, from_ms, until_ms, after_ms, behind, version, who, query.most];
            let rows = read.query_map(values, |row| {
                let at_ms = unsigned(row.get(2)?);
                Ok(Deploy { service: text(row, 0)?, version: text(row, 1)?, at_ms, who: text(row, 3)? })
            })?;
            rows.collect()
        })
    }

    fn forget_deploys_before(&self, at_ms: u64) -> Answer<u64> {
        self.run(move |connection| {
            let rows = connection.execute(statements::FORGET_DEPLOYS.text, [signed(at_ms)])?;
            Ok(rows as u64)
        })
    }

    fn forget_versions_before(&self, at_ms: u64) -> Answer<u64> {
        self.run(move |connection| {
            let rows = connection.execute(statements::FORGET_VERSIONS.text, [signed(at_ms)])?;
            Ok(rows as u64)
        })
    }

    fn check(&self) -> Answer<()> {
        let id = uuid::Uuid::now_v7().to_string();
        self.run(move |connection| {
            // In one transaction: a kill leaves nothing behind.
            let write = connection.transaction()?;
            let [put, read, remove] = statements::PROBE;
            write.execute(put.text, [&id])?;
            write.query_row(read.text, [&id], |_| Ok(()))?;
            write.execute(remove.text, [&id])?;
            write.commit()
        })
    }
}

fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    row.get::<_, String>(column).map(Arc::from)
}
