//! What the ports of state, blobs, cache, leases, locks and plans answer when they cannot do what they were asked.

use crate::domain::failure::{Classified, FailureClass};

/// Why a call of a port failed: where, what, and by its class what the caller may expect of another try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{port}: {what}")]
pub struct PortFault {
    /// Which port.
    pub port: &'static str,
    /// `Dependency` and `Overload`: the same call works later. `Config`: an operator has to act. `Poison`: this call
    /// never works. `Bug`: a fault of Obtrace.
    pub class: FailureClass,
    /// What happened and what to do, without the content of any object.
    pub what: String,
}

impl PortFault {
    /// A fault of `port`.
    pub fn new(port: &'static str, class: FailureClass, what: impl Into<String>) -> Self {
        Self { port, class, what: what.into() }
    }

    /// True where the same call may work later.
    pub fn is_passing(&self) -> bool {
        matches!(self.class, FailureClass::Dependency | FailureClass::Overload)
    }
}

impl Classified for PortFault {
    fn class(&self) -> FailureClass {
        self.class
    }
}
