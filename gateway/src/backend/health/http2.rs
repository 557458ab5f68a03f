//! A check's request over HTTP/2: one connection, one stream.

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::Request;

use super::CheckError;
use super::answer::{Answer, MOST_HEAD, beside};
use crate::stream::Stream;

/// Asks on a connection that stands. At most so many bytes of the answer's body are read.
pub(super) async fn ask(stream: Stream, request: Request<()>, body: Bytes, most: usize) -> Result<Answer, CheckError> {
    let (sender, connection) = Builder::new()
        .enable_push(false)
        .max_header_list_size(u32::try_from(MOST_HEAD).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(stream)
        .await?;
    beside(connection, exchange(sender, request, body, most)).await
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    most: usize,
) -> Result<Answer, CheckError> {
    let (response, mut upload) = sender.ready().await?.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        // Within the window that every connection begins with (RFC 9113, section 6.9.2): a check sends little.
        upload.send_data(body, true)?;
    }
    let (head, mut content) = response.await?.into_parts();
    let mut body = Vec::new();
    let read = read(&mut content, &mut body, most).await?;
    let trailers = if read { content.trailers().await? } else { None };
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers,
    })
}

/// Reads up to so many bytes; whether that was all there is.
async fn read(content: &mut RecvStream, body: &mut Vec<u8>, most: usize) -> Result<bool, h2::Error> {
    while body.len() < most {
        let Some(piece) = content.data().await else {
            return Ok(true);
        };
        let piece = piece?;
        let _ = content.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece[..piece.len().min(most - body.len())]);
    }
    Ok(content.is_end_stream())
}
