//! Requests of a plugin's own, to backends that it was granted (`call "BACKEND"` in the plugin's block).
//!
//! A request filter answers [`Outcome::Call`](crate::Outcome::Call); the host makes the request while nobody waits but the
//! client, and hands the answer to [`CallAnswered`](crate::CallAnswered), with the state that went with the call.

use std::fmt;

/// A request to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub(crate) backend: String,
    pub(crate) method: String,
    pub(crate) target: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: u32,
    pub(crate) state: Vec<u8>,
}

impl Call {
    /// A GET of a path, with a query where there is one: `/check?user=7`.
    pub fn get(backend: &str, target: impl AsRef<[u8]>) -> Self {
        Self::new(backend, "GET", target)
    }

    /// A request of any method.
    pub fn new(backend: &str, method: &str, target: impl AsRef<[u8]>) -> Self {
        Self {
            backend: backend.to_owned(),
            method: method.to_owned(),
            target: target.as_ref().to_vec(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 0,
            state: Vec::new(),
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long to wait for the whole response; at most as long as the operator says, which is also what is waited otherwise.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = milliseconds;
        self
    }

    /// What comes back with the answer; at most 16 KiB.
    #[must_use]
    pub fn state(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.state = state.into();
        self
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The path and query.
    pub fn target(&self) -> &[u8] {
        &self.target
    }
}

/// A backend's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let named = |(known, _): &&(String, Vec<u8>)| known.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| value.as_slice())
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// It did not come in time.
    Timeout,
    /// As many calls of this plugin as the operator allows are under way.
    Busy,
    /// No server could be reached, or it broke off.
    Unreachable,
    /// The response is longer than the operator allows.
    TooLarge,
    /// Anything else; for logs.
    Other(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no answer in time",
            Self::Busy => "too many calls are under way",
            Self::Unreachable => "no server could be reached",
            Self::TooLarge => "the answer is too long",
            Self::Other(what) => what,
        })
    }
}

impl std::error::Error for CallError {}
