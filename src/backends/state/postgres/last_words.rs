//! A connection whose other side may have hung up: bytes go through as they are, but what it said before it went is read
//! before it is told that it has gone. A server that refuses our certificate says so and hangs up while we already write
//! on (TLS 1.3); by the failed write alone that would look like a connection that was lost. What fails: reading does.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use postgres_openssl::{MakeTlsConnector, TlsConnector, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

/// TLS over such connections.
#[derive(Clone)]
pub(super) struct Tls(pub(super) MakeTlsConnector);

/// The same for one host.
pub(super) struct TlsTo(TlsConnector);

/// The connection below TLS.
#[derive(Debug)]
pub(super) struct LastWords<S>(S);

/// What TLS asks of a connection.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Debug + Send + Sync + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Debug + Send + Sync + 'static> Wire for S {}

impl<S: Wire> MakeTlsConnect<S> for Tls {
    type Stream = TlsStream<LastWords<S>>;
    type TlsConnect = TlsTo;
    type Error = openssl::error::ErrorStack;

    fn make_tls_connect(&mut self, host: &str) -> Result<TlsTo, Self::Error> {
        MakeTlsConnect::<LastWords<S>>::make_tls_connect(&mut self.0, host).map(TlsTo)
    }
}

impl<S: Wire> TlsConnect<S> for TlsTo {
    type Stream = TlsStream<LastWords<S>>;
    type Error = <TlsConnector as TlsConnect<LastWords<S>>>::Error;
    type Future = <TlsConnector as TlsConnect<LastWords<S>>>::Future;

    fn connect(self, stream: S) -> Self::Future {
        self.0.connect(LastWords(stream))
    }
}

// === impl LastWords ===

impl<S: AsyncRead + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone =
            |error: &io::Error| [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
        match ready!(Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)) {
            // Nobody will have them, as if they had been lost on the way: who reads gets the last words, then the end.
            Err(error) if gone(&error) => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
