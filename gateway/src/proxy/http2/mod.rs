//! The life of an HTTP/2 connection: many requests at once, each an exchange of its own on a stream of its own.
//!
//! One task and one timer serve the connection and all its streams: what one poll makes ready goes out in one write. Streams
//! are futures in a set that polls those that were woken; their waits end by the connection's timer, which looks at all of
//! them as often as the shortest of their times says, and not whenever one of them begins or ends to wait.

mod faults;
mod frames;
pub mod head;
mod io;
mod stream;
pub mod tunnel;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use h2::Reason;
use h2::server::{Builder, Connection as Protocol, Handshake, SendResponse};
use http::Request;
use tokio::time::{Instant, sleep_until};

use super::client::Client;
use super::connection::Connection;
use super::http::{End, Seat};
use super::refused::{self, Refusal};
use super::turns::Late;
use crate::config::ClientTimeouts;
pub use frames::Flood;
use frames::FrameLimits;
use io::{ClientIo, Watch};
use stream::Lane;

/// Serves a connection until it ends. `said` is what has been read of it: the connection preface and what came with it, or
/// nothing.
pub async fn run(seat: &Seat, connection: &Rc<Connection>, said: Bytes) -> End {
    // It will be waited for.
    if connection.stream().is_err() {
        return End::Done;
    }
    let (worker, frontend) = {
        let seat = seat.0.borrow();
        (seat.0.lasting(), seat.1.clone())
    };
    let settings = frontend.config.http2;
    let limits = frontend.config.request_limits;
    let timeouts = Arc::clone(&frontend.config.timeouts);
    let now = connection.clock.tick();
    let frames = FrameLimits {
        resets: settings.max_resets,
        controls: settings.max_control_frames,
        streams: settings.bounds.max_streams,
    };
    let watch = Watch::new(frames, now);
    // As the size counts (RFC 9113, section 6.5.2): each field costs 32 bytes more than it has.
    let head_list = limits.head + limits.headers * FIELD_OVERHEAD;
    let mut builder = Builder::new();
    if frontend.config.upgrades.allow("websocket") {
        builder.enable_connect_protocol();
    }
    let handshake = builder
        .max_concurrent_streams(settings.bounds.max_streams)
        .initial_window_size(settings.bounds.stream_window)
        .initial_connection_window_size(settings.bounds.connection_window)
        .max_frame_size(settings.bounds.max_frame_size)
        .header_table_size(settings.bounds.header_table)
        .max_header_list_size(u32::try_from(head_list).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(settings.bounds.connection_window as usize * FRAME_ROOM)
        // Streams that were reset before they were looked at, and those that the library resets for what a client does
        // wrong: both are work that a client can make with nothing in return. The former are counted as they come, so that no more of
        // them lie there than a client may reset; to end its connection before would be another limit than the one that was set.
        .max_pending_accept_reset_streams(settings.max_resets as usize)
        .max_local_error_reset_streams(Some(frames.most_faults()))
        // What comes on a stream that it has forgotten counts as a fault; what was on its way when it was reset is none.
        .max_concurrent_reset_streams(settings.bounds.max_streams as usize)
        .handshake(ClientIo::new(connection, &watch, said));
    drop(frontend);
    let mut streams = pin!(FuturesUnordered::new());
    let mut server = Server {
        connection,
        watch: &watch,
        timeouts,
        state: State::Opening(Box::new(handshake)),
        idle_since: now,
        has_served: false,
        accepted: 0,
        is_leaving: false,
        left_at: None,
        sweep_at: now,
        lanes: Lanes::default(),
        end: None,
        farewell: None,
    };
    let mut drained = pin!(worker.drained());
    let mut watches_drain = false;
    let mut armed = now + FAR;
    let mut timer = pin!(sleep_until(armed));
    let mut timer_is_polled = false;
    poll_fn(|cx| {
        let mut now = connection.clock.tick();
        if !watches_drain {
            watches_drain = drained.as_mut().poll(cx).is_pending();
            if !watches_drain {
                server.drain(now);
            }
        }
        if worker.is_draining() {
            server.drain(now);
        }
        loop {
            // Streams first: what they write goes out when the connection is polled below.
            let mut has_moved = false;
            while let Poll::Ready(Some(slot)) = streams.as_mut().poll_next(cx) {
                server.lanes.free(slot);
                has_moved = true;
            }
            if streams.is_empty() {
                server.is_idle(now);
            }
            loop {
                match server.poll(cx) {
                    Poll::Ready(Ok(Some((_, mut respond)))) if server.has_left(now) => {
                        // It may be sent elsewhere as it is (RFC 9113, section 8.7). Those that may have been on their way are forgiven; as
                        // others that are refused, the rest count as if the client had reset them.
                        watch.refuses_late();
                        respond.send_reset(Reason::REFUSED_STREAM);
                        has_moved = true;
                        server.accepted += 1;
                    }
                    Poll::Ready(Ok(Some((request, respond)))) => {
                        has_moved = true;
                        let (local, frontend) = seat.current(connection);
                        let client = Client::on_stream(connection, &frontend.config.timeouts);
                        let lane = Lane::new(client);
                        if streams.is_empty() {
                            server.sweep_at = now + connection.clock.shortest();
                        }
                        server.has_served = true;
                        server.accepted += 1;
                        let slot = server.lanes.take(&lane);
                        streams.push(stream::serve(
                            local,
                            frontend,
                            lane,
                            slot,
                            head::receive(request),
                            respond,
                        ));
                    }
                    Poll::Ready(Ok(None)) => return Poll::Ready(server.left()),
                    Poll::Ready(Err(())) => return Poll::Ready(server.end.take().unwrap_or(End::Protocol)),
                    Poll::Pending => break,
                }
            }
            let refused = server.refused();
            if refused > 0 {
                // It has asked, though for nothing that could be given.
                server.has_served = true;
                server.idle_since = now;
            }
            for _ in 0..refused {
                let (local, frontend) = seat.current(connection);
                let client = Client::on_stream(connection, &frontend.config.timeouts);
                refused::note(&local, &frontend, &client, Refusal::Stream);
            }
            if connection.has_to_close() || watch.is_worn_out() {
                server.drain(now);
            }
            if let Some(flood) = watch.take_flood() {
                server.end = Some(End::Flood(flood));
                server.farewell(Reason::ENHANCE_YOUR_CALM, now);
                has_moved = true;
            }
            if has_moved {
                continue;
            }
            let deadline = server.deadline(streams.is_empty(), now);
            if deadline < armed || now >= armed {
                armed = deadline;
                timer.as_mut().reset(armed);
                timer_is_polled = false;
            }
            if !timer_is_polled {
                timer_is_polled = true;
                if timer.as_mut().poll(cx).is_ready() {
                    timer_is_polled = false;
                    now = connection.clock.tick().max(armed);
                }
            }
            if now < deadline {
                if !timer_is_polled {
                    continue;
                }
                let was_stalled = watch.stalled_since().is_some();
                match watch.poll_send(connection, cx) {
                    Poll::Ready(Ok(())) if streams.is_empty() => watch.rest(),
                    Poll::Ready(Ok(())) => {}
                    // The client went away.
                    Poll::Ready(Err(_)) => return Poll::Ready(server.left()),
                    // It is waited for from now on.
                    Poll::Pending if !was_stalled => continue,
                    Poll::Pending => {}
                }
                return Poll::Pending;
            }
            // Whether the client takes what it was sent decides whether it is told to go.
            let _ = watch.poll_send(connection, cx);
            if let Some(end) = server.expire(now, streams.is_empty()) {
                // What can go out yet does.
                let _ = watch.poll_send(connection, cx);
                return Poll::Ready(end);
            }
        }
    })
    .await
}

/// The connection's own state.
struct Server<'a> {
    connection: &'a Rc<Connection>,
    watch: &'a Rc<Watch>,
    timeouts: Arc<ClientTimeouts>,
    state: State,
    /// Since when nothing has been under way.
    idle_since: Instant,
    has_served: bool,
    /// Streams that the library has handed out, or that are known to have been refused.
    accepted: u64,
    /// It takes no more streams, and has said so.
    is_leaving: bool,
    /// When a client that was told so has had its time to hear of it: what comes then, though it has not said that it has, is refused.
    left_at: Option<Instant>,
    /// When the streams' waits are looked at next: none of them ends before.
    sweep_at: Instant,
    lanes: Lanes,
    /// How it ends.
    end: Option<End>,
    /// It has been told to end, and is not waited for longer.
    farewell: Option<Instant>,
}

enum State {
    /// The connection preface is awaited.
    Opening(Box<Handshake<ClientIo, Bytes>>),
    Open(Box<Protocol<ClientIo, Bytes>>),
    Closed,
}

impl Server<'_> {
    /// Moves bytes. Answers with the next request; with none when the connection has ended.
    #[allow(clippy::type_complexity)]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Request<h2::RecvStream>, SendResponse<Bytes>)>, ()>> {
        loop {
            match &mut self.state {
                State::Opening(handshake) => match pin!(&mut **handshake).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(protocol)) => self.state = State::Open(Box::new(protocol)),
                    Poll::Ready(Err(error)) => {
                        self.state = State::Closed;
                        return Poll::Ready(if error.is_io() { Ok(None) } else { Err(()) });
                    }
                },
                State::Open(protocol) => {
                    return protocol.poll_accept(cx).map(|accepted| match accepted {
                        Some(Ok(accepted)) => Ok(Some(accepted)),
                        None => Ok(None),
                        // The client went away, or ended the connection for a reason of its own.
                        Some(Err(error)) if error.is_io() || error.is_remote() => Ok(None),
                        Some(Err(_)) => Err(()),
                    });
                }
                State::Closed => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Streams that the library has refused since this was last asked: heads that are none or too large, and more streams than
    /// there may be. It tells the client, and nobody here; only that they were opened and never came shows it. Those that come
    /// when the client has been told to go elsewhere are not refused, but left for it to send there.
    fn refused(&mut self) -> u64 {
        let Some(opened) = self.watch.opened().filter(|_| !self.is_leaving) else {
            return 0;
        };
        let refused = opened.saturating_sub(self.accepted);
        self.accepted += refused;
        refused
    }

    /// The connection is over: as was decided, or because the client has left, perhaps in the middle of a head.
    fn left(&mut self) -> End {
        let end = match self.watch.head_since() {
            Some(_) if !self.is_leaving => End::BadHead(Refusal::Aborted),
            _ => End::Done,
        };
        self.end.take().unwrap_or(end)
    }

    /// Takes no more streams, and ends after those under way.
    ///
    /// The library tells the client, and goes on to take what it may have sent before it heard of that, until it answers a PING (RFC 9113,
    /// section 6.8). Who never does is not waited for longer than a head may take to come whole.
    fn drain(&mut self, now: Instant) {
        self.is_leaving = true;
        self.left_at.get_or_insert(now + self.timeouts.http_request);
        match &mut self.state {
            State::Open(protocol) => {
                self.watch.told_to_go();
                protocol.graceful_shutdown();
            }
            // Nothing was asked yet.
            State::Opening(_) => self.state = State::Closed,
            State::Closed => {}
        }
    }

    /// Whether a client has been told to go elsewhere for so long that nothing of it can be on its way any more.
    fn has_left(&self, now: Instant) -> bool {
        self.left_at.is_some_and(|left| now >= left)
    }

    /// Nothing is under way.
    fn is_idle(&mut self, now: Instant) {
        if !self.lanes.were_idle {
            self.lanes.were_idle = true;
            self.idle_since = now;
        }
    }

    /// Ends the connection, whatever is under way.
    fn farewell(&mut self, reason: Reason, now: Instant) {
        self.is_leaving = true;
        if let State::Open(protocol) = &mut self.state {
            protocol.abrupt_shutdown(reason);
        }
        self.farewell.get_or_insert(now + FAREWELL);
    }

    fn deadline(&mut self, is_idle: bool, now: Instant) -> Instant {
        if let Some(farewell) = self.farewell {
            return farewell;
        }
        let stalled = self.watch.stalled_since().map(|since| since + self.timeouts.client);
        let head = self.watch.head_since().map(|since| since + self.timeouts.http_request);
        let streams = match stalled {
            // To end the connection before the client has taken all of it is to throw away the rest of a response that was handed over.
            Some(stalled) if is_idle => stalled,
            None if is_idle => {
                let limit = self.idle_since + self.idle_limit();
                self.left_at.map_or(limit, |left| limit.min(left))
            }
            _ => {
                // A server may be given less time than anybody before.
                self.sweep_at = self.sweep_at.min(now + self.connection.clock.shortest());
                self.sweep_at
            }
        };
        let private = self.connection.private.deadline();
        let old = self.connection.retires().filter(|_| !self.is_leaving);
        let others = [stalled, head, private, old].into_iter().flatten();
        others.fold(streams, Instant::min)
    }

    /// How long the connection may wait for a request.
    fn idle_limit(&self) -> Duration {
        if self.has_served {
            self.timeouts.http_keep_alive
        } else {
            self.timeouts.http_request
        }
    }

    /// Does what is due. Answers when that is the end.
    fn expire(&mut self, now: Instant, is_idle: bool) -> Option<End> {
        if self.farewell.is_some() {
            return Some(self.end.take().unwrap_or(End::Silent));
        }
        self.connection.private.sweep(now);
        if !self.is_leaving && self.connection.retires().is_some_and(|retires| now >= retires) {
            self.drain(now);
        }
        let is_over = |since: Option<Instant>, limit| since.is_some_and(|since| now >= since + limit);
        if is_over(self.watch.stalled_since(), self.timeouts.client) {
            self.lanes.each(|lane| lane.client.turns.client_is_late());
            return Some(End::Silent);
        }
        let is_at_rest = is_idle && self.watch.stalled_since().is_none();
        if is_over(self.watch.head_since(), self.timeouts.http_request) {
            self.end = Some(End::SlowHead);
            self.farewell(Reason::NO_ERROR, now);
        } else if is_at_rest && self.has_left(now) {
            self.end = Some(End::Done);
            self.farewell(Reason::NO_ERROR, now);
        } else if is_at_rest && now >= self.idle_since + self.idle_limit() {
            let is_slow = !self.has_served && self.connection.has_spoken();
            self.end = Some(if is_slow { End::SlowHead } else { End::Silent });
            self.farewell(Reason::NO_ERROR, now);
        } else if !is_idle && now >= self.sweep_at {
            self.sweep_at = self.lanes.sweep(now, now + self.connection.clock.shortest());
        }
        None
    }
}

/// The streams under way, for what concerns all of them.
#[derive(Default)]
struct Lanes {
    slots: Vec<Option<Rc<Lane>>>,
    free: Vec<usize>,
    were_idle: bool,
}

impl Lanes {
    fn take(&mut self, lane: &Rc<Lane>) -> usize {
        self.were_idle = false;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(lane.clone());
                slot
            }
            None => {
                self.slots.push(Some(lane.clone()));
                self.slots.len() - 1
            }
        }
    }

    fn free(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// Tells those streams somebody on which is late. Answers when the first of the others may be, `next` at the latest: who
    /// begins to wait from now on cannot be late before.
    fn sweep(&self, now: Instant, mut next: Instant) -> Instant {
        self.each(|lane| {
            let turns = &lane.client.turns;
            if let Some(Late::Client | Late::Server | Late::Body) = turns.expire(now) {
                lane.wake();
            }
            if let Some(deadline) = turns.deadline().filter(|deadline| *deadline > now) {
                next = next.min(deadline);
            }
        });
        next
    }

    fn each(&self, mut with: impl FnMut(&Lane)) {
        self.slots.iter().flatten().for_each(|lane| with(lane));
    }
}

impl Flood {
    /// What a connection that ended for it is counted and logged under.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Resets => Refusal::Resets,
            Self::Controls => Refusal::Controls,
        }
    }
}

/// RFC 9113, section 6.5.2.
const FIELD_OVERHEAD: usize = 32;

/// Bytes of one response that wait for the socket, at most: with as many streams as a client may open, what it can make the
/// gateway hold by not reading.
const SEND_BUFFER: usize = 64 * 1024;

/// What frames of content in hand may cost beside it, as a multiple of the connection's window: each of less than 256 bytes costs what it is
/// less. Streams that wait for their server have their window's content in hand, and small messages of gRPC come in a frame each: the
/// library's own half of the window would end the connection for two thousand of them, and four times the window holds sixteen thousand.
const FRAME_ROOM: usize = 4;

/// How long a client is given to take the GOAWAY of a connection that ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// When nothing is awaited, the timer looks again after so long.
const FAR: Duration = Duration::from_secs(3600);
