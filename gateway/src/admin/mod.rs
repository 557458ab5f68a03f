//! The admin listener: the stats page, the same as JSON and CSV, `GET /metrics` for Prometheus, and a monitor; and the admin socket, where operators are
//! heard. They run on the control runtime, away from the workers.

mod commands;
mod csv;
mod desk;
mod login;
mod page;
mod socket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
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
pub use desk::Desk;
pub use socket::AdminServer;

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
pub fn serve(binds: &[SocketAddr], desk: &Arc<Desk>) -> io::Result<Admin> {
    let mut admin = Admin {
        addresses: Vec::new(),
        _tasks: JoinSet::new(),
    };
    for &bind in binds {
        let listener = std::net::TcpListener::bind(bind)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        admin.addresses.push(listener.local_addr()?);
        admin._tasks.spawn(accept(listener, Arc::clone(desk)));
    }
    admin._tasks.spawn(publish(Arc::clone(&desk.registry)));
    Ok(admin)
}

/// Keeps what a scrape has to do small, also for those who scrape once an hour.
async fn publish(registry: Arc<Registry>) {
    let mut ticks = interval(PUBLISH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        registry.publish();
        registry.sample();
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            // Whoever is not meant takes nobody's place.
            Ok((_, client)) if !desk.lets_in(client.ip()) => continue,
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: some may be free again in a while.
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            serve_connection(stream, &desk).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, desk: &Desk) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(desk, &request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever does not read the answer does not hold a place for ever. How it ends otherwise is of no interest.
    drop(timeout(CONNECTION_TIMEOUT, connection).await);
}

async fn answer(desk: &Desk, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(current) = desk.current() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "there is nothing to show yet\n");
    };
    let path = request.uri().path();
    let monitor = current.stats.monitor.as_ref().filter(|monitor| monitor.path == path);
    // Whoever asks the monitor is no person, and learns nothing but yes or no.
    if monitor.is_none() && !current.logins.let_in(request.headers(), &desk.trials).await {
        let mut response = plain(StatusCode::UNAUTHORIZED, "who are you?\n");
        let challenge = HeaderValue::from_static("Basic realm=\"gateway\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    let (kind, body) = match path {
        _ if monitor.is_some() => (TEXT_TYPE, Page::Monitor),
        "/metrics" => (METRICS_TYPE, Page::Metrics),
        "/" => (HTML_TYPE, Page::Stats),
        "/stats.json" => (JSON_TYPE, Page::Json),
        // The second is where HAProxy has it, and those who read it look.
        "/stats.csv" | "/;csv" => (CSV_TYPE, Page::Csv),
        _ => {
            return plain(
                StatusCode::NOT_FOUND,
                "there are /, /stats.json, /stats.csv and /metrics here\n",
            );
        }
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let figures = || {
        let mut stats = desk.registry.stats();
        stats.version = stats.version.filter(|_| !current.stats.hide_version);
        stats
    };
    let mut status = StatusCode::OK;
    let body = match body {
        Page::Monitor => match monitor.is_some_and(|monitor| desk.is_well(&current, monitor)) {
            true => Bytes::from_static(b"ok\n"),
            false => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                Bytes::from_static(b"not well\n")
            }
        },
        Page::Metrics => Bytes::from(desk.registry.render()),
        Page::Stats => Bytes::from(page::html(&figures(), current.stats.refresh)),
        Page::Csv => Bytes::from(csv::csv(&figures(), &current.says)),
        Page::Json => match serde_json::to_vec(&figures()) {
            Ok(json) => Bytes::from(json),
            Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n"),
        },
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
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
    Csv,
    Monitor,
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

const CSV_TYPE: &str = "text/csv; charset=utf-8";

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

    /// What a gateway with nothing but a stats page would show.
    fn desk(registry: &Arc<Registry>) -> Arc<Desk> {
        let text = "stats { bind \"127.0.0.1:0\" }\n\
            frontend \"web\" { bind \"127.0.0.1:0\"; default-backend \"app\" }\n\
            backend \"app\" { server \"app-1\" \"echo\" }";
        let config = crate::config::parse("test.kdl", text, std::path::Path::new("/")).unwrap();
        let desk = Desk::new(registry);
        desk.take_up(&config, &[]);
        desk
    }

    async fn ask(bytes: &[u8]) -> String {
        let registry = Registry::new();
        registry.frontend("web").denied();
        let admin = serve(&[SocketAddr::from(([127, 0, 0, 1], 0))], &desk(&registry)).unwrap();
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
        let admin = serve(&[SocketAddr::from(([127, 0, 0, 1], 0))], &desk(&registry)).unwrap();
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
        assert!(serve(&[taken.local_addr().unwrap()], &desk(&Registry::new())).is_err());
    }
}
