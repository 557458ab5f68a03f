//! Informational responses (RFC 9110, section 15.2; 103: RFC 8297): what a server says before it answers, on its way to the
//! client.

use http::header::{self, HeaderMap};
use http::{Response, StatusCode};

use super::client::Client;
use super::error::ProxyError;
use super::headers;

/// Passes an informational response on. Not that the client may go on with its body, which the gateway says itself, and not that
/// protocols are switched, which is no information.
pub fn pass_on(client: &Client, mut response: Response<()>) {
    if !matches!(
        response.status(),
        StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
    ) {
        strip(response.headers_mut());
        client.inform(response);
    }
}

/// Removes what ends at the gateway, and what would give content to a response that has none: RFC 9110, section 8.6, lets no
/// informational response say a length, and a client that believed one would take the response itself for content.
fn strip(headers: &mut HeaderMap) {
    headers::strip_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH);
}

/// As HTTP/1.1 has it.
pub fn encode(response: &Response<()>) -> Vec<u8> {
    let status = response.status();
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"HTTP/1.1 ");
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    bytes.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A server has sent more of them than `response-limits` says. Each is work, and none brings the end nearer.
pub const TOO_MANY: ProxyError = ProxyError::InvalidResponse("too-many-informational");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_comes_before_a_response_says_nothing_of_content() {
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, HeaderValue::from_static("</a.css>; rel=preload"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("40"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        strip(&mut headers);
        let left: Vec<_> = headers.keys().collect();
        assert_eq!(left, [header::LINK]);
    }
}
