//! `dev/services/run` itself: what it starts answers, a second `up` changes nothing, what was killed comes back on the
//! same port with its data, and nothing outlives the process it was started for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStoreExt, path::Path as Key};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::services::{self, Private};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client that is not let in tries.
const REFUSED: Duration = Duration::from_secs(4);

fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}: not after {PATIENCE:?}");
        sleep(Duration::from_millis(50));
    }
}

/// One command to a Redis, and its answer as it is on the wire.
fn redis(url: &str, command: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).expect("redis answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    write!(stream, "{command}\r\n").expect("it takes the command");
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// How many brokers say that they are there, asked for so long.
fn brokers(config: &[(&str, &str)], within: Duration) -> Result<usize, String> {
    let mut client = ClientConfig::new();
    for (key, value) in config {
        client.set(*key, *value);
    }
    let consumer: BaseConsumer = client.create().map_err(|e| e.to_string())?;
    let metadata = consumer.fetch_metadata(None, within).map_err(|e| e.to_string())?;
    Ok(metadata.brokers().len())
}

#[test]
fn up_is_idempotent_and_down_keeps_the_data() {
    let mut redis_service = Private::start("redis");
    let (url, pid) = (redis_service.line("OBTRACE_TEST_REDIS"), redis_service.pid("redis"));
    assert_eq!(redis(&url, "SET kept yes"), "+OK\r\n");

    redis_service.start_again();
    assert_eq!(redis_service.pid("redis"), pid, "a second up starts nothing");
    let status = redis_service.script(&["status"]);
    assert!(status.contains(&format!("redis          ready      pid {pid}")), "{status}");

    redis_service.stop();
    let status = redis_service.script(&["status"]);
    assert!(status.contains("redis          stopped    pid -"), "{status}");
    assert_eq!(redis_service.script(&["env"]), "", "what does not run has no address");
    // Long enough for whoever watches over it to have a look.
    sleep(Duration::from_millis(2500));

    redis_service.start_again();
    assert_eq!(redis_service.line("OBTRACE_TEST_REDIS"), url, "the port stays");
    assert_eq!(redis(&url, "GET kept"), "$3\r\nyes\r\n");
}

#[test]
fn what_was_killed_comes_back_with_its_data() {
    let mut postgres = Private::start("postgres");
    let url = postgres.line("OBTRACE_TEST_POSTGRES");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let query = |sql: &str| {
        runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("postgres answers");
            let connection = tokio::spawn(connection);
            let rows = client.simple_query(sql).await.expect("it does as told");
            connection.abort();
            rows.iter().filter(|row| matches!(row, tokio_postgres::SimpleQueryMessage::Row(_))).count()
        })
    };
    query("create table kept as select generate_series(1, 1000)");
    postgres.kill9("postgres");
    postgres.start_again();
    assert_eq!(postgres.line("OBTRACE_TEST_POSTGRES"), url);
    assert_eq!(query("select * from kept"), 1000);
}

#[test]
fn what_was_stopped_answers_again_when_it_goes_on() {
    let service = Private::start("redis");
    let url = service.line("OBTRACE_TEST_REDIS");
    service.freeze("redis");
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).expect("the kernel takes it");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a deadline");
    stream.write_all(b"PING\r\n").expect("the kernel takes it");
    assert!(stream.read(&mut [0; 16]).is_err(), "it stands still");
    service.thaw("redis");
    assert_eq!(redis(&url, "PING"), "+PONG\r\n");
}

#[test]
fn nothing_outlives_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut owner = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep");
    let started = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/services/run"))
        .args(["up", "redis"])
        .env("OBTRACE_SERVICES_DIR", &data)
        .env("OBTRACE_SERVICES_OWNER", owner.id().to_string())
        .env("OBTRACE_SERVICES_THROWAWAY", "1")
        .status();
    assert!(started.expect("the script runs").success());
    let pid = std::fs::read_to_string(data.join("redis/redis.pid")).expect("its process id");
    let process = format!("/proc/{}", pid.split(' ').next().expect("an id"));
    assert!(std::path::Path::new(&process).exists());

    owner.kill().expect("kill");
    owner.wait().expect("wait");
    eventually("the service has ended", || !std::path::Path::new(&process).exists());
    eventually("its folder is gone", || !data.join("redis").exists());
}

#[test]
fn nothing_outlives_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = Private::start_in("redis", &folder.path().join("data"));
    let process = format!("/proc/{}", service.pid("redis"));
    // The watcher must have seen it once.
    sleep(Duration::from_millis(1500));
    std::fs::remove_dir_all(folder.path().join("data")).expect("removed");
    eventually("the service has ended", || !std::path::Path::new(&process).exists());
}

#[test]
fn a_name_it_does_not_know_is_refused() {
    let output =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/dev/services/run")).args(["up", "rdeis"]).output();
    let output = output.expect("the script runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no service 'rdeis'") && said.contains("redis"), "{said}");
}

#[test]
fn one_broker_answers_in_clear_and_with_sasl() {
    assert_eq!(brokers(&[("bootstrap.servers", &services::kafka())], PATIENCE), Ok(1));
    let sasl = |key: &str| services::shared("kafka", &format!("OBTRACE_TEST_KAFKA_SASL{key}"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let login = |password: &str, within: Duration| {
            let (address, user) = (sasl(""), sasl("_USER"));
            let config = [
                ("bootstrap.servers", address.as_str()),
                ("security.protocol", "sasl_plaintext"),
                ("sasl.mechanism", mechanism),
                ("sasl.username", &user),
                ("sasl.password", password),
            ];
            brokers(&config, within)
        };
        assert_eq!(login(&sasl("_PASSWORD"), PATIENCE), Ok(1), "{mechanism}");
        assert!(login("wrong", REFUSED).is_err(), "{mechanism} takes a wrong password");
    }
}

#[test]
fn three_brokers_want_a_client_certificate() {
    let cluster = services::kafka_cluster();
    let text = |path: &std::path::Path| path.to_str().expect("utf-8").to_owned();
    let (ca, certificate, key) = (text(&cluster.ca), text(&cluster.certificate), text(&cluster.key));
    let bare = [
        ("bootstrap.servers", cluster.brokers.as_str()),
        ("security.protocol", "ssl"),
        ("ssl.ca.location", &ca),
    ];
    let known =
        [&bare[..], &[("ssl.certificate.location", &certificate), ("ssl.key.location", key.as_str())]]
            .concat();
    assert_eq!(brokers(&known, PATIENCE), Ok(3));
    assert!(brokers(&bare, REFUSED).is_err(), "they take a client without a certificate");
}

#[test]
fn the_bucket_takes_an_object() {
    let s3 = services::s3();
    let store = AmazonS3Builder::new()
        .with_endpoint(&s3.endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id(&s3.key)
        .with_secret_access_key(&s3.secret)
        .with_bucket_name(&s3.bucket)
        .build()
        .expect("a client");
    let key = Key::from("services-script/object");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        store.put(&key, "content".into()).await.expect("put");
        let read = store.get(&key).await.expect("get").bytes().await.expect("bytes");
        assert_eq!(&read[..], b"content");
        store.delete(&key).await.expect("delete");
    });
}
