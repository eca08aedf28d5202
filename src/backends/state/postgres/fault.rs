//! What Postgres says when a call fails → the class that decides what happens next, by SQLSTATE.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::PORT;
use crate::backends::fault::PortFault;
use crate::domain::failure::FailureClass;

/// About a login that was refused for anything but its password.
const NOT_LET_IN: &str = "see to the user in store.state.url (or migrate_url), to store.state.tls and to what the \
    server's pg_hba.conf asks: where that is a certificate, store.state.tls_cert has to be one whose CN is the user";
/// Of our certificate being refused: what the server says by an alert of TLS, and not by an SQLSTATE.
const OURS_REFUSED: &str = "the server refuses our certificate: see to store.state.tls_cert (its authority has to be \
    in the server's ssl_ca_file, and its time must not be over)";
const THEIRS_REFUSED: &str = "the server's certificate is not one to trust: see to store.state.tls_ca (the authority \
    that signed it) and to the host in store.state.url (the name in it)";
const NO_TLS: &str = "the server speaks no TLS: switch it on there (ssl = on), or see to store.state.tls";
/// Alerts that are about a certificate: bad, unsupported, revoked, expired, unknown, of an unknown authority, not
/// allowed, missing.
const ALERTS: [i32; 8] = [42, 43, 44, 45, 46, 48, 49, 116];
/// What OpenSSL adds to the number of an alert.
const ALERT: i32 = 1000;

/// The class of an SQLSTATE, and what to do about it.
pub fn class_of(state: &str) -> (FailureClass, &'static str) {
    match (state, state.get(..2).unwrap_or_default()) {
        ("40001" | "40P01" | "55P03", _) => {
            (FailureClass::Overload, "transactions met, the next try may work")
        }
        ("57014", _) => (FailureClass::Dependency, "it took longer than store.state.timeout"),
        // Down, going down, coming up, out of connections, memory or disk, or a standby.
        ("25006", _) | (_, "08" | "53" | "57" | "58") => (FailureClass::Dependency, "see to the database"),
        ("42501", _) => (
            FailureClass::Config,
            "the role lacks a right: run migrations/postgres/roles.sql, then obtrace migrate",
        ),
        // A statement that this connection has prepared is not there, or one of its name that somebody else has.
        ("26000" | "42P05", _) => (FailureClass::Config, "behind a pooler: let it keep prepared statements"),
        ("42P01" | "42703" | "42704" | "3F000" | "0A000", _) => {
            (FailureClass::Config, "the schema is not that of this build: run obtrace migrate")
        }
        ("28P01", _) => (FailureClass::Config, "see to user and password in store.state.url"),
        (_, "28") => (FailureClass::Config, NOT_LET_IN),
        ("3D000", _) => (FailureClass::Config, "see to the database in store.state.url"),
        (_, "22") => (FailureClass::Poison, "the value is not one it takes"),
        _ => (FailureClass::Bug, "send a bug report"),
    }
}

/// The fault of a call that reached the client.
pub(super) fn fault_of(error: &Error) -> PortFault {
    if let Some(db) = error.as_db_error() {
        let (class, advice) = class_of(db.code().code());
        // The message, not the detail: that may quote a row.
        let what = format!("{} (SQLSTATE {}; {advice})", db.message(), db.code().code());
        return PortFault::new(PORT, class, what);
    }
    let text = chain(error);
    match advice_on_tls(error, &text) {
        Some(advice) => PortFault::new(PORT, FailureClass::Config, format!("{advice} ({text})")),
        None => PortFault::new(PORT, class_of_text(error, &text), text),
    }
}

/// What to do where the two sides do not come to terms on TLS.
fn advice_on_tls(error: &Error, text: &str) -> Option<&'static str> {
    if alerts(error).any(|alert| ALERTS.contains(&alert)) {
        return Some(OURS_REFUSED);
    }
    let about = [("certificate verify failed", THEIRS_REFUSED), ("server does not support TLS", NO_TLS)];
    about.into_iter().find(|(mark, _)| text.contains(mark)).map(|(_, advice)| advice)
}

/// The alerts that the server has sent. With TLS 1.3 one about our certificate comes after the handshake, when the
/// first answer is read, and so within an error of I/O.
fn alerts(error: &Error) -> impl Iterator<Item = i32> {
    let of_tls = sources(error).filter_map(|source| {
        let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.map_or_else(|| source.downcast_ref(), |inner| inner.downcast_ref::<openssl::ssl::Error>())
    });
    let stacks = of_tls.filter_map(openssl::ssl::Error::ssl_error);
    stacks.flat_map(|stack| stack.errors()).map(|error| error.reason_code() - ALERT)
}

/// The class of what is no answer of the server: a lost connection passes, what TLS or the login refused does not.
fn class_of_text(error: &Error, text: &str) -> FailureClass {
    // A server that goes away in the middle of a handshake is gone, not wrong.
    let has_io =
        sources(error).any(|source| source.is::<std::io::Error>()) || text.contains("unexpected eof");
    let refuses =
        ["error performing TLS handshake", "authentication error", "invalid con", "invalid configuration"];
    let broken =
        ["error serializing", "error deserializing", "invalid column", "query returned", "expected "];
    if has_io || error.is_closed() {
        FailureClass::Dependency
    } else if refuses.iter().any(|what| text.starts_with(what)) {
        FailureClass::Config
    } else if broken.iter().any(|what| text.starts_with(what)) {
        FailureClass::Bug
    } else {
        FailureClass::Dependency
    }
}

/// The fault of a call that got no connection.
pub(super) fn fault_of_pool(error: &PoolError) -> PortFault {
    match error {
        PoolError::Backend(error) => fault_of(error),
        PoolError::Timeout(TimeoutType::Wait) => {
            let what = "all connections of store.state.pool are busy";
            PortFault::new(PORT, FailureClass::Overload, what)
        }
        PoolError::Timeout(_) => {
            PortFault::new(PORT, FailureClass::Dependency, "no connection within store.state.connect_timeout")
        }
        other => PortFault::new(PORT, FailureClass::Bug, other.to_string()),
    }
}

/// Another transaction was first, or the server chose this one to break a deadlock: the same again may work at once.
pub(super) fn met_another(error: &Error) -> bool {
    error.code().is_some_and(|state| {
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(state)
    })
}

/// The connection is of no use any more: it is gone, or it remembers statements of another schema or server.
pub(super) fn spoils_connection(error: &Error) -> bool {
    match error.code().map(SqlState::code) {
        Some("0A000" | "26000") => true,
        Some(state) => matches!(state.get(..2), Some("08" | "57" | "58")),
        None => true,
    }
}

fn sources(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// An error with its causes; those of TLS repeat each other.
fn chain(error: &Error) -> String {
    sources(error).map(ToString::to_string).fold(error.to_string(), |text, source| {
        if text.contains(&source) { text } else { format!("{text}: {source}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_the_class_that_helps() {
        for (state, class) in [
            ("40001", FailureClass::Overload),
            ("40P01", FailureClass::Overload),
            ("57P01", FailureClass::Dependency),
            ("57P03", FailureClass::Dependency),
            ("57014", FailureClass::Dependency),
            ("08006", FailureClass::Dependency),
            ("53100", FailureClass::Dependency),
            ("53300", FailureClass::Dependency),
            ("25006", FailureClass::Dependency),
            ("42501", FailureClass::Config),
            ("42P01", FailureClass::Config),
            ("28P01", FailureClass::Config),
            ("28000", FailureClass::Config),
            ("3D000", FailureClass::Config),
            ("42601", FailureClass::Bug),
            ("23505", FailureClass::Bug),
            ("22021", FailureClass::Poison),
            ("", FailureClass::Bug),
        ] {
            assert_eq!(class_of(state).0, class, "{state}");
        }
        for state in ["26000", "42P05"] {
            let advice = "behind a pooler: let it keep prepared statements";
            assert_eq!(class_of(state), (FailureClass::Config, advice), "{state}");
        }
    }
}
