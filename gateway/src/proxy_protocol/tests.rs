#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn complete(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Ok(Parsed::Complete { header, length }) if length == bytes.len() => header,
        other => panic!("{bytes:?}: {other:?}"),
    }
}

/// Whatever follows, and however it is cut: the same header, the same end, and never more asked for than it has.
fn comes_in_pieces(bytes: &[u8]) {
    let header = complete(bytes);
    for cut in 0..bytes.len() {
        match parse(&bytes[..cut]) {
            Ok(Parsed::Incomplete { need }) => assert!(need > cut && need <= bytes.len(), "{cut}: {need}"),
            other => panic!("{cut} of {bytes:?}: {other:?}"),
        }
    }
    for follows in [&b"\r\n"[..], b"\n", b"PROXY ", b"GET / HTTP/1.1\r\n\r\n"] {
        let length = bytes.len();
        let expected = Parsed::Complete {
            header: header.clone(),
            length,
        };
        assert_eq!(parse(&[bytes, follows].concat()), Ok(expected));
    }
}

fn tcp(source: &str, destination: &str) -> Header {
    Header::proxied(
        Addresses::tcp(source.parse().unwrap(), destination.parse().unwrap()),
        Vec::new(),
    )
}

#[test]
fn lines_of_version_1() {
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let cases = [
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n".to_owned(),
            tcp("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        (
            "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n".to_owned(),
            tcp("255.255.255.255:65535", "0.0.0.0:0"),
        ),
        (
            "PROXY TCP6 2001:DB8::1 ::1 1 2\r\n".to_owned(),
            tcp("[2001:db8::1]:1", "[::1]:2"),
        ),
        (
            format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n"),
            tcp(&format!("[{longest}]:65535"), &format!("[{longest}]:65535")),
        ),
        // As inet_ntop(3) writes them.
        (
            "PROXY TCP6 ::ffff:1.2.3.4 ::ffff:5.6.7.8 1 2\r\n".to_owned(),
            tcp("[::ffff:1.2.3.4]:1", "[::ffff:5.6.7.8]:2"),
        ),
        ("PROXY UNKNOWN\r\n".to_owned(), Header::Unknown),
        ("PROXY UNKNOWN \r\n".to_owned(), Header::Unknown),
        (
            format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n"),
            Header::Unknown,
        ),
        ("PROXY UNKNOWN what\0ever \u{ff}\r\n".to_owned(), Header::Unknown),
    ];
    for (line, header) in cases {
        assert_eq!(complete(line.as_bytes()), header, "{line:?}");
        comes_in_pieces(line.as_bytes());
    }
}

#[test]
fn what_is_no_line_of_version_1() {
    use ParseError::*;
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(94));
    let late = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let cases: [(&[u8], ParseError); 41] = [
        (b"GET / HTTP/1.1\r\n\r\n", NoHeader),
        (b"\x16\x03\x01\x02\x00", NoHeader),
        (b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", NoHeader),
        (b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", NoHeader),
        (b"PROXI", NoHeader),
        (b"PROXY\r\n", NoHeader),
        (b"PROXY\tTCP4", NoHeader),
        (b"POST / HTTP/1.1\r\n", NoHeader),
        (b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Protocol),
        (b"PROXY TCP5", Protocol),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Protocol),
        (b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", Protocol),
        (b"PROXY \r\n", Protocol),
        (b"PROXY TCP4\r\n", Protocol),
        (b"PROXY UNKNOWNX\r\n", Protocol),
        (b"PROXY UNKNOWN\t\r\n", Protocol),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", LineEnd),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX", LineEnd),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n", LineEnd),
        (b"PROXY UNKNOWN\n\r\n", LineEnd),
        (endless.as_bytes(), EndlessLine),
        (late.as_bytes(), EndlessLine),
        (b"PROXY TCP4 \r\n", Fields),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Fields),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Fields),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", Fields),
        (b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", Fields),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \xff\r\n", Fields),
        (b"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", Fields),
        (b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", Address),
        (b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", Address),
        (b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n", Address),
        (b"PROXY TCP4 1.2.3.4:9 5.6.7.8 1 2\r\n", Address),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Address),
        (b"PROXY TCP6 ::1%1 ::1 1 2\r\n", Address),
        (b"PROXY TCP6 1::2::3 ::1 1 2\r\n", Address),
        (b"PROXY TCP6 12345::1 ::1 1 2\r\n", Address),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", Port),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Port),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", Port),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

/// A header of version 2 with these four bytes after the signature's and this rest, whose length may be claimed otherwise.
fn v2(command: u8, family: u8, length: usize, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(length).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, 12 + tlvs.len(), &[&ADDRESSES, tlvs].concat())
}

#[test]
fn headers_of_version_2() {
    let unix = [&[b'a'; UNIX_PATH][..], &[b'b'; UNIX_PATH]].concat();
    let six = [&[0x20, 1, 13, 0xb8][..], &[0; 12], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
    let cases = [
        (v2(0x20, 0x00, 0, b""), Header::Local),
        // A family that is none, addresses and rubbish: all of no account.
        (v2(0x20, 0xff, 5, b"abcde"), Header::Local),
        (v2(0x21, 0x00, 0, b""), Header::Unknown),
        (v2(0x21, 0x00, 3, b"abc"), Header::Unknown),
        (v2(0x21, 0x01, 0, b""), Header::Unknown),
        (v2(0x21, 0x10, 12, &ADDRESSES), Header::Unknown),
        (v2(0x21, 0x12, 12, &ADDRESSES), Header::Unknown),
        (v2(0x21, 0x22, 36, &six), Header::Unknown),
        (v2(0x21, 0x32, 216, &unix), Header::Unknown),
        (
            v2(0x21, 0x11, 12, &ADDRESSES),
            tcp("192.0.2.1:56324", "198.51.100.7:443"),
        ),
        (v2(0x21, 0x21, 36, &six), tcp("[2001:db8::]:1", "[::1]:2")),
        (
            v2(0x21, 0x31, 216, &unix),
            Header::proxied(
                Addresses::Unix {
                    source: [b'a'; UNIX_PATH],
                    destination: [b'b'; UNIX_PATH],
                },
                Vec::new(),
            ),
        ),
        // Padding.
        (
            with_tlvs(&[4, 0, 0, 4, 0, 2, 9, 9]),
            tcp("192.0.2.1:56324", "198.51.100.7:443"),
        ),
        (v2(0x20, 0x00, MAX_LENGTH, &[0; MAX_LENGTH]), Header::Local),
    ];
    for (bytes, header) in cases {
        assert_eq!(complete(&bytes), header, "{}", bytes.escape_ascii());
        comes_in_pieces(&bytes);
    }
}

#[test]
fn what_is_no_header_of_version_2() {
    use ParseError::*;
    let authority = |value: &[u8]| with_tlvs(&[&[2, 0, u8::try_from(value.len()).unwrap()][..], value].concat());
    let unique = with_tlvs(&[&[5, 0, 129][..], &[0; 129]].concat());
    let cases = [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), NoHeader),
        (b"\r\n\r\n\r\n".to_vec(), NoHeader),
        (v2(0x11, 0x11, 12, &ADDRESSES), Version(1)),
        (v2(0x31, 0x11, 12, &ADDRESSES), Version(3)),
        (v2(0x22, 0x11, 12, &ADDRESSES), Command(2)),
        (v2(0x21, 0x41, 12, &ADDRESSES), Family(0x41)),
        (v2(0x21, 0x13, 12, &ADDRESSES), Family(0x13)),
        (v2(0x21, 0x11, MAX_LENGTH + 1, b""), TooLong),
        (v2(0x20, 0x00, 65_535, b""), TooLong),
        (v2(0x21, 0x11, 11, &ADDRESSES), ShortAddresses),
        (v2(0x21, 0x11, 0, b""), ShortAddresses),
        (v2(0x21, 0x21, 35, &[0; 35]), ShortAddresses),
        (v2(0x21, 0x31, 215, &[0; 215]), ShortAddresses),
        (with_tlvs(&[1]), CutTlv),
        (with_tlvs(&[1, 0]), CutTlv),
        (with_tlvs(&[1, 0, 1]), CutTlv),
        (with_tlvs(&[0xea, 0xff, 0xff, 1]), CutTlv),
        (with_tlvs(&[0xea, 0, 0].repeat(MAX_TLVS + 1)), TooManyTlvs),
        (with_tlvs(&[1, 0, 0, 1, 0, 0]), TwiceTlv(1)),
        (with_tlvs(&[2, 0, 0, 0xea, 0, 0, 2, 0, 0]), TwiceTlv(2)),
        (authority(b"\xff"), TlvValue(2)),
        (unique, TlvValue(5)),
        (with_tlvs(&[3, 0, 3, 0, 0, 0]), TlvValue(3)),
        (with_tlvs(&[3, 0, 4, 0, 0, 0, 0]), Checksum),
        (with_tlvs(&[0x20, 0, 4, 1, 0, 0, 0]), TlvValue(0x20)),
        (with_tlvs(&[0x20, 0, 6, 1, 0, 0, 0, 0, 0x21]), CutTlv),
        (with_tlvs(&[0x20, 0, 8, 1, 0, 0, 0, 0, 0x21, 0, 1]), CutTlv),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_header_of_haproxy() {
    // HAProxy 2.6: `send-proxy-v2 proxy-v2-options crc32c,unique-id`.
    let bytes = b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x1c\x7f\x00\x00\x01\x7f\x00\x00\x01\xb6\x98F\xa1\x03\x00\x04\x04x[5\
        \x05\x00\x06id-0-7";
    let addresses = Addresses::tcp("127.0.0.1:46744".parse().unwrap(), "127.0.0.1:18081".parse().unwrap());
    let header = Header::proxied(addresses, vec![Tlv::UniqueId(b"id-0-7"[..].into())]);
    assert_eq!(complete(bytes), header);
}

#[test]
fn a_checksum_is_over_everything() {
    let mut tlvs = vec![Tlv::Alpn(b"h2"[..].into())];
    tlvs.push(Tlv::Other(RawTlv {
        kind: 0xea,
        value: b"\x01vpce-1"[..].into(),
    }));
    let header = Header::proxied(
        Addresses::tcp("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()),
        tlvs,
    );
    let bytes = header.encode(Format::V2 { checksum: true });
    assert_eq!(complete(&bytes), header);
    for bit in (16 * 8)..(bytes.len() * 8) {
        if bit / 8 == bytes.len() - 7 {
            // The type of the checksum itself: then it is no checksum.
            continue;
        }
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(parse(&wrong).is_err(), "bit {bit}");
    }
}

#[test]
fn ends_of_two_families_are_both_given_as_ipv6() {
    let header = tcp("192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(
        header.encode(Format::V1),
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"
    );
    assert_eq!(complete(&header.encode(Format::V2 { checksum: false })), header);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let big = |kind, length| {
        Tlv::Other(RawTlv {
            kind,
            value: vec![7; length].into(),
        })
    };
    let addresses = Addresses::tcp("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    let tlvs = vec![big(0xe0, 4000), big(0xe1, 70_000), big(0xe2, 100), big(0xe3, 10)];
    let bytes = Header::proxied(addresses.clone(), tlvs).encode(Format::V2 { checksum: true });
    assert_eq!(
        complete(&bytes),
        Header::proxied(addresses, vec![big(0xe0, 4000), big(0xe3, 10)])
    );
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let v4 = || (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip, port));
    let v6 = || (any::<Ipv6Addr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV6::new(ip, port, 0, 0));
    prop_oneof![
        (v4(), v4()).prop_map(|(source, destination)| Addresses::Tcp4 { source, destination }),
        (v6(), v6()).prop_map(|(source, destination)| Addresses::Tcp6 { source, destination }),
        (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Addresses::Unix {
            source: [a; UNIX_PATH],
            destination: [b; UNIX_PATH],
        }),
    ]
}

fn any_bytes(most: usize) -> impl Strategy<Value = Box<[u8]>> {
    proptest::collection::vec(any::<u8>(), 0..=most).prop_map(Into::into)
}

fn any_raw(kinds: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = RawTlv> {
    (kinds, any_bytes(64)).prop_map(|(kind, value)| RawTlv { kind, value })
}

/// One of each kind that may be there once, in an order of chance, and some of the others.
fn any_tlvs() -> impl Strategy<Value = Vec<Tlv>> {
    let ssl = (
        any::<u8>(),
        any::<u32>(),
        proptest::collection::vec(any_raw(0x21..=0x25), 0..6),
    )
        .prop_map(|(client, verify, details)| Ssl {
            client,
            verify,
            details,
        });
    let authority = proptest::collection::vec(any::<char>(), 0..40);
    let known = (
        any_bytes(MAX_ALPN).prop_map(Tlv::Alpn),
        authority.prop_map(|chars| Tlv::Authority(chars.into_iter().collect::<String>().into())),
        any_bytes(MAX_UNIQUE_ID).prop_map(Tlv::UniqueId),
        ssl.prop_map(Tlv::Ssl),
        any_bytes(64).prop_map(Tlv::Namespace),
    )
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e]);
    let others = proptest::collection::vec(any_raw(0xe0..=0xff).prop_map(Tlv::Other), 0..10);
    let all = (known, others).prop_map(|(known, others)| [known, others].concat());
    all.prop_flat_map(|all| {
        let most = all.len();
        proptest::sample::subsequence(all, 0..=most).prop_shuffle()
    })
}

#[test]
fn a_line_that_ends_too_late_is_endless_whatever_its_bytes_are() {
    // Zeros with a few 0x0e are the seed that a property test found.
    for (fill, other) in [(b'0', b'0'), (0, 0x0e), (0x0e, 0)] {
        for last in [b'\r', b'\n', b'x', fill, other] {
            let mut bytes = b"PROXY TCP4 ".to_vec();
            while bytes.len() < MAX_LINE - 1 {
                bytes.push(if bytes.len().is_multiple_of(7) { other } else { fill });
            }
            for end in b"PROXY TCP4 ".len()..bytes.len() {
                let verdict = parse(&bytes[..end]);
                assert!(matches!(verdict, Ok(Parsed::Incomplete { .. })), "{end}: {verdict:?}");
            }
            assert_eq!(parse(&bytes), Err(ParseError::EndlessLine));
            bytes.push(last);
            assert_eq!(parse(&bytes), Err(ParseError::EndlessLine));
        }
    }
}

proptest! {
    #[test]
    fn version_2_says_everything_and_comes_in_pieces(
        addresses in any_addresses(),
        tlvs in any_tlvs(),
        checksum in any::<bool>(),
    ) {
        let header = Header::proxied(addresses, tlvs);
        let bytes = header.encode(Format::V2 { checksum });
        prop_assert_eq!(complete(&bytes), header);
        comes_in_pieces(&bytes);
    }

    #[test]
    fn version_1_says_the_addresses(addresses in any_addresses(), tlvs in any_tlvs()) {
        let bytes = Header::proxied(addresses.clone(), tlvs).encode(Format::V1);
        prop_assert!(bytes.len() <= MAX_LINE);
        let expected = match addresses {
            Addresses::Unix { .. } => Header::Unknown,
            addresses => Header::proxied(addresses, Vec::new()),
        };
        prop_assert_eq!(complete(&bytes), expected);
        comes_in_pieces(&bytes);
    }

    /// More bytes do not turn an error into something else, and what is complete stays what it is.
    #[test]
    fn random_bytes_are_judged_once(
        begin in prop_oneof![
            Just(b"PROXY TCP4 ".to_vec()),
            Just(b"PROXY TCP6 ".to_vec()),
            Just([&SIGNATURE[..], &[0x21, 0x11, 0]].concat()),
            Just([&SIGNATURE[..], &[0x21, 0x21, 0]].concat()),
            Just(Vec::new()),
        ],
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"0123456789abcdef:. \r\n".to_vec())], 0..200),
    ) {
        let bytes = [begin, rest].concat();
        let mut verdict = None;
        for end in 0..=bytes.len() {
            let now = parse(&bytes[..end]);
            if let Ok(Parsed::Incomplete { need }) = now {
                prop_assert!(verdict.is_none());
                prop_assert!(need > end && need <= MAX_HEADER);
            } else if let Some(verdict) = &verdict {
                prop_assert_eq!(&now, verdict);
            } else {
                verdict = Some(now);
            }
        }
    }
}
