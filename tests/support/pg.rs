//! A database of a test's own on a real Postgres: with roles and schema, dropped at the end.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::time::Duration;

use obtrace::backends::state::migrate::{self, POSTGRES_ROLES, Place};
use obtrace::backends::state::postgres::PgSettings;
use tokio_postgres::{Client, NoTls};

/// Password of the two roles that log in.
const PASSWORD: &str = "test";
/// Lock on the server under which roles are made: they are of the server and not of a database.
const ROLES_LOCK: i64 = 4_711;

/// A database. Dropped with its value.
pub struct Database {
    admin: String,
    name: String,
}

impl Database {
    /// A database with roles and without a schema, on the server that `admin` leads to as a superuser.
    pub async fn bare(admin: &str) -> Self {
        Self::named(admin, &format!("t_{}", uuid::Uuid::now_v7().simple())).await
    }

    /// As [`Database::bare`], of a name that the server knows: this way a test comes under a rule of `hba.conf`.
    pub async fn named(admin: &str, name: &str) -> Self {
        let this = Self { admin: admin.to_owned(), name: name.to_owned() };
        let server = connect(admin).await;
        server
            .batch_execute(&format!("CREATE DATABASE {} TEMPLATE template0", this.name))
            .await
            .expect("create");
        let lock = format!("SELECT pg_advisory_lock({ROLES_LOCK})");
        server.batch_execute(&lock).await.expect("lock");
        make_roles(&connect(&this.admin_url()).await).await;
        this
    }

    /// A database on a server where there are no roles yet, which `manager` makes: twice, and as one who may make roles
    /// and is no superuser.
    pub async fn managed(admin: &str) -> Self {
        let this = Self { admin: admin.to_owned(), name: "managed".to_owned() };
        let server = connect(admin).await;
        server.batch_execute("CREATE ROLE manager LOGIN CREATEROLE").await.expect("a manager");
        let create = "CREATE DATABASE managed OWNER manager TEMPLATE template0";
        server.batch_execute(create).await.expect("create");
        let manager = connect(&this.url("manager")).await;
        for _ in 0..2 {
            make_roles(&manager).await;
        }
        this
    }

    /// A database with its schema.
    pub async fn fresh(admin: &str) -> Self {
        let this = Self::bare(admin).await;
        migrate::migrate(&this.place()).await.expect("the schema");
        this
    }

    /// For `obtrace::backends::state::migrate`.
    pub fn place(&self) -> Place {
        Place::Postgres(self.settings("obtrace_migrate"))
    }

    /// How one of the two roles gets in.
    pub fn settings(&self, role: &str) -> PgSettings {
        settings(&self.url(role))
    }

    /// The URL of one of the two roles.
    pub fn url(&self, role: &str) -> String {
        let (_, rest) = self.admin.split_once('@').expect("user@host");
        let host = rest.split('/').next().unwrap_or(rest);
        format!("postgres://{role}:{PASSWORD}@{host}/{}", self.name)
    }

    /// The URL of the superuser.
    pub fn admin_url(&self) -> String {
        let (server, _) = self.admin.rsplit_once('/').expect("…/database");
        format!("{server}/{}", self.name)
    }

    /// `host:port` of the server.
    pub fn host(&self) -> String {
        let (_, rest) = self.admin.split_once('@').expect("user@host");
        rest.split('/').next().unwrap_or(rest).to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let work = async {
                    // Where the test has ended the server, there is nothing to drop.
                    let Ok((client, connection)) = tokio_postgres::connect(&admin, NoTls).await else {
                        return;
                    };
                    tokio::spawn(connection);
                    client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.ok();
                };
                tokio::time::timeout(Duration::from_secs(20), work).await.ok();
            });
        });
        dropping.join().ok();
    }
}

async fn make_roles(admin: &Client) {
    admin.batch_execute(POSTGRES_ROLES).await.expect("roles");
    for role in ["obtrace_app", "obtrace_migrate"] {
        let set = format!("ALTER ROLE {role} PASSWORD '{PASSWORD}'");
        admin.batch_execute(&set).await.expect("password");
    }
}

/// Settings for a URL, without TLS.
pub fn settings(url: &str) -> PgSettings {
    PgSettings {
        url: url.to_owned(),
        pool: 4,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(20),
        tls: None,
    }
}

/// A connection past everything of Obtrace.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}
