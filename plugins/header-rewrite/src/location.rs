//! Changing where a Location leads.

use crate::config::LocationChange;

/// An absolute `http` or `https` URI with another scheme or host; none for anything else.
pub(crate) fn moved(location: &[u8], change: &LocationChange) -> Option<Vec<u8>> {
    let (scheme, port, rest) = if let Some(rest) = strip_scheme(location, b"http://") {
        ("http", &b":80"[..], rest)
    } else {
        ("https", &b":443"[..], strip_scheme(location, b"https://")?)
    };
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let new_scheme = change.scheme.as_deref().unwrap_or(scheme);
    let authority = match &change.host {
        Some(host) => host.as_bytes(),
        // The old scheme's port, said though it goes without saying, is not the new one's.
        None if new_scheme != scheme => authority.strip_suffix(port).unwrap_or(authority),
        None => authority,
    };
    Some([new_scheme.as_bytes(), b"://", authority, rest].concat())
}

/// Schemes are compared without regard to case (RFC 3986, section 3.1).
fn strip_scheme<'a>(location: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = location.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}
