//! The embedded engine as a process: `obtrace engine` with the real library, over HTTP.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use obtrace::backends::telemetry::engine::{
    EXIT_CONFIG, EngineChild, EngineEndpoint, EngineError, EngineSpec, Ready,
};
use obtrace::clock;
use obtrace::domain::failure::{Classified, FailureClass};
use serde::{Deserialize, Serialize};

use crate::own_engine::spec;

const BINARY: &str = env!("CARGO_BIN_EXE_obtrace");
const PATIENCE: Duration = Duration::from_secs(60);

const TABLE: &str = "create table if not exists t (id UInt64, body String) engine = MergeTree order by id \
    settings non_replicated_deduplication_window = 100, fsync_after_insert = 1, fsync_part_directory = 1";

struct Running {
    child: EngineChild,
    endpoint: EngineEndpoint,
    http: reqwest::Client,
}

struct Answer {
    status: u16,
    code: Option<String>,
    summary: serde_json::Value,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

impl Running {
    async fn start(folder: &Path) -> Self {
        Self::from_spec(spec(folder)).await
    }

    async fn from_spec(spec: EngineSpec) -> Self {
        let child = EngineChild::spawn(spec).await.expect("the engine starts");
        let endpoint = child.endpoint().expect("it is ready");
        Self { child, endpoint, http: reqwest::Client::new() }
    }

    async fn post(&self, query: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        self.try_post(query, body).await.expect("an answer")
    }

    async fn try_post(
        &self,
        query: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let request =
            self.http.post(&self.endpoint.url).query(query).header("X-ClickHouse-Key", &self.endpoint.secret);
        let response = request.timeout(PATIENCE).body(body).send().await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, code) = (response.status().as_u16(), header("x-clickhouse-exception-code"));
        let summary = header("x-clickhouse-summary")
            .map_or(serde_json::Value::Null, |s| serde_json::from_str(&s).expect("the summary is JSON"));
        Ok(Answer { status, code, summary, body: response.bytes().await?.to_vec() })
    }

    /// Runs a statement that must succeed and returns its text.
    async fn sql(&self, text: &str) -> String {
        let answer = self.post(&[], text.to_owned()).await;
        assert_eq!(answer.status, 200, "{text}: {}", answer.text());
        answer.text()
    }

    async fn insert(&self, token: &str, ids: std::ops::Range<u64>) -> reqwest::Result<Answer> {
        let query = [("query", "insert into t format ArrowStream"), ("insert_deduplication_token", token)];
        self.try_post(&query, arrow_stream(ids)).await
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn arrow_stream(ids: std::ops::Range<u64>) -> Vec<u8> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::UInt64, false),
        Field::new("body", DataType::Utf8, false),
    ]));
    let bodies = StringArray::from_iter_values(ids.clone().map(|id| format!("row {id}")));
    let columns: Vec<arrow_array::ArrayRef> =
        vec![Arc::new(UInt64Array::from_iter_values(ids)), Arc::new(bodies)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns fit the schema");
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &schema).expect("a writer");
    writer.write(&batch).expect("written");
    writer.into_inner().expect("finished")
}

fn kill_9(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
}

/// True while the process runs; one that has ended but was not reaped does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let give_up = clock::now() + PATIENCE;
    while !condition().await {
        assert!(clock::now() < give_up, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_ping_select_and_parameters() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    let ping = reqwest::get(format!("{}/ping", engine.endpoint.url)).await.expect("an answer");
    assert_eq!(ping.text().await.expect("text"), "Ok.\n");
    let answer = engine
        .post(
            &[
                ("query", "select {a:UInt8} + 1 as n, {b:String} as s"),
                ("param_a", "3"),
                ("param_b", r"x'\ty"),
                ("default_format", "JSONEachRow"),
            ],
            "",
        )
        .await;
    assert_eq!(answer.text(), "{\"n\":4,\"s\":\"x'\\ty\"}");
    assert_eq!(answer.summary["read_rows"], "1");
    assert_eq!(engine.sql("select currentDatabase(), timezone()").await, "obtrace\tUTC");
    let setting = [("query", "select getSetting('max_threads')"), ("max_threads", "7")];
    assert_eq!(engine.post(&setting, "").await.text(), "7");
    assert_ne!(engine.sql("select getSetting('max_threads')").await, "7", "a setting outlived its request");
}

#[derive(Debug, Clone, PartialEq, clickhouse::Row, Serialize, Deserialize)]
struct Line {
    id: u64,
    body: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_the_clickhouse_crate() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    let client = clickhouse::Client::default()
        .with_url(&engine.endpoint.url)
        .with_user("default")
        .with_password(&engine.endpoint.secret)
        .with_database("obtrace");
    let lines: Vec<Line> = (0..1000).map(|id| Line { id, body: format!("line {id}") }).collect();
    let mut insert = client.insert::<Line>("t").await.expect("an insert");
    for line in &lines {
        insert.write(line).await.expect("written");
    }
    insert.end().await.expect("committed");
    let read =
        client.query("select ?fields from t where id < ? order by id").bind(500).fetch_all::<Line>().await;
    assert_eq!(read.expect("read"), lines[..500]);
    let by_parameter = client.query("select count() from t where body = {b:String}").param("b", "line 7");
    assert_eq!(by_parameter.fetch_one::<u64>().await.expect("read"), 1);
    let error = client.query("select * from nowhere").execute().await.expect_err("no such table");
    assert!(error.to_string().contains("Code: 60. DB::Exception"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_token_stores_one_copy_even_after_kill_9() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    for _ in 0..2 {
        let answer = engine.insert("block-1", 0..10_000).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.summary["written_rows"].as_str()),
            (200, Some("10000")),
            "{}",
            answer.text()
        );
    }
    assert_eq!(engine.sql("select count() from t").await, "10000");
    kill_9(engine.child.pid());
    let ended = engine.child.ended_error().await;
    assert_eq!(ended.class(), FailureClass::Dependency);
    let engine = Running::start(folder.path()).await;
    engine.insert("block-1", 0..10_000).await.expect("an answer");
    assert_eq!(engine.sql("select count(), uniqExact(id) from t").await, "10000\t10000");
    engine.insert("block-2", 10_000..10_010).await.expect("an answer");
    assert_eq!(engine.sql("select count() from t").await, "10010");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_mid_insert_loses_and_doubles_nothing_acknowledged() {
    const BLOCK: u64 = 2_000;
    let folder = folder();
    let mut engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    let mut next = 0;
    for round in 0..4 {
        let pid = engine.child.pid();
        let killer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(60 + 45 * round)).await;
            kill_9(pid);
        });
        // the block that gets no answer is sent again under its token after the restart
        while let Ok(answer) = engine.insert(&format!("block-{next}"), next * BLOCK..(next + 1) * BLOCK).await
        {
            assert_eq!(answer.status, 200, "{}", answer.text());
            next += 1;
        }
        killer.await.expect("killed");
        engine.child.ended_error().await;
        engine = Running::start(folder.path()).await;
        let again = engine
            .insert(&format!("block-{next}"), next * BLOCK..(next + 1) * BLOCK)
            .await
            .expect("an answer");
        assert_eq!(again.status, 200, "{}", again.text());
        next += 1;
        let expected = format!("{0}\t{0}", next * BLOCK);
        assert_eq!(engine.sql("select count(), uniqExact(id) from t").await, expected, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_clickhouse_codes_names_and_statuses() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    let cases: [(&str, &str, u16, &str, &str); 13] = [
        ("", "select * from nowhere", 404, "60", "(UNKNOWN_TABLE)"),
        ("", "selec 1", 400, "62", "(SYNTAX_ERROR)"),
        ("", "select 1; select 2", 400, "62", "Multi-statements"),
        ("nosuch_setting=1", "select 1", 404, "115", "nosuch_setting"),
        (
            "",
            "select groupArray(number) from numbers(50000000) settings max_memory_usage = 10000000",
            500,
            "241",
            "(MEMORY_LIMIT_EXCEEDED)",
        ),
        ("max_execution_time=0.2", "select sleep(3)", 408, "159", "(TIMEOUT_EXCEEDED)"),
        ("", "select * from file('/etc/passwd', 'LineAsString')", 403, "497", "(ACCESS_DENIED)"),
        ("", "select * from url('http://127.0.0.1:1/', 'LineAsString')", 403, "497", "(ACCESS_DENIED)"),
        ("", "select 1 into outfile '/tmp/obtrace-never'", 403, "497", "OUTFILE"),
        ("", "create database other", 403, "497", "(ACCESS_DENIED)"),
        ("", "system shutdown", 403, "497", "(ACCESS_DENIED)"),
        (
            "",
            "insert into t format CSV\n1,\"a\"\nx,\"b\"\n",
            400,
            "27",
            "(CANNOT_PARSE_INPUT_ASSERTION_FAILED)",
        ),
        ("decompress=1", "insert into t format CSV\n1,\"a\"\n", 501, "48", "decompress"),
    ];
    for (query, text, status, code, words) in cases {
        let pair = query.split_once('=');
        let answer = engine.post(pair.as_slice(), text).await;
        let said = answer.text();
        assert_eq!((answer.status, answer.code.as_deref()), (status, Some(code)), "{text}: {said}");
        assert!(
            said.starts_with(&format!("Code: {code}. DB::Exception: ")) && said.contains(words),
            "{text}: {said}"
        );
        assert_eq!(said.matches("DB::Exception").count(), 1, "{said}");
    }
    assert!(!Path::new("/tmp/obtrace-never").exists());
    assert_eq!(engine.sql("select count() from t").await, "0", "a failed insert left rows");
    let read_only = engine.http.get(&engine.endpoint.url).query(&[("query", "truncate table t")]);
    let answer =
        read_only.header("X-ClickHouse-Key", &engine.endpoint.secret).send().await.expect("an answer");
    assert_eq!(answer.headers()["x-clickhouse-exception-code"], "164");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_secret() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    let (url, secret) = (&engine.endpoint.url, &engine.endpoint.secret);
    let ask = || engine.http.get(url).query(&[("query", "select 1")]);
    let wrong = [
        ask(),
        ask().header("X-ClickHouse-Key", "guess"),
        ask().header("X-ClickHouse-User", "root").header("X-ClickHouse-Key", secret),
        ask().basic_auth("default", Some("guess")),
        ask().query(&[("user", "default"), ("password", &secret[1..])]),
    ];
    for request in wrong {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 403);
        assert_eq!(answer.headers()["x-clickhouse-exception-code"], "516");
        assert!(answer.text().await.expect("text").contains("(AUTHENTICATION_FAILED)"));
    }
    let right = [
        ask().basic_auth("default", Some(secret)),
        ask().query(&[("user", "default"), ("password", secret)]),
    ];
    for request in right {
        assert_eq!(request.send().await.expect("an answer").text().await.expect("text"), "1\n");
    }
    let command =
        std::fs::read_to_string(format!("/proc/{}/cmdline", engine.child.pid())).expect("its arguments");
    assert!(!command.contains(secret.as_str()), "the secret is in the arguments");
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_queries_run_and_a_left_one_is_cancelled() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    let slow = "select sum(sleepEachRow(0.5)) from numbers(1000) settings max_block_size = 1, \
        max_execution_time = 600, function_sleep_max_microseconds_per_block = 1000000000";
    let left =
        engine.http.post(&engine.endpoint.url).header("X-ClickHouse-Key", &engine.endpoint.secret).body(slow);
    let left = tokio::time::timeout(Duration::from_millis(700), left.send()).await;
    assert!(left.is_err(), "the slow query answered at once");
    // four threads, one of them perhaps still on its way out of the cancelled query
    let text = |n: u64| format!("select sum(number) + {n} from numbers(1000000)");
    let texts: Vec<String> = (0..8).map(text).collect();
    let answers = futures_util::future::join_all(texts.iter().map(|t| engine.sql(t))).await;
    let expected: Vec<String> = (0..8).map(|n: u64| (499_999_500_000 + n).to_string()).collect();
    assert_eq!(answers, expected);
    until("the query that nobody waits for ends", async || {
        engine.sql("select count() from system.processes").await == "1"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_breaks_off_leaves_nothing() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    let whole = arrow_stream(0..50_000);
    let half = whole[..whole.len() / 2].to_vec();
    let truncated = engine.post(&[("query", "insert into t format ArrowStream")], half.clone()).await;
    assert_ne!(truncated.status, 200, "half a stream was taken");
    // a client that dies while it sends: the announced length never comes
    let address = engine.endpoint.url.trim_start_matches("http://");
    let mut socket = std::net::TcpStream::connect(address).expect("connected");
    let head = format!(
        "POST /?query=insert+into+t+format+ArrowStream HTTP/1.1\r\nHost: {address}\r\nX-ClickHouse-Key: {}\r\nContent-Length: {}\r\n\r\n",
        engine.endpoint.secret,
        whole.len()
    );
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(&half)).expect("sent");
    drop(socket);
    let next = engine.insert("after", 0..10).await.expect("an answer");
    assert_eq!(next.status, 200, "{}", next.text());
    until("the broken insert ends", async || engine.sql("select count() from system.processes").await == "1")
        .await;
    assert_eq!(engine.sql("select count() from t").await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_come_in_every_form() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    engine.sql("insert into t (id, body) format JSONEachRow\n{\"id\":1,\"body\":\"format CSV\"}\n").await;
    engine.sql("insert into t values (2, 'values')").await;
    engine.sql("insert into t select 3, 'select'").await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"4,\"gzip\"\n").expect("packed");
    let request = engine.http.post(&engine.endpoint.url).query(&[("query", "insert into t format CSV")]);
    let request =
        request.header("Content-Encoding", "gzip").header("X-ClickHouse-Key", &engine.endpoint.secret);
    let answer = request.body(gzip.finish().expect("packed")).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let rows = engine.sql("select id, body from t order by id").await;
    assert_eq!(rows, "1\tformat CSV\n2\tvalues\n3\tselect\n4\tgzip");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_of_the_folder_is_refused_in_clear_words() {
    let folder = folder();
    let first = Running::start(folder.path()).await;
    let error = EngineChild::spawn(spec(folder.path())).await.expect_err("refused");
    assert_eq!(error.class(), FailureClass::Config);
    let EngineError::Ended { status, last } = &error else { panic!("{error}") };
    assert_eq!(status.code(), Some(i32::from(EXIT_CONFIG)));
    for part in [
        format!("process {}", first.child.pid()),
        folder.path().display().to_string(),
        "stop that process".to_owned(),
    ] {
        assert!(last.contains(part.as_str()), "{part} not in: {last}");
    }
    assert_eq!(first.sql("select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_library_is_said_so() {
    let folder = folder();
    let missing = EngineSpec { library: Some("/nowhere/libchdb.so".into()), ..spec(folder.path()) };
    let error = EngineChild::spawn(missing).await.expect_err("refused");
    assert_eq!(error.class(), FailureClass::Config);
    assert!(
        error.to_string().contains("/nowhere/libchdb.so") && error.to_string().contains("make engine"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_limit_of_the_process_holds() {
    let folder = folder();
    let engine = Running::from_spec(EngineSpec { memory_limit: 600 << 20, ..spec(folder.path()) }).await;
    let hungry = "select length(groupArray(number)) from numbers(200000000) settings max_memory_usage = 0";
    let answer = engine.post(&[], hungry).await;
    assert_eq!(answer.code.as_deref(), Some("241"), "{}", answer.text());
    assert_eq!(engine.sql("select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_in_order_and_dies_with_its_handle() {
    let folder = folder();
    let engine = Running::start(folder.path()).await;
    engine.sql(TABLE).await;
    engine.insert("a", 0..10).await.expect("an answer");
    assert!(engine.child.stop(Duration::from_secs(20)).await, "it had to be killed");
    let engine = Running::start(folder.path()).await;
    assert_eq!(engine.sql("select count() from t").await, "10");
    let pid = engine.child.pid();
    drop(engine.child);
    until("a dropped engine ends", async || !runs(pid)).await;
}

/// Starts an engine below a shell, as its parent; the test keeps the writing end of its stdin.
fn below_a_shell(folder: &Path) -> (std::process::Child, Ready) {
    let script = "exec 3<&0; \"$0\" engine --data-dir \"$1\" --watch-stdin --parent-pid $$ <&3 & wait";
    let mut shell = Command::new("sh")
        .args(["-c", script, BINARY])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    writeln!(shell.stdin.as_mut().expect("its stdin"), "secret").expect("written");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("its stdout")).read_line(&mut line).expect("a line");
    (shell, serde_json::from_str(&line).expect("the ready line"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_when_its_stdin_closes() {
    let folder = folder();
    let (mut shell, ready) = below_a_shell(folder.path());
    assert!(runs(ready.pid));
    assert_eq!(ready.secret, None, "the parent's secret was printed");
    drop(shell.stdin.take());
    until("the engine ends with its stdin", async || !runs(ready.pid)).await;
    shell.wait().expect("the shell ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_with_a_parent_that_is_killed_though_its_stdin_stays_open() {
    let folder = folder();
    let (mut shell, ready) = below_a_shell(folder.path());
    assert!(runs(ready.pid));
    kill_9(shell.id());
    until("the engine dies with its parent", async || !runs(ready.pid)).await;
    shell.wait().expect("the shell is gone");
}
