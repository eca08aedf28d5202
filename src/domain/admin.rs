//! Who may look at the process itself and steer it: one admin token, known by its SHA-256, and the dev rule for loopback.
//!
//! In: what a request brings along. Out: who it is, or why it is turned away. API keys open nothing here: they belong to
//! tenants.

use std::fmt;
use std::net::IpAddr;

use subtle::ConstantTimeEq;

use super::auth::{KeyHash, hash_key, is_loopback};

/// Shortest token that is taken: 16 random characters stand against guessing over the network.
pub const SHORTEST_TOKEN: usize = 16;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// To look.
    Look,
    /// To change something.
    Change,
}

/// What a request brings along.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// The token in its `authorization` header.
    pub bearer: Option<&'a str>,
    /// The address it comes from.
    pub peer: Option<IpAddr>,
    /// True when a proxy or a web page of another origin sent it: then the peer's address says nothing of who asks.
    pub relayed: bool,
}

/// Somebody who was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// By the token.
    Token(Option<IpAddr>),
    /// By being on this machine, in dev.
    Loopback(IpAddr),
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdminDenied {
    /// It brought no token.
    #[error(
        "this needs the admin token: send `authorization: Bearer TOKEN` (obtrace: --token or OBTRACE_ADMIN_TOKEN)"
    )]
    Missing,
    /// It brought another token.
    #[error("the admin token is another one: compare it with serve.admin_token of the running process")]
    Wrong,
    /// There is no token, and the caller is not on this machine, or this is not dev.
    #[error(
        "no admin token is set, so only `obtrace dev` answers here, and only to clients on its own machine: \
         start with serve.admin_token (OBTRACE_ADMIN_TOKEN) and send it as `authorization: Bearer TOKEN`"
    )]
    Closed,
    /// It came over a proxy or from a web page.
    #[error(
        "the request came over a proxy or from a web page of another origin, which is not let in without a token: \
         start with serve.admin_token (OBTRACE_ADMIN_TOKEN) and send it as `authorization: Bearer TOKEN`"
    )]
    Relayed,
}

/// The rule of the process. The default lets nobody in.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    token: Option<KeyHash>,
    loopback: bool,
}

impl AdminAccess {
    /// `token` opens everything; without one in force, or to look only, `loopback` opens it to this machine.
    pub fn new(token: Option<&str>, loopback: bool) -> Self {
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        Self { token: token.map(hash_key), loopback }
    }

    /// Lets a caller in, or says why not.
    ///
    /// # Errors
    /// [`AdminDenied`], with what to do in its text.
    pub fn admit(&self, deed: Deed, caller: Caller<'_>) -> Result<Admin, AdminDenied> {
        let bearer = caller.bearer.map(str::trim).filter(|token| !token.is_empty());
        let near = caller.peer.filter(|peer| self.loopback && is_loopback(*peer));
        let local = near.filter(|_| !caller.relayed).map(Admin::Loopback);
        match (&self.token, bearer) {
            (Some(known), Some(token)) if bool::from(known.ct_eq(&hash_key(token))) => {
                Ok(Admin::Token(caller.peer))
            }
            (Some(_), Some(_)) => Err(AdminDenied::Wrong),
            (Some(_), None) => local.filter(|_| deed == Deed::Look).ok_or(AdminDenied::Missing),
            (None, _) if near.is_some() => local.ok_or(AdminDenied::Relayed),
            (None, _) => Err(AdminDenied::Closed),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(Some(peer)) => write!(f, "admin token from {peer}"),
            Self::Token(None) => f.write_str("admin token"),
            Self::Loopback(peer) => write!(f, "{peer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn caller(bearer: Option<&str>, peer: [u8; 4]) -> Caller<'_> {
        Caller { bearer, peer: Some(IpAddr::from(peer)), relayed: false }
    }

    const HERE: [u8; 4] = [127, 0, 0, 1];
    const THERE: [u8; 4] = [10, 0, 0, 1];

    #[test]
    fn the_token_opens_everything_and_nothing_else_changes_anything() {
        for loopback in [false, true] {
            let access = AdminAccess::new(Some(TOKEN), loopback);
            for deed in [Deed::Look, Deed::Change] {
                assert!(access.admit(deed, caller(Some(TOKEN), THERE)).is_ok());
                assert_eq!(access.admit(deed, caller(Some("wrong"), HERE)), Err(AdminDenied::Wrong));
                assert_eq!(access.admit(deed, caller(Some(""), THERE)), Err(AdminDenied::Missing));
                assert_eq!(access.admit(deed, caller(None, THERE)), Err(AdminDenied::Missing));
            }
            assert_eq!(access.admit(Deed::Change, caller(None, HERE)), Err(AdminDenied::Missing));
            assert_eq!(access.admit(Deed::Look, caller(None, HERE)).is_ok(), loopback);
        }
    }

    #[test]
    fn without_a_token_only_this_machine_is_let_in_and_only_in_dev() {
        let dev = AdminAccess::new(None, true);
        let served = AdminAccess::new(Some("  "), false);
        for deed in [Deed::Look, Deed::Change] {
            assert_eq!(dev.admit(deed, caller(None, HERE)), Ok(Admin::Loopback(IpAddr::from(HERE))));
            assert_eq!(dev.admit(deed, caller(None, THERE)), Err(AdminDenied::Closed));
            assert_eq!(served.admit(deed, caller(Some(TOKEN), HERE)), Err(AdminDenied::Closed));
            assert_eq!(dev.admit(deed, Caller::default()), Err(AdminDenied::Closed));
            let relayed = Caller { relayed: true, ..caller(None, HERE) };
            assert_eq!(dev.admit(deed, relayed), Err(AdminDenied::Relayed));
        }
    }

    #[test]
    fn a_relayed_request_with_the_token_is_as_good_as_any() {
        let relayed = Caller { relayed: true, ..caller(Some(TOKEN), HERE) };
        let admin = AdminAccess::new(Some(TOKEN), true).admit(Deed::Change, relayed).unwrap();
        assert_eq!(admin.to_string(), "admin token from 127.0.0.1");
        let without = Caller { relayed: true, ..caller(None, HERE) };
        let access = AdminAccess::new(Some(TOKEN), true);
        assert_eq!(access.admit(Deed::Look, without), Err(AdminDenied::Missing));
    }

    #[test]
    fn neither_rule_nor_refusal_shows_the_token() {
        let access = AdminAccess::new(Some(TOKEN), true);
        let wrong = access.admit(Deed::Look, caller(Some("secret-guess"), THERE)).unwrap_err();
        assert!(!format!("{access:?}").contains(TOKEN) && !wrong.to_string().contains("guess"));
    }
}
