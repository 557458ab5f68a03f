//! What the rules of a frontend answer: redirects, and responses that the configuration holds.

use bytes::Bytes;
use gateway_plugin_template::Place;
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, Uri};

use super::error::ProxyError;
use crate::config::Scheme;
use crate::policy::{Exchange, Reply};
use crate::snapshot::rules::{Content, Field, LocationPart, Redirect, Return, Target};

/// The response that sends the client elsewhere. `captured` has, where its target has captures, what they stand for.
pub fn redirect(redirect: &Redirect, captured: &[Vec<u8>], exchange: &Exchange) -> Result<Reply, ProxyError> {
    let uri = &exchange.request.uri;
    let mut location = Vec::with_capacity(LOCATION);
    match &redirect.to {
        Target::Authority { scheme, host, port } => {
            let asked = match exchange.connection.tls {
                Some(_) => Scheme::Https,
                None => Scheme::Http,
            };
            let scheme_now = scheme.unwrap_or(asked);
            location.extend_from_slice(scheme_now.as_str().as_bytes());
            location.extend_from_slice(b"://");
            match host {
                Some(host) => host.write(exchange, Place::Uri, &mut location),
                None => {
                    // Another scheme, or another port, is not on the port that was asked for.
                    let keeps_port = port.is_none() && scheme_now == asked;
                    own_authority(exchange, keeps_port, &mut location);
                }
            }
            if let Some(port) = port.filter(|port| *port != scheme_now.default_port()) {
                location.push(b':');
                location.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
            }
            write_path(uri, &mut location);
        }
        Target::Prefix(prefix) => {
            prefix.write(exchange, Place::Uri, &mut location);
            write_path(uri, &mut location);
        }
        Target::Location(place) => place.write(exchange, Place::Uri, &mut location),
        Target::Matched { parts, .. } => {
            for part in parts {
                match part {
                    LocationPart::Values(values) => values.write(exchange, Place::Uri, &mut location),
                    // Part of a path already.
                    LocationPart::Capture { position, is_value } => {
                        let text = captured.get(*position).map_or(&[][..], Vec::as_slice);
                        match is_value {
                            true => write_value(text, &mut location),
                            false => write_uri(text, &mut location),
                        }
                    }
                }
            }
        }
    }
    if redirect.keeps_query
        && let Some(query) = uri.query()
    {
        add_query(query, &mut location);
    }
    if location.len() > LONGEST_LOCATION {
        return Err(ProxyError::UriTooLong);
    }
    let location = stay_here(&location);
    let value = HeaderValue::from_bytes(location).map_err(|_| ProxyError::BadRequest("bad-location"))?;
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(header::LOCATION, value);
    if !matches!(
        redirect.code,
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT
    ) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Some(cookie) = &redirect.set_cookie {
        headers.insert(header::SET_COOKIE, cookie.clone());
    }
    Ok(Reply {
        status: redirect.code,
        headers,
        body: Bytes::new(),
    })
}

/// Bytes of a Location, at most: no client takes longer ones, and where the request's path stands in it several times it is a multiple of that.
const LONGEST_LOCATION: usize = 16 * 1024;

/// The response that the configuration holds.
pub fn answer(answer: &Return, exchange: &Exchange) -> Result<Reply, ProxyError> {
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for (name, field) in &answer.headers {
        let value = match field {
            Field::Fixed(value) => value.clone(),
            Field::Values(values) => {
                let mut text = Vec::new();
                values.write(exchange, Place::Header, &mut text);
                HeaderValue::from_bytes(text.trim_ascii()).map_err(|_| ProxyError::BadRequest("bad-value"))?
            }
        };
        headers.append(name, value);
    }
    let body = match &answer.content {
        Content::Fixed(bytes) => bytes.clone(),
        Content::Values(values, purpose) => {
            let mut text = Vec::new();
            values.write(exchange, *purpose, &mut text);
            text.into()
        }
    };
    Ok(Reply {
        status: answer.status,
        headers,
        body,
    })
}

/// The host that the client asked for; without one, as of an HTTP/1.0 client, the address that it came to.
fn own_authority(exchange: &Exchange, keeps_port: bool, out: &mut Vec<u8>) {
    let asked = exchange.request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let asked = asked.or_else(|| Some(exchange.request.uri.authority()?.as_str().as_bytes()));
    match asked.filter(|asked| !asked.is_empty()) {
        Some(asked) if keeps_port => write_uri(asked, out),
        Some(asked) => write_uri(without_port(asked), out),
        None => {
            let Some(local) = exchange.connection.local() else {
                // It came to a UNIX socket of this machine.
                return out.extend_from_slice(b"localhost");
            };
            let address = match local.ip().to_canonical() {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            };
            out.extend_from_slice(address.as_bytes());
            if keeps_port {
                out.push(b':');
                out.extend_from_slice(itoa::Buffer::new().format(local.port()).as_bytes());
            }
        }
    }
}

/// `example.net:8080` and `[::1]:8080` without the port.
fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        // A colon within brackets is an address's own.
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

fn write_path(uri: &Uri, out: &mut Vec<u8>) {
    match uri.path() {
        // `OPTIONS *` asks about the server as a whole.
        "*" | "" => out.push(b'/'),
        path => write_uri(path.as_bytes(), out),
    }
}

/// Adds a query to a location: behind one that is there, and before a fragment (RFC 3986, section 3).
fn add_query(query: &str, location: &mut Vec<u8>) {
    let fragment = location.iter().position(|byte| *byte == b'#').unwrap_or(location.len());
    let fragment = location.split_off(fragment);
    location.push(if location.contains(&b'?') { b'&' } else { b'?' });
    write_uri(query.as_bytes(), location);
    location.extend_from_slice(&fragment);
}

/// What a client sent as a part of a URI. What it could not be written with in a header is encoded.
fn write_uri(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        write_byte(byte, b"", out);
    }
}

/// Part of a path as the value of a query's parameter: it stands for there what it stood for in the path, and divides nothing. What is encoded
/// in a path is so in a query, but for `+`, which servers read as a space there.
fn write_value(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        write_byte(byte, b"#&+;=?", out);
    }
}

/// One byte, encoded where it is one of these or cannot be written.
fn write_byte(byte: u8, encoded: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_odd = matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    match byte.is_ascii_graphic() && !is_odd && !encoded.contains(&byte) {
        true => out.push(byte),
        false => out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    }
}

/// A location that begins with slashes is a path, and not the host that browsers take `//host` and `/\host` for: a client's
/// path must not choose where its redirect leads.
fn stay_here(location: &[u8]) -> &[u8] {
    let is_slash = |byte: &&u8| matches!(byte, b'/' | b'\\');
    match location.iter().take_while(is_slash).count() {
        0 | 1 => location,
        slashes => &location[slashes - 1..],
    }
}

/// Room for most locations.
const LOCATION: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_off_and_an_address_kept() {
        for (authority, expected) in [
            ("example.net:8080", "example.net"),
            ("example.net", "example.net"),
            ("[2001:db8::1]:8080", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(without_port(authority.as_bytes()), expected.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn a_path_is_never_taken_for_a_host() {
        assert_eq!(stay_here(b"//evil.example/x"), b"/evil.example/x");
        assert_eq!(stay_here(b"///evil.example"), b"/evil.example");
        assert_eq!(stay_here(b"/x//y"), b"/x//y");
        assert_eq!(stay_here(b"https://a.example//x"), b"https://a.example//x");
        let mut encoded = Vec::new();
        write_uri(b"/\\evil.example", &mut encoded);
        assert_eq!(stay_here(&encoded), b"/%5Cevil.example");
    }
}
