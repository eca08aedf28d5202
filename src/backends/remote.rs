//! What the clients of servers elsewhere share: each call runs on the I/O runtime, within a deadline.
//!
//! Connections live on the runtime that made them. On that of an actor they would end with its thread, and stand still
//! while it computes. What may fail: an answer that does not come in time is a dependency that is down.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::fault::PortFault;
use crate::domain::failure::FailureClass;

/// Where and for how long the calls of one port run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Name of the port in faults.
    pub port: &'static str,
    /// The runtime of the I/O clients.
    pub io: Handle,
    /// Longest that one call takes, all its tries together.
    pub deadline: Duration,
}

impl Remote {
    /// Runs `call`. It goes on to its end or deadline even when nobody waits for it any more, so that no connection is
    /// left in the middle of a call.
    pub fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, PortFault>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, PortFault>> {
        let this = self.clone();
        Box::pin(async move {
            let bounded = {
                let this = this.clone();
                async move { tokio::time::timeout(this.deadline, call).await.unwrap_or_else(|_| this.late()) }
            };
            let done = this.io.spawn(bounded).await;
            done.unwrap_or_else(|error| {
                Err(this.fault(FailureClass::Bug, format!("the call ended early: {error}")))
            })
        })
    }

    /// A fault of the port.
    pub fn fault(&self, class: FailureClass, what: impl Into<String>) -> PortFault {
        PortFault::new(self.port, class, what)
    }

    fn late<T>(&self) -> Result<T, PortFault> {
        Err(self.fault(FailureClass::Dependency, format!("no answer within {:?}", self.deadline)))
    }
}
