//! The admin listener: the stats page, the same as JSON, and `GET /metrics` for Prometheus; and the admin socket, where operators are
//! heard. They run on the control runtime, away from the workers.

mod commands;
mod page;
mod socket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::telemetry::metrics::{PUBLISH_INTERVAL, Registry};

pub use commands::is_refusal;
pub use socket::{AdminServer, AdminSocketError};

/// Admin listeners that run until this is dropped.
#[derive(Debug)]
#[must_use = "the listeners close when this is dropped"]
pub struct Admin {
    addresses: Vec<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Admin {
    /// Where it listens, with the ports that the system chose where none was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Binds and serves. Has to be called inside the control runtime; fails when an address cannot be bound.
pub fn serve(binds: &[SocketAddr], registry: &Arc<Registry>) -> io::Result<Admin> {
    let mut admin = Admin {
        addresses: Vec::new(),
        _tasks: JoinSet::new(),
    };
    for &bind in binds {
        let listener = std::net::TcpListener::bind(bind)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        admin.addresses.push(listener.local_addr()?);
        admin._tasks.spawn(accept(listener, Arc::clone(registry)));
    }
    admin._tasks.spawn(publish(Arc::clone(registry)));
    Ok(admin)
}

/// Keeps what a scrape has to do small, also for those who scrape once an hour.
async fn publish(registry: Arc<Registry>) {
    let mut ticks = interval(PUBLISH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.publish();
    }
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: some may be free again in a while.
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let registry = Arc::clone(&registry);
        connections.spawn(async move {
            serve_connection(stream, &registry).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, registry: &Registry) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(registry, &request)) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever does not read the answer does not hold a place for ever. How it ends otherwise is of no interest.
    drop(timeout(CONNECTION_TIMEOUT, connection).await);
}

fn answer(registry: &Registry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (kind, body) = match request.uri().path() {
        "/metrics" => (METRICS_TYPE, Page::Metrics),
        "/" => (HTML_TYPE, Page::Stats),
        "/stats.json" => (JSON_TYPE, Page::Json),
        _ => return plain(StatusCode::NOT_FOUND, "there are /, /stats.json and /metrics here\n"),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let body = match body {
        Page::Metrics => Bytes::from(registry.render()),
        Page::Stats => Bytes::from(page::html(&registry.stats())),
        Page::Json => match serde_json::to_vec(&registry.stats()) {
            Ok(json) => Bytes::from(json),
            Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n"),
        },
    };
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

enum Page {
    Metrics,
    Stats,
    Json,
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    response
}

const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const HTML_TYPE: &str = "text/html; charset=utf-8";

const JSON_TYPE: &str = "application/json";

const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Connections served at once: scrapers are few.
const MOST_CONNECTIONS: usize = 32;

/// Bytes and fields of a request's head: a scraper's is far smaller.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// For a request's head, and between two requests: longer than the usual time between two scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// For a connection as a whole. Scrapers open another without noticing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(bytes: &[u8]) -> String {
        let registry = Registry::new();
        registry.frontend("web").denied();
        let admin = serve(&[SocketAddr::from(([127, 0, 0, 1], 0))], &registry).unwrap();
        let mut stream = TcpStream::connect(admin.addresses()[0]).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn requests_get_what_they_should() {
        for (line, expected) in [
            ("GET / HTTP/1.1", "HTTP/1.1 200 OK"),
            ("GET /metrics HTTP/1.1", "HTTP/1.1 200 OK"),
            ("GET /metrics?x=1 HTTP/1.0", "HTTP/1.0 200 OK"),
            ("HEAD /metrics HTTP/1.1", "HTTP/1.1 200 OK"),
            ("POST /metrics HTTP/1.1", "HTTP/1.1 405 Method Not Allowed"),
            ("DELETE / HTTP/1.1", "HTTP/1.1 405 Method Not Allowed"),
            ("GET /metrics/ HTTP/1.1", "HTTP/1.1 404 Not Found"),
            ("GET /%2e%2e/etc/passwd HTTP/1.1", "HTTP/1.1 404 Not Found"),
            ("nonsense", "HTTP/1.1 400 Bad Request"),
        ] {
            let answer = ask(format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
            assert!(answer.starts_with(expected), "{line}: {answer}");
        }
    }

    #[tokio::test]
    async fn metrics_are_in_the_text_format() {
        let answer = ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
            "{head}"
        );
        assert!(
            body.contains("# TYPE gateway_frontend_denied_requests_total counter\n"),
            "{body}"
        );
        assert!(
            body.contains("gateway_frontend_denied_requests_total{frontend=\"web\"} 1\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn a_place_is_free_again_after_a_connection() {
        let registry = Registry::new();
        let admin = serve(&[SocketAddr::from(([127, 0, 0, 1], 0))], &registry).unwrap();
        for _ in 0..MOST_CONNECTIONS * 2 {
            let mut stream = TcpStream::connect(admin.addresses()[0]).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("</html>\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(serve(&[taken.local_addr().unwrap()], &Registry::new()).is_err());
    }
}
