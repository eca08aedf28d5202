//! What surrounds the engine in its process: the folder and its lock, its configuration files, the tie to the parent, the end.
//!
//! In: [`super::EngineArgs`]. Out: a folder this process owns, and a stop signal. What may fail: [`super::EngineError`].

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, dup, dup2_stderr, dup2_stdin, dup2_stdout, getppid};
use tokio::sync::watch;

use super::super::guard::{ENGINE_SETTING, EVERY_TENANT};
use super::super::sql::{Table, VIEWS};
use super::{DATABASE, EngineError};
use crate::clock;

/// How long a start waits for a predecessor that is on its way out.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// An orderly end may take this long; then the process ends anyway. The data survive both.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Niceness of merges. They have minutes to spare; acknowledgements, inserts and queries on the same cores have milliseconds.
const MERGE_NICE: i32 = 10;

/// Bytes of its disk that the engine leaves free: it begins no insert and no merge beyond, so that those under way find room.
/// On a disk that is full to the last byte it has left parts of empty files, and taken them for whole.
const KEEP_FREE: u64 = 64 << 20;

/// The engine's folder, owned by this process until it ends.
pub struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

/// The standard streams as they were before the library got its own.
pub struct Streams {
    /// What the parent writes: the secret, then nothing until it ends.
    pub stdin: File,
    /// Where the ready line goes.
    pub stdout: File,
}

// === impl Folder ===

impl Folder {
    /// Creates `data_dir/engine` and takes its lock.
    ///
    /// # Errors
    /// [`EngineError::Owned`] when another process holds it, [`EngineError::Folder`] when it cannot be written.
    pub fn open(data_dir: &Path) -> Result<Self, EngineError> {
        let folder = |source| EngineError::Folder { path: data_dir.to_path_buf(), source };
        fs::create_dir_all(data_dir.join("engine")).map_err(folder)?;
        let path = data_dir.join("engine").canonicalize().map_err(folder)?;
        let mut lock = take_lock(&path)?;
        write_owner(&mut lock).map_err(folder)?;
        Ok(Self { path, _lock: lock })
    }

    /// Writes the engine's configuration for this start and returns its connect arguments.
    ///
    /// # Errors
    /// [`EngineError::Folder`] when the files cannot be written.
    pub fn configure(&self, memory_limit: u64) -> Result<Vec<String>, EngineError> {
        let store = self.path.join("store");
        let (config, users) = (self.path.join("config.xml"), self.path.join("users.xml"));
        let written = fs::create_dir_all(&store)
            .and_then(|()| drop_empty_definitions(&store))
            .and_then(|()| fs::write(&config, config_xml(&store, &users, memory_limit)))
            .and_then(|()| fs::write(&users, users_xml(memory_limit)));
        written.map_err(|source| EngineError::Folder { path: self.path.clone(), source })?;
        Ok(vec![format!("--path={}", store.display()), format!("--config-file={}", config.display())])
    }
}

/// Removes definitions of tables and databases that are empty files. A full disk leaves such when something is being made;
/// the engine does not start over one, and the migration makes it anew.
fn drop_empty_definitions(store: &Path) -> std::io::Result<()> {
    let inside = |folder: &Path| -> std::io::Result<Vec<PathBuf>> {
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    let mut files = inside(&store.join("metadata"))?;
    // Of a database: `store/PREFIX/UUID/TABLE.sql`. What tables hold lies deeper.
    for prefix in inside(&store.join("store"))? {
        for folder in inside(&prefix)? {
            files.extend(inside(&folder)?);
        }
    }
    for file in files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "sql")) {
        let found = fs::symlink_metadata(&file)?;
        if found.is_file() && found.len() == 0 {
            tracing::warn!(file = %file.display(), "an empty definition, left by a full disk, is removed");
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<Flock<File>, EngineError> {
    let path = folder.join("lock");
    let failed = |source| EngineError::Folder { path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let give_up = clock::now() + LOCK_WAIT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((mut other, Errno::EWOULDBLOCK)) if clock::now() >= give_up => {
                let mut owner = String::new();
                // who holds it is a courtesy; that it is held is the point
                let _ = other.read_to_string(&mut owner);
                return Err(EngineError::Owned {
                    folder: folder.to_path_buf(),
                    owner: owner.trim().to_owned(),
                });
            }
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        std::thread::park_timeout(LOCK_POLL);
    }
}

fn write_owner(lock: &mut Flock<File>) -> std::io::Result<()> {
    let nanos = i128::from(clock::unix_nanos());
    let since = jiff::Timestamp::from_nanosecond(nanos).map(|t| t.to_string()).unwrap_or_default();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "process {} since {since}", std::process::id())?;
    lock.sync_data()
}

/// Server-wide limits, sized for a laptop. There are no `system.*_log` tables: nothing in the file turns them on.
fn config_xml(store: &Path, users: &Path, memory_limit: u64) -> String {
    let (store, users) = (xml(&store.display().to_string()), xml(&users.display().to_string()));
    format!(
        r"<clickhouse>
  <path>{store}/</path>
  <timezone>UTC</timezone>
  <max_server_memory_usage>{memory_limit}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <uncompressed_cache_size>8388608</uncompressed_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <index_uncompressed_cache_size>8388608</index_uncompressed_cache_size>
  <primary_index_cache_size>33554432</primary_index_cache_size>
  <mmap_cache_size>64</mmap_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <os_threads_nice_value_merge_mutate>{MERGE_NICE}</os_threads_nice_value_merge_mutate>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <merge_tree>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    <min_free_disk_bytes_to_perform_insert>{KEEP_FREE}</min_free_disk_bytes_to_perform_insert>
  </merge_tree>
  <storage_configuration><disks><default>
    <keep_free_space_bytes>{KEEP_FREE}</keep_free_space_bytes>
  </default></disks></storage_configuration>
  <user_directories><users_xml><path>{users}</path></users_xml></user_directories>
</clickhouse>
"
    )
}

/// The one user and what it may do: its own database and reading `system`, no files, no URLs, no other databases; and of
/// the tables of telemetry the rows of the tenant that the front has put into a setting, none without.
fn users_xml(memory_limit: u64) -> String {
    let engines =
        ["MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "Null", "Memory"];
    let engines: String =
        engines.iter().map(|e| format!("      <query>GRANT TABLE ENGINE ON {e}</query>\n")).collect();
    // A view is read through a filter of its own and not through that of the table behind it.
    let filters: String = Table::ALL.map(Table::name).into_iter().chain(VIEWS).map(row_filter).collect();
    let per_query = memory_limit / 2;
    format!(
        r"<clickhouse>
  <profiles><default>
    <implicit_select>0</implicit_select>
    <allow_introspection_functions>0</allow_introspection_functions>
    <max_memory_usage>{per_query}</max_memory_usage>
  </default></profiles>
  <users><default>
    <password></password>
    <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>
    <profile>default</profile>
    <quota>default</quota>
    <databases><{DATABASE}>
{filters}    </{DATABASE}></databases>
    <grants>
      <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP, TRUNCATE, OPTIMIZE ON {DATABASE}.*</query>
      <query>GRANT SELECT, SHOW ON system.*</query>
{engines}    </grants>
  </default></users>
  <quotas><default></default></quotas>
</clickhouse>
"
    )
}

fn row_filter(table: &str) -> String {
    // A view over the table reads an inserted block through its filter too, so an insert passes it whole.
    format!(
        "      <{table}><filter>tenant = getSetting('{ENGINE_SETTING}') OR getSetting('{ENGINE_SETTING}') = '{EVERY_TENANT}'</filter></{table}>\n"
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

// === impl Streams ===

impl Streams {
    /// Takes stdin and stdout away from the library: it gets an empty input (its client side would read insert data from
    /// there) and has its output sent to stderr.
    ///
    /// # Errors
    /// When the descriptors cannot be duplicated.
    pub fn take() -> std::io::Result<Self> {
        let stdin: OwnedFd = dup(std::io::stdin())?;
        let stdout: OwnedFd = dup(std::io::stdout())?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(std::io::stderr())?;
        Ok(Self { stdin: File::from(stdin), stdout: File::from(stdout) })
    }
}

/// Leaves stderr alone where it works and points it at nothing where it does not, so that logging never fails.
pub fn keep_stderr() {
    if dup(std::io::stderr()).is_err()
        && let Ok(null) = OpenOptions::new().write(true).open("/dev/null")
    {
        let _ = dup2_stderr(null);
    }
}

/// A terminal's Ctrl-C reaches the whole group: the parent decides when the engine stops. A closed stderr must not kill it.
pub fn quiet_signals() {
    for quiet in [Signal::SIGINT, Signal::SIGPIPE] {
        // SAFETY: SIG_IGN installs no code of ours.
        if let Err(errno) = unsafe { signal(quiet, SigHandler::SigIgn) } {
            tracing::warn!(%errno, signal = %quiet, "a signal could not be ignored");
        }
    }
}

/// Has the kernel kill this process when the thread that started it ends; checks that it has not ended already.
///
/// # Errors
/// [`EngineError::Orphaned`] when the parent is gone.
pub fn bind_to_parent(parent: Option<i32>) -> Result<(), EngineError> {
    let Some(parent) = parent else { return Ok(()) };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| EngineError::Start(errno.to_string()))?;
    if getppid() == Pid::from_raw(parent) { Ok(()) } else { Err(EngineError::Orphaned) }
}

/// Reads the secret (the first line), then tells `stop` when the parent's end of the pipe closes.
///
/// # Errors
/// [`EngineError::Orphaned`] when the pipe closes before the secret came.
pub fn watch_parent(stdin: File, stop: watch::Sender<bool>) -> Result<String, EngineError> {
    let mut reader = BufReader::new(stdin);
    let mut secret = String::new();
    reader.read_line(&mut secret).map_err(|e| EngineError::Start(e.to_string()))?;
    let secret = secret.trim().to_owned();
    if secret.is_empty() {
        return Err(EngineError::Orphaned);
    }
    let watcher = move || {
        // nothing is expected: the read returns when the parent closes the pipe, by ending or on purpose
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
        let _ = stop.send(true);
        end_soon();
    };
    std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(watcher)
        .map_err(|e| EngineError::Start(e.to_string()))?;
    Ok(secret)
}

/// Ends the process after [`STOP_LIMIT`] whatever it is doing. Blocks.
pub fn end_soon() {
    let until = clock::now() + STOP_LIMIT;
    while clock::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(clock::now()));
    }
    exit_now(0);
}

/// Ends the process without running exit handlers: those of the library crash when its threads still run.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Makes the kernel prefer the engine over the process that feeds it when memory runs out. Best effort.
pub fn volunteer_for_oom() {
    let _ = fs::write("/proc/self/oom_score_adj", "500");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_definitions_go() {
        let dir = tempfile::tempdir().unwrap();
        let (tables, parts) = (dir.path().join("store/ab/ab-1"), dir.path().join("store/cd/cd-2/all_1_1_0"));
        for folder in [&tables, &parts, &dir.path().join("metadata")] {
            fs::create_dir_all(folder).unwrap();
        }
        for (file, text) in [("logs.sql", "ATTACH TABLE"), ("spans.sql", ""), ("note.txt", "")] {
            fs::write(tables.join(file), text).unwrap();
        }
        fs::write(dir.path().join("metadata/obtrace.sql"), "").unwrap();
        fs::write(parts.join("x.sql"), "").unwrap();
        drop_empty_definitions(dir.path()).unwrap();
        let there = |path: &str| dir.path().join(path).exists();
        assert!(there("store/ab/ab-1/logs.sql") && there("store/ab/ab-1/note.txt"));
        assert!(!there("store/ab/ab-1/spans.sql") && !there("metadata/obtrace.sql"));
        assert!(there("store/cd/cd-2/all_1_1_0/x.sql"), "the parts of a table are not looked at");
        drop_empty_definitions(&dir.path().join("none")).unwrap();
    }
}
