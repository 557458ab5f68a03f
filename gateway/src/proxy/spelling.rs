//! Characters of a request's target that the library of URIs refuses, and that servers take: `"`, `<` and `>` in a query, `<`, `>`
//! and backticks in a path.
//!
//! RFC 3986 has no place for them, and clients that are no browsers send them all the same, as JSON in a query. HAProxy and nginx
//! pass them on. Here they are percent-encoded before anybody reads them, so that what rules are asked about is what servers are sent.
//! That is of HTTP/1.1 alone: the targets of HTTP/2 are read by its library before anybody else can.
//!
//! It is done where it is [known](super::turns::Turns::awaits_head) that a read begins with a request, and for further requests in that read
//! as far as heads and lengths tell where they begin. What is encoded elsewhere could be content, whose end would move.

use super::arrived::is_one_head;

/// What comes next of a request's first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spelling {
    /// Nothing of it, or nothing that matters here.
    #[default]
    Behind,
    /// The method, or line ends in front of it (RFC 9112, section 2.2).
    Start,
    /// More of the method.
    Method,
    /// The target.
    Space,
    /// More of its path, or of what stands before that in absolute form.
    Path,
    /// More of its query.
    Query,
}

impl Spelling {
    /// Whether this is a whole first line, and perhaps more, with nothing to encode, as nearly every read is. Without branches in
    /// between, so that it is done for many bytes at once.
    pub fn is_plain(bytes: &[u8]) -> bool {
        let look = |(odd, ended), &byte: &u8| {
            let is_odd = (byte == b'"') | (byte == b'<') | (byte == b'>') | (byte == b'`');
            (odd | is_odd, ended | (byte == b'\n'))
        };
        bytes.iter().fold((false, false), look) == (false, true)
    }

    /// Follows lines through these bytes. What comes next then, and how many of them have to be encoded.
    pub fn follow(mut self, mut bytes: &[u8]) -> (Self, usize) {
        let mut odd = 0;
        loop {
            let (request, behind) = self.split(bytes);
            for &byte in request {
                if self == Self::Behind {
                    break;
                }
                odd += usize::from(self.refuses(byte));
                self = self.then(byte);
            }
            if behind.is_empty() {
                return (self, odd);
            }
            self = Self::Start;
            bytes = behind;
        }
    }

    /// These bytes, with what has to be encoded.
    pub fn encode(mut self, mut bytes: &[u8]) -> Vec<u8> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut encoded = Vec::with_capacity(bytes.len() + 64);
        loop {
            let (request, behind) = self.split(bytes);
            for &byte in request {
                match self.refuses(byte) {
                    true => encoded.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
                    false => encoded.push(byte),
                }
                self = self.then(byte);
            }
            if behind.is_empty() {
                return encoded;
            }
            self = Self::Start;
            bytes = behind;
        }
    }

    /// Parts these bytes before the next request, where one is known to begin in them.
    fn split(self, bytes: &[u8]) -> (&[u8], &[u8]) {
        let next = match self {
            Self::Start if !is_one_head(bytes) => next_head(bytes),
            _ => None,
        };
        bytes.split_at(next.unwrap_or(bytes.len()))
    }

    fn refuses(self, byte: u8) -> bool {
        match self {
            Self::Path => matches!(byte, b'<' | b'>' | b'`'),
            Self::Query => matches!(byte, b'"' | b'<' | b'>'),
            _ => false,
        }
    }

    /// What does not look like a first line is left as it is: it may be more of a head that began in an earlier read.
    fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Start, b'\r' | b'\n') => Self::Start,
            (Self::Start | Self::Method, byte) if is_token(byte) => Self::Method,
            (Self::Method, b' ') => Self::Space,
            (Self::Space, b'/' | b'h' | b'H') => Self::Path,
            (Self::Path | Self::Query, b' ' | b'\r' | b'\n') => Self::Behind,
            (Self::Path, b'?') => Self::Query,
            (Self::Path | Self::Query, _) => self,
            _ => Self::Behind,
        }
    }
}

/// Where the next request begins in bytes that begin with one. None where all of them may be its own: its head is not whole or not as it
/// should be, its content is in chunks, or what comes behind it may be another protocol. The library reads all others in the same way: what
/// is encoded here is never content.
fn next_head(bytes: &[u8]) -> Option<usize> {
    // Line ends in front of it are skipped (RFC 9112, section 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = start;
    let mut length = None;
    loop {
        let end = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let line = bytes[at..at + end].strip_suffix(b"\r")?;
        let is_first = at == start;
        at += end + 1;
        if line.is_empty() {
            break;
        }
        if is_first {
            if line.starts_with(b"CONNECT ") {
                return None;
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
        if is("transfer-encoding") || is("upgrade") {
            return None;
        }
        if is("content-length") {
            let digits = std::str::from_utf8(value).ok();
            let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let said = digits?.parse::<usize>().ok()?;
            if length.replace(said).is_some() {
                return None;
            }
        }
    }
    let next = at.checked_add(length.unwrap_or_default())?;
    (next < bytes.len()).then_some(next)
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is cut in pieces.
    fn encoded(text: &str) -> String {
        let bytes = text.as_bytes();
        let whole = Spelling::Start.encode(bytes);
        for cut in 0..=bytes.len() {
            let (behind, first) = Spelling::Start.follow(&bytes[..cut]);
            let (_, second) = behind.follow(&bytes[cut..]);
            assert_eq!(2 * (first + second), whole.len() - bytes.len(), "{text:?} cut at {cut}");
            let pieces = [Spelling::Start.encode(&bytes[..cut]), behind.encode(&bytes[cut..])].concat();
            assert_eq!(pieces, whole, "{text:?} cut at {cut}");
        }
        assert_eq!(
            Spelling::is_plain(bytes),
            whole == bytes && !text.contains(['"', '<', '>', '`']),
            "{text:?}"
        );
        String::from_utf8_lossy(&whole).into_owned()
    }

    #[test]
    fn what_is_refused_in_a_target_is_encoded_there_and_nowhere_else() {
        for (text, expected) in [
            (
                "GET /?q={\"a\":\"<b>\"} HTTP/1.1\r\n\r\n",
                "GET /?q={%22a%22:%22%3Cb%3E%22} HTTP/1.1\r\n\r\n",
            ),
            (
                "GET /<a>`\"?`x HTTP/1.1\r\n\r\n",
                "GET /%3Ca%3E%60\"?`x HTTP/1.1\r\n\r\n",
            ),
            (
                "\r\nM`Y http://a/?\" HTTP/1.1\r\nA: \"<>\"\r\n",
                "\r\nM`Y http://a/?%22 HTTP/1.1\r\nA: \"<>\"\r\n",
            ),
            (
                "GET /a?b HTTP/1.1\r\nA: /?\"<>\"\r\n\r\n",
                "GET /a?b HTTP/1.1\r\nA: /?\"<>\"\r\n\r\n",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            assert_eq!(encoded(text), expected);
        }
        // More of a head, whose beginning came before.
        for text in [
            "okie: a=\"<b>\" /?\"\r\n\r\n",
            "x\" /?\"\r\n",
            "; a /<\r\n",
            "a b/<\r\n",
            " /?\"\r\n",
        ] {
            assert_eq!(encoded(text), text);
        }
    }

    #[test]
    fn requests_that_come_together_are_encoded_each() {
        let encoded = |text: &str| {
            let bytes = text.as_bytes();
            let encoded = Spelling::Start.encode(bytes);
            let (_, odd) = Spelling::Start.follow(bytes);
            assert_eq!(encoded.len(), bytes.len() + 2 * odd, "{text:?}");
            String::from_utf8(encoded).unwrap_or_default()
        };
        let post = "POST /1 HTTP/1.1\r\nX: \"<>\"\r\ncontent-length: 10\r\n\r\nGET /?\"\"\r\n";
        let next = "GET /<2>?\" HTTP/1.1\r\n\r\n";
        let after = "GET /%3C2%3E?%22 HTTP/1.1\r\n\r\n";
        for before in [
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /1 HTTP/1.1\r\n\r\n\r\n",
            post,
        ] {
            assert_eq!(
                encoded(&format!("{before}{next}{before}{next}")),
                format!("{before}{after}{before}{after}")
            );
        }
        // A head that has begun goes on in the next read.
        let (state, odd) = Spelling::Start.follow(format!("{post}GET /2?").as_bytes());
        assert_eq!((state, odd), (Spelling::Query, 0));
        // What may be content, or anything, is left as it is.
        for head in [
            "POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /1 HTTP/1.1\r\nContent-Length: 99\r\n\r\n",
            "POST /1 HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST /1 HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n",
            "GET /1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /1 HTTP/1.1\nHost: a\n\n",
            "GET /1 HTTP/1.1\r\nHost: a\n\r\n",
            "GET /1 HTTP/1.1\r\nnone\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let text = format!("{head}{next}");
            assert_eq!(encoded(&text), text);
        }
    }
}
