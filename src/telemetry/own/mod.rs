//! What Obtrace tells of itself: log lines and spans in, kept in bounded pockets until the actor `self_telemetry` empties
//! them into tenant `_obtrace`.
//!
//! Nobody waits here: a pocket that is full, busy or over its rate drops and counts. The pockets belong to the process, as
//! the subscriber of its log lines does. Nothing is put in about the batches of `_obtrace` itself.

pub mod logs;
pub mod metrics;
pub mod spans;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use parking_lot::Mutex;

use crate::clock;

/// A bounded store of what is to be told, with a rate. Putting in never waits.
#[derive(Debug)]
pub struct Pocket<T> {
    open: AtomicBool,
    most: usize,
    dropped: AtomicU64,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    items: VecDeque<T>,
    per_second: u32,
    second: u64,
    taken: u32,
}

impl<T> Pocket<T> {
    /// An empty pocket of `most` items that takes nothing until it is opened.
    pub const fn new(most: usize) -> Self {
        let held = Held { items: VecDeque::new(), per_second: 0, second: 0, taken: 0 };
        Self { open: AtomicBool::new(false), most, dropped: AtomicU64::new(0), held: Mutex::new(held) }
    }

    /// Takes `per_second` items a second from now on; 0 for none.
    pub fn open(&self, per_second: u32) {
        self.held.lock().per_second = per_second;
        self.open.store(per_second > 0, Ordering::Release);
    }

    /// True while it takes anything at all; asked before an item is made.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Puts in what `make` makes, if there is room and rate for it.
    pub fn put(&self, make: impl FnOnce() -> T) {
        if !self.is_open() {
            return;
        }
        let second = clock::unix_nanos() / 1_000_000_000;
        // Who holds the lock is done in a moment, but whoever logs waits for nobody.
        let room = self.held.try_lock().is_some_and(|mut held| held.take_turn(second, self.most));
        if !room {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Made outside of the lock: making may log, and would meet it again.
        let item = make();
        if let Some(mut held) = self.held.try_lock() {
            held.items.push_back(item);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything in it, oldest first.
    pub fn empty(&self) -> Vec<T> {
        self.held.lock().items.drain(..).collect()
    }

    /// Items dropped since the process started.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Held<T> {
    fn take_turn(&mut self, second: u64, most: usize) -> bool {
        if self.second != second {
            (self.second, self.taken) = (second, 0);
        }
        let room = self.taken < self.per_second && self.items.len() < most;
        self.taken += u32::from(room);
        room
    }
}

/// The resource that all of it comes from.
pub fn resource() -> Resource {
    let attributes = vec![
        text("service.name", "obtrace"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue {
            key: "process.pid".to_owned(),
            value: any(Value::IntValue(i64::from(std::process::id()))),
            ..KeyValue::default()
        },
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "obtrace".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(Value::StringValue(value.to_owned())), ..KeyValue::default() }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: any(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pocket_keeps_its_bound_and_its_rate_and_counts_what_it_drops() {
        let pocket = Pocket::new(3);
        pocket.put(|| 0);
        assert_eq!((pocket.empty(), pocket.dropped()), (vec![], 0), "closed, it neither takes nor counts");
        pocket.open(1000);
        (1..=5).for_each(|n| pocket.put(|| n));
        assert_eq!((pocket.empty(), pocket.dropped()), (vec![1, 2, 3], 2));
        let slow = Pocket::new(1000);
        slow.open(2);
        (1..=100).for_each(|n| slow.put(|| n));
        // The second may turn once meanwhile.
        assert!((2..=4).contains(&slow.empty().len()));
        slow.open(0);
        slow.put(|| 1);
        assert!(slow.empty().is_empty());
    }

    #[test]
    fn making_an_item_may_put_one_in_itself() {
        let pocket = Pocket::new(10);
        pocket.open(10);
        pocket.put(|| {
            pocket.put(|| 1);
            2
        });
        assert_eq!(pocket.empty(), [1, 2]);
    }
}
