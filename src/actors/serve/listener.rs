//! The API listener: owns the HTTP server of the query gateway, with health, metrics and the admin view of the tree.
//!
//! In: HTTP requests on the configured port. Out: [`RunQuery`] to the handlers, and their answers. What may fail: the
//! port being taken (a configuration error); each request on its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use actix_web::dev::ServerHandle;
use actix_web::http::header::HeaderMap;
use actix_web::{App, HttpServer};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use super::deploys::Markers;
use super::http::admin::{self, AdminDeps};
use super::http::{
    ApiDeps, Denied, PartState, QueryPort, Readiness, ScopeResolver, Sender, TenantPort, configure,
};
use super::turnstile::Turnstile;
use crate::clock;
use crate::config::live::LiveConfig;
use crate::domain::admin::{AdminAccess, Deed};
use crate::domain::auth::{Grant, KeyLog, KeyTable, key_from_headers};
use crate::domain::failure::FailureClass;
use crate::domain::gate::GateAnswer;
use crate::domain::query::{QueryAnswer, QueryError, QueryRequest};
use crate::domain::scope::{OWN_TENANT, Scope};
use crate::messages::serve::RunQuery;
use crate::messages::store::StateCall;
use crate::messages::tenant::TenantGate;
use crate::supervisors::kernel::apart::{self, Estate, Hosted};
use crate::supervisors::kernel::port::{Port, PortError};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seat, Seated, Worker};
use crate::supervisors::kernel::snapshot::ChildState;
use crate::supervisors::kernel::tree::SharedView;

/// What the API stands on.
#[derive(Clone)]
pub struct Gateway {
    /// The query handlers.
    pub queries: Port<RunQuery>,
    /// The state adapter, which has the deploy markers.
    pub state: Port<StateCall>,
    /// What tenants may do.
    pub gate: Arc<dyn TenantGate>,
    /// Bounds the queries of one tenant.
    pub turnstile: Turnstile,
    /// When keys were last used.
    pub key_log: KeyLog,
    /// All API keys.
    pub keys: Arc<ArcSwap<KeyTable>>,
    /// The admin side.
    pub admin: AdminDeps,
    /// Where it listens (`serve.http`, read at launch) and what a request may cost (read for each).
    pub config: LiveConfig,
}

/// The actor that owns the API listener.
pub struct ApiListener {
    address: SocketAddr,
    gateway: Gateway,
    estate: Estate,
    server: Option<ServerHandle>,
}

impl ApiListener {
    /// A listener of `gateway`; `estate` is that of all its incarnations.
    pub fn new(gateway: Gateway, estate: Estate) -> Self {
        Self { address: gateway.config.now().serve.http, gateway, estate, server: None }
    }

    /// Has the server on a thread of its own, so that it can be ended whatever holds the actor's.
    fn open(&self) -> impl Future<Output = io::Result<Hosted<ServerHandle>>> + 'static {
        let (address, gateway, estate) = (self.address, self.gateway.clone(), self.estate.clone());
        gateway.admin.closing.send_replace(false);
        let make = move || {
            let server = HttpServer::new(move || {
                App::new()
                    .configure(admin::configure(gateway.admin.clone()))
                    .configure(configure(gateway.api()))
            })
            .workers(1)
            // A client that hangs up takes its query with it.
            .h1_allow_half_closed(false)
            .disable_signals()
            .shutdown_timeout(5)
            .bind(address)?
            .run();
            Ok((server.handle(), server))
        };
        estate.host("api-server", make, |server: ServerHandle| server.stop(false))
    }
}

impl Worker for ApiListener {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        ctx.spawn(wrap_future(self.open()).map(|opened, seat: &mut Seat<Self>, ctx| match opened {
            Ok(Hosted { handle, end }) => {
                seat.worker.server = Some(handle);
                ctx.spawn(wrap_future(end).map(|end, seat: &mut Seat<Self>, ctx| {
                    if let Some(why) = apart::trouble(end) {
                        seat.probe().fail(FailureClass::Bug, format!("the API server ended: {why}"));
                    }
                    ctx.stop();
                }));
                seat.probe().ready();
            }
            Err(error) => {
                let address = seat.worker.address;
                seat.probe().fail(
                    FailureClass::Config,
                    format!(
                        "cannot listen for the API on {address}: {error}; set another serve.http (--http)"
                    ),
                );
                ctx.stop();
            }
        }));
    }

    /// Takes no new connections, lets open requests finish, then the server's end stops the actor.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, ctx: &mut Seated<Self>) {
        self.gateway.admin.closing.send_replace(true);
        match self.server.take() {
            Some(server) => drop(ctx.spawn(wrap_future(server.stop(true)))),
            None => ctx.stop(),
        }
    }
}

impl Drop for ApiListener {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // Told already when this returns; its end is not waited for.
            drop(server.stop(false));
        }
    }
}

impl Gateway {
    fn api(&self) -> ApiDeps {
        ApiDeps {
            queries: Arc::new(Questions {
                port: self.queries.clone(),
                gate: self.gate.clone(),
                turnstile: self.turnstile.clone(),
                config: self.config.clone(),
            }),
            deploys: Arc::new(Markers::new(self.state.clone(), self.config.clone())),
            scopes: Arc::new(Keys {
                keys: self.keys.clone(),
                log: self.key_log.clone(),
                admin: self.admin.access.clone(),
            }),
            tenants: Arc::new(Tenants(self.gate.clone())),
            readiness: Arc::new(Up(self.admin.view.clone())),
            config: self.config.clone(),
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

struct Tenants(Arc<dyn TenantGate>);

impl TenantPort for Tenants {
    fn gate(&self, scope: Scope) -> BoxFuture<'static, GateAnswer> {
        let gate = self.0.clone();
        Box::pin(async move { gate.answer(&scope.tenant).await })
    }
}

struct Questions {
    port: Port<RunQuery>,
    gate: Arc<dyn TenantGate>,
    turnstile: Turnstile,
    config: LiveConfig,
}

impl QueryPort for Questions {
    fn ask(
        &self,
        scope: Scope,
        request: QueryRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<QueryAnswer, QueryError>> {
        let (port, gate) = (self.port.clone(), self.gate.clone());
        let (turnstile, per_tenant) = (self.turnstile.clone(), self.config.now().serve.queries_per_tenant);
        Box::pin(async move {
            let ends = clock::now() + deadline;
            let plan = gate.plan(&scope.tenant).await;
            let bound = match plan.as_ref().map_or(0, |plan| plan.limits.queries_in_flight) {
                0 => per_tenant,
                bound => bound,
            };
            // Held until the answer is there or the client has gone.
            let _pass = turnstile.enter(&scope.tenant, bound as usize, deadline).await?;
            let deadline = ends.saturating_duration_since(clock::now());
            let make = |reply| RunQuery { scope, request, plan, deadline, reply };
            match port.ask(make, deadline).await {
                Ok(answer) => answer,
                Err(PortError::Full) => Err(QueryError::Overloaded { retry_after: Duration::from_secs(1) }),
                Err(PortError::NoAnswer) => Err(QueryError::Timeout),
                Err(error) => Err(QueryError::Unavailable {
                    reason: format!("the query handler: {error}"),
                    retry_after: Duration::from_secs(1),
                }),
            }
        })
    }
}

struct Keys {
    keys: Arc<ArcSwap<KeyTable>>,
    log: KeyLog,
    admin: Arc<ArcSwap<AdminAccess>>,
}

/// Header by which an operator asks for Obtrace's own telemetry.
const TENANT_HEADER: &str = "x-obtrace-tenant";

impl Keys {
    /// What the key of a request gives, and notes its use.
    fn grant(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Grant, Denied> {
        let key = key_from_headers(text(headers, "authorization"), text(headers, "x-api-key"));
        let now_s = clock::unix_nanos() / 1_000_000_000;
        let grant = self.keys.load().admit(key, peer.map(|peer| peer.ip()), now_s);
        let grant = grant.map_err(|denied| Denied { reason: denied.to_string() })?;
        if let Some(name) = &grant.key {
            self.log.touch(name, now_s);
        }
        Ok(grant)
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl ScopeResolver for Keys {
    fn resolve(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Scope, Denied> {
        if headers.contains_key(TENANT_HEADER) {
            if text(headers, TENANT_HEADER) != Some(OWN_TENANT) {
                let reason =
                    format!("{TENANT_HEADER} takes {OWN_TENANT} only: any other tenant follows from its key");
                return Err(Denied { reason });
            }
            let admitted = self.admin.load().admit(Deed::Look, admin::guard::caller(headers, peer));
            return admitted.map(|_| Scope::own()).map_err(|denied| Denied { reason: denied.to_string() });
        }
        self.grant(headers, peer).map(|grant| grant.scope)
    }

    fn sender(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Sender, Denied> {
        if headers.contains_key(TENANT_HEADER) {
            let reason = format!("{TENANT_HEADER} is for looking only: write with a key of the tenant");
            return Err(Denied { reason });
        }
        let Grant { scope, key, .. } = self.grant(headers, peer)?;
        Ok(Sender { scope, key })
    }
}

struct Up(SharedView);

impl Readiness for Up {
    /// Before the tree runs there is nothing to be blocked.
    fn is_alive(&self) -> bool {
        (**self.0.load()).as_ref().is_none_or(|view| view.is_alive())
    }

    fn parts(&self) -> Vec<PartState> {
        let Some(view) = (**self.0.load()).clone() else {
            return vec![PartState { name: "tree".into(), ready: false, detail: "it is starting".into() }];
        };
        let root = view.state();
        let whole = if view.is_leaving() {
            PartState { name: "tree".into(), ready: false, detail: "it is about to stop".into() }
        } else {
            // Paused is an operator's choice, as it is for the parts.
            let ready = matches!(root, ChildState::Running | ChildState::Paused);
            PartState { name: "tree".into(), ready, detail: format!("{root:?}") }
        };
        let parts = view.parts().into_iter().map(|part| PartState {
            name: part.name,
            ready: part.is_up,
            detail: if part.is_up { String::new() } else { format!("{:?}", part.state) },
        });
        std::iter::once(whole).chain(parts).collect()
    }
}
