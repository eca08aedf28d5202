//! The reloader: has the configuration read anew and applied, one request at a time.
//!
//! In: [`ReloadConfig`] from the API and from SIGHUP. Out: what changed, or why nothing did. What may fail: the new
//! configuration (the old one runs on), a node that does not take its new policy in time, which the answer says.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use futures_util::future::BoxFuture;

use crate::domain::reload::{ReloadRefused, Reloaded};
use crate::messages::serve::ReloadConfig;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

/// Time a whole reload may take.
pub const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// The configuration as operators see and change it. The reloader's port to the process.
pub trait Tuning: Send + Sync {
    /// Reads the layers anew, checks everything, then applies it for `who`.
    fn reload(&self, who: String) -> BoxFuture<'static, Result<Reloaded, ReloadRefused>>;

    /// Every value with its source and effect, and what waits for a restart of the process.
    fn show(&self) -> serde_json::Value;
}

/// Actor that reloads; its lane's credit of one is what makes reloads wait for each other.
pub struct Reloader {
    tuning: Arc<dyn Tuning>,
}

impl Reloader {
    /// A reloader over `tuning`.
    pub fn new(tuning: Arc<dyn Tuning>) -> Self {
        Self { tuning }
    }
}

impl Worker for Reloader {}

impl Consume<ReloadConfig> for Reloader {
    fn consume(&mut self, lease: Lease<ReloadConfig>, ctx: &mut Seated<Self>) {
        let reload = self.tuning.reload(lease.who.clone());
        ctx.spawn(wrap_future(async move {
            let late = |_| {
                Err(ReloadRefused::because(format!(
                    "it took longer than {RELOAD_DEADLINE:?}, parts of it may hold: look at /admin/config and reload again"
                )))
            };
            let outcome = tokio::time::timeout(RELOAD_DEADLINE, reload).await.unwrap_or_else(late);
            lease.reply.send(outcome);
            lease.ack();
        }));
    }
}
