//! The `obtrace` binary.

fn main() {}
