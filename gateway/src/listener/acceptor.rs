//! A socket that connections are accepted from, one that has them watched by the runtime, or one that leaves that to whoever serves
//! them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use socket2::{Domain, SockRef};
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
    /// A UNIX socket. What is accepted is fresh, too: the types of the standard library for TCP hold any stream's descriptor, but
    /// know no addresses other than IP's.
    Unix(AsyncFd<StdListener>),
}

impl Acceptor {
    /// Of connections that are watched from the beginning.
    pub fn watching(socket: StdListener) -> io::Result<Self> {
        match is_unix(&socket)? {
            true => Self::fresh(socket),
            false => TcpListener::from_std(socket).map(Self::Watching),
        }
    }

    /// Of connections that nobody watches.
    #[allow(
        deprecated,
        reason = "what takes its place is unsafe, for the sake of what does not keep its descriptor; a listener does"
    )]
    pub fn fresh(socket: StdListener) -> io::Result<Self> {
        let wrap = match is_unix(&socket)? {
            true => Self::Unix,
            false => Self::Fresh,
        };
        AsyncFd::with_interest(socket, Interest::READABLE).map(wrap)
    }

    /// The next connection, and who it is from; none where it came over a UNIX socket.
    pub async fn accept(&self) -> io::Result<(Accepted, Option<SocketAddr>)> {
        match self {
            Self::Watching(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Stream::Plain(stream).into(), Some(peer)))
            }
            Self::Fresh(socket) => socket.async_io(Interest::READABLE, accept).await,
            Self::Unix(socket) => socket.async_io(Interest::READABLE, accept_unix).await,
        }
    }

    /// Whether it is a UNIX socket.
    pub const fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Watching(socket) => socket.local_addr(),
            Self::Fresh(socket) | Self::Unix(socket) => socket.get_ref().local_addr(),
        }
    }

    /// For its options.
    pub fn options(&self) -> SockRef<'_> {
        match self {
            Self::Watching(socket) => socket.into(),
            Self::Fresh(socket) | Self::Unix(socket) => socket.get_ref().into(),
        }
    }
}

fn is_unix(socket: &StdListener) -> io::Result<bool> {
    Ok(SockRef::from(socket).domain()? == Domain::UNIX)
}

fn accept(socket: &StdListener) -> io::Result<(Accepted, Option<SocketAddr>)> {
    let (accepted, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // Without an address its client has gone.
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?.try_into()?;
    Ok((Accepted::fresh(accepted), Some(peer)))
}

fn accept_unix(socket: &StdListener) -> io::Result<(Accepted, Option<SocketAddr>)> {
    let accepted = accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    Ok((Accepted::fresh(accepted), None))
}
