//! What can be told of what has come of requests of HTTP/1.1 beside what hyper tells: whether a line of trailers ended with LF
//! alone, and how much came behind a head.
//!
//! hyper ends the trailers behind chunks where CR LF stands twice, and does not look at what stands behind two bare LF in them.
//! Somebody in front who takes those for the end has passed on another request there. That cannot be where no bare LF stands in
//! them. And hyper does not tell that a part of the next head has come with content of known length.
//!
//! So heads, chunks and trailers are followed as they come, and content by its length alone. Nothing hangs on it but whether a
//! connection goes on and what time the next head has. The track is lost where a line ends with LF alone or a chunk with anything
//! but CR LF, and behind content of known length, which may look like anything; it is taken up again with a read that begins with
//! a head. Whoever asks meanwhile gets the safe answer.
//!
//! What comes behind a head, the head says, which is not read here. It need not be: the first line of a chunk is no first line of a
//! head, nor the other way round, and hyper, which has read the head, refuses the one that does not fit.

/// What has come since the read in which a request's head began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrived {
    next: Next,
    behind: Behind,
}

/// What has come behind the head that a read began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Behind {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Nothing: more of the head is to come.
    Head(Line),
    /// So many bytes.
    Counted(u64),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    /// Nobody knows.
    #[default]
    Lost,
    /// The size of a chunk, or the first byte of a head.
    Start,
    /// More of a head.
    Head(Line),
    /// More of the size of a chunk.
    Size(u64),
    /// The end of its line, behind white space.
    Padding(u64),
    /// The end of its line, behind anything.
    Extension(u64),
    /// The LF of its line.
    SizeEnd(u64),
    /// So many bytes of content.
    Content(u64),
    /// The CR behind a chunk.
    ContentCr,
    /// The LF behind it.
    ContentLf,
    /// More of the trailers.
    Trailers(Line),
}

/// What has come of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Nothing,
    /// CR, and nothing else.
    Cr,
    Some,
    /// Something, and CR at its end.
    SomeCr,
}

impl Arrived {
    /// These bytes have come, of which a request's head is a part, or more of one. Line ends in front of it are skipped (RFC 9112,
    /// section 2.2).
    pub fn begin(mut bytes: &[u8]) -> Self {
        while let Some(behind) = bytes.strip_prefix(b"\r\n") {
            bytes = behind;
        }
        if is_one_head(bytes) {
            return Self {
                next: Next::Start,
                behind: Behind::Counted(0),
            };
        }
        if bytes.is_empty() {
            return Self {
                next: Next::Start,
                behind: Behind::Unknown,
            };
        }
        match Line::Nothing.follow(bytes) {
            Followed::Ended { behind } => Self {
                next: Next::Start.follow(behind),
                behind: Behind::Counted(behind.len() as u64),
            },
            Followed::Within(line) => Self {
                next: Next::Head(line),
                // A CR alone is more of the line ends in front of it.
                behind: match line {
                    Line::Cr if bytes == b"\r" => Behind::Unknown,
                    line => Behind::Head(line),
                },
            },
            Followed::Bare => Self::default(),
        }
    }

    /// These bytes have come behind.
    pub fn then(self, bytes: &[u8]) -> Self {
        let behind = match self.behind {
            Behind::Unknown => Behind::Unknown,
            Behind::Head(line) => match line.follow(bytes) {
                Followed::Ended { behind } => Behind::Counted(behind.len() as u64),
                Followed::Within(line) => Behind::Head(line),
                Followed::Bare => Behind::Unknown,
            },
            Behind::Counted(came) => Behind::Counted(came + bytes.len() as u64),
        };
        Self {
            next: self.next.follow(bytes),
            behind,
        }
    }

    /// The request's content has a length, and may look like anything.
    pub fn without_lines(self) -> Self {
        Self {
            next: Next::Lost,
            ..self
        }
    }

    /// What comes now belongs to the next request, whose head did not begin with a read.
    pub fn without_head(self) -> Self {
        Self {
            behind: Behind::Unknown,
            ..self
        }
    }

    /// Whether it is known that every line of the trailers that have come ended with CR LF.
    pub fn has_whole_lines(self) -> bool {
        self.next != Next::Lost
    }

    /// Whether content of this length is known to have come whole.
    pub fn has(self, length: u64) -> bool {
        self.beyond(length).is_some()
    }

    /// How many bytes have come behind the head beyond content of this length; none where not all of that is known to have come.
    pub fn beyond(self, length: u64) -> Option<u64> {
        match self.behind {
            Behind::Counted(came) => came.checked_sub(length),
            Behind::Unknown | Behind::Head(_) => None,
        }
    }
}

impl Next {
    fn follow(mut self, mut bytes: &[u8]) -> Self {
        loop {
            // What is followed as a whole.
            (self, bytes) = match self {
                Self::Lost => return Self::Lost,
                Self::Head(line) => match line.follow(bytes) {
                    Followed::Ended { behind } => (Self::Start, behind),
                    Followed::Within(line) => return Self::Head(line),
                    Followed::Bare => return Self::Lost,
                },
                Self::Trailers(line) => match line.follow(bytes) {
                    Followed::Ended { behind } => (Self::Start, behind),
                    Followed::Within(line) => return Self::Trailers(line),
                    Followed::Bare => return Self::Lost,
                },
                Self::Content(left) => match bytes.get(usize::try_from(left).unwrap_or(usize::MAX)..) {
                    Some(behind) => (Self::ContentCr, behind),
                    None => return Self::Content(left - bytes.len() as u64),
                },
                by_bytes => (by_bytes, bytes),
            };
            let Some((&byte, behind)) = bytes.split_first() else {
                return self;
            };
            match self.step(byte) {
                // The byte belongs to it.
                head @ Self::Head(_) => self = head,
                next => (self, bytes) = (next, behind),
            }
        }
    }

    /// What comes behind this byte of what is followed by bytes; the byte itself still, where a head begins with it.
    ///
    /// As hyper reads the lines of chunks (RFC 9112, section 7.1): it takes white space behind a size.
    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Extension(size) | Self::Padding(size) | Self::Size(size), b'\r') => Self::SizeEnd(size),
            (Self::Extension(_), b'\n') => Self::Lost,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::Padding(size) | Self::Size(size), b' ' | b'\t') => Self::Padding(size),
            (Self::Padding(size) | Self::Size(size), b';') => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::Trailers(Line::Nothing),
            (Self::SizeEnd(size), b'\n') => Self::Content(size),
            (Self::ContentCr, b'\r') => Self::ContentLf,
            (Self::ContentLf, b'\n') => Self::Start,
            (Self::Start | Self::Size(_), digit) => {
                let before = if let Self::Size(size) = self { size } else { 0 };
                match hex(digit).and_then(|digit| before.checked_mul(16)?.checked_add(digit)) {
                    Some(size) => Self::Size(size),
                    None => self.as_head(),
                }
            }
            (Self::Padding(_), _) => self.as_head(),
            _ => Self::Lost,
        }
    }

    /// It is a head, of whose first line only what a size may look like has come before.
    fn as_head(self) -> Self {
        match self {
            Self::Start => Self::Head(Line::Nothing),
            _ => Self::Head(Line::Some),
        }
    }
}

enum Followed<'a> {
    /// An empty line has ended it.
    Ended { behind: &'a [u8] },
    /// It goes on, with this of a line.
    Within(Line),
    /// A line ended with LF alone.
    Bare,
}

impl Line {
    /// Follows lines up to an empty one.
    fn follow(mut self, mut bytes: &[u8]) -> Followed<'_> {
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            let behind = &bytes[at + 1..];
            match self.then(&bytes[..at]) {
                Self::Cr => return Followed::Ended { behind },
                Self::SomeCr => (self, bytes) = (Self::Nothing, behind),
                Self::Nothing | Self::Some => return Followed::Bare,
            }
        }
        Followed::Within(self.then(bytes))
    }

    /// These have come of it, too, and are not LF.
    fn then(self, bytes: &[u8]) -> Self {
        match (self, bytes) {
            (_, []) => self,
            (Self::Nothing, b"\r") => Self::Cr,
            (_, [.., b'\r']) => Self::SomeCr,
            _ => Self::Some,
        }
    }
}

/// Whether this is one head, whole, with CR LF behind each line and nothing behind it, as nearly every read is. Without branches
/// in between, so that it is done for many bytes at once.
pub fn is_one_head(bytes: &[u8]) -> bool {
    let Some(lines) = bytes.strip_suffix(b"\r\n") else {
        return false;
    };
    let is_bare = |(&before, &byte): (&u8, &u8)| (byte == b'\n') & (before != b'\r');
    let is_empty = |(&end, &byte): (&u8, &u8)| (end == b'\n') & (byte == b'\n');
    let any = |any, found| any | found;
    let ends = lines.ends_with(b"\r\n") && lines.first() != Some(&b'\n');
    let bare = lines
        .iter()
        .zip(lines.get(1..).unwrap_or_default())
        .map(is_bare)
        .fold(false, any);
    // An LF two behind another has CR before it, or is bare.
    let empty = lines
        .iter()
        .zip(lines.get(2..).unwrap_or_default())
        .map(is_empty)
        .fold(false, any);
    ends && !bare && !empty && !lines.starts_with(b"\r\n")
}

fn hex(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes next behind this, however it was cut in pieces.
    fn next(text: &str) -> Next {
        let bytes = text.as_bytes();
        let whole = Arrived::begin(bytes).next;
        for first in 1..bytes.len() {
            for second in first..bytes.len() {
                let pieces = Arrived::begin(&bytes[..first])
                    .then(&bytes[first..second])
                    .then(&bytes[second..]);
                assert_eq!(pieces.next, whole, "{text:?} cut at {first} and {second}");
            }
        }
        whole
    }

    #[test]
    fn requests_are_followed_as_long_as_their_lines_end_with_cr_lf() {
        const HEAD: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        for (behind, expected) in [
            ("", Next::Start),
            ("\r\n", Next::Start),
            ("GET / HTTP/1.1\r\n\r\n", Next::Start),
            // Names that could be sizes, were it not for what follows them.
            ("A / HTTP/1.1\r\n\r\n", Next::Start),
            ("DEAD / HTTP/1.1\r\n\r\n", Next::Start),
            ("DELETE / HTTP/1.1\r\n\r\n", Next::Start),
            ("FFFFFFFFFFFFFFFFF / HTTP/1.1\r\n\r\n", Next::Start),
            ("DELETE /", Next::Head(Line::Some)),
            ("0\r\n\r\n", Next::Start),
            ("1\r\na\r\n0\r\nA: b\r\n\r\n", Next::Start),
            ("1;x=\"y\"\r\na\r\n0 ; x\r\nA: b\r\nC: d\r\n\r\n", Next::Start),
            ("4\r\n\n\n\r\n\r\n00\r\nA: b\r\n\r\n", Next::Start),
            ("a\r\n0\r\n\r\nGET /\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", Next::Start),
            ("1\r\na\r\n0\r\nA: b\r\n", Next::Trailers(Line::Nothing)),
            ("Fa\r\nab", Next::Content(0xF8)),
            // Lines that end otherwise.
            ("0\r\nA: b\n\r\n", Next::Lost),
            ("0\r\n\nGET / HTTP/1.1\r\n\r\n", Next::Lost),
            ("0\r\nA: b\n\nGET / HTTP/1.1\r\n\r\n", Next::Lost),
            ("0\r\nA: b\r\n\r\nGET / HTTP/1.1\n\r\n", Next::Lost),
            ("0\n\r\n", Next::Lost),
            ("1\na\r\n0\r\n\r\n", Next::Lost),
            ("1;\n\r\na\r\n0\r\n\r\n", Next::Lost),
            ("1\r\na\n0\r\n\r\n", Next::Lost),
            ("1\r\nab\r\n0\r\n\r\n", Next::Lost),
            ("1\ra\r\n0\r\n\r\n", Next::Lost),
        ] {
            assert_eq!(next(&format!("{HEAD}{behind}")), expected, "{behind:?}");
        }
        for bare in [
            "GET / HTTP/1.1\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(next(bare), Next::Lost, "{bare:?}");
        }
        assert_eq!(next("\r\nGET / HTTP/1.1\r\n\r\n"), Next::Start);
        assert_eq!(next("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Next::Start);
    }

    #[test]
    fn what_is_lost_stays_so_until_the_next_read_that_begins_with_a_head() {
        let lost = Arrived::begin(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n").without_lines();
        assert!(!lost.has_whole_lines());
        assert!(!lost.then(b"GET / HTTP/1.1\r\n\r\n").has_whole_lines());
        assert!(Arrived::begin(b"GET / HTTP/1.1\r\n\r\n").has_whole_lines());
    }

    #[test]
    fn what_comes_behind_a_head_is_counted_where_its_end_is_known() {
        for head in [
            "POST / HTTP/1.1\r\nA: b\r\n\r\n",
            "DELETE / HTTP/1.1\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\n\r\n",
            "\r\n\r\nPOST / HTTP/1.1\r\nA: b\r\n\r\n",
        ] {
            let counted = Arrived::begin(format!("{head}ab").as_bytes()).then(b"c");
            assert_eq!((counted.beyond(1), counted.beyond(3)), (Some(2), Some(0)), "{head:?}");
            assert_eq!(counted.beyond(4), None, "{head:?}: more is to come");
            let counted = Arrived::begin(head.as_bytes()).then(b"abc");
            assert_eq!(counted.beyond(1), Some(2), "{head:?}");
            assert_eq!((counted.has(3), counted.has(4)), (true, false), "{head:?}");
        }
        let (head, content) = ("POST / HTTP/1.1\r\nA: b\r\n\r\n", "abc\r\n\r\n");
        for cut in "POST".len()..head.len() {
            let counted = Arrived::begin(&head.as_bytes()[..cut]).then(format!("{}{content}", &head[cut..]).as_bytes());
            assert_eq!(counted.then(b"d").beyond(7), Some(1), "cut at {cut}");
        }
        for unknown in ["POST / HTTP/1.1\r\nA: b\r\n\nPOST /\r\n\r\nab", "\r\n", "\r\n\r"] {
            let arrived = Arrived::begin(unknown.as_bytes()).then(b"\r\nabc");
            assert_eq!(arrived.beyond(0), None, "{unknown:?}");
            assert!(!arrived.has(1), "{unknown:?}");
        }
    }
}
