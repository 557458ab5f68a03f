//! Tells programs from people by what they say of themselves (`User-Agent`), and refuses or tags the ones that are not
//! wanted. Who lies about it is not found out here: limits are for those.

mod known;

use gateway_plugin_sdk::config::one_or_many;
use gateway_plugin_sdk::needs::RequestNeed;
use gateway_plugin_sdk::{
    AccessControl, Answers, ConfigError, Failure, Needs, Outcome, Plugin, Reply, Request, RequestEdits, RequestFilter,
    plugin, tags,
};
use serde::Deserialize;

use known::GROUPS;

/// What the operator writes in `config { … }`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Groups that are refused: `ai`, `seo`, `scanner`, `library`.
    #[serde(default, deserialize_with = "one_or_many")]
    deny: Vec<String>,
    /// Parts of a `User-Agent` that are refused as well, in whatever case.
    #[serde(default, deserialize_with = "one_or_many")]
    deny_agent: Vec<String>,
    /// Parts of a `User-Agent` that are let in whatever else is in it.
    #[serde(default, deserialize_with = "one_or_many")]
    allow_agent: Vec<String>,
    /// Whether requests that do not say what they come from are refused.
    #[serde(default)]
    deny_empty: bool,
    /// Paths that anybody may ask for: `/robots.txt`, unless said.
    #[serde(default = "default_paths", deserialize_with = "one_or_many")]
    allow_path: Vec<String>,
    /// What those get that are refused, 400 to 599.
    #[serde(default = "default_status")]
    status: u16,
}

/// The plugin.
#[derive(Debug)]
pub struct BotFilter {
    deny: Vec<Group>,
    allow: Vec<Vec<u8>>,
    deny_empty: bool,
    paths: Vec<String>,
    status: u16,
    agent: RequestNeed,
    path: RequestNeed,
}

/// What is refused, and what it is called in tags.
#[derive(Debug)]
struct Group {
    name: &'static str,
    /// In lower case.
    parts: Vec<Vec<u8>>,
}

impl Plugin for BotFilter {
    type Config = Config;
    const NAME: &'static str = "bot-filter";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Refuses programs by what they say of themselves.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        let mut deny = Vec::new();
        for (index, name) in config.deny.iter().enumerate() {
            let Some((name, parts)) = GROUPS.iter().find(|(known, _)| known == name) else {
                let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
                let message = format!("`{name}` is none of {}", known.join(", "));
                return Err(ConfigError::new(message).at(format!("/deny/{index}")));
            };
            deny.push(Group {
                name,
                parts: parts
                    .iter()
                    .map(|part| part.to_ascii_lowercase().into_bytes())
                    .collect(),
            });
        }
        let denied = parts(&config.deny_agent, "/deny-agent")?;
        if !denied.is_empty() {
            deny.push(Group {
                name: "agent",
                parts: denied,
            });
        }
        if deny.is_empty() && !config.deny_empty {
            return Err(ConfigError::new(
                "nobody is refused: say `deny`, `deny-agent` or `deny-empty`",
            ));
        }
        if !(400..=599).contains(&config.status) {
            return Err(ConfigError::new("who is refused gets 400 to 599").at("/status"));
        }
        for (index, path) in config.allow_path.iter().enumerate() {
            if !path.starts_with('/') {
                return Err(ConfigError::new("a path begins with `/`").at(format!("/allow-path/{index}")));
            }
        }
        Ok(Self {
            deny,
            allow: parts(&config.allow_agent, "/allow-agent")?,
            deny_empty: config.deny_empty,
            paths: config.allow_path,
            status: config.status,
            agent: needs.request.header("user-agent"),
            path: needs.request.path(),
        })
    }
}

impl AccessControl for BotFilter {
    fn predicates(&self) -> Vec<String> {
        vec!["bot".to_owned()]
    }

    /// Whether it would be refused; the path does not matter here, since the `acl` can ask for that itself.
    fn evaluate(&self, request: &Request<'_>) -> Answers {
        self.group(request).is_some().into()
    }
}

impl RequestFilter for BotFilter {
    fn on_request(&self, request: &Request<'_>, _: &mut RequestEdits) -> Result<Outcome, Failure> {
        let Some(group) = self.group(request) else {
            return Ok(Outcome::Proceed);
        };
        tags::set("bot-filter", group)?;
        let path = request.get(self.path).unwrap_or_default();
        match self.paths.iter().any(|open| open.as_bytes() == path) {
            true => Ok(Outcome::Proceed),
            false => Ok(Reply::new(self.status).into()),
        }
    }
}

impl BotFilter {
    /// What the request is refused for.
    fn group(&self, request: &Request<'_>) -> Option<&'static str> {
        let agent = request.get(self.agent).unwrap_or_default();
        if agent.trim_ascii().is_empty() {
            return self.deny_empty.then_some("empty");
        }
        // Names stand in front: what follows a kilobyte of something else is no name, and is not searched.
        let agent = agent.get(..MAX_AGENT).unwrap_or(agent).to_ascii_lowercase();
        if self.allow.iter().any(|part| contains(&agent, part)) {
            return None;
        }
        let has = |group: &&Group| group.parts.iter().any(|part| contains(&agent, part));
        self.deny.iter().find(has).map(|group| group.name)
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// In lower case. Too short a part would be in everything.
fn parts(texts: &[String], at: &str) -> Result<Vec<Vec<u8>>, ConfigError> {
    let part = |(index, text): (usize, &String)| match (MIN_PART..=MAX_PART).contains(&text.len()) {
        true => Ok(text.to_ascii_lowercase().into_bytes()),
        false => {
            let message = format!("a part of a name has {MIN_PART} to {MAX_PART} bytes");
            Err(ConfigError::new(message).at(format!("{at}/{index}")))
        }
    };
    texts.iter().enumerate().map(part).collect()
}

fn default_paths() -> Vec<String> {
    vec!["/robots.txt".to_owned()]
}

fn default_status() -> u16 {
    403
}

/// Bytes that are searched. Browsers say less than 300.
const MAX_AGENT: usize = 1024;

const MIN_PART: usize = 3;
const MAX_PART: usize = 128;

plugin!(BotFilter: AccessControl + RequestFilter);
