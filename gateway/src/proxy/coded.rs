//! What a message's head says of the coding of its content, for those that change it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};

/// Whether a response may have content that is the whole of a representation: no part of it, and not nothing.
pub fn is_whole(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_content = !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
                | StatusCode::RANGE_NOT_SATISFIABLE
        );
    has_content && !headers.contains_key(header::CONTENT_RANGE)
}

/// Whether whoever sent it lets nobody change its content (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
pub fn is_fixed(headers: &HeaderMap) -> bool {
    says(headers, &header::CACHE_CONTROL, b"no-transform")
}

/// Whether there is a digest: of the content in its coding, or of what the coding is of; neither is known here.
pub fn has_digest(headers: &HeaderMap) -> bool {
    DIGESTS.iter().any(|name| headers.contains_key(name))
}

/// gRPC compresses message by message, and its readers know of nothing around that.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    is_of(headers, GRPC)
}

/// The same without what browsers speak. It is that type alone, or with a suffix or parameters.
pub fn is_grpc_itself(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let behind = kind
        .and_then(|kind| kind.trim_ascii_start().get(GRPC.len()..))
        .and_then(<[u8]>::first);
    is_grpc(headers) && matches!(behind, None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// Of gRPC, what browsers speak: its trailers are a part of the content.
pub fn is_grpc_web(headers: &HeaderMap) -> bool {
    is_of(headers, b"application/grpc-web")
}

/// Whether the content's type begins with this.
fn is_of(headers: &HeaderMap, prefix: &[u8]) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.trim_ascii_start().get(..prefix.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Has a response's head say that its content is another one now, of a length that nobody knows yet.
pub fn changed(head: &mut response::Parts) {
    let headers = &mut head.headers;
    headers.remove(header::CONTENT_LENGTH);
    // Ranges would be of the content as it is now, which is made anew each time.
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
}

/// A cache must not give one client what another one asked for.
pub fn vary(headers: &mut HeaderMap) {
    if !says(headers, &header::VARY, b"*") && !says(headers, &header::VARY, b"accept-encoding") {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether a list has this word.
fn says(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    headers.get_all(name).iter().any(|line| {
        let mut words = line.as_bytes().split(|byte| *byte == b',');
        words.any(|said| said.trim_ascii().eq_ignore_ascii_case(word))
    })
}

/// The tags of what a client has, where one of them is weak: it may have been [made so](changed).
pub fn weak_tags(request: &HeaderMap) -> Option<Box<HeaderValue>> {
    let mut lists = request.get_all(header::IF_NONE_MATCH).iter();
    let list = lists.find(|list| list.as_bytes().windows(3).any(|start| start == b"W/\""))?;
    Some(Box::new(list.clone()))
}

/// What a client has under a weak tag stays under it: a cache takes a 304 with a strong one for none of what it has (RFC 9111, section
/// 4.3.4), or what it has for what the server has, byte for byte.
pub fn keep_weak(headers: &mut HeaderMap, known: &HeaderValue) {
    let Some(tag) = headers.get(header::ETAG) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    if tag.as_bytes().starts_with(b"\"") && known.as_bytes().windows(weak.len()).any(|known| known == weak) {
        weaken(headers);
    }
}

/// The content is another one now, byte for byte, and still says the same (RFC 9110, section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG) else { return };
    if tag.as_bytes().starts_with(b"W/") {
        return;
    }
    let weak = [b"W/", tag.as_bytes()].concat();
    match HeaderValue::from_bytes(&weak) {
        Ok(weak) => headers.insert(header::ETAG, weak),
        Err(_) => headers.remove(header::ETAG),
    };
}

const GRPC: &[u8] = b"application/grpc";

const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_what_browsers_speak() {
        for (kind, is_one, is_itself) in [
            ("application/grpc", true, true),
            ("application/grpc+proto", true, true),
            (" Application/gRPC; charset=utf-8", true, true),
            ("application/grpc-web", true, false),
            ("application/grpc-web-text+proto", true, false),
            ("application/grpcx", true, false),
            ("application/json", false, false),
            ("application/grp", false, false),
        ] {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(
                (is_grpc(&headers), is_grpc_itself(&headers)),
                (is_one, is_itself),
                "{kind}"
            );
        }
    }
}
