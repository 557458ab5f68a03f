//! What every plugin is: a name, a configuration, and the facts it needs.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;

use crate::edits::EditRefused;
use crate::metrics::Metric;
use crate::needs::Needs;
use crate::place;

/// A plugin: who it is, and how a configuration becomes one.
///
/// An instance serves one configuration of one tenant, one exchange at a time. Do not count on fields changed in one call
/// being there in the next: instances come and go, and there are several. What has to be shared or remembered lives in the
/// host ([`buckets`](crate::buckets), [`counters`](crate::counters), [`kv`](crate::kv)).
pub trait Plugin: Sized + 'static {
    /// The configuration: what the operator writes in `config { … }`, as JSON. Say `#[serde(deny_unknown_fields)]`, so
    /// that a misspelling is an error.
    type Config: DeserializeOwned;

    /// A short name, as `geo-acl`.
    const NAME: &'static str;
    /// The plugin's own version.
    const VERSION: &'static str = "0.1.0";
    /// What it does, in one sentence.
    const ABOUT: &'static str;

    /// What it counts and measures; see [`metrics`](crate::metrics).
    const METRICS: &'static [Metric] = &[];

    /// Makes the plugin of its configuration, and declares which facts it wants with each call.
    ///
    /// # Errors
    /// What is wrong with the configuration; it stops the load, and the operator is shown the message.
    fn configure(config: Self::Config, needs: &mut Needs) -> Result<Self, ConfigError>;
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    message: Cow<'static, str>,
    at: Option<String>,
}

impl ConfigError {
    /// What is wrong and, where it is known, how to mend it.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
            at: None,
        }
    }

    /// Says where in the configuration: a JSON Pointer (RFC 6901), as `/deny-country/1`.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.at = Some(pointer.into());
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, if known.
    pub fn pointer(&self) -> Option<&str> {
        self.at.as_deref()
    }
}

/// What `configure` finds out of an edit that a hook would make: see [`fields`](crate::fields).
impl From<EditRefused> for ConfigError {
    fn from(refused: EditRefused) -> Self {
        Self::new(refused.0)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{at}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What a configuration is not, and where: in the operator's words, who does not see the text that was read.
fn unread(config: &str, error: &serde_json::Error) -> ConfigError {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
    // A line ends nowhere in what the gateway writes: the column is how many bytes were read.
    let pointer = match error.line() {
        1 => place::pointer(config, error.column()),
        _ => None,
    };
    ConfigError {
        message: message.into(),
        at: pointer,
    }
}

/// Reads a configuration text and makes the plugin of it.
pub(crate) fn load<P: Plugin>(config: &str) -> Result<(P, Needs), ConfigError> {
    let config = serde_json::from_str(config).map_err(|error| unread(config, &error))?;
    let mut needs = Needs::default();
    let plugin = P::configure(config, &mut needs)?;
    Ok((plugin, needs))
}
