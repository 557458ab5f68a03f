//! What a client's frames add up to: bytes in, counts out. Reads frame headers only (RFC 9113, section 4.1) and steps over
//! payloads; everything else about frames is the library's business.
//!
//! The library holds no more for a client than its limits say, however many frames come. What it does not see is how much
//! work frames make that are cheap to send: streams that are opened and reset again (CVE-2023-44487), SETTINGS and PING that
//! have to be answered (CVE-2019-9512, -9515), PRIORITY and empty frames that nobody needs (CVE-2019-9513, -9518).

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
    /// A header block has begun and not ended.
    block_is_open: bool,
    /// Since when a head has been coming.
    started: Option<Instant>,
    since: Instant,
    resets: u32,
    controls: u32,
    limits: FrameLimits,
}

/// How many frames a client may send within [`PERIOD`].
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// RST_STREAM.
    pub resets: u32,
    /// SETTINGS, PING, PRIORITY, frames without content, and those of unknown types.
    pub controls: u32,
}

/// What a client has too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Streams reset.
    Resets,
    /// Frames that carry nothing of a request.
    Controls,
}

impl Frames {
    /// Nothing has come but the connection preface, which is no frame and is not to be given.
    pub fn new(limits: FrameLimits, now: Instant) -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            payload: 0,
            block_is_open: false,
            started: None,
            since: now,
            resets: 0,
            controls: 0,
            limits,
        }
    }

    /// Counts what has come.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
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

    /// Since when a head, or the header of a frame, has been coming that has not come whole.
    pub fn head_since(&self) -> Option<Instant> {
        self.started
    }

    fn begin(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            HEADERS | CONTINUATION => {
                self.block_is_open = flags & END_HEADERS == 0;
                Ok(())
            }
            DATA if self.payload > 0 || flags & END_STREAM != 0 => Ok(()),
            WINDOW_UPDATE => Ok(()),
            // Answers to what the gateway has sent.
            SETTINGS | PING if flags & ACK != 0 => Ok(()),
            RST_STREAM => {
                self.turn(now);
                self.resets += 1;
                (self.resets <= self.limits.resets).then_some(()).ok_or(Flood::Resets)
            }
            _ => {
                self.turn(now);
                self.controls += 1;
                (self.controls <= self.limits.controls)
                    .then_some(())
                    .ok_or(Flood::Controls)
            }
        }
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

const HEADER: usize = 9;
/// Where in it the type stands.
const KIND: usize = 3;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

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

    fn few() -> Frames {
        Frames::new(FrameLimits { resets: 2, controls: 3 }, Instant::now())
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
    fn what_belongs_to_requests_is_free_and_what_is_answered_or_empty_is_not() {
        let mut frames = few();
        let now = Instant::now();
        for _ in 0..1000 {
            for free in [
                frame(DATA, 0, 1),
                frame(DATA, END_STREAM, 0),
                frame(HEADERS, END_HEADERS, 20),
                frame(WINDOW_UPDATE, 0, 4),
                frame(SETTINGS, ACK, 0),
                frame(PING, ACK, 8),
            ] {
                assert_eq!(frames.read(&free, now), Ok(()));
            }
        }
        for costly in [frame(SETTINGS, 0, 6), frame(PING, 0, 8), frame(DATA, 0, 0)] {
            assert_eq!(frames.read(&costly, now), Ok(()));
        }
        assert_eq!(frames.read(&frame(0xbe, 0, 0), now), Err(Flood::Controls));
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
            let limits = FrameLimits { resets: 5, controls: 10 };
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
