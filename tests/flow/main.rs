//! The main path, from a client's request to the query that finds it again, against a real Obtrace process.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod crash;
mod ingest;
#[cfg(feature = "chaos")]
mod letters;
#[cfg(feature = "chaos")]
mod poison;
