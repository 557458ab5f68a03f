//! What the edits of each header come to.

use std::borrow::Cow;

use gateway_plugin_sdk::needs::{List, Need};
use gateway_plugin_sdk::{ConfigError, EditRefused, RequestEdits, ResponseEdits, fields};
use gateway_plugin_template::{Facts, NoFacts, Place, Text};

use crate::config::{HeaderName, HeaderReplace, HeaderValue, LocationChange, Replace};
use crate::location;
use crate::replacement::{Kind, Replacement};
use crate::value::text;

/// One configured edit of a header.
#[derive(Debug)]
pub(crate) struct Step<Need> {
    name: String,
    /// It is made when this fact is there.
    condition: Option<Need>,
    action: Action<Need>,
}

#[derive(Debug)]
enum Action<Need> {
    Set(Text<Need>),
    Add(Text<Need>),
    Delete,
    Replace(Replacement<Need>),
    Move(LocationChange),
}

/// The edits of all headers; `Need` is the key to a fact.
#[derive(Debug)]
pub(crate) struct Plans<Need> {
    plans: Vec<Plan<Need>>,
    room: Room,
}

/// The edits of one header.
#[derive(Debug)]
struct Plan<Need> {
    name: String,
    edits: Edits<Need>,
}

#[derive(Debug)]
enum Edits<Need> {
    /// They come to the same for every message.
    Fixed(Outcome<'static>),
    /// They depend on conditions, on facts, or on the present values.
    Worked {
        /// Where a replacement has to see the present values.
        present: Option<Need>,
        steps: Vec<Step<Need>>,
        /// Of a call's room, what they take when no fact is written.
        reserved: Cost,
    },
}

/// What becomes of a header without looking at the values that are there.
#[derive(Debug)]
struct Outcome<'a> {
    first: First<'a>,
    more: Vec<Cow<'a, [u8]>>,
}

/// How many edits, of how many bytes, the host still takes in a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    edits: usize,
    bytes: usize,
}

/// How many edits, of how many bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    edits: usize,
    bytes: usize,
}

/// What becomes of the values that are there.
#[derive(Debug)]
enum First<'a> {
    Keep,
    Remove,
    SetTo(Cow<'a, [u8]>),
}

/// Where edits go.
pub(crate) trait Sink {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused>;
    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), EditRefused>;
    fn remove(&mut self, name: &str) -> Result<(), EditRefused>;
}

impl<Phase> Step<Need<Phase>> {
    pub(crate) fn set(header: HeaderValue, at: &str, needs: &mut List<Phase>) -> Result<Self, ConfigError> {
        let at = format!("{at}/set-header");
        let value = valid_value(text(header.value, needs), &at)?;
        Self::new(header.name, Action::Set(value), &at)
    }

    pub(crate) fn add(header: HeaderValue, at: &str, needs: &mut List<Phase>) -> Result<Self, ConfigError> {
        let at = format!("{at}/add-header");
        let value = valid_value(text(header.value, needs), &at)?;
        Self::new(header.name, Action::Add(value), &at)
    }

    pub(crate) fn delete(header: HeaderName, at: &str) -> Result<Self, ConfigError> {
        Self::new(header.name, Action::Delete, &format!("{at}/delete-header"))
    }

    pub(crate) fn replace(header: HeaderReplace, at: &str, needs: &mut List<Phase>) -> Result<Self, ConfigError> {
        let at = format!("{at}/replace-header");
        let replace = Replace {
            prefix: header.prefix,
            regex: header.regex,
            to: header.to,
        };
        let replacement = Replacement::compile(replace, Kind::Header, &at, needs)?;
        Self::new(header.name, Action::Replace(replacement), &at)
    }

    pub(crate) fn location(replace: Replace, at: &str, needs: &mut List<Phase>) -> Result<Self, ConfigError> {
        let at = format!("{at}/rewrite-location");
        let replacement = Replacement::compile(replace, Kind::Header, &at, needs)?;
        Self::new("location".to_owned(), Action::Replace(replacement), &at)
    }

    pub(crate) fn move_location(change: LocationChange, at: &str) -> Result<Self, ConfigError> {
        let parts = [&change.scheme, &change.host];
        if !parts.into_iter().flatten().all(|part| is_value(part.as_bytes())) {
            return Err(ConfigError::new("neither scheme nor host has control characters").at(at));
        }
        Self::new(
            "location".to_owned(),
            Action::Move(change),
            &format!("{at}/move-location"),
        )
    }

    fn new(mut name: String, action: Action<Need<Phase>>, at: &str) -> Result<Self, ConfigError> {
        name.make_ascii_lowercase();
        // Better said when the configuration is read than at every request.
        fields::check_name(&name).map_err(|refused| ConfigError::from(refused).at(format!("{at}/name")))?;
        Ok(Self {
            name,
            condition: None,
            action,
        })
    }
}

impl<Need: Copy> Step<Need> {
    /// The same, made when this fact is there.
    pub(crate) fn when(self, condition: Option<Need>) -> Self {
        Self { condition, ..self }
    }

    fn looks(&self) -> bool {
        matches!(self.action, Action::Replace(_) | Action::Move(_))
    }

    /// Whether it does the same whatever comes.
    fn is_fixed(&self) -> bool {
        let is_plain = match &self.action {
            Action::Set(value) | Action::Add(value) => value.as_plain().is_some(),
            Action::Delete => true,
            Action::Replace(_) | Action::Move(_) => false,
        };
        is_plain && self.condition.is_none()
    }
}

impl<Need: Copy> Plans<Need> {
    /// Sorts the steps by header, in the order in which headers are first named.
    pub(crate) fn new(
        steps: Vec<Step<Need>>,
        at: &str,
        mut need: impl FnMut(&str) -> Need,
    ) -> Result<Self, ConfigError> {
        let mut by_header: Vec<(String, Vec<Step<Need>>)> = Vec::new();
        for step in steps {
            match by_header.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, steps)) => steps.push(step),
                None => by_header.push((step.name.clone(), vec![step])),
            }
        }
        let mut room = Room::CALL;
        let mut plans = Vec::new();
        for (name, steps) in by_header {
            let (cost, edits) = if steps.iter().all(Step::is_fixed) {
                let outcome = fold(steps.iter(), &NoFacts).into_owned();
                (outcome.cost(&name), Edits::Fixed(outcome))
            } else {
                let reserved = reserve(&steps, &name);
                let present = steps.iter().any(Step::looks).then(|| need(&name));
                let edits = Edits::Worked {
                    present,
                    steps,
                    reserved,
                };
                (reserved, edits)
            };
            if !room.take(cost.edits, cost.bytes) {
                let message = "more or longer edits than the gateway takes in one call";
                return Err(ConfigError::new(message).at(at));
            }
            plans.push(Plan { name, edits });
        }
        Ok(Self { plans, room })
    }

    /// What the constant edits leave of a call's room: how much the others take of it is the client's choice.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Makes the edits. A header whose values find no room is edited as if there had been nothing to replace and no facts:
    /// no client can make a call fail.
    pub(crate) fn apply(
        &self,
        sink: &mut impl Sink,
        mut room: Room,
        facts: &impl Facts<Need>,
    ) -> Result<(), EditRefused> {
        for Plan { name, edits } in &self.plans {
            match edits {
                Edits::Fixed(outcome) => outcome.apply(name, sink)?,
                Edits::Worked {
                    present,
                    steps,
                    reserved,
                } => {
                    let made = || {
                        let holds = |step: &&Step<Need>| step.condition.is_none_or(|need| facts.get(need).is_some());
                        steps.iter().filter(holds)
                    };
                    let mut fits = |cost: Cost| {
                        let edits = cost.edits.saturating_sub(reserved.edits);
                        room.take(edits, cost.bytes.saturating_sub(reserved.bytes))
                    };
                    let values = present.and_then(|need| work(need, made(), facts));
                    if let Some(values) = values.filter(|values| fits(cost(values, name))) {
                        put(name, &values, sink)?;
                        continue;
                    }
                    let outcome = fold(made(), facts);
                    if fits(outcome.cost(name)) {
                        outcome.apply(name, sink)?;
                    } else {
                        fold(made(), &NoFacts).apply(name, sink)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What steps come to that replace nothing.
fn fold<'a, Need: Copy + 'a>(steps: impl Iterator<Item = &'a Step<Need>>, facts: &impl Facts<Need>) -> Outcome<'a> {
    let mut first = First::Keep;
    let mut more = Vec::new();
    for step in steps {
        match &step.action {
            Action::Set(value) => {
                first = First::SetTo(written(value, facts));
                more.clear();
            }
            Action::Delete => {
                first = First::Remove;
                more.clear();
            }
            // The first value after a removal takes its place.
            Action::Add(value) if matches!(first, First::Remove) => first = First::SetTo(written(value, facts)),
            Action::Add(value) => more.push(written(value, facts)),
            Action::Replace(_) | Action::Move(_) => {}
        }
    }
    Outcome { first, more }
}

/// The most that steps come to when no fact is written.
fn reserve<Need: Copy>(steps: &[Step<Need>], name: &str) -> Cost {
    let mut most = Cost {
        edits: 1,
        bytes: name.len(),
    };
    for step in steps {
        if let Action::Set(value) | Action::Add(value) = &step.action {
            most.edits += 1;
            most.bytes += name.len() + value.fixed_length();
        }
    }
    most
}

/// Works a header's values through its steps: what is there afterwards, or none if the replacements changed nothing.
fn work<'a, Need: Copy + 'a>(
    present: Need,
    steps: impl Iterator<Item = &'a Step<Need>>,
    facts: &'a impl Facts<Need>,
) -> Option<Vec<Cow<'a, [u8]>>> {
    let mut values: Vec<Cow<'a, [u8]>> = facts.all(present).map(Cow::Borrowed).collect();
    let mut replaced = false;
    for step in steps {
        match &step.action {
            Action::Set(value) => {
                values.clear();
                values.push(written(value, facts));
            }
            Action::Add(value) => values.push(written(value, facts)),
            Action::Delete => values.clear(),
            Action::Replace(replacement) => {
                for value in &mut values {
                    // A value that could not be sent is not taken: the old one stays.
                    if let Some(new) = replacement
                        .apply(value, facts, Place::Header)
                        .filter(|new| is_value(new))
                    {
                        *value = Cow::Owned(new);
                        replaced = true;
                    }
                }
            }
            Action::Move(change) => {
                for value in &mut values {
                    if let Some(new) = location::moved(value, change) {
                        *value = Cow::Owned(new);
                        replaced = true;
                    }
                }
            }
        }
    }
    replaced.then_some(values)
}

/// A value as it is sent: white space around it is no part of it, and a fact may bring some.
fn written<'a, Need: Copy>(value: &'a Text<Need>, facts: &impl Facts<Need>) -> Cow<'a, [u8]> {
    if let Some(text) = value.as_plain() {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut text = Vec::new();
    value.write(facts, Place::Header, &mut text);
    Cow::Owned(text.trim_ascii().to_vec())
}

fn cost(values: &[Cow<'_, [u8]>], name: &str) -> Cost {
    // Where nothing is left, there is still the removal.
    let edits = values.len().max(1);
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    Cost {
        edits,
        bytes: bytes + edits * name.len(),
    }
}

impl Outcome<'_> {
    fn cost(&self, name: &str) -> Cost {
        let first = match &self.first {
            First::Keep => None,
            First::Remove => Some(0),
            First::SetTo(value) => Some(value.len()),
        };
        let mut cost = Cost::default();
        for length in first.into_iter().chain(self.more.iter().map(|value| value.len())) {
            cost.edits += 1;
            cost.bytes += name.len() + length;
        }
        cost
    }

    fn into_owned(self) -> Outcome<'static> {
        let owned = |value: Cow<'_, [u8]>| Cow::Owned(value.into_owned());
        Outcome {
            first: match self.first {
                First::Keep => First::Keep,
                First::Remove => First::Remove,
                First::SetTo(value) => First::SetTo(owned(value)),
            },
            more: self.more.into_iter().map(owned).collect(),
        }
    }

    fn apply(&self, name: &str, sink: &mut impl Sink) -> Result<(), EditRefused> {
        match &self.first {
            First::Keep => {}
            First::Remove => sink.remove(name)?,
            First::SetTo(value) => sink.set(name, value)?,
        }
        self.more.iter().try_for_each(|value| sink.add(name, value))
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

fn valid_value<Need: Copy>(value: Text<Need>, at: &str) -> Result<Text<Need>, ConfigError> {
    let is_valid = match value.as_plain() {
        Some(text) => is_value(text.as_bytes()) && text.trim_ascii() == text,
        None => value.texts().all(|text| is_value(text.as_bytes())),
    };
    if !is_valid {
        let message = "a header value has no control characters, and no white space around it";
        return Err(ConfigError::new(message).at(format!("{at}/value")));
    }
    Ok(value)
}

/// Whether it can be a header's value (RFC 9110, section 5.5), white space around it aside.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}
