//! The configuration that holds now: read by child factories at launch and by actors as they work, replaced by a reload.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Config, Loaded, Provenance};

/// A handle on the values that hold at the moment. Cheap to clone; all clones see a replacement at once.
///
/// ```
/// use obtrace::config::live::LiveConfig;
/// use obtrace::config::{Config, Flag, LoadArgs};
///
/// let load = |set: &str| Config::load(&LoadArgs { flags: vec![Flag::assignment(set).unwrap()], ..LoadArgs::default() });
/// let config = LiveConfig::new(load("process.block_rows=5").unwrap());
/// let seen_by_an_actor = config.clone();
/// config.replace(load("process.block_rows=7").unwrap());
/// assert_eq!(seen_by_an_actor.now().process.block_rows, 7);
/// ```
#[derive(Clone)]
pub struct LiveConfig {
    held: Arc<Held>,
}

struct Held {
    config: ArcSwap<Config>,
    provenance: ArcSwap<Provenance>,
}

impl LiveConfig {
    /// Holds what was loaded.
    pub fn new(loaded: Loaded) -> Self {
        let Loaded { config, provenance } = loaded;
        let held =
            Held { config: ArcSwap::from_pointee(config), provenance: ArcSwap::from_pointee(provenance) };
        Self { held: Arc::new(held) }
    }

    /// The values as of now. Ask again for each piece of work: a held answer does not change.
    pub fn now(&self) -> Arc<Config> {
        self.held.config.load_full()
    }

    /// Where each value comes from.
    pub fn provenance(&self) -> Arc<Provenance> {
        self.held.provenance.load_full()
    }

    /// Holds other values from now on.
    pub fn replace(&self, loaded: Loaded) {
        let Loaded { config, provenance } = loaded;
        self.held.provenance.store(Arc::new(provenance));
        self.held.config.store(Arc::new(config));
    }
}

impl From<Config> for LiveConfig {
    /// Values that came from no layer, for tests and examples: their provenance is empty.
    fn from(config: Config) -> Self {
        Self::new(Loaded { config, provenance: Provenance::default() })
    }
}

impl fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveConfig")
    }
}
