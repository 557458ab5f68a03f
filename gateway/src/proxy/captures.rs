//! What is kept of messages for their access line.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Uri};

use crate::config::{Capture, Captured, Captures};
use crate::policy::{percent_decode, query_params};
use crate::telemetry::line::Kept;

/// Keeps what is to be kept of a request. Its target is there as it came, before any rewrite.
pub fn of_request(captures: &Captures, headers: &HeaderMap, target: &Uri) -> Kept {
    let keep = |capture: &Capture| {
        let value = match &capture.what {
            Captured::Header(name) => headers.get_all(name).iter().next_back()?.as_bytes(),
            Captured::Path => target.path().as_bytes(),
            Captured::Cookie(name) => cookie(headers, name)?.1,
            Captured::QueryParam(name) => {
                let value = query_params(target.query()?, name.as_bytes()).next()?;
                return Some(percent_decode(value.as_bytes()).take(capture.max).collect());
            }
        };
        Some(cut(value, capture.max))
    };
    Kept {
        request: captures.request.iter().map(keep).collect(),
        request_cookie: captures
            .cookie
            .as_ref()
            .and_then(|(name, max)| Some(cut(cookie(headers, name)?.0, *max))),
        ..Kept::default()
    }
}

/// Keeps what is to be kept of a response.
pub fn of_response(captures: &Captures, headers: &HeaderMap, kept: &mut Kept) {
    let keep = |capture: &Capture| match &capture.what {
        Captured::Header(name) => {
            let value = headers.get_all(name).iter().next_back()?;
            Some(cut(value.as_bytes(), capture.max))
        }
        Captured::Path | Captured::Cookie(_) | Captured::QueryParam(_) => None,
    };
    kept.response = captures.response.iter().map(keep).collect();
    if let Some((name, max)) = &captures.cookie {
        let pair = |line: &'_ HeaderValue| -> Option<Box<[u8]>> {
            let pair = line.as_bytes().split(|byte| *byte == b';').next()?.trim_ascii();
            let (known, _) = split(pair)?;
            (known == name.as_bytes()).then(|| cut(pair, *max))
        };
        kept.response_cookie = headers.get_all(header::SET_COOKIE).iter().find_map(pair);
    }
}

/// A cookie that a client sent: the pair, and its value.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<(&'a [u8], &'a [u8])> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let (known, value) = split(pair)?;
        (known == name.as_bytes()).then_some((pair, value))
    })
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..]))
}

fn cut(value: &[u8], max: usize) -> Box<[u8]> {
    value[..value.len().min(max)].into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_last_value_the_path_and_the_cookie_are_kept_up_to_their_length() {
        let header = |name| Captured::Header(HeaderName::from_static(name));
        let captures = Captures {
            request: vec![
                Capture {
                    what: header("x-a"),
                    max: 3,
                },
                Capture {
                    what: Captured::Path,
                    max: 5,
                },
                Capture {
                    what: Captured::Cookie("b".to_owned()),
                    max: 64,
                },
                Capture {
                    what: header("x-none"),
                    max: 9,
                },
                Capture {
                    what: Captured::QueryParam("q".to_owned()),
                    max: 3,
                },
            ],
            response: vec![Capture {
                what: header("x-a"),
                max: 64,
            }],
            shown: (4, 1),
            cookie: Some(("sid".to_owned(), 6)),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-a", "first"),
            ("x-a", "second"),
            ("cookie", "a=1; sidx=0; sid=12345"),
            ("cookie", "b=2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut kept = of_request(&captures, &headers, &Uri::from_static("/index?q=%41b%20c"));
        let request: Vec<_> = kept.request.iter().map(Option::as_deref).collect();
        assert_eq!(
            request,
            [Some(&b"sec"[..]), Some(b"/inde"), Some(b"2"), None, Some(b"Ab ")]
        );
        assert_eq!(kept.request_cookie.as_deref(), Some(&b"sid=12"[..]));

        headers.append(header::SET_COOKIE, HeaderValue::from_static("other=1"));
        headers.append(header::SET_COOKIE, HeaderValue::from_static("sid=9; Path=/"));
        of_response(&captures, &headers, &mut kept);
        assert_eq!(kept.response[0].as_deref(), Some(&b"second"[..]));
        assert_eq!(kept.response_cookie.as_deref(), Some(&b"sid=9"[..]));
    }
}
