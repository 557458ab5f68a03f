//! Lets in requests with a valid JSON Web Token (RFC 7519), signed with HS256, RS256 or ES256, and tells the server what it
//! claims.
//!
//! A key says by its type which algorithm it is for, and a token is checked with keys of its algorithm alone: that a token
//! says another (RFC 8725, section 3.1) changes which key is looked for, never what a key is used as. `none` is no algorithm.
//! Nothing of a token but its header is read before its signature holds.

mod claims;
mod config;
#[cfg_attr(target_arch = "wasm32", path = "crypto/wasm.rs")]
#[cfg_attr(not(target_arch = "wasm32"), path = "crypto/native.rs")]
mod crypto;
mod key;
mod token;

use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, clock, plugin,
};

use claims::Rules;
pub use config::Config;
use config::{ClaimHeader, Claimed};
use key::Keys;
use token::Token;

/// The plugin.
#[derive(Debug)]
pub struct JwtAuth {
    keys: Keys,
    rules: Rules,
    from: From,
    headers: Vec<ClaimHeader>,
    required: Vec<Claimed>,
    optional: bool,
    forward: bool,
    realm: String,
}

/// Where tokens come.
#[derive(Debug)]
enum From {
    /// `Authorization: Bearer …` (RFC 6750, section 2.1).
    Authorization(RequestNeed),
    Header(String, RequestNeed),
    Cookie(RequestNeed),
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no token.
    Missing,
    /// It cannot be read, its signature does not hold, or it is not for now, not for here or not of whom it should be.
    Invalid(&'static str),
    /// It is good, and not enough.
    Insufficient,
}

impl Plugin for JwtAuth {
    type Config = Config;
    const NAME: &'static str = "jwt-auth";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Lets in requests with a valid JSON Web Token, and tells the server what it claims.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        config.check()?;
        let request = &mut needs.request;
        let from = match (&config.from_header, &config.from_cookie) {
            (Some(_), Some(_)) => {
                let message = "a token comes in a header or in a cookie: say one";
                return Err(ConfigError::new(message).at("/from-cookie"));
            }
            (Some(name), None) => From::Header(name.clone(), request.header(name)),
            (None, Some(name)) => From::Cookie(request.cookie(name)),
            (None, None) => From::Authorization(request.header("authorization")),
        };
        if matches!(from, From::Cookie(_)) && config.forward == Some(false) {
            let message = "a cookie is left as it is: leave this out";
            return Err(ConfigError::new(message).at("/forward"));
        }
        Ok(Self {
            keys: Keys::new(config.secret.as_deref(), config.jwks.as_ref())?,
            rules: Rules {
                issuers: config.issuer,
                audiences: config.audience,
                leeway: config.leeway.whole_seconds(),
                needs_expiry: config.require_expiry,
                max_age: config.max_age.map(|age| age.whole_seconds()),
            },
            from,
            headers: config.claim,
            required: config.require,
            optional: config.optional,
            forward: config.forward.unwrap_or(true),
            realm: config.realm,
        })
    }
}

impl RequestFilter for JwtAuth {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        // What the server is told is what a token has claimed, or nothing.
        for claim in &self.headers {
            edits.remove_header(&claim.header)?;
        }
        let claims = match self.token(request).and_then(|token| self.check(token)) {
            Ok(claims) => claims,
            Err(Refusal::Missing) if self.optional => return Ok(Outcome::Proceed),
            Err(refusal) => return Ok(self.refuse(refusal).into()),
        };
        for claim in &self.headers {
            if let Some(value) = claims::text(&claims, &claim.claim) {
                edits.set_header(&claim.header, value)?;
            }
        }
        if !self.forward {
            match &self.from {
                From::Authorization(_) => edits.remove_header("authorization")?,
                From::Header(name, _) => edits.remove_header(name)?,
                From::Cookie(_) => {}
            }
        }
        Ok(Outcome::Proceed)
    }
}

impl JwtAuth {
    /// The request's token. Two are none: whoever comes after might look at the other one.
    fn token<'a>(&self, request: &Request<'a>) -> Result<&'a [u8], Refusal> {
        let need = match &self.from {
            From::Authorization(need) | From::Header(_, need) | From::Cookie(need) => *need,
        };
        let mut values = request.all(need);
        let value = values.next().ok_or(Refusal::Missing)?;
        if values.next().is_some() {
            return Err(Refusal::Invalid("more than one token"));
        }
        match &self.from {
            From::Authorization(_) => bearer(value).ok_or_else(|| match names_bearer(value) {
                // It is one to whoever reads the field in another way.
                true => Refusal::Invalid("the field is no bearer token"),
                false => Refusal::Missing,
            }),
            From::Header(..) => Ok(bearer(value).unwrap_or(value)),
            From::Cookie(_) => Ok(value),
        }
    }

    fn check(&self, token: &[u8]) -> Result<serde_json::Value, Refusal> {
        let token = Token::parse(token)?;
        if !self.keys.verify(&token) {
            return Err(Refusal::Invalid("the signature is not valid"));
        }
        let claims = token.claims()?;
        self.rules.check(&claims, clock::now().as_secs())?;
        match self
            .required
            .iter()
            .all(|required| claims::has(&claims, &required.claim, &required.value))
        {
            true => Ok(claims),
            false => Err(Refusal::Insufficient),
        }
    }

    /// RFC 6750, section 3. A request without a token is told no error.
    fn refuse(&self, refusal: Refusal) -> Reply {
        let (status, error) = match refusal {
            Refusal::Missing => (401, String::new()),
            Refusal::Invalid(why) => (401, format!(", error=\"invalid_token\", error_description=\"{why}\"")),
            Refusal::Insufficient => (403, ", error=\"insufficient_scope\"".to_owned()),
        };
        Reply::new(status)
            .header("www-authenticate", format!("Bearer realm=\"{}\"{error}", self.realm))
            .header("cache-control", "no-store")
    }
}

/// What follows the scheme, which is compared without regard to case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(BEARER) && token.first().is_some_and(u8::is_ascii_whitespace);
    is_bearer.then(|| token.trim_ascii_start())
}

/// Whether the scheme stands anywhere in a field, in a list of credentials or behind white space.
fn names_bearer(value: &[u8]) -> bool {
    let mut windows = value.windows(BEARER.len());
    windows.any(|window| window.eq_ignore_ascii_case(BEARER))
}

const BEARER: &[u8] = b"Bearer";

plugin!(JwtAuth: RequestFilter);
