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
