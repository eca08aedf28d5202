//! The guard of the admin routes: a request in → on to its handler with [`Admin`] beside it, or 401 / 403 as a problem.

use std::net::SocketAddr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};

use super::{AdminDeps, reply};
use crate::domain::admin::{Admin, AdminDenied, Caller, Deed};
use crate::domain::auth::key_from_headers;
use crate::domain::query::problem::Problem;

/// The middleware. Handlers find who asks as `ReqData<Admin>`.
///
/// # Errors
/// Those of the handler behind it; a refusal is a response.
pub async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match admit(request.request()) {
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(denied) => {
            let response = reply::problem(&refusal(denied, request.path()));
            Ok(request.into_response(response))
        }
    }
}

fn admit(request: &HttpRequest) -> Result<Admin, AdminDenied> {
    let deps = request.app_data::<Data<AdminDeps>>().ok_or(AdminDenied::Closed)?;
    let looks = [Method::GET, Method::HEAD].contains(request.method());
    let deed = if looks { Deed::Look } else { Deed::Change };
    deps.access.load().admit(deed, caller(request.headers(), request.peer_addr()))
}

/// What a request brings along.
pub fn caller(headers: &HeaderMap, peer: Option<SocketAddr>) -> Caller<'_> {
    Caller {
        bearer: key_from_headers(text(headers, "authorization"), None),
        peer: peer.map(|peer| peer.ip()),
        relayed: relayed(headers),
    }
}

/// The problem document of a refusal.
pub fn refusal(denied: AdminDenied, path: &str) -> Problem {
    let (status, slug, title) = match denied {
        AdminDenied::Missing | AdminDenied::Wrong => (401, "unauthorized", "Unauthorized"),
        AdminDenied::Closed | AdminDenied::Relayed => (403, "forbidden", "Forbidden"),
    };
    Problem::new(status, slug, title, denied.to_string(), path)
}

/// True when the peer is not the one who asks: a proxy passed it on, a page of another origin had a browser send it, or a
/// foreign name was made to point here (DNS rebinding). A browser on the developer's machine is a loopback client too.
pub fn relayed(headers: &HeaderMap) -> bool {
    let proxied =
        ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    let host = text(headers, "host");
    let foreign_name = headers.contains_key("host") && !host.is_some_and(names_loopback);
    let origin = headers.get("origin").map(|origin| origin.to_str().unwrap_or_default());
    let foreign_page = origin.is_some_and(|origin| match origin.split_once("://") {
        Some((_, page)) => Some(page) != host,
        None => true,
    });
    let cross_site =
        text(headers, "sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site));
    proxied || foreign_name || foreign_page || cross_site
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a `Host` is an address (which no foreign page can claim by DNS) or `localhost`.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}
