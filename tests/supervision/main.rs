//! The supervision kernel and what it relies on: facts of actix, lanes and ports, restarts, groups, the tree, its stop.

mod actix_facts;
mod groups;
mod journal;
mod kernel;
mod lanes;
mod lanes_model;
mod liveness;
mod measures;
mod orders;
mod poison;
mod policies;
mod refs;
mod starting;
mod stop;
mod support;
mod threads;
mod tree;
mod watchdog;

/// The example is run here too, so that it stays true.
#[path = "../../examples/minimal_tree.rs"]
mod minimal_tree;

#[test]
fn the_minimal_example_runs() {
    minimal_tree::main();
}
