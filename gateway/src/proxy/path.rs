//! Bringing the path of a request into normal form, before anything decides by it: rules about paths are asked about what a
//! server will take the path for, and the server is sent what they were asked about.
//!
//! The normal form is RFC 3986's (section 6.2.2): unreserved characters are not percent-encoded, other bytes are encoded with
//! capital digits, and the segments `.` and `..` are gone. A `%` that begins no encoding means itself, and is written `%25`:
//! else `%2%65` would come out as `%2e`.

//!
//! A segment `..;x` is refused. Servers that take what follows `;` for parameters of the segment (RFC 3986, section 3.3), as those
//! of Java do, read it as `..`, and others as a name: neither reading can be chosen for all, and nobody means it well.

use http::uri::PathAndQuery;

use super::error::ProxyError;
use crate::config::{EscapedSlashes, NormalizePath};

/// Normalises the path of a request in origin form. Whether that changed it.
pub fn normalize(uri: &mut http::Uri, how: NormalizePath) -> Result<(), ProxyError> {
    let path = uri.path();
    if is_normal(path.as_bytes(), how) || !path.starts_with('/') {
        return Ok(());
    }
    let decoded = decode(path.as_bytes(), how).ok_or(ProxyError::BadRequest("escaped-slash"))?;
    if decoded.split(|byte| *byte == b'/').any(is_disguised) {
        return Err(ProxyError::BadRequest("dot-segment"));
    }
    let mut target = resolve(&decoded, how.merges_slashes);
    if let Some(query) = uri.query() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    let target = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target));
    *uri = http::Uri::from(target.map_err(|_| ProxyError::BadRequest("bad-target"))?);
    Ok(())
}

/// Whether there is nothing to do, which is so for nearly every path.
fn is_normal(path: &[u8], how: NormalizePath) -> bool {
    let mut before = 0;
    for &byte in path {
        let is_fine = match byte {
            b'%' => false,
            b'.' => before != b'/',
            b'/' => before != b'/' || !how.merges_slashes,
            b'\\' => how.escaped_slashes == EscapedSlashes::Keep,
            _ => true,
        };
        if !is_fine {
            return false;
        }
        before = byte;
    }
    true
}

/// Percent-decodes what means the same decoded. None when the path has an encoded slash that it may not have.
fn decode(path: &[u8], how: NormalizePath) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len() + 8);
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let is_encoded = byte == b'%';
        let meant = match byte {
            b'%' => match after {
                [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    rest = after;
                    digit(*high) << 4 | digit(*low)
                }
                _ => {
                    decoded.extend_from_slice(b"%25");
                    continue;
                }
            },
            byte => byte,
        };
        match meant {
            b'/' if !is_encoded => decoded.push(b'/'),
            b'/' | b'\\' if how.escaped_slashes == EscapedSlashes::Reject => return None,
            b'/' | b'\\' if how.escaped_slashes == EscapedSlashes::Decode => decoded.push(b'/'),
            meant if !is_encoded || is_unreserved(meant) => decoded.push(meant),
            meant => decoded.extend_from_slice(&[b'%', hex(meant >> 4), hex(meant & 15)]),
        }
    }
    Some(decoded)
}

/// Whether a segment is `.` or `..` to those who take what follows `;` away, also when that is percent-encoded.
fn is_disguised(segment: &[u8]) -> bool {
    let Some(rest) = segment.strip_prefix(b".") else {
        return false;
    };
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    rest.starts_with(b";") || rest.starts_with(b"%3B")
}

/// Takes the segments `.` and `..` away (RFC 3986, section 5.2.4), and empty ones when slashes are merged.
fn resolve(path: &[u8], merges_slashes: bool) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len() + 1);
    let mut segments = path.get(1..).unwrap_or_default().split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment.len() == 2 {
                    let end = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    out.truncate(end);
                }
                if is_last {
                    out.push(b'/');
                }
            }
            b"" if merges_slashes && !is_last => {}
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        _ => (hex - b'A') + 10,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        0..=9 => b'0' + digit,
        _ => b'A' + digit - 10,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: NormalizePath = NormalizePath {
        merges_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
    };

    fn normal(path: &str, how: NormalizePath) -> String {
        let mut uri: http::Uri = path.parse().unwrap();
        match normalize(&mut uri, how) {
            Ok(()) => uri.to_string(),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b?c=/../d", "/a/b?c=/../d"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..?x", "/a/?x"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61dmin/%7Euser", "/admin/~user"),
            ("/a%2fb%c3%a9", "/a%2Fb%C3%A9"),
            ("/a%252e%252e/b", "/a%252e%252e/b"),
            ("/100%", "/100%25"),
            ("/%2%65%2%65/b", "/%252e%252e/b"),
            ("/%zz", "/%25zz"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("*", "*"),
        ] {
            assert_eq!(normal(path, PLAIN), expected, "{path}");
        }
    }

    #[test]
    fn slashes_are_merged_decoded_or_refused_as_told() {
        let merging = NormalizePath {
            merges_slashes: true,
            ..PLAIN
        };
        for (path, expected) in [
            ("//", "/"),
            ("//admin//x//", "/admin/x/"),
            ("/a//../b", "/b"),
            ("/a/.//b", "/a/b"),
            ("/a//.", "/a/"),
        ] {
            assert_eq!(normal(path, merging), expected, "{path}");
        }
        let refusing = NormalizePath {
            escaped_slashes: EscapedSlashes::Reject,
            ..merging
        };
        for path in ["/a%2fb", "/a%2F..%2Fb", "/a%5cb", "/a%5C..%5Cb"] {
            assert_eq!(normal(path, refusing), "refused", "{path}");
        }
        assert_eq!(normal("/a?b=%2f", refusing), "/a?b=%2f");
        let decoding = NormalizePath {
            escaped_slashes: EscapedSlashes::Decode,
            ..merging
        };
        assert_eq!(normal("/a%2f..%2Fb%5cc", decoding), "/b/c");
    }

    #[test]
    fn dots_with_parameters_are_refused_however_they_are_spelled() {
        for path in [
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "/public/.;/admin",
            "/public/..;",
            "/..;",
            "/public/%2e%2e;/admin",
            "/public/.%2E;/admin",
            "/public/..%3b/admin",
            "/public/%2e%2e%3Bx/admin",
            "/public/..;%2Fadmin",
            "/a/../..;/admin",
        ] {
            assert_eq!(normal(path, PLAIN), "refused", "{path}");
        }
        for (path, expected) in [
            ("/a;x=1/b;y", "/a;x=1/b;y"),
            ("/a;/../b", "/b"),
            ("/;/../a", "/a"),
            ("/..a;/b", "/..a;/b"),
            ("/...;/b", "/...;/b"),
            ("/a..;/b", "/a..;/b"),
            ("/a?b=/..;/c", "/a?b=/..;/c"),
            ("/%252e%252e;/b", "/%252e%252e;/b"),
        ] {
            assert_eq!(normal(path, PLAIN), expected, "{path}");
        }
        let slashes = NormalizePath {
            escaped_slashes: EscapedSlashes::Decode,
            ..PLAIN
        };
        assert_eq!(normal("/public%2f..;%2fadmin", slashes), "refused");
    }

    proptest! {
        #[test]
        fn what_is_normal_stays(path in "(/|\\.|%2e|%2F|%|2|e|a|\\\\){0,24}", merges: bool, slashes in 0..3) {
            let how = NormalizePath {
                merges_slashes: merges,
                escaped_slashes: [EscapedSlashes::Keep, EscapedSlashes::Reject, EscapedSlashes::Decode][slashes as usize],
            };
            let Some(decoded) = decode(format!("/{path}").as_bytes(), how) else { return Ok(()) };
            let once = resolve(&decoded, merges);
            prop_assert!(once.starts_with(b"/"));
            let twice = resolve(&decode(&once, how).unwrap(), merges);
            prop_assert_eq!(&once, &twice);
            let segments = once.split(|byte| *byte == b'/');
            prop_assert!(segments.into_iter().all(|segment| segment != b".." && segment != b"."));
        }
    }
}
