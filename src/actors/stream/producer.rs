//! The producer: appends records to the event log and answers when they are durable there.
//!
//! In: [`AppendRecord`] from the edge and the worker. Out: the log. What may fail: the log, which the reply says.

use std::sync::Arc;

use actix::AsyncContext;
use actix::fut::{ActorFutureExt, wrap_future};

use crate::backends::event_log::{EventLog, LogError};
use crate::domain::failure::{Classified, FailureClass};
use crate::messages::stream::AppendRecord;
use crate::supervisors::kernel::breaker::{Attempt, Gate};
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::policy::BreakerPolicy;
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seat, Seated, Worker};

/// Adapter actor of the event log's writing side.
pub struct Producer {
    log: Arc<dyn EventLog>,
    gate: Gate,
}

impl Producer {
    /// A producer on `log`. While the log is down by the rules of `breaker`, one append at a time finds out whether it is
    /// back; the others are refused at once, to be sent again.
    pub fn new(log: Arc<dyn EventLog>, breaker: BreakerPolicy, probe: &Probe) -> Self {
        Self { log, gate: Gate::new(breaker, probe) }
    }
}

impl Worker for Producer {}

impl Consume<AppendRecord> for Producer {
    fn consume(&mut self, lease: Lease<AppendRecord>, ctx: &mut Seated<Self>) {
        chaos::point("producer.before");
        let Some(attempt) = self.gate.try_enter() else {
            lease.reply.send(Err(LogError::Down));
            lease.ack();
            return;
        };
        let append = self.log.append(lease.topic, lease.partition, lease.record.clone(), lease.dedup);
        lease.passed();
        let wait = lease.wait();
        let append = async {
            chaos::pause("producer.await").await;
            append.await
        };
        ctx.spawn(wrap_future::<_, Seat<Self>>(append).map(move |result, _seat, _ctx| {
            drop(wait);
            chaos::point("producer.after");
            report(attempt, result.as_ref().map(drop));
            lease.reply.send(result);
            lease.ack();
        }));
    }
}

fn report(attempt: Attempt, result: Result<(), &LogError>) {
    match result {
        Ok(()) => attempt.answered(),
        Err(error) if error.class() == FailureClass::Dependency => {
            attempt.failed(FailureClass::Dependency, error.to_string());
        }
        // Refused before it came to the disk: says nothing about it.
        Err(_) => drop(attempt),
    }
}
