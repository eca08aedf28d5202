//! A TCP connection of the gRPC listener with its session: the stream that tonic reads, and what requests know of it.
//!
//! In: accepted sockets. Out: the same bytes. It ends for the reader when its session says so (idle), or soon after it
//! was turned away because there are too many connections: long enough to tell the client when to come back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::session::{Connection, SessionDesk};
use crate::domain::refusal::Refusal;

/// How long a connection that was turned away may hear so.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the requests of a connection know of it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address.
    pub address: Option<SocketAddr>,
    /// Its session, or why it has none.
    pub session: Result<Arc<Connection>, Refusal>,
}

/// A connection with its session.
pub struct SessionStream {
    tcp: TcpStream,
    peer: Peer,
    farewell: Option<Pin<Box<Sleep>>>,
}

impl SessionStream {
    /// Opens a session for an accepted connection.
    pub fn new(tcp: TcpStream, desk: &Arc<SessionDesk>) -> Self {
        let peer = Peer { address: tcp.peer_addr().ok(), session: desk.connect("grpc") };
        let farewell = peer.session.is_err().then(|| Box::pin(tokio::time::sleep(FAREWELL)));
        Self { tcp, peer, farewell }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let hung_up = self.peer.session.as_ref().is_ok_and(|session| session.line().is_hung_up(cx));
        hung_up || self.farewell.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready())
    }
}

impl Connected for SessionStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for SessionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            // No bytes: the end of the stream.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

impl std::fmt::Debug for SessionStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionStream({:?})", self.peer)
    }
}
