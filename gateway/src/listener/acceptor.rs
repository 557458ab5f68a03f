//! A socket that connections are accepted from, one that has them watched by the runtime, or one that leaves that to whoever serves
//! them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;

use crate::accepted::Accepted;
use crate::stream::Stream;

/// A socket that connections are accepted from.
#[derive(Debug)]
pub enum Acceptor {
    /// What is accepted is watched.
    Watching(TcpListener),
    /// What is accepted is [fresh](Accepted::fresh).
    Fresh(AsyncFd<StdListener>),
}

impl Acceptor {
    /// Of connections that are watched from the beginning.
    pub fn watching(socket: StdListener) -> io::Result<Self> {
        TcpListener::from_std(socket).map(Self::Watching)
    }

    /// Of connections that nobody watches.
    #[allow(
        deprecated,
        reason = "what takes its place is unsafe, for the sake of what does not keep its descriptor; a listener does"
    )]
    pub fn fresh(socket: StdListener) -> io::Result<Self> {
        AsyncFd::with_interest(socket, Interest::READABLE).map(Self::Fresh)
    }

    /// The next connection, and who it is from.
    pub async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        match self {
            Self::Watching(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Stream::Plain(stream).into(), peer))
            }
            Self::Fresh(socket) => socket.async_io(Interest::READABLE, accept).await,
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Watching(socket) => socket.local_addr(),
            Self::Fresh(socket) => socket.get_ref().local_addr(),
        }
    }

    /// For its options.
    pub fn options(&self) -> SockRef<'_> {
        match self {
            Self::Watching(socket) => socket.into(),
            Self::Fresh(socket) => socket.get_ref().into(),
        }
    }
}

fn accept(socket: &StdListener) -> io::Result<(Accepted, SocketAddr)> {
    let (accepted, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // Without an address its client has gone.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?.try_into()?;
    Ok((Accepted::fresh(accepted), peer))
}
