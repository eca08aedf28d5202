//! `roles`: which parts of Obtrace a process runs. Names in, roles out; a name that stands for nothing in this build is
//! refused, and so are roles that would each keep a log or an engine of their own.

use super::error::suggest;
use super::kafka::LogBackend;
use super::reader::{Leaf, Reader};
use super::schema::leaf_setting;
use super::{Config, telemetry::TelemetryConfig};

/// A part of Obtrace that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes OTLP in and writes it to the event log.
    IngestEdge,
    /// Reads the event log and stores what is in it.
    WorkerOtlp,
    /// Answers questions.
    QueryGateway,
}

impl Role {
    /// All of them, in the order of the way of a batch.
    pub const ALL: [Self; 3] = [Self::IngestEdge, Self::WorkerOtlp, Self::QueryGateway];

    /// Its name in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IngestEdge => "ingest-edge",
            Self::WorkerOtlp => "worker-otlp",
            Self::QueryGateway => "query-gateway",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Roles of the design that this build has no code for.
const TO_COME: [&str; 8] = [
    "worker-replay",
    "worker-recipes",
    "incident-engine",
    "incident-projector",
    "worker-incident-actions",
    "control-plane-api",
    "replay-proxy",
    "ai-service",
];

impl Leaf for Role {
    const EXPECTED: &'static str = "one of \"ingest-edge\" \"worker-otlp\" \"query-gateway\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(role) = Self::ALL.into_iter().find(|role| role.as_str() == text) {
            return Ok(role);
        }
        if TO_COME.contains(&text) {
            return Err("this build does not have that role yet".into());
        }
        Err(suggest(text, Self::ALL.map(Self::as_str))
            .map_or_else(String::new, |meant| format!("did you mean {meant:?}?")))
    }

    fn render(&self) -> String {
        format!("{:?}", self.as_str())
    }
}

leaf_setting!(Role);

impl Config {
    /// Whether this process has a role.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// The roles of this process as one text: `ingest-edge, worker-otlp`.
    pub fn roles_text(&self) -> String {
        list(&self.roles)
    }

    /// Checks that what the roles of this process leave out can be done by another process.
    pub(super) fn check_roles(&self, at: &mut Reader) {
        if self.roles.is_empty() {
            let all = list(&Role::ALL);
            return at
                .refuse(&["roles"], &format!("must name a role, or be left out for all of them: {all}"));
        }
        for (_, role) in self.roles.iter().enumerate().filter(|(i, role)| self.roles[..*i].contains(role)) {
            at.refuse(&["roles"], &format!("names {role} twice"));
        }
        // What is taken in, and what Obtrace tells of itself, would lie in a log that nobody reads.
        let ends = [Role::IngestEdge, Role::WorkerOtlp];
        let missing: Vec<Role> = ends.into_iter().filter(|role| !self.has_role(*role)).collect();
        if !missing.is_empty() && self.stream.backend == LogBackend::Embedded {
            let why = format!(
                "leaves out {}, but the event log is in data_dir, where no other process gets at it: \
                 set stream.backend to \"kafka\", or run {} in one process",
                list(&missing),
                list(&ends),
            );
            return at.refuse(&["roles"], &why);
        }
        let (stores, asks) = (self.has_role(Role::WorkerOtlp), self.has_role(Role::QueryGateway));
        if stores != asks && embedded(&self.telemetry) {
            let missing = if stores { Role::QueryGateway } else { Role::WorkerOtlp };
            let why = format!(
                "leaves out {missing}, but the telemetry store is the embedded engine, where no other process gets at it: \
                 set telemetry.url to a ClickHouse server, or run {} in one process",
                list(&[Role::WorkerOtlp, Role::QueryGateway]),
            );
            at.refuse(&["roles"], &why);
        }
    }
}

fn embedded(telemetry: &TelemetryConfig) -> bool {
    telemetry.url.is_none()
}

fn list(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}
