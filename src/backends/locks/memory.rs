//! Locks in the memory of the process, for a process that is alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Answer, Held, Locks};
use crate::clock;

/// Locks in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryLocks {
    names: Arc<Mutex<HashMap<Arc<str>, Name>>>,
}

/// A name that was ever locked: few, they are written in the code.
#[derive(Debug, Default)]
struct Name {
    last_token: u64,
    until: Option<Instant>,
}

impl Name {
    fn is_held_by(&self, token: u64) -> bool {
        self.last_token == token && self.until.is_some_and(|until| clock::now() < until)
    }
}

impl MemoryLocks {
    fn holding(&self, held: &Held, change: impl FnOnce(&mut Name)) -> Answer<bool> {
        let mut names = self.names.lock();
        let name = names.get_mut(&held.name).filter(|name| name.is_held_by(held.token));
        let is_held = name.map(change).is_some();
        Box::pin(async move { Ok(is_held) })
    }
}

impl Locks for MemoryLocks {
    fn acquire(&self, name: &str, ttl: Duration) -> Answer<Option<Held>> {
        let name: Arc<str> = name.into();
        let mut names = self.names.lock();
        let state = names.entry(name.clone()).or_default();
        let held = (!state.is_held_by(state.last_token)).then(|| {
            state.last_token += 1;
            state.until = Some(clock::now() + ttl);
            Held { name, token: state.last_token }
        });
        Box::pin(async move { Ok(held) })
    }

    fn renew(&self, held: &Held, ttl: Duration) -> Answer<bool> {
        self.holding(held, |name| name.until = Some(clock::now() + ttl))
    }

    fn release(&self, held: &Held) -> Answer<bool> {
        self.holding(held, |name| name.until = None)
    }
}
