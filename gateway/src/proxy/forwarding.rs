//! What servers are told of the client (X-Forwarded-*, X-Real-IP, RFC 7239's Forwarded), and what trusted proxies in front
//! say of it.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::connection::Connection;
use crate::config::{ClientIpFrom, Forwarded, ForwardedBy, Forwarding};
use crate::policy::{ConnectionFacts, Ends};
use crate::telemetry::access::push_ip;
use crate::twins::{self, reads_as, same};

/// What servers are told of a connection's client: made once, when it is first told.
#[derive(Debug, Default)]
pub struct Told {
    client: OnceCell<HeaderValue>,
    port: OnceCell<HeaderValue>,
    /// The element of Forwarded without its host, and how it was asked for: a reload may ask otherwise.
    element: RefCell<Option<(Forwarded, HeaderValue)>>,
    /// The last client that a proxy in front named: on one connection there are often many requests of one client.
    named: RefCell<Option<Arc<ConnectionFacts>>>,
}

/// Drops what is not to be believed of a request that has come, and answers who its client is, when that is somebody else
/// than who connected.
pub fn receive(
    forwarding: &Forwarding,
    connection: &Connection,
    headers: &mut HeaderMap,
) -> Option<Arc<ConnectionFacts>> {
    let trusted = forwarding.trusted.as_ref()?;
    let peer = connection.facts.client();
    if !trusted.trusts(peer.map(|peer| peer.ip())) {
        let said: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_of_client(name, forwarding))
            .cloned()
            .collect();
        for name in said {
            headers.remove(name);
        }
        return None;
    }
    let from = trusted.client_ip.as_ref()?;
    let client = named(from, headers, peer, |address| trusted.contains(address))?;
    let mut last = connection.told.named.borrow_mut();
    if let Some(last) = last.as_ref().filter(|last| last.client() == Some(client)) {
        return Some(last.clone());
    }
    let mut facts = ConnectionFacts::clone(&connection.facts);
    facts.ends = Ends::of(Some(client), facts.local());
    let facts = Arc::new(facts);
    *last = Some(facts.clone());
    Some(facts)
}

/// The Host that the client asked for, where servers are told of it: to be kept before anything rewrites the request.
pub fn asked_host(forwarding: &Forwarding, headers: &HeaderMap) -> Option<HeaderValue> {
    let is_told = forwarding.headers.host || forwarding.forwarded.as_ref().is_some_and(|forwarded| forwarded.host);
    headers.get(header::HOST).filter(|_| is_told).cloned()
}

/// Writes into a request that goes to a server who its client is, and which `host` it asked for. What servers may take for one of
/// these fields does not go along with it, whoever has sent it.
pub fn announce(
    forwarding: &Forwarding,
    connection: &Connection,
    client: Option<SocketAddr>,
    host: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    let facts = &*connection.facts;
    let peer = facts.client_ip();
    let believed = forwarding.trusts(peer);
    if let Some(forwarded_for) = &forwarding.forwarded_for
        && !peer.is_some_and(|peer| forwarded_for.excepts(peer))
    {
        twins::remove(headers, &forwarded_for.header);
        // A trusted proxy on this machine, which comes over a UNIX socket, has no address that could be told: its word is the last one.
        let is_enough = forwarded_for.if_none || (peer.is_none() && believed);
        if !(is_enough && headers.contains_key(&forwarded_for.header)) {
            // Of anybody else who comes over one it is said that he is not known: what he says himself is not to be the last word. So it is where
            // nobody says anything: a server that finds no field would take the gateway for the client.
            let value = connection.told.client.get_or_init(|| peer.map_or(UNKNOWN, address));
            headers.append(&forwarded_for.header, value.clone());
        }
    }
    if let Some(forwarded) = &forwarding.forwarded {
        let element = connection.told.element(forwarded, facts);
        let element = match host.filter(|_| forwarded.host) {
            Some(host) => with_host(&element, host),
            None => element,
        };
        if !element.is_empty() {
            headers.append(header::FORWARDED, element);
        }
    }
    let mut set = |asked: bool, name: HeaderName, value: &dyn Fn() -> Option<HeaderValue>| {
        if !asked {
            return;
        }
        twins::remove(headers, &name);
        // What a trusted proxy said, it said of the client; from here it could only be said of the proxy.
        if believed && headers.contains_key(&name) {
            return;
        }
        match value() {
            Some(value) => headers.insert(name, value),
            // There is none, as with HTTP/1.0 and no Host: what the client says of it is its own invention.
            None => headers.remove(name),
        };
    };
    let asked = forwarding.headers;
    set(asked.proto, X_FORWARDED_PROTO, &|| {
        Some(HeaderValue::from_static(scheme(facts)))
    });
    set(asked.host, X_FORWARDED_HOST, &|| host.cloned());
    set(asked.port, X_FORWARDED_PORT, &|| {
        let local = facts.local()?;
        let port = || HeaderValue::from(local.port());
        Some(connection.told.port.get_or_init(port).clone())
    });
    set(asked.real_ip, X_REAL_IP, &|| {
        let client = client?.ip();
        Some(if Some(client) == peer {
            connection.told.client.get_or_init(|| address(client)).clone()
        } else {
            address(client)
        })
    });
}

impl Told {
    fn element(&self, forwarded: &Forwarded, facts: &ConnectionFacts) -> HeaderValue {
        let mut known = self.element.borrow_mut();
        if let Some((asked, element)) = &*known
            && asked == forwarded
        {
            return element.clone();
        }
        let mut element = String::new();
        let mut push = |name: &str, value: &str| {
            if !element.is_empty() {
                element.push(';');
            }
            element.push_str(name);
            element.push_str(value);
        };
        if forwarded.client {
            push("for=", &node(facts.client_ip()));
        }
        match &forwarded.by {
            Some(ForwardedBy::Address) => push("by=", &node(facts.local().map(|local| local.ip()))),
            Some(ForwardedBy::Obfuscated(name)) => push("by=", name),
            None => {}
        }
        if forwarded.proto {
            push("proto=", scheme(facts));
        }
        // Addresses, words and an identifier that was looked at when it was read: all of that can stand in a header.
        let element = HeaderValue::try_from(element).unwrap_or(HeaderValue::from_static(""));
        *known = Some((forwarded.clone(), element.clone()));
        element
    }
}

/// An address as a node of RFC 7239, section 6: of IPv6 in brackets and quotes. A UNIX socket has none that could be told.
fn node(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        None => "unknown".to_owned(),
    }
}

/// The element with the host. A host has no quotes or backslashes in it, or the request would have been refused.
fn with_host(element: &HeaderValue, host: &HeaderValue) -> HeaderValue {
    let (element, host) = (element.as_bytes(), host.as_bytes());
    let mut value = Vec::with_capacity(element.len() + host.len() + 8);
    value.extend_from_slice(element);
    if !value.is_empty() {
        value.push(b';');
    }
    value.extend_from_slice(b"host=");
    let is_token = !host.is_empty() && host.iter().all(|byte| is_token(*byte));
    if is_token {
        value.extend_from_slice(host);
    } else {
        value.push(b'"');
        value.extend_from_slice(host);
        value.push(b'"');
    }
    HeaderValue::from_bytes(&value).unwrap_or(HeaderValue::from_static("host=unknown"))
}

/// The nearest address, beginning with who connected, that is not a trusted proxy's: each of those is believed what it says
/// of the one before it. None when that is who connected. Of what cannot be read as an address nothing further is believed.
fn named(
    from: &ClientIpFrom,
    headers: &HeaderMap,
    peer: Option<SocketAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let mut client = peer;
    let mut step = |said: Option<(IpAddr, Option<u16>)>| {
        let Some((address, port)) = said else { return false };
        // As HAProxy: the port goes on for as long as it could be one of that address.
        let of_family = peer.filter(|peer| address.is_ipv4() == peer.is_ipv4());
        let port = port.unwrap_or(of_family.map_or(0, |peer| peer.port()));
        client = Some(SocketAddr::new(address, port));
        is_trusted(address)
    };
    match from {
        ClientIpFrom::Header(name) => {
            let lines = headers.get_all(name).iter().rev();
            let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
            hops.all(|hop| step(std::str::from_utf8(hop).ok().and_then(|hop| hop_address(hop.trim()))));
        }
        ClientIpFrom::Forwarded => {
            for line in headers.get_all(header::FORWARDED).iter().rev() {
                let Some(hops) = line.to_str().ok().and_then(forwarded_hops) else {
                    break;
                };
                if !hops.iter().rev().all(|hop| step(hop.as_deref().and_then(hop_address))) {
                    break;
                }
            }
        }
    }
    client.filter(|client| peer.is_none_or(|peer| client.ip() != peer.ip()))
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn hop_address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((inner.parse::<IpAddr>().ok()?.to_canonical(), None))
}

/// By element of a line of Forwarded: what its `for` says, none where it says nothing. None for a line that is not as
/// RFC 7239, section 4, has it: whoever reads it could read it otherwise.
fn forwarded_hops(line: &str) -> Option<Vec<Option<String>>> {
    let mut hops = Vec::new();
    let mut rest = line.trim();
    let mut hop = None;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = pair_value(after)?;
        if name.eq_ignore_ascii_case("for") {
            // Said twice, it says nothing.
            if hop.replace(value).is_some() {
                return None;
            }
        }
        let after = after.trim_start();
        match after.as_bytes().first() {
            None => {
                hops.push(hop.take());
                return Some(hops);
            }
            Some(b';') => {}
            Some(b',') => hops.push(hop.take()),
            Some(_) => return None,
        }
        rest = after[1..].trim_start();
    }
    // Behind the last separator something has to follow.
    None
}

/// A token or a quoted string, and what follows it.
fn pair_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Addresses of IPv4 with ports are written without quotes by many, though they would need them.
        let is_value = |byte: u8| is_token(byte) || matches!(byte, b':' | b'[' | b']');
        let end = text.bytes().position(|byte| !is_value(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a field says something of the client that only a proxy can know.
pub fn is_of_client(name: &HeaderName, forwarding: &Forwarding) -> bool {
    is_of_proxies(name) || forwarding.named_fields().any(|own| reads_as(name, own))
}

/// Whether it is a field that [`announce`] writes, or in which trusted proxies say who the client is.
pub fn is_told_in(forwarding: &Forwarding, name: &HeaderName) -> bool {
    let asked = forwarding.headers;
    let trusted = forwarding.trusted.as_ref();
    let names_client = trusted.is_some_and(|trusted| trusted.client_ip == Some(ClientIpFrom::Forwarded));
    let usual = [
        (forwarding.forwarded.is_some() || names_client, header::FORWARDED),
        (asked.proto, X_FORWARDED_PROTO),
        (asked.host, X_FORWARDED_HOST),
        (asked.port, X_FORWARDED_PORT),
        (asked.real_ip, X_REAL_IP),
    ];
    let mut usual = usual.iter().filter(|(is_told, _)| *is_told);
    usual.any(|(_, own)| reads_as(name, own)) || forwarding.named_fields().any(|own| reads_as(name, own))
}

/// Whether a field is one of those by which proxies commonly say who the client is.
pub fn is_of_proxies(name: &HeaderName) -> bool {
    let starts = |prefix: &str| {
        name.as_str()
            .get(..prefix.len())
            .is_some_and(|start| same(start, prefix))
    };
    starts("x-forwarded-") || name == header::FORWARDED || reads_as(name, &X_REAL_IP)
}

fn scheme(facts: &ConnectionFacts) -> &'static str {
    match facts.tls {
        Some(_) => "https",
        None => "http",
    }
}

fn address(address: IpAddr) -> HeaderValue {
    let mut text = Vec::with_capacity(LONGEST_ADDRESS);
    push_ip(&mut text, address.to_canonical());
    HeaderValue::try_from(text).unwrap_or(UNKNOWN)
}

/// Nobody knows (RFC 7239, section 6.2).
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// Characters of the longest address.
const LONGEST_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(from: &ClientIpFrom, lines: &[(&str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let trusted: ipnet::IpNet = "10.0.0.0/8".parse().unwrap();
        let peer = Some("10.0.0.1:7".parse().unwrap());
        named(from, &headers, peer, |address| trusted.contains(&address)).map(|client| client.to_string())
    }

    #[test]
    fn the_nearest_address_that_is_no_proxys_is_the_clients() {
        let list = ClientIpFrom::Header(HeaderName::from_static("x-forwarded-for"));
        let of = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            find(&list, &lines)
        };
        assert_eq!(of(&["203.0.113.9"]).as_deref(), Some("203.0.113.9:7"));
        assert_eq!(of(&["1.2.3.4, 203.0.113.9"]).as_deref(), Some("203.0.113.9:7"));
        assert_eq!(
            of(&["1.2.3.4", "203.0.113.9, 10.1.1.1"]).as_deref(),
            Some("203.0.113.9:7")
        );
        assert_eq!(of(&["203.0.113.9:99 , 10.1.1.1"]).as_deref(), Some("203.0.113.9:99"));
        assert_eq!(of(&["2001:db8::1"]).as_deref(), Some("[2001:db8::1]:0"));
        assert_eq!(of(&["[2001:db8::1]:5"]).as_deref(), Some("[2001:db8::1]:5"));
        // Only proxies: the first of them is the client.
        assert_eq!(of(&["10.2.2.2, 10.1.1.1"]).as_deref(), Some("10.2.2.2:7"));
        // What cannot be read ends it, and what is before it is not believed.
        assert_eq!(of(&["1.2.3.4, unknown"]), None);
        assert_eq!(of(&["1.2.3.4, ,10.1.1.1"]).as_deref(), Some("10.1.1.1:7"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        let of = |line: &str| find(&ClientIpFrom::Forwarded, &[("forwarded", line)]);
        assert_eq!(of("for=203.0.113.9").as_deref(), Some("203.0.113.9:7"));
        assert_eq!(
            of("FOR=\"[2001:db8::1]:80\";proto=https").as_deref(),
            Some("[2001:db8::1]:80")
        );
        assert_eq!(
            of("for=1.2.3.4, proto=http;for=\"203.0.113.9\" , for=10.1.1.1;by=_x").as_deref(),
            Some("203.0.113.9:7")
        );
        assert_eq!(of("for=_hidden"), None);
        assert_eq!(of("for=unknown, for=10.1.1.1").as_deref(), Some("10.1.1.1:7"));
        assert_eq!(of("proto=https"), None);
        // A quote that is never closed would hide what a proxy has appended: none of the line is believed.
        assert_eq!(of("for=\"1.2.3.4, for=203.0.113.9"), None);
        assert_eq!(of("for=1.2.3.4;for=203.0.113.9"), None);
        assert_eq!(of("for = 1.2.3.4"), None);
        assert_eq!(of("for=1.2.3.4,"), None);
        assert_eq!(of("for=\"1.2.3.4\"x"), None);
    }

    #[test]
    fn a_host_is_quoted_where_it_is_no_token() {
        let element = HeaderValue::from_static("for=192.0.2.1");
        let with = |host: &'static str| with_host(&element, &HeaderValue::from_static(host));
        assert_eq!(with("example.net"), "for=192.0.2.1;host=example.net");
        assert_eq!(with("example.net:8080"), "for=192.0.2.1;host=\"example.net:8080\"");
        assert_eq!(with("[::1]"), "for=192.0.2.1;host=\"[::1]\"");
        assert_eq!(node(Some("::ffff:192.0.2.1".parse().unwrap())), "192.0.2.1");
        assert_eq!(node(None), "unknown");
        assert_eq!(node(Some("2001:db8::1".parse().unwrap())), "\"[2001:db8::1]\"");
    }

    proptest! {
        #[test]
        fn nothing_that_a_proxy_sends_panics(line in "\\PC{0,60}") {
            forwarded_hops(&line);
            hop_address(&line);
        }

        #[test]
        fn what_is_written_is_read_as_it_was(address: IpAddr) {
            let line = format!("for={};proto=http", node(Some(address)));
            let hops = forwarded_hops(&line).unwrap();
            let hop = hop_address(hops[0].as_deref().unwrap());
            prop_assert_eq!(hop, Some((address.to_canonical(), None)));
        }
    }
}
