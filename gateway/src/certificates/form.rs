//! What a file holds in place of what was looked for, as far as its bytes tell: so that whoever has named it is told what to do
//! about it.

use std::fmt;

/// What a file holds that is no PEM of the kind that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A key that only a passphrase opens: in PKCS #8 (RFC 5958), or as OpenSSL wrote it before.
    Encrypted,
    /// DER: what PEM has between its marks, as it is.
    Der,
    /// A container with a certificate and its key (RFC 7292).
    Pkcs12,
    /// Sections of other kinds alone. The first of them.
    Other(String),
}

impl Form {
    /// What these bytes are, if it can be told. They hold nothing that was looked for.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if is_encrypted(bytes) {
            return Some(Self::Encrypted);
        }
        // A sequence with a length of several bytes: certificates and most keys have more than 127.
        if let [0x30, length @ 0x81..=0x84, rest @ ..] = bytes {
            let content = rest.get(usize::from(length & 0x7f)..).unwrap_or_default();
            // The version of a container, and of nothing else.
            return Some(match content.starts_with(&[2, 1, 3]) {
                true => Self::Pkcs12,
                false => Self::Der,
            });
        }
        first_label(bytes).map(Self::Other)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted => f.write_str("it is encrypted"),
            Self::Der => f.write_str("it is DER and not PEM"),
            Self::Pkcs12 => f.write_str("it is PKCS #12 and not PEM"),
            Self::Other(label) => write!(f, "it holds {label}"),
        }
    }
}

/// Whether there is a key that is encrypted.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"\nProc-Type: 4,ENCRYPTED")
}

/// What the first section says it is.
fn first_label(bytes: &[u8]) -> Option<String> {
    let begin = b"-----BEGIN ";
    let at = bytes.windows(begin.len()).position(|window| window == begin)?;
    let rest = &bytes[at + begin.len()..];
    let end = rest.iter().take(LONGEST_LABEL).position(|byte| *byte == b'-')?;
    let is_plain = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ';
    let label = rest[..end].iter().all(is_plain).then_some(&rest[..end])?;
    (!label.is_empty()).then(|| String::from_utf8_lossy(label).into_owned())
}

/// Characters of what a section says it is.
const LONGEST_LABEL: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_instead_is_known_by_its_bytes() {
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,98\n\nlI6T\n";
        for (bytes, form) in [
            (
                &b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII"[..],
                Some(Form::Encrypted),
            ),
            (encrypted.as_bytes(), Some(Form::Encrypted)),
            (&[0x30, 0x82, 1, 0, 0x30, 0x81], Some(Form::Der)),
            (&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30], Some(Form::Pkcs12)),
            (&[0x30, 0x84], Some(Form::Der)),
            (
                b"text\n-----BEGIN CERTIFICATE REQUEST-----\nMII",
                Some(Form::Other("CERTIFICATE REQUEST".to_owned())),
            ),
            (b"-----BEGIN \x1b[1m-----", None),
            (b"-----BEGIN -----", None),
            (b"-----BEGIN CERTIFICATE", None),
            (b"0123", None),
            (b"", None),
        ] {
            assert_eq!(Form::of(bytes), form, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
