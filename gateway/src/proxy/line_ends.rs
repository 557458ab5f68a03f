//! Whether LF stands without CR in what a client of HTTP/1.1 sends with a request.
//!
//! hyper ends the trailers behind chunks where CR LF stands twice, and does not look at what stands behind two bare LF in them.
//! Somebody in front who takes those for the end has passed on another request there. That cannot be where no bare LF has come at
//! all, which is cheap to see: of requests that may have chunks alone, and no further than to the first.

/// What has come since the read in which a request's head began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnds {
    /// Not looked at: nothing is known.
    #[default]
    Unknown,
    /// Every LF stood behind a CR.
    Whole,
    /// Some LF did not.
    Bare,
}

impl LineEnds {
    /// These bytes have come, of which a request's head is a part, or more of one.
    pub fn begin(bytes: &[u8]) -> Self {
        // POST, PUT, PATCH: what others have behind their heads is rare enough, and looking costs.
        match bytes.first() {
            Some(b'P') => Self::Whole.then(0, bytes),
            _ => Self::Unknown,
        }
    }

    /// These bytes have come behind this one.
    pub fn then(self, before: u8, bytes: &[u8]) -> Self {
        if self != Self::Whole {
            return self;
        }
        let mut before = before;
        let mut is_bare = |byte: u8| std::mem::replace(&mut before, byte) != b'\r' && byte == b'\n';
        match bytes.iter().any(|&byte| is_bare(byte)) {
            true => Self::Bare,
            false => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_line_feed_is_found_wherever_a_read_ends() {
        for (text, whole) in [
            ("POST / HTTP/1.1\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n", true),
            ("POST / HTTP/1.1\r\n\r\n1\r\na\r\n0\r\nA: b\n\r\n", false),
            ("POST / HTTP/1.1\r\n\r\n0\r\n\nGET / HTTP/1.1\r\n\r\n", false),
            ("POST / HTTP/1.1\n\n", false),
            ("P\r\r\n", true),
            ("P\r\n\n", false),
            ("P\n", false),
        ] {
            for at in 1..text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                let ends = LineEnds::begin(first).then(first[at - 1], second);
                let expected = if whole { LineEnds::Whole } else { LineEnds::Bare };
                assert_eq!(ends, expected, "{text:?} in two at {at}");
            }
        }
        assert_eq!(
            LineEnds::begin(b"GET / HTTP/1.1\r\n").then(b'\n', b"\r\n"),
            LineEnds::Unknown
        );
    }
}
