//! How bytes are given to a socket. Packets are saved at the ends of a connection: what is written just before more follows, or
//! before the end, is held until then, so that it leaves together with that (`MSG_MORE`, see send(2)).
//!
//! Whoever holds bytes has to write more, or to close, at once; where that fails to come, the kernel sends them by itself after
//! 200 ms.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Writes what is held back until the next write, or the end.
pub fn poll_write_held(tcp: &TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    poll_send(tcp, cx, bufs, SendFlags::MORE | SendFlags::NOSIGNAL)
}

/// Has what is held leave now.
pub fn release(tcp: &TcpStream) {
    // Setting it does so, whether it was set or not (tcp(7), `TCP_NODELAY`). Of a socket that is broken nothing leaves.
    let _ = tcp.set_nodelay(true);
}

/// Whether the end of what the other side says is known to have come, right after a read that there was more room for: what the
/// system has told of a socket is forgotten then, but for its end. It is known without asking, and so may be known later only; and it may
/// be a reset.
pub fn is_ending(tcp: &TcpStream) -> bool {
    tcp.try_io(Interest::READABLE, || Ok(())).is_ok()
}

/// Writes several pieces in one call. Not with writev(2), as tokio does: that goes through the layer of files, which costs a
/// small message more than sockets do themselves.
pub fn poll_write(tcp: &mut TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
    match (filled.next(), filled.next()) {
        (Some(one), None) => Pin::new(tcp).poll_write(cx, one),
        _ => poll_send(tcp, cx, bufs, SendFlags::NOSIGNAL),
    }
}

fn poll_send(tcp: &TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>], flags: SendFlags) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let sending = || match bufs {
            [one] => Ok(send(tcp, one, flags)?),
            _ => Ok(sendmsg(tcp, bufs, &mut SendAncillaryBuffer::default(), flags)?),
        };
        match tcp.try_io(Interest::WRITABLE, sending) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// A TCP connection under TLS.
///
/// The tickets with which a handshake of TLS 1.3 ends are nothing that the client waits for: they leave with what is written
/// after them, most often a response.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    state: Cell<State>,
}

/// What is known of the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The handshake has written nothing.
    Silent,
    /// The handshake has written its first flight.
    Shaking,
    /// Nothing in particular.
    Open,
    /// More follows at once, or the end.
    Ending,
}

impl Socket {
    /// A connection on which a handshake is to be answered.
    pub const fn accepted(tcp: TcpStream) -> Self {
        Self {
            tcp,
            state: Cell::new(State::Silent),
        }
    }

    /// A connection of which nothing is held.
    pub const fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            state: Cell::new(State::Open),
        }
    }

    /// The handshake is over.
    pub fn open(&self) {
        self.state.set(State::Open);
    }

    /// What is written from now on is the last, and the end follows at once.
    pub fn ends(&self) {
        self.state.set(State::Ending);
    }

    /// The connection itself.
    pub const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The same, without what it would hold.
    pub fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    fn holds(&self, bufs: &[IoSlice<'_>]) -> bool {
        match self.state.get() {
            State::Silent => {
                self.state.set(State::Shaking);
                false
            }
            // Of the flights that end a handshake only that of TLS 1.3 begins with an encrypted record (RFC 8446,
            // section 5.1), and holds tickets only: for that of TLS 1.2 the client waits.
            State::Shaking => bufs.first().and_then(|buf| buf.first()) == Some(&APPLICATION_DATA),
            State::Open => false,
            State::Ending => true,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds(bufs) {
            return poll_write_held(&this.tcp, cx, bufs);
        }
        poll_write(&mut this.tcp, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

/// The content type of encrypted records.
const APPLICATION_DATA: u8 = 23;

/// Packets of a connection, counted by the system.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packets {
    pub(crate) sent: u32,
    pub(crate) received: u32,
}

#[cfg(test)]
impl Packets {
    /// Those of this connection by now.
    pub(crate) fn of(tcp: &impl std::os::fd::AsRawFd) -> Self {
        let mut facts = [0_u8; 144];
        let mut size = 144;
        #[allow(unsafe_code, reason = "neither socket2 nor rustix nor nix asks for TCP_INFO")]
        // SAFETY: getsockopt(2) writes no more than `size` bytes, and `facts` has as many.
        let done = unsafe {
            libc::getsockopt(
                tcp.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut facts).cast(),
                &raw mut size,
            )
        };
        assert_eq!((done, size), (0, 144), "{}", io::Error::last_os_error());
        // Where `struct tcp_info` of linux/tcp.h has tcpi_segs_out and tcpi_segs_in.
        let number = |at: usize| {
            facts[at..at + 4]
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        Self {
            sent: number(136),
            received: number(140),
        }
    }
}
