//! What a client sent stays in its place.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use gateway_plugin_template::{Facts, Kind, NoFacts, Piece, Place, Text};
use proptest::prelude::*;

fn written(value: &[u8], kind: Kind, place: Place) -> Vec<u8> {
    let mut out = Vec::new();
    kind.write(value, place, &mut out);
    out
}

/// What each place makes of a value that tries to leave it.
#[test]
fn a_value_cannot_leave_its_place() {
    let value = b"\r\nSet-Cookie: x<\"'&/?#`$\xff";
    for (place, expected) in [
        (Place::Header, &b"__Set-Cookie: x<\"'&/?#`$\xff"[..]),
        (Place::Uri, b"%0D%0ASet-Cookie%3A%20x%3C%22%27%26%2F%3F%23%60%24%FF"),
        (Place::Path, b"%0D%0ASet-Cookie%3A%20x%3C%22%27%26%2F%3F%23%60%24%FF"),
        (Place::Query, b"%0D%0ASet-Cookie%3A%20x%3C%22%27%26%2F%3F%23%60%24%FF"),
        (
            Place::Parameter,
            b"%0D%0ASet-Cookie%3A%20x%3C%22%27%26%2F%3F%23%60%24%FF",
        ),
        (Place::Text, value),
        (Place::Markup, b"\r\nSet-Cookie: x&lt;&quot;&#39;&amp;/?#`$\xff"),
        (
            Place::Quoted,
            br#"\u000d\u000aSet-Cookie: x\u003c\"\u0027\u0026/?#\u0060\u0024\ufffd"#,
        ),
    ] {
        let out = written(value, Kind::First, place);
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{place:?}"
        );
    }
}

#[test]
fn parts_of_a_uri_stand_in_uris_as_they_are() {
    let value = b"/a%20b?c=d&e#f {";
    for (place, expected) in [
        (Place::Uri, &b"/a%20b?c=d&e#f%20%7B"[..]),
        (Place::Path, b"/a%20b%3Fc=d&e%23f%20%7B"),
        (Place::Query, b"/a%20b?c=d&e%23f%20%7B"),
        (Place::Parameter, b"%2Fa%2520b%3Fc%3Dd%26e%23f%20%7B"),
        (Place::Header, value),
    ] {
        assert_eq!(written(value, Kind::Uri, place), expected, "{place:?}");
    }
}

/// Values of one fact.
struct Values(Vec<&'static [u8]>);

impl Facts<()> for Values {
    fn get(&self, (): ()) -> Option<&[u8]> {
        self.0.first().copied()
    }

    fn all(&self, (): ()) -> impl Iterator<Item = &[u8]> {
        self.0.iter().copied()
    }
}

#[test]
fn a_text_is_its_pieces() {
    let text: Text<()> = [
        Piece::Text("a=".to_owned()),
        Piece::Fact((), Kind::List),
        Piece::Text(";".to_owned()),
        Piece::Fact((), Kind::First),
    ]
    .into_iter()
    .collect();
    assert_eq!((text.as_plain(), text.fixed_length()), (None, 3));
    let mut out = Vec::new();
    text.write(&Values(vec![b"1", b"2"]), Place::Header, &mut out);
    text.write(&NoFacts, Place::Header, &mut out);
    assert_eq!(out, b"a=1, 2;1a=;");
    assert_eq!(written(&[192, 0, 2, 7], Kind::Address, Place::Text), b"192.0.2.7");
    assert_eq!(written(&[1, 2, 3], Kind::Address, Place::Text), b"");
    assert_eq!(written(b"4 2026-01-01T", Kind::Time, Place::Text), b"2026-01-01T");
}

proptest! {
    #[test]
    fn what_is_written_for_headers_and_uris_is_one(value: Vec<u8>) {
        let header = written(&value, Kind::First, Place::Header);
        prop_assert!(http::HeaderValue::from_bytes(&header).is_ok());
        for kind in [Kind::Uri, Kind::First] {
            for place in [Place::Uri, Place::Path, Place::Query, Place::Parameter] {
                let out = written(&value, kind, place);
                prop_assert!(out.iter().all(u8::is_ascii_graphic));
                prop_assert!(place != Place::Path || !out.iter().any(|byte| b"?#".contains(byte)));
            }
        }
    }

    #[test]
    fn nothing_ends_a_string_or_a_script(value: Vec<u8>) {
        let out = String::from_utf8(written(&value, Kind::First, Place::Quoted)).unwrap();
        let is_left = out.contains(['<', '>', '&', '\'', '`', '\n', '\r', '\u{2028}']);
        prop_assert!(!is_left, "{}", out);
        let mut characters = out.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => prop_assert!(matches!(characters.next(), Some('"' | '\\' | 'u'))),
                other => prop_assert!(other != '"'),
            }
        }
    }
}
