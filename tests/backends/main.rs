//! The contract suites of the backends, against the real thing each.

mod engine;
