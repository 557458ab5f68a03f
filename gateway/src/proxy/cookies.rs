//! Cookie and Set-Cookie fields: finding one cookie, taking it out, changing it. Whatever else stands in them stays as it is,
//! byte for byte, be it a cookie or not.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What becomes of a cookie of a request.
pub enum Edit {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// So many bytes at the front of its value go.
    Cut(usize),
}

/// Shows every cookie of this name to `see`, in all Cookie fields and in their order, and does with it what that answers.
/// Fields that have nothing left go, too.
pub fn edit(headers: &mut HeaderMap, name: &[u8], mut see: impl FnMut(&[u8]) -> Edit) {
    let header::Entry::Occupied(mut fields) = headers.entry(header::COOKIE) else {
        return;
    };
    let mut is_some_empty = false;
    for field in fields.iter_mut() {
        if let Some(edited) = edit_field(field.as_bytes(), name, &mut see) {
            is_some_empty |= edited.is_empty();
            // It has only bytes that were there before.
            if let Ok(edited) = HeaderValue::from_bytes(&edited) {
                *field = edited;
            }
        }
    }
    if is_some_empty {
        let left: Vec<_> = fields.iter().filter(|field| !field.is_empty()).cloned().collect();
        fields.remove_entry_mult().1.for_each(drop);
        for field in left {
            headers.append(header::COOKIE, field);
        }
    }
}

/// The first cookie of this name that a request has.
pub fn find<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    headers.get_all(header::COOKIE).iter().find_map(|field| {
        let field = field.as_bytes();
        let value = pairs(field).find_map(|(_, pair)| value_of(field, pair, name))?;
        Some(&field[value])
    })
}

/// What is left of a field; none when it stays as it is.
fn edit_field(field: &[u8], name: &[u8], see: &mut impl FnMut(&[u8]) -> Edit) -> Option<Vec<u8>> {
    let mut edited: Option<Vec<u8>> = None;
    // Up to here the field has been copied.
    let mut copied = 0;
    let mut front_goes = false;
    for (piece, pair) in pairs(field) {
        let Some(value) = value_of(field, pair, name) else {
            continue;
        };
        match see(&field[value.clone()]) {
            Edit::Keep => {}
            Edit::Remove => {
                let edited = edited.get_or_insert_default();
                // The semicolon before it goes with it, or, at the front, the one behind it.
                let before = piece.start.saturating_sub(1);
                front_goes |= piece.start == 0;
                edited.extend_from_slice(&field[copied.min(before)..before]);
                copied = piece.end;
            }
            Edit::Cut(n) => {
                let edited = edited.get_or_insert_default();
                edited.extend_from_slice(&field[copied..value.start]);
                copied = (value.start + n).min(value.end);
            }
        }
    }
    let mut edited = edited?;
    edited.extend_from_slice(&field[copied..]);
    if front_goes {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let from = usize::from(edited.first() == Some(&b';'));
        let spaces = edited[from..].iter().take_while(|byte| is_space(byte)).count();
        edited.drain(..from + spaces);
    }
    Some(edited)
}

/// The pieces between semicolons, and in each of them what is not space. A semicolon ends a cookie wherever it stands, in
/// quotes too (RFC 6265, section 5.4 and 4.2.1).
fn pairs(field: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut start = 0;
    field.split(|byte| *byte == b';').map(move |piece| {
        let at = start..start + piece.len();
        start = at.end + 1;
        let trimmed = trim(field, at.clone());
        (at, trimmed)
    })
}

/// Where the value of a cookie of this name stands; none when it is another's.
fn value_of(field: &[u8], pair: Range<usize>, name: &[u8]) -> Option<Range<usize>> {
    if field.get(pair.start..pair.start + name.len())? != name {
        return None;
    }
    let rest = pair.start + name.len()..pair.end;
    let equals = field.get(rest.clone())?.iter().position(|byte| *byte == b'=')? + rest.start;
    let between = trim(field, rest.start..equals);
    between.is_empty().then(|| trim(field, equals + 1..pair.end))
}

fn trim(field: &[u8], at: Range<usize>) -> Range<usize> {
    let is_space = |i: &usize| matches!(field[*i], b' ' | b'\t');
    let start = at.clone().find(|i| !is_space(i)).unwrap_or(at.end);
    let end = (start..at.end)
        .rev()
        .find(|i| !is_space(i))
        .map_or(start, |last| last + 1);
    start..end
}

/// What becomes of a cookie that a server sets.
pub enum SetEdit {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// Its value becomes this.
    Replace(Vec<u8>),
}

/// Shows every cookie of this name that a response sets to `see`, and does with it what that answers.
pub fn edit_set(headers: &mut HeaderMap, name: &[u8], mut see: impl FnMut(&[u8]) -> SetEdit) {
    let mut goes = false;
    let header::Entry::Occupied(mut fields) = headers.entry(header::SET_COOKIE) else {
        return;
    };
    for field in fields.iter_mut() {
        let Some(value) = set_value(field.as_bytes(), name) else {
            continue;
        };
        match see(&field.as_bytes()[value.clone()]) {
            SetEdit::Keep => {}
            SetEdit::Remove => {
                goes = true;
                *field = GONE;
            }
            SetEdit::Replace(with) => {
                let old = field.as_bytes();
                let new = [&old[..value.start], &with, &old[value.end..]].concat();
                if let Ok(new) = HeaderValue::from_bytes(&new) {
                    *field = new;
                }
            }
        }
    }
    if goes {
        let left: Vec<_> = fields.iter().filter(|field| **field != GONE).cloned().collect();
        fields.remove_entry_mult().1.for_each(drop);
        append_all(headers, &header::SET_COOKIE, left);
    }
}

fn append_all(headers: &mut HeaderMap, name: &HeaderName, values: Vec<HeaderValue>) {
    for value in values {
        headers.append(name.clone(), value);
    }
}

/// Where the value stands of a Set-Cookie of this name.
fn set_value(field: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let (_, pair) = pairs(field).next()?;
    value_of(field, pair, name)
}

/// Marks a field that goes. A server could send no such thing, and nothing would be lost if it did: it sets no cookie.
const GONE: HeaderValue = HeaderValue::from_static("");

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: HeaderName, fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name.clone(), HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    fn left(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
        let fields = headers.get_all(name).iter();
        fields.map(|field| field.to_str().unwrap().to_owned()).collect()
    }

    /// What is seen, and what is left when all of it goes.
    fn without(fields: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut headers = headers(header::COOKIE, fields);
        let mut seen = Vec::new();
        edit(&mut headers, b"SRV", |value| {
            seen.push(String::from_utf8(value.to_vec()).unwrap());
            Edit::Remove
        });
        (seen, left(&headers, header::COOKIE))
    }

    #[test]
    fn one_cookie_is_taken_out_and_the_others_stay_byte_for_byte() {
        for (fields, seen, rest) in [
            (&["SRV=a"][..], &["a"][..], &[][..]),
            (&["SRV=a; x=1"], &["a"], &["x=1"]),
            (&["x=1; SRV=a"], &["a"], &["x=1"]),
            (&["x=1; SRV=a; y=2"], &["a"], &["x=1; y=2"]),
            (&["x=1;SRV=a;y=2"], &["a"], &["x=1;y=2"]),
            (&["SRV=a; SRV=b; x=1"], &["a", "b"], &["x=1"]),
            (&["x=1; SRV=a; SRV=b"], &["a", "b"], &["x=1"]),
            (&["SRV=a; x=1; SRV=b"], &["a", "b"], &["x=1"]),
            // Several fields, as HTTP/2 sends them.
            (&["x=1", "SRV=a", "y=2"], &["a"], &["x=1", "y=2"]),
            // What is odd stays odd.
            (&["x=\"a;b\"; SRV=a;; =; \t;y"], &["a"], &["x=\"a;b\";; =; \t;y"]),
            (&["SRV=a;; x"], &["a"], &["; x"]),
            (&["  SRV = a  ; x = 1 "], &["a"], &["x = 1 "]),
            (&["SRV="], &[""], &[]),
            (&["SRV=a=b; x"], &["a=b"], &["x"]),
            (&["SRV=\"a\""], &["\"a\""], &[]),
        ] {
            let (got, left) = without(fields);
            assert_eq!(
                (got.as_slice(), left.as_slice()),
                (
                    seen.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice(),
                    rest.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()
                ),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_it_is_another_cookie() {
        for field in [
            "srv=a",
            "SRVX=a",
            "XSRV=a",
            "x=SRV=a",
            "x=1, SRV=a",
            "SRV",
            "S RV=a",
            "SRV x=a",
            "",
            ";;",
            "=",
        ] {
            assert_eq!(without(&[field]), (Vec::new(), vec![field.to_owned()]), "{field}");
        }
    }

    #[test]
    fn a_prefix_is_cut_off() {
        let mut headers = headers(header::COOKIE, &["x=1; SRV=a~abc; y=2; SRV=b~d"]);
        edit(&mut headers, b"SRV", |_| Edit::Cut(2));
        assert_eq!(left(&headers, header::COOKIE), ["x=1; SRV=abc; y=2; SRV=d"]);
        assert_eq!(find(&headers, b"SRV"), Some(&b"abc"[..]));
        assert_eq!(find(&headers, b"z"), None);
    }

    #[test]
    fn cookies_that_a_server_sets_are_found_and_changed() {
        let fields = ["a=1", "SRV = x ; Path=/; HttpOnly", "SRVX=1", "b=2; SRV=1"];
        let mut with = headers(header::SET_COOKIE, &fields);
        edit_set(&mut with, b"SRV", |value| SetEdit::Replace([b"app~", value].concat()));
        let expected = ["a=1", "SRV = app~x ; Path=/; HttpOnly", "SRVX=1", "b=2; SRV=1"];
        assert_eq!(left(&with, header::SET_COOKIE), expected);
        let mut with = headers(header::SET_COOKIE, &fields);
        edit_set(&mut with, b"SRV", |_| SetEdit::Remove);
        assert_eq!(left(&with, header::SET_COOKIE), ["a=1", "SRVX=1", "b=2; SRV=1"]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_found_that_was_taken_out(
            fields in proptest::collection::vec("[SRV=; \tx\"]{0,24}", 0..4),
            cut in 0_usize..4,
        ) {
            let fields: Vec<_> = fields.iter().map(String::as_str).collect();
            let mut all = headers(header::COOKIE, &fields);
            edit(&mut all, b"SRV", |_| Edit::Cut(cut));
            edit(&mut all, b"SRV", |_| Edit::Keep);
            let (_, rest) = without(&fields);
            let rest: Vec<_> = rest.iter().map(String::as_str).collect();
            prop_assert_eq!(without(&rest).0, Vec::<String>::new());
        }

        #[test]
        fn other_cookies_are_all_still_there(
            values in proptest::collection::vec("[a-z]{1,3}=[a-z0-9]{0,3}", 1..6),
            at in 0_usize..6,
        ) {
            let mut with = values.clone();
            with.insert(at.min(values.len()), "SRV=a".to_owned());
            let (_, rest) = without(&[&with.join("; ")]);
            prop_assert_eq!(rest, vec![values.join("; ")]);
        }
    }
}
