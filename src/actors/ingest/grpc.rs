//! The OTLP gRPC listener: takes export calls as raw bytes, so that decoding happens on the receivers' threads.
//!
//! In: `Export` calls on the configured port. Out: requests through the [`Door`]; answers as the OTLP specification
//! wants them. What may fail: the port being taken (a configuration error); each call on its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext};
use bytes::{Buf, BufMut, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::door::{Door, Export, rejected_of, status_of};
use super::session::Connection;
use super::wire::{Peer, SessionStream};
use crate::domain::auth::{Grant, key_from_headers};
use crate::domain::envelope::WireFormat;
use crate::domain::failure::FailureClass;
use crate::domain::refusal::Refusal;
use crate::domain::signal::Signal;
use crate::supervisors::kernel::apart::{CLEAR_WITHIN, Estate};
use crate::supervisors::kernel::probe::Probe;
use crate::supervisors::kernel::seat::{Seat, Seated, Worker};
use crate::wire::compress::Encoding;
use crate::wire::response;

/// Streams a client may have open on one connection.
const MAX_STREAMS: u32 = 256;

/// The actor that owns the gRPC listener.
pub struct GrpcListener {
    address: SocketAddr,
    door: Door,
    io: Handle,
    estate: Estate,
    running: Option<Running>,
}

struct Running {
    stop: Option<oneshot::Sender<()>>,
    task: AbortHandle,
}

impl GrpcListener {
    /// A listener for `address`; its connections are served on the runtime `io`. `estate` is that of all its incarnations.
    pub fn new(address: SocketAddr, door: Door, io: Handle, estate: Estate) -> Self {
        Self { address, door, io, estate, running: None }
    }

    fn bind(&self) -> std::io::Result<std::net::TcpListener> {
        let listener = std::net::TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    fn serve(&mut self, listener: std::net::TcpListener, ctx: &mut Seated<Self>) -> std::io::Result<()> {
        let _on_io = self.io.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel();
        let (ended, end) = oneshot::channel::<String>();
        let desk = self.door.desk.clone();
        let service = ExportService { door: self.door.clone() };
        let task = self.io.spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let incoming = incoming.map(move |tcp| tcp.map(|tcp| SessionStream::new(tcp, &desk)));
            let signal = async { drop(stopped.await) };
            let server = tonic::transport::Server::builder()
                .max_concurrent_streams(MAX_STREAMS)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)));
            let result = server.serve_with_incoming_shutdown(service, incoming, signal).await;
            // The receiver is gone only when the actor is.
            ended.send(result.err().map_or_else(String::new, |error| error.to_string())).ok();
        });
        self.running = Some(Running { stop: Some(stop), task: task.abort_handle() });
        self.estate.leave(|| async move {
            task.abort();
            // Aborted or ended: either way its port is free.
            task.await.ok();
        });
        ctx.spawn(wrap_future(end).map(|end, seat: &mut Seat<Self>, ctx| {
            if let Some(error) = end.ok().filter(|text: &String| !text.is_empty()) {
                seat.probe().fail(FailureClass::Bug, format!("the gRPC server ended: {error}"));
            }
            ctx.stop();
        }));
        Ok(())
    }
}

impl Worker for GrpcListener {
    fn started(&mut self, _probe: &Probe, ctx: &mut Seated<Self>) {
        let estate = self.estate.clone();
        let cleared = async move { estate.clear(CLEAR_WITHIN).await };
        ctx.spawn(wrap_future(cleared).map(|_, seat: &mut Seat<Self>, ctx| {
            let opened = seat.worker.bind().and_then(|listener| seat.worker.serve(listener, ctx));
            match opened {
                Ok(()) => seat.probe().ready(),
                Err(error) => {
                    let address = seat.worker.address;
                    seat.probe().fail(
                        FailureClass::Config,
                        format!(
                            "cannot listen for OTLP gRPC on {address}: {error}; set another ingest.otlp_grpc"
                        ),
                    );
                    ctx.stop();
                }
            }
        }));
    }

    /// Takes no new connections, lets open calls finish, then the server's end stops the actor.
    fn drain(&mut self, _probe: &Probe, _reads_lane: bool, ctx: &mut Seated<Self>) {
        match &mut self.running {
            Some(running) => drop(running.stop.take().map(|stop| stop.send(()))),
            None => ctx.stop(),
        }
    }
}

impl Drop for GrpcListener {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

/// Dispatches the three export methods by path.
#[derive(Clone)]
struct ExportService {
    door: Door,
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tower_service::Service<http::Request<Body>> for ExportService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let door = self.door.clone();
        let signal = match request.uri().path() {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
            other => {
                let text = format!(
                    "there is no method {other}: Obtrace serves the OTLP trace, logs and metrics services"
                );
                return Box::pin(async { Ok(Status::unimplemented(text).into_http()) });
            }
        };
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(door.max_message());
            Ok(grpc.unary(ExportCall { door, signal }, request).await)
        })
    }
}

struct ExportCall {
    door: Door,
    signal: Signal,
}

impl UnaryService<Bytes> for ExportCall {
    type Response = Bytes;
    type Future = Answer<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (door, signal) = (self.door.clone(), self.signal);
        Box::pin(async move {
            let refused = |refusal: Refusal| to_status(&refusal);
            let session = session_of(&request).map_err(refused)?;
            let grant = admit(&door, &session, &request).map_err(refused)?;
            let export = Export {
                signal,
                trace_context: text(request.metadata(), "traceparent").map(str::to_owned),
                body: request.into_inner(),
                format: WireFormat::Otlp,
                encoding: Encoding::Identity,
            };
            match door.take(&session, export, grant).await {
                Ok(accepted) => Ok(Response::new(Bytes::from(response::encode(
                    signal,
                    WireFormat::Otlp,
                    rejected_of(&accepted),
                )))),
                Err(refusal) => Err(to_status(&refusal)),
            }
        })
    }
}

/// The session of the connection that a request came in by.
fn session_of<T>(request: &Request<T>) -> Result<Arc<Connection>, Refusal> {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(
        || Err(Refusal::unavailable("the connection has no session")),
        |peer| peer.session.clone(),
    )
}

fn admit<T>(door: &Door, session: &Connection, request: &Request<T>) -> Result<Grant, Refusal> {
    let metadata = request.metadata();
    let key = key_from_headers(text(metadata, "authorization"), text(metadata, "x-api-key"));
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    door.admit(session, key, peer.map(|address| address.ip()))
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).and_then(|value| value.to_str().ok())
}

/// The refusal as a gRPC status, with its `google.rpc.Status` details where it is retryable.
fn to_status(refusal: &Refusal) -> Status {
    let details = status_of(refusal).encode(WireFormat::Otlp);
    Status::with_details(Code::from_i32(refusal.grpc_code()), refusal.message(), Bytes::from(details))
}

/// Passes message bytes through as they are.
#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
