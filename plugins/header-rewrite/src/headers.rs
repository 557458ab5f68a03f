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
pub(crate) struct Plans<Need> {
    plans: Vec<Plan<Need>>,
    room: Room,
}

/// The edits of one header.
#[derive(Debug)]
struct Plan<Need> {
    name: String,
    /// What the edits come to if no replacement finds anything.
    fixed: Fixed,
    /// All of them, where a replacement has to see what is there.
    worked: Option<(Need, Vec<Action>)>,
}

/// An outcome that does not depend on what is there.
#[derive(Debug)]
struct Fixed {
    first: First,
    more: Vec<String>,
}

/// How many edits, of how many bytes, the host still takes in a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    edits: usize,
    bytes: usize,
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
    pub(crate) fn new(steps: Vec<Step>, at: &str, mut need: impl FnMut(&str) -> Need) -> Result<Self, ConfigError> {
        let mut by_header: Vec<(String, Vec<Action>)> = Vec::new();
        for step in steps {
            match by_header.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, actions)) => actions.push(step.action),
                None => by_header.push((step.name, vec![step.action])),
            }
        }
        let mut room = Room::CALL;
        let mut plans = Vec::new();
        for (name, actions) in by_header {
            let fixed = Fixed::new(&actions);
            if !fixed.lengths().all(|length| room.take(1, name.len() + length)) {
                let message = "more or longer edits than the gateway takes in one call";
                return Err(ConfigError::new(message).at(at));
            }
            let replaces = actions.iter().any(|action| matches!(action, Action::Replace(_)));
            let worked = replaces.then(|| (need(&name), actions));
            plans.push(Plan { name, fixed, worked });
        }
        Ok(Self { plans, room })
    }

    /// What the constant edits leave of a call's room: how much replacements take of it is the client's choice.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Makes the edits; `values` gives a header's present values. A header whose replaced values find no room is edited
    /// as if there had been nothing to replace: no client can make a call fail.
    pub(crate) fn apply<'a, V>(
        &self,
        sink: &mut impl Sink,
        mut room: Room,
        values: impl Fn(Need) -> V,
    ) -> Result<(), EditRefused>
    where
        V: Iterator<Item = &'a [u8]>,
    {
        for Plan { name, fixed, worked } in &self.plans {
            let worked = worked.as_ref().and_then(|(need, actions)| {
                let values = work(values(*need).map(Cow::Borrowed).collect(), actions)?;
                let bytes: usize = values.iter().map(|value| value.len()).sum();
                // Where nothing is left, there is still the removal.
                let edits = values.len().max(1);
                room.take(edits, bytes + edits * name.len()).then_some(values)
            });
            match worked {
                Some(values) => put(name, &values, sink)?,
                None => fixed.apply(name, sink)?,
            }
        }
        Ok(())
    }
}

impl Fixed {
    fn new(actions: &[Action]) -> Self {
        let mut first = First::Keep;
        let mut more = Vec::new();
        for action in actions {
            match action {
                Action::Set(value) => {
                    first = First::SetTo(value.clone());
                    more.clear();
                }
                Action::Delete => {
                    first = First::Remove;
                    more.clear();
                }
                // The first value after a removal takes its place.
                Action::Add(value) if matches!(first, First::Remove) => first = First::SetTo(value.clone()),
                Action::Add(value) => more.push(value.clone()),
                Action::Replace(_) => {}
            }
        }
        Self { first, more }
    }

    /// The length of each edit's value.
    fn lengths(&self) -> impl Iterator<Item = usize> {
        let first = match &self.first {
            First::Keep => None,
            First::Remove => Some(0),
            First::SetTo(value) => Some(value.len()),
        };
        first.into_iter().chain(self.more.iter().map(String::len))
    }

    fn apply(&self, name: &str, sink: &mut impl Sink) -> Result<(), EditRefused> {
        match &self.first {
            First::Keep => {}
            First::Remove => sink.remove(name)?,
            First::SetTo(value) => sink.set(name, value.as_bytes())?,
        }
        self.more.iter().try_for_each(|value| sink.add(name, value.as_bytes()))
    }
}

impl Room {
    /// That of a whole call: the host's bounds.
    const CALL: Self = Self {
        edits: 128,
        bytes: 16 * 1024,
    };

    /// Takes room, if there is as much.
    pub(crate) fn take(&mut self, edits: usize, bytes: usize) -> bool {
        if edits > self.edits || bytes > self.bytes {
            return false;
        }
        self.edits -= edits;
        self.bytes -= bytes;
        true
    }
}

/// Works a header's values through its actions: what is there afterwards, or none if the replacements changed nothing.
fn work<'a>(mut values: Vec<Cow<'a, [u8]>>, actions: &'a [Action]) -> Option<Vec<Cow<'a, [u8]>>> {
    let mut replaced = false;
    for action in actions {
        match action {
            Action::Set(value) => {
                values.clear();
                values.push(Cow::Borrowed(value.as_bytes()));
            }
            Action::Add(value) => values.push(Cow::Borrowed(value.as_bytes())),
            Action::Delete => values.clear(),
            Action::Replace(replacement) => {
                for value in &mut values {
                    // A value that could not be sent is not taken: the old one stays.
                    if let Some(new) = replacement.apply(value).filter(|new| is_value(new)) {
                        *value = Cow::Owned(new);
                        replaced = true;
                    }
                }
            }
        }
    }
    replaced.then_some(values)
}

/// Replaces a header's values.
fn put(name: &str, values: &[Cow<'_, [u8]>], sink: &mut impl Sink) -> Result<(), EditRefused> {
    let Some((first, more)) = values.split_first() else {
        return sink.remove(name);
    };
    // White space around a value is no part of it: a replacement may leave some, and HTTP/2 lets it come in.
    sink.set(name, first.trim_ascii())?;
    more.iter().try_for_each(|value| sink.add(name, value.trim_ascii()))
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
    if !is_value(value.as_bytes()) || value.trim_ascii() != value {
        let message = "a header value has no control characters, and no white space around it";
        return Err(ConfigError::new(message).at(format!("{at}/value")));
    }
    Ok(value)
}

/// Whether it can be a header's value (RFC 9110, section 5.5), white space around it aside.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}

/// A character of a header name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that the contract keeps from plugins: better said when the configuration is read than at every request.
const NOT_FOR_PLUGINS: [&str; 14] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
