//! Gives each request a number, in a field that the server and the client see: a UUID of version 7 (RFC 9562), whose order
//! is that of time, or of version 4; or keeps the one that a client came with, where that is wanted and it can be one.
//!
//! The gateway has `request-id` of its own, which access lines show; this one is for those who need what it does not do.

use std::fmt::Write as _;

use gateway_plugin_sdk::needs::{RequestNeed, ResponseNeed};
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, Response, ResponseEdits,
    ResponseFilter, clock, fields, plugin, random, tags,
};
use serde::Deserialize;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The field; `x-request-id` unless said.
    header: String,
    /// What a number is.
    format: Format,
    /// Whether the number that a client came with is kept, when it is 1 to 128 of the characters that such numbers have.
    keep: bool,
    /// Whether the client is told; yes unless this is false.
    respond: bool,
    /// What stands in front of each.
    prefix: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    #[default]
    UuidV7,
    UuidV4,
    /// 32 hexadecimal digits.
    Hex,
}

/// The plugin.
#[derive(Debug)]
pub struct RequestId {
    config: Config,
    given: RequestNeed,
    /// Declared when the client is told.
    chosen: Option<ResponseNeed>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            header: "x-request-id".to_owned(),
            format: Format::default(),
            keep: false,
            respond: true,
            prefix: String::new(),
        }
    }
}

impl Plugin for RequestId {
    type Config = Config;
    const NAME: &'static str = "request-id";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Gives each request a number.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        fields::check_name(&config.header).map_err(|refused| ConfigError::from(refused).at("/header"))?;
        if config.prefix.len() > MAX_PREFIX || !config.prefix.bytes().all(is_of_id) {
            let message = format!("a prefix has at most {MAX_PREFIX} letters, digits and `-_.:+/=@`");
            return Err(ConfigError::new(message).at("/prefix"));
        }
        Ok(Self {
            given: needs.request.header(&config.header),
            chosen: config.respond.then(|| needs.response.tag(TAG)),
            config,
        })
    }
}

impl RequestFilter for RequestId {
    fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
        let mut given = request.all(self.given);
        let kept = match (given.next(), given.next()) {
            (Some(id), None) if self.config.keep && is_id(id) => Some(id),
            _ => None,
        };
        match kept {
            Some(id) => tags::set(TAG, id)?,
            None => {
                let id = self.new_id();
                edits.set_header(&self.config.header, &id)?;
                tags::set(TAG, &id)?;
            }
        }
        Ok(Outcome::Proceed)
    }
}

impl ResponseFilter for RequestId {
    fn on_response(&self, response: &Response<'_>, edits: &mut ResponseEdits) -> Result<Option<Reply>, Failure> {
        if let Some(id) = self.chosen.and_then(|chosen| response.get(chosen)) {
            edits.set_header(&self.config.header, id)?;
        }
        Ok(None)
    }
}

impl RequestId {
    fn new_id(&self) -> String {
        let random = (u128::from(random::number()) << 64) | u128::from(random::number());
        let number = match self.config.format {
            Format::Hex => random,
            Format::UuidV4 => uuid(random, 4),
            // 48 bits of milliseconds since 1970 in front.
            Format::UuidV7 => uuid((clock::now().as_millis() << 80) | (random & ((1 << 80) - 1)), 7),
        };
        let mut id = String::with_capacity(self.config.prefix.len() + 36);
        id.push_str(&self.config.prefix);
        // Writing into a text does not fail.
        let _ = match self.config.format {
            Format::Hex => write!(id, "{number:032x}"),
            _ => write!(
                id,
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                number >> 96,
                (number >> 80) & 0xffff,
                (number >> 64) & 0xffff,
                (number >> 48) & 0xffff,
                number & 0xffff_ffff_ffff
            ),
        };
        id
    }
}

/// The version and the variant in their places (RFC 9562, section 4).
fn uuid(number: u128, version: u128) -> u128 {
    (number & !(0xf << 76) & !(0b11 << 62)) | (version << 76) | (0b10 << 62)
}

/// A number of somebody else's: nothing that a log, a shell or a page would take for more.
fn is_id(text: &[u8]) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.iter().copied().all(is_of_id)
}

fn is_of_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&byte)
}

/// Bytes; four UUIDs.
const MAX_ID: usize = 128;

/// Bytes; the rest of what fits [`MAX_ID`] is the number.
const MAX_PREFIX: usize = 64;

const TAG: &str = "request-id";

plugin!(RequestId: RequestFilter + ResponseFilter);
