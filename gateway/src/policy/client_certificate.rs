//! A client's own certificate, which has been verified: read when somebody asks what it says, and once.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

/// A certificate that a client has shown.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    der: Vec<u8>,
    read: OnceLock<Box<Read>>,
    base64: OnceLock<Box<str>>,
}

/// What a certificate says, as policy is told it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Read {
    /// The subject's name as RFC 4514 writes it: `CN=client.example,O=Example,C=DE`.
    pub(crate) subject: String,
    /// The first common name of the subject, if it has one.
    pub(crate) common_name: Option<String>,
    /// The issuer's name, likewise.
    pub(crate) issuer: String,
    /// The serial number in lower-case hexadecimal digits, two for each byte.
    pub(crate) serial: String,
    /// The subject's alternative names with their kinds as OpenSSL writes them: `DNS:client.example`, `IP:192.0.2.7`,
    /// `email:a@b.example`, `URI:spiffe://example/a`.
    pub(crate) alternative: Vec<String>,
    /// The SHA-256 digest of the certificate in lower-case hexadecimal digits.
    pub(crate) fingerprint: String,
    /// From when on it is valid, in UTC as RFC 3339 writes it: `2026-01-01T12:00:00Z`.
    pub(crate) not_before: String,
    /// Until when it is, likewise.
    pub(crate) not_after: String,
}

impl ClientCertificate {
    /// A certificate in DER.
    pub fn new(der: Vec<u8>) -> Self {
        Self {
            der,
            read: OnceLock::new(),
            base64: OnceLock::new(),
        }
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate in DER, as base64 writes it (RFC 4648, section 4), in one line.
    pub fn base64(&self) -> &str {
        self.base64.get_or_init(|| BASE64_STANDARD.encode(&self.der).into())
    }

    /// The first common name of its subject, if it has one.
    pub fn common_name(&self) -> Option<&str> {
        self.read().common_name.as_deref()
    }

    /// What it says.
    pub(crate) fn read(&self) -> &Read {
        self.read.get_or_init(|| Box::new(read(&self.der)))
    }
}

fn read(der: &[u8]) -> Read {
    let fingerprint = hex(&Sha256::digest(der));
    // One that was verified can be parsed; if the two libraries do not agree on that, it says nothing.
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return Read {
            fingerprint,
            ..Read::default()
        };
    };
    let common = certificate.subject().iter_common_name().next();
    Read {
        subject: name(certificate.subject()),
        common_name: common.and_then(|name| Some(name.as_str().ok()?.to_owned())),
        issuer: name(certificate.issuer()),
        serial: hex(serial(certificate.raw_serial())),
        alternative: alternative(&certificate),
        fingerprint,
        not_before: moment(certificate.validity().not_before),
        not_after: moment(certificate.validity().not_after),
    }
}

/// A time as RFC 3339 writes it; nothing when it is beyond the year 9999.
fn moment(time: ASN1Time) -> String {
    let time = Timestamp::from_second(time.timestamp());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Without the byte that says that it is positive.
fn serial(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        bytes => bytes,
    }
}

fn alternative(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("DNS:{}", name.to_ascii_lowercase())),
            GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
            GeneralName::URI(name) => Some(format!("URI:{name}")),
            GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| format!("IP:{ip}")),
            _ => None,
        })
        .collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// A distinguished name as RFC 4514 writes it: the last part first, special characters escaped.
fn name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter().collect();
    for (position, part) in parts.iter().rev().enumerate() {
        if position > 0 {
            text.push(',');
        }
        for (position, attribute) in part.iter().enumerate() {
            if position > 0 {
                text.push('+');
            }
            match oid2abbrev(attribute.attr_type(), oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    text.push_str(&hex(attribute.as_slice()));
                }
            }
        }
    }
    text
}

/// RFC 4514, section 2.4; control characters too, as what a header or a log line cannot hold.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (position, c) in value.chars().enumerate() {
        let is_outer_space = c == ' ' && (position == 0 || position == last);
        let is_special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\');
        if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing into memory does not fail.
                let _ = write!(text, "\\{byte:02X}");
            }
            continue;
        }
        if is_special || is_outer_space || (c == '#' && position == 0) {
            text.push('\\');
        }
        text.push(c);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (value, expected) in [
            ("plain", "plain"),
            ("a,b+c", "a\\,b\\+c"),
            (" #x ", "\\ #x\\ "),
            ("#x", "\\#x"),
            ("a\r\nb", "a\\0D\\0Ab"),
            ("\u{e9}", "\u{e9}"),
        ] {
            let mut text = String::new();
            escape(value, &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_cannot_be_read_has_a_fingerprint_all_the_same() {
        let certificate = ClientCertificate::new(b"no certificate".to_vec());
        assert_eq!(certificate.read().fingerprint.len(), 64);
        assert_eq!(certificate.read().subject, "");
        assert_eq!(certificate.read().common_name, None);
    }
}
