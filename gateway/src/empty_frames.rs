//! DATA frames of HTTP/2 that are empty and end nothing. The library ends a connection for the 101st of its life, however slowly they
//! came: a long one, whose peer flushes with them, would always come to that. How many are too many in how long is counted elsewhere. Here
//! each is made a frame of a type that nobody knows, which everybody steps over (RFC 9113, section 5.5), as it is read.

use std::io;
use std::task::Poll;

use tokio::io::ReadBuf;

/// What is read of a peer, as far as a frame in its middle has to be remembered. Looks at the headers of frames (RFC 9113, section 4.1)
/// and steps over payloads.
#[derive(Debug)]
pub struct EmptyFrames {
    /// How much of the next frame's header has come.
    have: usize,
    /// The length that it says, as far as that has come.
    length: usize,
    /// Bytes that are to come before that.
    payload: usize,
    /// The last byte that came is the type of what may be an empty DATA frame, and is kept until its flags tell.
    is_held: bool,
}

impl EmptyFrames {
    /// Of a connection on which so many bytes come before the first frame.
    pub fn behind(preface: usize) -> Self {
        Self {
            have: 0,
            length: 0,
            payload: preface,
            is_held: false,
        }
    }

    /// Reads, and lets nobody see empty frames. `read` adds what comes to the buffer, which has room.
    pub fn poll_read(
        &mut self,
        buf: &mut ReadBuf<'_>,
        mut read: impl FnMut(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        loop {
            let before = buf.filled().len();
            if self.is_held {
                buf.put_slice(&[DATA]);
                if buf.remaining() == 0 {
                    // No room to learn more: it stays what it is.
                    (self.is_held, self.have) = (false, KIND + 1);
                    return Poll::Ready(Ok(()));
                }
            }
            let start = buf.filled().len();
            let result = read(buf);
            if !matches!(result, Poll::Ready(Ok(()))) {
                buf.set_filled(before);
                return result;
            }
            if buf.filled().len() == start {
                // It is the end, whatever is in the middle of what.
                self.is_held = false;
                return Poll::Ready(Ok(()));
            }
            self.is_held = self.disguise(&mut buf.filled_mut()[before..]);
            if self.is_held {
                let end = buf.filled().len() - 1;
                buf.set_filled(end);
                if end == before {
                    continue;
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// Changes the types of empty frames. Whether the last byte is a type that cannot be told about yet; it has to come again, first.
    fn disguise(&mut self, mut bytes: &mut [u8]) -> bool {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let step = self.payload.min(bytes.len());
                self.payload -= step;
                bytes = &mut bytes[step..];
                continue;
            }
            if self.have < KIND {
                self.length = self.length << 8 | usize::from(bytes[0]);
            } else if self.have == KIND && self.length == 0 && bytes[0] == DATA {
                match bytes.get(1) {
                    None => return true,
                    Some(flags) if flags & (END_STREAM | PADDED) == 0 => bytes[0] = UNKNOWN,
                    Some(_) => {}
                }
            }
            bytes = &mut bytes[1..];
            self.have += 1;
            if self.have == HEADER {
                (self.have, self.payload, self.length) = (0, self.length, 0);
            }
        }
        false
    }
}

const HEADER: usize = 9;
/// Where in it the type stands; the flags are next.
const KIND: usize = 3;

const DATA: u8 = 0;
/// No type that anybody has registered, or is likely to.
const UNKNOWN: u8 = 0xfe;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, 0);
        bytes
    }

    /// What is seen of pieces that come one by one, into buffers of so many bytes; a piece of none is a wait.
    fn seen(frames: &mut EmptyFrames, pieces: &[&[u8]], room: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut pieces: Vec<Vec<u8>> = pieces.iter().rev().map(|piece| piece.to_vec()).collect();
        loop {
            let mut place = vec![0; room];
            let mut buf = ReadBuf::new(&mut place);
            let mut has_ended = false;
            let read = frames.poll_read(&mut buf, |buf| {
                match pieces.last_mut() {
                    Some(piece) if piece.is_empty() => {
                        pieces.pop();
                        return Poll::Pending;
                    }
                    Some(piece) => {
                        let rest = piece.split_off(buf.remaining().min(piece.len()));
                        buf.put_slice(piece);
                        pieces.pop();
                        if !rest.is_empty() {
                            pieces.push(rest);
                        }
                    }
                    None => has_ended = true,
                }
                Poll::Ready(Ok(()))
            });
            match &read {
                Poll::Ready(result) => assert!(result.is_ok()),
                Poll::Pending => assert!(buf.filled().is_empty(), "nothing is seen before it is there"),
            }
            seen.extend_from_slice(buf.filled());
            if has_ended {
                return seen;
            }
            assert!(read.is_pending() || !buf.filled().is_empty(), "no end before the end");
        }
    }

    #[test]
    fn empty_frames_that_end_nothing_are_stepped_over_and_nothing_else_is() {
        let stays = [
            frame(DATA, END_STREAM, 0),
            frame(DATA, PADDED, 0),
            frame(DATA, 0, 1),
            frame(DATA, 0, 300),
            frame(4, 1, 0),
            frame(1, 0, 9),
            frame(DATA, 0, 70_000),
        ];
        let mut sent = b"preface".to_vec();
        let mut expected = sent.clone();
        for other in &stays {
            sent.extend_from_slice(&frame(DATA, 0, 0));
            expected.extend_from_slice(&frame(UNKNOWN, 0, 0));
            sent.extend_from_slice(other);
            expected.extend_from_slice(other);
        }
        assert_eq!(seen(&mut EmptyFrames::behind(7), &[&sent], 100_000), expected);
    }

    #[test]
    fn a_type_without_its_flags_waits_for_them() {
        let empty = frame(DATA, 0, 0);
        let (one, two) = empty.split_at(KIND + 1);
        let nothing: &[u8] = &[];
        for pieces in [
            vec![one, two],
            vec![one, nothing, nothing, two],
            vec![&one[..3], &one[3..], two],
        ] {
            let mut frames = EmptyFrames::behind(0);
            assert_eq!(seen(&mut frames, &pieces, 50), frame(UNKNOWN, 0, 0));
        }
        // What ends in its middle is seen as far as it came, or not at all: it means nothing.
        assert_eq!(seen(&mut EmptyFrames::behind(0), &[one], 50), one);
    }

    proptest! {
        #[test]
        fn pieces_are_seen_as_the_whole_is(
            kinds in prop::collection::vec((0u8..3, 0u8..10, 0usize..12), 0..30),
            cuts in prop::collection::vec(0usize..30, 1..40),
            room in 2usize..40,
        ) {
            let bytes: Vec<u8> = kinds.iter().flat_map(|&(kind, flags, payload)| frame(kind, flags, payload)).collect();
            let whole = seen(&mut EmptyFrames::behind(0), &[&bytes], bytes.len() + 2);
            let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let in_pieces = seen(&mut EmptyFrames::behind(0), &pieces, room);
            prop_assert_eq!(in_pieces.len(), whole.len());
            // Where a buffer had no room, one may have stayed what it is.
            let differ = in_pieces.iter().zip(&whole).filter(|(one, other)| one != other);
            for (one, other) in differ {
                prop_assert_eq!((*one, *other), (DATA, UNKNOWN));
            }
        }
    }
}
