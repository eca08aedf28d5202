//! Which nodes of the tree run in a process of given roles: a role is a selection of subtrees. Paths in, yes or no out.
//!
//! What every process has stands in no arm: the producer (it tells of the process itself), the admin API and the
//! reloader. Nodes know nothing of this: what they send to is reached over the log and the stores.

use crate::config::Config;
use crate::config::kafka::LogBackend;
use crate::config::roles::Role::{IngestEdge, QueryGateway, WorkerOtlp};

/// Whether the node at `path` runs in a process with this configuration.
pub fn runs(config: &Config, path: &str) -> bool {
    let (edge, worker, gateway) =
        (config.has_role(IngestEdge), config.has_role(WorkerOtlp), config.has_role(QueryGateway));
    let stage = path.split('.').next().unwrap_or_default();
    match (stage, path) {
        ("store", "store.engine") => worker || gateway,
        ("store", "store.writer") => worker,
        ("store", "store.state" | "store.cache") => edge || gateway,
        ("store", "store.blobs" | "store.janitor") => gateway,
        ("tenant", _) => edge || gateway,
        ("broker_out", "broker_out.letters") => gateway,
        // A log of this process alone has no group to be a member of.
        ("stream_in", "stream_in.members") => worker && config.stream.backend == LogBackend::Kafka,
        ("process" | "stream_in", _) => worker,
        ("serve", "serve.query") => gateway,
        ("ingest", _) => edge,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::roles::Role;
    use crate::supervisors::policies::PATHS;

    fn nodes(roles: &[Role]) -> Vec<&'static str> {
        let mut config = Config { roles: roles.to_vec(), ..Config::default() };
        config.stream.backend = LogBackend::Kafka;
        PATHS.into_iter().filter(|path| runs(&config, path)).collect()
    }

    #[test]
    fn all_roles_together_are_the_whole_tree() {
        assert_eq!(nodes(&Role::ALL), PATHS);
        let mut parts: Vec<&str> = Role::ALL.into_iter().flat_map(|role| nodes(&[role])).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut whole = PATHS.to_vec();
        whole.sort_unstable();
        assert_eq!(parts, whole, "every node runs with some role");
    }

    #[test]
    fn a_role_has_its_own_nodes_and_what_every_process_has() {
        for role in Role::ALL {
            let nodes = nodes(&[role]);
            for path in
                ["", "broker_out.producer", "broker_out.self_telemetry", "serve.reloader", "serve.http"]
            {
                assert!(nodes.contains(&path), "{role}: {path}");
            }
            assert_eq!(nodes.contains(&"ingest.grpc"), role == Role::IngestEdge);
            assert_eq!(nodes.contains(&"stream_in.consumers"), role == Role::WorkerOtlp);
            assert_eq!(nodes.contains(&"serve.query"), role == Role::QueryGateway);
        }
    }

    #[test]
    fn a_node_runs_with_the_supervisor_above_it() {
        for role in Role::ALL {
            let nodes = nodes(&[role]);
            for path in &nodes {
                if let Some((above, _)) = path.rsplit_once('.') {
                    assert!(nodes.contains(&above), "{role}: {path} without {above}");
                }
            }
        }
    }
}
