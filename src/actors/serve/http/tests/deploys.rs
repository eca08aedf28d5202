//! Deploy markers over HTTP against a shelf in memory: what is stored, what is answered, what is refused and how.

use super::*;
use crate::domain::deploy::{Deploy, DeployQuery};

/// Markers by tenant, in the order of their coming.
#[derive(Default)]
pub(super) struct Shelf {
    told: Mutex<Vec<(Scope, Deploy)>>,
    asked: Mutex<Vec<DeployQuery>>,
    away: bool,
}

impl DeployPort for Shelf {
    fn tell(
        &self,
        scope: Scope,
        deploy: Deploy,
        _: Duration,
    ) -> BoxFuture<'static, Result<bool, QueryError>> {
        let mut told = self.told.lock();
        let same = |(of, known): &(Scope, Deploy)| {
            *of == scope
                && (&known.service, &known.version, known.at_ms)
                    == (&deploy.service, &deploy.version, deploy.at_ms)
        };
        let is_new = !told.iter().any(same);
        told.extend(is_new.then_some((scope, deploy)));
        std::future::ready(Ok(is_new)).boxed()
    }

    fn list(
        &self,
        scope: Scope,
        query: DeployQuery,
        _: Duration,
    ) -> BoxFuture<'static, Result<Vec<Deploy>, QueryError>> {
        self.asked.lock().push(query);
        if self.away {
            let away =
                QueryError::StateAway { reason: "it is down".into(), retry_after: Duration::from_secs(1) };
            return std::future::ready(Err(away)).boxed();
        }
        let told = self.told.lock();
        let own = told.iter().filter(|(of, _)| *of == scope).map(|(_, deploy)| deploy.clone()).collect();
        std::future::ready(Ok(own)).boxed()
    }
}

async fn ask(shelf: &Arc<Shelf>, request: test::TestRequest) -> (u16, Value) {
    let deps = ApiDeps { deploys: Arc::clone(shelf) as _, ..deps(&answering(empty_list)) };
    let app = test::init_service(App::new().configure(configure(deps))).await;
    let response = test::call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&test::read_body(response).await).unwrap_or(Value::Null))
}

fn of(tenant: &str) -> test::TestRequest {
    test::TestRequest::with_uri("/api/v1/deploys").insert_header(("x-api-key", tenant))
}

fn telling(tenant: &str, body: impl Into<String>) -> test::TestRequest {
    let json = ("content-type", "application/json; charset=utf-8");
    of(tenant).method(Method::POST).insert_header(json).set_payload(body.into())
}

#[actix_web::test]
async fn a_marker_is_stored_in_the_scope_of_its_key_and_once() {
    let shelf = Arc::new(Shelf::default());
    let at_ms = crate::clock::unix_nanos() / 1_000_000 - 5_000;
    let body = json!({"service": "cart", "version": "1.4.2", "at": at_ms, "by": "ann"}).to_string();
    let (status, marker) = ask(&shelf, telling("acme", body.clone())).await;
    assert_eq!(
        (status, &marker["source"], &marker["by"]),
        (201, &json!("told"), &json!("ann (key ci)")),
        "{marker}"
    );
    assert_eq!(marker["unix_nano"], json!((at_ms * 1_000_000).to_string()));
    assert_eq!(ask(&shelf, telling("acme", body)).await.0, 200, "it was there");
    let now = json!({"service": "cart", "version": "1.4.3"}).to_string();
    let (status, marker) = ask(&shelf, telling("acme", now)).await;
    assert_eq!((status, &marker["by"]), (201, &json!("key ci")));

    let (status, page) = ask(&shelf, of("acme")).await;
    assert_eq!(
        (status, page["items"].as_array().unwrap().len(), &page["next_cursor"]),
        (200, 2, &Value::Null)
    );
    assert_eq!(ask(&shelf, of("other")).await.1["items"], json!([]), "tenants do not meet");
    let (status, page) =
        ask(&shelf, of("acme").uri("/api/v1/deploys?service=cart&start=now-1h&limit=1")).await;
    assert_eq!((status, page["items"].as_array().unwrap().len()), (200, 1));
    assert!(page["next_cursor"].is_string(), "{page}");
    let asked = shelf.asked.lock();
    assert_eq!((asked[2].service.as_deref(), asked[2].most), (Some("cart"), 2));
}

#[actix_web::test]
async fn what_is_wrong_with_a_marker_is_named_and_nothing_is_stored() {
    let shelf = Arc::new(Shelf::default());
    let long = "x".repeat(300);
    for (body, parameter) in [
        (json!({"service": "", "version": "1"}), "service"),
        (json!({"service": "cart", "version": "a\nb"}), "version"),
        (json!({"service": "cart", "version": "1", "by": long}), "by"),
        (json!({"service": "cart", "version": "1", "at": "yesterday"}), "at"),
        (json!({"service": "cart", "version": "1", "at": "now+2h"}), "at"),
        (json!({"service": "cart", "version": "1", "at": 0}), "at"),
        (json!({"service": "cart", "version": "1", "at": -5}), "at"),
        (json!({"service": "cart", "version": "1", "at": [1]}), "at"),
    ] {
        let (status, problem) = ask(&shelf, telling("acme", body.to_string())).await;
        assert_eq!((status, &problem["parameter"]), (400, &json!(parameter)), "{body}: {problem}");
    }
    for (body, words) in [
        ("", "the body is no deploy"),
        ("[1]", "send {\"service\""),
        (r#"{"service": "cart"}"#, "missing field `version`"),
        (r#"{"service": "cart", "version": "1", "tenant": "other"}"#, "unknown field `tenant`"),
    ] {
        let (status, problem) = ask(&shelf, telling("acme", body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let (status, problem) =
        ask(&shelf, telling("acme", "x".repeat(crate::actors::serve::http::deploys::MOST_BODY + 1))).await;
    assert_eq!((status, &problem["title"]), (413, &json!("Body too large")), "{problem}");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let good = r#"{"service": "cart", "version": "1"}"#;
    let (status, problem) =
        ask(&shelf, of("acme").method(Method::POST).insert_header(form).set_payload(good)).await;
    assert_eq!(
        (status, problem["detail"].as_str().unwrap().contains("application/json")),
        (415, true),
        "{problem}"
    );
    let keyless = test::TestRequest::with_uri("/api/v1/deploys").method(Method::POST).set_payload(good);
    assert_eq!(ask(&shelf, keyless).await.0, 401, "who it is comes before what it is");
    assert_eq!(ask(&shelf, of("acme").method(Method::PUT)).await.0, 405);
    assert!(shelf.told.lock().is_empty());
}

#[actix_web::test]
async fn a_list_refuses_what_it_does_not_know_and_says_when_the_store_is_away() {
    let shelf = Arc::new(Shelf { away: true, ..Shelf::default() });
    for (query, parameter) in [("servise=x", "servise"), ("limit=0", "limit"), ("cursor=1", "cursor")] {
        let (status, problem) = ask(&shelf, of("acme").uri(&format!("/api/v1/deploys?{query}"))).await;
        assert_eq!((status, &problem["parameter"]), (400, &json!(parameter)));
    }
    assert!(shelf.asked.lock().is_empty());
    let (status, problem) = ask(&shelf, of("acme")).await;
    assert_eq!((status, &problem["title"]), (503, &json!("State store unavailable")), "{problem}");
}
