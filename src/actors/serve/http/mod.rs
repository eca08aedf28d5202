//! The REST API: an HTTP request in → scope from its credentials, typed question to the query port, JSON answer out.
//!
//! Whatever fails is answered as an RFC 9457 problem document, unknown paths and methods included. A request whose connection is dropped
//! drops its question with it; no request runs longer than the deadline.

pub mod admin;
pub mod deploys;
pub mod docs;
pub mod health;
pub mod openapi;
pub mod reply;
pub mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::BoxFuture;

use crate::config::live::LiveConfig;
use crate::config::roles::Role;
use crate::domain::deploy::{Deploy, DeployQuery};
use crate::domain::gate::GateAnswer;
use crate::domain::query::{QueryAnswer, QueryError, QueryRequest};
use crate::domain::scope::Scope;

/// Where the API is; what processes without the role `query-gateway` do not serve.
const API: &str = "/api";

/// Where questions go: in the running system a port of the query handlers.
pub trait QueryPort: Send + Sync {
    /// Asks a question in a scope. Dropping the future withdraws it.
    fn ask(
        &self,
        scope: Scope,
        request: QueryRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<QueryAnswer, QueryError>>;
}

/// Keeps the deploy markers of tenants.
pub trait DeployPort: Send + Sync {
    /// Stores a marker in a scope; true where it is new.
    fn tell(
        &self,
        scope: Scope,
        deploy: Deploy,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<bool, QueryError>>;

    /// The markers of a scope that are asked for, newest first.
    fn list(
        &self,
        scope: Scope,
        query: DeployQuery,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<Deploy>, QueryError>>;
}

/// Knows how a tenant stands.
pub trait TenantPort: Send + Sync {
    /// Plan, limits and usage of the scope's tenant.
    fn gate(&self, scope: Scope) -> BoxFuture<'static, GateAnswer>;
}

/// Why a request has no scope; becomes a 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// What is wrong with the credentials and what would be right, without repeating them.
    pub reason: String,
}

/// Who may write into a scope.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Whose data it is.
    pub scope: Scope,
    /// Name of the key; none for a client on this machine that needs none.
    pub key: Option<Arc<str>>,
}

/// Turns credentials into a scope. Nothing else of a request has a say in it.
pub trait ScopeResolver: Send + Sync {
    /// The scope of a request with these headers from this peer.
    ///
    /// # Errors
    /// [`Denied`] when there is no key, an unknown or an expired one.
    fn resolve(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Scope, Denied>;

    /// Who writes with these headers from this peer: who may send telemetry. An operator looks, and writes for no tenant.
    ///
    /// # Errors
    /// As [`ScopeResolver::resolve`].
    fn sender(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Sender, Denied>;
}

/// State of one part of the process, for `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartState {
    /// Name of the part, such as `telemetry`.
    pub name: String,
    /// True when it does its work.
    pub ready: bool,
    /// What is missing, when it does not.
    pub detail: String,
}

/// Knows which parts of the process are ready.
pub trait Readiness: Send + Sync {
    /// False when the process can no longer help itself: its root thread is blocked, or nobody watches.
    fn is_alive(&self) -> bool;

    /// The state of every part that must be ready for requests to be served.
    fn parts(&self) -> Vec<PartState>;
}

/// What the API stands on. Cheap to clone: one for every worker.
#[derive(Clone)]
pub struct ApiDeps {
    /// Answers questions.
    pub queries: Arc<dyn QueryPort>,
    /// Keeps deploy markers.
    pub deploys: Arc<dyn DeployPort>,
    /// Makes scopes.
    pub scopes: Arc<dyn ScopeResolver>,
    /// Knows how tenants stand.
    pub tenants: Arc<dyn TenantPort>,
    /// Knows what is ready.
    pub readiness: Arc<dyn Readiness>,
    /// Time one request may take and what it may ask for (`serve.*`), read for each.
    pub config: LiveConfig,
}

/// Mounts the API, the health checks, the API document and its viewer, and problem documents for everything else.
pub fn configure(deps: ApiDeps) -> impl FnOnce(&mut web::ServiceConfig) {
    move |service| {
        let answers = deps.config.now().has_role(Role::QueryGateway);
        service.app_data(web::Data::new(deps));
        let here = routes::ENDPOINTS.iter().filter(|endpoint| answers || !endpoint.path.starts_with(API));
        for endpoint in here {
            service.service((endpoint.mount)(web::resource(endpoint.path)));
        }
        if answers {
            service.app_data(web::Data::new(docs::Documents::build()));
            docs::mount_viewer(service);
        } else {
            service.service(web::scope(API).default_service(web::to(other_role)));
        }
        service.default_service(web::to(reply::no_such_path));
    }
}

/// Says that a path of the API is served by processes of another role.
async fn other_role(request: HttpRequest, deps: web::Data<ApiDeps>) -> HttpResponse {
    reply::other_role(&request, &deps.config.now())
}

#[cfg(test)]
mod tests;
