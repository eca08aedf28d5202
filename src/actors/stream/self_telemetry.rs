//! Obtrace's own telemetry: log lines, spans and metrics of this process in, batches of tenant `_obtrace` to the producer.
//!
//! What may fail: the log being away or full. Then what was collected is dropped and counted, nothing waits and nothing is
//! tried again: this is about the process, and must not be what brings it down. It goes past the edge, so no quota and no
//! count of what clients sent is touched by it.

use std::sync::Arc;
use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;
use bytes::Bytes;
use uuid::Uuid;

use crate::backends::event_log::{EventLog, Record};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::block::partition_of;
use crate::domain::envelope::{Header, SCHEMA_VERSION};
use crate::domain::scope::Scope;
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seated, Worker};
use crate::supervisors::kernel::tree::SharedView;
use crate::telemetry::exposition;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::own::{logs, logs::LINES, metrics, spans, spans::TRACES};
use crate::wire::Payload;
use crate::wire::envelope::to_record_headers;

/// Longest time between two looks into the pockets.
const FLUSH: Duration = Duration::from_secs(5);
/// How long an append may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What it works with.
#[derive(Clone)]
pub struct SelfTelemetryDeps {
    /// `[observe]`, read for each round.
    pub config: LiveConfig,
    /// For the number of partitions.
    pub log: Arc<dyn EventLog>,
    /// Where batches go.
    pub producer: Port<AppendRecord>,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// The tree.
    pub view: SharedView,
}

/// Actor that tells of the process itself.
pub struct SelfTelemetry {
    deps: SelfTelemetryDeps,
}

impl SelfTelemetry {
    /// One with these.
    pub fn new(deps: SelfTelemetryDeps) -> Self {
        Self { deps }
    }
}

impl Worker for SelfTelemetry {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        ctx.spawn(wrap_future(self.deps.clone().run(probe.clone())));
    }
}

impl Drop for SelfTelemetry {
    fn drop(&mut self) {
        // Nobody empties the pockets until the next incarnation opens them.
        LINES.open(0);
        TRACES.open(0);
    }
}

impl SelfTelemetryDeps {
    async fn run(self, probe: Probe) {
        let start = clock::unix_nanos();
        let mut measured = clock::now();
        loop {
            let observe = self.config.now().observe.clone();
            let rate = |per_second: u32| if observe.enabled { per_second } else { 0 };
            LINES.open(rate(observe.logs_per_second));
            TRACES.open(rate(observe.traces_per_second));
            tokio::time::sleep(FLUSH.min(observe.interval)).await;
            let mut payloads = Vec::new();
            let lines = LINES.empty();
            if !lines.is_empty() {
                payloads.push((lines.len(), Payload::Logs(logs::request(lines))));
            }
            let traces = TRACES.empty();
            if !traces.is_empty() {
                payloads.push((traces.iter().map(Vec::len).sum(), Payload::Traces(spans::request(traces))));
            }
            let due = clock::now().saturating_duration_since(measured) >= observe.interval;
            if observe.enabled && due {
                measured = clock::now();
                payloads.extend(self.measure(start));
            }
            self.metrics.own_dropped(LINES.dropped(), TRACES.dropped());
            for (count, payload) in payloads {
                match self.append(count, payload, observe.retention_days).await {
                    Ok(()) => {
                        probe.progress();
                        probe.recovered();
                    }
                    Err(why) => probe.degraded(format!("own telemetry is dropped: {why}")),
                }
            }
        }
    }

    /// The metrics as of now; none while the tree is starting.
    fn measure(&self, start: u64) -> Option<(usize, Payload)> {
        let view = (**self.view.load()).clone()?;
        let text = self.metrics.render(&view);
        let families = match exposition::read(&text) {
            Ok(families) => families,
            Err(why) => {
                tracing::error!(why, "the metrics of the process cannot be read back");
                return None;
            }
        };
        let request = metrics::request(&families, start, clock::unix_nanos());
        Some((metrics::points(&request), Payload::Metrics(request)))
    }

    async fn append(&self, count: usize, payload: Payload, retention_days: u16) -> Result<(), String> {
        let (signal, format) = (payload.signal(), self.config.now().ingest.wire_format);
        let partitions = self.log.partitions(signal.topic()).unwrap_or(1);
        let encoded = Bytes::from(payload.encode(format));
        let batch_id = Uuid::now_v7();
        let header = Header {
            schema_version: SCHEMA_VERSION,
            format,
            scope: Scope::own(),
            signal,
            retention_days,
            received_at_ns: clock::unix_nanos(),
            batch_id,
            // Unlike a client's, this batch is never sent again: its identity is as good as its content.
            content_hash: batch_id.as_u128().max(1),
            record_count: u32::try_from(count).unwrap_or(u32::MAX),
            byte_count: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
            attempts: 0,
            last_error: None,
            trace_context: None,
        };
        let partition = partition_of(header.content_hash, partitions);
        let key = Bytes::copy_from_slice(header.scope.tenant.as_bytes());
        let record = Record { key, headers: to_record_headers(&header), payload: encoded };
        let make = |reply| AppendRecord { topic: signal.topic(), partition, record, dedup: None, reply };
        match self.producer.ask(make, DEADLINE).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl std::fmt::Debug for SelfTelemetryDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SelfTelemetryDeps")
    }
}
