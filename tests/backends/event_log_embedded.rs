//! The embedded log where its disk, its neighbours and its end are unkind: torn tails, flipped bits, kills, full disks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use obtrace::backends::event_log::embedded::{
    DedupWindow, EmbeddedLog, EmbeddedLogConfig, OpenReport, TopicConfig,
};
use obtrace::backends::event_log::{Committed, EventLog, LogError, Record};
use obtrace::clock;
use proptest::prelude::*;

use crate::event_log::{PATIENCE, record, texts};

fn config(dir: &Path) -> EmbeddedLogConfig {
    EmbeddedLogConfig::new(dir, vec![TopicConfig::new("t", 1)])
}

fn open(dir: &Path) -> (EmbeddedLog, OpenReport) {
    EmbeddedLog::open(config(dir)).expect("open")
}

/// Small segments, so that a few records fill one.
fn open_small(dir: &Path, topic: TopicConfig) -> EmbeddedLog {
    let config = EmbeddedLogConfig { segment_bytes: 1000, ..EmbeddedLogConfig::new(dir, vec![topic]) };
    EmbeddedLog::open(config).expect("open").0
}

async fn fill(log: &EmbeddedLog, count: usize) {
    for n in 0..count {
        log.append("t", 0, record(&format!("record {n}")), Some(n as u128 + 1)).await.expect("append");
    }
}

async fn read_all(log: &EmbeddedLog) -> Vec<(u64, String)> {
    let (start, _) = log.bounds("t", 0).unwrap();
    texts(&log.read("t", 0, start, usize::MAX, usize::MAX).await.expect("read"))
}

fn expected(offsets: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    offsets.into_iter().map(|n| (n, format!("record {n}"))).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("t/0")).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    files.sort();
    files
}

/// Removes the clean-close indexes: what a kill leaves.
fn forget_clean_close(dir: &Path) {
    for file in segments(dir) {
        let _ = fs::remove_file(file.with_extension("idx"));
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn records_groups_and_window_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let (log, _) = open(dir.path());
        fill(&log, 10).await; // in the second round all are repeats
        let (claim, position) = log.claim("g", "t", 0).await.unwrap();
        assert_eq!(position.offset, round * 4);
        log.commit("g", "t", 0, claim, Committed { offset: 4, metadata: "m".into() }).await.unwrap();
        assert_eq!(read_all(&log).await, expected(0..10));
        assert_eq!(log.stats().duplicates, round * 10);
        log.close(PATIENCE).unwrap();
        assert!(matches!(log.append("t", 0, record("x"), None).await, Err(LogError::Closed)));
        assert!(matches!(log.wait_for("t", 0, 99).await, Err(LogError::Closed)));
        assert!(matches!(log.read("t", 0, 0, 1, 1).await, Err(LogError::Closed)));
        if round == 0 {
            forget_clean_close(dir.path()); // the window comes from the records, not from the clean end
        }
    }
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_of_the_last_frame_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    fill(&log, 2).await;
    let two = fs::metadata(&segments(dir.path())[0]).unwrap().len();
    log.append("t", 0, record("record 2"), None).await.unwrap();
    drop(log);
    forget_clean_close(dir.path());
    let three = fs::metadata(&segments(dir.path())[0]).unwrap().len();
    for len in two..three {
        let torn = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), torn.path());
        fs::File::options().write(true).open(&segments(torn.path())[0]).unwrap().set_len(len).unwrap();
        let (log, report) = open(torn.path());
        assert_eq!(
            (report.torn_bytes, report.torn_records),
            (len - two, u64::from(len > two)),
            "cut at {len}"
        );
        assert_eq!(read_all(&log).await, expected(0..2));
        let next = log.append("t", 0, record("record 2"), None).await.unwrap();
        assert_eq!(next.offset, 2);
        assert_eq!(read_all(&log).await, expected(0..3));
    }
}

#[tokio::test]
async fn a_flipped_bit_costs_one_record_and_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    fill(&log, 1).await;
    let (first, file) =
        (fs::metadata(&segments(dir.path())[0]).unwrap().len(), segments(dir.path())[0].clone());
    log.append("t", 0, record("record 1"), None).await.unwrap();
    let second = fs::metadata(&file).unwrap().len();
    log.append("t", 0, record("record 2"), None).await.unwrap();
    drop(log);
    forget_clean_close(dir.path());
    let sound = fs::read(&file).unwrap();
    for byte in first..second {
        let mut bytes = sound.clone();
        bytes[byte as usize] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        forget_clean_close(dir.path());
        let (log, report) = open(dir.path());
        assert_eq!((report.corrupt, report.torn_bytes), (1, 0), "byte {byte}");
        assert_eq!(read_all(&log).await, expected(0..1), "what is before the damage comes first");
        let error = log.read("t", 0, 1, 10, 1000).await.unwrap_err();
        let LogError::Corrupt { next, position, .. } = error else { panic!("{error}") };
        assert_eq!((next, position), (2, first), "byte {byte}");
        assert_eq!(texts(&log.read("t", 0, next, 10, 1000).await.unwrap()), expected(2..3));
        assert_eq!(log.bounds("t", 0).unwrap(), (0, 3));
        assert!(log.stats().corrupt >= 2);
    }
}

#[tokio::test]
async fn a_payload_that_looks_like_a_frame_is_not_read_as_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (stranger, _) = open(other.path());
    fill(&stranger, 1).await;
    drop(stranger);
    let planted = fs::read(&segments(other.path())[0]).unwrap();
    let (log, _) = open(dir.path());
    fill(&log, 1).await;
    let first = fs::metadata(&segments(dir.path())[0]).unwrap().len() as usize;
    log.append("t", 0, Record { payload: Bytes::from(planted), ..record("") }, None).await.unwrap();
    log.append("t", 0, record("record 2"), None).await.unwrap();
    drop(log);
    forget_clean_close(dir.path());
    let mut bytes = fs::read(&segments(dir.path())[0]).unwrap();
    bytes[first + 5] ^= 0xff; // the head that carries the planted payload
    fs::write(&segments(dir.path())[0], bytes).unwrap();
    let (log, _) = open(dir.path());
    assert!(matches!(log.read("t", 0, 1, 9, 999).await, Err(LogError::Corrupt { next: 2, .. })));
}

#[tokio::test]
async fn offsets_that_were_committed_are_not_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    fill(&log, 3).await;
    let (claim, _) = log.claim("g", "t", 0).await.unwrap();
    log.commit("g", "t", 0, claim, Committed { offset: 3, metadata: String::new() }).await.unwrap();
    drop(log);
    forget_clean_close(dir.path());
    let file = &segments(dir.path())[0];
    let len = fs::metadata(file).unwrap().len();
    fs::File::options().write(true).open(file).unwrap().set_len(len - 1).unwrap();
    let (log, _) = open(dir.path());
    assert_eq!(log.append("t", 0, record("record 3"), None).await.unwrap().offset, 3);
    assert!(matches!(log.read("t", 0, 2, 9, 999).await, Err(LogError::Corrupt { next: 3, .. })));
    assert_eq!(texts(&log.read("t", 0, 3, 9, 999).await.unwrap()), expected(3..4));
}

#[tokio::test]
async fn a_second_owner_a_later_format_and_a_shrunken_topic_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |config| match EmbeddedLog::open(config) {
        Err(error @ LogError::Open { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    };
    let (log, _) =
        EmbeddedLog::open(EmbeddedLogConfig::new(dir.path(), vec![TopicConfig::new("t", 2)])).unwrap();
    let text = refusal(config(dir.path()));
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    drop(log);
    let text = refusal(config(dir.path()));
    assert!(text.contains("topic t has 2 partitions on disk and 1 in the settings"), "{text}");
    let format = fs::read_to_string(dir.path().join("FORMAT")).unwrap();
    fs::write(dir.path().join("FORMAT"), format.replace("log 1", "log 9")).unwrap();
    let text = refusal(config(dir.path()));
    assert!(text.contains("format version 9, this build knows 1"), "{text}");
    fs::remove_file(dir.path().join("FORMAT")).unwrap();
    let text = refusal(config(dir.path()));
    assert!(text.contains("no FORMAT file"), "{text}");
    let text = refusal(EmbeddedLogConfig::new(dir.path().join("x"), vec![TopicConfig::new("../t", 1)]));
    assert!(text.contains("is no topic name"), "{text}");
}

#[tokio::test]
async fn segments_roll_and_go_by_age_and_size_but_never_the_active_one() {
    let dir = tempfile::tempdir().unwrap();
    let old = TopicConfig { retention_age: Some(Duration::from_secs(60)), ..TopicConfig::new("t", 1) };
    let log = open_small(dir.path(), old);
    fill(&log, 30).await;
    let before = log.stats().partitions[0].clone();
    assert!(before.segments > 3, "{before:?}");
    assert_eq!(read_all(&log).await.len(), 30, "one read goes through segments");
    assert_eq!(log.enforce_retention(clock::unix_nanos()).unwrap().segments, 0);
    let later = clock::unix_nanos() + 3_600_000_000_000;
    assert_eq!(log.enforce_retention(later).unwrap().segments, before.segments - 1);
    let (start, end) = log.bounds("t", 0).unwrap();
    assert!(start > 0 && end == 30);
    let gone = log.read("t", 0, 0, 1, 1).await;
    assert!(matches!(gone, Err(LogError::OutOfRange { offset: 0, start: s }) if s == start), "{gone:?}");
    assert_eq!(log.claim("late", "t", 0).await.unwrap().1.offset, start);
    drop(log);
    let small = TopicConfig { retention_bytes: Some(2500), ..TopicConfig::new("t", 1) };
    let log = open_small(dir.path(), small);
    assert_eq!(log.bounds("t", 0).unwrap(), (start, 30), "what is gone stays gone");
    for _ in 0..30 {
        log.append("t", 0, record("more"), None).await.unwrap();
    }
    assert!(log.enforce_retention(0).unwrap().bytes > 0);
    let kept = &log.stats().partitions[0];
    assert!(kept.bytes <= 2500 && kept.segments >= 2 && kept.end == 60, "{kept:?}");
}

#[tokio::test]
async fn damage_in_a_sealed_segment_ends_at_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_small(dir.path(), TopicConfig::new("t", 1));
    fill(&log, 30).await;
    drop(log);
    let files = segments(dir.path());
    let second: u64 = files[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    fs::File::options().write(true).open(&files[0]).unwrap().set_len(100).unwrap();
    let log = open_small(dir.path(), TopicConfig::new("t", 1));
    let error = log.read("t", 0, 0, 100, 100_000).await.unwrap_err();
    assert!(matches!(error, LogError::Corrupt { next, .. } if next == second), "{error}");
    let rest = log.read("t", 0, second, 1, 100_000).await.unwrap();
    assert_eq!(texts(&rest), expected(second..=second));
    assert_eq!(log.stats().corrupt, 2, "once at open, once at the read");
    drop(log);
    fs::write(&files[1], b"short").unwrap();
    let log = open_small(dir.path(), TopicConfig::new("t", 1));
    assert!(matches!(log.read("t", 0, second, 9, 999).await, Err(LogError::Corrupt { .. })));
}

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedLogConfig {
        queue_bytes: 100_000,
        max_record_bytes: 60_000,
        compression: false,
        ..config(dir.path())
    };
    let (log, _) = EmbeddedLog::open(config).unwrap();
    let big = || Record { payload: Bytes::from(vec![7; 50_000]), ..record("") };
    let answers = futures_util::future::join_all((0..200).map(|_| log.append("t", 0, big(), None))).await;
    let full = answers.iter().filter(|a| matches!(a, Err(LogError::Full))).count();
    let done = answers.iter().filter(|a| a.is_ok()).count();
    assert!(full > 0 && done > 0 && full + done == 200, "{full} refused, {done} done");
    let stats = log.stats();
    assert_eq!((stats.full, stats.appends), (full as u64, done as u64));
    log.append("t", 0, big(), None).await.expect("there is room again");
}

#[tokio::test]
async fn a_key_outside_the_window_is_no_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let window = DedupWindow { records: 4, age: Duration::from_secs(600) };
    for _ in 0..2 {
        let (log, _) =
            EmbeddedLog::open(EmbeddedLogConfig { dedup_window: window, ..config(dir.path()) }).unwrap();
        fill(&log, 6).await; // the second time, 1 pushes 3 out, 2 pushes 4 out, and so on: none is a repeat
        assert_eq!(log.stats().duplicates, 0);
        assert!(log.append("t", 0, record("x"), Some(6)).await.unwrap().duplicate);
    }
}

// === a child process that is killed, or has no room ===

const CHILD_DIR: &str = "OBTRACE_TEST_LOG_DIR";
const CHILD_ROUND: &str = "OBTRACE_TEST_LOG_ROUND";

fn child(test: &str, dir: &Path, round: u32) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("event_log_embedded::{test}"), "--ignored", "--nocapture"]);
    command.env(CHILD_DIR, dir).env(CHILD_ROUND, round.to_string()).stdout(Stdio::piped());
    command
}

/// Prints a line that the parent sees even if this process is killed right after.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "the child of a_kill_loses_nothing_that_was_acknowledged"]
fn child_that_appends_until_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let round = std::env::var(CHILD_ROUND).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let topic = TopicConfig::new("t", 1);
        let config = EmbeddedLogConfig { segment_bytes: 20_000, ..EmbeddedLogConfig::new(dir, vec![topic]) };
        let log = Arc::new(EmbeddedLog::open(config).unwrap().0);
        let lanes = (0..4).map(|lane| {
            let (log, round) = (Arc::clone(&log), round.clone());
            async move {
                for n in 0.. {
                    let text = format!("{round}-{lane}-{n}");
                    let filler = "x".repeat((n * 37) % 900);
                    let payload = Bytes::from(format!("{text} {filler}"));
                    let done = log.append("t", 0, Record { payload, ..record("") }, None).await.unwrap();
                    say(&format!("acked {} {text}", done.offset));
                }
            }
        });
        futures_util::future::join_all(lanes).await;
    });
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeMap::new();
    for round in 0..8 {
        let mut process = child("child_that_appends_until_killed", dir.path(), round).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut note = |line: String| {
            let mut words = line.split_whitespace().skip_while(|w| *w != "acked").skip(1);
            let (Some(offset), Some(text)) = (words.next(), words.next()) else { return false };
            assert_eq!(
                acked.insert(offset.parse::<u64>().unwrap(), text.to_owned()),
                None,
                "given out twice"
            );
            true
        };
        let mut seen = 0;
        while seen < 40 + 23 * round {
            seen += u32::from(note(lines.next().expect("the child lives")));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        for line in lines {
            note(line); // written in one piece each, so none is cut short
        }
    }
    let topic = TopicConfig::new("t", 1);
    let (log, report) = EmbeddedLog::open(EmbeddedLogConfig::new(dir.path(), vec![topic])).unwrap();
    assert_eq!(report.corrupt, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut stored = BTreeMap::new();
    let (mut next, end) = log.bounds("t", 0).unwrap();
    while next < end {
        for found in runtime.block_on(log.read("t", 0, next, 1000, 1 << 20)).unwrap() {
            let text = String::from_utf8(found.record.payload.to_vec()).unwrap();
            stored.insert(found.offset, text.split(' ').next().unwrap().to_owned());
            next = found.offset + 1;
        }
    }
    assert_eq!(stored.len() as u64, end, "no gaps");
    for (offset, text) in &acked {
        assert_eq!(stored.get(offset), Some(text), "offset {offset}");
    }
    let distinct: std::collections::BTreeSet<_> = stored.values().collect();
    assert_eq!(distinct.len(), stored.len(), "nothing twice");
}

#[test]
#[ignore = "the child of a_full_disk_refuses_and_resumes_by_itself"]
fn child_with_a_full_disk() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    // A file size limit stands for the full disk: writes end short and then fail, until there is room again.
    // SAFETY: ignoring a signal has no handler that could break anything.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }
        .unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (log, _) =
        EmbeddedLog::open(EmbeddedLogConfig { compression: false, ..config(Path::new(&dir)) }).unwrap();
    let append = |text: String| runtime.block_on(log.append("t", 0, record(&text), None));
    append("record 0".into()).unwrap();
    let room = fs::metadata(&segments(Path::new(&dir))[0]).unwrap().len() + 300;
    setrlimit(Resource::RLIMIT_FSIZE, room, hard).unwrap();
    let mut done = 1;
    while append(format!("record {done}")).is_ok() {
        done += 1;
    }
    assert!(done < 10, "{done} records in 300 bytes");
    for _ in 0..3 {
        assert!(matches!(append("x".repeat(400)), Err(LogError::Io(_))));
    }
    assert_eq!(log.bounds("t", 0).unwrap(), (0, done), "what was refused is not there");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    assert_eq!(append(format!("record {done}")).unwrap().offset, done);
    say(&format!("stored {}", done + 1));
}

#[tokio::test]
async fn a_full_disk_refuses_and_resumes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let output = child("child_with_a_full_disk", dir.path(), 0).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let stored = text.lines().find_map(|l| l.strip_prefix("stored ")).unwrap_or_else(|| panic!("{text}"));
    forget_clean_close(dir.path());
    let (log, report) = open(dir.path());
    assert_eq!((report.torn_bytes, report.corrupt), (0, 0));
    assert_eq!(read_all(&log).await, expected(0..stored.parse().unwrap()));
}

// === any sequence of operations against a plain list ===

#[derive(Debug, Clone)]
enum Step {
    Append { len: usize, key: Option<u128> },
    Read { from: u64, records: usize, bytes: usize },
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..600_usize, proptest::option::of(1..9_u128)).prop_map(|(len, key)| Step::Append { len, key }),
        3 => (0..40_u64, 1..9_usize, 1..3000_usize).prop_map(|(from, records, bytes)| Step::Read { from, records, bytes }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_list_that_survives(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut log = open_small(dir.path(), TopicConfig::new("t", 1));
        let mut model: Vec<(Record, Option<u128>)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { len, key } => {
                    let record = record(&format!("{n}{}", "y".repeat(len)));
                    let first = key.and_then(|k| model.iter().position(|(_, other)| *other == Some(k)));
                    let done = runtime.block_on(log.append("t", 0, record.clone(), key)).unwrap();
                    prop_assert_eq!((done.offset, done.duplicate), (first.unwrap_or(model.len()) as u64, first.is_some()));
                    if first.is_none() {
                        model.push((record, key));
                    }
                }
                Step::Read { from, records, bytes } => {
                    let read = runtime.block_on(log.read("t", 0, from, records, bytes)).unwrap();
                    let rest = model.get(from as usize..).unwrap_or_default();
                    prop_assert!(read.len() <= records && read.is_empty() == rest.is_empty());
                    let size: usize = read.iter().map(|r| r.record.size()).sum();
                    prop_assert!(read.len() <= 1 || size <= bytes);
                    for (stored, (record, _)) in read.iter().zip(rest) {
                        prop_assert_eq!(&stored.record, record);
                    }
                }
                Step::Reopen { clean } => {
                    drop(log);
                    if !clean {
                        forget_clean_close(dir.path());
                    }
                    log = open_small(dir.path(), TopicConfig::new("t", 1));
                }
            }
            prop_assert_eq!(log.bounds("t", 0).unwrap(), (0, model.len() as u64));
        }
    }
}
