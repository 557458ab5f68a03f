//! Files with keys: PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{PemObject, SectionKind};

use crate::crypto::{SigningKey, VerifyingKey};
use crate::regular_file;

/// Why a key's file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What.
        why: String,
    },
}

/// The private key in a file.
///
/// # Errors
/// When it cannot be read, holds something else, or others may read it: whoever has it signs in its owner's name, so that it is
/// better made anew than used.
pub fn read_signing_key(path: &Path) -> Result<SigningKey, KeyError> {
    let bytes = read(path)?;
    let found = fs::metadata(path).map_err(|error| KeyError::Io {
        path: path.to_owned(),
        error,
    })?;
    let mode = found.permissions().mode() & 0o777;
    if mode & FORBIDDEN != 0 {
        let why = format!("others than its owner and group may use it (mode {mode:03o}): chmod 600, or make a new key");
        return Err(unusable(path, why));
    }
    let is_encrypted = bytes
        .windows(ENCRYPTED.len())
        .any(|window| window == ENCRYPTED.as_bytes());
    match <(SectionKind, Vec<u8>)>::from_pem_slice(&bytes) {
        Ok((SectionKind::PrivateKey, der)) => {
            SigningKey::from_pkcs8(&der).ok_or_else(|| unusable(path, "it holds another kind of key than Ed25519"))
        }
        Ok((SectionKind::PublicKey, _)) => Err(unusable(path, "it holds a public key, which signs nothing")),
        _ if is_encrypted => Err(unusable(
            path,
            "its key is encrypted: openssl pkey -in FILE -out OTHER writes it without a passphrase",
        )),
        _ => Err(unusable(
            path,
            "it holds no private key in PEM (-----BEGIN PRIVATE KEY-----)",
        )),
    }
}

/// The public key in a file.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn read_verifying_key(path: &Path) -> Result<VerifyingKey, KeyError> {
    match <(SectionKind, Vec<u8>)>::from_pem_slice(&read(path)?) {
        Ok((SectionKind::PublicKey, der)) => {
            VerifyingKey::from_spki(&der).ok_or_else(|| unusable(path, "it holds another kind of key than Ed25519"))
        }
        Ok((SectionKind::PrivateKey, _)) => Err(unusable(
            path,
            "it holds a private key: openssl pkey -in FILE -pubout writes the public one",
        )),
        _ => Err(unusable(
            path,
            "it holds no public key in PEM (-----BEGIN PUBLIC KEY-----)",
        )),
    }
}

/// The public key that is the one line of such a file.
pub fn verifying_key(line: &str) -> Option<VerifyingKey> {
    VerifyingKey::from_spki(&STANDARD.decode(line).ok()?)
}

/// The line of a public key's file that is the key.
pub fn public_line(key: VerifyingKey) -> String {
    STANDARD.encode(key.to_spki())
}

/// Makes a key pair: the private key in a new file that nobody but its owner may read, the public one beside it, with `.pub` behind
/// the name. No file is overwritten.
///
/// # Errors
/// When there is one already, or none can be written; then none is left behind.
pub fn write_new_key(path: &Path) -> Result<(SigningKey, PathBuf), KeyError> {
    let key = SigningKey::generate();
    let parts = key.and_then(|key| Some((key.to_pkcs8()?, key.verifying_key()?, key)));
    let (private, public, key) = parts.ok_or_else(|| unusable(path, "the system gives no randomness for a key"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    let beside = PathBuf::from(beside);
    let io = |path: &Path| {
        let path = path.to_owned();
        |error| KeyError::Io { path, error }
    };
    write_new(path, 0o600, "PRIVATE KEY", &STANDARD.encode(private)).map_err(io(path))?;
    if let Err(error) = write_new(&beside, 0o644, "PUBLIC KEY", &public_line(public)) {
        // It was made just now, and nobody has seen it.
        let _ = fs::remove_file(path);
        return Err(io(&beside)(error));
    }
    Ok((key, beside))
}

/// A key of either kind is one line.
fn write_new(path: &Path, mode: u32, label: &str, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let text = format!("-----BEGIN {label}-----\n{line}\n-----END {label}-----\n");
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    regular_file::read(path, MAX_BYTES).map_err(|error| KeyError::Io {
        path: path.to_owned(),
        error,
    })
}

fn unusable(path: &Path, why: impl Into<String>) -> KeyError {
    KeyError::Unusable {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// Nobody else reads it, and the group does not write it: what holds of other secrets in files, too.
const FORBIDDEN: u32 = 0o027;
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// Bytes of a file: a key has one line, and there may be remarks around it.
const MAX_BYTES: usize = 16 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pair_is_read_again_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.pem");
        let (key, public) = write_new_key(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(public, folder.path().join("ci.pem.pub"));
        let known = key.verifying_key();
        assert_eq!(read_signing_key(&path).unwrap().verifying_key(), known);
        assert_eq!(Some(read_verifying_key(&public).unwrap()), known);
        assert_eq!(verifying_key(&public_line(known.unwrap())), known);

        let before = fs::read(&path).unwrap();
        assert!(write_new_key(&path).unwrap_err().to_string().contains("exists"));
        assert_eq!(fs::read(&path).unwrap(), before);
        // A public key that is there already is somebody's, too.
        fs::remove_file(&path).unwrap();
        assert!(write_new_key(&path).unwrap_err().to_string().contains("ci.pem.pub"));
        assert!(!path.exists(), "no half of a pair is left");
    }

    #[test]
    fn a_private_key_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.pem");
        write_new_key(&path).unwrap();
        for (mode, is_used) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o604, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_signing_key(&path).is_ok(), is_used, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_such_key_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.pem");
        let (_, public) = write_new_key(&path).unwrap();
        fs::set_permissions(&public, fs::Permissions::from_mode(0o600)).unwrap();
        let said = |result: Result<(), KeyError>| result.unwrap_err().to_string();
        let signing = |path: &Path| said(read_signing_key(path).map(drop));
        let verifying = |path: &Path| said(read_verifying_key(path).map(drop));
        assert!(signing(&public).contains("a public key"));
        assert!(verifying(&path).contains("a private key"));
        let other = folder.path().join("other");
        let write = |text: &str| {
            fs::write(&other, text).unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("hello");
        assert!(signing(&other).contains("no private key"));
        assert!(verifying(&other).contains("no public key"));
        write(&format!("{ENCRYPTED}\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"));
        assert!(signing(&other).contains("encrypted"));
        let other_kind = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        write(&other_kind.serialize_pem());
        assert!(signing(&other).contains("another kind"));
        write(&other_kind.public_key_pem());
        assert!(verifying(&other).contains("another kind"));
        assert!(signing(Path::new("/dev/zero")).contains("not a regular file"));
    }
}
