//! The facts the doctor grades: the data folder, ports, limits and clocks of this machine in, findings out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::statfs;

use super::grade::{self, Finding};
use crate::backends::telemetry::engine::find_library;
use crate::clock;
use crate::config::Config;
use crate::domain::signal::Signal;
use crate::supervisors::{policies, roles};

/// Synced writes that are measured.
const WRITES: usize = 9;
/// How long both clocks are watched.
const WATCH: Duration = Duration::from_millis(50);

/// Nodes that read a lane; members side by side share one.
const LANES: [&str; 5] =
    ["store.writer", "broker_out.producer", "process.otlp", "serve.query", "ingest.receiver"];

/// All of them that concern the machine.
pub(super) async fn machine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![versions()];
    findings.extend(folder(config));
    findings.extend(ports(config));
    findings.extend(engine(config));
    findings.push(clocks().await);
    findings.extend(limits(config));
    findings
}

fn versions() -> Finding {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let found = format!("obtrace {} on Linux {}", env!("CARGO_PKG_VERSION"), kernel.trim());
    Finding::ok("versions", found)
}

/// The nearest folder above that exists: where the data folder would come into being.
fn standing(dir: &Path) -> &Path {
    dir.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

fn folder(config: &Config) -> Vec<Finding> {
    let dir = &config.data_dir;
    let at = standing(dir);
    let shown = dir.display();
    let mut findings = vec![match fsync(at) {
        Ok(_) if at == dir.as_path() => Finding::ok("data folder", format!("{shown}, writable")),
        Ok(_) => Finding::ok("data folder", format!("{shown} is not there yet and can be made")),
        Err(error) => Finding::fail(
            "data folder",
            format!("{}: {error}", at.display()),
            "give the user of Obtrace the right to write there, or set data_dir",
        ),
    }];
    findings.extend(lock(dir));
    findings.push(log(dir));
    findings.extend(fsync(at).ok().map(grade::fsync));
    if let Ok(stat) = statfs(at) {
        let block = u64::try_from(stat.block_size()).unwrap_or(4096);
        let bound = config.stream.retention_bytes.as_u64().saturating_mul(Signal::ALL.len() as u64);
        findings.push(grade::disk(stat.blocks_available() * block, stat.blocks() * block, bound));
        findings.push(grade::file_system(stat.filesystem_type().0));
    }
    findings
}

/// Median time of a synced write, in milliseconds.
fn fsync(dir: &Path) -> std::io::Result<f64> {
    let path = dir.join(format!(".obtrace-doctor-{}", std::process::id()));
    let mut file = File::create_new(&path)?;
    let measured = (|| {
        let mut times = Vec::with_capacity(WRITES);
        for _ in 0..WRITES {
            let from = clock::now();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(clock::now().saturating_duration_since(from).as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[WRITES / 2])
    })();
    fs::remove_file(&path)?;
    measured
}

/// Whether a process owns the folder. Holds the lock for no longer than the question takes.
fn lock(dir: &Path) -> Option<Finding> {
    let path = dir.join("log/LOCK");
    let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
    match file.try_lock() {
        Ok(()) => {
            file.unlock().ok();
            Some(Finding::ok("owner", "no process has the folder"))
        }
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            Some(Finding::ok(
                "owner",
                format!("in use by process {}; a second one would not start", pid.trim()),
            ))
        }
        Err(TryLockError::Error(error)) => Some(Finding::fail(
            "owner",
            format!("{} cannot be locked: {error}", path.display()),
            "use a file system with locks for data_dir",
        )),
    }
}

fn log(dir: &Path) -> Finding {
    let dir = dir.join("log");
    let format = fs::read_to_string(dir.join("FORMAT")).ok();
    let (mut segments, mut torn, mut size) = (0, 0, 0);
    let mut folders = vec![dir];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                let len = entry.metadata().map_or(0, |meta| meta.len());
                segments += 1;
                size += len;
                // Shorter than a segment's own header: its making was cut short.
                torn += usize::from(len < 16);
            }
        }
    }
    grade::log_format(format.as_deref(), segments, torn, size)
}

fn ports(config: &Config) -> Vec<Finding> {
    config.listeners().into_iter().map(|(key, address)| port(key, address)).collect()
}

fn port(key: &str, address: SocketAddr) -> Finding {
    let what = format!("port {}", address.port());
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(&what, format!("{address} is free for {key}")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => match holder(address.port()) {
            Some((pid, name)) if name == "obtrace" => {
                Finding::ok(&what, format!("{address} is held by obtrace, process {pid}"))
            }
            Some((pid, name)) => Finding::fail(
                &what,
                format!("{address} is held by {name}, process {pid}"),
                format!("stop it, or set another {key}"),
            ),
            None => Finding::fail(
                &what,
                format!("{address} is held by a process of another user"),
                format!("find it as root with `ss -ltnp`, or set another {key}"),
            ),
        },
        Err(error) => Finding::fail(&what, format!("{address}: {error}"), format!("set another {key}")),
    }
}

/// The process that listens on a port, and its name.
fn holder(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inode = tables.iter().find_map(|table| grade::listener(table, port))?;
    let socket = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let holds =
            open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == socket.as_str());
        let name = holds.then(|| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())?;
        Some((pid, name.trim().to_owned()))
    })
}

fn engine(config: &Config) -> Vec<Finding> {
    let telemetry = &config.telemetry;
    if let Some(url) = &telemetry.url {
        return vec![Finding::ok("engine", format!("not needed: the store is {}", url.as_str()))];
    }
    if !roles::runs(config, "store.engine") {
        return vec![Finding::ok("engine", format!("not needed by {}", config.roles_text()))];
    }
    let library = match find_library(telemetry.engine.library.as_deref()) {
        Ok(path) => path,
        Err(error) => {
            return vec![Finding::fail(
                "engine",
                error.to_string(),
                "make engine, or set telemetry.engine.library",
            )];
        }
    };
    let mut head = [0; 20];
    let read = File::open(&library).and_then(|mut file| {
        file.read_exact(&mut head)?;
        file.metadata()
    });
    vec![match read {
        Ok(meta) => grade::library(&library.display().to_string(), &head, meta.len()),
        Err(error) => Finding::fail("engine", format!("{}: {error}", library.display()), "make engine"),
    }]
}

async fn clocks() -> Finding {
    let (wall, steady) = (clock::unix_nanos(), clock::now());
    tokio::time::sleep(WATCH).await;
    let wall_step = (i128::from(clock::unix_nanos()) - i128::from(wall)) / 1_000_000;
    let steady_step = clock::now().saturating_duration_since(steady).as_millis();
    let offset = file_offset().unwrap_or_default();
    grade::clocks(
        wall / 1_000_000_000,
        offset,
        i64::try_from(wall_step).unwrap_or(i64::MAX),
        i64::try_from(steady_step).unwrap_or(i64::MAX),
    )
}

/// How far the time that a file gets is ahead of the wall clock, in milliseconds.
fn file_offset() -> Option<i64> {
    let path = std::env::temp_dir().join(format!(".obtrace-doctor-clock-{}", std::process::id()));
    let file = File::create_new(&path).ok()?;
    let stamped = file.metadata().and_then(|meta| meta.modified()).ok();
    let now = i128::from(clock::unix_nanos());
    fs::remove_file(&path).ok();
    let stamped = stamped?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from((i128::try_from(stamped.as_nanos()).ok()? - now) / 1_000_000).ok()
}

fn limits(config: &Config) -> Vec<Finding> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut findings = Vec::new();
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        findings.push(grade::open_files(soft, hard));
    }
    let processes =
        getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft).filter(|soft| *soft < u64::MAX / 2);
    let threads = [processes, number("/proc/sys/kernel/threads-max"), number("/sys/fs/cgroup/pids.max")];
    findings.push(grade::threads(threads.into_iter().flatten().min()));
    findings.extend(number("/proc/sys/vm/max_map_count").map(grade::maps));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().split(' ').next()?.parse::<u64>().ok()? << 10)
    };
    if let (Some(total), Some(available)) = (of("MemTotal:"), of("MemAvailable:")) {
        let limit = number("/sys/fs/cgroup/memory.max").map_or(total, |limit| limit.min(total));
        let engine = match &config.telemetry.url {
            None if roles::runs(config, "store.engine") => config.telemetry.engine.memory_limit.as_u64(),
            _ => 0,
        };
        let here = LANES.iter().filter(|path| roles::runs(config, path));
        let lanes = here.map(|path| policies::node(config, path).lane.bytes.as_u64()).sum();
        findings.push(grade::memory(limit, available, engine, lanes));
    }
    findings
}
