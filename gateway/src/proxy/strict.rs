//! What the gateway is stricter in than the libraries that parse: what two readers could take for different messages is
//! refused, from clients and servers alike (RFC 9112, sections 3, 6 and 11). What is merely written oddly is written anew.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};

use super::error::ProxyError;
use super::headers::Present;
use crate::backend::http1::{BadLength, has_plain_coding, normalise_length};
use crate::config::ResponseLimits;

/// Refuses a request whose content two readers could find ends at different places.
pub fn check_request_framing(headers: &mut HeaderMap, present: Present) -> Result<(), ProxyError> {
    if present.has(Present::TRANSFER_ENCODING) && !has_plain_coding(headers) {
        return Err(ProxyError::BadRequest("bad-transfer-encoding"));
    }
    if present.has(Present::CONTENT_LENGTH) && normalise_length(headers).is_err() {
        return Err(ProxyError::BadRequest("bad-length"));
    }
    Ok(())
}

/// Refuses a target that is not the gateway's to serve, or that two readers could read differently.
pub fn check_target(method: &Method, uri: &Uri) -> Result<(), ProxyError> {
    let path = uri.path_and_query().map_or("", |target| target.as_str());
    // RFC 3986: what is not ASCII is percent-encoded. Servers guess at the encoding of what is not.
    let is_plain = path.is_ascii();
    // RFC 9112, section 3.2.4.
    let is_for_all = path == "*" && *method != Method::OPTIONS;
    // RFC 9112, section 3.2.2: other schemes are for forward proxies.
    let is_http = uri.scheme_str().is_none_or(|scheme| {
        let known = ["http", "https"];
        known.iter().any(|known| scheme.eq_ignore_ascii_case(known))
    });
    match is_plain && !is_for_all && is_http {
        true => Ok(()),
        false => Err(ProxyError::BadRequest("bad-target")),
    }
}

/// Refuses a response whose content two readers could find ends at different places, and one whose head is longer or has more fields than
/// allowed. It came over HTTP/2: it is as long as it would be in HTTP/1.1.
pub fn check_response(
    status: StatusCode,
    headers: &mut HeaderMap,
    has_content: bool,
    limits: &ResponseLimits,
) -> Result<(), ProxyError> {
    let size = |(name, value): (&header::HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let length = STATUS_LINE + headers.iter().map(size).sum::<usize>();
    if headers.len() > limits.headers || length > limits.head {
        return Err(ProxyError::InvalidResponse("response-head-too-large"));
    }
    if has_content && headers.contains_key(header::TRANSFER_ENCODING) {
        if !has_plain_coding(headers) {
            return Err(ProxyError::InvalidResponse("bad-response-coding"));
        }
        // One of them was put there by somebody who did not know of the other.
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(ProxyError::InvalidResponse("bad-response-length"));
        }
    }
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        // RFC 9110, section 8.6: there is none to have a length.
        headers.remove(header::CONTENT_LENGTH);
    }
    match normalise_length(headers) {
        Ok(_) => Ok(()),
        Err(BadLength) => Err(ProxyError::InvalidResponse("bad-response-length")),
    }
}

/// The status line, and the empty one behind the fields.
const STATUS_LINE: usize = "HTTP/1.1 200 \r\n\r\n".len();

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::authority::is_authority;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_length_is_one_number() {
        let normalised = |values: &[&'static str]| {
            let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            let mut headers = headers(&fields);
            let present = Present::of(&headers);
            check_request_framing(&mut headers, present).ok()?;
            let all: Vec<_> = headers.get_all("content-length").iter().cloned().collect();
            Some(all)
        };
        assert_eq!(normalised(&[]).unwrap(), [""; 0]);
        assert_eq!(normalised(&["5"]).unwrap(), ["5"]);
        assert_eq!(normalised(&["0"]).unwrap(), ["0"]);
        assert_eq!(normalised(&["005"]).unwrap(), ["5"]);
        assert_eq!(normalised(&["5", "05"]).unwrap(), ["5"]);
        for bad in [
            &["5", "6"][..],
            &["5, 5"],
            &["+5"],
            &["-0"],
            &[""],
            &["0x5"],
            &["5 "],
            &["99999999999999999999"],
        ] {
            assert_eq!(normalised(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn chunked_is_the_only_coding() {
        for (good, values) in [
            (true, &["chunked"][..]),
            (true, &["Chunked"]),
            (false, &["gzip, chunked"]),
            (false, &["chunked, chunked"]),
            (false, &["chunked", "chunked"]),
            (false, &["identity"]),
            (false, &["chunked;q=1"]),
            (false, &[""]),
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            let mut headers = headers(&fields);
            let present = Present::of(&headers);
            assert_eq!(check_request_framing(&mut headers, present).is_ok(), good, "{values:?}");
        }
    }

    #[test]
    fn a_response_is_framed_in_one_way() {
        let check = |status: u16, fields: &[_], has_content| {
            let mut headers = headers(fields);
            let status = StatusCode::from_u16(status).unwrap();
            let limits = ResponseLimits {
                headers: 3,
                ..ResponseLimits::DEFAULT
            };
            check_response(status, &mut headers, has_content, &limits)
                .map(|()| headers.contains_key("content-length"))
                .map_err(|error| error.reason())
        };
        const CHUNKED: (&str, &str) = ("transfer-encoding", "chunked");
        const FIVE: (&str, &str) = ("content-length", "5");
        assert_eq!(check(200, &[FIVE], true), Ok(true));
        assert_eq!(check(200, &[CHUNKED], true), Ok(false));
        assert_eq!(check(200, &[CHUNKED, FIVE], true), Err("bad-response-length"));
        assert_eq!(check(200, &[CHUNKED, FIVE], false), Ok(true), "to HEAD");
        assert_eq!(check(204, &[FIVE], false), Ok(false));
        assert_eq!(check(304, &[FIVE], false), Ok(true));
        let gzip = ("transfer-encoding", "gzip, chunked");
        assert_eq!(check(200, &[gzip], true), Err("bad-response-coding"));
        let many = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
        assert_eq!(check(200, &many[..3], true), Ok(false));
        assert_eq!(check(200, &many, true), Err("response-head-too-large"));
        let of_length = |length: usize| {
            let mut headers = HeaderMap::new();
            let value = "x".repeat(length - STATUS_LINE - "a: \r\n".len());
            headers.insert("a", HeaderValue::try_from(value).unwrap());
            let limits = ResponseLimits {
                head: 1024,
                ..ResponseLimits::DEFAULT
            };
            check_response(StatusCode::OK, &mut headers, true, &limits).is_ok()
        };
        assert_eq!((of_length(1024), of_length(1025)), (true, false));
    }

    #[test]
    fn authorities() {
        for good in [
            "",
            "a",
            "a.example:80",
            "a:",
            "[::1]",
            "[::1]:8080",
            "a_b",
            "1.2.3.4:65535",
            "%41",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a/b", "a?", "a#", "u@a", "a\\b", "a,b", "a:b", "a:80:90", "a:808080", "a:-1", "[::1", "[::1]x",
            "::1", "a]", "\"a\"", "a\u{e9}", "{a}", "\u{7f}",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn targets() {
        let check = |method: &Method, target: &str| check_target(method, &target.parse().unwrap()).is_ok();
        assert!(check(&Method::GET, "/a?b"));
        assert!(check(&Method::GET, "//a"));
        assert!(check(&Method::GET, "http://a/"));
        assert!(check(&Method::GET, "HTTPS://a/"));
        assert!(check(&Method::OPTIONS, "*"));
        assert!(!check(&Method::GET, "*"));
        assert!(!check(&Method::GET, "ftp://a/"));
        let odd = Uri::try_from("/\u{e9}".as_bytes());
        assert!(odd.is_err() || check_target(&Method::GET, &odd.unwrap()).is_err());
    }
}
