//! Decompression: of responses for clients that do not take their coding, and of requests for servers. Whether it is done, and
//! what heads say then; the content is `stream`'s.
//!
//! What is decided is decided from heads alone, so that HEAD is answered as GET is.

mod stream;

use std::rc::Rc;

use http::header::{self, HeaderMap};
use http::{Method, request, response};
use http_body::Body;

use super::body::RequestBody;
use super::coded;
use super::compression::negotiation;
use super::error::ProxyError;
use crate::config::{Coding, Decompress};
pub use stream::{Decoding, Decompressor, Fault};

/// What is known of a request for the decision on its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    takes: negotiation::Asked,
    /// The client wants nothing changed.
    is_fixed: bool,
    is_head: bool,
}

/// Decodes the request's content, where that is to be done, and reads what the client takes. `streams` is shared by all that
/// are under way on this worker. With `compress offload` it has to be asked before servers are kept from knowing.
pub fn ask(
    decompress: &Decompress,
    request: &mut request::Parts,
    body: &mut RequestBody,
    streams: &Rc<()>,
) -> Result<Asked, ProxyError> {
    let is_fixed = coded::is_fixed(&request.headers);
    if decompress.requests
        && !is_fixed
        && !body.is_end_stream()
        && let Some(coding) = decodable(decompress, &request.headers)
        && !request.headers.contains_key(header::CONTENT_RANGE)
    {
        // Its server counts on getting content as it is: it cannot be let through.
        let stream = slot(decompress, streams).ok_or(ProxyError::DecompressBusy)?;
        body.decode(Decoding::new(coding, decompress.limits, stream));
        request.headers.remove(header::CONTENT_ENCODING);
        request.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Asked {
        takes: negotiation::Asked::of(&request.headers),
        is_fixed,
        is_head: request.method == Method::HEAD,
    })
}

/// Decides on a response, and has its head say so. Answers what decodes the content, if it is decoded and there is any.
pub fn answer(
    decompress: &Decompress,
    asked: Asked,
    head: &mut response::Parts,
    has_content: bool,
    streams: &Rc<()>,
) -> Option<Decompressor> {
    if !decompress.responses || coded::is_fixed(&head.headers) || !coded::is_whole(head.status, &head.headers) {
        return None;
    }
    let coding = decodable(decompress, &head.headers)?;
    // Whether it is decoded or not: another client would have got it the other way.
    coded::vary(&mut head.headers);
    if asked.is_fixed || asked.takes.takes(coding) || asked.takes.refuses_plain() {
        return None;
    }
    let decompressor = match has_content {
        true => {
            let stream = slot(decompress, streams)?;
            Some(Decompressor::new(Decoding::new(coding, decompress.limits, stream)))
        }
        false if asked.is_head => None,
        // Nothing comes: it is in no coding whatever the head says.
        false => return None,
    };
    head.headers.remove(header::CONTENT_ENCODING);
    coded::changed(head);
    decompressor
}

/// The coding, if there is one, and only one, and it is to be decoded.
fn decodable(decompress: &Decompress, headers: &HeaderMap) -> Option<Coding> {
    let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let (line, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    let name = line.as_bytes().trim_ascii();
    // RFC 9110, section 8.4.1.3.
    let name = if name.eq_ignore_ascii_case(b"x-gzip") {
        b"gzip"
    } else {
        name
    };
    let is_named = |coding: &&Coding| name.eq_ignore_ascii_case(coding.name().as_bytes());
    let coding = decompress.codings.iter().find(is_named).copied()?;
    (!coded::has_digest(headers) && !coded::is_grpc(headers)).then_some(coding)
}

/// Room for one more.
fn slot(decompress: &Decompress, streams: &Rc<()>) -> Option<Rc<()>> {
    // One is the worker's own.
    (Rc::strong_count(streams) <= decompress.max_streams).then(|| streams.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::DecompressLimits;

    fn decompress() -> Decompress {
        Decompress {
            codings: vec![Coding::Gzip, Coding::Brotli],
            requests: false,
            responses: true,
            limits: DecompressLimits { size: 1000, ratio: 10 },
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

    fn asked(accept: Option<&str>) -> Asked {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
        }
        Asked {
            takes: negotiation::Asked::of(&headers),
            is_fixed: false,
            is_head: false,
        }
    }

    const GZIP: (&str, &str) = ("content-encoding", "gzip");

    #[test]
    fn the_head_says_what_became_of_the_content() {
        let mut head = head(
            200,
            &[
                ("content-encoding", "X-Gzip"),
                ("content-length", "100"),
                ("accept-ranges", "bytes"),
                ("etag", "\"a\""),
                ("vary", "Origin"),
            ],
        );
        assert!(answer(&decompress(), asked(None), &mut head, true, &Rc::new(())).is_some());
        let headers = &head.headers;
        assert_eq!(headers["etag"], "W/\"a\"");
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["Origin", "Accept-Encoding"]);
        for gone in ["content-encoding", "content-length", "accept-ranges"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn who_takes_the_coding_gets_it() {
        for (accept, is_decoded) in [
            (None, true),
            (Some(""), true),
            (Some("identity"), true),
            (Some("br"), true),
            (Some("gzip;q=0, *"), true),
            (Some("gzip"), false),
            (Some("x-gzip;q=0.1"), false),
            (Some("*"), false),
            // It takes neither: what the server chose is as good.
            (Some("identity;q=0, br"), false),
            (Some("*;q=0"), false),
        ] {
            let mut head = head(200, &[GZIP]);
            let decoded = answer(&decompress(), asked(accept), &mut head, true, &Rc::new(()));
            assert_eq!(decoded.is_some(), is_decoded, "{accept:?}");
            assert_eq!(head.headers.contains_key("content-encoding"), !is_decoded, "{accept:?}");
            assert_eq!(head.headers["vary"], "Accept-Encoding", "{accept:?}");
        }
    }

    #[test]
    fn what_is_not_to_be_decoded_is_left_alone() {
        for (status, lines) in [
            (200, vec![]),
            (200, vec![("content-encoding", "zstd")]),
            (200, vec![("content-encoding", "gzip, br")]),
            (200, vec![GZIP, GZIP]),
            (200, vec![GZIP, ("cache-control", "public, No-Transform")]),
            (200, vec![GZIP, ("repr-digest", "sha-256=:AA==:")]),
            (200, vec![GZIP, ("content-type", "application/grpc+proto")]),
            (206, vec![GZIP, ("content-range", "bytes 0-1/2")]),
            (204, vec![GZIP]),
            (304, vec![GZIP]),
            (416, vec![GZIP]),
        ] {
            let mut head = head(status, &lines);
            let before = head.headers.clone();
            assert!(
                answer(&decompress(), asked(None), &mut head, true, &Rc::new(())).is_none(),
                "{lines:?}"
            );
            assert_eq!(head.headers, before, "{lines:?}");
        }
    }

    #[test]
    fn so_many_are_decoded_at_once_and_no_more() {
        let streams = Rc::new(());
        let one = || answer(&decompress(), asked(None), &mut head(200, &[GZIP]), true, &streams);
        let first = one();
        assert!(first.is_some() && one().is_none());
        drop(first);
        assert!(one().is_some());
    }

    #[test]
    fn head_is_answered_as_get_is() {
        let asked = Asked {
            is_head: true,
            ..asked(None)
        };
        let mut head = head(200, &[GZIP, ("content-length", "5000")]);
        assert!(answer(&decompress(), asked, &mut head, false, &Rc::new(())).is_none());
        assert!(!head.headers.contains_key("content-encoding") && !head.headers.contains_key("content-length"));
    }
}
