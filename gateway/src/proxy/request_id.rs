//! The number that a request gets, for logs, servers and clients alike.

use http::header::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::config::{IncomingId, RequestId, UuidVersion};
use crate::twins;

/// Gives a request its number: the one that it came with where that is kept, else a new one. No other field stays by which a server
/// could take another number for it.
pub fn assign(config: &RequestId, from_trusted: bool, headers: &mut HeaderMap) -> HeaderValue {
    twins::remove(headers, &config.header);
    let keeps = match config.incoming {
        IncomingId::Never => false,
        IncomingId::Trusted => from_trusted,
        IncomingId::Any => true,
    };
    if keeps {
        let mut values = headers.get_all(&config.header).iter();
        if let (Some(value), None) = (values.next(), values.next())
            && is_valid(value.as_bytes())
        {
            return value.clone();
        }
    }
    let value = make(config.version);
    headers.insert(&config.header, value.clone());
    value
}

/// A new number.
pub fn make(version: UuidVersion) -> HeaderValue {
    let id = match version {
        UuidVersion::V4 => Uuid::new_v4(),
        UuidVersion::V7 => Uuid::now_v7(),
    };
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // Hexadecimal digits and hyphens.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or(HeaderValue::from_static("-"))
}

/// Whether somebody else's number is kept: it goes into log lines and databases, so it is short and plain.
fn is_valid(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:/+=@".contains(byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(is_plain)
}

/// As long as the numbers that cloud balancers and tracers make, twice over.
const MAX_LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_short_numbers_are_kept() {
        assert!(is_valid(b"Root=1-67891233-abcdef012345678912345678"));
        assert!(is_valid(b"0193a1b2-0000-7000-8000-000000000000"));
        for id in [&b""[..], b"a b", b"a\"b", b"a\x80", b"a{b}", &[b'a'; MAX_LENGTH + 1]] {
            assert!(!is_valid(id), "{id:?}");
        }
    }

    #[test]
    fn the_version_is_as_told() {
        assert_eq!(make(UuidVersion::V4).as_bytes()[14], b'4');
        assert_eq!(make(UuidVersion::V7).as_bytes()[14], b'7');
    }
}
