//! Edits of a request's path and query, in order.

use std::borrow::Cow;

use gateway_plugin_sdk::needs::{List, OnRequest, RequestNeed};
use gateway_plugin_sdk::{ConfigError, RequestEdits};
use gateway_plugin_template::{Facts, Place, Text};

use crate::config::{Part, QueryParam, Replace, Template};
use crate::headers::Room;
use crate::replacement::{Kind, Replacement};
use crate::value::text;

/// The edits of the target.
#[derive(Debug, Default)]
pub(crate) struct Target {
    path: Option<RequestNeed>,
    query: Option<RequestNeed>,
    steps: Vec<Step>,
}

/// One configured edit.
#[derive(Debug)]
pub(crate) struct Step {
    /// It is made when this fact is there.
    condition: Option<RequestNeed>,
    action: Action,
}

#[derive(Debug)]
enum Action {
    SetPath(Text<RequestNeed>),
    RewritePath(Replacement<RequestNeed>),
    AddPrefix(Text<RequestNeed>),
    StripPrefix(String),
    SetQuery(Text<RequestNeed>),
    RewriteQuery(Replacement<RequestNeed>),
    /// Encoded names; a value that is none removes.
    Parameter(Vec<u8>, Option<Text<RequestNeed>>),
}

impl Step {
    pub(crate) fn set_path(path: Template, at: &str, needs: &mut List<OnRequest>) -> Result<Self, ConfigError> {
        let path = value(path, Kind::Path, &format!("{at}/set-path"), needs)?;
        Ok(Self::new(Action::SetPath(path)))
    }

    pub(crate) fn rewrite_path(replace: Replace, at: &str, needs: &mut List<OnRequest>) -> Result<Self, ConfigError> {
        let replacement = Replacement::compile(replace, Kind::Path, at, needs)?;
        Ok(Self::new(Action::RewritePath(replacement)))
    }

    pub(crate) fn add_prefix(prefix: Template, at: &str, needs: &mut List<OnRequest>) -> Result<Self, ConfigError> {
        let prefix = value(prefix, Kind::Path, &format!("{at}/add-prefix"), needs)?;
        Ok(Self::new(Action::AddPrefix(prefix)))
    }

    pub(crate) fn strip_prefix(prefix: String) -> Self {
        Self::new(Action::StripPrefix(prefix))
    }

    pub(crate) fn set_query(query: Template, at: &str, needs: &mut List<OnRequest>) -> Result<Self, ConfigError> {
        let query = value(query, Kind::Query, &format!("{at}/set-query"), needs)?;
        Ok(Self::new(Action::SetQuery(query)))
    }

    pub(crate) fn rewrite_query(replace: Replace, at: &str, needs: &mut List<OnRequest>) -> Result<Self, ConfigError> {
        let replacement = Replacement::compile(replace, Kind::Query, at, needs)?;
        Ok(Self::new(Action::RewriteQuery(replacement)))
    }

    pub(crate) fn set_param(parameter: QueryParam, needs: &mut List<OnRequest>) -> Self {
        let value = text(parameter.value, needs);
        Self::new(Action::Parameter(parameter.name.into_bytes(), Some(value)))
    }

    pub(crate) fn delete_param(name: String) -> Self {
        Self::new(Action::Parameter(name.into_bytes(), None))
    }

    /// The same, made when this fact is there.
    pub(crate) fn when(self, condition: Option<RequestNeed>) -> Self {
        Self { condition, ..self }
    }

    fn new(action: Action) -> Self {
        Self {
            condition: None,
            action,
        }
    }
}

impl Target {
    /// Of these steps, in order. Asks for what they have to see.
    pub(crate) fn new(steps: Vec<Step>, needs: &mut List<OnRequest>) -> Self {
        let sees_path = |step: &Step| {
            matches!(
                step.action,
                Action::RewritePath(_) | Action::AddPrefix(_) | Action::StripPrefix(_)
            )
        };
        let sees_query = |step: &Step| matches!(step.action, Action::RewriteQuery(_) | Action::Parameter(..));
        Self {
            path: steps.iter().any(sees_path).then(|| needs.path()),
            query: steps.iter().any(sees_query).then(|| needs.query()),
            steps,
        }
    }

    /// Makes the edits. False when the target became longer than the host takes.
    pub(crate) fn apply(&self, facts: &impl Facts<RequestNeed>, edits: &mut RequestEdits, room: &mut Room) -> bool {
        if self.steps.is_empty() {
            return true;
        }
        let mut path = Cow::Borrowed(self.path.and_then(|need| facts.get(need)).unwrap_or_default());
        let mut query = Cow::Borrowed(self.query.and_then(|need| facts.get(need)).unwrap_or_default());
        let (mut new_path, mut new_query) = (false, false);
        let holds = |step: &&Step| step.condition.is_none_or(|need| facts.get(need).is_some());
        for step in self.steps.iter().filter(holds) {
            match &step.action {
                Action::SetPath(value) => {
                    path = Cow::Owned(rooted(written(value, facts, Place::Path)));
                    new_path = true;
                }
                Action::RewritePath(replacement) => {
                    if let Some(new) = replacement.apply(&path, facts, Place::Path) {
                        path = Cow::Owned(rooted(new));
                        new_path = true;
                    }
                }
                Action::AddPrefix(prefix) => {
                    let mut new = written(prefix, facts, Place::Path);
                    new.extend_from_slice(&path);
                    path = Cow::Owned(rooted(new));
                    new_path = true;
                }
                Action::StripPrefix(prefix) => {
                    // Whole segments: `/api` is no prefix of `/apiary`.
                    let rest = path.strip_prefix(prefix.as_bytes());
                    if let Some(rest) = rest.filter(|rest| matches!(rest.first(), None | Some(b'/'))) {
                        path = Cow::Owned(rooted(rest.to_vec()));
                        new_path = true;
                    }
                }
                Action::SetQuery(value) => {
                    query = Cow::Owned(written(value, facts, Place::Query));
                    new_query = true;
                }
                Action::RewriteQuery(replacement) => {
                    if let Some(new) = replacement.apply(&query, facts, Place::Query) {
                        query = Cow::Owned(new);
                        new_query = true;
                    }
                }
                Action::Parameter(name, value) => {
                    let value = value.as_ref().map(|value| written(value, facts, Place::Parameter));
                    if let Some(new) = parameter(&query, name, value.as_deref()) {
                        query = Cow::Owned(new);
                        new_query = true;
                    }
                }
            }
        }
        if new_path {
            if !room.take(1, path.len()) {
                return false;
            }
            // What comes of a client's path need not be one, as half of a character: then the old one stays.
            let _ = edits.set_path(path);
        }
        if new_query {
            if !room.take(1, query.len()) {
                return false;
            }
            let _ = edits.set_query((!query.is_empty()).then_some(&*query));
        }
        true
    }
}

fn value(
    template: Template,
    kind: Kind,
    at: &str,
    needs: &mut List<OnRequest>,
) -> Result<Text<RequestNeed>, ConfigError> {
    for part in &template.0 {
        if let Part::Text(text) = part {
            kind.admit(text).map_err(|message| ConfigError::new(message).at(at))?;
        }
    }
    Ok(text(template, needs))
}

fn written(value: &Text<RequestNeed>, facts: &impl Facts<RequestNeed>, place: Place) -> Vec<u8> {
    let mut text = Vec::new();
    value.write(facts, place, &mut text);
    text
}

/// A prefix taken away may have taken the slash along: `/api` without `/api` is `/`.
fn rooted(mut path: Vec<u8>) -> Vec<u8> {
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    path
}

/// A query with this value of a parameter, or without the parameter; none when that changes nothing.
fn parameter(query: &[u8], name: &[u8], value: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(query.len() + name.len() + value.map_or(0, <[u8]>::len) + 2);
    let mut left = value;
    let mut changed = false;
    let push = |out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>| {
        if !out.is_empty() {
            out.push(b'&');
        }
        out.extend_from_slice(key);
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    };
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let key = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        if !is_encoded(key, name) {
            push(&mut out, pair, None);
            continue;
        }
        changed = true;
        // The first takes the value, any further one goes.
        if let Some(value) = left.take() {
            push(&mut out, key, Some(value));
        }
    }
    if let Some(value) = left {
        changed = true;
        let mut key = Vec::new();
        Place::Parameter.write(name, &mut key);
        push(&mut out, &key, Some(value));
    }
    changed.then_some(out)
}

/// Whether a text stands for this name when it is percent-decoded.
fn is_encoded(text: &[u8], name: &[u8]) -> bool {
    let mut rest = text;
    let mut decoded = std::iter::from_fn(|| {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'%'
            && let [high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        Some(byte)
    });
    name.iter().all(|byte| decoded.next() == Some(*byte)) && decoded.next().is_none()
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
