//! The contract of the state port, as functions over any implementation, and its run against SQLite and Postgres.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use obtrace::backends::state::postgres::PgState;
use obtrace::backends::state::sqlite::SqliteState;
use obtrace::backends::state::{KeyUse, StateStore};
use obtrace::domain::deploy::{Deploy, DeployQuery};
use obtrace::domain::failure::FailureClass;
use obtrace::domain::usage::{Day, Usage, UsageRow};
use obtrace::domain::versions::VersionSeen;

use crate::pg::Database;
use crate::services;

/// A store under test, empty.
pub type State = Arc<dyn StateStore>;

fn row(tenant: &str, day: u32, source: &str, spans: u64, bytes: u64) -> UsageRow {
    let usage = Usage { spans, bytes, ..Usage::default() };
    UsageRow { tenant: tenant.into(), day: Day(day), source: source.into(), usage }
}

fn used(name: &str, last_used_s: u64) -> KeyUse {
    KeyUse { name: name.into(), last_used_s }
}

pub async fn totals_are_kept_by_tenant_day_and_source(state: State) {
    let rows = vec![
        row("a", 1, "p1", 5, 50),
        row("a", 1, "p2", 7, 70),
        row("b", 1, "p1", 1, 1),
        row("a", 2, "p1", 9, 9),
    ];
    state.put_usage(rows.clone()).await.unwrap();
    assert_eq!(state.usage(Day(1)).await.unwrap(), rows[..3], "ordered by tenant and source");
    assert_eq!(state.usage(Day(2)).await.unwrap(), rows[3..]);
    assert!(state.usage(Day(3)).await.unwrap().is_empty());
}

pub async fn a_late_repeat_does_no_harm(state: State) {
    state.put_usage(vec![row("a", 1, "p", 5, 50)]).await.unwrap();
    state.put_usage(vec![row("a", 1, "p", 8, 60)]).await.unwrap();
    state.put_usage(vec![row("a", 1, "p", 5, 50)]).await.unwrap();
    assert_eq!(state.usage(Day(1)).await.unwrap(), [row("a", 1, "p", 8, 60)], "a total never goes back");
    let most = row("a", 1, "p", u64::MAX, 60);
    state.put_usage(vec![most]).await.unwrap();
    assert!(state.usage(Day(1)).await.unwrap()[0].usage.spans >= 1 << 62, "and does not wrap");
}

pub async fn old_days_are_forgotten_when_told_so(state: State) {
    state.put_usage((1..=4).map(|day| row("a", day, "p", 1, 1)).collect()).await.unwrap();
    assert_eq!(state.forget_usage_before(Day(3)).await.unwrap(), 2);
    assert_eq!(state.forget_usage_before(Day(3)).await.unwrap(), 0);
    assert!(state.usage(Day(2)).await.unwrap().is_empty());
    assert_eq!(state.usage(Day(3)).await.unwrap().len(), 1);
}

pub async fn the_last_use_of_a_key_never_goes_back(state: State) {
    state.touch_keys(vec![used("b", 10), used("a", 20)]).await.unwrap();
    state.touch_keys(vec![used("a", 15), used("b", 30)]).await.unwrap();
    assert_eq!(state.key_uses().await.unwrap(), [used("a", 20), used("b", 30)]);
}

pub async fn calls_from_many_tasks_all_count(state: State) {
    let tasks = (0..20_u64).map(|n| {
        let state = state.clone();
        tokio::spawn(async move { state.put_usage(vec![row("t", 1, &format!("p{n:02}"), n, n)]).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let sum: u64 = state.usage(Day(1)).await.unwrap().iter().map(|row| row.usage.spans).sum();
    assert_eq!(sum, 190);
}

pub async fn the_check_leaves_nothing_behind(state: State) {
    state.check().await.unwrap();
    assert!(state.key_uses().await.unwrap().is_empty() && state.usage(Day(0)).await.unwrap().is_empty());
}

fn deploy(service: &str, version: &str, at_ms: u64) -> Deploy {
    Deploy { service: service.into(), version: version.into(), at_ms, who: "ci".into() }
}

fn all() -> DeployQuery {
    DeployQuery { service: None, from_ms: 0, until_ms: u64::MAX, after: None, most: 100 }
}

pub async fn deploys_are_kept_by_tenant_and_read_newest_first(state: State) {
    for marker in [deploy("cart", "1", 10), deploy("cart", "2", 30), deploy("pay", "1", 20)] {
        state.put_deploy("a", marker).await.unwrap();
    }
    state.put_deploy("b", deploy("cart", "9", 40)).await.unwrap();
    let newest = [deploy("cart", "2", 30), deploy("pay", "1", 20), deploy("cart", "1", 10)];
    assert_eq!(state.deploys("a", all()).await.unwrap(), newest);
    assert_eq!(state.deploys("b", all()).await.unwrap(), [deploy("cart", "9", 40)], "tenants do not meet");
    assert!(state.deploys("c", all()).await.unwrap().is_empty());
    let of_cart = DeployQuery { service: Some("cart".into()), ..all() };
    assert_eq!(state.deploys("a", of_cart).await.unwrap().len(), 2);
    let between = DeployQuery { from_ms: 10, until_ms: 30, most: 1, ..all() };
    assert_eq!(state.deploys("a", between).await.unwrap(), [deploy("pay", "1", 20)], "until is outside");
}

pub async fn a_deploy_told_twice_is_one_and_the_first_teller_stays(state: State) {
    assert!(state.put_deploy("a", deploy("cart", "1", 10)).await.unwrap(), "it is new");
    let again = Deploy { who: "other".into(), ..deploy("cart", "1", 10) };
    assert!(!state.put_deploy("a", again).await.unwrap(), "it was there");
    assert!(state.put_deploy("b", deploy("cart", "1", 10)).await.unwrap(), "of another tenant");
    assert_eq!(state.deploys("a", all()).await.unwrap(), [deploy("cart", "1", 10)]);
    let quote = deploy("car't; DROP TABLE deploys", "\u{1F980}\\", 11);
    state.put_deploy("a", quote.clone()).await.unwrap();
    assert_eq!(state.deploys("a", all()).await.unwrap()[0], quote, "text is data");
}

pub async fn old_deploys_are_forgotten_when_told_so(state: State) {
    for at in [10, 20, 30] {
        state.put_deploy("a", deploy("cart", "1", at)).await.unwrap();
        state.put_deploy("b", deploy("cart", "1", at)).await.unwrap();
    }
    assert_eq!(state.forget_deploys_before(30).await.unwrap(), 4, "of all tenants");
    assert_eq!(state.forget_deploys_before(30).await.unwrap(), 0);
    assert_eq!(state.deploys("b", all()).await.unwrap(), [deploy("cart", "1", 30)]);
}

fn seen(tenant: &str, version: &str, at_ms: u64) -> VersionSeen {
    VersionSeen { tenant: tenant.into(), service: "cart".into(), version: version.into(), at_ms }
}

fn change(version: &str, at_ms: u64) -> Deploy {
    Deploy { who: "".into(), ..deploy("cart", version, at_ms) }
}

pub async fn a_version_that_follows_another_is_a_marker_of_its_earliest_time(state: State) {
    let pay = VersionSeen { service: "pay".into(), ..seen("a", "5", 40) };
    // Out of order: the earlier one is the first all the same.
    state.note_versions(vec![seen("a", "2", 20), seen("b", "9", 5), pay, seen("a", "1", 10)]).await.unwrap();
    assert_eq!(state.deploys("a", all()).await.unwrap(), [change("2", 20)]);
    assert!(state.deploys("b", all()).await.unwrap().is_empty(), "a first version is no change");
    // Another process saw both, the one earlier and the other later; a restart sees them again.
    for at in [18, 25, 18] {
        state.note_versions(vec![seen("a", "1", at + 1), seen("a", "2", at)]).await.unwrap();
    }
    assert_eq!(state.deploys("a", all()).await.unwrap(), [change("2", 18)], "once, at its earliest time");
    state.note_versions(vec![seen("b", "8", 5)]).await.unwrap();
    assert!(state.deploys("b", all()).await.unwrap().is_empty(), "of one time, neither follows the other");
    state.put_deploy("a", deploy("cart", "2", 17)).await.unwrap();
    state.put_deploy("a", deploy("cart", "2", 18)).await.unwrap();
    let both = [change("2", 18), deploy("cart", "2", 18), deploy("cart", "2", 17)];
    assert_eq!(state.deploys("a", all()).await.unwrap(), both, "what is told and what is seen both stand");
}

pub async fn pages_of_markers_neither_double_nor_leave_out(state: State) {
    let names = ["", "a", "B", "b", "ä", "z z"];
    state.note_versions(vec![seen("a", "0", 1), seen("a", "a", 10), seen("a", "z", 10)]).await.unwrap();
    for (n, name) in names.iter().enumerate().skip(1) {
        for at in [9, 10, 11] {
            state.put_deploy("a", deploy(name, &format!("{}", n % 3), at)).await.unwrap();
        }
    }
    let whole = state.deploys("a", all()).await.unwrap();
    assert_eq!(whole.len(), 17);
    for most in [1, 2, 5] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = state.deploys("a", DeployQuery { after, most, ..all() }).await.unwrap();
            let Some(last) = page.last().cloned() else { break };
            paged.extend(page);
            after = Some(last);
        }
        assert_eq!(paged, whole, "{most} at a time");
    }
}

pub async fn versions_are_forgotten_when_they_were_last_seen_long_ago(state: State) {
    state.note_versions(vec![seen("a", "1", 10), seen("a", "2", 20), seen("b", "1", 10)]).await.unwrap();
    state.note_versions(vec![seen("b", "1", 50), seen("a", "2", 50)]).await.unwrap();
    assert_eq!(state.forget_versions_before(50).await.unwrap(), 1, "the other two are still seen");
    assert_eq!(state.forget_versions_before(50).await.unwrap(), 0);
    assert_eq!(state.deploys("a", all()).await.unwrap(), [change("2", 20)], "it stays a change");
    state.note_versions(vec![seen("b", "2", 60)]).await.unwrap();
    assert_eq!(state.deploys("b", all()).await.unwrap(), [change("2", 60)]);
}

fn sqlite(dir: &Path) -> State {
    Arc::new(SqliteState::new(&dir.join("deep/state.db")).expect("the thread starts"))
}

/// Runs every case against both engines, each on a store of its own.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod sqlite_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let dir = tempfile::tempdir().expect("tempdir");
                let run = super::$case(super::sqlite(dir.path()));
                tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("in time");
            }
        )+ }
        mod postgres_keeps_the_contract { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let database = super::Database::fresh(&super::services::postgres()).await;
                let run = super::$case(super::postgres(&database));
                tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("in time");
            }
        )+ }
    };
}

fn postgres(database: &Database) -> State {
    let io = tokio::runtime::Handle::current();
    Arc::new(PgState::new(&database.settings("obtrace_app"), io).expect("settings"))
}

contract!(
    totals_are_kept_by_tenant_day_and_source,
    a_late_repeat_does_no_harm,
    old_days_are_forgotten_when_told_so,
    the_last_use_of_a_key_never_goes_back,
    calls_from_many_tasks_all_count,
    deploys_are_kept_by_tenant_and_read_newest_first,
    a_deploy_told_twice_is_one_and_the_first_teller_stays,
    old_deploys_are_forgotten_when_told_so,
    a_version_that_follows_another_is_a_marker_of_its_earliest_time,
    pages_of_markers_neither_double_nor_leave_out,
    versions_are_forgotten_when_they_were_last_seen_long_ago,
    the_check_leaves_nothing_behind,
);

#[tokio::test]
async fn what_was_answered_is_there_in_the_next_process() {
    let dir = tempfile::tempdir().expect("tempdir");
    sqlite(dir.path()).put_usage(vec![row("a", 1, "p", 5, 50)]).await.unwrap();
    let again = sqlite(dir.path());
    assert_eq!(again.usage(Day(1)).await.unwrap(), [row("a", 1, "p", 5, 50)]);
}

#[tokio::test]
async fn a_damaged_file_is_for_the_operator_and_a_whole_one_in_its_place_is_taken() {
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("deep/state.db");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, vec![7_u8; 8192]).unwrap();
    let state = sqlite(dir.path());
    let fault = state.check().await.unwrap_err();
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    assert!(fault.to_string().contains("state.db") && fault.what.contains("move it away"), "{fault}");
    std::fs::remove_file(&file).unwrap();
    state.check().await.expect("a fresh file is made");
}

#[tokio::test]
async fn a_schema_of_a_newer_or_another_build_is_refused() {
    for (change, says) in [
        ("INSERT INTO schema_migrations VALUES (99, 'later', 'x')", "start the newer obtrace"),
        ("UPDATE schema_migrations SET checksum = 'other'", "another text"),
    ] {
        let dir = tempfile::tempdir().expect("tempdir");
        sqlite(dir.path()).check().await.unwrap();
        let raw = rusqlite::Connection::open(dir.path().join("deep/state.db")).unwrap();
        raw.execute(change, []).unwrap();
        let fault = sqlite(dir.path()).check().await.unwrap_err();
        assert_eq!(fault.class, FailureClass::Config);
        assert!(fault.what.contains(says), "{fault}");
    }
}

#[tokio::test]
async fn a_file_that_is_locked_is_busy_and_then_works_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let state = sqlite(dir.path());
    state.check().await.unwrap();
    let other = rusqlite::Connection::open(dir.path().join("deep/state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fault = tokio::time::timeout(Duration::from_secs(30), state.check()).await.unwrap().unwrap_err();
    assert_eq!(fault.class, FailureClass::Overload, "{fault}");
    other.execute_batch("ROLLBACK").unwrap();
    state.check().await.expect("the lock is gone");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_a_dependency_that_is_down() {
    let dir = tempfile::tempdir().expect("tempdir");
    // A file where the folder should be: no user may make that folder.
    std::fs::write(dir.path().join("deep"), b"").unwrap();
    let state = sqlite(dir.path());
    assert_eq!(state.check().await.unwrap_err().class, FailureClass::Dependency);
    std::fs::remove_file(dir.path().join("deep")).unwrap();
    state.check().await.expect("it is back");
}
