//! What can be told of what has come with a request of HTTP/1.1 without parsing it: whether LF stands without CR in it, and how
//! much came behind its head.
//!
//! hyper ends the trailers behind chunks where CR LF stands twice, and does not look at what stands behind two bare LF in them.
//! Somebody in front who takes those for the end has passed on another request there. That cannot be where no bare LF has come at
//! all. And hyper does not tell that a part of the next head has come with content of known length.
//!
//! Both are looked for in requests by POST, PUT and PATCH alone, and no further than to the first bare LF: what others have behind
//! their heads is rare enough, and looking costs.

/// What has come since the read in which a request's head began; nothing is known of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrived {
    ends: LineEnds,
    /// Bytes behind the head, where that came in one read with CR LF behind each line.
    behind_head: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LineEnds {
    /// Not looked at.
    #[default]
    Unknown,
    /// Every LF stood behind a CR.
    Whole,
    /// Some LF did not.
    Bare,
}

impl Arrived {
    /// These bytes have come, of which a request's head is a part, or more of one.
    pub fn begin(bytes: &[u8]) -> Self {
        if bytes.first() != Some(&b'P') {
            return Self::default();
        }
        let head = bytes.windows(HEAD_END.len()).position(|four| four == HEAD_END);
        let head = head.map(|at| at + HEAD_END.len());
        let is_whole = head.is_some_and(|head| LineEnds::Whole.then(0, &bytes[..head]) == LineEnds::Whole);
        Self {
            ends: LineEnds::Whole.then(0, bytes),
            behind_head: head.filter(|_| is_whole).map(|head| (bytes.len() - head) as u64),
        }
    }

    /// These bytes have come behind this one.
    pub fn then(self, before: u8, bytes: &[u8]) -> Self {
        Self {
            ends: self.ends.then(before, bytes),
            behind_head: self.behind_head.map(|came| came + bytes.len() as u64),
        }
    }

    /// The request's content has a length, and may be long: lines are not looked at.
    pub fn without_lines(self) -> Self {
        Self {
            ends: LineEnds::Unknown,
            ..self
        }
    }

    /// What comes now belongs to the next request, whose head did not begin with a read.
    pub fn without_head(self) -> Self {
        Self {
            behind_head: None,
            ..self
        }
    }

    /// Whether it is known that every LF stood behind a CR.
    pub fn has_whole_lines(self) -> bool {
        self.ends == LineEnds::Whole
    }

    /// How much is known to have come behind the head beyond content of this length.
    pub fn beyond(self, length: u64) -> u64 {
        self.behind_head.map_or(0, |came| came.saturating_sub(length))
    }
}

impl LineEnds {
    fn then(self, mut before: u8, bytes: &[u8]) -> Self {
        if self != Self::Whole {
            return self;
        }
        let mut is_bare = |byte: u8| std::mem::replace(&mut before, byte) != b'\r' && byte == b'\n';
        match bytes.iter().any(|&byte| is_bare(byte)) {
            true => Self::Bare,
            false => Self::Whole,
        }
    }
}

/// What a head ends with.
const HEAD_END: &[u8] = b"\r\n\r\n";

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
                let arrived = Arrived::begin(first).then(first[at - 1], second);
                assert_eq!(arrived.has_whole_lines(), whole, "{text:?} in two at {at}");
            }
        }
        assert!(!Arrived::begin(b"GET / HTTP/1.1\r\n").has_whole_lines());
    }

    #[test]
    fn what_comes_behind_a_head_is_counted_where_its_end_is_known() {
        let counted = Arrived::begin(b"POST / HTTP/1.1\r\nA: b\r\n\r\nab").then(b'b', b"c");
        assert_eq!((counted.beyond(1), counted.beyond(3)), (2, 0));
        for unknown in [
            "POST / HTTP/1.1\r\nA: b\r\n\nPOST /\r\n\r\nab",
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n\r\nab",
        ] {
            let arrived = Arrived::begin(unknown.as_bytes()).then(b'\n', b"\r\nabc");
            assert_eq!(arrived.beyond(0), 0, "{unknown:?}");
        }
    }
}
