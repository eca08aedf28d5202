//! Deploy markers: which version of a service began to run when, as its tenant told it.

use std::sync::Arc;

/// Most bytes of a name in a marker.
pub const MAX_TEXT: usize = 256;

/// A version of a service began to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// Service, as in the telemetry.
    pub service: Arc<str>,
    /// Version, such as a tag or a commit.
    pub version: Arc<str>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Who told it: the name of a key.
    pub who: Arc<str>,
}

/// Which markers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployQuery {
    /// Of this service; of all where it is `None`.
    pub service: Option<Arc<str>>,
    /// From this time on, Unix milliseconds.
    pub from_ms: u64,
    /// Before this time.
    pub until_ms: u64,
    /// At most so many, the newest.
    pub most: u32,
}

impl Deploy {
    /// What is wrong with it, for whoever sent it.
    ///
    /// # Errors
    /// The name of the field and its rule.
    pub fn check(&self) -> Result<(), String> {
        for (name, text) in [("service", &self.service), ("version", &self.version)] {
            if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err(format!("{name} must have 1 to {MAX_TEXT} bytes and no control characters"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let good = Deploy { service: "cart".into(), version: "1.2".into(), at_ms: 1, who: "ci".into() };
        assert_eq!(good.check(), Ok(()));
        for bad in ["", "a\nb", &"x".repeat(MAX_TEXT + 1)] {
            assert!(Deploy { version: bad.into(), ..good.clone() }.check().is_err(), "{bad:?}");
        }
    }
}
