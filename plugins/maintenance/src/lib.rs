//! A page in the place of everything, while something is being repaired: 503 and when to come back, for everybody but those
//! who repair it.

use gateway_plugin_networks::Networks;
use gateway_plugin_sdk::config::{TimeSpan, one_or_many};
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter, plugin,
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// When clients are told to come back.
    retry_after: Option<TimeSpan>,
    /// The page; a plain sentence unless said. `body` and `content-type` are for programs as well.
    body: Option<String>,
    content_type: Option<String>,
    status: u16,
    /// Networks that are let through.
    allow: Networks,
    /// Paths that go on as always: with all below them where they end in `/`.
    #[serde(deserialize_with = "one_or_many")]
    allow_path: Vec<String>,
    /// `bypass cookie="preview" value="…"`: a secret with which anybody is let through.
    bypass: Option<Bypass>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bypass {
    cookie: Option<String>,
    header: Option<String>,
    value: String,
}

/// The plugin.
#[derive(Debug)]
pub struct Maintenance {
    reply: Reply,
    allow: Option<(RequestNeed, Networks)>,
    paths: Option<(RequestNeed, Vec<String>)>,
    bypass: Option<(RequestNeed, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retry_after: None,
            body: None,
            content_type: None,
            status: 503,
            allow: Networks::default(),
            allow_path: Vec::new(),
            bypass: None,
        }
    }
}

impl Plugin for Maintenance {
    type Config = Config;
    const NAME: &'static str = "maintenance";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Answers in the place of everything while something is being repaired.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        for (index, path) in config.allow_path.iter().enumerate() {
            if !path.starts_with('/') {
                return Err(ConfigError::new("a path begins with `/`").at(format!("/allow-path/{index}")));
            }
        }
        let request = &mut needs.request;
        let bypass = match &config.bypass {
            None => None,
            Some(Bypass { value, .. }) if value.len() < MIN_SECRET => {
                let message = format!("a secret that cannot be guessed has at least {MIN_SECRET} characters");
                return Err(ConfigError::new(message).at("/bypass/value"));
            }
            Some(bypass) => {
                let need = match (&bypass.cookie, &bypass.header) {
                    (Some(name), None) => request.cookie(name),
                    (None, Some(name)) => request.header(name),
                    _ => return Err(ConfigError::new("say one of cookie=\"…\" and header=\"…\"").at("/bypass")),
                };
                Some((need, bypass.value.clone()))
            }
        };
        Ok(Self {
            allow: (!config.allow.is_empty()).then(|| (request.client_ip(), config.allow.clone())),
            paths: (!config.allow_path.is_empty()).then(|| (request.path(), config.allow_path.clone())),
            bypass,
            reply: reply(config)?,
        })
    }
}

impl RequestFilter for Maintenance {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        match self.lets_through(request) {
            true => Ok(Outcome::Proceed),
            false => Ok(self.reply.clone().into()),
        }
    }
}

impl Maintenance {
    fn lets_through(&self, request: &Request<'_>) -> bool {
        let is_allowed = |(need, networks): &(RequestNeed, Networks)| {
            request.get(*need).is_some_and(|address| networks.contain(address))
        };
        let is_open = |(need, paths): &(RequestNeed, Vec<String>)| {
            request
                .get(*need)
                .is_some_and(|path| paths.iter().any(|open| is_below(path, open.as_bytes())))
        };
        let knows = |(need, secret): &(RequestNeed, String)| {
            request
                .all(*need)
                .any(|value| bool::from(value.ct_eq(secret.as_bytes())))
        };
        self.allow.as_ref().is_some_and(is_allowed)
            || self.paths.as_ref().is_some_and(is_open)
            || self.bypass.as_ref().is_some_and(knows)
    }
}

fn is_below(path: &[u8], open: &[u8]) -> bool {
    path == open || open.ends_with(b"/") && path.starts_with(open)
}

fn reply(config: Config) -> Result<Reply, ConfigError> {
    if !(400..=599).contains(&config.status) {
        return Err(ConfigError::new("what is not there now has a status of 400 to 599").at("/status"));
    }
    if config.body.as_ref().is_some_and(|body| body.len() > MAX_BODY) {
        let message = format!("a page has at most {MAX_BODY} bytes: what is larger has to come from a server");
        return Err(ConfigError::new(message).at("/body"));
    }
    let mut reply = Reply::new(config.status).header("cache-control", "no-store");
    if let Some(retry_after) = config.retry_after {
        reply = reply.header("retry-after", retry_after.whole_seconds().to_string());
    }
    let content_type = match (&config.content_type, &config.body) {
        (Some(_), None) => {
            return Err(ConfigError::new("there is no `body` that this would be about").at("/content-type"));
        }
        (Some(said), _) if said.trim().is_empty() || !said.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
            return Err(ConfigError::new("this is no media type").at("/content-type"));
        }
        (Some(said), _) => said.trim(),
        (None, Some(body)) if body.trim_start().starts_with('<') => "text/html; charset=utf-8",
        (None, _) => "text/plain; charset=utf-8",
    };
    let reply = reply.header("content-type", content_type);
    Ok(reply.body(config.body.unwrap_or_else(|| DEFAULT_BODY.to_owned())))
}

const DEFAULT_BODY: &str = "This service is down for maintenance. Please come back later.\n";

const MIN_SECRET: usize = 16;

/// Bytes: what the gateway takes as a reply.
const MAX_BODY: usize = 1 << 20;

plugin!(Maintenance: RequestFilter);
