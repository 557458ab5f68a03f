//! Pages for errors and files of responses: read when a configuration is loaded, so that what is sent was looked at before
//! anybody asked for it.

use std::io;
use std::path::Path;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version, response};

use crate::config::ErrorPage;
use crate::regular_file;

/// The error pages of a section.
#[derive(Debug, Default)]
pub struct ErrorPages(Vec<(StatusCode, Page)>);

/// What is sent in place of the gateway's own words.
#[derive(Debug, Clone)]
pub struct Page {
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Whether it takes the place of servers' answers, too.
    intercepts: bool,
}

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It cannot be read.
    #[error("{0}")]
    File(#[from] io::Error),
    /// It is too long.
    #[error("it has more than {} KiB", .0 >> 10)]
    TooLong(usize),
    /// It is no response.
    #[error("it is not an HTTP response: {0}")]
    Malformed(&'static str),
    /// It is a response with another status.
    #[error("it is a response with status {found}")]
    Status {
        /// That status.
        found: u16,
    },
    /// It has a field that the gateway writes itself.
    #[error("its field `{0}` belongs to the connection or the framing")]
    Field(HeaderName),
    /// Its length is not what it says.
    #[error("its Content-Length is {said}, and {there} bytes follow")]
    Length {
        /// What it says.
        said: String,
        /// What there is.
        there: usize,
    },
}

impl ErrorPages {
    /// Reads the pages of a section; the error is told for each page that cannot be used.
    pub(super) fn read(pages: &[ErrorPage], mut failed: impl FnMut(&ErrorPage, PageError)) -> Option<Self> {
        let mut read = Vec::with_capacity(pages.len());
        for page in pages {
            match Page::read(page) {
                Ok(found) => read.push(found),
                Err(error) => failed(page, error),
            }
        }
        (!read.is_empty()).then_some(Self(read))
    }

    /// The page for a status.
    pub fn get(&self, status: StatusCode) -> Option<&Page> {
        self.0.iter().find(|(known, _)| *known == status).map(|(_, page)| page)
    }

    /// The page that takes the place of a server's answer with this status.
    pub fn intercepting(&self, status: StatusCode) -> Option<&Page> {
        self.get(status).filter(|page| page.intercepts)
    }
}

impl Page {
    fn read(of: &ErrorPage) -> Result<(StatusCode, Self), PageError> {
        let status = StatusCode::from_u16(of.status).map_err(|_| PageError::Malformed("no such status"))?;
        let bytes = read(&of.path.value, MAX_PAGE)?;
        let page = match of.content_type {
            Some(content_type) => Self {
                headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static(content_type))],
                body: bytes.into(),
                intercepts: false,
            },
            None => Self::parse(status, &bytes)?,
        };
        let intercepts = of.intercepts;
        Ok((status, Self { intercepts, ..page }))
    }

    /// A whole response, as HAProxy's `errorfile`. Lines may end with LF alone: such files are written by hand.
    fn parse(status: StatusCode, bytes: &[u8]) -> Result<Self, PageError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Err(PageError::Malformed("no empty line ends its head")),
            Err(httparse::Error::TooManyHeaders) => return Err(PageError::Malformed("it has too many fields")),
            Err(_) => return Err(PageError::Malformed("its head cannot be read")),
        };
        let found = response.code.unwrap_or_default();
        if found != status.as_u16() {
            return Err(PageError::Status { found });
        }
        let body = &bytes[length..];
        let mut headers = Vec::with_capacity(response.headers.len());
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| PageError::Malformed("a field's name is not one"))?;
            if name == header::CONTENT_LENGTH {
                let said = String::from_utf8_lossy(field.value).into_owned();
                if said.trim().parse() != Ok(body.len()) {
                    let there = body.len();
                    return Err(PageError::Length { said, there });
                }
                continue;
            }
            // HAProxy's own files say `Connection: close`, which is true of each connection in its own way.
            if name == header::CONNECTION || name == header::DATE {
                continue;
            }
            if REFUSED.contains(&name) {
                return Err(PageError::Field(name));
            }
            let value = HeaderValue::from_bytes(field.value)
                .map_err(|_| PageError::Malformed("a field's value has a control character"))?;
            headers.push((name, value));
        }
        Ok(Self {
            headers,
            body: Bytes::copy_from_slice(body),
            intercepts: false,
        })
    }

    /// Puts the page into a response: what it says of its content replaces what was said, and the rest is added.
    pub fn dress(&self, response: &mut Response<Bytes>) {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        for (name, _) in &self.headers {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        *response.body_mut() = self.body.clone();
    }
}

impl Page {
    /// The response in whose place it is sent: of a server's head stays what is not about its content.
    pub fn replace(&self, mut head: response::Parts) -> Response<Bytes> {
        strip_content(&mut head.headers);
        head.version = Version::HTTP_11;
        let mut response = Response::from_parts(head, Bytes::new());
        self.dress(&mut response);
        response
    }
}

/// Lets go of what speaks of content that is not sent.
pub fn strip_content(headers: &mut HeaderMap) {
    for name in &OF_CONTENT {
        headers.remove(name);
    }
}

/// Reads a file that has at most so many bytes.
pub(super) fn read(path: &Path, most: usize) -> Result<Vec<u8>, PageError> {
    regular_file::read(path, most).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => PageError::TooLong(most),
        _ => error.into(),
    })
}

/// Fields that only the gateway writes.
const REFUSED: [HeaderName; 5] = [
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::TE,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Fields that speak of the content that they come with (RFC 9110, section 8, and what else is said of it): none of them is true of another.
const OF_CONTENT: [HeaderName; 16] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
];

/// A page is a word of apology; HAProxy takes 16 KiB.
const MAX_PAGE: usize = 64 << 10;
/// Fields of a page.
const MAX_FIELDS: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Page, PageError> {
        Page::parse(StatusCode::SERVICE_UNAVAILABLE, text.as_bytes())
    }

    #[test]
    fn what_never_ends_is_not_begun() {
        let error = read(Path::new("/dev/zero"), 10).unwrap_err();
        assert_eq!(error.to_string(), "not a regular file");
    }

    #[test]
    fn a_page_of_haproxys_is_read() {
        let page = parse(
            "HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\nConnection: close\r\nContent-Type: \
             text/html\r\n\r\n<html>sorry</html>\n",
        )
        .unwrap();
        let mut response = Response::builder()
            .header("content-type", "text/plain")
            .header("cache-control", "no-store")
            .header("retry-after", "1")
            .body(Bytes::from_static(b"503"))
            .unwrap();
        page.dress(&mut response);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/html");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["retry-after"], "1");
        assert!(!headers.contains_key("connection"));
        assert_eq!(response.body(), "<html>sorry</html>\n");
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let cases = [
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "status 502"),
            ("<html>", "head cannot be read"),
            ("HTTP/1.1 503 Sorry\r\nX: y", "no empty line"),
            (
                "HTTP/1.1 503 Sorry\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            ("HTTP/1.1 503 Sorry\r\nContent-Length: 4\r\n\r\nabc", "3 bytes follow"),
            ("HTTP/1.1 503 Sorry\r\nX Y: a\r\n\r\n", "head cannot be read"),
        ];
        for (text, why) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert_eq!(
            parse("HTTP/1.1 503 Sorry\nContent-Length: 3\n\nabc").unwrap().body,
            "abc"
        );
    }
}
