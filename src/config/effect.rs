//! How a change of a key takes effect: at once, with the restart of some nodes, or with the next start of the process.

use std::fmt;

/// What has to happen before a changed value holds. Every key has one, defined beside it in its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: a reload applies it to what runs.
    Live,
    /// These nodes of the tree are restarted, which a reload does.
    Restarts(&'static [&'static str]),
    /// The node whose policy it is is restarted, which a reload does.
    RestartsNode,
    /// The process is restarted by its operator; until then the old value holds and the new one is pending.
    Process,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Restarts(nodes) => write!(f, "restarts {}", nodes.join(", ")),
            Self::RestartsNode => f.write_str("restarts the node"),
            Self::Process => f.write_str("restarts the process"),
        }
    }
}
