//! Answers of the gateway's own to calls of gRPC, in gRPC's form: the status of HTTP is 200, there is no content, and the head says what
//! became of the call (gRPC over HTTP2, "Trailers-Only"). Clients of gRPC look at nothing else, and would tell whoever calls that the
//! server speaks something else.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::snapshot::pages;
use crate::telemetry::grpc::{self, GrpcStatus};

/// Puts an answer with the status of an error into gRPC's form. Answers what it says of the call, too; none where it was no error, and is what
/// it was.
///
/// What the answer says of the call itself stands; otherwise its status of HTTP says it. A text of up to a kilobyte is its message.
pub fn of(mut response: Response<Bytes>) -> (Response<Bytes>, Option<GrpcStatus>) {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return (response, None);
    }
    let message = encode(&words(&response));
    *response.status_mut() = StatusCode::OK;
    *response.body_mut() = Bytes::new();
    let headers = response.headers_mut();
    pages::strip_content(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let said = match GrpcStatus::of(headers) {
        GrpcStatus::Unsaid => GrpcStatus::of_http(status.as_u16()),
        said => said,
    };
    headers.insert(
        grpc::STATUS,
        HeaderValue::from(said.number().map_or(UNKNOWN, u16::from)),
    );
    if let (false, Ok(message)) = (headers.contains_key(MESSAGE), HeaderValue::try_from(message)) {
        headers.insert(MESSAGE, message);
    }
    (response, Some(said))
}

/// What the answer says in words.
fn words(response: &Response<Bytes>) -> String {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_text = kind.is_none_or(|kind| kind.starts_with(b"text/plain"));
    let text = std::str::from_utf8(response.body()).ok().map(str::trim);
    match text.filter(|text| is_text && !text.is_empty() && text.len() <= MOST_WORDS) {
        Some(text) => text.to_owned(),
        None => {
            let status = response.status();
            format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or("Error"))
        }
    }
}

/// As a `grpc-message` has it (gRPC over HTTP2, "Percent-Encoded"): printable ASCII but for the percent sign stands for itself.
fn encode(text: &str) -> String {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                encoded.push('%');
                for digit in [byte >> 4, byte & 15] {
                    encoded.push(char::from(DIGITS[usize::from(digit)]));
                }
            }
        }
    }
    encoded
}

const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// gRPC's number for what nobody knows.
const UNKNOWN: u16 = 2;

/// Bytes of a text that is sent on as a message, which is a field of a head and has three bytes for one at worst: clients of gRPC
/// take heads of 8 KiB.
const MOST_WORDS: usize = 1 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status: u16, fields: &[(&'static str, &'static str)], body: &'static str) -> Response<Bytes> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn errors_become_answers_of_grpc() {
        let fields = [
            ("content-type", "text/plain"),
            ("content-length", "9"),
            ("etag", "\"a\""),
            ("retry-after", "1"),
        ];
        let (response, said) = of(answer(429, &fields, "wait 1%\n\u{fc}\n"));
        assert_eq!(said, Some(GrpcStatus::Said(14)));
        assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 0));
        let mut has: Vec<_> = response
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        has.sort();
        let expected = [
            "content-type: application/grpc",
            "grpc-message: wait 1%25%0A%C3%BC",
            "grpc-status: 14",
            "retry-after: 1",
        ];
        assert_eq!(has, expected);
    }

    #[test]
    fn what_is_no_text_or_too_long_is_told_by_its_status() {
        let long: &'static str = Box::leak("x".repeat(MOST_WORDS + 1).into_boxed_str());
        for (fields, body) in [
            (&[("content-type", "text/html")][..], "<p>sorry"),
            (&[], ""),
            (&[("content-type", "text/plain; charset=utf-8")], long),
        ] {
            let (response, _) = of(answer(403, fields, body));
            assert_eq!(response.headers()["grpc-message"], "403 Forbidden");
            assert_eq!(response.headers()["grpc-status"], "7");
        }
    }

    #[test]
    fn what_an_answer_says_of_the_call_itself_stands() {
        let (response, said) = of(answer(403, &[("grpc-status", "16"), ("grpc-message", "who?")], "no"));
        assert_eq!(said, Some(GrpcStatus::Said(16)));
        assert_eq!(response.headers()["grpc-status"], "16");
        assert_eq!(response.headers()["grpc-message"], "who?");
        let (response, said) = of(answer(200, &[], "made"));
        assert_eq!((said, &**response.body()), (None, &b"made"[..]));
    }
}
