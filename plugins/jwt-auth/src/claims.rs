//! What a token claims (RFC 7519, section 4): whether it holds here and now, and what of it others are told.

use serde_json::Value;

use crate::Refusal;

/// What claims have to say.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Empty: anybody.
    pub(crate) issuers: Vec<String>,
    /// Empty: for anybody.
    pub(crate) audiences: Vec<String>,
    /// Seconds.
    pub(crate) leeway: u64,
    pub(crate) needs_expiry: bool,
    /// Seconds since it was issued.
    pub(crate) max_age: Option<u64>,
}

impl Rules {
    /// `now` in seconds since 1970.
    pub(crate) fn check(&self, claims: &Value, now: u64) -> Result<(), Refusal> {
        let (now, leeway) = (now as f64, self.leeway as f64);
        match date(claims, "exp")? {
            Some(expiry) if now >= expiry + leeway => return Err(Refusal::Invalid("the token has expired")),
            None if self.needs_expiry => return Err(Refusal::Invalid("the token does not say when it expires")),
            _ => {}
        }
        if date(claims, "nbf")?.is_some_and(|from| now + leeway < from) {
            return Err(Refusal::Invalid("the token is not valid yet"));
        }
        let issued = date(claims, "iat")?;
        if let Some(max_age) = self.max_age {
            let issued = issued.ok_or(Refusal::Invalid("the token does not say when it was issued"))?;
            if now + leeway < issued {
                return Err(Refusal::Invalid("the token is from the future"));
            }
            if now >= issued + max_age as f64 + leeway {
                return Err(Refusal::Invalid("the token is too old"));
            }
        }
        let is =
            |wanted: &[String], claim: &str| wanted.is_empty() || wanted.iter().any(|value| has(claims, claim, value));
        if !self.issuers.is_empty() && !claims.get("iss").is_some_and(Value::is_string) || !is(&self.issuers, "iss") {
            return Err(Refusal::Invalid("the token is of another issuer"));
        }
        match is(&self.audiences, "aud") {
            true => Ok(()),
            false => Err(Refusal::Invalid("the token is for another audience")),
        }
    }
}

/// A NumericDate (RFC 7519, section 2): seconds since 1970, perhaps with a fraction. Something else is no token.
fn date(claims: &Value, name: &str) -> Result<Option<f64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|date| date.is_finite()) {
            Some(date) => Ok(Some(date)),
            None => Err(Refusal::Invalid("a date of the token cannot be read")),
        },
    }
}

/// Whether a claim is this text, or a list that has it, or one of several words (as `scope`, RFC 8693, section 4.2, which others
/// call `scp`).
pub(crate) fn has(claims: &Value, claim: &str, wanted: &str) -> bool {
    match find(claims, claim) {
        Some(Value::Array(values)) => values.iter().any(|value| value.as_str() == Some(wanted)),
        Some(Value::String(text)) if ["scope", "scp"].contains(&claim) => text.split(' ').any(|word| word == wanted),
        Some(Value::String(text)) => text == wanted,
        Some(Value::Bool(value)) => wanted == if *value { "true" } else { "false" },
        Some(Value::Number(value)) => value.to_string() == wanted,
        _ => false,
    }
}

/// What a claim says, for a field: a list with commas. None of what cannot stand in one, and of objects.
pub(crate) fn text(claims: &Value, claim: &str) -> Option<String> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let text = match find(claims, claim)? {
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(one).collect::<Option<_>>()?;
            // One that has a comma could be taken for two.
            if texts.iter().any(|text| text.contains(',')) {
                return None;
            }
            texts.join(",")
        }
        value => one(value)?,
    };
    let fits = text.len() <= MAX_VALUE && text.trim() == text && !text.chars().any(char::is_control);
    fits.then_some(text)
}

fn find<'a>(claims: &'a Value, claim: &str) -> Option<&'a Value> {
    if claim.starts_with('/') {
        return claims.pointer(claim);
    }
    claims.get(claim)
}

/// Bytes of a field's value.
const MAX_VALUE: usize = 4096;
