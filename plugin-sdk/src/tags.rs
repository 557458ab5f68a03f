//! Tags: short texts that go with an exchange from where they are set to its end. Plugins that run later can read them, and
//! the access log shows them. In every HTTP hook but for pieces of a body.

use crate::edits::EditRefused;
use crate::sys::tags as host;

/// Sets a tag, in place of one of this name; applied when the hook returns, and discarded if it fails.
///
/// A name has at most 64 characters (letters, digits, `-`, `_`, `.`; write the plugin's name in front of it), a value at most
/// 256 bytes; an exchange has at most 16 tags.
///
/// # Errors
/// The host's reason for refusing it.
pub fn set(name: &str, value: impl AsRef<[u8]>) -> Result<(), EditRefused> {
    host::set(name, value.as_ref()).map_err(EditRefused)
}

/// The value of a tag, without those that the running call has set. A declared need `tag(…)` is the cheaper way.
pub fn get(name: &str) -> Option<Vec<u8>> {
    host::get(name)
}
