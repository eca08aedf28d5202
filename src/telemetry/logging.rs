//! The log lines of the process, to stderr, filtered by `OBTRACE_LOG` (an env filter such as `info,obtrace=debug`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Installs the subscriber. A second call does nothing.
pub fn install() {
    let filter =
        EnvFilter::try_from_env("OBTRACE_LOG").unwrap_or_else(|_| EnvFilter::new("info,actix_server=warn"));
    // An error means that a test has installed one already.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .ok();
}
