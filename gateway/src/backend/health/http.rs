//! The HTTP check: a request on a connection of its own; its status and body are judged.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{CheckError, elsewhere, open};
use crate::backend::Server;
use crate::config::{CheckTarget, HttpCheck};

pub(super) async fn check(
    server: &Server,
    target: CheckTarget,
    check: &HttpCheck,
    limit: Duration,
) -> Result<(), CheckError> {
    let address = || {
        elsewhere(server, target)
            .or_else(|| server.address())
            .map_or_else(|| server.name.to_string(), |address| address.to_string())
    };
    let host = check.host.clone().unwrap_or_else(address);
    let request = Request::builder()
        .method(check.method.as_str())
        .uri(check.uri.as_str())
        .header(HOST, host)
        .header(
            USER_AGENT,
            HeaderValue::from_static(concat!("gateway/", env!("CARGO_PKG_VERSION"))),
        )
        .header(CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())?;

    let stream = open(server, target, limit).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = std::pin::pin!(connection);
    let exchange = async {
        let response = sender.send_request(request).await?;
        judge(check, response.status().as_u16(), response.into_body()).await
    };
    // The connection is driven beside the exchange, not by a task of its own: both end together, whichever way.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        end = &mut connection => {
            // The connection ended; what was received before may still make an answer.
            match end {
                Ok(()) => exchange.await,
                Err(error) => Err(error.into()),
            }
        }
    }
}

async fn judge(check: &HttpCheck, status: u16, mut body: Incoming) -> Result<(), CheckError> {
    let mut ranges = check.status.iter();
    if !ranges.any(|&(from, to)| (from..=to).contains(&status)) {
        return Err(CheckError::Status(status));
    }
    if check.body_contains.is_empty() {
        return Ok(());
    }
    let mut text = BytesMut::new();
    while text.len() < MOST_BODY {
        let Some(frame) = body.frame().await else { break };
        if let Some(data) = frame?.data_ref() {
            text.extend_from_slice(&data[..data.len().min(MOST_BODY - text.len())]);
        }
    }
    // Looked at once, at the end: looking at every frame would let a server that sends one byte a frame make us look
    // through the whole text sixty thousand times.
    match check
        .body_contains
        .iter()
        .find(|needle| !contains(&text, needle.as_bytes()))
    {
        Some(missing) => Err(CheckError::Body(missing.clone())),
        None => Ok(()),
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|window| window == needle)
}

/// Bytes of a body that are read: the reference says so, and it bounds what a server can make a check hold.
const MOST_BODY: usize = 64 * 1024;

/// Bytes of an answer's head, and of what is read ahead of the body.
const MOST_HEAD: usize = 32 * 1024;
