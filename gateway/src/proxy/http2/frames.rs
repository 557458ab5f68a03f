//! What a client's frames add up to: bytes in, counts out. Reads frame headers only (RFC 9113, section 4.1) and steps over
//! payloads; everything else about frames is the library's business.
//!
//! The library holds no more for a client than its limits say, however many frames come. What it does not see is how much
//! work frames make that are cheap to send: streams that are opened and reset again (CVE-2023-44487), SETTINGS and PING that
//! have to be answered (CVE-2019-9512, -9515), PRIORITY and empty frames that nobody needs (CVE-2019-9513, -9518), padded or
//! not, and WINDOW_UPDATE that no content has made due.

use std::time::Duration;

use tokio::time::Instant;

/// The frames of one client, counted as they come.
#[derive(Debug)]
pub struct Frames {
    /// How much of the next frame's header has come, and it.
    header: [u8; HEADER],
    have: usize,
    /// Bytes of the payload under way that have not come yet.
    payload: usize,
    /// The payload is that of a DATA frame whose first byte says how much of it is padding, and that has not come.
    padding_is_due: bool,
    /// A header block has begun and not ended.
    block_is_open: bool,
    /// The highest stream that the client has opened, and how many.
    last_stream: u32,
    opened: u64,
    /// What the client may answer with WINDOW_UPDATE, in bytes.
    due: usize,
    /// Since when a head has been coming.
    started: Option<Instant>,
    since: Instant,
    resets: u32,
    controls: u32,
    /// Streams that were reset for a fault of the client's, over the connection's life.
    faults: usize,
    /// DATA frames that were all padding, likewise.
    blanks: usize,
    /// The client has been told to go elsewhere, and asked whether it has heard of it; and has said so.
    is_told: bool,
    has_heard: bool,
    /// Streams that it has opened all the same, and that came too late to be served.
    late: u32,
    /// Those of them that are reset and do not count.
    forgiven: u32,
    limits: FrameLimits,
}

/// How many frames a client may send within [`PERIOD`].
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// RST_STREAM, and streams that are reset for what the client does wrong.
    pub resets: u32,
    /// SETTINGS and PING, and answers to them; PRIORITY; DATA without content; WINDOW_UPDATE that is not due; and frames of
    /// unknown types.
    pub controls: u32,
    /// Streams that it may have open at once, over which none of these is counted that come too late when it has been told to go elsewhere.
    pub streams: u32,
}

/// What a client has too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Streams reset.
    Resets,
    /// Frames that carry nothing of a request.
    Controls,
}

impl FrameLimits {
    /// How many streams the library may reset for what a client does wrong until it ends the connection. It counts over the connection's
    /// life; for as long as the client takes nothing of what it is sent, it holds on to each of them, with half a kilobyte.
    pub fn most_faults(self) -> usize {
        self.resets as usize * PERIODS
    }
}

impl Frames {
    /// Nothing has come but the connection preface, which is no frame and is not to be given.
    pub fn new(limits: FrameLimits, now: Instant) -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            payload: 0,
            padding_is_due: false,
            block_is_open: false,
            last_stream: 0,
            opened: 0,
            due: 0,
            started: None,
            since: now,
            resets: 0,
            controls: 0,
            faults: 0,
            blanks: 0,
            is_told: false,
            has_heard: false,
            late: 0,
            forgiven: 0,
            limits,
        }
    }

    /// Counts what has come.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.padding_is_due {
                self.padding_is_due = false;
                // The byte itself, and as much as it says.
                if usize::from(bytes[0]) + 1 >= self.payload {
                    self.blanks += 1;
                    self.control(now)?;
                }
            }
            if self.payload > 0 {
                let step = self.payload.min(bytes.len());
                self.payload -= step;
                bytes = &bytes[step..];
                continue;
            }
            let step = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEADER {
                self.have = 0;
                self.begin(now)?;
            }
        }
        let is_midway = self.block_is_open
            || self.have > 0
            || (self.payload > 0 && matches!(self.header[KIND], HEADERS | CONTINUATION));
        if !is_midway {
            self.started = None;
        } else if self.started.is_none() {
            self.started = Some(now);
        }
        Ok(())
    }

    /// Notes what has gone to the client, which it may answer.
    pub fn wrote(&mut self, bytes: usize) {
        self.due = self.due.saturating_add(bytes).min(MOST_DUE);
    }

    /// Notes that the client is told to go elsewhere, and asked by a PING whether it has heard of it (RFC 9113, section 6.8).
    pub fn told_to_go(&mut self) {
        self.is_told = true;
    }

    /// Notes that a stream is refused because its client should have gone elsewhere.
    ///
    /// So many of them as it may have open at once are forgiven: they may have been on their way to us when it was told. To open more it
    /// has to have read that one of them was refused, and before that, that it should go; or to reset them, which counts by itself.
    pub fn refuses_late(&mut self) {
        if !self.is_too_late() {
            self.forgiven += 1;
        }
    }

    /// One more has come too late. Whether its client must have known.
    fn is_too_late(&mut self) -> bool {
        self.late = self.late.saturating_add(1);
        self.late > self.limits.streams
    }

    /// Counts streams that were reset for what the client has done wrong on them: it could have reset them as well.
    pub fn at_fault(&mut self, streams: u32, now: Instant) -> Result<(), Flood> {
        let forgiven = self.forgiven.min(streams);
        self.forgiven -= forgiven;
        let streams = streams - forgiven;
        self.faults += streams as usize;
        self.reset(streams, now)
    }

    /// Whether the client is to come anew, before the library takes what it did in its whole life for a flood.
    pub fn is_worn_out(&self) -> bool {
        self.faults >= self.limits.most_faults() / 2 || self.blanks >= MOST_BLANKS / 2
    }

    /// How many streams the client has opened, so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether everything that has come has come whole, as far as heads go.
    pub fn is_between_heads(&self) -> bool {
        self.started.is_none()
    }

    /// Since when a head, or the header of a frame, has been coming that has not come whole.
    pub fn head_since(&self) -> Option<Instant> {
        self.started
    }

    fn begin(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS => {
                self.block_is_open = flags & END_HEADERS == 0;
                self.opens(u32::from_be_bytes(stream) & STREAM, now)
            }
            CONTINUATION => {
                self.block_is_open = flags & END_HEADERS == 0;
                Ok(())
            }
            DATA if flags & END_STREAM != 0 => Ok(()),
            DATA if self.payload > 0 => {
                self.padding_is_due = flags & PADDED != 0;
                Ok(())
            }
            WINDOW_UPDATE if self.due >= UPDATE => {
                self.due -= UPDATE;
                Ok(())
            }
            RST_STREAM => self.reset(1, now),
            PING if flags & ACK != 0 => {
                // No other PING is sent to a client.
                self.has_heard |= self.is_told;
                self.control(now)
            }
            _ => self.control(now),
        }
    }

    fn reset(&mut self, streams: u32, now: Instant) -> Result<(), Flood> {
        self.turn(now);
        self.resets = self.resets.saturating_add(streams);
        (self.resets <= self.limits.resets).then_some(()).ok_or(Flood::Resets)
    }

    /// Trailers come on a stream that is open already.
    fn opens(&mut self, stream: u32, now: Instant) -> Result<(), Flood> {
        if stream <= self.last_stream {
            return Ok(());
        }
        self.last_stream = stream;
        self.opened += 1;
        // Its window, and the connection's.
        self.wrote(2 * UPDATE);
        // The library looks at no stream behind that answer, and tells nobody. A few may have been begun by then.
        if self.has_heard && self.is_too_late() {
            return self.reset(1, now);
        }
        Ok(())
    }

    fn control(&mut self, now: Instant) -> Result<(), Flood> {
        self.turn(now);
        self.controls += 1;
        (self.controls <= self.limits.controls)
            .then_some(())
            .ok_or(Flood::Controls)
    }

    /// Begins to count anew when the period is over.
    fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            self.resets = 0;
            self.controls = 0;
        }
    }
}

/// What limits are counted over: long enough that a burst of a browser is none, short enough that what a flood costs before
/// it is seen is nothing.
pub const PERIOD: Duration = Duration::from_secs(10);

/// A connection may live that is at fault all the time, and as often as it may, for so many periods; half of them at least. More
/// would be more that is begun at servers for a client that reads nothing of how it ends.
const PERIODS: usize = 2;

/// DATA frames without content that the library takes in a connection's life. It is spared those that are empty; those that are
/// all padding count in its windows, and have to come to it.
const MOST_BLANKS: usize = 100;

const HEADER: usize = 9;
/// Where in it the type stands.
const KIND: usize = 3;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
/// Of PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The bits of a stream's number.
const STREAM: u32 = 0x7fff_ffff;

/// So many bytes make an update due: each piece of content may be answered with two, one for its stream and one for the
/// connection, and has ten bytes at least, nine of them its header's. No client that only answers what it gets has sent one too
/// many by this.
const UPDATE: usize = 5;

/// What a client has not answered yet and may answer later, at most: no connection earns itself a flood by what it was sent
/// long ago.
const MOST_DUE: usize = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, 0xaa);
        bytes
    }

    /// DATA with so much padding, and so much content.
    fn padded(padding: u8, content: usize) -> Vec<u8> {
        let mut bytes = frame(DATA, PADDED, 1 + usize::from(padding) + content);
        bytes[HEADER] = padding;
        bytes
    }

    const PRIORITY: u8 = 2;
    const SETTINGS: u8 = 4;

    fn few() -> Frames {
        let limits = FrameLimits {
            resets: 2,
            controls: 3,
            streams: 4,
        };
        Frames::new(limits, Instant::now())
    }

    /// A head that opens this stream.
    fn opening(stream: u32) -> Vec<u8> {
        let mut bytes = frame(HEADERS, END_STREAM | END_HEADERS, 3);
        bytes[5..HEADER].copy_from_slice(&stream.to_be_bytes());
        bytes
    }

    #[test]
    fn streams_that_were_on_their_way_when_a_client_was_told_to_go_are_no_fault() {
        let (mut frames, now) = (few(), Instant::now());
        frames.told_to_go();
        // As many as it may have open at once, far more than it may reset.
        for stream in [1, 3, 5, 7] {
            assert_eq!(frames.read(&opening(stream), now), Ok(()));
            frames.refuses_late();
            assert_eq!(frames.at_fault(1, now), Ok(()));
        }
        assert_eq!(frames.faults, 0);
        // To open another it has read that it was refused.
        for (stream, counted) in [(9, Ok(())), (11, Ok(())), (13, Err(Flood::Resets))] {
            assert_eq!(frames.read(&opening(stream), now), Ok(()));
            frames.refuses_late();
            assert_eq!(frames.at_fault(1, now), counted);
        }
        assert_eq!(frames.faults, 3);
    }

    #[test]
    fn who_says_that_it_has_heard_and_goes_on_all_the_same_is_not_listened_to_without_end() {
        let (mut frames, now) = (few(), Instant::now());
        // An answer to what was not asked says nothing.
        assert_eq!(frames.read(&frame(PING, ACK, 8), now), Ok(()));
        let mut numbers = (1..).step_by(2);
        for stream in numbers.by_ref().take(50) {
            assert_eq!(frames.read(&opening(stream), now), Ok(()));
        }
        frames.told_to_go();
        for stream in numbers.by_ref().take(50) {
            assert_eq!(frames.read(&opening(stream), now), Ok(()));
        }
        assert_eq!(frames.read(&frame(PING, ACK, 8), now), Ok(()));
        for stream in numbers.by_ref().take(4 + 2) {
            assert_eq!(frames.read(&opening(stream), now), Ok(()));
        }
        assert_eq!(frames.read(&opening(numbers.next().unwrap()), now), Err(Flood::Resets));
    }

    #[test]
    fn resets_have_their_own_limit() {
        let mut frames = few();
        let now = Instant::now();
        let reset = frame(RST_STREAM, 0, 4);
        assert_eq!(frames.read(&reset, now), Ok(()));
        assert_eq!(frames.read(&reset, now), Ok(()));
        assert_eq!(frames.read(&reset, now), Err(Flood::Resets));
    }

    #[test]
    fn a_new_period_counts_anew() {
        let mut frames = few();
        let now = Instant::now();
        let resets = [frame(RST_STREAM, 0, 4), frame(RST_STREAM, 0, 4)].concat();
        assert_eq!(frames.read(&resets, now), Ok(()));
        assert_eq!(frames.read(&resets, now + PERIOD), Ok(()));
    }

    #[test]
    fn faults_count_as_resets_do_and_by_the_period() {
        let mut frames = few();
        let now = Instant::now();
        assert_eq!(frames.at_fault(1, now), Ok(()));
        assert_eq!(frames.read(&frame(RST_STREAM, 0, 4), now), Ok(()));
        assert_eq!(frames.at_fault(1, now), Err(Flood::Resets));
        let (mut frames, mut now) = (few(), now);
        for _ in 0..2 {
            assert!(!frames.is_worn_out());
            now += PERIOD;
            assert_eq!(frames.at_fault(1, now), Ok(()));
        }
        // Before the library has had enough.
        assert!(frames.is_worn_out());
        assert_eq!(frames.limits.most_faults(), 4);
    }

    #[test]
    fn what_belongs_to_requests_is_free_and_what_is_answered_or_empty_is_not() {
        let mut frames = few();
        let now = Instant::now();
        for _ in 0..1000 {
            for free in [
                frame(DATA, 0, 1),
                frame(DATA, END_STREAM, 0),
                padded(1, 2),
                frame(DATA, PADDED | END_STREAM, 1),
                frame(HEADERS, END_HEADERS, 20),
                frame(CONTINUATION, END_HEADERS, 20),
            ] {
                assert_eq!(frames.read(&free, now), Ok(()));
            }
        }
        for costly in [
            frame(SETTINGS, 0, 6),
            frame(SETTINGS, ACK, 0),
            frame(PING, 0, 8),
            frame(PING, ACK, 8),
            frame(PRIORITY, 0, 5),
            frame(WINDOW_UPDATE, 0, 4),
            frame(DATA, 0, 0),
            padded(0, 0),
            padded(1, 0),
            padded(255, 0),
            frame(0xbe, 0, 0),
        ] {
            let mut frames = few();
            for _ in 0..3 {
                assert_eq!(frames.read(&costly, now), Ok(()), "{costly:?}");
            }
            assert_eq!(frames.read(&costly, now), Err(Flood::Controls), "{costly:?}");
        }
    }

    #[test]
    fn a_client_that_sends_padding_is_to_come_anew_in_time() {
        let limits = FrameLimits {
            resets: 100,
            controls: 1000,
            streams: 100,
        };
        let (mut frames, now) = (Frames::new(limits, Instant::now()), Instant::now());
        for _ in 0..MOST_BLANKS / 2 {
            assert!(!frames.is_worn_out());
            frames.read(&padded(7, 0), now).unwrap();
            frames.read(&padded(7, 1), now).unwrap();
            frames.read(&frame(DATA, 0, 0), now).unwrap();
        }
        assert!(frames.is_worn_out());
    }

    #[test]
    fn padding_is_no_content() {
        let now = Instant::now();
        for (padding, content) in [(0, 1), (1, 1), (255, 1), (0, 300), (255, 300)] {
            let mut frames = few();
            for _ in 0..10 {
                assert_eq!(
                    frames.read(&padded(padding, content), now),
                    Ok(()),
                    "{padding} {content}"
                );
            }
        }
    }

    #[test]
    fn windows_are_opened_for_what_was_sent_and_no_more() {
        let mut frames = few();
        let now = Instant::now();
        let update = frame(WINDOW_UPDATE, 0, 4);
        // Two for a stream that is opened, and two for a piece of one byte.
        frames.read(&frame(HEADERS, END_HEADERS, 20), now).unwrap();
        frames.wrote(HEADER + 1);
        for _ in 0..4 + 3 {
            assert_eq!(frames.read(&update, now), Ok(()));
        }
        assert_eq!(frames.read(&update, now), Err(Flood::Controls));
    }

    #[test]
    fn what_was_sent_long_ago_makes_no_flood_due() {
        let mut frames = few();
        let now = Instant::now();
        for _ in 0..100 {
            frames.wrote(MOST_DUE);
        }
        let update = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..MOST_DUE / UPDATE + 3 {
            assert_eq!(frames.read(&update, now), Ok(()));
        }
        assert_eq!(frames.read(&update, now), Err(Flood::Controls));
    }

    #[test]
    fn streams_are_counted_as_they_are_opened() {
        let mut frames = few();
        let now = Instant::now();
        let on = |stream: u8| {
            let mut head = frame(HEADERS, END_HEADERS, 3);
            head[8] = stream;
            head
        };
        for (stream, opened) in [(1, 1), (5, 2), (1, 2), (5, 2), (7, 3)] {
            frames.read(&on(stream), now).unwrap();
            assert_eq!(frames.opened(), opened);
        }
    }

    #[test]
    fn a_head_in_pieces_is_seen_to_be_coming() {
        let mut frames = few();
        let (one, two) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        frames.read(&frame(HEADERS, 0, 10), one).unwrap();
        assert_eq!(frames.head_since(), Some(one));
        frames.read(&frame(CONTINUATION, 0, 10), two).unwrap();
        assert_eq!(frames.head_since(), Some(one));
        frames.read(&frame(CONTINUATION, END_HEADERS, 10), two).unwrap();
        assert_eq!(frames.head_since(), None);
    }

    proptest! {
        #[test]
        fn pieces_count_as_the_whole_does(
            kinds in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..40),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let now = Instant::now();
            let bytes: Vec<u8> = kinds.iter().flat_map(|&(kind, flags, payload)| frame(kind, flags, payload)).collect();
            let limits = FrameLimits {
                resets: 5,
                controls: 10,
                streams: 100,
            };
            let mut whole = Frames::new(limits, now);
            let expected = whole.read(&bytes, now);
            let mut pieces = Frames::new(limits, now);
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.iter().cycle();
            let mut seen = Ok(());
            while !rest.is_empty() && seen.is_ok() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                seen = pieces.read(piece, now);
                rest = after;
            }
            prop_assert_eq!(seen, expected);
            if expected.is_ok() {
                prop_assert_eq!(pieces.head_since().is_some(), whole.head_since().is_some());
            }
        }
    }
}
