//! What the relay asks of a stream beyond reading and writing: its socket.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::stream::Stream;

/// A stream that can be relayed.
pub trait Relayed: AsyncRead + AsyncWrite + Unpin {
    /// The TCP connection underneath, if there is one.
    fn tcp(&self) -> Option<&TcpStream>;

    /// The same, if the bytes on it are those that are relayed: then the kernel can move them. Nothing that was read from
    /// it may be held back in the stream.
    fn bare(&self) -> Option<&TcpStream>;
}

impl Relayed for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn bare(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Relayed for Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(Self::tcp(self))
    }

    fn bare(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

#[cfg(test)]
impl Relayed for tokio::io::DuplexStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }

    fn bare(&self) -> Option<&TcpStream> {
        None
    }
}
