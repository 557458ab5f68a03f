//! Whom a client asked for, as the name that a server has to be: `sni="client"`.

use http::header::{HOST, HeaderMap};
use rustls_pki_types::ServerName;

use crate::policy::ConnectionFacts;

/// The host that a request is for, without its port. None where that is no name.
pub fn of_request(headers: &HeaderMap) -> Option<ServerName<'static>> {
    name(host(headers.get(HOST)?.to_str().ok()?))
}

/// The name of the handshake that ended here, or of the ClientHello that passed through.
pub fn of_connection(facts: &ConnectionFacts) -> Option<ServerName<'static>> {
    name(sni(facts)?)
}

/// The same as hosts are compared: in lower case, without a dot at the end.
pub fn host_of_connection(facts: &ConnectionFacts) -> Option<Box<str>> {
    let sni = sni(facts)?;
    Some(sni.strip_suffix('.').unwrap_or(sni).to_ascii_lowercase().into())
}

fn sni(facts: &ConnectionFacts) -> Option<&str> {
    let ended_here = facts.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let passing = facts.hello().and_then(|hello| hello.sni.as_deref());
    ended_here.or(passing)
}

fn name(text: &str) -> Option<ServerName<'static>> {
    // In lower case, so that the same name is the same key.
    ServerName::try_from(text.to_ascii_lowercase()).ok()
}

/// Of `host:port`, as RFC 3986 has it (section 3.2.2): an IPv6 address has brackets.
fn host(authority: &str) -> &str {
    if let Some((ip, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return ip;
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        let of = |host: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_bytes(host).unwrap());
            of_request(&headers).map(|name| name.to_str().into_owned())
        };
        for (host, expected) in [
            (&b"Shop.Example"[..], Some("shop.example")),
            (b"shop.example:8443", Some("shop.example")),
            (b"192.0.2.1:80", Some("192.0.2.1")),
            (b"[2001:db8::1]:80", Some("2001:db8::1")),
            (b"", None),
            (b":80", None),
            (b"sh op", None),
            (b"\xff", None),
        ] {
            assert_eq!(of(host).as_deref(), expected, "{}", host.escape_ascii());
        }
    }
}
