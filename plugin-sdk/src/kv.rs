//! Key-value pairs, kept by the host: shared by all workers, private to the tenant and plugin. Need `grant "kv"`.
//!
//! A key has at most 256 bytes, a value at most 64 KiB. What is full is full: nothing is forgotten before its time, so give
//! pairs a time to live. They are in memory: they survive a reload, not the process.

use std::fmt;
use std::time::Duration;

use crate::sys::kv as host;

/// Why a pair was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvError {
    /// There are as many pairs or bytes as the plugin may have (`limit kv= kv-entries=`).
    Full,
    /// The key is longer than 256 bytes.
    KeyTooLong,
    /// The value is longer than 64 KiB.
    ValueTooLong,
    /// To be added to, the value has to be a decimal number that `i64` holds.
    NotANumber,
    /// Anything else; for logs.
    Other(String),
}

/// The value of a key.
pub fn get(key: &[u8]) -> Option<Vec<u8>> {
    host::get(key)
}

/// Writes a pair. It is there for so long, or until it is removed.
///
/// # Errors
/// The host has no room for it.
pub fn set(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), KvError> {
    Ok(host::set(key, value, milliseconds(ttl))?)
}

/// Removes a pair. Whether there was one.
pub fn remove(key: &[u8]) -> bool {
    host::remove(key)
}

/// Writes a pair if the key's value is still what is expected, none being none; whether it was. At once: nobody else writes in
/// between.
///
/// # Errors
/// The host has no room for it.
pub fn compare_and_set(
    key: &[u8],
    expected: Option<&[u8]>,
    value: &[u8],
    ttl: Option<Duration>,
) -> Result<bool, KvError> {
    Ok(host::compare_and_set(key, expected, value, milliseconds(ttl))?)
}

/// Adds to a value that is a decimal number, and answers what it is then; a key that is not there is 0 before. The time to
/// live counts from the first time.
///
/// # Errors
/// The value is no number, or the host has no room for another pair.
pub fn increment(key: &[u8], amount: i64, ttl: Option<Duration>) -> Result<i64, KvError> {
    Ok(host::increment(key, amount, milliseconds(ttl))?)
}

/// 0 is for ever; less than a millisecond is one.
fn milliseconds(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))
}

impl From<host::KvError> for KvError {
    fn from(error: host::KvError) -> Self {
        match error {
            host::KvError::Full => Self::Full,
            host::KvError::KeyTooLong => Self::KeyTooLong,
            host::KvError::ValueTooLong => Self::ValueTooLong,
            host::KvError::NotANumber => Self::NotANumber,
            host::KvError::Other(what) => Self::Other(what),
        }
    }
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room for this pair",
            Self::KeyTooLong => "the key is too long",
            Self::ValueTooLong => "the value is too long",
            Self::NotANumber => "the value is no number",
            Self::Other(what) => what,
        })
    }
}

impl std::error::Error for KvError {}
