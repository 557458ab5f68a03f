//! The life of an HTTP connection: which version it speaks, and with HTTP/1.1, requests one after another, each within its
//! time, until one side is done.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::sleep_until;

use super::client::Client;
use super::connection::{ClientIo, Connection};
use super::content::Content;
use super::hangup::Hangup;
use super::http2::{self, Flood};
use super::local::Local;
use super::newcomer::Newcomer;
use super::refused::{self, Refusal};
use super::request;
use super::turns::{self, Late, Phase};
use super::upgrade::{Switch, Tunnel};
use crate::accepted::{Accepted, Next};
use crate::config::Mode;
use crate::policy::ConnectionFacts;
use crate::snapshot::Frontend;

/// Serves a connection until it ends.
pub async fn serve(local: Rc<Local>, frontend: Arc<Frontend>, accepted: Accepted, facts: Arc<ConnectionFacts>) {
    let agreed = facts.tls.as_ref().map(|tls| tls.alpn.as_deref() == Some(b"h2"));
    let connection = Connection::new(accepted, facts, &frontend.config.timeouts);
    connection.limit(frontend.config.http_keep_alive);
    if connection.facts.is_http_for_tls() {
        return Box::pin(refuse_plain(&local, &frontend, &connection)).await;
    }
    let is_http2 = agreed == Some(true);
    if agreed.is_none() && frontend.config.http2.enabled {
        connection.listen_for_preface();
    }
    let client = Client::new(&connection, &frontend.config.timeouts);
    // From here on the connection holds the newest configuration that it has met, not the one it was accepted under.
    let seat = Seat(RefCell::new((local, frontend)));
    let switch = Switch::default();
    let ended = match is_http2 {
        true => Box::pin(http2::run(&seat, &connection, Bytes::new())).await,
        false => match run(&seat, &client, &switch).await {
            // Boxed: most connections have no room for it to keep.
            End::Preface => Box::pin(http2::run(&seat, &connection, connection.take_said())).await,
            end => end,
        },
    };
    let (local, frontend) = seat.0.into_inner();
    let nothing = match ended {
        End::Silent => Refusal::Silent,
        _ => Refusal::Null,
    };
    match ended {
        End::Done if switch.is_left_open() => connection.end(),
        // TLS has a goodbye of its own, without which the end might be anybody's (RFC 8446, section 6.1). Not in the middle of a
        // response, which would pass for whole then.
        End::Silent if !connection.is_plain() && client.turns.late() == Some(Late::KeepAlive) => connection.end(),
        End::Done | End::Silent | End::Preface => {}
        // Boxed, as below.
        End::Cut => Box::pin(connection.last_word(&[], refused::LAST_WORD)).await,
        End::Switched(tunnel, early) => {
            // A tunnel may outlive its configuration.
            drop((local, frontend));
            connection.private.clear_all();
            // Boxed: most connections never come to this, and would have to keep the room for it.
            return Box::pin(go_on(&connection, *tunnel, early)).await;
        }
        End::BadHead(refusal) => refused::answer(&local, &frontend, &client, refusal).await,
        End::Protocol => refused::note(&local, &frontend, &client, Refusal::Protocol),
        End::Flood(flood) => refused::note(&local, &frontend, &client, flood.refusal()),
        // What HTTP/2 is told, it is told in its own way.
        End::SlowHead if is_http2 || connection.has_preface() => {
            refused::note(&local, &frontend, &client, Refusal::Timeout);
        }
        End::SlowHead => refused::answer(&local, &frontend, &client, Refusal::Timeout).await,
    }
    let is_check = client.facts.is_from_balancer();
    if !connection.has_spoken() && !frontend.config.access_log.skip_null && !is_check {
        refused::note(&local, &frontend, &client, nothing);
    }
    // What was written after the last exchange had ended.
    let (read, written) = connection.take_traffic();
    frontend.metrics.bytes(read, written);
}

/// Answers a client that speaks HTTP where TLS has to begin. What it has asked is not looked at: it is not known to be whole.
async fn refuse_plain(local: &Rc<Local>, frontend: &Arc<Frontend>, connection: &Rc<Connection>) {
    let client = Client::new(connection, &frontend.config.timeouts);
    refused::answer(local, frontend, &client, Refusal::PlainHttp).await;
    let (read, written) = connection.take_traffic();
    frontend.metrics.bytes(read, written);
}

#[allow(
    clippy::await_holding_refcell_ref,
    reason = "nobody else reads or writes the stream any more"
)]
async fn go_on(connection: &Connection, tunnel: Tunnel, early: Bytes) {
    if let Ok(mut stream) = connection.stream() {
        tunnel.run(&mut *stream, early).await;
    }
}

/// How a connection ended.
pub(super) enum End {
    /// Closed in order, or in the middle of an exchange that has logged so itself.
    Done,
    /// What the client sends yet is not served, and it may not have read yet what was written.
    Cut,
    /// It goes on as something else, beginning with these bytes of the client.
    Switched(Box<Tunnel>, Bytes),
    /// Nothing came in time, and nothing was owed.
    Silent,
    /// What came was not a request, or not a whole one.
    BadHead(Refusal),
    /// A head began and did not end in time.
    SlowHead,
    /// What the client has begun with is the connection preface of HTTP/2.
    Preface,
    /// The client broke the rules of HTTP/2; the library has said so to it.
    Protocol,
    /// The client had too much of something, and was told so.
    Flood(Flood),
}

async fn run(seat: &Seat, client: &Rc<Client>, switch: &Switch) -> End {
    let (worker, limits) = {
        let seat = seat.0.borrow();
        (seat.0.lasting(), seat.1.config.request_limits)
    };
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_header_size(limits.head)
        // A head may be as long as its limit, and the buffer has to hold it; hyper wants 8 KiB at least.
        .max_buf_size((limits.head + READ_AHEAD).max(MIN_BUFFER));
    // Of a plain connection the end is seen without reading. For that hyper would get another buffer with each request, as the one before
    // holds what has come of it.
    let is_plain = client.connection.is_plain();
    builder.half_close(is_plain);
    // Where hyper is told a number, even its own, it clears the room for as many fields before each head, twice.
    if limits.headers != HYPERS_HEADERS {
        builder.max_headers(limits.headers);
    }
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let (local, frontend) = seat.current(&client.connection);
        client.connection.request_comes(!request.body().is_end_stream());
        request::serve(local, frontend, client.clone(), switch, request.map(Content::Http1))
    });
    // Behind the connection, which may leave something of its last exchange.
    let _rest = Left(client);
    let mut connection = builder.serve_connection(TokioIo::new(ClientIo(client.clone())), service);
    let mut drained = pin!(worker.drained());
    let mut watches_drain = false;
    let mut newcomer = Newcomer::default();
    let mut hangup = Hangup::default();
    client.connection.look(true);

    let turns = &client.turns;
    let mut armed = turns.deadline().unwrap_or_else(|| turns.now() + FAR);
    let mut timer = pin!(sleep_until(armed));
    let mut timer_is_polled = false;
    let over = poll_fn(|cx| {
        let mut now = turns.tick();
        client.connection.turn();
        'polled: loop {
            // Before the response: what it then waits for is the client's turn, whatever the client has just sent.
            client.uploading.poll(cx);
            if (worker.is_draining() || client.connection.has_to_close())
                && (!matches!(turns.phase(), Phase::Head(_)) || !client.connection.has_spoken())
                // hyper would read no more of what the client sends yet.
                && client.uploading.has_none_behind()
            {
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Over::Library(result));
            }
            let is_heard = client.connection.was_heard();
            if client.connection.has_preface() {
                return Poll::Ready(Over::Here(End::Preface));
            }
            if client.connection.is_cut() {
                return Poll::Ready(Over::Here(End::Cut));
            }
            if client.uploading.is_new() {
                continue;
            }
            let looks_again = match client.connection.is_fresh() {
                true => newcomer.looks_again(turns.phase(), client.connection.has_content(), now),
                false => None,
            };
            if looks_again.is_none() {
                // What cannot be watched has ended.
                if client.connection.watch(cx).is_err() {
                    continue;
                }
                // Registers this task once; afterwards a flag tells.
                if !std::mem::replace(&mut watches_drain, true) && drained.as_mut().poll(cx).is_ready() {
                    continue;
                }
                let has_left = if !turns.has_whole_request() {
                    hangup = Hangup::default();
                    false
                } else if is_heard {
                    false
                } else {
                    match client.connection.poll_next(cx) {
                        Poll::Pending if is_plain => false,
                        Poll::Ready(Next::End) => true,
                        // Nobody is told of an end behind what is not read, nor with TLS where hyper does not read either.
                        Poll::Ready(Next::More) | Poll::Pending => {
                            let stream = client.connection.stream();
                            stream.is_ok_and(|stream| hangup.poll(cx, stream.tcp()).is_ready())
                        }
                    }
                };
                if has_left {
                    // What the connection was to become, nobody is there for.
                    drop(switch.take());
                    return Poll::Ready(Over::Here(End::Done));
                }
            }
            loop {
                let waits = turns.deadline().into_iter().chain(client.connection.private.deadline());
                let deadline = waits.chain(looks_again).min().unwrap_or(now + FAR);
                if deadline < armed || now >= armed {
                    armed = deadline;
                    timer.as_mut().reset(armed);
                    timer_is_polled = false;
                }
                if !timer_is_polled {
                    // A turn that has used up what it may do registers no timer; another one follows at once.
                    timer_is_polled = tokio::task::coop::has_budget_remaining();
                    if timer.as_mut().poll(cx).is_ready() {
                        now = turns.tick().max(armed);
                        timer_is_polled = false;
                        client.connection.private.sweep(now);
                        if turns.deadline().is_some_and(|deadline| now >= deadline) {
                            break;
                        }
                        if looks_again.is_some_and(|time| now >= time) {
                            continue 'polled;
                        }
                        continue;
                    }
                }
                if turns.deadline().is_some_and(|deadline| now >= deadline) {
                    break;
                }
                return Poll::Pending;
            }
            match (turns.phase(), turns.expire(now)) {
                (_, None) => {}
                // The exchange sees that it is late when it is polled again, and answers.
                (Phase::Exchange, Some(_)) | (Phase::Response, Some(Late::Server | Late::Body)) => {}
                (_, Some(Late::Head)) if client.connection.has_spoken() => {
                    return Poll::Ready(Over::Here(End::SlowHead));
                }
                _ => return Poll::Ready(Over::Here(End::Silent)),
            }
        }
    })
    .await;
    client.connection.look(false);
    let phase = turns.phase();
    // With it goes its end of the content under way, which tells then whether all of that has come; and an exchange that it was in
    // the middle of, which logs so itself.
    let unread = match over {
        // Nobody asks for it, and to take it is to move all that hyper has.
        Over::Library(Ok(())) if !switch.is_left_open() => {
            drop(connection);
            Bytes::new()
        }
        _ => connection.into_parts().read_buf,
    };
    let ended = match over {
        Over::Library(result) => ended(client, switch, phase, result).await,
        Over::Here(end) => end,
    };
    match (ended, switch.take()) {
        (End::Done, Some(tunnel)) => End::Switched(tunnel, unread),
        // Behind content of a known length, often only what was left to read tells that a head had begun.
        (End::Silent, _) if turns.late() == Some(Late::KeepAlive) && !turns::is_line_ends(&unread) => End::SlowHead,
        (End::BadHead(refusal), _) => End::BadHead(refusal.of_head(&unread, &limits)),
        (ended, _) => ended,
    }
}

/// Who has ended the work on a connection.
enum Over {
    /// hyper, by itself.
    Library(hyper::Result<()>),
    Here(End),
}

/// What it means that hyper has ended in this phase, when what the client had sent by then has gone on to a server that has answered
/// already.
async fn ended(client: &Client, switch: &Switch, mut phase: Phase, result: hyper::Result<()>) -> End {
    let turns = &client.turns;
    let has_rest = !client.uploading.has_none_behind();
    if has_rest {
        // Boxed: hardly any connection ends so.
        Box::pin(client.uploading.finish(turns)).await;
        phase = turns.phase();
    }
    match result {
        // What was read together with the request before it has not passed through `Head`.
        Err(error) if matches!(phase, Phase::Head(_) | Phase::Idle(_)) => {
            // A client that resets its connection leaves as one that closes it.
            let has_left =
                || (matches!(phase, Phase::Head(_)) && client.connection.has_spoken()).then_some(Refusal::Aborted);
            Refusal::of(&error).or_else(has_left).map_or(End::Done, End::BadHead)
        }
        // With what it could not write, whatever it was to become has gone.
        Err(_) => {
            drop(switch.take());
            End::Done
        }
        Ok(()) if has_rest && client.connection.lingers() => End::Cut,
        Ok(()) => End::Done,
    }
}

/// Ends what is left of an exchange with its connection, which holds it.
struct Left<'a>(&'a Client);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.uploading.give_up();
    }
}

/// What serves a connection's next request: the newest configuration's frontend of the same name. A connection outlives
/// reloads; a request is served by one configuration from start to end.
pub(super) struct Seat(pub(super) RefCell<(Rc<Local>, Arc<Frontend>)>);

impl Seat {
    /// The configuration that serves the next request.
    pub(super) fn current(&self, connection: &Connection) -> (Rc<Local>, Arc<Frontend>) {
        let mut seat = self.0.borrow_mut();
        if let Some(newest) = seat.0.successor()
            && let Some(frontend) = newest.snapshot.frontend(seat.1.name(), Mode::Http)
        {
            // A frontend that is no more serves its last request here; that its configuration has a successor tells it so.
            *seat = (newest.clone(), frontend.clone());
            connection.private.clear_all();
        }
        seat.clone()
    }
}

/// Room in the read buffer beyond the longest head, so that a body or the next request is read in few calls.
const READ_AHEAD: usize = 48 * 1024;

/// Fields of a head beyond which hyper takes none by itself.
const HYPERS_HEADERS: usize = 100;

/// hyper's own lower bound.
const MIN_BUFFER: usize = 8 * 1024;

/// When nothing is awaited, the timer looks again after so long.
const FAR: std::time::Duration = std::time::Duration::from_secs(3600);
