//! Tuning by configuration: what a change would do to the tree, whether its numbers fit together, and reloads.

pub mod changes;
pub mod lint;
pub mod machine;
pub mod reload;

use crate::config::{Config, ConfigErrors, LoadArgs, Loaded};

use super::policies;

/// Reads a configuration and checks it against the tree's real shape.
///
/// # Errors
/// Every problem of every layer, as [`Config::load`], and tables of nodes that are not in the tree.
pub fn load(args: &LoadArgs) -> Result<Loaded, ConfigErrors> {
    let loaded = Config::load(args)?;
    let misplaced = policies::check(&loaded.config);
    if misplaced.is_empty() { Ok(loaded) } else { Err(ConfigErrors(misplaced)) }
}
