//! The way to the database: settings in, a pool of connections out; and the look at the wall before the first call.

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::NoTls;
use tokio_postgres::config::{Config, SslMode, TargetSessionAttrs};

use super::fault::{fault_of, fault_of_pool};
use super::tls::connector;
use super::{PORT, PgSettings, migrate};
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// Whether row-level security binds the login: no superuser, nobody who bypasses it, nobody who may become the owner.
const WALL: &str = "SELECT rolsuper OR rolbypassrls OR pg_has_role(current_user, 'obtrace_owner', 'MEMBER') \
    FROM pg_roles WHERE rolname = current_user";

pub(super) fn config(what: String) -> PortFault {
    PortFault::new(PORT, FailureClass::Config, what)
}

/// A pool that has no connection yet.
///
/// # Errors
/// Class `Config`: a URL or a certificate that is no such thing.
pub(super) fn pool(settings: &PgSettings) -> Result<Pool, PortFault> {
    let client = client(settings)?;
    let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &settings.tls {
        None => Manager::from_config(client, NoTls, how),
        Some(tls) => Manager::from_config(client, connector(tls)?, how),
    };
    let timeouts = Timeouts {
        // Less than the call has: who gets no connection hears why.
        wait: Some(settings.timeout / 2),
        create: Some(settings.connect_timeout),
        recycle: Some(settings.connect_timeout),
    };
    let pool =
        Pool::builder(manager).max_size(settings.pool).timeouts(timeouts).runtime(Runtime::Tokio1).build();
    pool.map_err(|error| PortFault::new(PORT, FailureClass::Bug, error.to_string()))
}

/// The URL as the client takes it. What it says of TLS counts for nothing: `store.state.tls` does.
fn client(settings: &PgSettings) -> Result<Config, PortFault> {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| settings.url.starts_with(scheme));
    let parsed: Option<Config> = settings.url.parse().ok().filter(|_| is_url);
    // The parser's own words may quote the URL.
    let mut client = parsed.ok_or_else(|| {
        config("store.state.url is none of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE".into())
    })?;
    client.application_name("obtrace");
    client.connect_timeout(settings.connect_timeout);
    client.tcp_user_timeout(settings.timeout);
    client.keepalives_idle(settings.timeout.max(std::time::Duration::from_secs(1)));
    client.target_session_attrs(TargetSessionAttrs::ReadWrite);
    client.ssl_mode(if settings.tls.is_some() { SslMode::Require } else { SslMode::Disable });
    Ok(client)
}

/// Looks at the database before it is used: whether the wall between tenants binds us, and whether the schema is there.
///
/// # Errors
/// Class `Config` where an operator has to act, else as any call.
pub(super) async fn check(pool: &Pool) -> Result<(), PortFault> {
    let client = pool.get().await.map_err(|error| fault_of_pool(&error))?;
    let row = client.query_one(WALL, &[]).await.map_err(|error| fault_of(&error))?;
    if row.try_get(0).map_err(|error| fault_of(&error))? {
        let what = "the user of store.state.url is one that row-level security does not bind (a superuser, BYPASSRLS, \
            or a member of obtrace_owner): log in as obtrace_app";
        return Err(config(what.into()));
    }
    migrate::check(&client).await
}
