//! One TCP or TLS connection under a test's control, and the bounds on every wait.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::message::{Framing, Head};

/// How long anything may keep a test waiting before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for something that has to come; panics with `what` when it does not come within the limit.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing after {limit:?}"),
    }
}

/// Asks again and again until the answer is yes; panics with `what` when [`PATIENCE`] is at its end.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection: reads are buffered and, at a server, recorded.
pub struct Wire {
    stream: Stream,
    /// Read and not yet consumed.
    buffer: Vec<u8>,
    /// Everything that was read, up to [`TAP_LIMIT`].
    tap: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub(crate) fn new(stream: Stream, tap: Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            tap,
        }
    }

    /// Everything that was read so far, the first megabyte of it.
    pub fn seen(&self) -> Vec<u8> {
        self.tap.lock().unwrap().clone()
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timely("sending", self.stream.write_all(bytes.as_ref())).await?;
        timely("sending", self.stream.flush()).await
    }

    /// Reads exactly `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            if self.fill().await? == 0 {
                let got = self.buffer.len();
                return Err(io::Error::other(format!("end of stream after {got} of {n} bytes")));
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads at least one byte; nothing at the end of the stream.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads up to the end of the stream.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads and forgets up to `n` bytes; says how many came before the end of the stream.
    pub async fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut left = n;
        loop {
            let take = (self.buffer.len() as u64).min(left);
            self.buffer.drain(..take as usize);
            left -= take;
            if left == 0 || self.fill().await? == 0 {
                return Ok(n - left);
            }
        }
    }

    /// Sends bytes and meanwhile reads and forgets up to `n`: neither waits for the other.
    pub async fn send_and_skip(&mut self, bytes: &[u8], n: u64) -> io::Result<()> {
        let held = self.buffer.len().min(usize::try_from(n).unwrap());
        self.buffer.drain(..held);
        let (reader, mut writer) = tokio::io::split(&mut self.stream);
        let send = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        let skip = async {
            let mut thrown = tokio::io::sink();
            tokio::io::copy(&mut reader.take(n - held as u64), &mut thrown).await
        };
        timely("sending and reading", async { tokio::try_join!(send, skip) }).await?;
        Ok(())
    }

    /// Says that nothing more will be sent; reading goes on.
    pub async fn half_close(&mut self) -> io::Result<()> {
        timely("half-closing", self.stream.shutdown()).await
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        // Closing with a linger time of zero discards what is queued and sends RST.
        let _ = socket2::SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// The TCP socket beneath.
    pub fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Reads a message's head; none when the stream ends before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let raw = self.buffer.drain(..end + 4).collect();
                return Head::parse(raw).map(Some).map_err(io::Error::other);
            }
            if self.fill().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::other("end of stream inside a head")),
                };
            }
        }
    }

    /// Reads a message's content.
    pub(crate) async fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length as usize).await,
            Framing::UntilClose => self.rest().await,
            Framing::Chunked => self.chunks().await,
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("{line:?} is no chunk size")))?;
            if size == 0 {
                // Trailer fields, then an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            let end = self.exactly(2).await?;
            if end != b"\r\n" {
                return Err(io::Error::other(format!("a chunk ends in {end:?}")));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::Error::other("end of stream inside a line"));
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        // Not an array: it would be part of every future that reads, and those are moved about on small stacks.
        let before = self.buffer.len();
        self.buffer.reserve(READ_SIZE);
        let n = timely("reading", self.stream.read_buf(&mut self.buffer)).await?;
        let mut tap = self.tap.lock().unwrap();
        let room = TAP_LIMIT.saturating_sub(tap.len()).min(n);
        tap.extend_from_slice(&self.buffer[before..before + room]);
        Ok(n)
    }
}

/// TCP, or TLS over it.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

async fn timely<T>(doing: &str, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{doing}: nothing for {PATIENCE:?}"),
        )),
    }
}

/// A tap is for looking at what came when a test failed, not for keeping a gigabyte.
const TAP_LIMIT: usize = 1 << 20;

const READ_SIZE: usize = 64 * 1024;
