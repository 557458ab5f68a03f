//! SHA-crypt hashes: `$5$` with SHA-256, `$6$` with SHA-512.

use sha_crypt::{Sha256Params, Sha512Params, sha256_crypt_b64, sha512_crypt_b64};
use subtle::ConstantTimeEq;

/// A hash, as `$6$rounds=5000$SALT$HASH`.
pub(crate) struct Hash {
    kind: Kind,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

enum Kind {
    Sha256(Sha256Params),
    Sha512(Sha512Params),
}

impl Hash {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some((_, what)) = OTHERS.iter().find(|(prefix, _)| text.starts_with(prefix)) {
            return Err(*what);
        }
        let mut parts = text.split('$');
        let (Some(""), Some(id), Some(mut salt)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(HELP);
        };
        let mut rounds = sha_crypt::ROUNDS_DEFAULT;
        if let Some(said) = salt.strip_prefix("rounds=") {
            rounds = said.parse().map_err(|_| "the number of rounds cannot be read")?;
            salt = parts.next().ok_or(HELP)?;
        }
        let (Some(hash), None) = (parts.next(), parts.next()) else {
            return Err(HELP);
        };
        if !(sha_crypt::ROUNDS_MIN..=MAX_ROUNDS).contains(&rounds) {
            return Err("it has fewer than 1000 rounds, or more than 20000: each request would take its time");
        }
        if salt.is_empty() || salt.len() > MAX_SALT {
            return Err("a salt has 1 to 16 characters");
        }
        let (kind, length) = match id {
            "5" => (Kind::Sha256(Sha256Params::new(rounds).map_err(|_| HELP)?), 43),
            "6" => (Kind::Sha512(Sha512Params::new(rounds).map_err(|_| HELP)?), 86),
            _ => return Err(HELP),
        };
        if hash.len() != length {
            return Err(HELP);
        }
        Ok(Self {
            kind,
            salt: salt.as_bytes().to_vec(),
            hash: hash.as_bytes().to_vec(),
        })
    }

    pub(crate) fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether it is this password's.
    pub(crate) fn is_of(&self, password: &[u8]) -> bool {
        let made = match &self.kind {
            Kind::Sha256(params) => sha256_crypt_b64(password, &self.salt, params),
            Kind::Sha512(params) => sha512_crypt_b64(password, &self.salt, params),
        };
        made.is_ok_and(|made| made.as_bytes().ct_eq(&self.hash).into())
    }
}

/// A hash is not shown.
impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

/// What others' files of passwords have.
const OTHERS: [(&str, &str); 7] = [
    ("$2a$", BCRYPT),
    ("$2b$", BCRYPT),
    ("$2y$", BCRYPT),
    (
        "$apr1$",
        "this is Apache's MD5, which is no protection any more: make another hash by `htpasswd -5` or `mkpasswd -m sha-512`",
    ),
    (
        "$1$",
        "this is MD5, which is no protection any more: make another hash by `htpasswd -5` or `mkpasswd -m sha-512`",
    ),
    (
        "$y$",
        "this is yescrypt, which is not taken: make another hash by `htpasswd -5` or `mkpasswd -m sha-512`",
    ),
    (
        "{",
        "this is a hash without rounds, which is no protection: make another one by `htpasswd -5` or `mkpasswd -m sha-512`",
    ),
];

const BCRYPT: &str = "this is bcrypt, which is not taken: make another hash by `htpasswd -5` or `mkpasswd -m sha-512`";

const HELP: &str = "this is not what `mkpasswd -m sha-512` prints, as $6$SALT$HASH";

/// A tenth of a second in a component, ten times what is usual.
const MAX_ROUNDS: usize = 20_000;

const MAX_SALT: usize = 16;
