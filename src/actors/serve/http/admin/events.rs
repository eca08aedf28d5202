//! What happens in the tree, over HTTP: the journal in → a stream of server-sent events, or a list of them, out.
//!
//! A stream reads from the journal's ring, so a slow client costs no memory here: what it missed is counted and said. The
//! number of streams is bounded, and all of them end when the listener drains.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::{IntoParams, ToSchema};

use super::{AdminDeps, reply, tree};
use crate::domain::query::problem::Problem;
use crate::supervisors::kernel::journal::{Journal, TreeEvent};

/// Streams at once.
pub const MOST_STREAMS: usize = 16;
/// After so long without an event a comment is sent, so that proxies and clients know that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this number; the header `Last-Event-ID` says the same and goes first. All that are kept (1,024)
    /// when absent.
    after: Option<u64>,
    /// `false` for a JSON list of what is there, instead of a stream.
    follow: Option<bool>,
}

/// Events as a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    /// Oldest first: `seq`, `at_unix_ns`, `path`, `generation`, `event`, and what belongs to that kind of event.
    #[schema(value_type = Vec<serde_json::Value>)]
    events: Vec<TreeEvent>,
    /// Events after `after` that are no longer kept.
    missed: u64,
    /// True when `after` is a number this process has not come to: it was started anew, and its numbers with it.
    restarted: bool,
}

/// What happens in the tree, as server-sent events. Each `data` is one event as JSON, its `id` the number to go on from.
/// An event named `missed` says how many were not kept, one named `restarted` that the process and its numbers began anew.
#[utoipa::path(
    get, path = "/admin/events", tag = "admin", security(("admin_token" = [])),
    params(EventsQuery),
    responses(
        (status = 200, description = "With `follow=false` a list; otherwise a stream (`text/event-stream`)", body = EventList),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many streams at once", body = Problem, content_type = "application/problem+json"),
        super::super::openapi::AdminProblems
    )
)]
pub async fn show(request: HttpRequest, deps: Data<AdminDeps>) -> HttpResponse {
    let query = match Query::<EventsQuery>::from_query(request.query_string()) {
        Ok(query) => query.into_inner(),
        Err(error) => {
            let detail = format!("query string: {error}");
            return reply::problem(&Problem::new(
                400,
                "bad-parameter",
                "Bad parameter",
                detail,
                request.path(),
            ));
        }
    };
    let Some(view) = tree::view(&deps) else { return reply::problem(&tree::not_ready(request.path())) };
    let journal = view.journal();
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let from = From::of(&journal, last.or(query.after));
    if query.follow == Some(false) {
        return reply::ok(&list(&journal, from));
    }
    let Ok(permit) = Arc::clone(&deps.streams).try_acquire_owned() else {
        let detail = format!("{MOST_STREAMS} streams are open already: close one, or ask with follow=false");
        return reply::problem(&Problem::new(429, "overloaded", "Too many streams", detail, request.path()));
    };
    let follower =
        Follower { journal, from, closing: deps.closing.subscribe(), over: false, _permit: permit };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream(follower))
}

/// A bound on streams, for all workers of a listener.
pub fn streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_STREAMS))
}

/// From where somebody reads.
#[derive(Debug, Clone, Copy)]
struct From {
    /// Number of the event before.
    seq: u64,
    /// Whether the reader named it, and so can have missed something.
    named: bool,
    /// Whether that number is of a process before this one.
    restarted: bool,
}

impl From {
    fn of(journal: &Journal, after: Option<u64>) -> Self {
        let restarted = after.is_some_and(|after| after > journal.newest());
        Self {
            seq: after.filter(|_| !restarted).unwrap_or_default(),
            named: after.is_some() && !restarted,
            restarted,
        }
    }
}

fn list(journal: &Journal, from: From) -> EventList {
    let (events, missed) = journal.after(from.seq);
    EventList { events, missed: if from.named { missed } else { 0 }, restarted: from.restarted }
}

struct Follower {
    journal: Journal,
    from: From,
    closing: watch::Receiver<bool>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

fn stream(follower: Follower) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(follower, |mut follower| async move {
        let chunk = follower.next().await?;
        Some((Ok(Bytes::from(chunk)), follower))
    })
}

impl Follower {
    /// The next piece of the stream; none at its end. What is there is told before the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        loop {
            let closing = *self.closing.borrow();
            let told = self.tell();
            if closing {
                self.over = true;
                return (!told.is_empty()).then_some(told);
            }
            if !told.is_empty() {
                return Some(told);
            }
            let gone = tokio::select! {
                biased;
                ended = self.closing.wait_for(|closing| *closing) => ended.is_err(),
                () = self.journal.wait_past(self.from.seq) => false,
                () = tokio::time::sleep(HEARTBEAT) => return Some(": still here\n\n".to_owned()),
            };
            if gone {
                // The listener itself is gone, with nobody left to say so.
                return None;
            }
        }
    }

    /// Everything that happened since.
    fn tell(&mut self) -> String {
        let EventList { events, missed, restarted } = list(&self.journal, self.from);
        let mut text = String::new();
        // Writing into a String cannot fail.
        if restarted {
            text.push_str("event: restarted\ndata: {}\n\n");
        }
        if missed > 0 {
            write!(text, "event: missed\ndata: {{\"missed\":{missed}}}\n\n").ok();
        }
        for event in &events {
            let data = serde_json::to_string(event).unwrap_or_default();
            write!(text, "id: {}\ndata: {data}\n\n", event.seq).ok();
        }
        let seq = events.last().map_or(self.from.seq, |event| event.seq);
        self.from = From { seq, named: true, restarted: false };
        text
    }
}
