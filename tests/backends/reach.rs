//! Reaching the telemetry store: several nodes of which one is away, TLS with an authority of one's own, and the
//! exceptions of the real engine by code.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use obtrace::backends::telemetry::client::{TelemetryClient, TelemetryError, TelemetrySettings};
use obtrace::backends::telemetry::codes;
use obtrace::backends::telemetry::read::QueryLimits;
use obtrace::domain::failure::{Classified, FailureClass};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::own_engine::Engine;

const PATIENCE: Duration = Duration::from_secs(60);

fn client(settings: &TelemetrySettings) -> TelemetryClient {
    TelemetryClient::new(settings.clone()).expect("settings are good")
}

fn row(tenant: &str) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(vec![tenant]));
    RecordBatch::try_from_iter([("tenant", column)]).expect("a batch")
}

async fn count(client: &TelemetryClient) -> String {
    let sql = "SELECT toString(count()) FROM logs";
    let result =
        client.query_for("a", sql, &[], &[], QueryLimits::default(), PATIENCE).await.expect("an answer");
    result.batches[0].column(0).as_string::<i32>().value(0).to_owned()
}

// === nodes ===

#[tokio::test]
async fn with_a_node_away_queries_go_on_and_a_repeated_insert_is_stored_once() {
    let store = Engine::with_schema().await;
    let settings = TelemetrySettings {
        url: Some("http://127.0.0.1:1".into()),
        more_urls: store.settings().url.clone().into_iter().collect(),
        ..store.settings()
    };
    let client = client(&settings);
    let mut away = 0;
    for block in 0..20 {
        let token = format!("logs/0/{block}");
        // Whoever writes tries again under the same token, as the writers do.
        for _ in 0..3 {
            match client.insert("logs", &[row("a")], &token, PATIENCE).await {
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, TelemetryError::Unreachable(_)), "{error}");
                    assert_eq!(error.class(), FailureClass::Dependency);
                    away += 1;
                }
            }
        }
        assert_eq!(count(&client).await, (block + 1).to_string(), "a query meets the node that is there");
    }
    assert!((1..10).contains(&away), "{away} of 60 went to the node that is away: it rests in between");
}

// === TLS ===

/// Reads what is there; `None` when the other end is gone, nothing read when it has nothing to say yet.
fn take(from: &mut impl Read, buffer: &mut [u8]) -> Option<usize> {
    match from.read(buffer) {
        Ok(0) => None,
        Ok(n) => Some(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

fn give(to: &mut impl Write, mut bytes: &[u8]) -> Option<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(_) => return None,
        }
    }
    Some(())
}

fn pump(mut client: SslStream<TcpStream>, mut server: TcpStream) -> Option<()> {
    client.get_ref().set_nonblocking(true).ok()?;
    server.set_nonblocking(true).ok()?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let sent = take(&mut client, &mut buffer)?;
        give(&mut server, &buffer[..sent])?;
        let answered = take(&mut server, &mut buffer)?;
        give(&mut client, &buffer[..answered])?;
        if sent + answered == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A TLS front before an address, with a certificate for 127.0.0.1 that is its own authority, written to `ca`.
fn tls_front(before: &str, ca: &Path) -> String {
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "obtrace test").expect("a name");
    let name = name.build();
    let mut certificate = X509::builder().expect("a certificate");
    let number = BigNum::from_u32(1).and_then(|n| n.to_asn1_integer()).expect("a number");
    certificate.set_version(2).expect("version");
    certificate.set_serial_number(&number).expect("number");
    certificate.set_subject_name(&name).expect("subject");
    certificate.set_issuer_name(&name).expect("issuer");
    certificate.set_pubkey(&key).expect("key");
    certificate.set_not_before(&Asn1Time::days_from_now(0).expect("time")).expect("from");
    certificate.set_not_after(&Asn1Time::days_from_now(2).expect("time")).expect("to");
    certificate.append_extension(BasicConstraints::new().critical().ca().build().expect("ca")).expect("ca");
    let names = SubjectAlternativeName::new();
    let names = { names }.ip("127.0.0.1").build(&certificate.x509v3_context(None, None)).expect("names");
    certificate.append_extension(names).expect("names");
    certificate.sign(&key, MessageDigest::sha256()).expect("signed");
    let certificate = certificate.build();
    std::fs::write(ca, certificate.to_pem().expect("pem")).expect("written");
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).expect("an acceptor");
    acceptor.set_private_key(&key).expect("key");
    acceptor.set_certificate(&certificate).expect("certificate");
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let behind = before.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for guest in listener.incoming().flatten() {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            std::thread::spawn(move || pump(acceptor.accept(guest).ok()?, TcpStream::connect(behind).ok()?));
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn a_server_behind_tls_is_reached_where_its_authority_is_trusted() {
    let store = Engine::with_schema().await;
    let ca = store.folder.path().join("ca.pem");
    let url = tls_front(store.settings().url.as_deref().expect("a url"), &ca);
    let stranger = TelemetrySettings { url: Some(url.clone()), ..store.settings() };
    let error = client(&stranger).ping(PATIENCE).await.unwrap_err();
    assert!(matches!(&error, TelemetryError::Unreachable(why) if why.contains("certificate")), "{error}");

    let settings = TelemetrySettings { ca_file: Some(ca), ..stranger.clone() };
    let client = client(&settings);
    client.ping(PATIENCE).await.expect("it answers");
    for _ in 0..2 {
        client.insert("logs", &[row("a")], "t", PATIENCE).await.expect("stored");
    }
    assert_eq!(count(&client).await, "1");
    let missing = TelemetrySettings { ca_file: Some("/nowhere/ca.pem".into()), ..stranger };
    let error = TelemetryClient::new(missing).unwrap_err();
    assert!(error.to_string().contains("telemetry.ca_file /nowhere/ca.pem"), "{error}");
    assert_eq!(error.class(), FailureClass::Config);
}

// === codes ===

#[tokio::test]
async fn the_engine_calls_the_codes_what_we_call_them() {
    let store = Engine::with_schema().await;
    let known: Vec<(i32, &str)> = codes::known().collect();
    let list: Vec<String> = known.iter().map(|(code, _)| code.to_string()).collect();
    let sql = format!("SELECT toString(errorCodeToName(arrayJoin([{}])))", list.join(", "));
    let result = client(&store.settings()).query(&sql, &[], &[], QueryLimits::default(), PATIENCE).await;
    let result = result.expect("an answer");
    let names: Vec<&str> =
        result.batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten()).collect();
    let ours: Vec<&str> = known.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, ours);
}

/// Statements that the real engine refuses, the code it does so with, and what we take it for.
const REFUSED: [(&str, i32, FailureClass); 22] = [
    ("INSERT INTO v SELECT NULL SETTINGS insert_null_as_default = 0", 70, FailureClass::Poison),
    ("INSERT INTO v FORMAT JSONEachRow {\"n\": [1]}", 27, FailureClass::Poison),
    ("INSERT INTO v FORMAT JSONEachRow {\"n\": 1", 33, FailureClass::Poison),
    ("INSERT INTO v FORMAT ArrowStream oops", 117, FailureClass::Poison),
    ("INSERT INTO v SELECT 11", 469, FailureClass::Poison),
    ("INSERT INTO v VALUES ([1])", 43, FailureClass::Poison),
    ("INSERT INTO v SELECT 1, 2", 20, FailureClass::Poison),
    ("SELECT toUInt8('x')", 6, FailureClass::Poison),
    ("SELECT toDateTime('x')", 41, FailureClass::Poison),
    ("SELECT 1 + [1]", 43, FailureClass::Poison),
    ("SELECT throwIf(1)", 395, FailureClass::Poison),
    ("SELEKT 1", 62, FailureClass::Poison),
    ("SELECT * FROM nowhere", 60, FailureClass::Config),
    ("SELECT * FROM no.where", 81, FailureClass::Config),
    ("SELECT no_such_function(1)", 46, FailureClass::Config),
    ("SELECT nothing FROM logs", 47, FailureClass::Config),
    ("SELECT 1 SETTINGS no_such_setting = 1", 115, FailureClass::Config),
    ("SELECT * FROM file('/etc/passwd', 'LineAsString')", 497, FailureClass::Config),
    ("SELECT count() FROM numbers(1000) SETTINGS max_rows_to_read = 10", 158, FailureClass::Overload),
    ("SELECT count() FROM numbers(1000) SETTINGS max_bytes_to_read = 10", 307, FailureClass::Overload),
    ("SELECT * FROM numbers(1000) SETTINGS max_result_rows = 10", 396, FailureClass::Overload),
    (
        "SELECT sleepEachRow(0.5) FROM numbers(6) SETTINGS max_execution_time = 1, max_block_size = 1",
        159,
        FailureClass::Dependency,
    ),
];

#[tokio::test]
async fn exceptions_of_the_real_engine_have_the_class_of_their_code() {
    let store = Engine::with_schema().await;
    let client = client(&store.settings());
    client
        .command("CREATE TABLE v (n UInt8, CONSTRAINT few CHECK n < 10) ENGINE = MergeTree ORDER BY n")
        .await
        .expect("made");
    let mut other = Vec::new();
    for (sql, wanted, class) in REFUSED {
        let Err(error) = client.command(sql).await else {
            other.push(format!("{sql}: no error"));
            continue;
        };
        let code = match &error {
            TelemetryError::Exception { code, .. } => *code,
            _ => 0,
        };
        if (code, error.class()) != (wanted, class) {
            other.push(format!("{sql}: {error}"));
        }
    }
    assert!(other.is_empty(), "{other:#?}");
    // Too many parts, as when merges cannot follow.
    client
        .command(
            "CREATE TABLE p (n UInt8) ENGINE = MergeTree ORDER BY n SETTINGS parts_to_delay_insert = 1, \
             parts_to_throw_insert = 2, max_delay_to_insert = 1, max_bytes_to_merge_at_max_space_in_pool = 1",
        )
        .await
        .expect("made");
    let mut last = Ok(());
    for n in 0..5 {
        last = client.command(&format!("INSERT INTO p SELECT {n}")).await;
        if last.is_err() {
            break;
        }
    }
    let error = last.expect_err("too many parts");
    assert!(matches!(error, TelemetryError::Exception { code: 252, .. }), "{error}");
    assert_eq!(error.class(), FailureClass::Overload);
}
