//! Tokens of HTTP (RFC 9110, section 5.6.2): names of fields and cookies, and methods.

/// Whether it is one.
pub(super) fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}
