//! Keys: each of one kind, and good for one algorithm.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway_plugin_sdk::ConfigError;
use serde::Deserialize;
use serde_json::Value;

use crate::crypto::{Es256, Hs256, Rs256};
use crate::token::{Algorithm, Token};

/// The keys of a configuration.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    material: Material,
}

enum Material {
    Secret(Hs256),
    Rsa(Rs256),
    P256(Es256),
}

/// A JSON Web Key Set (RFC 7517, section 5). Members that are not known are ignored, as it asks.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// A JSON Web Key (RFC 7517, section 4; RFC 7518, section 6).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
}

impl Keys {
    pub(crate) fn new(secret: Option<&str>, jwks: Option<&Value>) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        if let Some(secret) = secret {
            // A file ends with a line break, which whoever signs does not take for a part of the key.
            let line = secret
                .strip_suffix('\n')
                .map(|line| line.strip_suffix('\r').unwrap_or(line));
            let secret = line.unwrap_or(secret);
            let material = secret_key(secret.as_bytes()).map_err(|message| ConfigError::new(message).at("/secret"))?;
            keys.push(Key { id: None, material });
        }
        if let Some(jwks) = jwks {
            let wrong = |error: serde_json::Error| {
                ConfigError::new(format!("this is no JSON Web Key Set: {error}")).at("/jwks")
            };
            let set: Jwks = match jwks {
                Value::String(text) => serde_json::from_str(text).map_err(wrong)?,
                object => Jwks::deserialize(object).map_err(wrong)?,
            };
            for (index, jwk) in set.keys.into_iter().enumerate() {
                let at = format!("/jwks/keys/{index}");
                if let Some(material) = jwk.material().map_err(|message| ConfigError::new(message).at(at))? {
                    keys.push(Key { id: jwk.kid, material });
                }
            }
        }
        if keys.is_empty() {
            let message = "there is no key to check tokens with: give a `secret`, or a `jwks` with a key for HS256, RS256 or ES256";
            return Err(ConfigError::new(message));
        }
        if keys.len() > MAX_KEYS {
            return Err(ConfigError::new(format!("there are more than {MAX_KEYS} keys")).at("/jwks"));
        }
        if keys.iter().filter(|key| key.id.is_none()).count() > MAX_TRIES {
            let message = format!("more than {MAX_TRIES} keys have no `kid`: every token is held against each of them");
            return Err(ConfigError::new(message).at("/jwks"));
        }
        Ok(Self(keys))
    }

    /// Whether one of them has signed it. A token that names its key is held against keys of this name and those without one; one
    /// that does not, against all of its algorithm, where they are few enough for a stranger to choose that.
    pub(crate) fn verify(&self, token: &Token<'_>) -> bool {
        let keys = self.0.iter().filter(|key| key.material.algorithm() == token.algorithm);
        let are_few = keys.clone().nth(MAX_TRIES).is_none();
        let named = |key: &&Key| match (&key.id, &token.key) {
            (Some(id), Some(wanted)) => id == wanted,
            (Some(_), None) => are_few,
            (None, _) => true,
        };
        keys.filter(named).any(|key| key.material.verify(token))
    }
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
        }
    }

    fn verify(&self, token: &Token<'_>) -> bool {
        match self {
            Self::Secret(key) => key.verify(token.signed, &token.signature),
            Self::Rsa(key) => key.verify(token.signed, &token.signature),
            Self::P256(key) => key.verify(token.signed, &token.signature),
        }
    }
}

/// A secret is not shown.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.algorithm())
    }
}

impl Jwk {
    /// None of a key that is for something else: sets have keys for encryption and other algorithms beside these.
    fn material(&self) -> Result<Option<Material>, String> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures {
            return Ok(None);
        }
        let is_for = |algorithm: &str| self.alg.as_deref().is_none_or(|alg| alg == algorithm);
        match self.kty.as_str() {
            "oct" if is_for("HS256") => secret_key(&bytes("k", self.k.as_deref())?)
                .map(Some)
                .map_err(str::to_owned),
            "RSA" if is_for("RS256") => self.rsa().map(Some),
            "EC" if is_for("ES256") && self.crv.as_deref() == Some("P-256") => self.p256().map(Some),
            _ => Ok(None),
        }
    }

    fn rsa(&self) -> Result<Material, String> {
        let (n, e) = (bytes("n", self.n.as_deref())?, bytes("e", self.e.as_deref())?);
        let zeros = n.iter().take_while(|byte| **byte == 0).count();
        let top = n.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
        let bits = (n.len() - zeros) * 8 - top;
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err(format!(
                "an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, and this one {bits}"
            ));
        }
        let key = Rs256::new(&n, &e).ok_or("`n` and `e` are no RSA key")?;
        Ok(Material::Rsa(key))
    }

    fn p256(&self) -> Result<Material, String> {
        let (x, y) = (bytes("x", self.x.as_deref())?, bytes("y", self.y.as_deref())?);
        let key = Es256::new(&[&[4][..], &x, &y].concat());
        Ok(Material::P256(key.ok_or("`x` and `y` are no point of P-256")?))
    }
}

fn secret_key(secret: &[u8]) -> Result<Material, &'static str> {
    match secret.len() >= MIN_SECRET {
        true => Ok(Material::Secret(Hs256::new(secret))),
        false => Err("a secret for HS256 has at least 32 bytes (RFC 7518, section 3.2)"),
    }
}

fn bytes(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let text = text.ok_or_else(|| format!("this key has no `{name}`"))?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| format!("`{name}` is not in base64url"))
}

/// Bytes; RFC 7518, section 3.2.
const MIN_SECRET: usize = 32;
/// RFC 7518, section 3.3.
const MIN_RSA_BITS: usize = 2048;
/// A stranger decides how often a signature is looked at: larger ones cost more than they protect.
const MAX_RSA_BITS: usize = 4096;
/// More than anybody rotates through.
const MAX_KEYS: usize = 32;
/// A token is held against so many keys at most: what a stranger can make us compute is bounded. With RSA keys of 4096 bits these
/// take a third of the time that a call has.
const MAX_TRIES: usize = 8;
