//! Lets in programs with a known key, and tells the server whose it is.
//!
//! Keys are kept as digests. A key is made by a machine (32 random bytes, say) and cannot be guessed, so a fast digest without
//! salt is enough; for what people think up there is `basic-auth`.

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, fields, plugin, tags,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// `client "ada" …`: who is let in.
    #[serde(deserialize_with = "one_or_many")]
    client: Vec<Client>,
    /// The request field that keys come in; `x-api-key` where neither this nor `query` is said.
    header: Option<String>,
    /// What stands in front of the key in the field, as in `Authorization: Bearer KEY`.
    scheme: Option<String>,
    /// The query parameter that they come in. Queries end up in logs: a field is the better place.
    query: Option<String>,
    /// The request field in which the server is told whose key it was.
    client_header: Option<String>,
    /// Whether the server gets the key, too.
    #[serde(default)]
    forward: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Client {
    name: String,
    /// SHA-256 of the key, in hexadecimal digits: `printf %s KEY | sha256sum`. Several while a key is changed.
    #[serde(deserialize_with = "one_or_many")]
    sha256: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct ApiKey {
    /// By digest.
    keys: Vec<Key>,
    names: Vec<String>,
    header: Option<(String, RequestNeed)>,
    scheme: Option<String>,
    /// What a 401 asks for.
    challenge: String,
    query: Option<Parameter>,
    client_header: Option<String>,
    forward: bool,
}

#[derive(Debug)]
struct Key {
    digest: [u8; 32],
    /// Whose it is, by position.
    client: usize,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    value: RequestNeed,
    query: RequestNeed,
}

impl Plugin for ApiKey {
    type Config = Config;
    const NAME: &'static str = "api-key";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Lets in programs with a known key, and tells the server whose it is.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let keys = keys(&config.client)?;
        let header = match (&config.header, &config.query) {
            (None, Some(_)) => None,
            (Some(name), _) => Some(name.as_str()),
            (None, None) => Some("x-api-key"),
        };
        for (name, at) in [(header, "/header"), (config.client_header.as_deref(), "/client-header")] {
            if let Some(name) = name {
                fields::check_name(name).map_err(|refused| ConfigError::from(refused).at(at))?;
            }
        }
        if let (Some(header), Some(client)) = (header, &config.client_header)
            && header.eq_ignore_ascii_case(client)
        {
            let message = "the field that keys come in cannot be the one that tells the server whose it was";
            return Err(ConfigError::new(message).at("/client-header"));
        }
        if let Some(scheme) = &config.scheme {
            if header.is_none() {
                let message = "a scheme stands in front of a key in a field: say which `header`";
                return Err(ConfigError::new(message).at("/scheme"));
            }
            // RFC 9110, section 11.1: schemes are called as fields are.
            if fields::check_name(scheme).is_err() {
                return Err(ConfigError::new("this is no name of a scheme, as Bearer").at("/scheme"));
            }
        }
        let request = &mut needs.request;
        Ok(Self {
            keys,
            names: config.client.into_iter().map(|client| client.name).collect(),
            header: header.map(|name| (name.to_owned(), request.header(name))),
            // RFC 6750, section 3: Bearer has a parameter at least.
            challenge: config
                .scheme
                .as_ref()
                .map_or_else(|| "ApiKey".to_owned(), |scheme| format!("{scheme} realm=\"api\"")),
            scheme: config.scheme,
            query: config.query.map(|name| Parameter {
                value: request.query_param(&name),
                query: request.query(),
                name,
            }),
            client_header: config.client_header,
            forward: config.forward,
        })
    }
}

impl RequestFilter for ApiKey {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let Some(client) = self.key(request).and_then(|key| self.client(key)) else {
            return Ok(Reply::new(401)
                .header("www-authenticate", &self.challenge)
                .header("cache-control", "no-store")
                .into());
        };
        if let Some(header) = &self.client_header {
            edits.set_header(header, client)?;
        }
        if !self.forward {
            if let Some((name, need)) = &self.header
                && request.all(*need).any(|value| self.behind_scheme(value).is_some())
            {
                edits.remove_header(name)?;
            }
            if let Some(parameter) = &self.query
                && let Some(query) = request.get(parameter.query)
            {
                edits.set_query(without(query, parameter.name.as_bytes()).as_deref())?;
            }
        }
        tags::set("api-key.client", client)?;
        Ok(Outcome::Proceed)
    }
}

impl ApiKey {
    /// The one key that a request has. Of two, whoever comes after might look at the other.
    fn key<'a>(&self, request: &Request<'a>) -> Option<&'a [u8]> {
        let of_header = self.header.as_ref().map(|(_, need)| request.all(*need));
        let of_header = of_header
            .into_iter()
            .flatten()
            .filter_map(|value| self.behind_scheme(value));
        let of_query = self.query.as_ref().map(|parameter| request.all(parameter.value));
        let mut keys = of_header.chain(of_query.into_iter().flatten());
        let key = keys.next()?;
        keys.next().is_none().then_some(key)
    }

    /// The key in a field; none where another scheme stands in front. Case does not matter in schemes (RFC 9110, section 11.1).
    fn behind_scheme<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        let Some(scheme) = &self.scheme else {
            return Some(value);
        };
        let (said, key) = value.split_at_checked(scheme.len())?;
        let is_it = said.eq_ignore_ascii_case(scheme.as_bytes()) && key.first() == Some(&b' ');
        is_it.then(|| key.trim_ascii_start())
    }

    /// Whose key it is. The digest is searched for, not the key: who sends a key cannot choose the digest that it has, so how
    /// long the search takes tells nothing of any other key.
    fn client(&self, key: &[u8]) -> Option<&str> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let found = self.keys.binary_search_by(|known| known.digest.cmp(&digest)).ok()?;
        let known = self.keys.get(found)?;
        bool::from(known.digest.ct_eq(&digest)).then(|| self.names.get(known.client).map(String::as_str))?
    }
}

/// The keys of all clients, by digest.
fn keys(clients: &[Client]) -> Result<Vec<Key>, ConfigError> {
    if clients.is_empty() {
        return Err(ConfigError::new("nobody has a key").at("/client"));
    }
    let mut keys = Vec::new();
    for (client, Client { name, sha256 }) in clients.iter().enumerate() {
        let is_name =
            !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        if !is_name {
            let message = format!("a name has 1 to {MAX_NAME} printable characters of ASCII, and no space");
            return Err(ConfigError::new(message).at(format!("/client/{client}/name")));
        }
        for (index, text) in sha256.iter().enumerate() {
            let Some(digest) = digest(text) else {
                let message = "this is not the SHA-256 of a key: the 64 digits that `printf %s KEY | sha256sum` prints";
                return Err(ConfigError::new(message).at(format!("/client/{client}/sha256/{index}")));
            };
            if digest == EMPTY {
                let message = "this is the digest of an empty key";
                return Err(ConfigError::new(message).at(format!("/client/{client}/sha256/{index}")));
            }
            keys.push(Key { digest, client });
        }
        if sha256.is_empty() {
            return Err(ConfigError::new("this client has no key").at(format!("/client/{client}/sha256")));
        }
    }
    keys.sort_unstable_by_key(|key| key.digest);
    for pair in keys.windows(2) {
        if let [one, other] = pair
            && one.digest == other.digest
        {
            return Err(
                ConfigError::new("two have the same key").at(format!("/client/{}", other.client.max(one.client)))
            );
        }
    }
    Ok(keys)
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from((digit(*high)? << 4) | digit(*low)?).ok()?;
    }
    Some(digest)
}

/// A query without the values of a parameter, none when nothing is left. Names are compared as the gateway reads them:
/// percent-decoded.
fn without(query: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let kept = query.split(|byte| *byte == b'&').filter(|pair| {
        let raw = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        decoded(raw) != name
    });
    let kept = kept.collect::<Vec<_>>().join(&b'&');
    (!kept.is_empty()).then_some(kept)
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(((high << 4) | low) as u8);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// As long as fits a tag twice over.
const MAX_NAME: usize = 128;

/// SHA-256 of nothing.
const EMPTY: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

plugin!(ApiKey: RequestFilter);
