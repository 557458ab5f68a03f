//! Edits to heads. They are applied when the hook returns, and discarded if it fails.

use std::fmt;

use crate::sys::{request_edits, response_edits};

/// Edits to the request.
#[derive(Debug)]
pub struct RequestEdits {
    _private: (),
}

/// Edits to the response.
#[derive(Debug)]
pub struct ResponseEdits {
    _private: (),
}

/// Why the host refused an edit: an invalid name or value, a field that belongs to the connection or the framing, or more
/// edits than the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditRefused(pub(crate) String);

impl RequestEdits {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }

    /// Replaces every value of a header by this one.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditRefused> {
        request_edits::set_header(name, value.as_ref()).map_err(EditRefused)
    }

    /// Adds a value to a header.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditRefused> {
        request_edits::add_header(name, value.as_ref()).map_err(EditRefused)
    }

    /// Removes every value of a header; no error when there is none.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn remove_header(&mut self, name: &str) -> Result<(), EditRefused> {
        request_edits::remove_header(name).map_err(EditRefused)
    }

    /// Replaces the path. It has to begin with `/` and contain no `?`, `#`, white space or control character.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn set_path(&mut self, path: impl AsRef<[u8]>) -> Result<(), EditRefused> {
        request_edits::set_path(path.as_ref()).map_err(EditRefused)
    }

    /// Replaces the query, or removes it. Without the leading `?`; no `#`, white space or control character.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn set_query(&mut self, query: Option<&[u8]>) -> Result<(), EditRefused> {
        request_edits::set_query(query).map_err(EditRefused)
    }
}

impl ResponseEdits {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }

    /// Replaces every value of a header by this one.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn set_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditRefused> {
        response_edits::set_header(name, value.as_ref()).map_err(EditRefused)
    }

    /// Adds a value to a header.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn add_header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), EditRefused> {
        response_edits::add_header(name, value.as_ref()).map_err(EditRefused)
    }

    /// Removes every value of a header; no error when there is none.
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn remove_header(&mut self, name: &str) -> Result<(), EditRefused> {
        response_edits::remove_header(name).map_err(EditRefused)
    }

    /// Replaces the status: 200 to 599, and none that has no body (204, 205, 304).
    ///
    /// # Errors
    /// The host's reason for refusing it.
    pub fn set_status(&mut self, status: u16) -> Result<(), EditRefused> {
        response_edits::set_status(status).map_err(EditRefused)
    }
}

impl fmt::Display for EditRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EditRefused {}
