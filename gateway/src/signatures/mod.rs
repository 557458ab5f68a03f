//! Signatures of components: the text beside a component's file that says who has signed it, and who is believed.
//!
//! `geo.wasm.sig`, beside `geo.wasm`:
//!
//! ```text
//! gateway-plugin-signature-v1
//! sha256 9f2c… (64 digits)
//! ed25519 0123456789abcdef base64…
//! ```
//!
//! What is signed is the text of the first two lines, with their ends: they say what the signature is for, so that one that the
//! key has made for anything else is never taken for one of a component. A line for each key follows. There is one way to write a
//! text; any other is refused.

mod keys;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::crypto::{KeyId, SIGNATURE, SigningKey, VerifyingKey, unhex};
use crate::regular_file;
pub use keys::{KeyError, public_line, read_signing_key, read_verifying_key, verifying_key, write_new_key};

/// The signatures of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    sha256: [u8; 32],
    list: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    key: KeyId,
    bytes: [u8; SIGNATURE],
}

/// Why a component is not taken as signed by any of some keys.
#[derive(Debug, thiserror::Error)]
pub enum Unsigned {
    /// Nobody has signed it.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// The signatures cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Their file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds no signatures.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// What was signed is not this component.
    #[error("{} is of another file, with the digest {digest}", path.display())]
    OtherFile {
        /// The signatures' file.
        path: PathBuf,
        /// The digest that it says.
        digest: String,
    },
    /// None of the keys has signed it.
    #[error("{} has none of these keys, but {}", path.display(), list(keys))]
    OtherKeys {
        /// The signatures' file.
        path: PathBuf,
        /// Who has.
        keys: Vec<KeyId>,
    },
    /// It is said to be signed by a key that has not.
    #[error("{}: the signature by {key} is not valid", path.display())]
    Invalid {
        /// The signatures' file.
        path: PathBuf,
        /// Whose signature it would be.
        key: KeyId,
    },
}

/// Where the signatures of a component are: beside it, with `.sig` behind its name.
pub fn beside(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

/// The position of a key that has signed the component of this file, whose bytes have this digest. `read` reads the file that says
/// so, of so many bytes at most.
///
/// # Errors
/// When none of them has; what stands in the way otherwise.
pub fn signer(
    component: &Path,
    sha256: &[u8; 32],
    keys: &[VerifyingKey],
    read: impl FnOnce(&Path, usize) -> io::Result<Vec<u8>>,
) -> Result<usize, Unsigned> {
    let path = beside(component);
    match Signatures::read_by(component, read)? {
        None => Err(Unsigned::Missing(path)),
        Some(signatures) => signatures.signer(sha256, keys).map_err(|why| why.of(path)),
    }
}

impl Signatures {
    /// None yet, of the component with this digest.
    pub fn new(sha256: [u8; 32]) -> Self {
        let list = Vec::new();
        Self { sha256, list }
    }

    /// Those that lie beside a component; none when there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(component: &Path) -> Result<Option<Self>, Unsigned> {
        Self::read_by(component, regular_file::read)
    }

    fn read_by(
        component: &Path,
        read: impl FnOnce(&Path, usize) -> io::Result<Vec<u8>>,
    ) -> Result<Option<Self>, Unsigned> {
        let path = beside(component);
        let bytes = match read(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Unsigned::Io { path, error }),
        };
        match Self::parse(&bytes) {
            Ok(signatures) => Ok(Some(signatures)),
            Err(why) => Err(Unsigned::Malformed { path, why }),
        }
    }

    /// What a text says.
    ///
    /// # Errors
    /// When it is no such text; where and why.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
        let Some(text) = text.strip_suffix('\n') else {
            return Err("it does not end with a line".to_owned());
        };
        let mut lines = (1..).zip(text.split('\n'));
        let wrong = |line: usize, why: &str| Err(format!("line {line}: {why}"));
        if lines.next().is_none_or(|(_, line)| line != PURPOSE) {
            return wrong(1, &format!("it has to be {PURPOSE:?}"));
        }
        let mut sha256 = [0; 32];
        let digest = lines.next().and_then(|(_, line)| line.strip_prefix("sha256 "));
        if digest.and_then(|digest| unhex(digest, &mut sha256)).is_none() {
            return wrong(2, "it has to be `sha256` and 64 hexadecimal digits in lower case");
        }
        let mut signatures = Self::new(sha256);
        for (number, line) in lines {
            let Some(signature) = Signature::parse(line) else {
                return wrong(
                    number,
                    "it has to be `ed25519`, a key's 16 digits, and a signature in base64",
                );
            };
            if signatures.list.iter().any(|known| known.key == signature.key) {
                return wrong(number, "this key has signed already");
            }
            if signatures.list.len() == MAX_SIGNATURES {
                return wrong(number, &format!("there are more than {MAX_SIGNATURES} signatures"));
            }
            signatures.list.push(signature);
        }
        match signatures.list.is_empty() {
            true => wrong(3, "there is no signature"),
            false => Ok(signatures),
        }
    }

    /// The digest of the component that was signed.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The same in hexadecimal.
    pub fn digest(&self) -> String {
        hex(&self.sha256)
    }

    /// By whom it is said to be signed.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.list.iter().map(|signature| signature.key)
    }

    /// Signs. What the key has signed before is replaced.
    ///
    /// # Errors
    /// When there are too many, or the library does not sign.
    pub fn sign(&mut self, key: &SigningKey) -> Result<KeyId, String> {
        let made = key.verifying_key().zip(key.sign(message(&self.sha256).as_bytes()));
        let (public, bytes) = made.ok_or("the library does not sign")?;
        let key = public.id();
        self.list.retain(|known| known.key != key);
        if self.list.len() == MAX_SIGNATURES {
            return Err(format!("there are {MAX_SIGNATURES} signatures already"));
        }
        self.list.push(Signature { key, bytes });
        Ok(key)
    }

    /// The position of a key that has signed the component with this digest.
    fn signer(&self, sha256: &[u8; 32], keys: &[VerifyingKey]) -> Result<usize, Why> {
        if self.sha256 != *sha256 {
            return Err(Why::OtherFile(self.sha256));
        }
        let message = message(sha256);
        let mut invalid = None;
        for (position, key) in keys.iter().enumerate() {
            for signature in self.list.iter().filter(|signature| signature.key == key.id()) {
                if key.has_signed(message.as_bytes(), &signature.bytes) {
                    return Ok(position);
                }
                invalid = Some(signature.key);
            }
        }
        Err(match invalid {
            Some(key) => Why::Invalid(key),
            None => Why::OtherKeys(self.keys().collect()),
        })
    }
}

/// The text of a file.
impl fmt::Display for Signatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&message(&self.sha256))?;
        for Signature { key, bytes } in &self.list {
            writeln!(f, "ed25519 {key} {}", STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (key, bytes) = line.strip_prefix("ed25519 ")?.split_once(' ')?;
        let key = KeyId::parse(key)?;
        let bytes = STANDARD.decode(bytes).ok()?.try_into().ok()?;
        Some(Self { key, bytes })
    }
}

/// As [`Unsigned`], of signatures that are in no file.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    OtherFile([u8; 32]),
    OtherKeys(Vec<KeyId>),
    Invalid(KeyId),
}

impl Why {
    fn of(self, path: PathBuf) -> Unsigned {
        match self {
            Self::OtherFile(sha256) => Unsigned::OtherFile {
                path,
                digest: hex(&sha256),
            },
            Self::OtherKeys(keys) => Unsigned::OtherKeys { path, keys },
            Self::Invalid(key) => Unsigned::Invalid { path, key },
        }
    }
}

/// What is signed.
fn message(sha256: &[u8; 32]) -> String {
    format!("{PURPOSE}\nsha256 {}\n", hex(sha256))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list(keys: &[KeyId]) -> String {
    let keys: Vec<String> = keys.iter().map(KeyId::to_string).collect();
    keys.join(", ")
}

/// What a signature is for. Another first line for another way of signing: the key signs it as well.
const PURPOSE: &str = "gateway-plugin-signature-v1";
/// More than sign one component: each that has a trusted key's name costs a verification at every load.
const MAX_SIGNATURES: usize = 16;
/// Bytes of a file: so many signatures, with room.
const MAX_BYTES: usize = 4 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
