//! Content in chunks (RFC 9112, section 7.1), read as strictly as it is written.

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::head;
use crate::config::ResponseLimits;

/// Reads chunks. Keeps nothing of the content, and of what is between the pieces only where it stands.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of extensions that may still come before more of the content does.
    extensions: usize,
    /// What has come of the trailers.
    trailers: Vec<u8>,
    limits: ResponseLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk's size; how many there have been.
    Size { size: u64, digits: u8 },
    /// Behind them.
    Extension { size: u64 },
    /// Behind the carriage return that ends the line.
    LineFeed { size: u64 },
    /// In a chunk; what of it is left.
    Data(u64),
    /// Behind a chunk.
    DataEnd,
    /// Behind the carriage return behind a chunk.
    DataLineFeed,
    /// Behind the last chunk.
    Trailers,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Chunk {
    /// A piece of the content.
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<Box<HeaderMap>>),
    /// Nothing yet: more has to come.
    More,
}

/// What came is not in chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

impl Chunked {
    pub(super) fn new(limits: &ResponseLimits) -> Self {
        Self {
            state: State::Size { size: 0, digits: 0 },
            extensions: MOST_EXTENSIONS,
            trailers: Vec::new(),
            limits: *limits,
        }
    }

    /// Takes from the bytes what can be understood of them. What stands behind the end stays.
    pub(super) fn decode(&mut self, bytes: &mut Bytes) -> Result<Chunk, BadChunk> {
        while let Some(&byte) = bytes.first() {
            if let State::Data(left) = self.state {
                let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let data = bytes.split_to(length);
                self.extensions = self.extensions.saturating_add(length).min(MOST_EXTENSIONS);
                self.state = match left - length as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                return Ok(Chunk::Data(data));
            }
            bytes.advance(1);
            self.state = match (self.state, byte) {
                (
                    State::Size {
                        digits: MOST_DIGITS, ..
                    },
                    byte,
                ) if byte.is_ascii_hexdigit() => return Err(BadChunk),
                (State::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                    State::Size {
                        size: size << 4 | u64::from(digit),
                        digits: digits + 1,
                    }
                }
                (State::Size { digits: 0, .. }, _) => return Err(BadChunk),
                (State::Size { size, .. } | State::Extension { size }, b'\r') => State::LineFeed { size },
                (State::Size { size, .. }, b';' | b' ' | b'\t') => State::Extension { size },
                (State::Extension { size }, byte) if byte == b'\t' || !byte.is_ascii_control() => {
                    self.extensions = self.extensions.checked_sub(1).ok_or(BadChunk)?;
                    State::Extension { size }
                }
                (State::LineFeed { size: 0 }, b'\n') => State::Trailers,
                (State::LineFeed { size }, b'\n') => State::Data(size),
                (State::DataEnd, b'\r') => State::DataLineFeed,
                (State::DataLineFeed, b'\n') => State::Size { size: 0, digits: 0 },
                (State::Trailers, byte) => {
                    // No line ends but with both.
                    if (byte == b'\n') != (self.trailers.last() == Some(&b'\r'))
                        || self.trailers.len() >= self.limits.head
                    {
                        return Err(BadChunk);
                    }
                    self.trailers.push(byte);
                    if self.trailers == b"\r\n" {
                        return Ok(Chunk::End(None));
                    }
                    if self.trailers.ends_with(b"\r\n\r\n") {
                        let trailers = head::parse_fields(&self.trailers, self.limits.headers).map_err(|_| BadChunk)?;
                        return Ok(Chunk::End(Some(Box::new(trailers))));
                    }
                    State::Trailers
                }
                _ => return Err(BadChunk),
            };
        }
        Ok(Chunk::More)
    }
}

/// Digits of the largest size that there can be.
const MOST_DIGITS: u8 = 16;

/// Bytes of extensions beyond those of the content. Nobody is known to use them, and they are not passed on; but some servers have spaces behind
/// the size of each chunk, and a content may be of any length.
const MOST_EXTENSIONS: usize = 16 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read when the bytes come in these pieces: the content, the trailers' lines, and what is left behind the end.
    /// None when it has not ended.
    fn read(pieces: &[&[u8]]) -> Result<Option<(Vec<u8>, usize, usize)>, BadChunk> {
        let limits = ResponseLimits {
            head: 64,
            headers: 2,
            informational: 4,
        };
        let mut chunked = Chunked::new(&limits);
        let mut content = Vec::new();
        for piece in pieces {
            let mut bytes = Bytes::copy_from_slice(piece);
            loop {
                match chunked.decode(&mut bytes)? {
                    Chunk::Data(data) => content.extend_from_slice(&data),
                    Chunk::End(trailers) => {
                        let fields = trailers.map_or(0, |trailers| trailers.len());
                        return Ok(Some((content, fields, bytes.len())));
                    }
                    Chunk::More => break,
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn what_is_well_formed_is_read_wherever_it_is_cut() {
        for (bytes, content, fields, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0, 0),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc", 0, 0),
            (
                b"00a;x=\"y\"\r\n0123456789\r\n1 \r\n!\r\n000\r\n\r\nHTTP",
                b"0123456789!",
                0,
                4,
            ),
            (b"1\r\na\r\n0\r\nx: 1\r\nY: 2\r\n\r\n", b"a", 2, 0),
            (b"A\r\n\r\n0\r\n\r\n...\r\n0\r\n\r\n", b"\r\n0\r\n\r\n...", 0, 0),
        ] {
            for cut in 0..bytes.len() - left {
                let (one, two) = bytes.split_at(cut);
                let all = read(&[one, two]);
                assert_eq!(
                    all,
                    Ok(Some((content.to_vec(), fields, left))),
                    "{bytes:?} cut at {cut}"
                );
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let (read_content, read_fields, _) = read(&single).unwrap().unwrap();
            assert_eq!((read_content, read_fields), (content.to_vec(), fields));
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1\r\na0\r\n\r\n",
            b"1;a\n\r\nb",
            b"1;\0\r\na",
            b"1\r\ra",
            b"10000000000000000\r\n",
            b"0\r\nx: 1\n\r\n",
            b"0\r\n\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\na: 1\r\nb: 1\r\nc: 1\r\n\r\n",
            b"0\r\na: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n\r\n",
        ] {
            assert_eq!(read(&[bytes]), Err(BadChunk), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn no_more_extensions_come_than_content() {
        let chunk = [b"1;".as_slice(), &[b'x'; 1000], b"\r\na\r\n"].concat();
        assert_eq!(read(&vec![&chunk[..]; 16]), Ok(None));
        assert_eq!(read(&vec![&chunk[..]; 17]), Err(BadChunk));
        // A size that is filled up with spaces, for as long as the content goes on.
        let padded = [b"10      \r\n".as_slice(), &[b'a'; 16], b"\r\n"].concat();
        assert_eq!(read(&vec![&padded[..]; 10_000]), Ok(None));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_does_harm(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
            if let Ok(Some((content, _, left))) = read(&pieces) {
                prop_assert!(content.len() + left < sent);
            }
        }
    }
}
