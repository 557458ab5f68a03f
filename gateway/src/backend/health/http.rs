//! The HTTP check: a request is sent, in the version that traffic speaks or another, and its answer judged.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::answer::{AGENT, Answer, MOST_HEAD, beside};
use super::{CheckError, Way, excerpt, http2};
use crate::backend::Server;
use crate::config::{CheckVersion, HttpCheck, HttpExpect, HttpTest};
use crate::stream::Stream;

pub(super) async fn check(server: &Server, way: &Way, check: &HttpCheck, limit: Duration) -> Result<(), CheckError> {
    let is_http2 = match check.version {
        Some(version) => version == CheckVersion::Http2,
        None => way.speaks_http2(server),
    };
    let host = check.host.clone().unwrap_or_else(|| way.authority(server));
    let mut request = Request::builder().method(check.method.as_str());
    let fields = request.headers_mut();
    if let Some(fields) = fields {
        fields.insert(USER_AGENT, AGENT);
        // Those of the configuration have the last word.
        for (name, _) in &check.headers {
            fields.remove(name);
        }
        for (name, value) in &check.headers {
            fields.append(name, value.clone());
        }
    }
    let body = Bytes::copy_from_slice(&check.body);
    let stream = way.open(server, limit).await?;
    let most = if check.expects.iter().any(HttpExpect::is_of_body) {
        check.most_body
    } else {
        0
    };
    let answer = if is_http2 {
        let scheme = if stream.is_tls() { "https" } else { "http" };
        // In parts: a target may be `*`, which is behind no host as text.
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(&*check.uri);
        let request = request.uri(uri.build()?).body(())?;
        http2::ask(stream, request, body, most).await?
    } else {
        let version = match check.version {
            Some(CheckVersion::Http10) => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let request = request
            .uri(check.uri.as_str())
            .version(version)
            .header(HOST, host)
            .header(CONNECTION, HeaderValue::from_static("close"))
            .body(Full::new(body))?;
        ask(stream, request, most).await?
    };
    if is_among(&check.drain, answer.status) {
        return Err(CheckError::Drains(answer.status));
    }
    check.expects.iter().try_for_each(|expect| judge(expect, &answer))
}

/// Asks over HTTP/1. At most so many bytes of the answer's body are read.
async fn ask(stream: Stream, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, CheckError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async {
        let (head, mut incoming) = sender.send_request(request).await?.into_parts();
        let mut body = Vec::new();
        while body.len() < most {
            let Some(frame) = incoming.frame().await else { break };
            if let Some(data) = frame?.data_ref() {
                body.extend_from_slice(&data[..data.len().min(most - body.len())]);
            }
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            trailers: None,
        })
    };
    beside(connection, exchange).await
}

fn is_among(ranges: &[(u16, u16)], status: u16) -> bool {
    ranges.iter().any(|&(from, to)| (from..=to).contains(&status))
}

/// Whether an answer is as expected. Bodies are looked at once, when they are there: looking at every piece would let a server
/// that sends one byte at a time make us look through the whole text sixty thousand times.
fn judge(expect: &HttpExpect, answer: &Answer) -> Result<(), CheckError> {
    match &expect.test {
        HttpTest::Status(ranges) => match (is_among(ranges, answer.status), expect.negated) {
            (true, false) | (false, true) => Ok(()),
            (false, false) => Err(CheckError::Status(answer.status)),
            (true, true) => Err(CheckError::UnwantedStatus(answer.status)),
        },
        HttpTest::Header(name, test) => {
            let mut values = answer.headers.get_all(name).iter();
            match (test, expect.negated) {
                (None, false) => values.next().map(drop).ok_or(CheckError::NoHeader(name.clone())),
                (None, true) => match values.next() {
                    None => Ok(()),
                    Some(_) => Err(CheckError::UnwantedHeader(name.clone())),
                },
                (Some(test), true) => match values.find(|value| test.holds(value.as_bytes())) {
                    None => Ok(()),
                    Some(value) => Err(CheckError::UnwantedValue {
                        name: name.clone(),
                        unwanted: test.to_string(),
                        came: excerpt(value.as_bytes()),
                    }),
                },
                (Some(test), false) => {
                    let mut last = None;
                    for value in values {
                        if test.holds(value.as_bytes()) {
                            return Ok(());
                        }
                        last = Some(value);
                    }
                    Err(match last {
                        None => CheckError::NoHeader(name.clone()),
                        Some(value) => CheckError::Header {
                            name: name.clone(),
                            expected: test.to_string(),
                            came: excerpt(value.as_bytes()),
                        },
                    })
                }
            }
        }
        HttpTest::Body(test) => match (test.holds(&answer.body), expect.negated) {
            (true, false) | (false, true) => Ok(()),
            (false, false) => Err(CheckError::Body(test.to_string())),
            (true, true) => Err(CheckError::UnwantedBody(test.to_string())),
        },
    }
}
