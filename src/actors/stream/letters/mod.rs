//! The letter desk: lists and shows the dead letters, and puts them back into their source topics.
//!
//! In: [`AskLetters`] from the admin side, one at a time. Out: the answer; on a replay records to the producer and an event
//! to the topic of replays, from which the desk knows how often each letter was put back. What may fail: the log, which the
//! answer says.

use std::sync::Arc;

use actix::AsyncContext;
use actix::fut::wrap_future;
use tokio::sync::Mutex;

use self::replays::{Replays, restore};
use crate::backends::event_log::EventLog;
use crate::domain::dead_letters::{LetterAnswer, LetterAsk, LettersError, MOST_LETTERS};
use crate::messages::stream::{AppendRecord, AskLetters};
use crate::supervisors::kernel::lane::Lease;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::seat::{Consume, Seated, Worker};

mod replays;
mod shelf;

use shelf::Shelf;

/// Actor of the dead letters.
pub struct LetterDesk {
    desk: Desk,
}

/// What the desk stands on.
#[derive(Clone)]
struct Desk {
    shelf: Shelf,
    producer: Port<AppendRecord>,
    /// What was replayed; read from the log at the first question.
    replays: Arc<Mutex<Option<Replays>>>,
}

impl LetterDesk {
    /// A desk over `log`, which puts letters back through `producer`.
    pub fn new(log: Arc<dyn EventLog>, producer: Port<AppendRecord>) -> Self {
        let replays = Arc::new(Mutex::new(None));
        Self { desk: Desk { shelf: Shelf::new(log), producer, replays } }
    }
}

impl Worker for LetterDesk {}

impl Consume<AskLetters> for LetterDesk {
    fn consume(&mut self, lease: Lease<AskLetters>, ctx: &mut Seated<Self>) {
        let desk = self.desk.clone();
        ctx.spawn(wrap_future(async move {
            let answer = tokio::select! {
                biased;
                () = lease.reply.abandoned() => None,
                answer = desk.answer(&lease.ask) => Some(answer),
            };
            if let Some(answer) = answer {
                lease.reply.send(answer);
            }
            lease.ack();
        }));
    }
}

impl Desk {
    async fn answer(&self, ask: &LetterAsk) -> Result<LetterAnswer, LettersError> {
        let mut known = self.replays.lock().await;
        let replays = match known.take() {
            Some(replays) => known.insert(replays),
            None => known.insert(restore(&self.shelf).await?),
        };
        match ask {
            LetterAsk::List { filter, limit, before } => {
                let limit = (*limit).clamp(1, MOST_LETTERS);
                Ok(LetterAnswer::Page(self.shelf.page(filter, limit, *before, replays).await?))
            }
            LetterAsk::Show(id) => Ok(LetterAnswer::One(Box::new(self.shelf.show(*id, replays).await?))),
            LetterAsk::Replay { what, dry_run, who } => {
                let job =
                    replays::Job { shelf: &self.shelf, producer: &self.producer, who, dry_run: *dry_run };
                job.run(what, replays).await.map(LetterAnswer::Replayed)
            }
        }
    }
}
