//! The receiver: takes export requests in on threads of its own and answers when their batch is on disk.
//!
//! In: [`ReceiveExport`] from the listeners. Out: [`AppendRecord`] to the producer. What may fail: the request itself
//! (refused for good), the log being full or away (refused retryably). Decoding runs right on the receiver's arbiter:
//! the pool `ingest` has no other work, so nothing waits behind it (ARCHITECTURE.md, "CPU on arbiters").

use std::time::Duration;

use actix::AsyncContext;
use actix::fut::wrap_future;

use super::accept::{AcceptRules, Prepared, prepare};
use crate::backends::event_log::{Appended, LogError};
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::failure::{Classified, FailureClass};
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::sift::Sifted;
use crate::domain::usage::{Day, Meter};
use crate::domain::versions::VersionLog;
use crate::messages::ingest::ReceiveExport;
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::port::{Port, PortError};
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};
use crate::telemetry::metrics::Metrics;
use crate::wire::resources::ServiceVersion;

/// Actor that turns requests into durable batches.
pub struct Receiver {
    config: LiveConfig,
    partitions: u32,
    producer: Port<AppendRecord>,
    books: Books,
}

/// What a receiver writes down of its work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Books {
    /// Requests and records by outcome.
    pub metrics: Metrics,
    /// What tenants used.
    pub meter: Meter,
    /// Which versions of services came in.
    pub versions: VersionLog,
}

impl Receiver {
    /// A receiver that appends through `producer` to topics of so many partitions; `[ingest]` holds for each request.
    pub fn new(config: LiveConfig, partitions: u32, producer: Port<AppendRecord>, books: Books) -> Self {
        Self { config, partitions, producer, books }
    }
}

impl Worker for Receiver {}

impl Consume<ReceiveExport> for Receiver {
    fn consume(&mut self, lease: Lease<ReceiveExport>, ctx: &mut Seated<Self>) {
        chaos::point("receiver.before");
        if lease.reply.is_abandoned() {
            lease.ack();
            return;
        }
        let config = self.config.now();
        match prepare(&lease, &AcceptRules::new(&config.ingest, self.partitions)) {
            Ok(prepared) => {
                lease.passed();
                let (deadline, books) = (config.ingest.ack_timeout, self.books.clone());
                let metrics = books.metrics.clone();
                let append = Append { producer: self.producer.clone(), deadline, books };
                ctx.spawn(wrap_future(async move {
                    let outcome = append.run(&lease, prepared).await;
                    chaos::point("receiver.after");
                    metrics.received(&lease, &outcome);
                    lease.reply.send(outcome);
                    lease.ack();
                }));
            }
            Err(refusal) => {
                let outcome = Err(refusal);
                self.books.metrics.received(&lease, &outcome);
                lease.reply.send(outcome);
                lease.ack();
            }
        }
    }
}

struct Append {
    producer: Port<AppendRecord>,
    deadline: Duration,
    books: Books,
}

impl Append {
    async fn run(&self, request: &ReceiveExport, prepared: Prepared) -> Result<Accepted, Refusal> {
        let Some((partition, record)) = prepared.record else { return Ok(accepted(prepared.sifted)) };
        let make = |reply| AppendRecord {
            topic: request.signal.topic(),
            partition,
            record,
            dedup: Some(prepared.content_hash),
            reply,
        };
        match self.producer.ask(make, self.deadline).await {
            Ok(Ok(Appended { duplicate, .. })) => {
                if !duplicate {
                    self.count(request, prepared.sifted.kept);
                    self.note(request, &prepared.versions);
                }
                Ok(accepted(prepared.sifted))
            }
            Ok(Err(error)) => Err(log_refusal(&error)),
            Err(PortError::Full) => Err(Refusal::unavailable("the event log cannot keep up")),
            Err(error) => Err(Refusal::unavailable(format!("the batch is not known to be durable: {error}"))),
        }
    }

    /// Counts what is on disk for the tenant; a resend was counted with its first copy.
    fn count(&self, request: &ReceiveExport, records: u64) {
        let today = Day::of_nanos(clock::unix_nanos());
        let tenant = &request.grant.scope.tenant;
        self.books.meter.count(tenant, today, request.signal, records, request.body.len() as u64);
    }

    /// Notes which versions of services sent what is on disk: a change of one becomes a deploy marker.
    fn note(&self, request: &ReceiveExport, versions: &[ServiceVersion]) {
        let (tenant, at_ms) = (&request.grant.scope.tenant, request.received_at_ns / 1_000_000);
        for ServiceVersion { service, version } in versions {
            self.books.versions.see(tenant, service, version, at_ms);
        }
    }
}

fn accepted(sifted: Sifted) -> Accepted {
    let Sifted { kept, rejected, reason } = sifted;
    let message = reason.map(|first| match rejected {
        1 => first,
        more => format!("{more} records refused, the first: {first}"),
    });
    Accepted { accepted: kept, rejected, message }
}

fn log_refusal(error: &LogError) -> Refusal {
    match error.class() {
        FailureClass::Poison => Refusal::TooLarge(error.to_string()),
        _ => Refusal::unavailable(error.to_string()),
    }
}
