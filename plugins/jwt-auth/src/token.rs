//! Tokens in the compact form (RFC 7515, section 7.1): three texts in base64url, with dots between them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::Refusal;

/// A token that can be read; nothing has been checked.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    /// Which key has signed it.
    pub(crate) key: Option<String>,
    /// What was signed: header and payload as they are.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
    payload: &'a [u8],
}

/// How it is signed (RFC 7518, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
}

/// What is read of the header; a name that comes twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    /// Whether it is there, whatever it says: `null` is no way to say nothing (RFC 7515, section 4.1.11).
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Ok(true)
}

impl<'a> Token<'a> {
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Invalid("the token is too long"));
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        let read: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| Refusal::Invalid("the header cannot be read or names another algorithm"))?;
        // Extensions that have to be understood (RFC 7515, section 4.1.11): none is.
        if read.crit {
            return Err(Refusal::Invalid("the header has critical extensions"));
        }
        Ok(Self {
            algorithm: read.alg,
            key: read.kid,
            signed: token.get(..header.len() + 1 + payload.len()).ok_or(MALFORMED)?,
            signature: decode(signature)?,
            payload,
        })
    }

    /// What it claims: to be read only when its signature holds.
    pub(crate) fn claims(&self) -> Result<Value, Refusal> {
        let claims: Value = serde_json::from_slice(&decode(self.payload)?).map_err(|_| MALFORMED)?;
        match claims.is_object() {
            true => Ok(claims),
            false => Err(MALFORMED),
        }
    }
}

fn decode(text: &[u8]) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| MALFORMED)
}

const MALFORMED: Refusal = Refusal::Invalid("the token cannot be read");

/// Bytes. A head has little more, and a token with a thousand groups has less.
const MAX_TOKEN: usize = 16 << 10;
