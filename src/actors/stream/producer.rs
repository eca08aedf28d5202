//! The producer: appends records to the event log and answers when they are on disk.
//!
//! In: [`AppendRecord`] from the edge and the worker. Out: the log. What may fail: the log, which the reply says.

use std::sync::Arc;

use actix::AsyncContext;
use actix::fut::{ActorFutureExt, wrap_future};

use crate::backends::event_log::{EventLog, LogError};
use crate::domain::failure::{Classified, FailureClass};
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seat, Seated, Worker};

/// Adapter actor of the event log's writing side.
pub struct Producer {
    log: Arc<dyn EventLog>,
    probe: Probe,
}

impl Producer {
    /// A producer on `log`.
    pub fn new(log: Arc<dyn EventLog>, probe: &Probe) -> Self {
        Self { log, probe: probe.clone() }
    }

    fn note(&self, result: Result<(), &LogError>) {
        match result {
            Ok(()) => self.probe.recovered(),
            Err(error) if error.class() == FailureClass::Dependency => self.probe.degraded(error.to_string()),
            Err(_) => {}
        }
    }
}

impl Worker for Producer {}

impl Consume<AppendRecord> for Producer {
    fn consume(&mut self, lease: Lease<AppendRecord>, ctx: &mut Seated<Self>) {
        chaos::point("producer.before");
        let append = self.log.append(lease.topic, lease.partition, lease.record.clone(), lease.dedup);
        lease.passed();
        ctx.spawn(wrap_future::<_, Seat<Self>>(append).map(move |result, seat, _ctx| {
            chaos::point("producer.after");
            seat.worker.note(result.as_ref().map(drop));
            lease.reply.send(result);
            lease.ack();
        }));
    }
}
