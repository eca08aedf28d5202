//! The supervision tree of Obtrace: what runs, under whom, in which order.

pub mod kernel;
