//! Clients that leave while nobody reads from them. Whoever serves a request looks for the end of its connection, and does not see it
//! once anything stands behind that request: whoever does not read that is not told of an end. The system knows of it all the same.

use std::future::pending;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// The watch for a client that leaves. Most connections never need one. There are few at once, as each takes a descriptor that others
/// may need: beyond that, and where the system gives none, it is noticed later, by timeouts.
#[derive(Default)]
pub(super) struct Hangup(Option<Watch>);

struct Watch {
    left: Pin<Box<dyn Future<Output = ()>>>,
    _place: Place,
}

/// One of those that may be watched at once.
struct Place;

impl Hangup {
    /// Ready when the client has closed its connection or its half of it, or has reset it; not to be asked again then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &TcpStream) -> Poll<()> {
        if self.0.is_none()
            && let Some(place) = Place::take()
        {
            self.0 = Some(Watch {
                left: Box::pin(left(stream.as_fd().try_clone_to_owned())),
                _place: place,
            });
        }
        match &mut self.0 {
            Some(watch) => watch.left.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Place {
    fn take() -> Option<Self> {
        let has_room = |taken| (taken < MOST).then_some(taken + 1);
        let taken = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room);
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the end of what comes. It has a descriptor of its own: of the connection's, whoever waits is told first that there is
/// something to read.
async fn left(socket: io::Result<OwnedFd>) {
    let watched = socket.and_then(|socket| TcpStream::from_std(StdStream::from(socket)));
    match watched {
        // The one interest that is about the end of what comes and not about its being there.
        Ok(socket) => drop(socket.ready(Interest::PRIORITY).await),
        // There is nothing left to watch it with. It is noticed later then, by timeouts.
        Err(_) => pending().await,
    }
}

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Half of the descriptors that are there for whatever comes up.
const MOST: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_end_is_told_from_what_comes_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b"what nobody reads").await.unwrap();
        stream.readable().await.unwrap();
        let mut hangup = Hangup::default();
        for _ in 0..2 {
            let polled = poll_fn(|cx| Poll::Ready(hangup.poll(cx, &stream))).await;
            assert!(polled.is_pending());
            // The reactor has its turn.
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        poll_fn(|cx| hangup.poll(cx, &stream)).await;
        assert_eq!(TAKEN.load(Ordering::Relaxed), 1);
        drop(hangup);
        assert_eq!(TAKEN.load(Ordering::Relaxed), 0);
    }
}
