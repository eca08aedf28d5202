//! The main path, from a client's request to the query that finds it again, against a real Obtrace process.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "chaos")]
mod brokers;
mod clients;
mod cluster;
#[cfg(feature = "chaos")]
mod crashes;
mod deploys;
mod engine;
mod examples;
mod exits;
#[cfg(feature = "chaos")]
mod faults;
#[cfg(feature = "chaos")]
mod field;
#[cfg(feature = "chaos")]
mod full;
mod ingest;
mod kafka;
#[cfg(feature = "chaos")]
mod ladder;
#[cfg(feature = "chaos")]
mod letters;
mod migrate;
#[cfg(feature = "chaos")]
mod neighbours;
mod operate;
#[cfg(feature = "chaos")]
mod poison;
mod reload;
mod roles;
mod sessions;
#[cfg(feature = "chaos")]
mod soak;
mod stores;
#[cfg(feature = "chaos")]
mod table;
mod tenant;
