//! Whose turn it is in an exchange with a client, and how long that may take.
//!
//! One connection has one timer, armed lazily: every wait notes when it began, the timer is re-armed only when it fires or
//! when a nearer deadline appears. A keep-alive connection that serves thousands of requests touches the timer wheel a few
//! times a minute.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::arrived::Arrived;
use crate::config::ClientTimeouts;

/// The time as a connection sees it, read once per poll of the connection: waits need milliseconds, not one clock call each.
#[derive(Debug)]
pub struct Clock {
    now: Cell<Instant>,
    /// The shortest time that anybody on this connection has been given: what a timer over many exchanges goes by.
    shortest: Cell<Duration>,
}

impl Clock {
    /// A clock that is read now.
    pub fn new(shortest: Duration) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(Instant::now()),
            shortest: Cell::new(shortest),
        })
    }

    /// Reads the clock; called at the start of each poll of the connection.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time of the last tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// No wait that begins from now on ends sooner than after this.
    pub fn shortest(&self) -> Duration {
        self.shortest.get()
    }

    fn gave(&self, time: Duration) {
        if time < self.shortest.get() {
            self.shortest.set(time);
        }
    }
}

/// Whose turn it is in exchanges that come one after another, and since when.
#[derive(Debug)]
pub struct Turns {
    /// Shared: each connection would have them among what it touches with each request.
    timeouts: Arc<ClientTimeouts>,
    clock: Rc<Clock>,
    phase: Cell<Phase>,
    /// When the first byte of the head that is coming came.
    first_byte: Cell<Option<Instant>>,
    /// Since when the client has to send a piece of its body or take a piece of its response.
    client: Cell<Option<Instant>>,
    /// Since when the server has to answer, or to send or take a piece; and how long it may.
    server: Cell<Option<Instant>>,
    server_timeout: Cell<Duration>,
    late: Cell<Option<Late>>,
    /// Content is to come that nobody has asked for yet; by when it has to have come whole, once somebody has; and that it has not.
    is_body_due: Cell<bool>,
    body_by: Cell<Option<Instant>>,
    is_body_late: Cell<bool>,
    /// All of the request under way has come.
    is_whole: Cell<bool>,
    /// The request under way has content, and not all of it has come.
    is_content_due: Cell<bool>,
    /// Somebody takes it.
    is_content_taken: Cell<bool>,
    /// The last bytes that came, of a connection whose requests follow each other.
    tail: Cell<[u8; TAIL]>,
    /// How the request under way ends.
    ending: Cell<Ending>,
    /// It is known that of the request behind the last one nothing has come with that but line ends.
    is_between: Cell<bool>,
    /// What can be told of what has come of it.
    arrived: Cell<Arrived>,
}

/// Where a connection is in its cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No byte of the next request has come.
    Idle(Instant),
    /// The first request is awaited, or a head has begun to come, since then.
    Head(Instant),
    /// A request is being served, and no response has begun.
    Exchange,
    /// A response is on its way to the client.
    Response,
}

/// Who was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// No next request came.
    KeepAlive,
    /// The head did not come whole.
    Head,
    /// The client did not send its body, or did not take its response.
    Client,
    /// The client sent of its body, but not all of it in time. It is told so, when the body is asked for more.
    Body,
    /// The server did not answer, or stalled.
    Server,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nobody has said.
    Unknown,
    /// With an empty line: it has no content, or chunks.
    Line,
    /// With content of this length.
    Length(u64),
}

impl Turns {
    /// Turns of exchanges the first of which is awaited from now on.
    pub fn new(timeouts: &Arc<ClientTimeouts>, clock: &Rc<Clock>) -> Self {
        Self {
            timeouts: Arc::clone(timeouts),
            clock: clock.clone(),
            phase: Cell::new(Phase::Head(clock.now())),
            first_byte: Cell::new(None),
            client: Cell::new(None),
            server: Cell::new(None),
            server_timeout: Cell::new(timeouts.client),
            late: Cell::new(None),
            is_body_due: Cell::new(false),
            body_by: Cell::new(None),
            is_body_late: Cell::new(false),
            is_whole: Cell::new(false),
            is_content_due: Cell::new(false),
            is_content_taken: Cell::new(false),
            tail: Cell::new([0; TAIL]),
            ending: Cell::new(Ending::Unknown),
            is_between: Cell::new(true),
            arrived: Cell::default(),
        }
    }

    /// Reads the clock; called at the start of each poll of the connection.
    pub fn tick(&self) -> Instant {
        self.clock.tick()
    }

    /// The time of the last tick.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Since when a head has been awaited or coming, if one is.
    pub fn head_since(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Head(since) => Some(since),
            _ => None,
        }
    }

    /// Where the connection is in its cycle.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Bytes came from the client.
    pub fn bytes_arrived(&self, bytes: &[u8]) {
        let mut tail = self.tail.get();
        match bytes.last_chunk::<TAIL>() {
            Some(last) => tail = *last,
            None => {
                tail.rotate_left(bytes.len());
                tail[TAIL - bytes.len()..].copy_from_slice(bytes);
            }
        }
        self.tail.set(tail);
        match self.phase.get() {
            Phase::Idle(_) if is_line_ends(bytes) => {}
            Phase::Head(_) if self.first_byte.get().is_none() && is_line_ends(bytes) => {}
            Phase::Idle(_) => {
                self.phase.set(Phase::Head(self.now()));
                self.first_byte.set(Some(self.now()));
                self.arrived.set(match self.is_between.get() {
                    true => Arrived::begin(bytes),
                    false => Arrived::default(),
                });
            }
            Phase::Head(_) if self.first_byte.get().is_none() => {
                self.first_byte.set(Some(self.now()));
                self.arrived.set(Arrived::begin(bytes));
            }
            _ => self.arrived.set(self.arrived.get().then(bytes)),
        }
    }

    /// Whether what comes next is known to begin a head, or line ends in front of one.
    pub fn awaits_head(&self) -> bool {
        match self.phase.get() {
            Phase::Idle(_) => self.is_between.get(),
            Phase::Head(_) => self.first_byte.get().is_none(),
            Phase::Exchange | Phase::Response => false,
        }
    }

    /// Whether the trailers that have come are known to have no LF without CR.
    pub fn has_whole_lines(&self) -> bool {
        self.arrived.get().has_whole_lines()
    }

    /// A whole head has come: a request is served from now on. Answers when its first byte came.
    pub fn begin_exchange(&self) -> Instant {
        self.phase.set(Phase::Exchange);
        self.client.set(None);
        self.server.set(None);
        self.late.set(None);
        self.is_content_due.set(false);
        self.body_is_left();
        // None when it was read together with the request before it.
        self.first_byte.take().unwrap_or(self.now())
    }

    /// The request that has just begun has content of this length, or, where that is none or 0, ends with an empty line.
    pub fn request_ends(&self, length: Option<u64>) {
        self.is_whole.set(length == Some(0));
        match length {
            None | Some(0) => self.ending.set(Ending::Line),
            Some(length) => {
                self.ending.set(Ending::Length(length));
                self.arrived.set(self.arrived.get().without_lines());
            }
        }
    }

    /// What comes of the request under way is not awaited any more: where it ends, nobody will know.
    pub fn request_is_left(&self) {
        self.ending.set(Ending::Unknown);
        self.arrived.set(self.arrived.get().without_lines());
    }

    /// Whether a part of the next head has come together with the request before it; none where nobody knows.
    fn has_begun_next(&self) -> Option<bool> {
        let tail = self.tail.get();
        match self.ending.get() {
            Ending::Unknown => None,
            Ending::Line => Some(!tail.ends_with(b"\n\n") && !tail.ends_with(b"\n\r\n")),
            // A line end is no head.
            Ending::Length(length) => Some(match self.arrived.get().beyond(length)? {
                0 => false,
                1 | 2 => !tail.ends_with(b"\n"),
                _ => true,
            }),
        }
    }

    /// The response's head is known: from now on a client that is late can only be cut off.
    pub fn begin_response(&self) {
        // A response that ended with its head has ended its exchange already.
        if self.phase.get() == Phase::Exchange {
            self.phase.set(Phase::Response);
        }
    }

    /// The response has been produced whole: the next request may come, or has begun to.
    pub fn end_exchange(&self) {
        let now = self.now();
        let has_begun_next = self.has_begun_next();
        // Whoever breaks off in the middle of chunks may go on to read them.
        let is_behind_all = self.is_whole.get() || matches!(self.ending.get(), Ending::Length(_));
        self.is_between.set(has_begun_next == Some(false) && is_behind_all);
        if has_begun_next == Some(true) {
            self.first_byte.set(Some(now));
            self.phase.set(Phase::Head(now));
        } else {
            self.phase.set(Phase::Idle(now));
        }
        // Another request may have come whole with it, or its head.
        self.arrived.set(self.arrived.get().without_head());
        self.server.set(None);
        self.body_is_left();
    }

    /// Content is to come.
    pub fn body_begins(&self) {
        self.is_content_due.set(true);
        self.is_content_taken.set(false);
        self.is_body_late.set(false);
        self.is_body_due.set(self.timeouts.request_body.is_some());
    }

    /// Somebody takes it. From the first time on it has its time: that a request waits for a server is not the client's doing.
    pub fn body_is_asked_for(&self) {
        self.is_content_taken.set(true);
        if self.is_body_due.replace(false)
            && let Some(limit) = self.timeouts.request_body
        {
            self.clock.gave(limit);
            self.body_by.set(Some(self.now() + limit));
        }
    }

    /// All of it has come that will.
    pub fn body_ends(&self) {
        self.body_is_left();
        self.is_content_due.set(false);
        self.is_whole.set(true);
    }

    /// Whether more content of the request under way has to come.
    pub fn is_content_due(&self) -> bool {
        self.is_content_due.get()
    }

    /// What has not come of it is not awaited any more.
    pub fn body_is_left(&self) {
        self.is_body_due.set(false);
        self.body_by.set(None);
    }

    /// Whether a request is being served all of which has come: nothing is awaited of its client but that it stays. Content that has come
    /// may lie with hyper, while its request waits for a server.
    pub fn has_whole_request(&self) -> bool {
        let is_untaken = self.is_content_due.get() && !self.is_content_taken.get();
        let lies_ready = match self.ending.get() {
            Ending::Length(length) if is_untaken => self.arrived.get().has(length),
            _ => false,
        };
        (self.is_whole.get() || lies_ready) && matches!(self.phase.get(), Phase::Exchange | Phase::Response)
    }

    /// Whether it had its time, and has not come whole.
    pub fn is_body_late(&self) -> bool {
        self.is_body_late.get()
    }

    /// It is the client's turn, if it was not already.
    pub fn await_client(&self) {
        if self.client.get().is_none() {
            self.client.set(Some(self.now()));
        }
    }

    /// The client has moved. What the server has to do it has to do from now on.
    pub fn client_moved(&self) {
        if self.client.take().is_none() {
            return;
        }
        if self.server.get().is_some() {
            self.server.set(Some(self.now()));
        }
        match self.phase.get() {
            Phase::Idle(_) => self.phase.set(Phase::Idle(self.now())),
            Phase::Head(_) => self.phase.set(Phase::Head(self.now())),
            Phase::Exchange | Phase::Response => {}
        }
    }

    /// It is the server's turn, for so long at most.
    pub fn await_server_for(&self, timeout: Duration) {
        self.clock.gave(timeout);
        self.server_timeout.set(timeout);
        self.server.set(Some(self.now()));
        self.late.set(None);
    }

    /// It is the server's turn, if it was not already.
    pub fn await_server(&self) {
        if self.server.get().is_none() {
            self.server.set(Some(self.now()));
        }
    }

    /// The server has taken a piece of the request's body: it has its whole time again for the next.
    pub fn server_progressed(&self) {
        if self.server.get().is_some() {
            self.server.set(Some(self.now()));
        }
    }

    /// The server has moved.
    pub fn server_moved(&self) {
        self.server.set(None);
    }

    /// How long a client is listened to whose request has been answered and is not taken any more.
    pub fn unread_timeout(&self) -> Duration {
        self.timeouts.unread
    }

    /// Who was late in this exchange, if anybody.
    pub fn late(&self) -> Option<Late> {
        self.late.get()
    }

    /// The client was late, as its connection has found out.
    pub fn client_is_late(&self) {
        self.late.set(Some(Late::Client));
    }

    /// When the nearest wait runs out.
    pub fn deadline(&self) -> Option<Instant> {
        // While the client has to move, the server cannot be late, and a connection that still has response bytes to
        // take is not idle, even when the next head has begun to come.
        let wait = match (self.phase.get(), self.client.get(), self.server.get()) {
            (_, Some(since), _) => Some(since + self.timeouts.client),
            (Phase::Head(since), ..) => Some(since + self.timeouts.http_request),
            (Phase::Idle(since), ..) => Some(since + self.timeouts.http_keep_alive),
            (Phase::Exchange | Phase::Response, None, Some(since)) => Some(since + self.server_timeout.get()),
            (Phase::Exchange | Phase::Response, None, None) => None,
        };
        match self.body_by.get() {
            Some(by) => Some(wait.map_or(by, |wait| wait.min(by))),
            None => wait,
        }
    }

    /// Notes who is late by now, if anybody.
    pub fn expire(&self, now: Instant) -> Option<Late> {
        let is_body_late = self.body_by.get().is_some_and(|by| now >= by);
        if is_body_late {
            self.body_by.set(None);
            self.is_body_late.set(true);
        }
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return is_body_late.then_some(Late::Body);
        }
        let late = match (self.phase.get(), self.client.get()) {
            (_, Some(_)) => Late::Client,
            (Phase::Head(_), None) => Late::Head,
            (Phase::Idle(_), None) => Late::KeepAlive,
            (Phase::Exchange | Phase::Response, None) => Late::Server,
        };
        self.late.set(Some(late));
        self.client.set(None);
        self.server.set(None);
        Some(late)
    }
}

/// Whether this is skipped in front of a head (RFC 9112, section 2.2) and begins none: old clients send a line end behind content.
pub fn is_line_ends(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Bytes of the end of an empty line, whatever ends lines.
const TAIL: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn turns() -> Turns {
        let timeouts = ClientTimeouts {
            client: SECOND,
            http_request: SECOND,
            request_body: None,
            tunnel: None,
            http_keep_alive: SECOND,
            unread: SECOND,
            handshake: SECOND,
            client_hello: SECOND,
        };
        Turns::new(&Arc::new(timeouts), &Clock::new(SECOND))
    }

    /// One exchange whose request comes in these pieces and has content of this length; none of what was read is left.
    fn exchange(turns: &Turns, reads: &[&[u8]], length: Option<u64>) {
        for read in reads {
            turns.bytes_arrived(read);
        }
        turns.begin_exchange();
        turns.request_ends(length);
    }

    #[test]
    fn a_head_is_awaited_where_nothing_else_can_come() {
        let turns = turns();
        assert!(turns.awaits_head());
        exchange(&turns, &[b"GET / HTTP/1.1\r\n\r\n"], Some(0));
        assert!(!turns.awaits_head());
        turns.end_exchange();
        assert!(turns.awaits_head());
        let posts: [&[&[u8]]; 2] = [
            &[b"POST / HTTP/1.1\r\nA: b\r\n\r\nabc"],
            &[b"POST / HTTP/1.1\r\n", b"A: b\r\n\r\nab", b"c\r\n"],
        ];
        for reads in posts {
            exchange(&turns, reads, Some(3));
            turns.end_exchange();
            assert!(turns.awaits_head(), "{reads:?}");
        }
        exchange(&turns, &[b"POST / HTTP/1.1\r\n\r\n1\r\na\r\n0\r\n\r\n"], None);
        turns.body_ends();
        turns.end_exchange();
        assert!(turns.awaits_head());
    }

    #[test]
    fn no_head_is_awaited_where_content_or_more_of_one_may_come() {
        let cases: [(&[&[u8]], Option<u64>); 5] = [
            // Content is to come yet.
            (&[b"POST / HTTP/1.1\r\nA: b\r\n\r\nab"], Some(3)),
            (&[b"POST / HTTP/1.1\r\n\r\n3\r\nab\n\r\n"], None),
            // More of the next head.
            (&[b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n"], Some(0)),
            (&[b"POST / HTTP/1.1\r\n", b"\r\nabcPOST / HTTP/1.1\r\n"], Some(3)),
            // Where the head ended is not known.
            (&[b"POST / HTTP/1.1\nA: b\r\n\r\nabcPOST / HTTP/1.1\r\n"], Some(3)),
        ];
        for (reads, length) in cases {
            let turns = turns();
            exchange(&turns, reads, length);
            turns.end_exchange();
            assert!(!turns.awaits_head(), "{reads:?}");
        }
    }

    #[test]
    fn the_content_of_a_request_that_came_with_another_is_not_counted_from_that() {
        let turns = turns();
        let [first, second] = ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\n\r\n"];
        let came = format!("{first}{second}a\n\r\n");
        exchange(&turns, &[came.as_bytes()], Some(0));
        turns.end_exchange();
        // As long as the head and what has come of it.
        let length = came.len() - first.len();
        exchange(&turns, &[], Some(length as u64));
        turns.end_exchange();
        assert!(!turns.awaits_head());
        // What comes then does not count as a head that is whole.
        exchange(&turns, &[b"\r\nPOST / HTTP/1.1\r\n\r\nabc"], Some(3));
        turns.end_exchange();
        assert!(!turns.awaits_head());
    }
}
