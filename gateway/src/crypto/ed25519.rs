//! Ed25519 (RFC 8032): keys that sign and keys that are believed, in the encodings of RFC 8410, which are openssl's too.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use sha2::{Digest, Sha256};

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new one. None when the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        Ed25519KeyPair::generate().ok().map(Self)
    }

    /// The key that a PKCS#8 document holds (RFC 5958), of either version. None when it holds another kind of key, or none.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8(der).ok().map(Self)
    }

    /// The key as a PKCS#8 document of the first version: openssl reads no other.
    pub fn to_pkcs8(&self) -> Option<Vec<u8>> {
        Some(self.0.to_pkcs8v1().ok()?.as_ref().to_vec())
    }

    /// What proves that whoever has the key has seen these bytes.
    pub fn sign(&self, message: &[u8]) -> Option<[u8; SIGNATURE]> {
        self.0.try_sign(message).ok()?.as_ref().try_into().ok()
    }

    /// The key that others believe.
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        self.0.public_key().as_ref().try_into().ok().map(VerifyingKey)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// The key that a SubjectPublicKeyInfo holds. There is one way to write it (RFC 8410, 4), so that a key has one identifier.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI_HEAD)?.try_into().ok().map(Self)
    }

    /// The key as a SubjectPublicKeyInfo.
    pub fn to_spki(self) -> Vec<u8> {
        [&SPKI_HEAD[..], &self.0].concat()
    }

    /// What it is called in signatures.
    pub fn id(self) -> KeyId {
        let digest: [u8; 32] = Sha256::digest(self.to_spki()).into();
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest[..KEY_ID]);
        KeyId(id)
    }

    /// Whether the key's owner has signed these bytes.
    pub fn has_signed(self, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        let key = ParsedPublicKey::new(&ED25519, self.0);
        key.is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.id())
    }
}

/// The beginning of the SHA-256 digest of a key's SubjectPublicKeyInfo. It says which key to try; that two keys have the same
/// would cost a look at both, and nobody is believed for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID]);

impl KeyId {
    /// The identifier that is written like this, in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; KEY_ID];
        unhex(text, &mut id).map(|()| Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Fills `bytes` with what is written in as many pairs of hexadecimal digits in lower case.
pub fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| match pair.get(at)? {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(())
}

/// Bytes of a signature.
pub const SIGNATURE: usize = 64;
/// Bytes of a key's identifier.
const KEY_ID: usize = 8;
/// What a SubjectPublicKeyInfo of Ed25519 begins with: two lengths, the algorithm's identifier 1.3.101.112, and a string of 256 bits.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_believed_of_the_key_and_the_bytes_alone() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = key.sign(b"message").unwrap();
        let public = key.verifying_key().unwrap();
        assert!(public.has_signed(b"message", &signature));
        assert!(!public.has_signed(b"massage", &signature));
        assert!(!other.verifying_key().unwrap().has_signed(b"message", &signature));
        for at in 0..SIGNATURE {
            let mut touched = signature;
            touched[at] ^= 1;
            assert!(!public.has_signed(b"message", &touched), "{at}");
        }
    }

    #[test]
    fn keys_go_through_their_encodings() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        let public = key.verifying_key().unwrap();
        assert_eq!(again.verifying_key(), Some(public));
        assert_eq!(VerifyingKey::from_spki(&public.to_spki()), Some(public));
        assert_eq!(KeyId::parse(&public.id().to_string()), Some(public.id()));
        let spki = public.to_spki();
        for wrong in [&spki[1..], &spki[..43], &[&spki[..], &[0]].concat(), b""] {
            assert_eq!(VerifyingKey::from_spki(wrong), None);
        }
        assert!(SigningKey::from_pkcs8(&spki).is_none());
    }

    /// The first test of RFC 8032, 7.1, in the key's encoding of RFC 8410, 10.3.
    #[test]
    fn a_signature_of_the_standards_own_is_made_and_believed() {
        let bytes = |text: &str| {
            let mut bytes = vec![0; text.len() / 2];
            unhex(text, &mut bytes).unwrap();
            bytes
        };
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let pkcs8 = bytes(&format!("302e020100300506032b657004220420{seed}"));
        let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
        let public = key.verifying_key().unwrap();
        let expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(public.to_spki()[12..], bytes(expected));
        let expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(key.sign(b"").unwrap()[..], bytes(expected));
        assert_eq!(key.to_pkcs8().unwrap(), pkcs8);
    }
}
