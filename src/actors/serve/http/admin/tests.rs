//! The admin routes over HTTP with a small real tree: who is let in, and what they see.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::test::{self, TestRequest};
use actix_web::{App, web};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::*;
use crate::domain::reload::{ReloadRefused, Reloaded};
use crate::supervisors::kernel::lane::{Lane, LaneView as _};
use crate::supervisors::kernel::policy::Policy;
use crate::supervisors::kernel::pools::{INLINE, Pools};
use crate::supervisors::kernel::seat::Worker;
use crate::supervisors::kernel::spec::ChildSpec;
use crate::supervisors::kernel::tree::Tree;

const TOKEN: &str = "a-token-of-some-length";

struct Clerk;
impl Worker for Clerk {}

/// A tree with one clerk in it.
async fn tree() -> Tree {
    let policy = Policy { pool: INLINE.into(), ..Policy::default() };
    let clerk = ChildSpec::worker("clerk", policy.clone(), |_| Clerk).build();
    let mut tree = Tree::start(&ChildSpec::supervisor("root", policy, vec![clerk]), Pools::new([].into()));
    tree.ready().await.unwrap();
    tree
}

fn deps(token: Option<&str>, loopback: bool, view: Option<TreeView>) -> AdminDeps {
    // Nobody stands at the desk, and whoever asks there is told so at once.
    let letters = Lane::new("letters", Policy::default().lane);
    letters.close();
    AdminDeps {
        access: Arc::new(ArcSwap::from_pointee(AdminAccess::new(token, loopback))),
        view: Arc::new(ArcSwap::from_pointee(view)),
        metrics: Metrics::new(),
        letters: letters.port(),
        tuning: Arc::new(Untuned),
        reloads: Lane::new("reloads", Policy::default().lane).port(),
    }
}

/// A configuration that says nothing; reloads are tested with a whole process.
struct Untuned;

impl Tuning for Untuned {
    fn reload(&self, _: String) -> BoxFuture<'static, Result<Reloaded, ReloadRefused>> {
        Box::pin(std::future::ready(Ok(Reloaded::default())))
    }

    fn show(&self) -> Value {
        Value::Null
    }
}

async fn call(deps: &AdminDeps, request: TestRequest) -> (u16, String) {
    let app = App::new().configure(configure(deps.clone())).default_service(web::to(reply::no_such_path));
    let app = test::init_service(app).await;
    let response: ServiceResponse<_> = test::call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    (status, String::from_utf8_lossy(&test::read_body(response).await).into_owned())
}

fn from(peer: &str, method: Method, uri: &str) -> TestRequest {
    TestRequest::with_uri(uri).method(method).peer_addr(peer.parse::<SocketAddr>().unwrap())
}

const HERE: &str = "127.0.0.1:5000";
const THERE: &str = "10.0.0.1:5000";

fn bearer(request: TestRequest, token: &str) -> TestRequest {
    request.insert_header(("authorization", format!("Bearer {token}")))
}

#[actix_web::test]
async fn every_route_and_the_paths_that_are_none_stand_behind_the_guard() {
    let tree = tree().await;
    let closed = deps(Some(TOKEN), false, Some(tree.view()));
    let paths = ENDPOINTS.iter().map(|endpoint| format!("{SCOPE}{}", endpoint.path));
    for path in paths.chain(["/metrics".to_owned(), "/admin/none".to_owned(), "/admin/".to_owned()]) {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            for (peer, token, want) in [(THERE, None, 401), (HERE, None, 401), (HERE, Some("no"), 401)] {
                let request = from(peer, method.clone(), &path);
                let request = token.map_or_else(|| from(peer, method.clone(), &path), |t| bearer(request, t));
                let (status, body) = call(&closed, request).await;
                assert_eq!(status, want, "{method} {path}: {body}");
            }
            let (status, _) = call(&closed, bearer(from(THERE, method.clone(), &path), TOKEN)).await;
            assert!(![401, 403].contains(&status), "{method} {path}: {status}");
        }
    }
    tree.stop(std::time::Duration::from_secs(5)).await;
}

#[actix_web::test]
async fn without_a_token_dev_answers_its_own_machine_and_says_to_others_what_to_do() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    let (status, body) = call(&dev, from(HERE, Method::GET, "/admin/tree")).await;
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, shown["root"]["children"][0]["path"].as_str()), (200, Some("clerk")));
    let (status, body) = call(&dev, from(HERE, Method::GET, "/metrics")).await;
    assert!(status == 200 && body.ends_with("# EOF\n"), "{body}");
    let (status, body) = call(&dev, from(THERE, Method::GET, "/metrics")).await;
    assert!(status == 403 && body.contains("OBTRACE_ADMIN_TOKEN"), "{body}");
    let served = deps(None, false, Some(tree.view()));
    assert_eq!(call(&served, from(HERE, Method::GET, "/admin/tree")).await.0, 403);
    tree.stop(std::time::Duration::from_secs(5)).await;
}

#[actix_web::test]
async fn a_browser_on_the_developers_machine_is_no_way_in_for_web_pages() {
    let dev = deps(None, true, None);
    let with = |name: &'static str, value: &'static str| {
        from(HERE, Method::GET, "/admin/tree").insert_header((name, value))
    };
    for request in [
        with("x-forwarded-for", "10.0.0.1"),
        with("forwarded", "for=10.0.0.1"),
        with("host", "evil.example:8080"),
        with("origin", "https://evil.example").insert_header(("host", "127.0.0.1:8080")),
        with("origin", "null").insert_header(("host", "127.0.0.1:8080")),
        with("sec-fetch-site", "cross-site"),
    ] {
        let (status, body) = call(&dev, request).await;
        assert!(status == 403 && body.contains("web page"), "{status} {body}");
    }
    for request in [
        with("host", "127.0.0.1:8080"),
        with("host", "localhost"),
        with("host", "[::1]:8080"),
        with("origin", "http://localhost:8080").insert_header(("host", "localhost:8080")),
        with("sec-fetch-site", "none"),
    ] {
        assert_eq!(call(&dev, request).await.0, 503, "let in, but there is no tree yet");
    }
}

#[actix_web::test]
async fn a_token_that_is_replaced_holds_from_then_on() {
    let deps = deps(Some(TOKEN), false, None);
    let ask = |token: &str| bearer(from(THERE, Method::GET, "/admin/tree"), token);
    assert_eq!(call(&deps, ask(TOKEN)).await.0, 503);
    deps.access.store(Arc::new(AdminAccess::new(Some("another-token-altogether"), false)));
    assert_eq!(call(&deps, ask(TOKEN)).await.0, 401);
    assert_eq!(call(&deps, ask("another-token-altogether")).await.0, 503);
}
