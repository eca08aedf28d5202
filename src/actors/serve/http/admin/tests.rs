//! The admin routes over HTTP with a small real tree: who is let in, and what they see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::test::{self, TestRequest};
use actix_web::{App, web};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::domain::reload::{ReloadRefused, Reloaded};
use crate::supervisors::kernel::journal::EventKind;
use crate::supervisors::kernel::lane::{Lane, LaneView as _};
use crate::supervisors::kernel::policy::Policy;
use crate::supervisors::kernel::pools::{INLINE, Pools};
use crate::supervisors::kernel::seat::Worker;
use crate::supervisors::kernel::spec::ChildSpec;
use crate::supervisors::kernel::tree::{Tree, TreeView};

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
        black_boxes: std::path::PathBuf::from("none"),
        letters: letters.port(),
        config: Config::default().into(),
        streams: super::events::streams(),
        closing: watch::Sender::new(false),
        tuning: Arc::new(Untuned),
        reloads: nobody(),
    }
}

/// A port that nobody reads: what is asked there is refused at once.
fn nobody() -> Port<ReloadConfig> {
    let lane = Lane::new("reloads", Policy::default().lane);
    lane.close();
    lane.port()
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
    let paths = paths.map(|path| path.replace("{path}", "clerk").replace("{action}", "nonsense"));
    for path in paths.chain(["/metrics".to_owned(), "/admin/none".to_owned(), "/admin/".to_owned()]) {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            for (peer, token, want) in [(THERE, None, 401), (HERE, None, 401), (HERE, Some("no"), 401)] {
                let request = from(peer, method.clone(), &path);
                let request = token.map_or_else(|| from(peer, method.clone(), &path), |t| bearer(request, t));
                let (status, body) = call(&closed, request).await;
                assert_eq!(status, want, "{method} {path}: {body}");
            }
            // A stream would not end.
            let path = if path.ends_with("/events") { format!("{path}?follow=false") } else { path.clone() };
            let (status, _) = call(&closed, bearer(from(THERE, method.clone(), &path), TOKEN)).await;
            assert!(![401, 403].contains(&status), "{method} {path}: {status}");
        }
    }
    tree.stop(Duration::from_secs(5)).await;
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
    tree.stop(Duration::from_secs(5)).await;
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

// === orders ===

async fn post(deps: &AdminDeps, path: &str, body: &str) -> (u16, Value) {
    let request = from(HERE, Method::POST, path).set_payload(body.to_owned());
    let (status, body) = call(deps, request).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn events(deps: &AdminDeps, query: &str) -> Value {
    let path = format!("/admin/events?follow=false{query}");
    let (status, body) = call(deps, from(HERE, Method::GET, &path)).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[actix_web::test]
async fn an_order_is_carried_out_and_kept_with_who_and_why() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    let body = r#"{"who": "ann\n", "why": "new library"}"#;
    let (status, taken) = post(&dev, "/admin/tree/clerk/restart", body).await;
    assert_eq!((status, &taken["who"]), (202, &json!("ann (127.0.0.1)")), "{taken}");
    let view = tree.view();
    while view.snapshot().root.children[0].generation < 2 || !view.is_up() {
        tokio::task::yield_now().await;
    }
    let listed = events(&dev, "").await;
    let listed = listed["events"].as_array().unwrap();
    let action = listed.iter().find(|event| event["event"] == "action").unwrap();
    assert_eq!(
        (&action["path"], &action["action"], &action["why"]),
        (&json!("clerk"), &json!("restart"), &json!("new library"))
    );
    let (status, taken) = post(&dev, "/admin/tree/clerk/pause", "").await;
    assert_eq!((status, &taken["who"]), (202, &json!("127.0.0.1")));
    assert_eq!(view.snapshot().root.children[0].state.as_str(), "paused");
    assert_eq!(post(&dev, "/admin/tree/clerk/resume", "{}").await.0, 202);
    tree.stop(Duration::from_secs(5)).await;
}

#[actix_web::test]
async fn orders_that_make_no_sense_are_refused_with_what_would() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    for (path, body, status, word) in [
        ("/admin/tree/clerc/restart", "", 404, "did you mean \\\"clerk\\\""),
        ("/admin/tree/clerk/restrat", "", 404, "did you mean restart"),
        (concat!("/admin/tree/", "root", "/restart"), "", 409, "the root cannot restart"),
        ("/admin/tree/clerk/release", "", 409, "clerk cannot release"),
        ("/admin/tree/clerk/restart", "{\"wy\": 1}", 400, "wy"),
        ("/admin/tree/clerk/restart", "not json", 400, "cannot be read"),
    ] {
        let (found, problem) = post(&dev, path, body).await;
        assert_eq!(found, status, "{path} {body}: {problem}");
        assert!(problem["detail"].to_string().contains(word), "{word} in {problem}");
    }
    let (status, _) = call(&dev, from(HERE, Method::GET, "/admin/tree/clerk/restart")).await;
    assert_eq!(status, 405);
    assert_eq!(post(&deps(None, true, None), "/admin/tree/clerk/restart", "").await.0, 503);
    tree.stop(Duration::from_secs(5)).await;
}

// === events ===

#[actix_web::test]
async fn events_are_listed_from_where_one_left_off() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    let all = events(&dev, "").await;
    let count = all["events"].as_array().unwrap().len() as u64;
    assert!(count >= 2 && all["missed"] == 0 && all["restarted"] == false, "{all}");
    let rest = events(&dev, &format!("&after={}", count - 1)).await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 1, "{rest}");
    let later = events(&dev, "&after=100000").await;
    assert_eq!(
        (&later["restarted"], later["events"].as_array().unwrap().len() as u64),
        (&json!(true), count)
    );
    let journal = tree.view().journal();
    (0..2000).for_each(|_| journal.record("x", 1, EventKind::Ready));
    assert_eq!(events(&dev, "&after=1").await["missed"], journal.newest() - 1024 - 1);
    let (status, _) = call(&dev, from(HERE, Method::GET, "/admin/events?folow=false")).await;
    assert_eq!(status, 400);
    tree.stop(Duration::from_secs(5)).await;
}

/// An open stream of events.
async fn follow(deps: &AdminDeps, request: TestRequest) -> (u16, BoxBody) {
    let app = test::init_service(App::new().configure(configure(deps.clone()))).await;
    let response = test::call_service(&app, request.to_request()).await;
    (response.status().as_u16(), response.into_body().boxed())
}

async fn chunk(body: &mut BoxBody) -> Option<String> {
    let chunk = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_next(cx)).await?;
    Some(String::from_utf8(chunk.unwrap().to_vec()).unwrap())
}

#[actix_web::test]
async fn a_stream_goes_on_from_the_last_id_beats_when_idle_and_ends_with_the_listener() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    let journal = tree.view().journal();
    tokio::time::pause();
    let seq = journal.newest();
    let request =
        from(HERE, Method::GET, "/admin/events").insert_header(("last-event-id", (seq - 1).to_string()));
    let (status, mut body) = follow(&dev, request).await;
    let first = chunk(&mut body).await.unwrap();
    assert!(status == 200 && first.starts_with(&format!("id: {seq}\ndata: {{\"seq\":{seq},")), "{first}");
    assert_eq!(chunk(&mut body).await.unwrap(), ": still here\n\n");
    journal.record("clerk", 1, EventKind::Recovered);
    let next = chunk(&mut body).await.unwrap();
    assert!(next.contains("\"event\":\"recovered\"") && next.ends_with("\n\n"), "{next}");
    (0..1030).for_each(|_| journal.record("x", 1, EventKind::Ready));
    let missed = chunk(&mut body).await.unwrap();
    assert!(missed.starts_with("event: missed\ndata: {\"missed\":6}\n\nid: "), "{}", &missed[..80]);
    journal.record("clerk", 1, EventKind::Stopped);
    dev.closing.send_replace(true);
    assert!(chunk(&mut body).await.unwrap().contains("\"stopped\""), "what is there is told before the end");
    assert_eq!(chunk(&mut body).await, None);
    tokio::time::resume();
    tree.stop(Duration::from_secs(5)).await;
}

#[actix_web::test]
async fn streams_are_bounded_and_one_that_ends_makes_room() {
    let tree = tree().await;
    let dev = deps(None, true, Some(tree.view()));
    let open = || follow(&dev, from(HERE, Method::GET, "/admin/events"));
    let mut streams = Vec::new();
    for _ in 0..super::events::MOST_STREAMS {
        let (status, body) = open().await;
        assert_eq!(status, 200);
        streams.push(body);
    }
    assert_eq!(open().await.0, 429);
    assert_eq!(call(&dev, from(HERE, Method::GET, "/admin/events?follow=false")).await.0, 200);
    streams.pop();
    assert_eq!(open().await.0, 200);
    tree.stop(Duration::from_secs(5)).await;
}
