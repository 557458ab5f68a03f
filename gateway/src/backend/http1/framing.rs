//! Where a message's content ends, and what two readers could differ about (RFC 9112, sections 6 and 9.3).

use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Version, response};

use super::head::{HeadError, Seen};

/// How long a response's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// So many bytes.
    Length(u64),
    /// As its chunks say.
    Chunked,
    /// All that comes until the connection ends.
    UntilClose,
}

/// Where the content ends of a response to a request that was HEAD or was not, and whether the connection goes on behind it.
/// Leaves one Content-Length at most.
pub(super) fn decide(response: &mut response::Parts, seen: Seen, to_head: bool) -> Result<(Extent, bool), HeadError> {
    let headers = &mut response.headers;
    let has_none = matches!(
        response.status,
        StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS
    );
    let says_more = has_none && seen.length && headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let extent = if has_none || to_head || response.status == StatusCode::NOT_MODIFIED {
        if has_none && seen.length {
            // RFC 9110, section 8.6: there is none to have a length.
            headers.remove(header::CONTENT_LENGTH);
        } else if seen.length {
            normalise_length(headers).map_err(|BadLength| HeadError::Length)?;
        }
        Extent::Length(0)
    } else if seen.coding {
        // With HTTP/1.0 there is no such thing: it was put there by somebody who did not know.
        if !has_plain_coding(headers) || response.version < Version::HTTP_11 {
            return Err(HeadError::Coding);
        }
        // One of them was put there by somebody who did not know of the other.
        if seen.length {
            return Err(HeadError::Length);
        }
        Extent::Chunked
    } else if seen.length {
        let length = normalise_length(headers).map_err(|BadLength| HeadError::Length)?;
        length.map_or(Extent::UntilClose, Extent::Length)
    } else {
        Extent::UntilClose
    };
    let persists = match response.version {
        Version::HTTP_11 => !seen.connection || !says(headers, b"close"),
        _ => seen.connection && says(headers, b"keep-alive") && !says(headers, b"close"),
    };
    // What has a length or a coding where it has no content may come with some all the same, and that would be taken for the next
    // response.
    let is_odd = has_none && (says_more || seen.coding);
    // Behind it the server speaks another protocol, and takes no request.
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    Ok((extent, persists && !is_odd && !switches && extent != Extent::UntilClose))
}

/// Whether `Connection` has this word.
fn says(headers: &HeaderMap, word: &[u8]) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
}

/// Whether there is no coding for the transfer but `chunked`, once: others would be passed on unsaid, for the gateway frames
/// the content anew.
pub fn has_plain_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Leaves one Content-Length at most, in digits without zeros before them, and says what it is. Fails when there is one that is
/// no number, or two that differ.
pub fn normalise_length(headers: &mut HeaderMap) -> Result<Option<u64>, BadLength> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let length = parse_length(first)?;
    let mut is_odd = first.len() > 1 && first.as_bytes().starts_with(b"0");
    for again in values {
        if parse_length(again)? != length {
            return Err(BadLength);
        }
        is_odd = true;
    }
    if is_odd {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Some(length))
}

fn parse_length(value: &HeaderValue) -> Result<u64, BadLength> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadLength);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| BadLength)?;
    digits.parse().map_err(|_| BadLength)
}

/// A Content-Length that is no length.
#[derive(Debug)]
pub struct BadLength;
