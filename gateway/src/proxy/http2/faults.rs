//! Streams that the library resets for what their client does wrong. It tells nobody; they are seen in the frames that go out: bytes
//! in, a count out. Frames are told apart by their headers (RFC 9113, section 4.1), and payloads are stepped over.

/// What goes out, as far as a frame in its middle has to be remembered.
#[derive(Debug, Default)]
pub struct Faults {
    /// A frame's header, and behind it the code of a RST_STREAM.
    begun: [u8; RESET],
    have: usize,
    /// Bytes of the payload under way that have not gone out yet.
    payload: usize,
}

impl Faults {
    /// How many streams what goes out resets for a fault of the client's.
    pub fn in_frames(&mut self, mut bytes: &[u8]) -> u32 {
        let mut faults = 0;
        while !bytes.is_empty() {
            let step = self.payload.min(bytes.len());
            self.payload -= step;
            bytes = &bytes[step..];
            let is_reset = self.have >= HEADER;
            let wanted = if is_reset { RESET } else { HEADER };
            let step = (wanted - self.have).min(bytes.len());
            self.begun[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have < wanted {
                continue;
            }
            let [high, middle, low, kind, _, _, _, _, _, code @ ..] = self.begun;
            if is_reset {
                faults += u32::from(is_fault(u32::from_be_bytes(code)));
            } else if kind == RST_STREAM {
                continue;
            } else {
                self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            }
            self.have = 0;
        }
        faults
    }
}

/// Whether a stream that is reset with this code (RFC 9113, section 7) is reset for a fault of the client's. The others are the gateway's own
/// doing: it needs no more of it, its server broke off, or somebody was late.
fn is_fault(code: u32) -> bool {
    !matches!(code, NO_ERROR | INTERNAL_ERROR | CANCEL)
}

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;

const RST_STREAM: u8 = 3;
const HEADER: usize = 9;
/// A RST_STREAM frame, whole.
const RESET: usize = HEADER + 4;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn reset(code: u32) -> Vec<u8> {
        frame(RST_STREAM, &code.to_be_bytes())
    }

    #[test]
    fn resets_for_faults_are_told_from_others_and_from_content_that_looks_like_them() {
        let (protocol, flow_control, closed, refused) = (1, 3, 5, 7);
        for (bytes, faults) in [
            (reset(protocol), 1),
            (reset(flow_control), 1),
            (reset(closed), 1),
            (reset(refused), 1),
            (reset(NO_ERROR), 0),
            (reset(INTERNAL_ERROR), 0),
            (reset(CANCEL), 0),
            (frame(0, &reset(protocol)), 0),
            (frame(0, b""), 0),
            (
                [frame(1, b"head"), reset(protocol), frame(0, &[3; 300]), reset(refused)].concat(),
                2,
            ),
        ] {
            assert_eq!(Faults::default().in_frames(&bytes), faults, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_count_as_the_whole_does(
            frames in prop::collection::vec((0u8..6, 0u32..10, 0usize..40), 0..40),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let frame = |&(kind, code, length): &(u8, u32, usize)| match kind {
                RST_STREAM => reset(code),
                _ => frame(kind, &vec![RST_STREAM; length]),
            };
            let bytes: Vec<u8> = frames.iter().flat_map(frame).collect();
            let expected = frames.iter().filter(|(kind, code, _)| *kind == RST_STREAM && is_fault(*code)).count();
            let (mut faults, mut counted, mut rest) = (Faults::default(), 0, bytes.as_slice());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                counted += faults.in_frames(piece);
                rest = after;
            }
            prop_assert_eq!(counted as usize, expected);
        }
    }
}
