//! The first message of TLS: which name the client asks for and which protocols it offers. Reads bytes as they come, whatever
//! they are; does no I/O, decrypts nothing, and judges no more of the message than it has to: that is for the server, which
//! gets every byte of it.
//!
//! Records: RFC 8446, section 5.1. ClientHello: section 4.1.2. Names: RFC 6066, section 3. Protocols: RFC 7301, section 3.1.
//! An encrypted ClientHello is told by its outer one: that is what the client wants to be routed by.

use crate::policy::ClientHello;

/// Reads a ClientHello piece by piece.
#[derive(Debug, Default)]
pub struct Parser {
    /// The header of the record that is being read, as far as it has come.
    header: [u8; RECORD_HEADER],
    header_length: usize,
    /// Bytes that the record still has.
    record_left: usize,
    /// The handshake message, out of its records.
    message: Vec<u8>,
    /// Bytes that came.
    seen: usize,
}

/// What has been read so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More has to come.
    Incomplete,
    /// The whole message.
    Done(ClientHello),
    /// It is no ClientHello, or none to be routed by. More bytes will not change that.
    Refused(Refusal),
}

/// Why bytes are not taken for a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another protocol.
    #[error("not TLS")]
    NotTls,
    /// TLS, but against its rules.
    #[error("a malformed ClientHello")]
    Malformed,
    /// Longer than [`MAX_BYTES`].
    #[error("a ClientHello longer than {MAX_BYTES} bytes")]
    TooLong,
}

impl Parser {
    /// Reads the bytes that follow those that were fed before.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        match self.take(bytes) {
            Ok(None) => Progress::Incomplete,
            Ok(Some(hello)) => Progress::Done(hello),
            Err(refusal) => Progress::Refused(refusal),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Refusal> {
        // Nothing beyond the limit is looked at, so that it does not matter in which pieces the bytes come.
        let room = MAX_BYTES.saturating_sub(self.seen);
        let mut bytes = &bytes[..bytes.len().min(room)];
        while !bytes.is_empty() {
            if self.record_left == 0 {
                bytes = self.take_header(bytes)?;
                continue;
            }
            let taken = bytes.len().min(self.record_left);
            let (now, later) = bytes.split_at(taken);
            self.message.extend_from_slice(now);
            self.record_left -= taken;
            self.seen += taken;
            bytes = later;
            if let Some(length) = self.message_length()?
                && let Some(message) = self.message.get(MESSAGE_HEADER..MESSAGE_HEADER + length)
            {
                return hello(message).map(Some);
            }
        }
        // A message that the limit would end in the middle of is known to be too long before, by its length; this is for
        // records that hold nearly nothing.
        if self.seen >= MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        Ok(None)
    }

    fn take_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Ok(bytes);
        };
        let is_first = self.seen < RECORD_HEADER;
        // What is not TLS is known by its first bytes, and need not be waited for.
        let refusal = if is_first { Refusal::NotTls } else { Refusal::Malformed };
        match (self.header_length, byte) {
            (0, HANDSHAKE) | (1, MAJOR_VERSION) | (2.., _) => {}
            _ => return Err(refusal),
        }
        self.header[self.header_length] = byte;
        self.header_length += 1;
        self.seen += 1;
        if self.header_length == RECORD_HEADER {
            self.header_length = 0;
            self.record_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            if !(1..=MAX_RECORD).contains(&self.record_left) {
                return Err(refusal);
            }
        }
        Ok(rest)
    }

    /// The length that the message says it has, once that is there.
    fn message_length(&self) -> Result<Option<usize>, Refusal> {
        let kind = self.message.first();
        if kind.is_some_and(|&kind| kind != CLIENT_HELLO) {
            return Err(Refusal::Malformed);
        }
        let Some(&[_, high, middle, low]) = self.message.first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if length + MESSAGE_HEADER + RECORD_HEADER > MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        Ok(Some(length))
    }
}

/// Reads the message itself.
fn hello(message: &[u8]) -> Result<ClientHello, Refusal> {
    let mut rest = Reader(message);
    // The version and the random.
    rest.bytes(2 + 32)?;
    let session = rest.short_list()?;
    let suites = rest.list()?;
    let compressions = rest.short_list()?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return Err(Refusal::Malformed);
    }
    let mut hello = ClientHello::default();
    if rest.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(rest.list()?);
    rest.end()?;
    let (mut has_names, mut has_protocols) = (false, false);
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.list()?;
        // Said twice, servers might take either: none of them is believed. Other extensions are the server's business, and
        // unknown ones (GREASE, RFC 8701) are there to be passed over.
        match kind {
            SERVER_NAME if !std::mem::replace(&mut has_names, true) => hello.sni = server_name(data)?,
            APPLICATION_PROTOCOLS if !std::mem::replace(&mut has_protocols, true) => hello.alpn = protocols(data)?,
            SERVER_NAME | APPLICATION_PROTOCOLS => return Err(Refusal::Malformed),
            _ => {}
        }
    }
    Ok(hello)
}

fn server_name(data: &[u8]) -> Result<Option<String>, Refusal> {
    let mut data = Reader(data);
    let mut names = Reader(data.list()?);
    data.end()?;
    let mut found = None;
    if names.is_empty() {
        return Err(Refusal::Malformed);
    }
    while !names.is_empty() {
        let kind = names.byte()?;
        let name = names.list()?;
        // One name of a kind; kinds that are not known are passed over (RFC 6066: they begin with a length, too).
        if kind == HOST_NAME && found.replace(name).is_some() {
            return Err(Refusal::Malformed);
        }
    }
    found.map_or(Ok(None), dns_name)
}

/// A DNS name in lower case, without a trailing dot. An address is not allowed there, and taken for no name.
fn dns_name(name: &[u8]) -> Result<Option<String>, Refusal> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > MAX_NAME || !name.split(|&byte| byte == b'.').all(is_label) {
        return Err(Refusal::Malformed);
    }
    let name: String = name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    Ok((name.parse::<std::net::Ipv4Addr>().is_err()).then_some(name))
}

fn protocols(data: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut data = Reader(data);
    let mut list = Reader(data.list()?);
    data.end()?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.short_list()?;
        if protocol.is_empty() || protocols.len() == MAX_PROTOCOLS {
            return Err(Refusal::Malformed);
        }
        protocols.push(protocol.to_vec());
    }
    match protocols.is_empty() {
        true => Err(Refusal::Malformed),
        false => Ok(protocols),
    }
}

/// Bytes that are taken from the front; what is not there is malformed.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u16, Refusal> {
        self.bytes(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What follows a length of two bytes.
    fn list(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.number()?;
        self.bytes(usize::from(length))
    }

    /// What follows a length of one byte.
    fn short_list(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.byte()?;
        self.bytes(usize::from(length))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), Refusal> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(Refusal::Malformed),
        }
    }
}

/// Bytes of a ClientHello with its records: as much as HAProxy looks at (its buffer's size). The largest ones in use, with keys
/// for post-quantum exchanges, have under 4 KiB.
pub const MAX_BYTES: usize = 16 * 1024;

/// Protocols that a client may offer. Browsers offer two; each becomes a fact of a call.
const MAX_PROTOCOLS: usize = 32;

/// Bytes of a record, RFC 8446, section 5.1.
const MAX_RECORD: usize = 1 << 14;
/// Characters of a DNS name, RFC 1035, section 2.3.4, as it is written.
const MAX_NAME: usize = 253;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const APPLICATION_PROTOCOLS: u16 = 16;
const HOST_NAME: u8 = 0;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls says first.
    fn real(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = crate::crypto::provider();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn whole(bytes: &[u8]) -> Progress {
        Parser::default().feed(bytes)
    }

    fn done(sni: Option<&str>, alpn: &[&[u8]]) -> Progress {
        Progress::Done(ClientHello {
            sni: sni.map(str::to_owned),
            alpn: alpn.iter().map(|protocol| protocol.to_vec()).collect(),
        })
    }

    /// A message in records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat();
        message.chunks(size).flat_map(record).collect()
    }

    /// A ClientHello with these extensions.
    fn message(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let list: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &long(data)].concat())
            .collect();
        let body = [&[3, 3], &[7; 32][..], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &long(&list)].concat();
        [&[1, 0], &long(&body)[..]].concat()
    }

    fn long(data: &[u8]) -> Vec<u8> {
        [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
    }

    /// The server name extension's data.
    fn names(names: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = names.iter().flat_map(|name| [&[0], &long(name)[..]].concat()).collect();
        long(&list)
    }

    fn of_extensions(extensions: &[(u16, &[u8])]) -> Progress {
        whole(&records(&message(extensions), 1 << 14))
    }

    #[test]
    fn real_ones_are_read() {
        type Case<'a> = (&'a str, Option<&'a str>, &'a [&'a [u8]]);
        let cases: [Case<'_>; 5] = [
            ("www.example.net", Some("www.example.net"), &[]),
            ("a.b", Some("a.b"), &[b"h2", b"http/1.1"]),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example"), &[b"postgresql"]),
            ("10.0.0.1", None, &[b"\x0a\x0a"]),
            ("::1", None, &[]),
        ];
        for (name, sni, alpn) in cases {
            assert_eq!(whole(&real(name, alpn)), done(sni, alpn), "{name}");
        }
        // What follows belongs to somebody else.
        let more = [real("www.example.net", &[]), b"early data".to_vec()].concat();
        assert_eq!(whole(&more), done(Some("www.example.net"), &[]));
    }

    #[test]
    fn they_may_come_byte_by_byte_in_records_of_one_byte() {
        let bytes = real("www.example.net", &[b"h2"]);
        let in_tiny_records = records(&bytes[5..], 1);
        for bytes in [bytes, in_tiny_records] {
            let mut parser = Parser::default();
            let (last, before) = bytes.split_last().unwrap();
            for byte in before {
                assert_eq!(parser.feed(&[*byte]), Progress::Incomplete);
            }
            assert_eq!(parser.feed(&[*last]), done(Some("www.example.net"), &[b"h2"]));
        }
    }

    #[test]
    fn names_are_told_in_lower_case_and_have_to_be_names() {
        let sni = |name: &[u8]| of_extensions(&[(0, &names(&[name]))]);
        for (name, told) in [
            (&b"WWW.Example.NET"[..], Some("www.example.net")),
            (b"example.net.", Some("example.net")),
            (b"_sip._tcp.example", Some("_sip._tcp.example")),
            (b"localhost", Some("localhost")),
            (b"192.0.2.1", None),
        ] {
            assert_eq!(sni(name), done(told, &[]), "{name:?}");
        }
        let long_label = [b'a'; 64];
        let long_name = b"abcdefghi.".repeat(26);
        for name in [
            &b""[..],
            b".",
            b"a..b",
            b".example",
            b"a b",
            b"a\0.example",
            b"*.example",
            b"b\xc3\xbccher.example",
            b"[::1]",
            b"a/b",
            &long_label,
            &long_name,
        ] {
            assert_eq!(sni(name), Progress::Refused(Refusal::Malformed), "{name:?}");
        }
    }

    #[test]
    fn what_is_there_without_extensions_or_with_unknown_ones() {
        assert_eq!(of_extensions(&[]), done(None, &[]));
        assert_eq!(
            of_extensions(&[(0x0a0a, b""), (0xfafa, b"\0"), (0xfe0d, b"ech")]),
            done(None, &[])
        );
        // TLS 1.0 without the list at all.
        let mut body = message(&[]);
        body.truncate(body.len() - 2);
        body[3] -= 2;
        assert_eq!(whole(&records(&body, 1 << 14)), done(None, &[]));
        // An unknown kind of name beside the known one.
        let list = [&[0][..], &long(b"a.example"), &[9], &long(b"\xff")].concat();
        assert_eq!(of_extensions(&[(0, &long(&list))]), done(Some("a.example"), &[]));
    }

    #[test]
    fn what_is_not_tls_is_known_at_its_first_byte() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"S",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"\x80\x2e\x01",
            b"\x15\x03\x01",
            b"\x16G",
        ] {
            assert_eq!(whole(bytes), Progress::Refused(Refusal::NotTls), "{bytes:?}");
        }
        assert_eq!(whole(b""), Progress::Incomplete);
        assert_eq!(whole(b"\x16"), Progress::Incomplete);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let name = names(&[b"a.example"]);
        let protocols = long(b"\x02h2");
        let malformed: Vec<(&str, Vec<u8>)> = vec![
            (
                "two names of a kind",
                message(&[(0, &names(&[b"a.example", b"b.example"]))]),
            ),
            ("the extension twice", message(&[(0, &name), (0, &name)])),
            ("protocols twice", message(&[(16, &protocols), (16, &protocols)])),
            ("no name in the list", message(&[(0, &long(b""))])),
            ("an empty extension", message(&[(0, b"")])),
            ("more than the list", message(&[(0, &[&name[..], b"x"].concat())])),
            ("less than the list", message(&[(0, &name[..name.len() - 1])])),
            ("no protocol", message(&[(16, &long(b""))])),
            ("an empty protocol", message(&[(16, &long(b"\0"))])),
            ("a protocol beyond its list", message(&[(16, &long(b"\x09h2"))])),
            ("too many protocols", message(&[(16, &long(&b"\x01a".repeat(33)))])),
            ("another message", [&[2][..], &message(&[])[1..]].concat()),
        ];
        for (what, message) in malformed {
            assert_eq!(
                whole(&records(&message, 1 << 14)),
                Progress::Refused(Refusal::Malformed),
                "{what}"
            );
        }
        let good = message(&[]);
        for (at, byte, what) in [
            (38, 33, "a long session"),
            (40, 3, "odd suites"),
            (43, 0, "no compression"),
            (46, 1, "a long list"),
        ] {
            let mut message = good.clone();
            message[at] = byte;
            assert_eq!(
                whole(&records(&message, 1 << 14)),
                Progress::Refused(Refusal::Malformed),
                "{what}"
            );
        }
    }

    #[test]
    fn the_limit_is_the_same_in_whatever_pieces_it_comes() {
        // The largest message that fits in one record does not fit in two.
        let most = MAX_BYTES - RECORD_HEADER;
        let message = message(&[(21, &vec![0; most - MESSAGE_HEADER - 47])]);
        assert_eq!(message.len(), most);
        for (size, expected) in [(most, done(None, &[])), (16_000, Progress::Refused(Refusal::TooLong))] {
            let bytes = records(&message, size);
            assert_eq!(whole(&bytes), expected, "{size}");
            let mut parser = Parser::default();
            let mut fed = bytes.iter().map(|byte| parser.feed(&[*byte]));
            assert_eq!(
                fed.find(|progress| *progress != Progress::Incomplete),
                Some(expected),
                "{size}"
            );
        }
    }

    #[test]
    fn bombs_are_refused_before_they_go_off() {
        // An empty record, of which there could be any number.
        assert_eq!(whole(b"\x16\x03\x01\0\0"), Progress::Refused(Refusal::NotTls));
        assert_eq!(
            whole(b"\x16\x03\x01\0\x01\x01\x16\x03\x01\0\0"),
            Progress::Refused(Refusal::Malformed)
        );
        // A record longer than there are.
        assert_eq!(whole(b"\x16\x03\x01\x40\x01"), Progress::Refused(Refusal::NotTls));
        // A message of 16 MiB, told by its length.
        assert_eq!(
            whole(b"\x16\x03\x01\x40\0\x01\xff\xff\xff"),
            Progress::Refused(Refusal::TooLong)
        );
        // Another record in between.
        assert_eq!(
            whole(b"\x16\x03\x01\0\x01\x01\x17\x03\x01"),
            Progress::Refused(Refusal::Malformed)
        );
        // Thousands of records of one byte.
        let message = message(&[(21, &[0; 8000])]);
        let mut parser = Parser::default();
        let fed = records(&message, 1)
            .iter()
            .take_while(|byte| parser.feed(&[**byte]) == Progress::Incomplete)
            .count();
        assert_eq!(fed, MAX_BYTES - 1);
        assert!(parser.message.capacity() <= MAX_BYTES);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_cutting_changes_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cut in any::<prop::sample::Index>(),
            as_hello in any::<bool>(),
        ) {
            let bytes = match as_hello {
                true => records(&[&[1, 0], &long(&bytes)[..]].concat(), 1 << 14),
                false => bytes,
            };
            let at = cut.index(bytes.len() + 1);
            let mut parser = Parser::default();
            let first = parser.feed(&bytes[..at]);
            let both = match first {
                Progress::Incomplete => parser.feed(&bytes[at..]),
                ended => ended,
            };
            prop_assert_eq!(both, whole(&bytes));
        }

        #[test]
        fn a_real_one_with_changes_is_read_or_refused(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut bytes = message(&[(0, &names(&[b"www.example.net"])), (16, &long(b"\x02h2\x08http/1.1"))]);
            bytes = records(&bytes, 40);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Progress::Done(hello) = whole(&bytes)
                && let Some(sni) = hello.sni
            {
                prop_assert!(sni.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
            }
        }

        #[test]
        fn records_of_any_size_make_the_same_message(size in 1_usize..600) {
            let bytes = real("www.example.net", &[b"h2"]);
            prop_assert_eq!(whole(&records(&bytes[5..], size)), done(Some("www.example.net"), &[b"h2"]));
        }
    }
}
