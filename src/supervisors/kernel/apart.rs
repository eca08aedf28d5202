//! What an incarnation runs apart from its own thread (a server with its sockets), and how the next one ends it.
//!
//! An actor whose thread is blocked is left behind and never dropped, and what it runs apart goes on: its port stays
//! taken. So what runs apart is told to an [`Estate`] that all incarnations share, and each clears it before it begins.
//! What may fail: what is to be run, and the making of a thread.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How long the next incarnation of a server waits for the end of the last.
pub const CLEAR_WITHIN: Duration = Duration::from_secs(5);

/// How what an incarnation runs apart is ended.
type Ending = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// What the last incarnation of an actor runs apart. Shared by all of them.
#[derive(Clone, Default)]
pub struct Estate(Arc<Mutex<Option<Ending>>>);

impl Estate {
    /// Puts down how to end what this incarnation runs apart. Ending what has ended by itself must be harmless.
    pub fn leave<F>(&self, ending: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *self.0.lock() = Some(Box::new(move || ending().boxed()));
    }

    /// Ends what an earlier incarnation left. False where that took longer than `within`; it may go on then.
    pub async fn clear(&self, within: Duration) -> bool {
        let ending = self.0.lock().take();
        match ending {
            Some(ending) => tokio::time::timeout(within, ending()).await.is_ok(),
            None => true,
        }
    }
}

impl Estate {
    /// Ends what an earlier incarnation left, then runs the future that `make` makes on a thread of its own, under an actix
    /// system of its own, and puts down to end it by `ending`.
    ///
    /// # Errors
    /// Those of `make`, and of the thread.
    pub async fn host<T, F, E>(
        self,
        name: &str,
        make: impl FnOnce() -> io::Result<(T, F)> + Send + 'static,
        ending: impl FnOnce(T) -> E + Send + 'static,
    ) -> io::Result<Hosted<T>>
    where
        T: Clone + Send + 'static,
        F: Future<Output = io::Result<()>> + 'static,
        E: Future<Output = ()> + Send + 'static,
    {
        self.clear(CLEAR_WITHIN).await;
        let hosted = host(name, make).await?;
        let handle = hosted.handle.clone();
        self.leave(move || ending(handle));
        Ok(hosted)
    }
}

impl std::fmt::Debug for Estate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.lock().is_some() { "Estate(left)" } else { "Estate(clear)" })
    }
}

/// Something that runs on a thread of its own.
#[derive(Debug)]
pub struct Hosted<T> {
    /// By which it is told what to do.
    pub handle: T,
    /// How it ended; closed without a word where its thread panicked.
    pub end: oneshot::Receiver<io::Result<()>>,
}

/// Why what ran apart did not end in order.
pub fn trouble(end: Result<io::Result<()>, oneshot::error::RecvError>) -> Option<String> {
    match end {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("its thread panicked".to_owned()),
    }
}

/// Runs the future that `make` makes on a thread of its own, under an actix system of its own.
///
/// # Errors
/// Those of `make`, and of the thread.
async fn host<T, F>(
    name: &str,
    make: impl FnOnce() -> io::Result<(T, F)> + Send + 'static,
) -> io::Result<Hosted<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    let (made, begun) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            match make() {
                Err(error) => drop(made.send(Err(error))),
                Ok((handle, running)) => {
                    // Nobody who could end it is left: it does not begin.
                    if made.send(Ok(handle)).is_ok() {
                        ended.send(running.await).ok();
                    }
                }
            }
        });
    })?;
    let handle = begun.await.map_err(|_| io::Error::other("its thread ended before it began"))??;
    Ok(Hosted { handle, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    /// A server of sorts, which has its port until it is told to end.
    async fn server(address: SocketAddr) -> io::Result<Hosted<(SocketAddr, oneshot::Sender<()>)>> {
        host("server", move || {
            let listener = TcpListener::bind(address)?;
            let (stop, stopped) = oneshot::channel();
            let handle = (listener.local_addr()?, stop);
            let running = async move {
                let _port = listener;
                stopped.await.ok();
                Ok(())
            };
            Ok((handle, running))
        })
        .await
    }

    #[tokio::test]
    async fn what_one_left_is_ended_by_the_next_and_its_port_is_free() {
        let estate = Estate::default();
        assert!(estate.clear(Duration::ZERO).await, "nothing was left");
        let first = server(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, stop) = first.handle;
        estate.leave(|| async {
            stop.send(()).ok();
            first.end.await.unwrap().unwrap();
        });
        let taken = server(address).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(estate.clear(Duration::from_secs(10)).await);
        let second = server(address).await.unwrap();
        assert_eq!(second.handle.0, address);
        drop(second.handle);
        assert!(second.end.await.unwrap().is_ok(), "nobody is left to tell it anything");
    }

    #[tokio::test]
    async fn what_does_not_end_is_not_waited_for() {
        let estate = Estate::default();
        estate.leave(std::future::pending);
        assert!(!estate.clear(Duration::from_millis(20)).await);
        assert!(estate.clear(Duration::ZERO).await, "it is tried once");
    }
}
