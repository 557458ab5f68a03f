//! What native tests check signatures with: the library that the gateway has for TLS. That the component agrees with it is
//! tested over real requests.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};

/// HMAC with SHA-256.
pub(crate) struct Hs256(Box<hmac::Key>);

/// RSASSA-PKCS1-v1_5 with SHA-256.
pub(crate) struct Rs256 {
    n: Vec<u8>,
    e: Vec<u8>,
}

/// ECDSA over P-256 with SHA-256.
pub(crate) struct Es256(ParsedPublicKey);

impl Hs256 {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.0, signed, signature).is_ok()
    }
}

impl Rs256 {
    /// Of a modulus and an exponent in network order.
    pub(crate) fn new(n: &[u8], e: &[u8]) -> Option<Self> {
        let (n, e) = (n.to_vec(), e.to_vec());
        Some(Self { n, e })
    }

    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        let Self { n, e } = self;
        let key = RsaPublicKeyComponents { n, e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
    }
}

impl Es256 {
    /// Of a point that is written out (SEC 1, section 2.3.3); none when it is not on the curve.
    pub(crate) fn new(point: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok().map(Self)
    }

    pub(crate) fn verify(&self, signed: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(signed, signature).is_ok()
    }
}
