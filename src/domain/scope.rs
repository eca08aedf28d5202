//! Whose data it is: tenant, project, app and environment. Nothing is stored or queried without one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The tenant that a loopback client without a key lands in when Obtrace runs in dev mode.
pub const DEFAULT_TENANT: &str = "default";

/// The tenant of Obtrace's own telemetry. No key leads to it.
pub const OWN_TENANT: &str = "_obtrace";

/// Longest accepted scope part, in bytes.
pub const MAX_SCOPE_PART: usize = 64;

/// Tenant / project / app / environment of a batch or a query. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The tenant: the wall that nothing crosses. Never empty.
    pub tenant: Arc<str>,
    /// Project within the tenant; `default` where the key names none.
    pub project: Arc<str>,
    /// Application within the project; may be empty (all applications).
    pub app: Arc<str>,
    /// Environment such as `prod`; may be empty (all environments).
    pub env: Arc<str>,
}

/// Why a scope part was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} {value:?} is not a valid name: use 1 to {MAX_SCOPE_PART} of a-z, A-Z, 0-9, '-', '_', '.'")]
pub struct InvalidScope {
    /// Which of the four parts.
    pub part: &'static str,
    /// What was given.
    pub value: String,
}

impl Scope {
    /// Builds a scope, checking each part's characters and length. `app` and `env` may be empty.
    ///
    /// # Errors
    /// [`InvalidScope`] naming the first part that is empty (tenant, project), too long, or has other characters.
    pub fn new(tenant: &str, project: &str, app: &str, env: &str) -> Result<Self, InvalidScope> {
        let check = |part: &'static str, value: &str, may_be_empty: bool| {
            let valid = (may_be_empty || !value.is_empty())
                && value.len() <= MAX_SCOPE_PART
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if valid { Ok(Arc::from(value)) } else { Err(InvalidScope { part, value: value.to_owned() }) }
        };
        Ok(Self {
            tenant: check("tenant", tenant, false)?,
            project: check("project", project, false)?,
            app: check("app", app, true)?,
            env: check("env", env, true)?,
        })
    }

    /// The scope of Obtrace's own telemetry.
    pub fn own() -> Self {
        Self {
            tenant: Arc::from(OWN_TENANT),
            project: Arc::from("obtrace"),
            app: Arc::from(""),
            env: Arc::from(""),
        }
    }

    /// The scope of a loopback client without a key in dev mode.
    pub fn dev_default() -> Self {
        Self {
            tenant: Arc::from(DEFAULT_TENANT),
            project: Arc::from("default"),
            app: Arc::from(""),
            env: Arc::from(""),
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.tenant, self.project, self.app, self.env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_parts_that_could_leave_their_place() {
        for bad in ["", "a/b", "a b", "ä", "a'b", &"x".repeat(65)] {
            assert_eq!(Scope::new(bad, "p", "", "").unwrap_err().part, "tenant");
        }
        assert_eq!(Scope::new("t", "", "", "").unwrap_err().part, "project");
        assert!(Scope::new("t-1", "p.x", "", "prod").is_ok());
    }
}
