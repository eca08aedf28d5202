//! HTTP behaviour over a stand-in query port: statuses, problem documents, scopes, deadlines, and the API document against the routes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::{App, test};
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::domain::query::answer::{List, Stats};
use crate::domain::query::problem::PROBLEM_JSON;
use crate::domain::query::request::SpanStatus;

mod deploys;

type Reply = dyn Fn() -> BoxFuture<'static, Result<QueryAnswer, QueryError>> + Send + Sync;

/// A port, a resolver and a readiness in one, to be looked into afterwards.
struct Stand {
    reply: Box<Reply>,
    asked: Mutex<Vec<(Scope, QueryRequest)>>,
    parts: Vec<PartState>,
    blocked: bool,
}

impl QueryPort for Stand {
    fn ask(
        &self,
        scope: Scope,
        request: QueryRequest,
        _: Duration,
    ) -> BoxFuture<'static, Result<QueryAnswer, QueryError>> {
        self.asked.lock().push((scope, request));
        (self.reply)()
    }
}

impl ScopeResolver for Stand {
    fn resolve(&self, headers: &HeaderMap, _: Option<SocketAddr>) -> Result<Scope, Denied> {
        match headers.get("x-api-key").and_then(|key| key.to_str().ok()) {
            Some(tenant) => Scope::new(tenant, "p", "", "").map_err(|e| Denied { reason: e.to_string() }),
            None => Err(Denied { reason: "send a key".to_owned() }),
        }
    }

    fn sender(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Sender, Denied> {
        self.resolve(headers, peer).map(|scope| Sender { scope, key: Some("ci".into()) })
    }
}

impl TenantPort for Stand {
    fn gate(&self, _: Scope) -> BoxFuture<'static, GateAnswer> {
        use crate::domain::usage::{Day, Usage};
        std::future::ready(GateAnswer::unknown(Usage { spans: 7, ..Usage::default() }, Day(1))).boxed()
    }
}

impl Readiness for Stand {
    fn is_alive(&self) -> bool {
        !self.blocked
    }

    fn parts(&self) -> Vec<PartState> {
        self.parts.clone()
    }
}

fn empty_list() -> Result<QueryAnswer, QueryError> {
    Ok(QueryAnswer::Spans(List { items: vec![], next_cursor: None, stats: Stats::default() }))
}

fn answering(result: impl Fn() -> Result<QueryAnswer, QueryError> + Send + Sync + 'static) -> Arc<Stand> {
    with_reply(move || std::future::ready(result()).boxed())
}

fn with_reply(
    reply: impl Fn() -> BoxFuture<'static, Result<QueryAnswer, QueryError>> + Send + Sync + 'static,
) -> Arc<Stand> {
    Arc::new(Stand { reply: Box::new(reply), asked: Mutex::default(), parts: vec![], blocked: false })
}

fn deps(stand: &Arc<Stand>) -> ApiDeps {
    let (queries, scopes, readiness) = (Arc::clone(stand), Arc::clone(stand), Arc::clone(stand));
    ApiDeps {
        queries,
        deploys: Arc::new(deploys::Shelf::default()),
        scopes,
        tenants: Arc::clone(stand) as _,
        readiness,
        config: Config::default().into(),
    }
}

/// Sends one request with the key of tenant `acme`.
async fn call(stand: &Arc<Stand>, method: Method, uri: &str) -> ServiceResponse {
    call_with(stand, test::TestRequest::with_uri(uri).method(method).insert_header(("x-api-key", "acme")))
        .await
}

async fn call_with(stand: &Arc<Stand>, request: test::TestRequest) -> ServiceResponse {
    let app = test::init_service(App::new().configure(configure(deps(stand)))).await;
    let (request, response) = test::call_service(&app, request.to_request()).await.into_parts();
    ServiceResponse::new(request, response.map_into_boxed_body())
}

async fn get(stand: &Arc<Stand>, uri: &str) -> (u16, Value) {
    let response = call(stand, Method::GET, uri).await;
    let status = response.status().as_u16();
    if status >= 400 {
        assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_JSON, "{uri}");
    }
    let body: Value = serde_json::from_slice(&test::read_body(response).await).unwrap_or(Value::Null);
    if status >= 400 {
        assert_eq!(body["status"], json!(status), "{uri}");
        assert_eq!(body["instance"], json!(uri.split('?').next().unwrap()), "{uri}");
    }
    (status, body)
}

#[actix_web::test]
async fn a_list_has_items_cursor_and_stats() {
    let stand = answering(empty_list);
    let (status, body) =
        get(&stand, "/api/v1/spans?service=cart&status=error&attr.http.method=GET&attr.a!=b").await;
    let want = json!({"items": [], "next_cursor": null, "stats": {"rows_read": 0, "bytes_read": 0, "elapsed_ms": 0.0}});
    assert_eq!((status, body), (200, want));
    let asked = stand.asked.lock();
    let (scope, QueryRequest::Spans(query)) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!(&*scope.tenant, "acme");
    assert_eq!(query.filter.status, Some(SpanStatus::Error));
    let attributes: Vec<_> = query.filter.attributes.iter().map(|a| (a.key.as_str(), a.negated)).collect();
    assert_eq!(attributes, [("http.method", false), ("a", true)]);
}

#[actix_web::test]
async fn the_gate_answers_with_a_key_only() {
    let stand = answering(empty_list);
    let (status, body) = get(&stand, "/api/v1/gate").await;
    assert_eq!((status, &body["state"], &body["usage"]["spans"]), (200, &json!("unknown"), &json!(7)));
    let denied = call_with(&stand, test::TestRequest::with_uri("/api/v1/gate")).await;
    assert_eq!(denied.status().as_u16(), 401);
}

#[actix_web::test]
async fn every_route_reaches_its_question() {
    let stand = answering(empty_list);
    for uri in [
        "/api/v1/traces/5b8aa5a2d2c872e8321cf37308d69df2",
        "/api/v1/traces",
        "/api/v1/spans",
        "/api/v1/logs?q=level%3E%3Derror%20%22timed%20out%22",
        "/api/v1/metrics",
        "/api/v1/metrics/query?name=m",
        "/api/v1/services",
        "/api/v1/services/a%2Fb%20c/operations",
    ] {
        assert_eq!(get(&stand, uri).await.0, 200, "{uri}");
    }
    let asked = stand.asked.lock();
    assert!(matches!(
        asked.iter().map(|(_, request)| request).collect::<Vec<_>>()[..],
        [
            QueryRequest::Trace(_),
            QueryRequest::Traces(_),
            QueryRequest::Spans(_),
            QueryRequest::Logs(_),
            QueryRequest::Metrics(_),
            QueryRequest::MetricRange(_),
            QueryRequest::Services(_),
            QueryRequest::Operations(_)
        ]
    ));
    let QueryRequest::Operations(operations) = &asked[7].1 else { panic!() };
    assert_eq!(operations.service, "a/b c");
}

#[actix_web::test]
async fn bad_parameters_are_problems_that_name_them_and_never_reach_the_port() {
    let stand = answering(empty_list);
    for (uri, parameter) in [
        ("/api/v1/traces?servce=x", "servce"),
        ("/api/v1/traces?limit=0", "limit"),
        ("/api/v1/traces?start=yesterday", "start"),
        ("/api/v1/traces?min_duration=5", "min_duration"),
        ("/api/v1/logs?q=%22open", "q"),
        ("/api/v1/spans?cursor=00", "cursor"),
        ("/api/v1/metrics/query", "name"),
        ("/api/v1/services?service=x", "service"),
        ("/api/v1/traces/xyz", "trace_id"),
    ] {
        let (status, body) = get(&stand, uri).await;
        assert_eq!((status, &body["parameter"]), (400, &json!(parameter)), "{uri}");
    }
    assert!(
        get(&stand, "/api/v1/traces?servce=x").await.1["detail"].as_str().unwrap().contains("\"service\"")
    );
    assert!(stand.asked.lock().is_empty());
}

#[actix_web::test]
async fn without_a_key_nothing_is_asked() {
    let stand = answering(empty_list);
    let response = call_with(&stand, test::TestRequest::with_uri("/api/v1/traces?limit=0")).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers().get("www-authenticate").unwrap(), "Bearer");
    assert!(stand.asked.lock().is_empty());
}

#[actix_web::test]
async fn no_parameter_changes_the_tenant() {
    let stand = answering(empty_list);
    assert_eq!(get(&stand, "/api/v1/spans?tenant=other").await.0, 400);
    assert_eq!(get(&stand, "/api/v1/spans?attr.tenant=other").await.0, 200);
    assert_eq!(&*stand.asked.lock()[0].0.tenant, "acme");
}

#[actix_web::test]
async fn errors_of_the_query_have_their_status_and_retry_after() {
    let wait = Duration::from_secs(3);
    let cases = [
        (QueryError::NotFound("no such trace".into()), 404, None),
        (QueryError::TooLarge("narrow it".into()), 422, None),
        (QueryError::Overloaded { retry_after: wait }, 429, Some("3")),
        (QueryError::Internal("broken".into()), 500, None),
        (QueryError::Unavailable { reason: "refused".into(), retry_after: wait }, 503, Some("3")),
        (QueryError::Timeout, 504, None),
    ];
    for (error, status, retry_after) in cases {
        let stand = answering(move || Err(error.clone()));
        let response = call(&stand, Method::GET, "/api/v1/services").await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get("retry-after").map(|v| v.to_str().unwrap()), retry_after);
        assert_eq!(get(&stand, "/api/v1/services").await.0, status);
    }
}

#[actix_web::test]
async fn unknown_paths_and_methods_are_problems() {
    let stand = answering(empty_list);
    let (status, body) = get(&stand, "/api/v1/trace").await;
    assert_eq!((status, body["detail"].as_str().unwrap().contains("/api/v1/traces?")), (404, true), "{body}");
    assert_eq!(get(&stand, "/nowhere/at/all").await.0, 404);
    assert_eq!(get(&stand, "/api/docs/no-such-file.js").await.0, 404);
    for uri in ["/api/v1/traces", "/livez", "/api/docs", "/api/docs/index.html"] {
        let response = call(&stand, Method::DELETE, uri).await;
        assert_eq!(
            (response.status().as_u16(), response.headers().get("allow").unwrap().as_bytes()),
            (405, &b"GET, HEAD"[..]),
            "{uri}"
        );
        assert_eq!(response.headers().get("content-type").unwrap(), PROBLEM_JSON);
    }
    assert_eq!(call(&stand, Method::HEAD, "/api/v1/traces").await.status(), 200);
}

#[actix_web::test]
async fn a_port_that_never_answers_ends_at_the_deadline() {
    tokio::time::pause();
    let stand = with_reply(|| std::future::pending().boxed());
    assert_eq!(get(&stand, "/api/v1/logs").await.0, 504);
}

/// Tells when the question it belongs to is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[actix_web::test]
async fn a_dropped_request_drops_its_question() {
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let stand = with_reply(move || {
        let flag = Flag(Arc::clone(&flag));
        async move {
            let _flag = flag;
            std::future::pending().await
        }
        .boxed()
    });
    {
        let mut request = Box::pin(call(&stand, Method::GET, "/api/v1/logs"));
        // Polls until the question is asked, then hangs up.
        while stand.asked.lock().is_empty() {
            assert!(futures_util::poll!(request.as_mut()).is_pending());
        }
        assert!(!dropped.load(Ordering::SeqCst));
    }
    assert!(dropped.load(Ordering::SeqCst));
}

#[actix_web::test]
async fn health_says_what_is_missing() {
    let stand = answering(empty_list);
    assert_eq!(get(&stand, "/livez").await, (200, json!({"status": "live", "parts": []})));
    let part =
        |name: &str, ready| PartState { name: name.into(), ready, detail: "engine is starting".into() };
    let not_ready = Arc::new(Stand {
        reply: Box::new(|| std::future::ready(empty_list()).boxed()),
        asked: Mutex::default(),
        parts: vec![part("event_log", true), part("telemetry", false)],
        blocked: false,
    });
    let (status, body) = get(&not_ready, "/readyz").await;
    assert_eq!((status, &body["detail"]), (503, &json!("telemetry: engine is starting")));
    assert_eq!(get(&not_ready, "/livez").await.0, 200);
    assert_eq!(get(&stand, "/readyz").await.0, 200);
    let blocked = Arc::new(Stand {
        reply: Box::new(|| std::future::ready(empty_list()).boxed()),
        asked: Mutex::default(),
        parts: vec![],
        blocked: true,
    });
    let (status, body) = get(&blocked, "/livez").await;
    assert_eq!((status, &body["title"]), (503, &json!("Not alive")));
}

#[actix_web::test]
async fn the_document_names_every_route_and_no_other() {
    let stand = answering(empty_list);
    let (status, document) = get(&stand, "/api/v1/openapi.json").await;
    assert_eq!(status, 200);
    let described: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let below = admin::ENDPOINTS.iter().map(|endpoint| format!("{}{}", admin::SCOPE, endpoint.path));
    let below: Vec<String> = below.chain([admin::METRICS.to_owned()]).collect();
    let below: BTreeSet<&str> = below.iter().map(String::as_str).collect();
    let served: BTreeSet<&str> = routes::ENDPOINTS.iter().map(|endpoint| endpoint.path).collect();
    assert_eq!(described, served.union(&below).copied().collect());
    for (path, item) in document["paths"].as_object().unwrap() {
        if below.contains(path.as_str()) {
            // That these are served, to whom and how, is tested beside them.
            continue;
        }
        assert!(item["get"]["responses"]["200"].is_object(), "{path}");
        // Each described path is really there: not the 404 of a path that nobody serves.
        let uri = path.replace("{trace_id}", &"ab".repeat(16)).replace("{service}", "cart");
        assert_ne!(call(&stand, Method::GET, &uri).await.status(), 404, "{path}");
    }
}

#[actix_web::test]
async fn the_document_lists_every_parameter_a_route_takes_and_has_no_dangling_reference() {
    let stand = answering(empty_list);
    let (_, document) = get(&stand, "/api/v1/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().iter();
    for (path, item) in paths.filter(|(path, _)| !path.contains('{') && path.starts_with("/api/")) {
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        for name in parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()) {
            // A value that no parameter takes is refused as that parameter's value, or taken; never as an unknown name.
            let (_, body) = get(&stand, &format!("{path}?{name}=%00")).await;
            let detail = body["detail"].as_str().unwrap_or("");
            assert!(!detail.contains("not known here"), "{path} {name}: {detail}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[actix_web::test]
async fn the_viewer_is_served_and_knows_the_document() {
    let stand = answering(empty_list);
    let response = call(&stand, Method::GET, "/api/docs").await;
    assert_eq!(
        (response.status().as_u16(), response.headers().get("location").unwrap().as_bytes()),
        (308, &b"/api/docs/"[..])
    );
    let response = call(&stand, Method::GET, "/api/docs/").await;
    assert_eq!(response.headers().get("content-type").unwrap(), "text/html");
    let script = test::read_body(call(&stand, Method::GET, "/api/docs/swagger-initializer.js").await).await;
    assert!(String::from_utf8_lossy(&script).contains("/api/v1/openapi.json"));
}
