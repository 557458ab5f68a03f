//! Heads: those of requests as they are written, those of responses as they are read.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version, request, response};
use hyper::ext::ReasonPhrase;

use super::names;
use crate::config::ResponseLimits;

/// Writes the head of a request whose content has this length; none when it has to come in chunks.
pub(super) fn encode(out: &mut Vec<u8>, request: &request::Parts, length: Option<u64>) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut said_length = false;
    for (name, value) in &request.headers {
        if *name == header::CONTENT_LENGTH {
            said_length = true;
        } else if *name != header::TRANSFER_ENCODING {
            encode_field(out, name, value);
        }
    }
    match length {
        Some(0) if !said_length && !means_content(&request.method) => {}
        Some(length) => {
            use std::io::Write;
            // Writing to a vector does not fail.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        None => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request of this method says so when it has no content (RFC 9110, section 8.6).
fn means_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Writes fields as they stand.
pub(super) fn encode_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        encode_field(out, name, value);
    }
}

fn encode_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is longer than allowed, or has more fields.
    TooLarge,
    /// It is no head of HTTP/1.
    Malformed,
    /// Its content is coded for the transfer in another way than in chunks.
    Coding,
    /// It says in several ways how long its content is, or in none that makes sense.
    Length,
    /// It is one more informational response than there may be.
    Informational,
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) response: response::Parts,
    pub(super) seen: Seen,
    /// Bytes of it.
    pub(super) length: usize,
}

/// Which of the fields that frame it a head has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) connection: bool,
    pub(super) coding: bool,
    pub(super) length: bool,
}

/// Whether a head may have ended in these bytes.
pub(super) fn may_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

/// Reads the head that these bytes begin with; none when it has not come whole.
pub(super) fn parse(bytes: &Bytes, limits: &ResponseLimits) -> Result<Option<Parsed>, HeadError> {
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut many;
    let slots = match few.get_mut(..limits.headers) {
        Some(slots) => slots,
        None => {
            many = vec![MaybeUninit::uninit(); limits.headers];
            &mut many[..]
        }
    };
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, slots);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= limits.head => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HeadError::Malformed),
    };
    let mut response = Response::new(()).into_parts().0;
    response.status = head
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(HeadError::Malformed)?;
    response.version = match head.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    // What a server says in words of its own goes on to the client.
    let reason = head.reason.unwrap_or_default();
    if !reason.is_empty()
        && response.status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions.insert(reason);
    }
    let mut seen = Seen::default();
    response.headers = HeaderMap::with_capacity(head.headers.len().max(ROOM));
    for field in head.headers.iter() {
        let name = names::of(field.name.as_bytes()).ok_or(HeadError::Malformed)?;
        match name {
            header::CONNECTION => seen.connection = true,
            header::TRANSFER_ENCODING => seen.coding = true,
            header::CONTENT_LENGTH => seen.length = true,
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(|_| HeadError::Malformed)?;
        // Bounded by the limit of fields, which is far below what a map takes.
        let added = response.headers.try_append(name, value);
        added.map_err(|_| HeadError::TooLarge)?;
    }
    Ok(Some(Parsed { response, seen, length }))
}

/// Reads fields, as they stand behind content.
pub(super) fn parse_fields(bytes: &[u8], most: usize) -> Result<HeaderMap, HeadError> {
    let mut slots = vec![httparse::EMPTY_HEADER; most];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(bytes, &mut slots) else {
        return Err(HeadError::Malformed);
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| HeadError::Malformed)?;
        fields.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok(fields)
}

/// The fields of a request's head that was [made](encode) here; none when it is not one.
pub(super) fn fields_of_request(made: &[u8]) -> Option<HeaderMap> {
    let fields = made.iter().position(|byte| *byte == b'\n')? + 1;
    let lines = made.iter().filter(|byte| **byte == b'\n').count();
    parse_fields(&made[fields..], lines).ok()
}

/// Fields of a response for which there is room, at least. hyper takes the map for the client's next request, to which a few are added beside
/// the six that browsers send or more: without room for them all of it would be moved.
const ROOM: usize = 12;

/// Fields for which there is room without asking for any: the default of the limit.
const FEW: usize = 100;
