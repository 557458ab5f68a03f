//! The gRPC check: `grpc.health.v1.Health/Check`, as the gRPC health checking protocol has it, over HTTP/2.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use http::{Method, Request};

use super::answer::{AGENT, Answer};
use super::{CheckError, Way, excerpt, http2};
use crate::backend::Server;
use crate::config::GrpcCheck;

pub(super) async fn check(server: &Server, way: &Way, check: &GrpcCheck, limit: Duration) -> Result<(), CheckError> {
    let stream = way.open(server, limit).await?;
    let scheme = if stream.is_tls() { "https" } else { "http" };
    let host = check.host.clone().unwrap_or_else(|| way.authority(server));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{host}{METHOD}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(USER_AGENT, AGENT)
        .body(())?;
    judge(&http2::ask(stream, request, question(&check.service), MOST_ANSWER).await?)
}

/// A `HealthCheckRequest`, framed as a gRPC message: not compressed, its length, and field 1, the service.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn judge(answer: &Answer) -> Result<(), CheckError> {
    if answer.status != 200 {
        return Err(CheckError::Status(answer.status));
    }
    // An answer that has no message may say its status in the head.
    let said = |headers: &HeaderMap| {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse::<u32>().ok()?;
        let message = headers
            .get("grpc-message")
            .map_or(String::new(), |text| excerpt(text.as_bytes()));
        Some((code, message))
    };
    match answer
        .trailers
        .as_ref()
        .and_then(said)
        .or_else(|| said(&answer.headers))
    {
        Some((0, _)) => {}
        Some((code, message)) => return Err(CheckError::Grpc { code, message }),
        None => return Err(CheckError::NoGrpc("it has no grpc-status")),
    }
    let message = match answer.body.split_at_checked(PREFIX) {
        Some(([0, length @ ..], message)) => {
            let length = length.iter().fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte));
            message
                .get(..length)
                .ok_or(CheckError::NoGrpc("its message is cut off"))?
        }
        Some(_) => return Err(CheckError::NoGrpc("its message is compressed")),
        None => return Err(CheckError::NoGrpc("it has no message")),
    };
    match status(message) {
        Some(1) => Ok(()),
        Some(0) => Err(CheckError::NotServing("UNKNOWN")),
        Some(2) => Err(CheckError::NotServing("NOT_SERVING")),
        Some(3) => Err(CheckError::NotServing("SERVICE_UNKNOWN")),
        Some(_) => Err(CheckError::NotServing("in a state that is not known here")),
        None => Err(CheckError::NoGrpc("its message is malformed")),
    }
}

/// Field 1 of a `HealthCheckResponse`, the status; 0 when it is not there. None for what is no message of protobuf.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let (field, wire) = (key >> 3, key & 7);
        let length = match wire {
            0 => {
                let value = take_varint(&mut message)?;
                if field == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(length..)?;
    }
    Some(status)
}

fn varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What is called.
const METHOD: &str = "/grpc.health.v1.Health/Check";

/// Whether a message is compressed, and its length.
const PREFIX: usize = 5;

/// The answer has two bytes, and may have some that are not known yet.
const MOST_ANSWER: usize = 4 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, body: &[u8], grpc: Option<&str>) -> Answer {
        let trailers = grpc.map(|code| HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]));
        Answer {
            status,
            headers: HeaderMap::new(),
            body: body.to_vec(),
            trailers,
        }
    }

    #[test]
    fn the_question_is_a_framed_message() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(200));
        assert_eq!(&long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_passes() {
        let cases: [(&[u8], Option<&str>, &str); 8] = [
            (&[0, 0, 0, 0, 2, 8, 1], Some("0"), ""),
            (&[0, 0, 0, 0, 2, 8, 2], Some("0"), "the service is NOT_SERVING"),
            (&[0, 0, 0, 0, 0], Some("0"), "the service is UNKNOWN"),
            (&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1], Some("0"), ""),
            (
                &[0, 0, 0, 0, 9, 8, 1],
                Some("0"),
                "the answer is none of the gRPC health protocol: its message is cut off",
            ),
            (&[], Some("5"), "gRPC status 5: \"\""),
            (
                &[0, 0, 0, 0, 2, 8, 1],
                None,
                "the answer is none of the gRPC health protocol: it has no grpc-status",
            ),
            (
                &[1, 0, 0, 0, 2, 8, 1],
                Some("0"),
                "the answer is none of the gRPC health protocol: its message is compressed",
            ),
        ];
        for (body, grpc, error) in cases {
            let said = judge(&answer(200, body, grpc))
                .err()
                .map_or(String::new(), |error| error.to_string());
            assert_eq!(said, error, "{body:?}");
        }
        let said = judge(&answer(503, &[], None)).unwrap_err().to_string();
        assert_eq!(said, "status 503");
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut bytes = BytesMut::new();
            varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn whatever_comes_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = status(&bytes);
            let _ = judge(&answer(200, &bytes, Some("0")));
        }
    }
}
