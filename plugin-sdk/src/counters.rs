//! Counters, kept by the host: atomic, shared by all workers, private to the tenant and plugin. Need `grant "counters"`.
//!
//! A counter is named by a key of at most 256 bytes. One not seen before is 0, and one that is 0 again is forgotten: what
//! counts what is under way needs no cleaning up.

use std::fmt;

use crate::sys::counters as host;

/// Why a counter was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterError {
    /// There are as many as the plugin may have (`limit counters=`), and this would be one more.
    Full,
    /// The key is longer than 256 bytes.
    KeyTooLong,
    /// Anything else; for logs.
    Other(String),
}

/// Adds to a counter, and answers what it is then. It stops at the ends of its type.
///
/// # Errors
/// The host has no room for another one, or the key is too long.
#[inline]
pub fn add(key: &[u8], amount: i64) -> Result<i64, CounterError> {
    host::add(key, amount).map_err(|error| match error {
        host::CounterError::Full => CounterError::Full,
        host::CounterError::KeyTooLong => CounterError::KeyTooLong,
        host::CounterError::Other(what) => CounterError::Other(what),
    })
}

/// What a counter is.
#[inline]
pub fn get(key: &[u8]) -> i64 {
    host::get(key)
}

impl fmt::Display for CounterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room for another counter",
            Self::KeyTooLong => "the key is too long",
            Self::Other(what) => what,
        })
    }
}

impl std::error::Error for CounterError {}
