//! The admin side of the API: the tree, the metrics and what steers the process, all behind one guard.
//!
//! In: a request that [`guard`] let in. Out: JSON or metrics text; problem documents for what cannot be done. A route
//! added to [`ENDPOINTS`] is guarded without further ado: GET and HEAD look, every other method changes something.

pub mod black_boxes;
pub mod config;
pub mod dlq;
pub mod events;
pub mod guard;
pub mod orders;
pub mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web;
use actix_web::{Resource, guard as on};
use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};

use super::reply;
use crate::actors::serve::reloader::Tuning;
use crate::config::live::LiveConfig;
use crate::domain::admin::AdminAccess;
use crate::messages::serve::ReloadConfig;
use crate::messages::stream::AskLetters;
use crate::supervisors::kernel::port::Port;
use crate::supervisors::kernel::tree::SharedView;
use crate::telemetry::metrics::Metrics;

/// What the admin routes stand on. Cheap to clone.
#[derive(Clone)]
pub struct AdminDeps {
    /// Who is let in; may be replaced while the process runs.
    pub access: Arc<ArcSwap<AdminAccess>>,
    /// The tree.
    pub view: SharedView,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Folder of the crash records.
    pub black_boxes: PathBuf,
    /// The dead letters; asked of processes with the role `query-gateway`.
    pub letters: Port<AskLetters>,
    /// The configuration as of now.
    pub config: LiveConfig,
    /// Bounds the open streams of events, over all workers.
    pub streams: Arc<Semaphore>,
    /// True from the moment on that the listener takes no more requests: streams end then.
    pub closing: watch::Sender<bool>,
    /// The configuration, to be shown.
    pub tuning: Arc<dyn Tuning>,
    /// Where reloads are asked for.
    pub reloads: Port<ReloadConfig>,
}

/// A path below `/admin` and how its handlers are mounted on it.
pub struct AdminEndpoint {
    /// Path below `/admin`, as the router spells it.
    pub path: &'static str,
    /// Puts the handlers onto a resource of that path.
    pub mount: fn(Resource) -> Resource,
}

/// The scope of all of them.
pub const SCOPE: &str = "/admin";
/// Where Prometheus asks; guarded like the rest.
pub const METRICS: &str = "/metrics";

/// Everything below `/admin`.
pub const ENDPOINTS: &[AdminEndpoint] = &[
    AdminEndpoint {
        path: "/tree",
        mount: |resource| resource.route(look().to(tree::show)).default_service(web::to(reply::only_get)),
    },
    AdminEndpoint {
        path: "/dlq",
        mount: |resource| resource.route(look().to(dlq::list)).default_service(web::to(reply::only_get)),
    },
    // Before the letters, of which none is called so.
    AdminEndpoint {
        path: "/dlq/replay",
        mount: |resource| {
            resource.route(web::post().to(dlq::replay)).default_service(web::to(reply::only_post))
        },
    },
    AdminEndpoint {
        path: "/dlq/{id}",
        mount: |resource| resource.route(look().to(dlq::show)).default_service(web::to(reply::only_get)),
    },
    AdminEndpoint {
        path: "/tree/{path}/{action}",
        mount: |resource| {
            let body = web::PayloadConfig::new(orders::MOST_BODY);
            resource
                .app_data(body)
                .route(web::post().to(orders::give))
                .default_service(web::to(reply::only_post))
        },
    },
    AdminEndpoint {
        path: "/black-boxes",
        mount: |resource| {
            resource.route(look().to(black_boxes::list)).default_service(web::to(reply::only_get))
        },
    },
    AdminEndpoint {
        path: "/black-boxes/{name}",
        mount: |resource| {
            resource.route(look().to(black_boxes::show)).default_service(web::to(reply::only_get))
        },
    },
    AdminEndpoint {
        path: "/events",
        mount: |resource| resource.route(look().to(events::show)).default_service(web::to(reply::only_get)),
    },
    AdminEndpoint {
        path: "/config",
        mount: |resource| resource.route(look().to(config::show)).default_service(web::to(reply::only_get)),
    },
    AdminEndpoint {
        path: "/config/reload",
        mount: |resource| {
            resource.route(web::post().to(config::reload)).default_service(web::to(reply::only_post))
        },
    },
];

/// A route of GET and HEAD.
fn look() -> actix_web::Route {
    web::route().guard(on::Any(on::Get()).or(on::Head()))
}

/// Mounts the admin routes and the metrics.
pub fn configure(deps: AdminDeps) -> impl FnOnce(&mut web::ServiceConfig) {
    move |service| {
        service.app_data(web::Data::new(deps));
        let mut scope = web::scope(SCOPE);
        for endpoint in ENDPOINTS {
            scope = scope.service((endpoint.mount)(web::resource(endpoint.path)));
        }
        service.service(scope.default_service(web::to(reply::no_such_path)).wrap(from_fn(guard::guard)));
        let metrics = web::resource(METRICS).route(look().to(tree::metrics));
        service.service(metrics.default_service(web::to(reply::only_get)).wrap(from_fn(guard::guard)));
    }
}

#[cfg(test)]
mod tests;
