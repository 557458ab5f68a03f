//! What the edits of each header come to.

use std::borrow::Cow;

use gateway_plugin_sdk::{ConfigError, EditRefused, RequestEdits, ResponseEdits};

use crate::config::{HeaderName, HeaderReplace, HeaderValue, Replace};
use crate::replacement::{Kind, Replacement};

/// One configured edit of a header.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Set(String),
    Add(String),
    Delete,
    Replace(Replacement),
}

/// The edits of all headers; `Need` is the key to a header's present values.
#[derive(Debug)]
pub(crate) struct Plans<Need>(Vec<Plan<Need>>);

/// The edits of one header.
#[derive(Debug)]
enum Plan<Need> {
    /// The outcome does not depend on what is there.
    Fixed {
        name: String,
        first: First,
        more: Vec<String>,
    },
    /// A replacement has to see what is there.
    Worked {
        name: String,
        need: Need,
        actions: Vec<Action>,
    },
}

/// What becomes of the values that are there.
#[derive(Debug)]
enum First {
    Keep,
    Remove,
    SetTo(String),
}

/// Where edits go.
pub(crate) trait Sink {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused>;
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused>;
    fn remove(&mut self, name: &str) -> Result<(), EditRefused>;
}

impl Step {
    pub(crate) fn set(header: HeaderValue, at: &str) -> Result<Self, ConfigError> {
        let at = format!("{at}/set-header");
        Self::new(header.name, Action::Set(valid_value(header.value, &at)?), &at)
    }

    pub(crate) fn add(header: HeaderValue, at: &str) -> Result<Self, ConfigError> {
        let at = format!("{at}/add-header");
        Self::new(header.name, Action::Add(valid_value(header.value, &at)?), &at)
    }

    pub(crate) fn delete(header: HeaderName, at: &str) -> Result<Self, ConfigError> {
        Self::new(header.name, Action::Delete, &format!("{at}/delete-header"))
    }

    pub(crate) fn replace(header: HeaderReplace, at: &str) -> Result<Self, ConfigError> {
        let at = format!("{at}/replace-header");
        let replace = Replace {
            prefix: header.prefix,
            regex: header.regex,
            to: header.to,
        };
        let replacement = Replacement::compile(replace, Kind::Header, &at)?;
        Self::new(header.name, Action::Replace(replacement), &at)
    }

    pub(crate) fn location(replace: Replace, at: &str) -> Result<Self, ConfigError> {
        let at = format!("{at}/rewrite-location");
        let replacement = Replacement::compile(replace, Kind::Header, &at)?;
        Self::new("location".to_owned(), Action::Replace(replacement), &at)
    }

    fn new(mut name: String, action: Action, at: &str) -> Result<Self, ConfigError> {
        name.make_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(ConfigError::new(format!("`{name}` is not a header name")).at(format!("{at}/name")));
        }
        if NOT_FOR_PLUGINS.contains(&name.as_str()) {
            let message = format!("`{name}` belongs to the connection or the framing, and is the gateway's own");
            return Err(ConfigError::new(message).at(format!("{at}/name")));
        }
        Ok(Self { name, action })
    }
}

impl<Need: Copy> Plans<Need> {
    /// Sorts the steps by header, in the order in which headers are first named.
    pub(crate) fn new(steps: Vec<Step>, mut need: impl FnMut(&str) -> Need) -> Self {
        let mut by_header: Vec<(String, Vec<Action>)> = Vec::new();
        for step in steps {
            match by_header.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, actions)) => actions.push(step.action),
                None => by_header.push((step.name, vec![step.action])),
            }
        }
        let plans = by_header.into_iter().map(|(name, actions)| {
            if actions.iter().any(|action| matches!(action, Action::Replace(_))) {
                let need = need(&name);
                Plan::Worked { name, need, actions }
            } else {
                Plan::fixed(name, actions)
            }
        });
        Self(plans.collect())
    }

    /// Makes the edits; `values` gives a header's present values.
    pub(crate) fn apply<'a, V>(&self, sink: &mut impl Sink, values: impl Fn(Need) -> V) -> Result<(), EditRefused>
    where
        V: Iterator<Item = &'a [u8]>,
    {
        for plan in &self.0 {
            match plan {
                Plan::Fixed { name, first, more } => {
                    match first {
                        First::Keep => {}
                        First::Remove => sink.remove(name)?,
                        First::SetTo(value) => sink.set(name, value.as_bytes())?,
                    }
                    for value in more {
                        sink.add(name, value.as_bytes())?;
                    }
                }
                Plan::Worked { name, need, actions } => {
                    let values: Vec<_> = values(*need).map(Cow::Borrowed).collect();
                    work(name, values, actions, sink)?;
                }
            }
        }
        Ok(())
    }
}

impl<Need> Plan<Need> {
    fn fixed(name: String, actions: Vec<Action>) -> Self {
        let mut first = First::Keep;
        let mut more = Vec::new();
        for action in actions {
            match action {
                Action::Set(value) => {
                    first = First::SetTo(value);
                    more.clear();
                }
                Action::Delete => {
                    first = First::Remove;
                    more.clear();
                }
                // The first value after a removal takes its place.
                Action::Add(value) if matches!(first, First::Remove) => first = First::SetTo(value),
                Action::Add(value) => more.push(value),
                // `Plans::new` gives those to `Worked`.
                Action::Replace(_) => {}
            }
        }
        Self::Fixed { name, first, more }
    }
}

/// Works a header's values through its actions, and edits it if they changed.
fn work<'a>(
    name: &str,
    mut values: Vec<Cow<'a, [u8]>>,
    actions: &'a [Action],
    sink: &mut impl Sink,
) -> Result<(), EditRefused> {
    let mut changed = false;
    for action in actions {
        match action {
            Action::Set(value) => {
                values.clear();
                values.push(Cow::Borrowed(value.as_bytes()));
                changed = true;
            }
            Action::Add(value) => {
                values.push(Cow::Borrowed(value.as_bytes()));
                changed = true;
            }
            Action::Delete => {
                changed |= !values.is_empty();
                values.clear();
            }
            Action::Replace(replacement) => {
                for value in &mut values {
                    if let Some(replaced) = replacement.apply(value) {
                        *value = Cow::Owned(replaced);
                        changed = true;
                    }
                }
            }
        }
    }
    if !changed {
        return Ok(());
    }
    let Some((first, more)) = values.split_first() else {
        return sink.remove(name);
    };
    sink.set(name, first)?;
    more.iter().try_for_each(|value| sink.add(name, value))
}

impl Sink for RequestEdits {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused> {
        self.set_header(name, value)
    }

    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused> {
        self.add_header(name, value)
    }

    fn remove(&mut self, name: &str) -> Result<(), EditRefused> {
        self.remove_header(name)
    }
}

impl Sink for ResponseEdits {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused> {
        self.set_header(name, value)
    }

    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused> {
        self.add_header(name, value)
    }

    fn remove(&mut self, name: &str) -> Result<(), EditRefused> {
        self.remove_header(name)
    }
}

fn valid_value(value: String, at: &str) -> Result<String, ConfigError> {
    if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(ConfigError::new("a header value has no CR, LF or NUL").at(format!("{at}/value")));
    }
    Ok(value)
}

/// A character of a header name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that the contract keeps from plugins: better said when the configuration is read than at every request.
const NOT_FOR_PLUGINS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
