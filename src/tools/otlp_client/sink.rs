//! A tiny OTLP endpoint for tests: takes exports over gRPC and HTTP on one port, answers as told, keeps what arrived.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};

use super::grpc::RawCodec;
use crate::domain::signal::Signal;

type Answer = dyn Fn(usize) -> Result<Bytes, Status> + Send + Sync;

/// Serves OTLP and remembers. HTTP answers map `Unavailable` to 503 with `retry-after: 0`, other errors to 400.
#[derive(Clone)]
pub(crate) struct Sink {
    /// Signal and (for gRPC decompressed) body of every export, the refused ones too.
    pub(crate) got: Arc<Mutex<Vec<(Signal, Bytes)>>>,
    /// `authorization` of every export.
    pub(crate) keys: Arc<Mutex<Vec<Option<String>>>>,
    answer: Arc<Answer>,
}

impl Sink {
    /// `answer` is asked with the number of the export, from 0.
    pub(crate) fn new(answer: impl Fn(usize) -> Result<Bytes, Status> + Send + Sync + 'static) -> Self {
        Self { got: Arc::default(), keys: Arc::default(), answer: Arc::new(answer) }
    }

    /// Serves on a free port until the runtime ends.
    pub(crate) async fn serve(&self) -> SocketAddr {
        self.serve_on("127.0.0.1:0".parse().unwrap()).await
    }

    /// Serves on this address until the runtime ends.
    pub(crate) async fn serve_on(&self, address: SocketAddr) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sink = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = sink.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| sink.clone().handle(request));
                    // A client that goes away ends its connection with an error; that is its affair.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        address
    }

    async fn handle(
        self,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let signal = match path.as_str() {
            p if p.contains("race") => Signal::Traces,
            p if p.contains("og") => Signal::Logs,
            _ => Signal::Metrics,
        };
        if path.starts_with("/v1/") {
            return Ok(self.http(signal, request).await);
        }
        let mut grpc = Grpc::new(RawCodec)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        Ok(grpc.unary(Unary(self, signal), request).await)
    }

    async fn http(
        &self,
        signal: Signal,
        request: http::Request<Incoming>,
    ) -> http::Response<tonic::body::Body> {
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (key, encoding) = (header("authorization"), header("content-encoding"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = match encoding.as_deref() {
            None => body,
            Some("gzip") => {
                let mut out = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut out).unwrap();
                out.into()
            }
            Some("zstd") => zstd::stream::decode_all(&body[..]).unwrap().into(),
            Some(other) => panic!("content-encoding {other}"),
        };
        let (status, body) = match self.take(signal, key, body) {
            Ok(body) => (200, body),
            Err(status) if status.code() == Code::Unavailable => {
                (503, Bytes::from(status.message().to_owned()))
            }
            Err(status) => (400, Bytes::from(status.message().to_owned())),
        };
        let response = http::Response::builder().status(status).header("retry-after", "0");
        response.body(tonic::body::Body::new(Full::new(body))).unwrap()
    }

    fn take(&self, signal: Signal, key: Option<String>, body: Bytes) -> Result<Bytes, Status> {
        self.keys.lock().push(key);
        let mut got = self.got.lock();
        got.push((signal, body));
        (self.answer)(got.len() - 1)
    }
}

struct Unary(Sink, Signal);

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let key = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).map(str::to_owned);
        ready(self.0.take(self.1, key, request.into_inner()).map(Response::new))
    }
}
