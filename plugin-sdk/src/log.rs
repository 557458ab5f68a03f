//! Lines in the gateway's own log, under the plugin's name. Rate-limited by the host; lines over 1,024 bytes are cut.
//! Needs `grant "log"`.

use crate::sys::log as host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the plugin's author.
    Debug,
    /// For the record.
    Info,
    /// Something an operator may want to look at.
    Warn,
    /// Something an operator has to look at.
    Error,
}

/// Writes a line.
pub fn write(level: Level, message: &str) {
    let level = match level {
        Level::Debug => host::Level::Debug,
        Level::Info => host::Level::Info,
        Level::Warn => host::Level::Warn,
        Level::Error => host::Level::Error,
    };
    host::write(level, message);
}

/// Writes a line for the plugin's author.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line for the record.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line that an operator may want to look at.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line that an operator has to look at.
pub fn error(message: &str) {
    write(Level::Error, message);
}
