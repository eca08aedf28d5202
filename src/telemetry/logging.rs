//! The log lines of the process, to stderr: form and filter from the configuration; the filter can be changed at any time.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::own::logs::OwnLines;
use crate::config::LogFormat;

/// What stands below every filter: the accept loop's own lines say nothing that ours do not.
const QUIET: &str = "actix_server=warn";

/// The filter of the subscriber that [`install`] installed.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the subscriber. A second call only sets the filter.
pub fn install(filter: &str, format: LogFormat) {
    let (layer, handle) = reload::Layer::new(parse(filter));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // The filter comes first: it is what the handle's type names. An error means that there is a subscriber already.
    if tracing_subscriber::registry().with(layer).with(lines).with(OwnLines).try_init().is_ok() {
        FILTER.set(handle).ok();
    } else {
        set_filter(filter);
    }
}

/// Lets through what `filter` says from now on. False where [`install`] has installed nothing.
pub fn set_filter(filter: &str) -> bool {
    FILTER.get().is_some_and(|handle| handle.reload(parse(filter)).is_ok())
}

/// The configuration has checked the text, so that what is not understood is passed over.
fn parse(filter: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{QUIET},{filter}"))
}
