//! The fault table: one test a row, named after it, and after each all seven invariants (`support/invariants.rs`).
//!
//! Load of all signals runs over a whole process while the fault happens; its moments come from a seed, which is printed.
//! `OBTRACE_CHAOS_SEED` replays one, `OBTRACE_CHAOS_ROUNDS` repeats each row so often (`make chaos`). docs/supervision.md
//! has the table with the names.

mod hangs;
mod operators;
mod panics;
mod pressure;
mod stops;
mod stores;
mod tenants;
