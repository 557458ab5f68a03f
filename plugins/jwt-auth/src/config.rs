//! The configuration.

use gateway_plugin_sdk::config::{TimeSpan, one_or_many};
use gateway_plugin_sdk::{ConfigError, fields};
use serde::Deserialize;
use serde_json::Value;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// A key for HS256, as text: at least 32 bytes, without the line break that a file ends with.
    pub(crate) secret: Option<String>,
    /// A JSON Web Key Set (RFC 7517, section 5): the object itself, or its text.
    pub(crate) jwks: Option<Value>,
    /// Who may have issued a token (`iss`).
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) issuer: Vec<String>,
    /// For whom it may be (`aud`).
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) audience: Vec<String>,
    /// By how much the clocks of issuers may differ from this one's.
    #[serde(default = "default_leeway")]
    pub(crate) leeway: TimeSpan,
    /// Whether a token has to say when it expires.
    #[serde(default = "yes")]
    pub(crate) require_expiry: bool,
    /// How long ago a token may have been issued (`iat`).
    pub(crate) max_age: Option<TimeSpan>,
    /// The field that tokens come in, with or without `Bearer`, in the place of `Authorization`.
    pub(crate) from_header: Option<String>,
    /// The cookie that they come in.
    pub(crate) from_cookie: Option<String>,
    /// `claim "sub" header="x-user"`: what the server is told.
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) claim: Vec<ClaimHeader>,
    /// `require claim="role" value="admin"`: what a token has to claim, or 403.
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) require: Vec<Claimed>,
    /// Whether requests without a token are let in.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Whether the server gets the token; yes unless this is false.
    pub(crate) forward: Option<bool>,
    /// What clients are told that the token is for.
    #[serde(default = "default_realm")]
    pub(crate) realm: String,
}

/// A claim that the server is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimHeader {
    /// Its name, or where it is: a JSON Pointer as `/realm_access/roles`.
    pub(crate) claim: String,
    pub(crate) header: String,
}

/// A claim that has to be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claimed {
    pub(crate) claim: String,
    pub(crate) value: String,
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_text(&self.realm) || self.realm.contains(['"', '\\']) {
            let message = "has to be printable ASCII without quotes and backslashes";
            return Err(ConfigError::new(message).at("/realm"));
        }
        if self.leeway.0.as_secs() > MAX_LEEWAY {
            let message = "clocks that differ by more than ten minutes have to be mended";
            return Err(ConfigError::new(message).at("/leeway"));
        }
        for (at, name) in [("/from-header", &self.from_header), ("/from-cookie", &self.from_cookie)] {
            if name.as_ref().is_some_and(|name| !is_token(name)) {
                return Err(ConfigError::new("this is no name").at(at));
            }
        }
        if let (Some(name), Some(false)) = (&self.from_header, self.forward) {
            fields::check_name(name).map_err(|refused| ConfigError::from(refused).at("/from-header"))?;
        }
        for (index, claim) in self.claim.iter().enumerate() {
            let at = format!("/claim/{index}/header");
            fields::check_name(&claim.header).map_err(|refused| ConfigError::from(refused).at(&at))?;
            let mut before = self.claim.iter().take(index);
            if before.any(|other| other.header.eq_ignore_ascii_case(&claim.header)) {
                return Err(ConfigError::new("two claims in one field").at(at));
            }
        }
        Ok(())
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

fn yes() -> bool {
    true
}

fn default_realm() -> String {
    "gateway".to_owned()
}

/// Machines that ask a time server differ by less; more would keep a token alive that was meant to be over.
fn default_leeway() -> TimeSpan {
    TimeSpan::seconds(30)
}

/// Seconds.
const MAX_LEEWAY: u64 = 600;
