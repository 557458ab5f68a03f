//! Calls of components to backends: a request of the gateway's own on the way of a client's, made between two calls of the
//! component. It takes a place at a server as any request does, and a connection of the worker's pool; it is bounded in time,
//! in length and in how many there are at once.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header, request, response};
use http_body::Frame;
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout};

use super::asked_name;
use super::attempts::Attempts;
use super::client::Client;
use super::headers;
use super::introduction::introduction;
use super::local::Local;
use super::sticky;
use super::upstream;
use crate::backend::http1;
use crate::backend::{Backend, ConnectError, Session, Take, Upstream, Wishes};
use crate::config::Reuse;
use crate::policy::{Answer, Answered, Attachment, Call, CallError, CallGrant, HostMemory, HostMemoryFull};

/// Why there is no answer to hand over.
enum Unanswered {
    /// None has come.
    Error(CallError),
    /// The gateway may hold no more for the component.
    NotHeld(HostMemoryFull),
}

/// Makes a call and waits for its answer. The error is that the gateway may not hold the answer.
pub async fn make(
    local: &Rc<Local>,
    client: &Rc<Client>,
    attachment: &Arc<Attachment>,
    call: Call,
) -> Result<Answered, HostMemoryFull> {
    // The host lets no call through that was not granted.
    let Some(grant) = attachment.granted().call(&call.backend) else {
        return Ok(Err(CallError::Unreachable));
    };
    let Some(_place) = grant.enter() else {
        return Ok(Err(CallError::Busy));
    };
    let backend = &local.snapshot.backends[grant.backend.0];
    let limit = call.timeout.map_or(grant.timeout, |wanted| wanted.min(grant.timeout));
    let memory = attachment.host_memory();
    let answered = timeout(limit, ask(local, client, backend, grant, call.request, memory)).await;
    match answered {
        Ok(Ok(answer)) => Ok(Ok(answer)),
        Ok(Err(Unanswered::Error(error))) => Ok(Err(error)),
        Ok(Err(Unanswered::NotHeld(full))) => Err(full),
        Err(_) => Ok(Err(CallError::Timeout)),
    }
}

async fn ask(
    local: &Rc<Local>,
    client: &Rc<Client>,
    backend: &Arc<Backend>,
    grant: &CallGrant,
    request: Request<Bytes>,
    memory: HostMemory,
) -> Result<Answer, Unanswered> {
    let (mut head, body) = request.into_parts();
    let has_host = head.headers.contains_key(header::HOST);
    let key = sticky::pick_key(backend, client.facts.client_ip(), &head, None);
    let mut attempts = Attempts::new(backend, key);
    let mut fresh_only = false;
    loop {
        let (server, session) = match attempts.take(local) {
            Take::Server(server, session) => (server, session),
            Take::Full => attempts.wait(local).await.map_err(|_| CallError::Unreachable)?,
            Take::Nothing => return Err(CallError::Unreachable.into()),
        };
        let address = backend.servers[server].address().filter(|_| !has_host);
        if let Some(Ok(host)) = address.map(|address| HeaderValue::try_from(address.authority())) {
            head.headers.insert(header::HOST, host);
        }
        let (upstream, is_private) = match reach(local, client, backend, server, &head, fresh_only).await {
            Ok(reached) => reached,
            Err(error) => {
                backend.servers[server].connect_failed(&error);
                let Some(pause) = attempts.failed(server, session, &error) else {
                    return Err(CallError::Unreachable.into());
                };
                tokio::time::sleep(pause).await;
                continue;
            }
        };
        let reused = upstream.served > 0;
        let is_repeatable = upstream::is_repeatable(&head.method) && body.is_empty();
        let mut exchange = Exchange {
            upstream,
            session,
            unsent: Some(Full::new(body.clone())),
            sent_at: Instant::now(),
        };
        let response = match exchange.send(&head).await {
            Ok(response) => response,
            // The server had closed a kept connection: on a fresh one it is asked again, once.
            Err(Unsent { nothing_written }) if reused && (nothing_written || is_repeatable) => {
                local.pool(backend).clear(server);
                attempts.stay(server, exchange.session);
                fresh_only = true;
                continue;
            }
            Err(_) => {
                backend.servers[server].answered(None, exchange.sent_at.elapsed());
                return Err(CallError::Unreachable.into());
            }
        };
        let status = response.status.as_u16();
        backend.servers[server].answered(Some(status), exchange.sent_at.elapsed());
        let answer = exchange.read(response, grant.max_body, memory).await?;
        let mut upstream = exchange.upstream;
        if !is_private && upstream.connection.is_idle() {
            upstream.connection.rest();
            local.pool(backend).put(server, upstream, Instant::now());
        }
        return Ok(answer);
    }
}

/// A connection to the server, and whether it is for this call alone.
async fn reach(
    local: &Rc<Local>,
    client: &Rc<Client>,
    backend: &Arc<Backend>,
    server: usize,
    head: &request::Parts,
    fresh_only: bool,
) -> Result<(Box<Upstream>, bool), ConnectError> {
    let to = &backend.servers[server];
    let is_private = to.is_for_one_client() || backend.pool.reuse == Reuse::Never || backend.server_close;
    let name: Option<ServerName<'static>> = match to.wants_name() {
        true => asked_name::of_request(&head.headers),
        false => None,
    };
    let kept = match is_private || fresh_only {
        true => None,
        false => upstream::take(local, backend, server, 1, name.as_ref()),
    };
    if let Some(kept) = kept {
        return Ok((kept, is_private));
    }
    let leads_to = to.moving_address();
    let header = to.is_for_one_client().then(|| introduction(&client.facts));
    let wishes = Wishes {
        introduction: header.as_ref(),
        name: name.as_ref(),
        speaks: true,
    };
    let stream = to.connect_for(wishes, backend.timeouts.connect).await?;
    to.connected();
    // As one that is opened for a request: it is kept for both.
    to.keep_alive(&stream);
    let upstream = Upstream {
        connection: http1::Connection::new(stream, backend.response_limits),
        served: 0,
        leads_to,
        name,
    };
    Ok((Box::new(upstream), is_private))
}

impl From<CallError> for Unanswered {
    fn from(error: CallError) -> Self {
        Self::Error(error)
    }
}

impl From<HostMemoryFull> for Unanswered {
    fn from(full: HostMemoryFull) -> Self {
        Self::NotHeld(full)
    }
}

/// The request did not lead to a response.
struct Unsent {
    nothing_written: bool,
}

/// A call under way.
struct Exchange {
    upstream: Box<Upstream>,
    session: Session,
    /// What of the request has not gone; none when all of it has, or the server takes no more. It may answer all the same.
    unsent: Option<Full<Bytes>>,
    sent_at: Instant,
}

impl Exchange {
    /// Sends the request and waits for the head of its response.
    async fn send(&mut self, head: &request::Parts) -> Result<response::Parts, Unsent> {
        if let Some(body) = &self.unsent {
            self.upstream.connection.begin(head, body);
        }
        poll_fn(|cx| {
            if self.session.poll_ended(cx).is_ready() {
                return Poll::Ready(Err(Unsent { nothing_written: false }));
            }
            self.poll_request(cx);
            let connection = &mut self.upstream.connection;
            while let Poll::Ready(received) = connection.poll_head(cx) {
                let Ok(head) = received else {
                    let nothing_written = connection.unsent().is_some();
                    return Poll::Ready(Err(Unsent { nothing_written }));
                };
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Moves what is left of the request along.
    fn poll_request(&mut self, cx: &mut Context<'_>) {
        if let Some(body) = &mut self.unsent
            && self.upstream.connection.poll_send(cx, body).is_ready()
        {
            self.unsent = None;
        }
    }

    /// Reads the response, up to so many bytes of its body.
    async fn read(
        &mut self,
        mut head: response::Parts,
        max: u64,
        mut memory: HostMemory,
    ) -> Result<Answer, Unanswered> {
        if head.status.is_informational() {
            // It has gone over to another protocol without having been asked to.
            return Err(CallError::Unreachable.into());
        }
        headers::strip_hop_by_hop(&mut head.headers);
        if self.upstream.connection.left().is_some_and(|left| left > max) {
            return Err(CallError::TooLarge.into());
        }
        let mut body = BytesMut::new();
        while !self.upstream.connection.has_received() {
            let frame = poll_fn(|cx| {
                if self.session.poll_ended(cx).is_ready() {
                    return Poll::Ready(Err(CallError::Unreachable));
                }
                // A server may begin its answer before it has read what it was asked.
                self.poll_request(cx);
                let frame = self.upstream.connection.poll_content(cx);
                frame.map(|frame| frame.transpose().map_err(|_| CallError::Unreachable))
            });
            let Some(frame): Option<Frame<Bytes>> = frame.await? else {
                break;
            };
            if let Ok(bytes) = frame.into_data() {
                if (body.len() + bytes.len()) as u64 > max {
                    return Err(CallError::TooLarge.into());
                }
                memory.grow(bytes.len())?;
                body.extend_from_slice(&bytes);
            }
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: memory.with(body.freeze()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::backend::{Balancer, PickKey, Tried, test_backend};
    use crate::config::{Balance, ResponseLimits};
    use crate::stream::Stream;

    /// More is asked than the way to the server holds, and it begins to answer before it has read that.
    #[tokio::test]
    async fn an_answer_that_begins_before_the_request_has_gone_is_read_whole() {
        const ASKED: usize = 4 << 20;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(16 << 10).unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(socket.connect(address), listener.accept());
        let mut far = far.unwrap().0;
        let server = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nthe")
                .await
                .unwrap();
            far.read_exact(&mut vec![0; ASKED]).await.unwrap();
            far.write_all(b"end").await.unwrap();
        };

        let backend = test_backend(Balance::RoundRobin, &[(1, false)]);
        let anyone = PickKey::of(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
        let taken = Balancer::new(&backend, 0).take(&backend, &anyone, &Tried::default());
        let Take::Server(_, session) = taken else {
            unreachable!("{taken:?}")
        };
        let connection = http1::Connection::new(Stream::Plain(near.unwrap()), ResponseLimits::DEFAULT);
        let mut exchange = Exchange {
            upstream: Box::new(Upstream {
                connection,
                served: 0,
                leads_to: None,
                name: None,
            }),
            session,
            unsent: Some(Full::new(vec![b'x'; ASKED].into())),
            sent_at: Instant::now(),
        };
        let (head, ()) = Request::post("/").body(()).unwrap().into_parts();
        let caller = async {
            let response = exchange.send(&head).await.ok().unwrap();
            assert!(exchange.unsent.is_some(), "the head came before all had gone");
            exchange.read(response, 100, HostMemory::unlimited()).await
        };
        let both = async { tokio::join!(server, caller) };
        let ((), answer) = timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!(&answer.ok().unwrap().body[..], b"theend");
        assert!(exchange.upstream.connection.is_idle(), "it can be kept");
    }
}
