//! The configuration that holds now: read by child factories at launch and by actors as they work, replaced by a reload.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::schema::Setting;
use super::{Config, Loaded, Provenance};

/// A handle on the values that hold at the moment. Cheap to clone; all clones see a replacement at once.
///
/// ```
/// use obtrace::config::live::LiveConfig;
/// use obtrace::config::{Config, Flag, LoadArgs};
///
/// let load = |sets: [&str; 2]| {
///     let flags = sets.map(|set| Flag::assignment(set).unwrap()).to_vec();
///     Config::load(&LoadArgs { flags, ..LoadArgs::default() }).unwrap()
/// };
/// let config = LiveConfig::new(load(["process.block_rows=5", "data_dir=a"]));
/// let seen_by_an_actor = config.clone();
/// config.replace(load(["process.block_rows=7", "data_dir=b"]));
/// assert_eq!(seen_by_an_actor.now().process.block_rows, 7);
/// // What only a new process can take up stays as it is, for whoever asks.
/// assert_eq!(seen_by_an_actor.now().data_dir.display().to_string(), "a");
/// assert_eq!(config.wanted().config.data_dir.display().to_string(), "b");
/// ```
#[derive(Clone)]
pub struct LiveConfig {
    held: Arc<Held>,
}

struct Held {
    config: ArcSwap<Config>,
    running: ArcSwap<Loaded>,
    wanted: ArcSwap<Loaded>,
}

impl LiveConfig {
    /// Holds what was loaded.
    pub fn new(loaded: Loaded) -> Self {
        let held = Held {
            config: ArcSwap::from_pointee(loaded.config.clone()),
            running: ArcSwap::from_pointee(loaded.clone()),
            wanted: ArcSwap::from_pointee(loaded),
        };
        Self { held: Arc::new(held) }
    }

    /// The values as of now. Ask again for each piece of work: a held answer does not change.
    pub fn now(&self) -> Arc<Config> {
        self.held.config.load_full()
    }

    /// The same values with where each comes from.
    pub fn running(&self) -> Arc<Loaded> {
        self.held.running.load_full()
    }

    /// What was read last: it differs from [`Self::running`] in what waits for a restart of the process.
    pub fn wanted(&self) -> Arc<Loaded> {
        self.held.wanted.load_full()
    }

    /// Holds other values from now on, but for those that only a new process can take up.
    pub fn replace(&self, wanted: Loaded) {
        let old = self.running();
        let config = wanted.config.clone().pin(&old.config, None);
        let provenance = wanted.provenance.clone().pin(&old.provenance);
        self.held.config.store(Arc::new(config.clone()));
        self.held.running.store(Arc::new(Loaded { config, provenance }));
        self.held.wanted.store(Arc::new(wanted));
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
