//! Version 1: a line of text, `PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n` (section 2.1).

use std::net::{SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use super::{Addresses, Header, ParseError, Parsed};

/// Bytes of the longest line, its end included.
pub const MAX_LINE: usize = 107;

/// Bytes of the shortest line: `PROXY UNKNOWN\r\n`.
pub(super) const SHORTEST: usize = 15;

/// What lines begin with. Nothing that could be one is waited for when it cannot become any of these.
const TCP4: &[u8] = b"PROXY TCP4 ";
const TCP6: &[u8] = b"PROXY TCP6 ";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

/// The part that all beginnings share.
const PROXY: &[u8] = b"PROXY ";

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let agrees = |begin: &&[u8]| bytes.iter().zip(*begin).all(|(a, b)| a == b);
    if ![TCP4, TCP6, UNKNOWN].iter().any(agrees) {
        return Err(if agrees(&PROXY) {
            ParseError::Protocol
        } else {
            ParseError::NoHeader
        });
    }
    // An end that begins with the last byte that may be would not be whole.
    let within = &bytes[..bytes.len().min(MAX_LINE - 1)];
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return incomplete(bytes.len(), 2);
    };
    match (bytes[end], bytes.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return incomplete(bytes.len(), 1),
        _ => return Err(ParseError::LineEnd),
    }
    Ok(Parsed::Complete {
        header: line(&bytes[..end])?,
        length: end + 2,
    })
}

/// At least `missing` bytes have not come, if there may be more at all.
fn incomplete(have: usize, missing: usize) -> Result<Parsed, ParseError> {
    let need = (have + missing).max(SHORTEST);
    if need > MAX_LINE {
        return Err(ParseError::EndlessLine);
    }
    Ok(Parsed::Incomplete { need })
}

fn line(line: &[u8]) -> Result<Header, ParseError> {
    if let Some(fields) = line.strip_prefix(TCP4) {
        let [source, destination, from, to] = split(fields)?;
        let addresses = Addresses::Tcp4 {
            source: SocketAddrV4::new(address(source)?, port(from)?),
            destination: SocketAddrV4::new(address(destination)?, port(to)?),
        };
        return Ok(Header::proxied(addresses, Vec::new()));
    }
    if let Some(fields) = line.strip_prefix(TCP6) {
        let [source, destination, from, to] = split(fields)?;
        let addresses = Addresses::Tcp6 {
            source: SocketAddrV6::new(address(source)?, port(from)?, 0, 0),
            destination: SocketAddrV6::new(address(destination)?, port(to)?, 0, 0),
        };
        return Ok(Header::proxied(addresses, Vec::new()));
    }
    // Whatever else the line says has to be ignored.
    match line.strip_prefix(UNKNOWN) {
        Some([] | [b' ', ..]) => Ok(Header::Unknown),
        _ => Err(ParseError::Protocol),
    }
}

fn split(fields: &[u8]) -> Result<[&str; 4], ParseError> {
    let text = std::str::from_utf8(fields).map_err(|_| ParseError::Fields)?;
    let mut parts = text.split(' ');
    let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(ParseError::Fields);
    let fields = [next()?, next()?, next()?, next()?];
    match parts.next() {
        None => Ok(fields),
        Some(_) => Err(ParseError::Fields),
    }
}

/// The parsers of the standard library refuse leading zeros in IPv4, zones and brackets in IPv6.
fn address<A: FromStr>(text: &str) -> Result<A, ParseError> {
    text.parse().map_err(|_| ParseError::Address)
}

fn port(text: &str) -> Result<u16, ParseError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(ParseError::Port);
    }
    text.parse().map_err(|_| ParseError::Port)
}

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let addresses = match header {
        Header::Proxied(proxied) => proxied.addresses.as_tcp(),
        Header::Local | Header::Unknown => None,
    };
    let Some((source, destination)) = addresses else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.port(), destination.port());
    format!("PROXY {protocol} {} {} {from} {to}\r\n", source.ip(), destination.ip()).into_bytes()
}
