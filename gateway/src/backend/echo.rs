//! Echo servers: built in, for demos and tests, each on a free loopback port.
//!
//! In TCP mode one sends back what it gets. In HTTP mode it answers with what it was asked:
//! `/health` and everything else with 200, `/status/NNN` with that status, `/bytes/N` with so many bytes.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Mode;

/// An echo server that runs until this is dropped.
#[derive(Debug)]
#[must_use = "the server ends when this is dropped"]
pub struct Echo {
    _tasks: JoinSet<()>,
}

/// Starts an echo server on a free port of 127.0.0.1. Has to be called inside the control runtime.
pub fn start(mode: Mode, name: &str) -> io::Result<(SocketAddr, Echo)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, mode, name.into()));
    Ok((address, Echo { _tasks: tasks }))
}

async fn accept(listener: TcpListener, mode: Mode, name: Arc<str>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, mostly: some may be free again in a while.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // An answer in one piece does not wait for the acknowledgement of the piece before.
        let _ = stream.set_nodelay(true);
        let name = Arc::clone(&name);
        connections.spawn(async move {
            // How it ends is between the client and the socket.
            match mode {
                Mode::Tcp => drop(echo_bytes(stream).await),
                Mode::Http => echo_requests(stream, name).await,
            }
            drop(permit);
        });
    }
}

async fn echo_bytes(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let Ok(read) = timeout(SILENCE, stream.read(&mut buffer)).await else {
            return Ok(());
        };
        match read? {
            0 => return stream.shutdown().await,
            read => match timeout(SILENCE, stream.write_all(&buffer[..read])).await {
                Ok(written) => written?,
                Err(_) => return Ok(()),
            },
        }
    }
}

async fn echo_requests(stream: TcpStream, name: Arc<str>) {
    let service = service_fn(|request| answer(Arc::clone(&name), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .max_buf_size(MOST_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // How it ends is between the client and the socket.
    drop(connection.await);
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(name: Arc<str>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let (status, body) = if path == "/health" {
        (StatusCode::OK, text("ok\n".into()))
    } else if let Some(status) = path.strip_prefix("/status/").and_then(status) {
        (status, text(describe(&name, &parts, discard(body).await?)))
    } else if let Some(length) = path.strip_prefix("/bytes/").and_then(|length| length.parse().ok()) {
        (StatusCode::OK, Pattern::new(length).boxed())
    } else {
        (StatusCode::OK, text(describe(&name, &parts, discard(body).await?)))
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert("server", HeaderValue::from_static("echo"));
    Ok(answer)
}

/// What was asked, as text. Fields are in the order of their first appearance, names in lower case.
fn describe(name: &str, parts: &http::request::Parts, length: u64) -> String {
    let mut text = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "server: {name}\nrequest: {} {} {:?}",
        parts.method, parts.uri, parts.version
    );
    for (name, value) in &parts.headers {
        let _ = writeln!(text, "header: {name}: {}", value.as_bytes().escape_ascii());
    }
    let _ = writeln!(text, "body: {length} bytes");
    text
}

/// Reads a body to its end, holding none of it.
async fn discard(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

/// Statuses that end an exchange; 1xx do not.
fn status(text: &str) -> Option<StatusCode> {
    let status = text.parse::<u16>().ok().filter(|status| (200..=599).contains(status))?;
    StatusCode::from_u16(status).ok()
}

fn text(text: String) -> BoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed()
}

/// A body of so many bytes, made as it is read.
struct Pattern {
    left: u64,
}

impl Pattern {
    fn new(length: u64) -> Self {
        Self {
            left: length.min(MOST_BYTES),
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(PATTERN.len());
        if length == 0 {
            return Poll::Ready(None);
        }
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PATTERN[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Connections served at once; others wait in the listener's queue.
const MOST_CONNECTIONS: usize = 1024;

/// Bytes of a request's head.
const MOST_HEAD: usize = 64 * 1024;

/// Bytes that `/bytes/N` gives at most: a gigabyte is enough for any test.
const MOST_BYTES: u64 = 1 << 30;

/// A buffer of a TCP connection.
const BUFFER_SIZE: usize = 16 * 1024;

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(120);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/bytes/N` repeats.
static PATTERN: [u8; 16 * 1024] = [b'x'; 16 * 1024];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    async fn exchange(mode: Mode, bytes: &[u8]) -> String {
        let (address, _echo) = start(mode, "echo-1").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn bytes_come_back_and_so_does_the_end() {
        let sent = "bytes".repeat(10_000);
        let (address, _echo) = start(Mode::Tcp, "echo-1").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut from, mut to) = stream.split();
        let mut got = String::new();
        let (sending, receiving) = tokio::join!(
            async { to.write_all(sent.as_bytes()).await.and(to.shutdown().await) },
            from.read_to_string(&mut got)
        );
        sending.and(receiving).unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn a_request_is_described_and_the_connection_kept() {
        let request = "POST /a/b?c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nContent-Length: 5\r\nX-Two: \u{e9}\r\n\r\nhello";
        let answer = exchange(Mode::Http, request.repeat(2).as_bytes()).await;
        let described = "server: echo-1\nrequest: POST /a/b?c HTTP/1.1\nheader: host: x\nheader: x-one: 1\n\
                         header: content-length: 5\nheader: x-two: \\xc3\\xa9\nbody: 5 bytes\n";
        assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
        assert_eq!(answer.matches(described).count(), 2, "{answer}");
    }

    #[tokio::test]
    async fn paths_ask_for_statuses_and_bytes() {
        for (path, expected) in [
            ("/health", "HTTP/1.1 200 OK\r\n"),
            ("/status/404", "HTTP/1.1 404 Not Found\r\n"),
            ("/status/100", "HTTP/1.1 200 OK\r\n"),
            ("/status/1000", "HTTP/1.1 200 OK\r\n"),
            ("/bytes/x", "HTTP/1.1 200 OK\r\n"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = exchange(Mode::Http, request.as_bytes()).await;
            assert!(answer.starts_with(expected), "{path}: {answer}");
        }
        let answer = exchange(
            Mode::Http,
            b"GET /bytes/100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 100000"), "{head}");
        assert!(body.len() == 100_000 && body.bytes().all(|byte| byte == b'x'));
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
        request.resize(MOST_HEAD * 2, b'x');
        let (address, _echo) = start(Mode::Http, "echo-1").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may close while this is being sent.
        let _ = stream.write_all(&request).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
}
