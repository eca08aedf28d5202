//! The OTLP HTTP listener: `POST /v1/traces`, `/v1/logs`, `/v1/metrics` in protobuf or JSON.
//!
//! In: HTTP requests on the configured port. Out: requests through the [`Door`]; every answer, refusals included, is
//! the message that the OTLP specification names, in the encoding of the request. What may fail: the port being taken
//! (a configuration error); each request on its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use actix_cors::Cors;
use actix_web::dev::ServerHandle;
use actix_web::http::{ConnectionType, Method, StatusCode, header};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::door::{Door, Export, rejected_of, status_of};
use super::session::Connection;
use crate::config::live::LiveConfig;
use crate::domain::auth::key_from_headers;
use crate::domain::envelope::WireFormat;
use crate::domain::failure::FailureClass;
use crate::domain::refusal::{Accepted, Refusal};
use crate::domain::signal::Signal;
use crate::supervisors::kernel::apart::{self, Estate, Hosted};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seat, Seated, Worker};
use crate::wire::compress::Encoding;
use crate::wire::response;

/// Time a client has to send a whole body.
const BODY_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// The session of a connection, or why it has none.
type OfConnection = Result<Arc<Connection>, Refusal>;

/// How the HTTP listener is set up.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// Threads that read requests and write answers.
    pub workers: usize,
}

/// The actor that owns the OTLP HTTP listener.
pub struct HttpListener {
    options: HttpOptions,
    door: Door,
    estate: Estate,
    server: Option<ServerHandle>,
}

impl HttpListener {
    /// A listener set up by `options`; `estate` is that of all its incarnations.
    pub fn new(options: HttpOptions, door: Door, estate: Estate) -> Self {
        Self { options, door, estate, server: None }
    }

    /// Has the server on a thread of its own, so that it can be ended whatever holds the actor's.
    fn open(&self) -> impl Future<Output = io::Result<Hosted<ServerHandle>>> + 'static {
        let (options, door, estate) = (self.options.clone(), self.door.clone(), self.estate.clone());
        let make = move || {
            let desk = door.desk.clone();
            let keep_alive = door.config.now().ingest.session_idle;
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(web::Data::new(door.clone()))
                    .wrap(cors(door.config.clone()))
                    .route("/v1/traces", web::post().to(traces))
                    .route("/v1/logs", web::post().to(logs))
                    .route("/v1/metrics", web::post().to(metrics))
                    .default_service(web::to(nothing_here))
            })
            .on_connect(move |_, connection| {
                // Dropped with the connection.
                connection.insert::<OfConnection>(desk.connect("http"));
            })
            .keep_alive(keep_alive)
            .workers(options.workers)
            .disable_signals()
            .shutdown_timeout(10)
            .bind(options.address)?
            .run();
            Ok((server.handle(), server))
        };
        estate.host("otlp-server", make, |server: ServerHandle| server.stop(false))
    }
}

impl Worker for HttpListener {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        ctx.spawn(wrap_future(self.open()).map(|opened, seat: &mut Seat<Self>, ctx| match opened {
            Ok(Hosted { handle, end }) => {
                seat.worker.server = Some(handle);
                ctx.spawn(wrap_future(end).map(|end, seat: &mut Seat<Self>, ctx| {
                    if let Some(why) = apart::trouble(end) {
                        seat.probe().fail(FailureClass::Bug, format!("the HTTP server ended: {why}"));
                    }
                    ctx.stop();
                }));
                seat.probe().ready();
            }
            Err(error) => {
                let address = seat.worker.options.address;
                seat.probe().fail(
                    FailureClass::Config,
                    format!(
                        "cannot listen for OTLP HTTP on {address}: {error}; set another ingest.otlp_http"
                    ),
                );
                ctx.stop();
            }
        }));
    }

    /// Takes no new connections, lets open requests finish, then the server's end stops the actor.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, ctx: &mut Seated<Self>) {
        match self.server.take() {
            Some(server) => drop(ctx.spawn(wrap_future(server.stop(true)))),
            None => ctx.stop(),
        }
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // Told already when this returns; its end is not waited for.
            drop(server.stop(false));
        }
    }
}

fn cors(config: LiveConfig) -> Cors {
    Cors::default()
        .allowed_methods(["POST"])
        .allow_any_header()
        .allowed_origin_fn(move |origin, _| {
            origin.to_str().is_ok_and(|origin| config.now().ingest.allows_origin(origin))
        })
        .max_age(7200)
}

async fn traces(request: HttpRequest, body: web::Payload, door: web::Data<Door>) -> HttpResponse {
    export(Signal::Traces, &request, body, &door).await
}

async fn logs(request: HttpRequest, body: web::Payload, door: web::Data<Door>) -> HttpResponse {
    export(Signal::Logs, &request, body, &door).await
}

async fn metrics(request: HttpRequest, body: web::Payload, door: web::Data<Door>) -> HttpResponse {
    export(Signal::Metrics, &request, body, &door).await
}

async fn export(signal: Signal, request: &HttpRequest, body: web::Payload, door: &Door) -> HttpResponse {
    let format = body_format(request);
    // What cannot be understood is answered in protobuf, OTLP's default.
    let answer_in = *format.as_ref().unwrap_or(&WireFormat::Otlp);
    let outcome = async {
        let key = key_from_headers(text(request, "authorization"), text(request, "x-api-key"));
        let session = session_of(request)?;
        let grant = door.admit(&session, key, request.peer_addr().map(|peer| peer.ip()))?;
        let format = format?;
        let encoding = Encoding::from_header(text(request, "content-encoding"))
            .map_err(|error| Refusal::Unsupported(error.to_string()))?;
        let body = read_body(request, body, door.max_body()).await?;
        let trace_context = text(request, "traceparent").map(str::to_owned);
        door.take(&session, Export { signal, body, format, encoding, trace_context }, grant).await
    };
    match outcome.await {
        Ok(accepted) => success(signal, answer_in, &accepted),
        Err(refusal) => {
            let mut answer = refused(answer_in, &refusal);
            if session_of(request).is_err() {
                // One connection too many: the next try is a new one.
                answer.head_mut().set_connection_type(ConnectionType::Close);
            }
            answer
        }
    }
}

/// The session of the connection that a request came in by.
fn session_of(request: &HttpRequest) -> OfConnection {
    let known = request.conn_data::<OfConnection>().cloned();
    known.unwrap_or_else(|| Err(Refusal::unavailable("the connection has no session")))
}

fn body_format(request: &HttpRequest) -> Result<WireFormat, Refusal> {
    let content_type = text(request, "content-type").unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => Ok(WireFormat::Otlp),
        "application/json" => Ok(WireFormat::Json),
        other => Err(Refusal::Unsupported(format!(
            "content-type {other:?} is not OTLP: send application/x-protobuf or application/json"
        ))),
    }
}

/// Reads the body, refusing it as soon as it is known to be too large.
async fn read_body(request: &HttpRequest, mut body: web::Payload, limit: usize) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::TooLarge(format!("the body is over the limit of {limit} bytes (ingest.max_body)"));
    let announced = text(request, "content-length").and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let read = async {
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(8 * 1024).min(1 << 20));
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| Refusal::BadData(format!("the body broke off: {error}")))?;
            if bytes.len() + chunk.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    let late = |_| Refusal::BadData(format!("the body was not complete after {BODY_DEADLINE:?}"));
    tokio::time::timeout(BODY_DEADLINE, read).await.map_err(late)?
}

fn success(signal: Signal, format: WireFormat, accepted: &Accepted) -> HttpResponse {
    let body = response::encode(signal, format, rejected_of(accepted));
    HttpResponse::Ok().content_type(content_type(format)).body(body)
}

fn content_type(format: WireFormat) -> &'static str {
    match format {
        WireFormat::Otlp => "application/x-protobuf",
        // No client speaks Avro.
        WireFormat::Json | WireFormat::Avro => "application/json",
    }
}

fn refused(format: WireFormat, refusal: &Refusal) -> HttpResponse {
    let code = StatusCode::from_u16(refusal.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(code);
    if let Some(after) = refusal.retry_after() {
        answer.insert_header((header::RETRY_AFTER, after.as_secs().max(1).to_string()));
    }
    answer.content_type(content_type(format)).body(status_of(refusal).encode(format))
}

async fn nothing_here(request: HttpRequest) -> HttpResponse {
    let known = matches!(request.path(), "/v1/traces" | "/v1/logs" | "/v1/metrics");
    let format = body_format(&request).unwrap_or(WireFormat::Json);
    if known && request.method() != Method::POST {
        let text = format!("{} is not offered here: send POST", request.method());
        let mut answer = refused(format, &Refusal::BadData(text));
        answer.head_mut().status = StatusCode::METHOD_NOT_ALLOWED;
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return answer;
    }
    let path = request.path();
    let text = format!("there is nothing at {path}: OTLP goes to /v1/traces, /v1/logs or /v1/metrics");
    let mut answer = refused(format, &Refusal::BadData(text));
    answer.head_mut().status = StatusCode::NOT_FOUND;
    answer
}

fn text<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}
