//! Which incarnation of a child acts. A stale one finds out here that it was replaced, and must not act.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of an incarnation, tied to the slot it was started for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Generation {
    number: u64,
    current: Arc<AtomicU64>,
}

/// The place of a child: hands out generations, each of which fences all earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Generations {
    current: Arc<AtomicU64>,
}

impl Generations {
    /// Starts the next generation.
    pub fn advance(&self) -> Generation {
        let number = self.current.fetch_add(1, Ordering::AcqRel) + 1;
        Generation { number, current: self.current.clone() }
    }

    /// Number of the newest generation; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }
}

impl Generation {
    /// The number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// False as soon as a later generation was started: this one is a zombie.
    pub fn is_current(&self) -> bool {
        self.current.load(Ordering::Acquire) == self.number
    }
}
