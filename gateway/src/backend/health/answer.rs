//! What a server answers to a check, in whichever version of HTTP it was asked.

use std::pin::pin;

use http::header::{HeaderMap, HeaderValue};

use super::CheckError;

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// As much as was asked for.
    pub(super) body: Vec<u8>,
    /// None when there were none, or the body was not read to its end.
    pub(super) trailers: Option<HeaderMap>,
}

/// Drives a connection beside the exchange on it, not by a task of its own: both end together, whichever way.
pub(super) async fn beside<E: Into<CheckError>>(
    connection: impl Future<Output = Result<(), E>>,
    exchange: impl Future<Output = Result<Answer, CheckError>>,
) -> Result<Answer, CheckError> {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        result = &mut exchange => result,
        end = &mut connection => match end {
            // The connection ended; what was received before may still make an answer.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Who asks.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("gateway/", env!("CARGO_PKG_VERSION")));

/// Bytes of an answer's head, and of what is read ahead of the body.
pub(super) const MOST_HEAD: usize = 32 * 1024;
