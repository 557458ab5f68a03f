//! Values that stand in lines of every kind.

use std::net::{IpAddr, SocketAddr};

use crate::telemetry::trace::context;

/// Lower-case hexadecimal digits.
pub(in crate::telemetry) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    context::write_hex(bytes, &mut out[start..]);
}

pub(in crate::telemetry) fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// What stands in the place of an address of a UNIX socket, and of its port, as HAProxy has it. The number says nothing: it is there
/// for those who look for one behind a colon.
pub(in crate::telemetry) const UNIX: &str = "unix";
pub(in crate::telemetry) const UNIX_PORT: u16 = 1;

pub(in crate::telemetry) fn push_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let Some(address) = address else {
        out.extend_from_slice(UNIX.as_bytes());
        out.push(b':');
        return push_number(out, UNIX_PORT);
    };
    // Without brackets, as HAProxy: the port follows the last colon.
    push_ip(out, address.ip());
    out.push(b':');
    push_number(out, address.port());
}

/// Writes an address. Most are IPv4, and take a tenth of the time this way.
pub fn push_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                push_number(out, octet);
            }
        }
        IpAddr::V6(v6) => {
            use std::io::Write;
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// What came from the network, in a length that a line can have.
pub(in crate::telemetry) fn clip(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_VALUE)]
}

pub(in crate::telemetry) fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        http::Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// As long as a target is unless more is allowed: lines that are longer than that help nobody.
const MAX_VALUE: usize = 8 << 10;
