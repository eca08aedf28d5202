//! TLS to Postgres: which certificates the server and we take from each other, and what an operator hears when one is not
//! taken or a file is not what it should be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use obtrace::backends::fault::PortFault;
use obtrace::backends::state::StateStore;
use obtrace::backends::state::migrate::{self, Place};
use obtrace::backends::state::postgres::{PgSettings, PgState, PgTls};
use obtrace::domain::failure::FailureClass;
use obtrace::domain::usage::{Day, Usage, UsageRow};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::authority::{Authority, Pair, locked_key};
use crate::pg::{self, Database};
use crate::proxy::{Mode, Proxy};
use crate::services::{self, Private};

/// The database into which `hba.conf` of `dev/services/postgres.sh` lets nobody without a certificate.
const CERTS: &str = "obtrace_certs";

fn state(settings: &PgSettings) -> PgState {
    PgState::new(settings, Handle::current()).expect("settings")
}

/// A server of the test's own with that database, and the authority whose certificates it takes.
struct Guarded {
    database: Database,
    ca: PathBuf,
    ours: Authority,
    folder: TempDir,
    _server: Private,
}

impl Guarded {
    async fn start() -> Self {
        let server = Private::start("postgres");
        let database = Database::named(&server.line("OBTRACE_TEST_POSTGRES"), CERTS).await;
        let ca = PathBuf::from(server.line("OBTRACE_TEST_POSTGRES_CA"));
        let (ours, folder) = (Authority::of_the_services(&ca), tempfile::tempdir().expect("a folder"));
        Self { database, ca, ours, folder, _server: server }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The settings of a role that shows this certificate.
    fn settings(&self, role: &str, shown: Option<Pair>) -> PgSettings {
        let tls = PgTls {
            ca: Some(self.ca.clone()),
            identity: shown.map(|Pair { certificate, key }| (certificate, key)),
        };
        PgSettings { tls: Some(tls), ..self.database.settings(role) }
    }

    /// The settings of a role that shows the certificate of its name.
    fn good(&self, role: &str) -> PgSettings {
        self.settings(role, Some(self.ours.issue(self.folder(), role)))
    }

    /// What a process hears that shows this certificate.
    async fn refused(&self, shown: Option<Pair>) -> PortFault {
        state(&self.settings("obtrace_app", shown)).check().await.expect_err("it is let in")
    }
}

fn for_the_operator(fault: &PortFault, words: &[&str]) {
    assert_eq!(fault.class, FailureClass::Config, "{fault}");
    for word in words {
        assert!(fault.what.contains(word), "no {word:?} in: {fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_role_lets_it_migrate_write_and_read() {
    let guarded = Guarded::start().await;
    migrate::migrate(&Place::Postgres(guarded.good("obtrace_migrate"))).await.expect("the schema");
    let store = state(&guarded.good("obtrace_app"));
    store.check().await.expect("it is let in");
    let usage = Usage { spans: 7, bytes: 1, ..Usage::default() };
    let row = UsageRow { tenant: "a".into(), day: Day(1), source: "p".into(), usage };
    store.put_usage(vec![row.clone()]).await.expect("written");
    assert_eq!(store.usage(Day(1)).await.expect("read"), [row]);

    let admin = pg::connect(&guarded.database.admin_url()).await;
    let seen = "SELECT DISTINCT s.client_dn FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
        WHERE a.usename = 'obtrace_app' AND a.datname = current_database()";
    let names = admin.query(seen, &[]).await.expect("seen");
    let names: Vec<Option<String>> = names.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, [Some("/CN=obtrace_app".to_owned())], "the server knows them by their certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_server_does_not_let_in_hears_why_and_what_to_see_to() {
    let guarded = Guarded::start().await;
    let folder = guarded.folder();

    let fault = guarded.refused(None).await;
    for_the_operator(&fault, &["requires a valid client certificate", "28000", "store.state.tls_cert"]);

    let other_name = guarded.ours.issue(folder, "obtrace_migrate");
    let fault = guarded.refused(Some(other_name)).await;
    for_the_operator(&fault, &["certificate authentication failed", "obtrace_app", "whose CN is the user"]);

    // The server says it by an alert, after the handshake: time and again it must not look like a lost connection.
    let other = Authority::unknown();
    for _ in 0..20 {
        let fault = guarded.refused(Some(other.issue(folder, "obtrace_app"))).await;
        for_the_operator(&fault, &["refuses our certificate", "store.state.tls_cert", "unknown ca"]);
    }
    let fault = guarded.refused(Some(guarded.ours.issue_expired(folder, "obtrace_app"))).await;
    for_the_operator(&fault, &["refuses our certificate", "time must not be over", "certificate expired"]);

    let in_clear = PgSettings { tls: None, ..guarded.database.settings("obtrace_app") };
    let fault = state(&in_clear).check().await.expect_err("it is let in");
    for_the_operator(&fault, &["28000", "no encryption", "store.state.tls"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_or_of_another_name_is_not_trusted() {
    let database = Database::fresh(&services::postgres()).await;
    let ca = PathBuf::from(services::shared("postgres", "OBTRACE_TEST_POSTGRES_CA"));
    let folder = tempfile::tempdir().expect("a folder");
    let with = |ca: Option<PathBuf>, settings: PgSettings| {
        state(&PgSettings { tls: Some(PgTls { ca, identity: None }), ..settings })
    };
    let settings = database.settings("obtrace_app");
    let store = with(Some(ca.clone()), settings.clone());
    store.check().await.expect("the authority is known");
    let admin = pg::connect(&database.admin_url()).await;
    let seen = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
        WHERE a.application_name = 'obtrace' AND a.datname = current_database()";
    assert!(admin.query_one(seen, &[]).await.unwrap().get::<_, bool>(0), "the server sees TLS");

    for other in [None, Some(Authority::unknown().save(folder.path()))] {
        let fault = with(other, settings.clone()).check().await.expect_err("it is trusted");
        for_the_operator(&fault, &["not one to trust", "store.state.tls_ca", "certificate verify failed"]);
    }
    // The certificate is for 127.0.0.1 and localhost.
    let proxy = Proxy::between("127.0.0.2:0", &database.host());
    let url = settings.url.replace(&database.host(), &proxy.host());
    let elsewhere = PgSettings { url, ..settings };
    let fault = with(Some(ca), elsewhere).check().await.expect_err("it is trusted");
    for_the_operator(&fault, &["not one to trust", "host in store.state.url", "IP address mismatch"]);
}

/// What `obtrace migrate --plan` says where the machine trusts this authority, and the configuration perhaps another one.
async fn plan(database: &Database, machine: &Path, named: Option<&Path>) -> String {
    let data = tempfile::tempdir().expect("a folder");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_obtrace"));
    command.args(["migrate", "--plan", "--set", "store.state.backend=postgres"]);
    command.arg("--set").arg(format!("data_dir={}", data.path().display()));
    if let Some(named) = named {
        command.arg("--set").arg(format!("store.state.tls_ca={}", named.display()));
    }
    command.env("SSL_CERT_FILE", machine);
    for (key, role) in [("URL", "obtrace_app"), ("MIGRATE_URL", "obtrace_migrate")] {
        command.env(format!("OBTRACE__STORE__STATE__{key}"), database.url(role));
    }
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(Duration::from_secs(120), running).await.expect("it ends");
    let output = output.expect("no panic").expect("it runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_named_counts_alone_and_else_those_of_the_machine() {
    let database = Database::fresh(&services::postgres()).await;
    let ca = PathBuf::from(services::shared("postgres", "OBTRACE_TEST_POSTGRES_CA"));
    let folder = tempfile::tempdir().expect("a folder");
    let other = Authority::unknown().save(folder.path());
    let in_place = format!("{0} of {0} in place", migrate::STEPS.len());
    for (machine, named, trusted) in
        [(&ca, None, true), (&other, None, false), (&other, Some(&*ca), true), (&ca, Some(&*other), false)]
    {
        let said = plan(&database, machine, named).await;
        let connected = said.contains(&in_place);
        assert_eq!((connected, said.contains("not one to trust")), (trusted, !trusted), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_in_the_handshake_is_no_matter_of_certificates() {
    let database = Database::bare(&services::postgres()).await;
    let ca = PathBuf::from(services::shared("postgres", "OBTRACE_TEST_POSTGRES_CA"));
    let proxy = Proxy::start(&database.host());
    let settings = database.settings("obtrace_app");
    let tls = Some(PgTls { ca: Some(ca), identity: None });
    let settings = PgSettings { url: proxy.in_front_of(&settings.url), tls, ..settings };
    proxy.set(Mode::Latency(Duration::from_millis(200)));
    let store = state(&settings);
    let call = tokio::spawn(async move { store.check().await });
    // The answer to the wish for TLS is on its way, or the handshake has begun.
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.set(Mode::Reset);
    let fault = call.await.expect("no panic").expect_err("there is no schema, and no connection");
    assert_eq!(fault.class, FailureClass::Dependency, "{fault}");
}

#[tokio::test]
async fn a_file_that_is_missing_or_something_else_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let authority = Authority::unknown();
    let (ca, good) = (authority.save(folder), authority.issue(folder, "obtrace_app"));
    let other = authority.issue(folder, "obtrace_app");
    let (missing, locked) = (folder.join("missing.pem"), locked_key(folder));
    let fault = |ca: &Path, certificate: &Path, key: &Path| {
        let identity = Some((certificate.to_owned(), key.to_owned()));
        let tls = PgTls { ca: Some(ca.to_owned()), identity };
        let settings = PgSettings { tls: Some(tls), ..pg::settings("postgres://u@127.0.0.1:1/d") };
        PgState::new(&settings, Handle::current()).expect_err("it is taken")
    };
    let (cert, key) = (&good.certificate, &good.key);
    for (fault, setting, file, why) in [
        (fault(&missing, cert, key), "tls_ca", &missing, "No such file"),
        (fault(key, cert, key), "tls_ca", key, "no certificate"),
        (fault(&ca, &missing, key), "tls_cert", &missing, "No such file"),
        (fault(&ca, key, key), "tls_cert", key, "no certificate"),
        (fault(&ca, cert, &missing), "tls_key", &missing, "No such file"),
        (fault(&ca, cert, cert), "tls_key", cert, "no private key"),
        (fault(&ca, cert, &locked), "tls_key", &locked, "has a passphrase"),
        (fault(&ca, cert, &other.key), "tls_key", &other.key, "not the key of the certificate in tls_cert"),
    ] {
        let named = format!("store.state.{setting} {}: ", file.display());
        for_the_operator(&fault, &[&named, why]);
    }
    let good = PgTls { ca: Some(ca), identity: Some((cert.clone(), key.clone())) };
    let settings = PgSettings { tls: Some(good), ..pg::settings("postgres://u@127.0.0.1:1/d") };
    PgState::new(&settings, Handle::current()).expect("the right ones");
}
