//! The type-length-value vectors behind the addresses of version 2 (sections 2.2.1 to 2.2.8).

use super::ParseError;

/// Something that a header says beside addresses. Padding and a checksum that was right are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tlv {
    /// The application protocol agreed on, [`MAX_ALPN`] bytes at most.
    Alpn(Box<[u8]>),
    /// The host that the client asked for: the SNI when it spoke TLS. [`MAX_AUTHORITY`] bytes at most.
    Authority(Box<str>),
    /// What the first proxy calls the connection, [`MAX_UNIQUE_ID`] bytes at most.
    UniqueId(Box<[u8]>),
    /// How the client spoke TLS with the sender.
    Ssl(Ssl),
    /// The name of a network namespace.
    Namespace(Box<[u8]>),
    /// Of any other type: those of clouds (AWS 0xEA, Azure 0xEE, Google 0xE0) and what is not known. Kept as it came.
    Other(RawTlv),
}

/// A type and a value, not looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTlv {
    /// The type.
    pub kind: u8,
    /// The value, 65,535 bytes at most.
    pub value: Box<[u8]>,
}

/// How a client spoke TLS with the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// [`SSL_CLIENT`], [`SSL_CERTIFICATE_CONNECTION`], [`SSL_CERTIFICATE_SESSION`].
    pub client: u8,
    /// 0 when the client had a certificate, which was verified.
    pub verify: u32,
    /// Of the types in [`ssl`], and others.
    pub details: Vec<RawTlv>,
}

/// [`Ssl::client`]: the client spoke TLS.
pub const SSL_CLIENT: u8 = 0x01;
/// [`Ssl::client`]: it gave a certificate on this connection.
pub const SSL_CERTIFICATE_CONNECTION: u8 = 0x02;
/// [`Ssl::client`]: it gave one at least once in this TLS session.
pub const SSL_CERTIFICATE_SESSION: u8 = 0x04;

/// Types of [`Ssl::details`].
pub mod ssl {
    /// The TLS version, as `TLSv1.3`.
    pub const VERSION: u8 = 0x21;
    /// The Common Name of the client's certificate.
    pub const COMMON_NAME: u8 = 0x22;
    /// The cipher, by the name that OpenSSL gives it.
    pub const CIPHER: u8 = 0x23;
    /// How the sender's certificate is signed, as `SHA256`.
    pub const SIGNATURE_ALGORITHM: u8 = 0x24;
    /// The kind of its key, as `RSA2048`.
    pub const KEY_ALGORITHM: u8 = 0x25;
}

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const NAMESPACE: u8 = 0x30;

/// TLS gives the name of a protocol one byte of length (RFC 7301, section 3.1).
pub const MAX_ALPN: usize = 255;
/// Bytes, as HAProxy; a domain name has 253 at most.
pub const MAX_AUTHORITY: usize = 255;
/// Bytes: the specification's limit (section 2.2.5).
pub const MAX_UNIQUE_ID: usize = 128;
/// TLVs of a header that are kept, and sub-TLVs of one: each costs an allocation. Senders have a handful.
pub const MAX_TLVS: usize = 64;

/// Reads the TLVs from `at` to the end of a header, and verifies its checksum if it has one.
pub(super) fn parse(whole: &[u8], at: usize) -> Result<Vec<Tlv>, ParseError> {
    let mut once = Once::default();
    let mut tlvs = Vec::new();
    let mut vectors = Vectors { bytes: &whole[at..] };
    while let Some((kind, value)) = vectors.next()? {
        let invalid = ParseError::TlvValue(kind);
        let bounded = |most: usize| if value.len() <= most { Ok(value) } else { Err(invalid) };
        let tlv = match kind {
            NOOP => continue,
            CRC32C => {
                once.see(kind)?;
                let end = whole.len() - vectors.bytes.len();
                verify(whole, end - value.len(), value)?;
                continue;
            }
            ALPN => Tlv::Alpn(once.see(kind).and(bounded(MAX_ALPN))?.into()),
            AUTHORITY => {
                let text = std::str::from_utf8(once.see(kind).and(bounded(MAX_AUTHORITY))?).map_err(|_| invalid)?;
                Tlv::Authority(text.into())
            }
            UNIQUE_ID => Tlv::UniqueId(once.see(kind).and(bounded(MAX_UNIQUE_ID))?.into()),
            SSL => Tlv::Ssl(once.see(kind).and(Ssl::parse(value))?),
            NAMESPACE => Tlv::Namespace(once.see(kind).map(|()| value)?.into()),
            kind => Tlv::Other(RawTlv {
                kind,
                value: value.into(),
            }),
        };
        if tlvs.len() == MAX_TLVS {
            return Err(ParseError::TooManyTlvs);
        }
        tlvs.push(tlv);
    }
    Ok(tlvs)
}

/// The checksum is over the header with zeros in its place, which begins at `at`.
fn verify(whole: &[u8], at: usize, value: &[u8]) -> Result<(), ParseError> {
    let &sum: &[u8; 4] = value.try_into().map_err(|_| ParseError::TlvValue(CRC32C))?;
    let computed = crc32c::crc32c(&whole[..at]);
    let computed = crc32c::crc32c_append(computed, &[0; 4]);
    let computed = crc32c::crc32c_append(computed, &whole[at + sum.len()..]);
    if computed == u32::from_be_bytes(sum) {
        Ok(())
    } else {
        Err(ParseError::Checksum)
    }
}

impl Tlv {
    /// Writes it. False when its value is too long for a TLV, after which `bytes` are of no use.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::Alpn(value) => vector(bytes, ALPN, value),
            Self::Authority(value) => vector(bytes, AUTHORITY, value.as_bytes()),
            Self::UniqueId(value) => vector(bytes, UNIQUE_ID, value),
            Self::Namespace(value) => vector(bytes, NAMESPACE, value),
            Self::Other(raw) => vector(bytes, raw.kind, &raw.value),
            Self::Ssl(ssl) => {
                let mut value = vec![ssl.client];
                value.extend(ssl.verify.to_be_bytes());
                ssl.details.iter().all(|raw| vector(&mut value, raw.kind, &raw.value)) && vector(bytes, SSL, &value)
            }
        }
    }
}

fn vector(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) -> bool {
    let Ok(length) = u16::try_from(value.len()) else {
        return false;
    };
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    true
}

impl Ssl {
    fn parse(value: &[u8]) -> Result<Self, ParseError> {
        let (&[client, a, b, c, d], rest) = value.split_first_chunk().ok_or(ParseError::TlvValue(SSL))?;
        let mut details = Vec::new();
        let mut vectors = Vectors { bytes: rest };
        while let Some((kind, value)) = vectors.next()? {
            if details.len() == MAX_TLVS {
                return Err(ParseError::TooManyTlvs);
            }
            details.push(RawTlv {
                kind,
                value: value.into(),
            });
        }
        Ok(Self {
            client,
            verify: u32::from_be_bytes([a, b, c, d]),
            details,
        })
    }

    /// The first detail of a type.
    pub fn detail(&self, kind: u8) -> Option<&[u8]> {
        let detail = self.details.iter().find(|raw| raw.kind == kind)?;
        Some(&detail.value)
    }
}

/// Types and values, one after another.
struct Vectors<'a> {
    bytes: &'a [u8],
}

impl<'a> Vectors<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ParseError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let (&[kind, high, low], rest) = self.bytes.split_first_chunk().ok_or(ParseError::CutTlv)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(ParseError::CutTlv)?;
        self.bytes = rest;
        Ok(Some((kind, value)))
    }
}

/// Types that have come and may come once: proxies that read different ones of two would disagree about the client.
#[derive(Default)]
struct Once(Vec<u8>);

impl Once {
    fn see(&mut self, kind: u8) -> Result<(), ParseError> {
        if self.0.contains(&kind) {
            return Err(ParseError::TwiceTlv(kind));
        }
        self.0.push(kind);
        Ok(())
    }
}
