//! Characters of a request's target that the library of URIs refuses, and that servers take: `"`, `<` and `>` in a query, `<`, `>`
//! and backticks in a path.
//!
//! RFC 3986 has no place for them, and clients that are no browsers send them all the same, as JSON in a query. HAProxy and nginx
//! pass them on. Here they are percent-encoded before anybody reads them, so that what rules are asked about is what servers are sent.
//! That is of HTTP/1.1 alone: the targets of HTTP/2 are read by its library before anybody else can. A head that begins in the middle of a
//! read, behind the request before it, is found by its library alone: what that could not read is spelt out then, and read again.

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

    /// Follows the line through these bytes. What comes next then, and how many of them have to be encoded.
    pub fn follow(mut self, bytes: &[u8]) -> (Self, usize) {
        let mut odd = 0;
        for &byte in bytes {
            if self == Self::Behind {
                break;
            }
            odd += usize::from(self.refuses(byte));
            self = self.then(byte);
        }
        (self, odd)
    }

    /// These bytes, with what has to be encoded.
    pub fn encode(mut self, bytes: &[u8]) -> Vec<u8> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut encoded = Vec::with_capacity(bytes.len() + 64);
        for &byte in bytes {
            match self.refuses(byte) {
                true => encoded.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
                false => encoded.push(byte),
            }
            self = self.then(byte);
        }
        encoded
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
}
