//! A client's connection as it was accepted. The runtime watches none that may not need it: one that carries a single request,
//! which is there when it is looked for, and an answer that fits into the socket's buffer, lives and ends without ever having been
//! waited for, and to have it watched costs two system calls and a place in the reactor.
//!
//! Whoever [looks](Accepted::poll_look) and finds nothing has nobody who wakes him: he has it watched before he waits, or comes
//! back by himself. Everything else that waits here sees to that by itself.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;

use crate::stream::Stream;
use crate::telemetry::pace::Pace;

/// A client's connection.
#[derive(Debug)]
pub struct Accepted(State);

/// What a client has sent that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something.
    More,
    /// The end of its half of the connection, or of all of it.
    End,
}

#[derive(Debug)]
enum State {
    /// Nobody but the system knows of it.
    Fresh(Fresh),
    /// The runtime wakes whoever waits for it.
    Watched(Stream),
    /// Its descriptor has been given back.
    Closed,
}

/// A connection that nobody watches.
#[derive(Debug)]
struct Fresh {
    socket: OwnedFd,
    /// All that had come when this turn began has been read.
    is_drained: bool,
}

impl Accepted {
    /// A connection that nobody watches yet. It does not block.
    pub const fn fresh(socket: OwnedFd) -> Self {
        Self(State::Fresh(Fresh {
            socket,
            is_drained: false,
        }))
    }

    /// Whether nobody watches it.
    pub const fn is_fresh(&self) -> bool {
        matches!(self.0, State::Fresh(_))
    }

    /// For its options; none when it is closed.
    pub fn options(&self) -> Option<SockRef<'_>> {
        match &self.0 {
            State::Fresh(fresh) => Some((&fresh.socket).into()),
            State::Watched(stream) => Some(stream.tcp().into()),
            State::Closed => None,
        }
    }

    /// Which of the machine's addresses the client has connected to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let socket = self.options().ok_or(io::ErrorKind::NotConnected)?;
        socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::NotConnected.into())
    }

    /// Whether nothing is between its bytes and the socket.
    pub fn is_plain(&self) -> bool {
        match &self.0 {
            State::Watched(stream) => !stream.is_tls(),
            State::Fresh(_) | State::Closed => true,
        }
    }

    /// Time has passed: more may have come.
    pub const fn turn(&mut self) {
        if let State::Fresh(fresh) = &mut self.0 {
            fresh.is_drained = false;
        }
    }

    /// Reads what has come. As long as nobody watches it, the system is asked until it has no more, and not again before the next
    /// [turn](Self::turn).
    pub fn poll_look(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Fresh(fresh) => fresh.look(buf),
            State::Watched(stream) => Pin::new(stream).poll_read(cx, buf),
            State::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Whether its end has come, asked where nobody reads. Whoever calls is woken when there is something to read; while that is there,
    /// nobody is told of an end behind it, and it is [`Next::More`]. Of what nobody watches, and of TLS, nothing is known. What could
    /// not be watched has ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let tcp = match &mut self.0 {
            State::Watched(Stream::Plain(tcp)) => tcp,
            State::Watched(Stream::Tls(_)) | State::Fresh(_) => return Poll::Pending,
            State::Closed => return Poll::Ready(Next::End),
        };
        let mut byte = [MaybeUninit::uninit()];
        let looked = ready!(tcp.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)));
        Poll::Ready(match looked {
            Ok(1..) => Next::More,
            Ok(0) | Err(_) => Next::End,
        })
    }

    /// Whether something is known to have come that nobody has read, and that is not TLS. To close a connection over that is to reset it
    /// (RFC 9112, section 9.6).
    pub fn has_unread(&mut self, cx: &mut Context<'_>) -> bool {
        match &self.0 {
            State::Fresh(fresh) => fresh.has_unread(),
            State::Watched(_) | State::Closed => {
                let look = poll_fn(|cx| self.poll_next(cx));
                // Unconstrained: a task that has written much in this turn would be told that nothing is known.
                pin!(unconstrained(look)).poll(cx) == Poll::Ready(Next::More)
            }
        }
    }

    /// Has it watched, and wakes whoever calls when it can be read: by what comes from now on as by what is there already.
    pub fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.is_fresh() {
            return Ok(());
        }
        if let Stream::Plain(tcp) = self.stream()?
            && tcp.poll_read_ready(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// The stream, watched. None of those who have looked is told of what they found missing.
    pub fn stream(&mut self) -> io::Result<&mut Stream> {
        if self.is_fresh()
            && let State::Fresh(fresh) = std::mem::replace(&mut self.0, State::Closed)
        {
            let watched = TcpStream::from_std(StdStream::from(fresh.socket)).inspect_err(|error| {
                if let Some(left_out) = UNWATCHED.take() {
                    tracing::warn!(%error, left_out, "a connection ends, as the system watches no more of them");
                }
            });
            self.0 = State::Watched(Stream::Plain(watched?));
        }
        match &mut self.0 {
            State::Watched(stream) => Ok(stream),
            State::Fresh(_) | State::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The same, for whoever goes on with that.
    pub fn into_stream(mut self) -> io::Result<Stream> {
        self.stream()?;
        match self.0 {
            State::Watched(stream) => Ok(stream),
            State::Fresh(_) | State::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The connection without TLS, for whoever reads what comes before its protocol.
    pub fn tcp(&mut self) -> io::Result<&mut TcpStream> {
        match self.stream()? {
            Stream::Plain(tcp) => Ok(tcp),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The same, for whoever goes on with that.
    pub fn into_tcp(self) -> io::Result<TcpStream> {
        match self.into_stream()? {
            Stream::Plain(tcp) => Ok(tcp),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Writes the last bytes of the connection, which leave together with its end. Whoever calls shuts it down at once.
    pub fn poll_write_last(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.try_send(bufs, SendFlags::MORE) {
            Some(result) => result,
            None => {
                self.watch(cx)?;
                self.stream()?.poll_write_last(cx, bufs)
            }
        }
    }

    /// Ends what is written, where something is to be read yet.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Fresh(fresh) => Poll::Ready(match shutdown(&fresh.socket, Shutdown::Write) {
                // The client was faster.
                Err(Errno::NOTCONN) => Ok(()),
                ended => Ok(ended?),
            }),
            State::Watched(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Sends as much as there is room for; none where that has to be waited for, or is seen to by the runtime.
    fn try_send(&mut self, bufs: &[IoSlice<'_>], flags: SendFlags) -> Option<Poll<io::Result<usize>>> {
        let fresh = match &mut self.0 {
            State::Fresh(fresh) => fresh,
            State::Watched(_) => return None,
            State::Closed => return Some(Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))),
        };
        let flags = flags | SendFlags::NOSIGNAL;
        loop {
            let sent = match bufs {
                [one] => send(&fresh.socket, one, flags),
                _ => sendmsg(&fresh.socket, bufs, &mut SendAncillaryBuffer::default(), flags),
            };
            match sent {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                sent => return Some(Poll::Ready(sent.map_err(Into::into))),
            }
        }
    }
}

impl From<Stream> for Accepted {
    fn from(stream: Stream) -> Self {
        Self(State::Watched(stream))
    }
}

impl Fresh {
    fn look(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_drained {
            return Poll::Pending;
        }
        let mut room = [MaybeUninit::uninit(); ROOM];
        let room = &mut room[..buf.remaining().min(ROOM)];
        let most = room.len();
        loop {
            match recv(&self.socket, &mut *room, RecvFlags::empty()) {
                Ok(((came, _), length)) => {
                    // Less than there was room for is all that there was; and of an end there is no end.
                    self.is_drained = 0 < length && length < most;
                    buf.put_slice(came);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => {
                    self.is_drained = true;
                    return Poll::Pending;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Whether something has come that nobody has read. To close a connection over that is to reset it, and what was written last
    /// would be lost with what the kernel holds of it (RFC 9112, section 9.6).
    fn has_unread(&self) -> bool {
        let mut room = [MaybeUninit::<u8>::uninit(); 1];
        matches!(recv(&self.socket, &mut room[..], RecvFlags::PEEK), Ok((_, 1..)))
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let looked = this.poll_look(cx, buf);
        if looked.is_pending() {
            this.watch(cx)?;
        }
        looked
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.try_send(&[IoSlice::new(buf)], SendFlags::empty()) {
            Some(result) => result,
            None => {
                this.watch(cx)?;
                Pin::new(this.stream()?).poll_write(cx, buf)
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.try_send(bufs, SendFlags::empty()) {
            Some(result) => result,
            None => {
                this.watch(cx)?;
                Pin::new(this.stream()?).poll_write_vectored(cx, bufs)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            State::Watched(stream) => stream.is_write_vectored(),
            State::Fresh(_) | State::Closed => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            State::Watched(stream) => Pin::new(stream).poll_flush(cx),
            State::Fresh(_) | State::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Ends the connection. One that nobody watches, and of which nothing is left to read, is closed: that tells the client the same
    /// as the end of what is written, and there is nothing more to do for it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &this.0 {
            State::Fresh(fresh) if !fresh.has_unread() => {
                this.0 = State::Closed;
                Poll::Ready(Ok(()))
            }
            _ => this.poll_end(cx),
        }
    }
}

/// Lines about connections that could not be watched.
static UNWATCHED: LazyLock<Pace> = LazyLock::new(Pace::default);

/// Bytes read at once, on the stack: as many as the first read of a head has room for.
const ROOM: usize = 8 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    /// A client and its connection as it was accepted.
    async fn pair() -> (TcpStream, Accepted) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        (client, Accepted::fresh(accepted.into()))
    }

    /// Waits until what the client has sent is there, without reading it.
    fn arrived(accepted: &Accepted) {
        let State::Fresh(fresh) = &accepted.0 else { return };
        let mut room = [MaybeUninit::<u8>::uninit(); 1];
        while matches!(recv(&fresh.socket, &mut room[..], RecvFlags::PEEK), Err(Errno::AGAIN)) {
            std::thread::yield_now();
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(30), future).await.unwrap()
    }

    fn look(accepted: &mut Accepted) -> Poll<Vec<u8>> {
        let mut room = [0; 100];
        let mut buf = ReadBuf::new(&mut room);
        let mut cx = Context::from_waker(Waker::noop());
        let looked = accepted.poll_look(&mut cx, &mut buf);
        looked.map(|looked| {
            looked.unwrap();
            buf.filled().to_vec()
        })
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken {
        times: AtomicUsize,
        notify: Notify,
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.times.fetch_add(1, Ordering::Relaxed);
            self.notify.notify_one();
        }
    }

    #[tokio::test]
    async fn a_turn_asks_the_system_until_it_has_no_more() {
        let (mut client, mut accepted) = pair().await;
        assert_eq!(look(&mut accepted), Poll::Pending);
        client.write_all(b"one").await.unwrap();
        arrived(&accepted);
        assert_eq!(look(&mut accepted), Poll::Pending, "in the same turn");
        accepted.turn();
        assert_eq!(look(&mut accepted), Poll::Ready(b"one".to_vec()));
        client.write_all(b"two").await.unwrap();
        client.shutdown().await.unwrap();
        arrived(&accepted);
        accepted.turn();
        assert_eq!(look(&mut accepted), Poll::Ready(b"two".to_vec()));
        accepted.turn();
        while look(&mut accepted).is_pending() {
            accepted.turn();
        }
        assert_eq!(look(&mut accepted), Poll::Ready(vec![]), "an end stays one");
        assert!(accepted.is_fresh());
    }

    #[tokio::test]
    async fn what_comes_between_a_look_and_the_watch_wakes() {
        let (mut client, mut accepted) = pair().await;
        assert_eq!(look(&mut accepted), Poll::Pending);
        client.write_all(b"late").await.unwrap();
        arrived(&accepted);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        accepted.watch(&mut Context::from_waker(&waker)).unwrap();
        soon(woken.notify.notified()).await;
        let mut room = [0; 4];
        accepted.read_exact(&mut room).await.unwrap();
        assert_eq!(&room, b"late");
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let (mut client, mut accepted) = pair().await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut room = [0; 100];
        let mut buf = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut accepted).poll_read(&mut Context::from_waker(&waker), &mut buf);
        assert!(polled.is_pending());
        client.write_all(b"hello").await.unwrap();
        soon(woken.notify.notified()).await;
        assert_eq!(woken.times.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn whoever_has_looked_and_then_waits_to_write_is_woken_by_both() {
        let (mut client, mut accepted) = pair().await;
        assert_eq!(look(&mut accepted), Poll::Pending);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let much = vec![b'x'; 64 * 1024];
        let mut written = 0;
        let mut cx = Context::from_waker(&waker);
        // Once it is watched it is not known to have room before the runtime says so.
        for _ in 0..1000 {
            while let Poll::Ready(n) = Pin::new(&mut accepted).poll_write(&mut cx, &much) {
                written += n.unwrap();
            }
            assert!(!accepted.is_fresh());
            tokio::task::yield_now().await;
        }
        let before = woken.times.load(Ordering::Relaxed);
        client.write_all(b"!").await.unwrap();
        while woken.times.load(Ordering::Relaxed) == before {
            soon(woken.notify.notified()).await;
        }
        let before = woken.times.load(Ordering::Relaxed);
        let mut taken = vec![0; written];
        client.read_exact(&mut taken).await.unwrap();
        while woken.times.load(Ordering::Relaxed) == before {
            soon(woken.notify.notified()).await;
        }
    }

    #[tokio::test]
    async fn what_nobody_reads_is_told_from_an_end() {
        let (mut client, mut accepted) = pair().await;
        accepted.stream().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(accepted.poll_next(&mut cx), Poll::Pending);
        assert!(!accepted.has_unread(&mut cx));
        client.write_all(b"ab").await.unwrap();
        for _ in 0..2 {
            assert_eq!(soon(poll_fn(|cx| accepted.poll_next(cx))).await, Next::More);
            assert!(accepted.has_unread(&mut cx), "it stays there");
        }
        accepted.stream().unwrap().read_exact(&mut [0; 2]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(soon(poll_fn(|cx| accepted.poll_next(cx))).await, Next::End);
        assert!(!accepted.has_unread(&mut cx));
    }

    /// Answers, and ends the connection as a server does.
    async fn answer(accepted: &mut Accepted) {
        let bufs = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        let written = poll_fn(|cx| accepted.poll_write_last(cx, &bufs)).await;
        assert_eq!(written.unwrap(), 8);
        poll_fn(|cx| Pin::new(&mut *accepted).poll_shutdown(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_written_last_comes_with_the_end() {
        let (mut client, mut accepted) = pair().await;
        assert_eq!(look(&mut accepted), Poll::Pending);
        answer(&mut accepted).await;
        assert!(matches!(accepted.0, State::Closed), "nothing is left to do");
        let mut taken = Vec::new();
        client.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken, b"headbody");
        assert_eq!(look(&mut accepted), Poll::Ready(vec![]));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(accepted.poll_next(&mut cx), Poll::Ready(Next::End));
        let written = pin!(accepted.write(b"more")).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn unread_bytes_do_not_take_what_was_written_last() {
        let (mut client, mut accepted) = pair().await;
        client.write_all(b"unread").await.unwrap();
        arrived(&accepted);
        answer(&mut accepted).await;
        assert!(!matches!(accepted.0, State::Closed), "that would reset it");
        assert!(accepted.has_unread(&mut Context::from_waker(Waker::noop())));
        let mut taken = [0; 8];
        client.read_exact(&mut taken).await.unwrap();
        assert_eq!(&taken, b"headbody");
        assert_eq!(client.read(&mut taken).await.unwrap(), 0, "and the end");
    }
}
