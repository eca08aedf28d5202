//! The ingest session: one actor a client connection, which has that connection's requests in hand.
//!
//! In: requests of one connection, by a lane of its own whose bounds are the connection's bounds. Out: the same requests
//! to the shared receivers, and their answers back. What may fail: the session itself; its requests then get a retryable
//! answer, no other connection notices, and the connection's next request gets a new session. What a receiver has put on
//! disk before is recognised when it is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::auth::{Grant, KeyTable};
use crate::domain::refusal::{Accepted, Refusal};
use crate::messages::ingest::ReceiveExport;
use crate::supervisors::kernel::chaos;
use crate::supervisors::kernel::lane::{Lane, Lease};
use crate::supervisors::kernel::policy::Policy;
use crate::supervisors::kernel::port::{Port, PortError, Reply};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Consume, Seat, Seated, Worker};
use crate::supervisors::kernel::spec::{ChildSpec, Group};

/// How long a request waits for room in the receivers' lane before its client is told to come back.
const ROOM_DEADLINE: Duration = Duration::from_secs(2);

// === the actor ===

/// Actor of one connection. It ends with its connection, or when nothing came for `ingest.session_idle`.
pub struct Session {
    receivers: Port<ReceiveExport>,
    config: LiveConfig,
    life: Arc<Life>,
    probe: Probe,
    count: Count,
}

/// What a session shows of itself in the tree.
#[derive(Debug, Default)]
struct Count {
    requests: f64,
    bytes: f64,
}

/// What an incarnation and its connection share.
#[derive(Debug)]
struct Life {
    over: watch::Sender<bool>,
    in_flight: AtomicU64,
    taken: AtomicU64,
    refused: AtomicU64,
    line: Arc<Line>,
}

impl Worker for Session {
    fn started(&mut self, probe: &Probe, ctx: &mut Seated<Self>) {
        probe.ready();
        let (life, config) = (self.life.clone(), self.config.clone());
        let idle = wrap_future::<_, Seat<Self>>(async move { life.idle(&config).await });
        ctx.spawn(idle.map(|(), seat, ctx| {
            seat.worker.life.line.hang_up();
            ctx.stop();
        }));
    }
}

impl Consume<ReceiveExport> for Session {
    fn consume(&mut self, lease: Lease<ReceiveExport>, ctx: &mut Seated<Self>) {
        chaos::point("session.before");
        self.life.taken.fetch_add(1, Ordering::Relaxed);
        self.count.requests += 1.0;
        self.count.bytes += lease.body.len() as f64;
        self.probe.gauge("requests", self.count.requests);
        self.probe.gauge("bytes", self.count.bytes);
        if lease.reply.is_abandoned() {
            lease.ack();
            return;
        }
        self.life.in_flight.fetch_add(1, Ordering::Relaxed);
        let (receivers, life, probe) = (self.receivers.clone(), self.life.clone(), self.probe.clone());
        let deadline = self.config.now().ingest.ack_timeout * 2;
        ctx.spawn(wrap_future(async move {
            // A slow disk is not this actor's stall.
            let wait = probe.wait();
            let outcome = forward(&receivers, &lease, deadline).await;
            drop(wait);
            if outcome.is_err() {
                let refused = life.refused.fetch_add(1, Ordering::Relaxed) + 1;
                probe.gauge("refused", refused as f64);
            }
            chaos::point("session.after");
            life.in_flight.fetch_sub(1, Ordering::Relaxed);
            lease.reply.send(outcome);
            lease.ack();
        }));
    }
}

impl Drop for Session {
    /// However it ends, whoever still waits for it is told.
    fn drop(&mut self) {
        self.life.over.send_replace(true);
    }
}

impl Life {
    /// Resolves when nothing came for a while and nothing is in flight.
    async fn idle(&self, config: &LiveConfig) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(config.now().ingest.session_idle).await;
            let taken = self.taken.load(Ordering::Relaxed);
            if taken == seen && self.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = taken;
        }
    }
}

/// Hands a request to the receivers and waits until its batch is on disk.
async fn forward(
    receivers: &Port<ReceiveExport>,
    request: &ReceiveExport,
    deadline: Duration,
) -> Result<Accepted, Refusal> {
    let (reply, answer) = Reply::new();
    let message = ReceiveExport {
        signal: request.signal,
        body: request.body.clone(),
        format: request.format,
        encoding: request.encoding,
        grant: request.grant.clone(),
        received_at_ns: request.received_at_ns,
        trace_context: request.trace_context.clone(),
        reply,
    };
    receivers.send(message, ROOM_DEADLINE).await.map_err(no_room)?;
    // The receiver gives up first and says why; the deadline only bounds one that is gone.
    tokio::select! {
        answer = tokio::time::timeout(deadline, answer) => match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                Err(Refusal::unavailable("the receiver restarted while it held this request, send it again"))
            }
            Err(_) => Err(Refusal::unavailable("the request was not durable within the deadline, send it again")),
        },
        // The client has gone: the receiver need not begin.
        () = request.reply.abandoned() => Err(Refusal::unavailable("the client has gone")),
    }
}

fn no_room(error: PortError) -> Refusal {
    match error {
        PortError::Draining => Refusal::unavailable("this instance is shutting down"),
        _ => Refusal::unavailable("the edge is at its limit of requests in flight"),
    }
}

// === the connection's side ===

/// Opens sessions; one for the whole edge.
pub struct SessionDesk {
    group: Group,
    policy: Policy,
    most: Box<Most>,
    receivers: Port<ReceiveExport>,
    config: LiveConfig,
    open: AtomicUsize,
    next: AtomicU64,
}

/// How many connections there may be, asked for each.
pub type Most = dyn Fn() -> usize + Send + Sync;

/// The transport's end of a connection: whether it should hang up.
#[derive(Debug, Default)]
pub struct Line {
    hung_up: AtomicBool,
    waker: AtomicWaker,
}

/// A client connection: its session, and who it said it is. Dropping it ends the session.
pub struct Connection {
    desk: Arc<SessionDesk>,
    transport: &'static str,
    line: Arc<Line>,
    link: Mutex<Arc<Link>>,
    known: Mutex<Option<Known>>,
}

/// The session that a connection has now.
struct Link {
    name: String,
    port: Port<ReceiveExport>,
    life: Arc<Life>,
}

/// What the last key led to, good for as long as the key table is the same one.
struct Known {
    key: String,
    table: Arc<KeyTable>,
    grant: Grant,
}

impl SessionDesk {
    /// A desk that opens its sessions in `group` under `policy`, at a time at most as many as `most` says, each in front
    /// of `receivers`.
    pub fn new(
        group: Group,
        policy: Policy,
        most: Box<Most>,
        receivers: Port<ReceiveExport>,
        config: LiveConfig,
    ) -> Self {
        Self { group, policy, most, receivers, config, open: AtomicUsize::new(0), next: AtomicU64::new(1) }
    }

    /// Opens a session for a new connection.
    ///
    /// # Errors
    /// A retryable [`Refusal`] when there are as many as there may be (`max_children` of `ingest.sessions`).
    pub fn connect(self: &Arc<Self>, transport: &'static str) -> Result<Arc<Connection>, Refusal> {
        let most = (self.most)();
        if self.open.fetch_add(1, Ordering::AcqRel) >= most {
            self.open.fetch_sub(1, Ordering::AcqRel);
            let text =
                format!("this instance has {most} connections, which is its limit: try again or elsewhere");
            return Err(Refusal::Unavailable { message: text, retry_after: Duration::from_secs(5) });
        }
        let line = Arc::new(Line::default());
        let link = Mutex::new(self.link(transport, &line));
        Ok(Arc::new(Connection { desk: self.clone(), transport, line, link, known: Mutex::default() }))
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    fn link(&self, transport: &str, line: &Arc<Line>) -> Arc<Link> {
        let name = format!("{transport}-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let lane = Lane::new(format!("ingest.sessions.{name}"), self.policy.lane);
        let life = Arc::new(Life {
            over: watch::Sender::new(false),
            in_flight: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            line: line.clone(),
        });
        let link = Arc::new(Link { name: name.clone(), port: lane.port(), life: life.clone() });
        let (receivers, config) = (self.receivers.clone(), self.config.clone());
        let make = move |probe: &Probe| Session {
            receivers: receivers.clone(),
            config: config.clone(),
            life: life.clone(),
            probe: probe.clone(),
            count: Count::default(),
        };
        self.group.want(ChildSpec::worker(name, self.policy.clone(), make).reads(&lane).build());
        link
    }
}

impl Connection {
    /// Where its transport hears that it should hang up.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// The grant of `key` under `table` if this connection has shown it before and it still holds.
    pub fn remembers(&self, key: &str, table: &Arc<KeyTable>, now_s: u64) -> Option<Grant> {
        let known = self.known.lock();
        let known = known.as_ref().filter(|known| Arc::ptr_eq(&known.table, table))?;
        let same = bool::from(known.key.as_bytes().ct_eq(key.as_bytes()));
        let good = known.grant.expires_at.is_none_or(|at| at > now_s);
        (same && good).then(|| known.grant.clone())
    }

    /// Remembers what a key led to.
    pub fn remember(&self, key: &str, table: Arc<KeyTable>, grant: &Grant) {
        *self.known.lock() = Some(Known { key: key.to_owned(), table, grant: grant.clone() });
    }

    /// Hands a request to the session and waits for its answer.
    ///
    /// # Errors
    /// The receiver's [`Refusal`], or a retryable one where the connection has too much in flight or its session failed.
    pub async fn ask(
        &self,
        message: impl FnOnce(Reply<Result<Accepted, Refusal>>) -> ReceiveExport,
    ) -> Result<Accepted, Refusal> {
        let link = self.link();
        let (reply, mut answer) = Reply::new();
        let mut over = link.life.over.subscribe();
        link.port.send(message(reply), ROOM_DEADLINE).await.map_err(|error| match error {
            PortError::Draining => no_room(error),
            _ => Refusal::unavailable("this connection has as many requests in flight as it may have"),
        })?;
        let deadline = self.desk.config.now().ingest.ack_timeout * 2 + ROOM_DEADLINE;
        tokio::select! {
            biased;
            outcome = &mut answer => outcome.unwrap_or_else(|_| Err(failed())),
            // What was answered just before it ended still counts.
            _ = over.wait_for(|over| *over) => answer.try_recv().unwrap_or_else(|_| Err(failed())),
            () = tokio::time::sleep(deadline) => {
                Err(Refusal::unavailable("the request was not durable within the deadline, send it again"))
            }
        }
    }

    /// The session of this connection; a new one where the last has ended.
    fn link(&self) -> Arc<Link> {
        let mut link = self.link.lock();
        if *link.life.over.borrow() {
            self.desk.group.unwant(&link.name);
            *link = self.desk.link(self.transport, &self.line);
        }
        link.clone()
    }
}

fn failed() -> Refusal {
    Refusal::unavailable("the session of this connection failed while it held the request, send it again")
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.desk.group.unwant(&self.link.get_mut().name);
        self.desk.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Line {
    /// Tells the transport to close the connection.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// True once the connection should be closed; else the waker is called when it should.
    pub fn is_hung_up(&self, cx: &std::task::Context<'_>) -> bool {
        if !self.hung_up.load(Ordering::Acquire) {
            self.waker.register(cx.waker());
        }
        self.hung_up.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for SessionDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionDesk({} open)", self.connections())
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.transport)
    }
}

/// Time now, in Unix seconds, as grants count it.
pub(super) fn now_s() -> u64 {
    clock::unix_nanos() / 1_000_000_000
}
