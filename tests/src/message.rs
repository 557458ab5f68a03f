//! HTTP/1.1 messages as the tests see them: parsed only as far as an assertion needs, the bytes kept beside it.
//!
//! This reads what the gateway wrote, so it is strict where the gateway has to be: a head that is not one is an error.

use std::fmt;

/// Header fields in order of arrival.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn lists(&self, name: &str, item: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(item))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(n, v)| (n, v))).finish()
    }
}

/// A request as a server saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target as it was sent.
    pub target: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// Header fields.
    pub headers: Headers,
    /// The content, with chunking taken off.
    pub body: Vec<u8>,
    /// The head as bytes.
    pub raw: Vec<u8>,
    /// Which of the server's connections it came on, from 0.
    pub connection: usize,
}

/// A response as a client saw it.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
    /// Header fields.
    pub headers: Headers,
    /// The content, with chunking taken off.
    pub body: Vec<u8>,
    /// The head as bytes.
    pub raw: Vec<u8>,
}

impl Response {
    /// The content as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not UTF-8)")
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// A parsed head: first line and fields.
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) headers: Headers,
    pub(crate) raw: Vec<u8>,
}

/// How long a message's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Head {
    pub(crate) fn parse(raw: Vec<u8>) -> Result<Self, String> {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text
            .strip_suffix("\r\n\r\n")
            .ok_or("the head has no end")?
            .split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut headers = Headers::default();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(format!("no colon in {line:?}"))?;
            if name.is_empty() || name.contains([' ', '\t', '\n', '\r']) || value.contains(['\n', '\r', '\0']) {
                return Err(format!("{line:?} is no header field"));
            }
            headers
                .0
                .push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self { first, headers, raw })
    }

    pub(crate) fn request_framing(&self) -> Result<Framing, String> {
        self.declared().map(|framing| framing.unwrap_or(Framing::None))
    }

    pub(crate) fn response_framing(&self, status: u16, asked: &str) -> Result<Framing, String> {
        let declared = self.declared()?;
        if asked == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Framing::None);
        }
        Ok(declared.unwrap_or(Framing::UntilClose))
    }

    fn declared(&self) -> Result<Option<Framing>, String> {
        let lengths: Vec<_> = self.headers.all("content-length").collect();
        let chunked = self.headers.lists("transfer-encoding", "chunked");
        match (lengths.as_slice(), chunked) {
            ([], false) => Ok(None),
            ([], true) => Ok(Some(Framing::Chunked)),
            ([one], false) => {
                let length = one.parse().map_err(|_| format!("content-length {one:?}"))?;
                Ok(Some(Framing::Length(length)))
            }
            // What smuggling is made of: nobody that the gateway talks to may ever see it.
            _ => Err(format!("ambiguous framing: lengths {lengths:?}, chunked {chunked}")),
        }
    }
}

/// A request to send, made up as text; nothing is checked, so that it can be as wrong as a test wants it.
#[derive(Debug, Clone)]
pub struct RequestText {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

/// A GET request.
pub fn get(target: &str) -> RequestText {
    method("GET", target)
}

/// A HEAD request.
pub fn head(target: &str) -> RequestText {
    method("HEAD", target)
}

/// A DELETE request.
pub fn delete(target: &str) -> RequestText {
    method("DELETE", target)
}

/// A POST request with content.
pub fn post(target: &str, body: impl Into<Vec<u8>>) -> RequestText {
    method("POST", target).body(body)
}

/// A PUT request with content.
pub fn put(target: &str, body: impl Into<Vec<u8>>) -> RequestText {
    method("PUT", target).body(body)
}

/// A request with this method.
pub fn method(method: &str, target: &str) -> RequestText {
    RequestText {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: Vec::new(),
        body: None,
    }
}

impl RequestText {
    /// With one more header field. `Host: test.example` is sent unless a host is named here.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// To this host.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.header("Host", host)
    }

    /// With this content and its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(crate) fn method_name(&self) -> &str {
        &self.method
    }

    /// The bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: test.example\r\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = self.body.as_deref().unwrap_or_default();
        if self.body.is_some() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}
