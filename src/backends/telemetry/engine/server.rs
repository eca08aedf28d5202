//! The HTTP front: the part of ClickHouse's interface that the `clickhouse` crate and curl use, on loopback behind a secret.
//!
//! In: `GET|POST /?query=…&setting=…` with a statement or insert data as body, `/ping`. Out: the formatted result, or
//! ClickHouse's exception as text with its code in a header and the status ClickHouse gives it. Nothing is answered before it
//! is complete, so an error never hides behind a 200.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::guard;
use super::body::Body;
use super::exception::{Exception, codes};
use super::pool::{Job, Output, Piece, Pool, Work};
use super::request::{Request, multipart_fields};
use super::sql::{Statement, inspect};
use crate::clock;

/// What the front needs to answer.
pub struct Front {
    /// The engine's threads.
    pub pool: Pool,
    /// The key every request must carry (`X-ClickHouse-Key`, Basic or `password=`).
    pub secret: String,
    /// Largest body, bytes, after decompression.
    pub max_body_bytes: usize,
}

/// The only user.
const USER: &str = "default";
/// Largest statement, inline data included, that is not streamed.
const MAX_TEXT: usize = 16 << 20;
/// How much of a body is read in search of `INSERT … FORMAT` before it is taken for a plain statement.
const MAX_HEAD: usize = 256 << 10;
/// Pieces handed to the engine at once; fewer, larger calls are cheaper.
const PIECE: usize = 256 << 10;
/// Pieces that may wait between the socket and the engine.
const PIECES: usize = 8;
/// A request may take this much longer than its statement, for the way there and back.
const GRACE: Duration = Duration::from_secs(5);

const CODE: HeaderName = HeaderName::from_static("x-clickhouse-exception-code");
const SUMMARY: HeaderName = HeaderName::from_static("x-clickhouse-summary");
const QUERY_ID: HeaderName = HeaderName::from_static("x-clickhouse-query-id");
const FORMAT: HeaderName = HeaderName::from_static("x-clickhouse-format");
const DISPLAY_NAME: HeaderName = HeaderName::from_static("x-clickhouse-server-display-name");
const TIMEZONE: HeaderName = HeaderName::from_static("x-clickhouse-timezone");
const USER_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-user");
const KEY_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-key");
const DATABASE_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-database");
const TENANT: HeaderName = HeaderName::from_static(guard::TENANT_HEADER);
const FORMAT_HEADER: HeaderName = HeaderName::from_static("x-clickhouse-format");

/// Starts serving on `listener`; the returned server is awaited and stopped by the caller.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(listener: TcpListener, front: Front) -> std::io::Result<actix_web::dev::Server> {
    let front = web::Data::from(Arc::new(front));
    let app = move || {
        App::new()
            .app_data(front.clone())
            .route("/ping", web::to(|| async { HttpResponse::Ok().body("Ok.\n") }))
            .route("/replicas_status", web::to(|| async { HttpResponse::Ok().body("Ok.\n") }))
            .route("/", web::to(answer))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .disable_signals()
        // a client that hangs up ends its handler, which cancels its statement; by default it would run to its end
        .h1_allow_half_closed(false)
        .shutdown_timeout(1)
        .keep_alive(Duration::from_secs(75))
        .client_request_timeout(Duration::from_secs(10))
        .listen(listener)?;
    Ok(server.run())
}

async fn answer(http: HttpRequest, payload: web::Payload, front: web::Data<Front>) -> HttpResponse {
    let mut reply = Reply { query_id: Uuid::now_v7().to_string(), format: None };
    match front.handle(&http, payload, &mut reply).await {
        Ok(Some(output)) => reply.success(output),
        Ok(None) => HttpResponse::Ok().body("Ok.\n"),
        Err(exception) => reply.failure(&exception),
    }
}

// === impl Front ===

impl Front {
    async fn handle(
        &self,
        http: &HttpRequest,
        payload: web::Payload,
        reply: &mut Reply,
    ) -> Result<Option<Output>, Exception> {
        let mut request = Request::default();
        request.absorb(url_fields(http)?)?;
        self.authenticate(http.headers(), &request)?;
        if http.method() == Method::GET && request.query.is_none() {
            return Ok(None);
        }
        if ![Method::GET, Method::POST].contains(http.method()) {
            return Err(Exception::new(codes::NOT_IMPLEMENTED, "only GET and POST are served"));
        }
        let mut body = Body::new(payload, http.headers(), self.max_body_bytes)?;
        let content_type = header(http.headers(), &CONTENT_TYPE).unwrap_or_default();
        // before the statement's own limit is known, reading it has the default one
        body.deadline = clock::now() + request.execution_time() + GRACE;
        if content_type.starts_with("multipart/form-data") {
            let form = body.read_all(MAX_TEXT).await?;
            request.absorb(multipart_fields(&content_type, &form)?)?;
        }
        request.tenant = header(http.headers(), &TENANT).or(request.tenant);
        request.database = request.database.or_else(|| header(http.headers(), &DATABASE_HEADER));
        request.default_format = request.default_format.or_else(|| header(http.headers(), &FORMAT_HEADER));
        if let Some(id) = &request.query_id {
            reply.query_id.clone_from(id);
        }
        let (statement, text) = read_statement(&mut request, &mut body).await?;
        guarded(request.tenant.as_deref(), &text)?;
        if matches!(statement, Statement::Insert { .. }) {
            request.tenant = None;
            request.inserts = true;
        }
        let deadline = clock::now() + request.execution_time() + GRACE;
        body.deadline = deadline;
        let read_only = http.method() == Method::GET;
        self.run(request, statement, text, body, (read_only, deadline), reply).await.map(Some)
    }

    async fn run(
        &self,
        request: Request,
        statement: Statement,
        text: Vec<u8>,
        body: Body,
        (read_only, deadline): (bool, Instant),
        reply: &mut Reply,
    ) -> Result<Output, Exception> {
        match statement {
            Statement::Insert { head, format, data_at } => {
                let (sender, data) = mpsc::channel(PIECES);
                let job = Job { request, read_only, work: Work::Insert { head, format, data }, deadline };
                let first = Bytes::from(text).slice(data_at..);
                let (result, fed) = join(self.pool.run(job), feed(first, body, sender)).await;
                // where the data were at fault the engine only knows that they broke off
                fed.and(result)
            }
            Statement::Other { format } => {
                let default = request.default_format.clone().unwrap_or_else(|| "TabSeparated".to_owned());
                reply.format = Some(format.unwrap_or_else(|| default.clone()));
                let work = Work::Query { text, format: default };
                self.pool.run(Job { request, read_only, work, deadline }).await
            }
        }
    }

    /// Header pair first, then Basic, then the URL, as ClickHouse looks for them.
    fn authenticate(&self, headers: &HeaderMap, request: &Request) -> Result<(), Exception> {
        let (user, key) = match (header(headers, &USER_HEADER), header(headers, &KEY_HEADER)) {
            (None, None) => basic(headers)
                .unwrap_or_else(|| (request.user.clone(), request.password.clone().unwrap_or_default())),
            (user, key) => (user, key.unwrap_or_default()),
        };
        let user = user.unwrap_or_else(|| USER.to_owned());
        let known = user == USER;
        let right: bool = key.as_bytes().ct_eq(self.secret.as_bytes()).into();
        if known && right {
            return Ok(());
        }
        Err(Exception::new(
            codes::AUTHENTICATION_FAILED,
            format_args!(
                "{user}: Authentication failed: password is incorrect, or there is no user with such name"
            ),
        ))
    }
}

/// Refuses what could lift the wall between tenants.
fn guarded(tenant: Option<&str>, text: &[u8]) -> Result<(), Exception> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(tenant) = tenant {
        if tenant.is_empty() || !tenant.chars().all(plain) {
            return Err(Exception::new(codes::ACCESS_DENIED, "that is no name of a tenant"));
        }
        guard::check(text).map_err(|why| Exception::new(codes::ACCESS_DENIED, why))?;
    } else if guard::names_engine_setting(text) {
        let why = format!("{} carries the tenant, no statement sets it", guard::ENGINE_SETTING);
        return Err(Exception::new(codes::ACCESS_DENIED, why));
    }
    Ok(())
}

/// The statement from the URL, the form or the beginning of the body. Data of an insert stay in the body as far as possible.
async fn read_statement(request: &mut Request, body: &mut Body) -> Result<(Statement, Vec<u8>), Exception> {
    let mut text = request.query.take().unwrap_or_default().into_bytes();
    if !text.is_empty() {
        let statement = inspect(&text)?;
        if matches!(statement, Statement::Insert { .. }) {
            return Ok((statement, text));
        }
        let rest = body.read_all(MAX_TEXT).await?;
        if rest.is_empty() {
            return Ok((statement, text));
        }
        text.push(b'\n');
        text.extend_from_slice(&rest);
        return Ok((inspect(&text)?, text));
    }
    while text.len() < MAX_HEAD
        && let Some(chunk) = body.next().await?
    {
        text.extend_from_slice(&chunk);
    }
    let statement = inspect(&text)?;
    if matches!(statement, Statement::Insert { .. }) {
        return Ok((statement, text));
    }
    text.extend_from_slice(&body.read_all(MAX_TEXT).await?);
    Ok((inspect(&text)?, text))
}

/// Moves the body into the insert. When the engine gave up, the rest is read and dropped, so that the client gets to the answer.
async fn feed(first: Bytes, mut body: Body, sender: mpsc::Sender<Piece>) -> Result<(), Exception> {
    let mut gathered = BytesMut::from(first.as_ref());
    let mut listening = true;
    while let Some(chunk) = body.next().await? {
        if !listening {
            continue;
        }
        gathered.extend_from_slice(&chunk);
        if gathered.len() >= PIECE {
            listening = body.within(sender.send(Piece::Data(gathered.split().freeze()))).await?.is_ok();
        }
    }
    if listening && !gathered.is_empty() {
        listening = body.within(sender.send(Piece::Data(gathered.freeze()))).await?.is_ok();
    }
    if listening {
        // an engine that has gone away in between reports its own error
        let _ = body.within(sender.send(Piece::End)).await?;
    }
    Ok(())
}

fn url_fields(http: &HttpRequest) -> Result<Vec<(String, Vec<u8>)>, Exception> {
    let fields = web::Query::<Vec<(String, String)>>::from_query(http.query_string())
        .map_err(|e| Exception::new(codes::BAD_ARGUMENTS, format_args!("the URL cannot be read: {e}")))?;
    Ok(fields.into_inner().into_iter().map(|(name, value)| (name, value.into_bytes())).collect())
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn basic(headers: &HeaderMap) -> Option<(Option<String>, String)> {
    let value = header(headers, &AUTHORIZATION)?;
    let decoded = BASE64_STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((Some(user.to_owned()), password.to_owned()))
}

/// What the answer says besides its body.
struct Reply {
    query_id: String,
    format: Option<String>,
}

impl Reply {
    fn success(&self, output: Output) -> HttpResponse {
        let s = output.stats;
        let summary = format!(
            r#"{{"read_rows":"{}","read_bytes":"{}","written_rows":"{}","written_bytes":"{}","total_rows_to_read":"0","result_rows":"{}","result_bytes":"{}","elapsed_ns":"{}"}}"#,
            s.read_rows,
            s.read_bytes,
            s.written_rows,
            s.written_bytes,
            s.result_rows,
            output.body.len(),
            s.elapsed_ns
        );
        let format = self.format.as_deref().unwrap_or("TabSeparated");
        HttpResponse::Ok()
            .insert_header((SUMMARY, summary))
            .insert_header((QUERY_ID, self.query_id.clone()))
            .insert_header((FORMAT, format))
            .insert_header((TIMEZONE, "UTC"))
            .insert_header((DISPLAY_NAME, "obtrace-engine"))
            .insert_header((CONTENT_TYPE, content_type(format)))
            .body(output.body)
    }

    fn failure(&self, exception: &Exception) -> HttpResponse {
        let status =
            StatusCode::from_u16(exception.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        response
            .insert_header((CODE, exception.code.to_string()))
            .insert_header((QUERY_ID, self.query_id.clone()))
            .insert_header((DISPLAY_NAME, "obtrace-engine"))
            .insert_header((CONTENT_TYPE, "text/plain; charset=UTF-8"));
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Basic realm=\"ClickHouse server HTTP API\""));
        }
        response.body(format!("{exception}\n"))
    }
}

fn content_type(format: &str) -> &'static str {
    match format {
        "TabSeparated" | "TSV" | "TabSeparatedWithNames" | "TSVWithNames" => {
            "text/tab-separated-values; charset=UTF-8"
        }
        "CSV" | "CSVWithNames" => "text/csv; charset=UTF-8; header=absent",
        "JSON" | "JSONCompact" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONCompactEachRow" => "application/x-ndjson; charset=UTF-8",
        "Pretty" | "Vertical" | "PrettyCompact" => "text/plain; charset=UTF-8",
        "ArrowStream" => "application/vnd.apache.arrow.stream",
        _ => "application/octet-stream",
    }
}
