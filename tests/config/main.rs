//! The configuration as a user meets it: layers, provenance, what is refused and in which words, and the manual.

mod layers;
mod manual;
mod refused;
mod tuning;
