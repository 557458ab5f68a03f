//! What the gateway takes as edits of header fields, for a plugin that is told by its configuration which to make: what is checked in
//! `configure` stops the load, and what is only found out in a hook fails each request.
//!
//! ```
//! use gateway_plugin_sdk::{ConfigError, fields};
//!
//! fn check(header: &str) -> Result<(), ConfigError> {
//!     fields::check_name(header).map_err(|refused| ConfigError::from(refused).at("/header"))
//! }
//! assert!(check("x-user").is_ok());
//! assert!(check("Content-Length").is_err());
//! ```

use crate::edits::EditRefused;

/// Whether a field of this name may be set, added and removed, in a request, a response and a reply.
///
/// # Errors
/// It is no name (RFC 9110, section 5.1), or the field is one that only the gateway writes: hop-by-hop ones (section 7.6.1), framing,
/// and `Host`.
pub fn check_name(name: &str) -> Result<(), EditRefused> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(EditRefused(format!("`{name}` is no name of a field")));
    }
    if GATEWAYS_OWN.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(EditRefused(format!(
            "`{name}` belongs to the connection or the framing"
        )));
    }
    Ok(())
}

/// Whether a field may have this value.
///
/// # Errors
/// It begins or ends with white space, or has a control character in it (RFC 9110, section 5.5).
pub fn check_value(value: &[u8]) -> Result<(), EditRefused> {
    if value.trim_ascii().len() != value.len() {
        return Err(EditRefused(
            "a field's value neither begins nor ends with white space".to_owned(),
        ));
    }
    if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(EditRefused("a field's value has no control characters".to_owned()));
    }
    Ok(())
}

/// Names of fields that only the gateway writes, in lower case.
pub const GATEWAYS_OWN: [&str; 14] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
