//! The nodes of the store: which one a call goes to, and which are left alone for a while. A token or a turn in, a node out.
//!
//! A node that did not answer rests, longer each time, and is then tried by one call before the others come back. An
//! insert goes to the same node as long as that one is well, whoever repeats it; queries take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clickhouse::Client;
use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::error::TelemetryError;
use crate::clock;

/// First rest of a node that did not answer, and the longest.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// One address of the store.
pub(super) struct Node {
    /// The address, for people.
    pub(super) url: String,
    /// As the user who writes.
    pub(super) writer: Client,
    /// As the user who asks.
    pub(super) reader: Client,
    health: Mutex<Health>,
}

/// All addresses, and how tenants are told to them.
pub(super) struct Nodes {
    nodes: Vec<Arc<Node>>,
    turn: AtomicUsize,
    /// Whether a query names its tenant by a setting as well.
    pub(super) tenant_setting: bool,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Nodes {
    pub(super) fn new(nodes: Vec<Node>, tenant_setting: bool) -> Self {
        let nodes = nodes.into_iter().map(Arc::new).collect();
        Self { nodes, turn: AtomicUsize::new(0), tenant_setting }
    }

    /// The node of an insert.
    pub(super) fn for_token(&self, token: &str) -> Option<Arc<Node>> {
        let hash = usize::try_from(xxh3_64(token.as_bytes())).unwrap_or(usize::MAX);
        self.from(hash).into_iter().next()
    }

    /// The nodes of a query, in the order in which they are to be tried.
    pub(super) fn for_query(&self) -> Vec<Arc<Node>> {
        self.from(self.turn.fetch_add(1, Ordering::Relaxed))
    }

    /// The ring from a place on: first those that are well or due for a try, then those that rest, the soonest first.
    fn from(&self, first: usize) -> Vec<Arc<Node>> {
        let (now, many) = (clock::now(), self.nodes.len().max(1));
        let ring = (0..self.nodes.len()).map(|n| &self.nodes[(first % many + n) % many]);
        let mut rest: Vec<(Instant, &Arc<Node>)> = Vec::new();
        let mut order: Vec<Arc<Node>> = Vec::new();
        for node in ring {
            match node.health.lock().rests_until {
                Some(until) if until > now => rest.push((until, node)),
                _ => order.push(Arc::clone(node)),
            }
        }
        if let Some(first) = order.first() {
            first.health.lock().tried(now);
        }
        rest.sort_by_key(|(until, _)| *until);
        order.extend(rest.into_iter().map(|(_, node)| Arc::clone(node)));
        order
    }
}

impl Node {
    pub(super) fn new(url: String, writer: Client, reader: Client) -> Self {
        Self { url, writer, reader, health: Mutex::default() }
    }

    /// Notes how a call ended.
    pub(super) fn ended<T>(&self, result: &Result<T, TelemetryError>) {
        let mut health = self.health.lock();
        match result {
            Err(error) if error.is_of_the_node() => {
                health.failed(clock::now());
                let rest = health.rests_until.map(|until| until.saturating_duration_since(clock::now()));
                tracing::debug!(url = self.url, ?rest, %error, "a node of the telemetry store did not answer");
            }
            _ => *health = Health::default(),
        }
    }
}

impl Health {
    /// One call tries a node whose rest is over; until it has ended the others go elsewhere.
    fn tried(&mut self, now: Instant) {
        if self.rests_until.is_some() {
            self.rests_until = Some(now + rest(self.failures));
        }
    }

    fn failed(&mut self, now: Instant) {
        self.rests_until = Some(now + rest(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

fn rest(failures: u32) -> Duration {
    REST.0.saturating_mul(1 << failures.min(10)).min(REST.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(many: usize) -> Nodes {
        let node = |n| Node::new(format!("http://node-{n}"), Client::default(), Client::default());
        Nodes::new((0..many).map(node).collect(), false)
    }

    fn down() -> Result<(), TelemetryError> {
        Err(TelemetryError::Unreachable("gone".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_stays_with_its_node_and_goes_to_the_next_while_that_one_rests() {
        let nodes = nodes(3);
        let url = |token: &str| nodes.for_token(token).unwrap().url.clone();
        let home = url("block-1");
        assert!((0..10).all(|_| url("block-1") == home), "the same token, the same node");
        let all: std::collections::BTreeSet<String> = (0..50).map(|n| url(&format!("block-{n}"))).collect();
        assert_eq!(all.len(), 3, "different tokens use all nodes");
        nodes.for_token("block-1").unwrap().ended(&down());
        let other = url("block-1");
        assert_ne!(other, home);
        assert_eq!(url("block-1"), other, "and stays there");
        tokio::time::advance(REST.0).await;
        assert_eq!(url("block-1"), home, "one call tries it again");
        assert_eq!(url("block-1"), other, "the others wait for what comes of it");
        nodes.nodes.iter().find(|node| node.url == home).unwrap().ended(&Ok(()));
        assert_eq!(url("block-1"), home);
    }

    #[tokio::test(start_paused = true)]
    async fn queries_take_turns_and_fall_back_to_who_rests() {
        let nodes = nodes(2);
        let first = |nodes: &Nodes| nodes.for_query()[0].url.clone();
        assert_ne!(first(&nodes), first(&nodes));
        for node in &nodes.nodes {
            node.ended(&down());
        }
        assert_eq!(nodes.for_query().len(), 2, "when all rest they are tried all the same");
        nodes.nodes[1].ended(&down());
        assert!((0..4).all(|_| first(&nodes) == "http://node-0"), "the one whose rest ends first");
    }

    #[test]
    fn rests_grow_to_a_bound() {
        let rests: Vec<u64> = (0..7).map(|n| rest(n).as_secs()).collect();
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
    }
}
