//! Reads the configuration anew and has the running tree live by it: everything is checked first, then applied.
//!
//! In: the layers the process was started with, as files and environment stand now. Out: the live values replaced, keys
//! and filter swapped, policies applied, listeners and adapters restarted that read their keys at launch. What may fail:
//! any check (then nothing has changed), an order that a node does not take (then the answer says so).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};

use super::super::policies::{self, PATHS};
use super::super::{Parts, access, roles, store};
use super::changes::{self, Change};
use super::lint::{self, Verdict};
use super::machine::Machine;
use crate::actors::serve::reloader::Tuning;
use crate::backends::telemetry::client::TelemetryClient;
use crate::config::effect::Effect;
use crate::config::node::Source;
use crate::config::{Config, LoadArgs, Loaded, reference};
use crate::domain::reload::{ChangedKey, ReloadRefused, Reloaded};
use crate::supervisors::kernel::control::{Action, Order};
use crate::supervisors::kernel::tree::TreeView;
use crate::telemetry::logging;

/// Time a node's supervisor has to take an order.
const ORDER_DEADLINE: Duration = Duration::from_secs(5);

/// Where the configuration of this process comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The layers it is read from, each time anew.
    pub layers: LoadArgs,
    /// True when a `FAIL` of the lint does not count (`--force`, `obtrace dev`).
    pub force: bool,
}

/// The configuration of a running process, to be shown and reloaded.
#[derive(Debug, Clone)]
pub struct RunningConfig {
    parts: Parts,
}

impl RunningConfig {
    /// That of the process wired from `parts`.
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    async fn reload_for(self, who: String) -> Result<Reloaded, ReloadRefused> {
        let outcome = self.read_and_apply(&who).await;
        let result = match &outcome {
            Ok(reloaded) if reloaded.changes.is_empty() => "unchanged",
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        self.parts.metrics.reloaded(result, self.pending().len());
        match &outcome {
            Ok(Reloaded { changes, .. }) => {
                tracing::info!(who, changed = changes.len(), "the configuration was reloaded");
                for c in changes {
                    tracing::info!(
                        key = c.key,
                        old = c.old,
                        new = c.new,
                        source = c.source,
                        done = c.done,
                        "changed"
                    );
                }
            }
            Err(refused) => tracing::error!(who, "{refused}"),
        }
        outcome
    }

    async fn read_and_apply(&self, who: &str) -> Result<Reloaded, ReloadRefused> {
        let origin = self.parts.origin.clone();
        // Files are read and addresses tried on a thread that may wait.
        let running = self.parts.live.wanted();
        let checked = tokio::task::spawn_blocking(move || check(&origin, &running)).await;
        let checked =
            checked.map_err(|_| ReloadRefused::because("the check itself failed; the log says where"))?;
        let Checked { wanted, changes, keys, admin } = checked?;
        let before = self.parts.config();
        self.parts.live.replace(wanted);
        let now = self.parts.config();
        self.parts.keys.store(Arc::new(keys));
        self.parts.admin.store(Arc::new(admin));
        if now.log != before.log {
            logging::set_filter(&now.log);
        }
        let trouble = self.steer(&before, &now, &changes, who).await;
        let pending = self.pending();
        let waits = |key: &str| pending.iter().any(|change| change.key == key);
        let changes = changes.iter().map(|c| told(c, done(c, &trouble, waits(&c.key)))).collect();
        Ok(Reloaded { changes, pending })
    }

    /// Has the tree live by `now`. What went wrong, by node.
    async fn steer(
        &self,
        before: &Config,
        now: &Config,
        changes: &[Change],
        who: &str,
    ) -> BTreeMap<String, String> {
        let mut trouble = BTreeMap::new();
        let Some(view) = (**self.parts.view.load()).clone() else { return trouble };
        let mut order = async |view: &TreeView, path: &str, order: Order| {
            if let Err(error) = view.order(path, order, ORDER_DEADLINE).await {
                trouble.insert(path.to_owned(), error.to_string());
            }
        };
        let here = || PATHS.into_iter().filter(|path| roles::runs(before, path));
        for path in here() {
            let policy = policies::resolve(now, path);
            if policy != policies::resolve(before, path) {
                order(&view, path, Order::apply(policy, who, "the configuration was reloaded")).await;
            }
        }
        // In start order, so that the API, through which the answer goes out, comes late.
        for path in here() {
            let cause = |c: &&Change| matches!(c.effect, Effect::Restarts(nodes) if nodes.contains(&path));
            if let Some(change) = changes.iter().find(cause) {
                order(&view, path, Order::new(Action::Restart, who, format!("{} changed", change.key))).await;
            }
        }
        trouble
    }

    fn pending(&self) -> Vec<ChangedKey> {
        let (running, wanted) = (self.parts.live.running(), self.parts.live.wanted());
        let changes = changes::between(&running, &wanted);
        let waits = changes.iter().filter(|change| change.effect == Effect::Process);
        waits.map(|change| told(change, "pending".into())).collect()
    }
}

impl Tuning for RunningConfig {
    fn reload(&self, who: String) -> BoxFuture<'static, Result<Reloaded, ReloadRefused>> {
        self.clone().reload_for(who).boxed()
    }

    fn show(&self) -> Value {
        let running = self.parts.live.running();
        let values: BTreeMap<&str, Value> = running
            .provenance
            .iter()
            .map(|(path, found)| {
                let effect = reference::find(path).and_then(|doc| doc.effect).map(|effect| effect.to_string());
                let set = found.source != Source::Default;
                (path, json!({"value": found.value, "source": found.source.to_string(), "set": set, "effect": effect}))
            })
            .collect();
        let files: Vec<String> =
            self.parts.origin.layers.files.iter().map(|file| file.display().to_string()).collect();
        json!({"files": files, "profile": self.parts.origin.layers.profile, "values": values, "pending": self.pending()})
    }
}

/// A configuration that may be applied, and what is made from it.
struct Checked {
    wanted: Loaded,
    changes: Vec<Change>,
    keys: crate::domain::auth::KeyTable,
    admin: crate::domain::admin::AdminAccess,
}

/// Everything that can be refused is refused here, before anything is touched.
fn check(origin: &Origin, running: &Loaded) -> Result<Checked, ReloadRefused> {
    let wanted = super::load(&origin.layers)
        .map_err(|errors| ReloadRefused { errors: errors.0.iter().map(ToString::to_string).collect() })?;
    let changes = changes::between(running, &wanted);
    let mut errors: Vec<String> = Vec::new();
    if !origin.force {
        let lines = lint::lint(&wanted, Machine::here());
        errors.extend(lines.iter().filter(|line| line.verdict == Verdict::Fail).map(ToString::to_string));
    }
    errors.extend(changes.iter().filter_map(|change| taken(change, &wanted.config)));
    let place = |path: &str| wanted.explain(path).map_or_else(String::new, |found| found.source.to_string());
    if let Err(error) = TelemetryClient::new(store::telemetry_settings(&wanted.config)) {
        errors.push(format!("{}: telemetry.url: {error}", place("telemetry.url")));
    }
    let keys = access::key_table(&wanted.config);
    let admin = access::admin_access(&wanted.config);
    match (keys, admin) {
        (Ok(keys), Ok(admin)) if errors.is_empty() => Ok(Checked { wanted, changes, keys, admin }),
        (keys, admin) => {
            errors.extend(keys.err());
            errors.extend(admin.err());
            Err(ReloadRefused { errors })
        }
    }
}

/// Why a listener could not move to its new address. Tried before it is told to: one that finds its port taken at its
/// launch would end the process.
fn taken(change: &Change, config: &Config) -> Option<String> {
    let address: SocketAddr = match change.key.as_str() {
        "ingest.otlp_grpc" => config.ingest.otlp_grpc,
        "ingest.otlp_http" => config.ingest.otlp_http,
        "serve.http" => config.serve.http,
        _ => return None,
    };
    let error = TcpListener::bind(address).err()?;
    Some(format!("{}: {}: cannot listen on {address}: {error}", change.source, change.key))
}

fn told(change: &Change, done: String) -> ChangedKey {
    ChangedKey {
        key: change.key.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
        source: change.source.to_string(),
        effect: change.effect.to_string(),
        nodes: change.nodes.clone(),
        done,
    }
}

fn done(change: &Change, trouble: &BTreeMap<String, String>, pending: bool) -> String {
    let hit: Vec<String> = change
        .nodes
        .iter()
        .filter_map(|node| {
            let path = if node == "root" { "" } else { node };
            trouble
                .get(path)
                .map(|why| format!("{node} did not take it and has it from its next start: {why}"))
        })
        .collect();
    match change.effect {
        Effect::Process if pending => "pending".into(),
        // It was pending, and is taken back.
        Effect::Process => "as it runs".into(),
        _ if !hit.is_empty() => hit.join("; "),
        Effect::Live => "applied".into(),
        Effect::Restarts(_) | Effect::RestartsNode => format!("restarting {}", change.nodes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flag;

    fn layers(sets: &[&str]) -> LoadArgs {
        let flags = sets.iter().map(|set| Flag::assignment(set).unwrap()).collect();
        LoadArgs { flags, ..LoadArgs::default() }
    }

    /// A listener that finds its port taken at its launch ends the process, so a reload must not send it there.
    #[test]
    fn an_address_that_is_taken_is_refused_before_anything_is_touched() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let running = super::super::load(&LoadArgs::default()).unwrap();
        let origin = Origin { layers: layers(&[&format!("ingest.otlp_http={address}")]), force: true };
        let refused = check(&origin, &running).err().unwrap();
        let expected = format!("flag --set: ingest.otlp_http: cannot listen on {address}");
        assert!(refused.errors.len() == 1 && refused.errors[0].starts_with(&expected), "{refused}");
        drop(holder);
        assert_eq!(check(&origin, &running).ok().unwrap().changes.len(), 1);
    }

    #[test]
    fn numbers_that_cannot_work_are_refused_unless_forced() {
        let running = super::super::load(&LoadArgs::default()).unwrap();
        let layers = layers(&["supervision.shutdown_budget=6s"]);
        let refused = check(&Origin { layers: layers.clone(), force: false }, &running).err().unwrap();
        assert!(refused.to_string().contains("FAIL shutdown: "), "{refused}");
        assert!(check(&Origin { layers, force: true }, &running).is_ok());
    }
}
