//! Where the engine library is: flag, environment and the usual places in, a path out, or the list of places that had none.

use std::path::{Path, PathBuf};

use super::EngineError;

/// Environment variable that names the library.
pub const LIBRARY_VARIABLE: &str = "OBTRACE_ENGINE_LIBRARY";

/// Finds the library. A path given by flag or environment is the only one looked at, so that a typo does not go unnoticed.
///
/// # Errors
/// [`EngineError::LibraryMissing`] with every place that was looked at.
pub fn find_library(flag: Option<&Path>) -> Result<PathBuf, EngineError> {
    let named = flag.map(Path::to_path_buf).or_else(|| std::env::var_os(LIBRARY_VARIABLE).map(PathBuf::from));
    let looked = named.map_or_else(usual_places, |path| vec![path]);
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(EngineError::LibraryMissing { looked }),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache/obtrace/engine/libchdb.so"));
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.join("lib/obtrace/libchdb.so")));
    home.into_iter().chain(beside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_that_is_missing_is_said_so() {
        let error = find_library(Some(Path::new("/nowhere/libchdb.so"))).expect_err("missing");
        let text = error.to_string();
        for part in ["/nowhere/libchdb.so", "make engine", "OBTRACE_ENGINE_LIBRARY", "telemetry.url"] {
            assert!(text.contains(part), "{part} not in: {text}");
        }
    }
}
