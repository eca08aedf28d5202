//! Who is let in, made from a configuration: the table of API keys, and the rule of the admin side.

use std::sync::Arc;

use crate::config::Config;
use crate::domain::admin::{AdminAccess, SHORTEST_TOKEN};
use crate::domain::auth::{Grant, KeyTable};
use crate::domain::scope::Scope;

/// The table of API keys, and what a client on this machine gets without one.
///
/// # Errors
/// A key whose scope is no valid one.
pub fn key_table(config: &Config) -> Result<KeyTable, String> {
    let ingest = &config.ingest;
    let mut keys = Vec::new();
    for key in &config.tenant.keys {
        let scope = Scope::new(&key.tenant, &key.project, &key.app, &key.env)
            .map_err(|error| format!("tenant.keys {:?}: {error}", key.name))?;
        let limits = config.tenant.plan_of(key).limits;
        let retention_days = limits.retention(key.retention_days.unwrap_or(ingest.retention_days));
        let expires_at = key.expires.map(|at| at.unix_nanos() / 1_000_000_000);
        keys.push((
            *key.hash.bytes(),
            Grant { scope, retention_days, expires_at, key: Some(Arc::from(key.name.as_str())) },
        ));
    }
    let loopback = ingest.dev_loopback.then(|| Grant {
        scope: Scope::dev_default(),
        retention_days: ingest.retention_days,
        expires_at: None,
        key: None,
    });
    Ok(KeyTable::new(keys, loopback))
}

/// The rule of the admin side. Reads the token's file anew each time, so that a token can be changed by it.
///
/// # Errors
/// The file cannot be read, or holds no token.
pub fn admin_access(config: &Config) -> Result<AdminAccess, String> {
    let serve = &config.serve;
    let Some(file) = &serve.admin_token_file else {
        return Ok(AdminAccess::new(Some(serve.admin_token.expose()), serve.admin_loopback));
    };
    let at = file.display();
    let token = std::fs::read_to_string(file)
        .map_err(|error| format!("serve.admin_token_file {at} cannot be read: {error}"))?;
    if token.trim().len() < SHORTEST_TOKEN {
        return Err(format!(
            "serve.admin_token_file {at} holds no token of at least {SHORTEST_TOKEN} characters: \
             make one with `openssl rand -hex 24`"
        ));
    }
    Ok(AdminAccess::new(Some(&token), serve.admin_loopback))
}
