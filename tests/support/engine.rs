//! An engine of a test's own in a fresh folder: how it is started, and the settings by which a client finds it.

#![allow(dead_code, reason = "each module uses its own part of this")]

use std::path::Path;

use obtrace::backends::telemetry::client::{TelemetryClient, TelemetrySettings};
use obtrace::backends::telemetry::engine::{EngineChild, EngineEndpoint, EngineSpec, USER};
use obtrace::backends::telemetry::migrate;
use obtrace::backends::telemetry::schema::Layout;

/// How the engine is started on `folder`: by the binary under test.
pub fn spec(folder: &Path) -> EngineSpec {
    EngineSpec { executable: Some(env!("CARGO_BIN_EXE_obtrace").into()), ..EngineSpec::new(folder) }
}

/// A running engine. Ends with its value.
pub struct Engine {
    /// The process. Before the folder, so that it is gone first.
    pub child: EngineChild,
    /// Where it listens, and its secret.
    pub endpoint: EngineEndpoint,
    /// Its folder.
    pub folder: tempfile::TempDir,
}

impl Engine {
    /// An empty one.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = EngineChild::spawn(spec(folder.path())).await.expect("the engine starts");
        let endpoint = child.endpoint().expect("it is ready");
        Self { child, endpoint, folder }
    }

    /// One with the schema of a single server.
    pub async fn with_schema() -> Self {
        let this = Self::start().await;
        migrate::run(&this.client(), &Layout::Single).await.expect("the schema is made");
        this
    }

    /// The settings of its client.
    pub fn settings(&self) -> TelemetrySettings {
        TelemetrySettings {
            url: Some(self.endpoint.url.clone()),
            user: USER.into(),
            password: self.endpoint.secret.clone(),
            ..TelemetrySettings::default()
        }
    }

    /// A client of it.
    pub fn client(&self) -> TelemetryClient {
        TelemetryClient::new(self.settings()).expect("settings are good")
    }
}
