//! Hosts in authorities (RFC 3986, section 3.2). Depends on nothing here.

/// An authority's host: without user, port and trailing dot. An IPv6 address keeps its brackets.
pub fn host(authority: &[u8]) -> &[u8] {
    let authority = match authority.iter().rposition(|&byte| byte == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    let host = match authority.first() {
        Some(b'[') => authority
            .split_inclusive(|&byte| byte == b']')
            .next()
            .unwrap_or_default(),
        _ => authority.split(|&byte| byte == b':').next().unwrap_or_default(),
    };
    host.strip_suffix(b".").unwrap_or(host)
}

/// A host with an optional port (RFC 3986, section 3.2): no user information, no white space, no control characters, none of the
/// characters that would start another part of a URI, and a port that is a number. An empty one is allowed (RFC 9110, section 7.2).
pub fn is_authority(authority: &[u8]) -> bool {
    let is_plain = |byte: &u8| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'/' | b'?'
                    | b'#'
                    | b'@'
                    | b'\\'
                    | b','
                    | b'"'
                    | b'<'
                    | b'>'
                    | b'['
                    | b']'
                    | b'{'
                    | b'}'
                    | b'|'
                    | b'^'
                    | b'`'
            )
    };
    let (name, port) = match authority.strip_prefix(b"[") {
        Some(address) => {
            let Some(end) = address.iter().position(|byte| *byte == b']') else {
                return false;
            };
            (&address[..end], &address[end + 1..])
        }
        None => authority.split_at(
            authority
                .iter()
                .position(|byte| *byte == b':')
                .unwrap_or(authority.len()),
        ),
    };
    name.iter().all(is_plain)
        && match port {
            [] => true,
            [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}
