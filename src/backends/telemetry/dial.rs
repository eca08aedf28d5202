//! Connections to the store: an address in, a stream out, in the clear or in TLS. What may fail: the connection, the
//! handshake, a certificate that the system's or the named authorities do not vouch for.

use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use openssl::ssl::{SslConnector, SslMethod};
// Its TLS is that of any stream; nothing in it is particular to Postgres but the name.
use postgres_openssl::{TlsConnector, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::tls::TlsConnect;
use tower_service::Service;

use super::error::TelemetryError;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Dials addresses of `http://` and `https://`.
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector,
    tls: SslConnector,
    within: Duration,
}

/// A connection.
pub enum Wire {
    /// In the clear.
    Plain(TcpStream),
    /// In TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// A dialer that trusts the authorities of the system and those of `ca_file`; connecting and shaking hands may each
    /// take `within`.
    ///
    /// # Errors
    /// [`TelemetryError::Tls`] where the file cannot be used.
    pub fn new(ca_file: Option<&Path>, within: Duration) -> Result<Self, TelemetryError> {
        let fault =
            |what: String, error: openssl::error::ErrorStack| TelemetryError::Tls(format!("{what}: {error}"));
        let mut tls = SslConnector::builder(SslMethod::tls_client())
            .map_err(|error| fault("OpenSSL cannot be used".into(), error))?;
        if let Some(file) = ca_file {
            let what = || format!("telemetry.ca_file {} cannot be used", file.display());
            tls.set_ca_file(file).map_err(|error| fault(what(), error))?;
        }
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(within));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Ok(Self { tcp, tls: tls.build(), within })
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Wire>;
    type Error = Fault;
    type Future = BoxFuture<'static, Result<Self::Response, Fault>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (tls, within) = (self.tls.clone(), self.within);
        let connecting = self.tcp.call(address.clone());
        async move {
            let stream = connecting.await?.into_inner();
            if address.scheme() != Some(&Scheme::HTTPS) {
                return Ok(TokioIo::new(Wire::Plain(stream)));
            }
            let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
            let shaken = TlsConnector::new(tls.configure()?, host).connect(stream);
            let stream = timeout(within, shaken).await.map_err(|_| "the TLS handshake took too long")??;
            Ok(TokioIo::new(Wire::Tls(Box::new(stream))))
        }
        .boxed()
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    // Without these two the blocks of an insert would be copied together once more before they are sent.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
