//! Clients that leave while nobody reads from them. hyper looks for the end of a connection whose request is being served, but not
//! once anything stands behind that request: it reads no more then, and whoever does not read is not told of an end. The system
//! knows of it all the same.

use std::future::pending;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// The watch for a client that leaves. Most connections never need one.
#[derive(Default)]
pub(super) struct Hangup(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Hangup {
    /// Ready when the client has closed its connection or its half of it, or has reset it; not to be asked again then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &TcpStream) -> Poll<()> {
        let watch = self
            .0
            .get_or_insert_with(|| Box::pin(left(stream.as_fd().try_clone_to_owned())));
        watch.as_mut().poll(cx)
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
    }
}
