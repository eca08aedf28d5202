//! What the doctor makes of a fact: figures of the machine in, a finding with a grade and advice out. Pure.

use serde::Serialize;

use crate::cli::look::figures::bytes;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warn,
    /// Obtrace does not start, or not for long.
    Fail,
}

/// One line of the doctor's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) what: String,
    /// How it is.
    pub(super) grade: Grade,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), grade: Grade::Ok, found: found.into(), advice: String::new() }
    }

    pub(super) fn warn(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.to_owned(), grade: Grade::Warn, found: found.into(), advice: advice.into() }
    }

    pub(super) fn fail(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.to_owned(), grade: Grade::Fail, found: found.into(), advice: advice.into() }
    }
}

const GIB: u64 = 1 << 30;

/// Free room of the data folder's disk, against what the log alone may take.
pub(super) fn disk(free: u64, total: u64, log_bound: u64) -> Finding {
    let found = format!("{} free of {}; the log may take {}", bytes(free), bytes(total), bytes(log_bound));
    match free {
        free if free < GIB => {
            Finding::fail("disk", found, "make room: with a full disk nothing more is acknowledged")
        }
        free if free < log_bound || free < total / 20 => Finding::warn(
            "disk",
            found,
            "make room, or lower stream.retention_bytes: the store's tables come on top of the log",
        ),
        _ => Finding::ok("disk", found),
    }
}

/// The kind of file system below the data folder.
pub(super) fn file_system(magic: i64) -> Finding {
    let (name, advice) = match magic {
        0xEF53 => ("ext4", ""),
        0x5846_5342 => ("xfs", ""),
        0x9123_683E => ("btrfs", ""),
        0x2FC1_2FC1 => ("zfs", ""),
        0x0102_1994 => ("tmpfs", "it is gone with the next boot: put data_dir on a disk"),
        0x6969 | 0xFF53_4D42 | 0xFE53_4D42 => (
            "a network file system",
            "locks and fsync over a network are slow or worse: put data_dir on a local disk",
        ),
        0x794C_7630 => ("overlayfs", "it goes with the container: mount a volume at data_dir"),
        _ => ("one not known here", ""),
    };
    match advice {
        "" => Finding::ok("file system", name),
        advice => Finding::warn("file system", name, advice),
    }
}

/// Median time of a small synced write.
pub(super) fn fsync(median_ms: f64) -> Finding {
    let found = format!("{median_ms:.1} ms for a synced write of 4KiB, median");
    match median_ms {
        ms if ms > 50.0 => {
            Finding::warn("fsync", found, "acknowledgements wait for it: use a local SSD for data_dir")
        }
        _ => Finding::ok("fsync", found),
    }
}

/// The limit of open files.
pub(super) fn open_files(soft: u64, hard: u64) -> Finding {
    let found = format!("{soft} (hard limit {hard})");
    match soft {
        soft if soft < 512 => {
            Finding::fail("open files", found, "raise it: ulimit -n 65536, or LimitNOFILE= of the unit")
        }
        soft if soft < 4096 => Finding::warn(
            "open files",
            found,
            "raise it for many clients: ulimit -n 65536, or LimitNOFILE= of the unit",
        ),
        _ => Finding::ok("open files", found),
    }
}

/// Memory there is, against what the configuration lets Obtrace and its engine take.
pub(super) fn memory(limit: u64, available: u64, engine: u64, lanes: u64) -> Finding {
    let wanted = engine + lanes;
    let found = format!(
        "{} usable, {} available now; the engine may take {}, full lanes {}",
        bytes(limit),
        bytes(available),
        bytes(engine),
        bytes(lanes)
    );
    match wanted {
        wanted if wanted > limit => Finding::warn(
            "memory",
            found,
            "lower telemetry.engine.memory_limit or the lanes' bytes: under full load the kernel would kill a process",
        ),
        _ => Finding::ok("memory", found),
    }
}

/// Threads the user may have.
pub(super) fn threads(limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < 256 => Finding::warn(
            "threads",
            format!("at most {limit}"),
            "raise it: ulimit -u 4096, or TasksMax= of the unit",
        ),
        Some(limit) => Finding::ok("threads", format!("at most {limit}")),
        None => Finding::ok("threads", "no limit"),
    }
}

/// Memory maps a process may have; the engine uses many.
pub(super) fn maps(most: u64) -> Finding {
    match most {
        most if most < 65_530 => {
            Finding::warn("memory maps", most.to_string(), "raise it: sysctl vm.max_map_count=262144")
        }
        most => Finding::ok("memory maps", most.to_string()),
    }
}

/// The wall clock, against that of the file system, and how far both clocks went in one wait.
pub(super) fn clocks(wall_s: u64, file_offset_ms: i64, wall_step_ms: i64, steady_step_ms: i64) -> Finding {
    /// 2025-01-01.
    const SANE: u64 = 1_735_689_600;
    let found = format!("file system {file_offset_ms:+} ms beside it");
    if wall_s < SANE {
        return Finding::fail(
            "clocks",
            "the wall clock stands before 2025",
            "set it: records would be refused as future",
        );
    }
    if (wall_step_ms - steady_step_ms).abs() > 250 {
        let found = format!("the wall clock went {wall_step_ms} ms while {steady_step_ms} ms passed");
        return Finding::warn(
            "clocks",
            found,
            "something sets the clock in jumps: let chrony or timesyncd slew it",
        );
    }
    if file_offset_ms.abs() > 2_000 {
        return Finding::warn(
            "clocks",
            found,
            "the file system's clock is another one: retention would go by it",
        );
    }
    Finding::ok("clocks", found)
}

/// The format file of the log.
pub(super) fn log_format(text: Option<&str>, segments: usize, torn: usize, size: u64) -> Finding {
    let Some(text) = text else { return Finding::ok("event log", "none yet: the first start makes one") };
    let version = text.strip_prefix("obtrace-event-log ").and_then(|rest| rest.split_whitespace().next());
    let found = format!("format {}, {segments} segments, {}", version.unwrap_or("?"), bytes(size));
    match (version, torn) {
        (Some("1"), 0) => Finding::ok("event log", found),
        (Some("1"), torn) => Finding::warn(
            "event log",
            format!("{found}, {torn} cut short"),
            "nothing: what was torn had not been acknowledged, the next start cuts it off",
        ),
        _ => Finding::fail(
            "event log",
            found,
            "this build knows format 1: use the build that wrote it, or another data_dir",
        ),
    }
}

/// The first bytes of the engine library, and its size.
pub(super) fn library(path: &str, head: &[u8], size: u64) -> Finding {
    let found = format!("{path}, {}", bytes(size));
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let elf = head.starts_with(b"\x7fELF") && head.get(16) == Some(&3);
    match (elf, head.get(18).copied()) {
        (true, Some(at)) if at == machine && size > 64 << 20 => Finding::ok("engine", found),
        (true, Some(at)) if at == machine => {
            Finding::fail("engine", found, "it is too small to be whole: make engine")
        }
        (true, _) => Finding::fail("engine", found, "it is for another kind of machine: make engine"),
        _ => Finding::fail("engine", found, "it is no shared library: make engine"),
    }
}

/// Inode of the socket that listens on `port`, out of `/proc/net/tcp` or `tcp6`.
pub(super) fn listener(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (local, state) = (words.nth(1)?, words.nth(1)?);
        let (_, hex) = local.rsplit_once(':')?;
        let listens = state == "0A" && u16::from_str_radix(hex, 16) == Ok(port);
        listens.then(|| words.nth(5)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grades(findings: impl IntoIterator<Item = Finding>) -> Vec<Grade> {
        let findings: Vec<Finding> = findings.into_iter().collect();
        for finding in &findings {
            assert_eq!(finding.advice.is_empty(), finding.grade == Grade::Ok, "{finding:?}");
        }
        findings.into_iter().map(|finding| finding.grade).collect()
    }

    use Grade::{Fail, Ok, Warn};

    #[test]
    fn each_measure_is_graded_at_its_bounds() {
        let g = GIB;
        let disks = [(g - 1, 100 * g), (g, 100 * g), (24 * g, 100 * g), (40 * g, 1000 * g)];
        assert_eq!(grades(disks.map(|(free, total)| disk(free, total, 24 * g))), [Fail, Warn, Ok, Warn]);
        assert_eq!(grades([0xEF53, 0x0102_1994, 0x6969, 1].map(file_system)), [Ok, Warn, Warn, Ok]);
        assert_eq!(grades([1.0, 50.0, 51.0].map(fsync)), [Ok, Ok, Warn]);
        assert_eq!(grades([100, 1024, 4096].map(|n| open_files(n, n))), [Fail, Warn, Ok]);
        assert_eq!(grades([4 * g, 3 * g].map(|limit| memory(limit, g, 2 * g, 2 * g))), [Ok, Warn]);
        assert_eq!(grades([None, Some(100), Some(4096)].map(threads)), [Ok, Warn, Ok]);
        assert_eq!(grades([1000, 65_530].map(maps)), [Warn, Ok]);
    }

    #[test]
    fn clocks_that_jump_or_disagree_are_found() {
        let now = 1_800_000_000;
        let cases = [
            clocks(now, 3, 50, 51),
            clocks(now, 5000, 50, 50),
            clocks(now, 0, 3600, 50),
            clocks(9, 0, 50, 50),
        ];
        assert_eq!(grades(cases), [Ok, Warn, Warn, Fail]);
    }

    #[test]
    fn a_log_of_another_format_is_refused_and_a_torn_one_is_not() {
        let known = Some("obtrace-event-log 1 salt=00c0ffee\n");
        let cases = [
            log_format(None, 0, 0, 0),
            log_format(known, 3, 0, 9),
            log_format(known, 3, 1, 9),
            log_format(Some("obtrace-event-log 2 salt=0"), 3, 0, 9),
            log_format(Some("something else"), 3, 0, 9),
        ];
        assert_eq!(grades(cases), [Ok, Ok, Warn, Fail, Fail]);
    }

    #[test]
    fn a_library_of_another_machine_or_cut_short_is_found() {
        let mut head = [0_u8; 20];
        head[..4].copy_from_slice(b"\x7fELF");
        head[16] = 3;
        let mine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        head[18] = mine;
        assert_eq!(grades([library("l", &head, 1 << 29), library("l", &head, 1 << 20)]), [Ok, Fail]);
        head[18] = 40;
        assert_eq!(grades([library("l", &head, 1 << 29), library("l", b"text", 1 << 29)]), [Fail, Fail]);
    }

    #[test]
    fn the_socket_that_listens_on_a_port_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n\
            1: 0100007F:10DD 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 20 4 0 10 -1\n";
        assert_eq!((listener(table, 8080), listener(table, 4317), listener("", 1)), (Some(4242), None, None));
    }
}
