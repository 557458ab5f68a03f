//! `tls-version "1.3"`, `client-cert`, `client-cert-cn "client.example"`: predicates over what the handshake of TLS settled.

use super::acl::{text_test, values};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{FactMatch, Match, Text, TlsFact};
use crate::config::reader::{Node, Value, clip};

/// `tls-version "1.2"`.
pub(super) fn version(node: &mut Node<'_>) -> Option<Match> {
    let versions = values(node, "a version", |value| {
        let version = value.choice(&[("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")])?;
        Some(version.to_owned())
    })?;
    Some(Match::Fact(FactMatch {
        name: TlsFact::TlsVersion,
        value: Some(Text::Exact(versions)),
    }))
}

/// What a predicate of this name asks about, where it is one about the client's certificate.
pub(super) fn of_client(name: &str) -> Option<TlsFact> {
    Some(match name {
        // What every certificate has.
        "client-cert" | "client-cert-fingerprint" => TlsFact::ClientCertFingerprint,
        "client-cert-subject" => TlsFact::ClientCertSubject,
        "client-cert-cn" => TlsFact::ClientCertCn,
        "client-cert-issuer" => TlsFact::ClientCertIssuer,
        "client-cert-serial" => TlsFact::ClientCertSerial,
        "client-cert-san" => TlsFact::ClientCertSan,
        _ => return None,
    })
}

/// A predicate about the client's certificate: which has been verified, or there would be no connection.
pub(super) fn client(node: &mut Node<'_>) -> Option<Match> {
    let name = of_client(node.name())?;
    let value = match node.name() {
        "client-cert" => None,
        "client-cert-fingerprint" => Some(Text::Exact(values(node, "a fingerprint", fingerprint)?)),
        "client-cert-serial" => Some(Text::Exact(values(node, "a serial number", serial)?)),
        _ => {
            let test = text_test(node)?;
            if test.is_none() {
                let error = ConfigError::new(Code::Missing, format!("`{}` needs a value", node.name()));
                let error = error.label(node.span(), "a value, `prefix=`, `suffix=` or `regex=` has to follow");
                node.fail(error.help("write `client-cert` to ask only whether a certificate was shown"));
                return None;
            }
            test
        }
    };
    Some(Match::Fact(FactMatch { name, value }))
}

/// A SHA-256 digest, as tools print it: with colons or without, in any case.
fn fingerprint(value: &Value<'_>) -> Option<String> {
    let digits = hex(value)?;
    if digits.len() != 64 {
        return value.fail(
            format!("{:?} is not a SHA-256 digest", clip(value.text()?)),
            format!("{} digits, and not 64", digits.len()),
            "openssl x509 -in client.pem -noout -fingerprint -sha256 prints it",
        );
    }
    Some(digits)
}

/// A serial number, likewise.
fn serial(value: &Value<'_>) -> Option<String> {
    let digits = hex(value)?;
    Some(match digits.len() % 2 {
        0 => digits,
        _ => format!("0{digits}"),
    })
}

fn hex(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = format!("{:?} has other than hexadecimal digits", clip(text));
        return value.fail(message, "0-9, a-f and colons", "write it as openssl prints it");
    }
    Some(digits.to_ascii_lowercase())
}
