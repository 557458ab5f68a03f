//! What the component checks signatures with: RustCrypto, which needs no operating system.

use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Verifier;
use sha2::Sha256;

/// HMAC with SHA-256.
pub(crate) struct Hs256(Vec<u8>);

/// RSASSA-PKCS1-v1_5 with SHA-256.
pub(crate) struct Rs256(rsa::pkcs1v15::VerifyingKey<Sha256>);

/// ECDSA over P-256 with SHA-256.
pub(crate) struct Es256(p256::ecdsa::VerifyingKey);

impl Hs256 {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(secret.to_vec())
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0);
        mac.is_ok_and(|mac| mac.chain_update(signed).verify_slice(signature).is_ok())
    }
}

impl Rs256 {
    /// Of a modulus and an exponent in network order; none when they are no key.
    pub(crate) fn new(n: &[u8], e: &[u8]) -> Option<Self> {
        let number = rsa::BoxedUint::from_be_slice_vartime;
        let key = rsa::PublicKey::new(number(n), number(e)).ok()?;
        Some(Self(rsa::pkcs1v15::VerifyingKey::new(key)))
    }

    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        let signature = rsa::pkcs1v15::Signature::try_from(signature);
        signature.is_ok_and(|signature| self.0.verify(signed, &signature).is_ok())
    }
}

impl Es256 {
    /// Of a point that is written out (SEC 1, section 2.3.3); none when it is not on the curve.
    pub(crate) fn new(point: &[u8]) -> Option<Self> {
        p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(Self)
    }

    /// R and S, 32 bytes each (RFC 7518, section 3.4).
    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        let signature = p256::ecdsa::Signature::from_slice(signature);
        signature.is_ok_and(|signature| self.0.verify(signed, &signature).is_ok())
    }
}
