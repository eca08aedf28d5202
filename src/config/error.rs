//! What is wrong with a configuration: every problem found, each with the place that set the value, shown at once.

use std::fmt;

use super::node::Source;
use crate::domain::failure::{Classified, FailureClass};

/// One problem, with where the value came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_}: {message}", source_ = .at)]
pub struct ConfigError {
    /// What set the value: file and line, environment variable or flag.
    pub at: Source,
    /// What is wrong and what to do, with the key quoted in full.
    pub message: String,
}

/// All problems of a configuration, in the order of the sections. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "the configuration has {n} error{}", if n == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Classified for ConfigErrors {
    fn class(&self) -> FailureClass {
        FailureClass::Config
    }
}

/// The candidate closest to `name`, if one is close enough to be what was meant.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &str| {
        // A slip of the fingers (distance) or a shortened, lengthened word (shared beginning).
        let slips = strsim::damerau_levenshtein(name, candidate);
        let close = slips <= 1.max(name.len().max(candidate.len()) / 3);
        let likeness = strsim::jaro_winkler(name, candidate);
        (close || likeness > 0.87).then_some(likeness)
    };
    candidates
        .into_iter()
        .filter_map(|candidate| score(candidate).map(|s| (candidate, s)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant_and_nothing_far_fetched() {
        let keys = ["max_body", "max_decompressed", "wire_format", "otlp_grpc", "otlp_http"];
        assert_eq!(suggest("max_bdoy", keys), Some("max_body"));
        assert_eq!(suggest("otlp_gprc", keys), Some("otlp_grpc"));
        assert_eq!(suggest("wireformat", keys), Some("wire_format"));
        assert_eq!(suggest("colour", keys), None);
    }
}
