//! Compression of responses: whether one is compressed, what its head says then, and the content in its coding.
//!
//! What is decided is decided from heads alone, so that HEAD is answered as GET is.

pub mod negotiation;
mod stream;

use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version, request, response};

use super::coded;
use crate::config::{Coding, Compress};
pub use stream::Compressor;

/// What is known of a request for the decision on its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    coding: Option<Coding>,
    is_head: bool,
}

/// Reads what a client takes. With `offload`, its server is not told of it.
pub fn ask(compress: &Compress, request: &mut request::Parts) -> Asked {
    // An HTTP/1.0 client cannot be told where content ends whose length is not known.
    let is_old = request.version < Version::HTTP_11;
    let coding = match is_old || coded::is_fixed(&request.headers) {
        true => None,
        false => negotiation::choose(&compress.codings, &request.headers),
    };
    if compress.offload {
        request.headers.remove(header::ACCEPT_ENCODING);
    }
    Asked {
        coding,
        is_head: request.method == Method::HEAD,
    }
}

/// Decides on a response, and has its head say so. Answers what compresses the content, if it is compressed and there is any.
/// `streams` is shared by all that are under way on this worker.
pub fn answer(
    compress: &Compress,
    asked: Asked,
    head: &mut response::Parts,
    has_content: bool,
    streams: &Rc<()>,
) -> Option<Compressor> {
    if !is_compressible(compress, head) {
        if speaks_of_another(compress, head) {
            coded::vary(&mut head.headers);
        }
        return None;
    }
    coded::vary(&mut head.headers);
    let coding = asked.coding?;
    // One is the worker's own.
    if Rc::strong_count(streams) > compress.max_streams {
        return None;
    }
    let compressor = match has_content && !asked.is_head {
        true => Some(Compressor::new(coding, compress.levels, streams.clone())),
        false if asked.is_head => None,
        // Nothing comes: a coding of nothing would be something.
        false => return None,
    };
    let name = HeaderValue::from_static(coding.name());
    head.headers.insert(header::CONTENT_ENCODING, name);
    coded::changed(head);
    compressor
}

/// Whether a response has no content, or a part, of one that would have said what it varies by: it has to say so, too (RFC 9110,
/// sections 15.3.7 and 15.4.5). What that one's type would have been is often not told.
fn speaks_of_another(compress: &Compress, head: &response::Parts) -> bool {
    let headers = &head.headers;
    let is_unknown = match head.status {
        StatusCode::NOT_MODIFIED => !headers.contains_key(header::CONTENT_TYPE),
        StatusCode::PARTIAL_CONTENT => headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"multipart/byteranges")),
        _ => return false,
    };
    (is_unknown || is_of_type(compress, headers)) && is_plain(headers) && !coded::is_fixed(headers)
}

/// Whether a response may be compressed for whoever takes it (RFC 9110; RFC 9111, section 5.2.2.6).
fn is_compressible(compress: &Compress, head: &response::Parts) -> bool {
    let headers = &head.headers;
    coded::is_whole(head.status, headers)
        && is_of_type(compress, headers)
        && is_plain(headers)
        && !coded::is_fixed(headers)
        && length(headers).is_none_or(|length| length >= compress.min_size)
        && !coded::has_digest(headers)
}

fn is_of_type(compress: &Compress, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media = value.split(';').next().unwrap_or_default().trim();
    // Longer than any that is registered.
    if media.len() > MAX_MEDIA_TYPE {
        return false;
    }
    let mut lower = [0; MAX_MEDIA_TYPE];
    let lower = &mut lower[..media.len()];
    lower.copy_from_slice(media.as_bytes());
    lower.make_ascii_lowercase();
    let Ok(media) = std::str::from_utf8(lower) else {
        return false;
    };
    !coded::is_grpc(headers) && compress.types.iter().any(|known| known.matches(media))
}

/// Whether no coding has been applied yet.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

const MAX_MEDIA_TYPE: usize = 127;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Levels, MediaType};

    fn compress() -> Compress {
        Compress {
            codings: vec![Coding::Gzip],
            types: vec![
                MediaType::Below("text/".to_owned()),
                MediaType::Suffix("+json".to_owned()),
                MediaType::Below("application/".to_owned()),
            ],
            min_size: 100,
            levels: Levels {
                brotli: 4,
                zstd: 3,
                gzip: 4,
            },
            offload: false,
            max_streams: 1,
        }
    }

    fn head(status: u16, lines: &[(&str, &str)]) -> response::Parts {
        let mut builder = http::Response::builder().status(status);
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    const GZIP: Asked = Asked {
        coding: Some(Coding::Gzip),
        is_head: false,
    };

    #[test]
    fn the_head_says_what_became_of_the_content() {
        let mut head = head(
            200,
            &[
                ("content-type", "TEXT/HTML; charset=utf-8"),
                ("content-length", "100"),
                ("accept-ranges", "bytes"),
                ("etag", "\"a\""),
                ("vary", "Origin"),
            ],
        );
        assert!(answer(&compress(), GZIP, &mut head, true, &Rc::new(())).is_some());
        let headers = &head.headers;
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["etag"], "W/\"a\"");
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Origin", "Accept-Encoding"]);
        assert!(!headers.contains_key("content-length") && !headers.contains_key("accept-ranges"));
    }

    #[test]
    fn what_is_not_to_be_compressed_is_left_alone() {
        let text = ("content-type", "text/plain");
        for (status, lines) in [
            (200, vec![("content-type", "image/png")]),
            (200, vec![]),
            (200, vec![text, ("content-length", "99")]),
            (200, vec![text, ("content-encoding", "br")]),
            (200, vec![text, ("cache-control", "public, No-Transform")]),
            (200, vec![text, ("content-digest", "sha-256=:AA==:")]),
            (200, vec![("content-type", "application/grpc+proto")]),
            (
                206,
                vec![("content-type", "image/png"), ("content-range", "bytes 0-1/2")],
            ),
            (204, vec![text]),
            (304, vec![("content-type", "image/png")]),
            (304, vec![("cache-control", "no-transform")]),
            (304, vec![("content-encoding", "br")]),
            (416, vec![text]),
        ] {
            let mut head = head(status, &lines);
            let before = head.headers.clone();
            assert!(
                answer(&compress(), GZIP, &mut head, true, &Rc::new(())).is_none(),
                "{lines:?}"
            );
            assert_eq!(head.headers, before, "{lines:?}");
        }
    }

    #[test]
    fn what_stands_for_another_varies_as_that_does() {
        let text = ("content-type", "text/plain");
        let parts = ("content-type", "multipart/byteranges; boundary=x");
        let range = ("content-range", "bytes 0-1/2");
        for (status, lines) in [
            (304, vec![]),
            (304, vec![text]),
            (304, vec![("vary", "Origin")]),
            (206, vec![text, range]),
            (206, vec![parts]),
        ] {
            let mut head = head(status, &lines);
            assert!(answer(&compress(), GZIP, &mut head, false, &Rc::new(())).is_none());
            let mut vary = head.headers.get_all("vary").iter();
            assert!(vary.any(|value| value == "Accept-Encoding"), "{status} {lines:?}");
            assert!(!head.headers.contains_key("content-encoding"));
        }
    }

    #[test]
    fn who_takes_no_coding_is_told_that_others_may() {
        let mut head = head(200, &[("content-type", "application/problem+json"), ("etag", "\"a\"")]);
        let none = Asked { coding: None, ..GZIP };
        assert!(answer(&compress(), none, &mut head, true, &Rc::new(())).is_none());
        assert_eq!(head.headers["vary"], "Accept-Encoding");
        assert_eq!(head.headers["etag"], "\"a\"");
    }

    #[test]
    fn so_many_are_compressed_at_once_and_no_more() {
        let streams = Rc::new(());
        let one = || {
            answer(
                &compress(),
                GZIP,
                &mut head(200, &[("content-type", "text/plain")]),
                true,
                &streams,
            )
        };
        let first = one();
        assert!(first.is_some() && one().is_none());
        drop(first);
        assert!(one().is_some());
    }

    #[test]
    fn head_is_answered_as_get_is() {
        let asked = Asked { is_head: true, ..GZIP };
        let mut head = head(200, &[("content-type", "text/plain"), ("content-length", "5000")]);
        assert!(answer(&compress(), asked, &mut head, false, &Rc::new(())).is_none());
        assert_eq!(head.headers["content-encoding"], "gzip");
        assert!(!head.headers.contains_key("content-length"));
    }
}
