//! Edits, and the host's rules for them.

use super::head::{Headers, Request, Response};
use crate::fields;

/// An edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    Set(String, Vec<u8>),
    Add(String, Vec<u8>),
    Remove(String),
    Path(Vec<u8>),
    Query(Option<Vec<u8>>),
    Status(u16),
}

impl Edit {
    pub(crate) fn set(name: &str, value: &[u8]) -> Self {
        Self::Set(name.to_ascii_lowercase(), value.to_vec())
    }

    pub(crate) fn add(name: &str, value: &[u8]) -> Self {
        Self::Add(name.to_ascii_lowercase(), value.to_vec())
    }

    pub(crate) fn remove(name: &str) -> Self {
        Self::Remove(name.to_ascii_lowercase())
    }

    /// Makes the edit of a request.
    pub(crate) fn apply_to_request(self, request: &mut Request) {
        match self {
            Self::Path(path) => request.path = path,
            Self::Query(query) => request.query = query,
            header => header.apply_to_headers(&mut request.headers),
        }
    }

    /// Makes the edit of a response.
    pub(crate) fn apply_to_response(self, response: &mut Response) {
        match self {
            Self::Status(status) => response.status = status,
            header => header.apply_to_headers(&mut response.headers),
        }
    }

    fn apply_to_headers(self, headers: &mut Headers) {
        match self {
            Self::Set(name, value) => headers.set(&name, value),
            Self::Add(name, value) => headers.add(&name, value),
            Self::Remove(name) => headers.remove(&name),
            Self::Path(_) | Self::Query(_) | Self::Status(_) => {}
        }
    }

    /// The host's rules.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Set(name, value) | Self::Add(name, value) => fields::check_name(name)
                .and_then(|()| fields::check_value(value))
                .map_err(|refused| refused.0),
            Self::Remove(name) => fields::check_name(name).map_err(|refused| refused.0),
            Self::Path(path) if path.first() != Some(&b'/') => Err("a path begins with `/`".to_owned()),
            Self::Path(path) => check_target(path, b"?#<>`"),
            Self::Query(Some(query)) => check_target(query, b"#"),
            Self::Query(None) => Ok(()),
            Self::Status(204 | 205 | 304) => Err("a status that has no body".to_owned()),
            Self::Status(200..=599) => Ok(()),
            Self::Status(status) => Err(format!("{status} is not a status from 200 to 599")),
        }
    }
}

fn check_target(text: &[u8], refused: &[u8]) -> Result<(), String> {
    if std::str::from_utf8(text).is_err() {
        return Err("it has to be UTF-8".to_owned());
    }
    match text
        .iter()
        .find(|byte| refused.contains(byte) || byte.is_ascii_whitespace() || byte.is_ascii_control())
    {
        Some(byte) => Err(format!("it may not contain {:?}", char::from(*byte))),
        None => Ok(()),
    }
}
