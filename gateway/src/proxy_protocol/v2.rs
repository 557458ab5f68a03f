//! Version 2: sixteen fixed bytes, addresses, TLVs (section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::tlv::{self, CRC32C};
use super::{Addresses, Header, ParseError, Parsed, Tlv, UNIX_PATH};

/// What every header of version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses: the signature, version and command, family and protocol, and the length of the rest.
pub const FIXED: usize = 16;

/// Bytes after the fixed part that are read at most. The specification wants headers to fit into 536 bytes; those of clouds
/// with many TLVs do not always, and nothing known comes near this.
pub const MAX_LENGTH: usize = 4096;

const VERSION_LOCAL: u8 = 0x20;
const VERSION_PROXY: u8 = 0x21;

const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    if bytes.iter().zip(&SIGNATURE).any(|(a, b)| a != b) {
        return Err(ParseError::NoHeader);
    }
    let command = bytes.get(12).copied();
    match command {
        None | Some(VERSION_LOCAL | VERSION_PROXY) => {}
        Some(byte) if byte >> 4 != 2 => return Err(ParseError::Version(byte >> 4)),
        Some(byte) => return Err(ParseError::Command(byte & 0x0f)),
    }
    let family = bytes.get(13).copied();
    // What a LOCAL header says of addresses is ignored, the family included.
    if let (Some(VERSION_PROXY), Some(family)) = (command, family)
        && (family >> 4 > 3 || family & 0x0f > 2)
    {
        return Err(ParseError::Family(family));
    }
    let (Some(command), Some(family), Some(&[high, low])) = (command, family, bytes.get(14..FIXED)) else {
        return Ok(Parsed::Incomplete { need: FIXED });
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_LENGTH {
        return Err(ParseError::TooLong);
    }
    let length = FIXED + length;
    let Some(whole) = bytes.get(..length) else {
        return Ok(Parsed::Incomplete { need: length });
    };
    let header = match command {
        VERSION_LOCAL => Header::Local,
        _ => proxied(whole, family)?,
    };
    Ok(Parsed::Complete { header, length })
}

fn proxied(whole: &[u8], family: u8) -> Result<Header, ParseError> {
    let rest = &whole[FIXED..];
    let short = ParseError::ShortAddresses;
    let (addresses, taken) = match family {
        TCP4 => {
            let &[a, b, c, d, e, f, g, h, p, q, r, s] = rest.first_chunk().ok_or(short)?;
            let addresses = Addresses::Tcp4 {
                source: SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([p, q])),
                destination: SocketAddrV4::new(Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([r, s])),
            };
            (addresses, 12)
        }
        TCP6 => {
            let (source, tail) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (destination, tail) = tail.split_first_chunk::<16>().ok_or(short)?;
            let &[p, q, r, s] = tail.first_chunk().ok_or(short)?;
            let end = |ip: &[u8; 16], port| SocketAddrV6::new(Ipv6Addr::from(*ip), u16::from_be_bytes(port), 0, 0);
            let addresses = Addresses::Tcp6 {
                source: end(source, [p, q]),
                destination: end(destination, [r, s]),
            };
            (addresses, 36)
        }
        UNIX => {
            let (source, tail) = rest.split_first_chunk::<UNIX_PATH>().ok_or(short)?;
            let destination = tail.first_chunk::<UNIX_PATH>().ok_or(short)?;
            let addresses = Addresses::Unix {
                source: *source,
                destination: *destination,
            };
            (addresses, 2 * UNIX_PATH)
        }
        // Of another kind, or of none: where addresses end and TLVs begin is not known, so nothing of it is used.
        _ => return Ok(Header::Unknown),
    };
    Ok(Header::proxied(addresses, tlv::parse(whole, FIXED + taken)?))
}

pub(super) fn encode(header: &Header, checksum: bool) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    let proxied = match header {
        Header::Proxied(proxied) => proxied,
        // Nothing that would be ignored is sent.
        Header::Local => {
            bytes.extend([VERSION_LOCAL, UNSPECIFIED, 0, 0]);
            return bytes;
        }
        Header::Unknown => {
            bytes.extend([VERSION_PROXY, UNSPECIFIED, 0, 0]);
            return bytes;
        }
    };
    bytes.push(VERSION_PROXY);
    match &proxied.addresses {
        Addresses::Tcp4 { source, destination } => {
            bytes.extend([TCP4, 0, 0]);
            bytes.extend(source.ip().octets());
            bytes.extend(destination.ip().octets());
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
        Addresses::Tcp6 { source, destination } => {
            bytes.extend([TCP6, 0, 0]);
            bytes.extend(source.ip().octets());
            bytes.extend(destination.ip().octets());
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
        Addresses::Unix { source, destination } => {
            bytes.extend([UNIX, 0, 0]);
            bytes.extend(source);
            bytes.extend(destination);
        }
    }
    let room = FIXED + MAX_LENGTH - if checksum { CHECKSUM.len() } else { 0 };
    proxied.tlvs.iter().for_each(|tlv| append(&mut bytes, tlv, room));
    if checksum {
        bytes.extend(CHECKSUM);
    }
    let length = u16::try_from(bytes.len() - FIXED).unwrap_or(u16::MAX);
    bytes[14..FIXED].copy_from_slice(&length.to_be_bytes());
    if checksum {
        let sum = crc32c::crc32c(&bytes).to_be_bytes();
        let at = bytes.len() - sum.len();
        bytes[at..].copy_from_slice(&sum);
    }
    bytes
}

/// Appends a TLV, unless the header would become longer than `room`.
fn append(bytes: &mut Vec<u8>, tlv: &Tlv, room: usize) {
    let before = bytes.len();
    if !tlv.write(bytes) || bytes.len() > room {
        bytes.truncate(before);
    }
}

/// A checksum before it is known.
const CHECKSUM: [u8; 7] = [CRC32C, 0, 4, 0, 0, 0, 0];
