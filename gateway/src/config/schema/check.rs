//! Holding a configuration against a schema: all that is wrong at once, each with its place, what is expected there and what
//! the author says of it.

use miette::SourceSpan;
use serde_json::{Map, Value};

use super::span::{SPAN_HELP, Span};
use super::{Range, Rule, Schema, Setting, Text, Type};
use crate::config::diagnostics::{Code, ConfigError, MAX_ERRORS};
use crate::config::places::Places;
use crate::config::reader::clip;
use crate::config::suggest;

impl Schema {
    /// What is wrong with a configuration, as the component gets it; `places` says where that was written. At most as many
    /// faults as are shown of one text.
    pub fn check(&self, config: &Value, places: &Places) -> Vec<ConfigError> {
        let mut faults = Faults::default();
        match config {
            Value::Object(members) => faults.block(self, "config", members, places),
            // A `config` block is an object, always.
            _ => {
                faults.add(ConfigError::new(Code::Value, "`config` has to be a block").label(places.span(), "not one"))
            }
        }
        faults.0
    }
}

/// What is wrong with the value of one setting.
pub(super) fn value(setting: &Setting, value: &Value, places: &Places) -> Vec<ConfigError> {
    let mut faults = Faults::default();
    faults.setting(setting, value, places);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<ConfigError>);

impl Faults {
    fn add(&mut self, fault: ConfigError) {
        if !self.is_full() {
            self.0.push(fault);
        }
    }

    /// Whether there are more already than anybody will read.
    fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    /// `title` is what the block is called.
    fn block(&mut self, schema: &Schema, title: &str, members: &Map<String, Value>, places: &Places) {
        for (name, value) in members {
            if self.is_full() {
                return;
            }
            let place = places.member(name);
            match schema.settings.iter().find(|setting| setting.name == *name) {
                Some(setting) => self.setting(setting, value, place.unwrap_or(places)),
                None => {
                    let span = place.map_or(places.span(), Places::name);
                    self.add(schema.unknown(title, name, span));
                }
            }
        }
        let is_missing = |name: &str| !members.contains_key(name);
        for setting in schema
            .settings
            .iter()
            .filter(|setting| setting.required && is_missing(&setting.name))
        {
            let message = format!("`{title}` needs `{}`", setting.name);
            let fault = ConfigError::new(Code::Missing, message);
            let fault = fault.label(places.name(), format!("`{}` has to be said", setting.name));
            let how = setting.how_to_write();
            let how = how.unwrap_or_else(|| format!("write `{}`: {}", setting.name, setting.phrase()));
            self.add(fault.maybe_help(setting.help(Some(how))));
        }
        for rule in &schema.rules {
            let names: Vec<&str> = rule.names().iter().map(String::as_str).collect();
            let list = suggest::list(&names).unwrap_or_default();
            // Who says that it is not so, has not said it.
            let mut said = names
                .iter()
                .filter(|name| members.get(**name).is_some_and(|value| *value != Value::Bool(false)));
            match (rule, said.next(), said.next()) {
                (_, None, _) => {
                    let fault = ConfigError::new(Code::Missing, format!("`{title}` needs {list}"));
                    let label = match rule {
                        Rule::ExactlyOne(_) => "one of them has to be said",
                        Rule::AtLeastOne(_) => "one of them has to be said, or several",
                    };
                    let written = names.iter().filter_map(|name| schema.named(name)?.example.as_deref());
                    let written: Vec<&str> = written.collect();
                    let help = match written.is_empty() {
                        true => format!("write {list}"),
                        false => format!("write {}", written.join("; or ")),
                    };
                    self.add(fault.label(places.name(), label).help(help));
                }
                (Rule::ExactlyOne(_), Some(first), Some(second)) => {
                    let at = |name: &str| places.member(name).map_or(places.span(), Places::name);
                    let message = format!("`{title}` takes one of {list}");
                    let fault = ConfigError::new(Code::Conflict, message).label(at(second), "said, too");
                    self.add(fault.label(at(first), "said already").help("one of them has to go"));
                }
                _ => {}
            }
        }
    }

    fn setting(&mut self, setting: &Setting, value: &Value, places: &Places) {
        let Value::Array(values) = value else {
            return self.one(setting, value, places);
        };
        if setting.types == [Type::Any] {
            return;
        }
        let name = &setting.name;
        let place = |index: usize| places.element(index).unwrap_or(places);
        let most = match setting.list {
            None => Some(1),
            Some(list) => list.at_most,
        };
        if let Some(most) = most
            && values.len() > most
        {
            let message = match most {
                1 => format!("`{name}` takes one value"),
                most => format!("`{name}` takes at most {most} values"),
            };
            let fault = ConfigError::new(Code::Duplicate, message).label(place(most).span(), "one too many");
            self.add(fault.maybe_help(setting.help(Some("one of them has to go".to_owned()))));
        }
        for (index, value) in values.iter().enumerate() {
            if self.is_full() {
                return;
            }
            match value {
                Value::Array(_) if setting.list.is_some() => {
                    let fault =
                        ConfigError::new(Code::Value, format!("`{name}` is said both in one node and in several"));
                    let fault = fault.label(place(index).span(), "a list in a list");
                    self.add(fault.help("say all of them in one node, or each in a node of its own"));
                }
                value => self.one(setting, value, place(index)),
            }
        }
    }

    /// A value that is no list.
    fn one(&mut self, setting: &Setting, value: &Value, places: &Places) {
        let fitting = setting.types.iter().find(|kind| kind.takes(value));
        let fault = match (fitting, value) {
            (Some(Type::Block(inside)), Value::Object(members)) => {
                return self.block(inside, &setting.name, members, places);
            }
            (Some(Type::Text(rule)), Value::String(text)) => setting.text(rule, text),
            (Some(kind @ Type::Integer(range)), Value::Number(number)) => match number.as_i64() {
                Some(number) => setting.within(kind, range, &number),
                // Beyond what a bound can be, and so beyond any that there is.
                None => range.to.and_then(|_| setting.within(kind, range, &i64::MAX)),
            },
            (Some(kind @ Type::Number(range)), Value::Number(number)) => {
                setting.within(kind, range, &number.as_f64().unwrap_or(f64::NAN))
            }
            (Some(kind @ Type::Duration(range)), Value::String(text)) => match Span::parse(text) {
                Some(span) => setting.within(kind, range, &span),
                None => Some(setting.fault("is no duration", SPAN_HELP)),
            },
            (Some(_), _) => None,
            (None, _) => Some(setting.of_another_type(value)),
        };
        if let Some(Fault { message, label, help }) = fault {
            let message = format!("`{}` {message}", setting.name);
            let fault = ConfigError::new(Code::Value, message).label(places.span(), label);
            self.add(fault.maybe_help(setting.help(Some(help))));
        }
    }
}

/// What is wrong with a value, without its place.
struct Fault {
    /// Behind the setting's name.
    message: String,
    label: String,
    help: String,
}

impl Schema {
    pub(super) fn named(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    fn unknown(&self, title: &str, name: &str, span: SourceSpan) -> ConfigError {
        let message = match self.is_secret {
            false => format!("`{title}` has no `{}`", clip(name)),
            // What was meant as a value may stand where a name should.
            true => format!("`{title}` has no setting of this name"),
        };
        let fault = ConfigError::new(Code::Unknown, message);
        let fault = fault.label(span, "unknown here");
        let names = || self.settings.iter().map(|setting| setting.name.as_str());
        let help = match suggest::nearest(name, names()).and_then(|name| self.named(name)) {
            Some(setting) => setting.help(Some(format!("did you mean `{}`?", setting.name))),
            None => suggest::list(&names().collect::<Vec<_>>()).map(|list| format!("here can stand {list}")),
        };
        let help = help.or_else(|| Some("nothing can be said here: leave it out".to_owned()));
        fault.maybe_help(help)
    }
}

impl Setting {
    /// How to mend something, and what the author says of the setting.
    fn help(&self, fix: Option<String>) -> Option<String> {
        match (fix, &self.about) {
            (Some(fix), Some(about)) => Some(format!("{fix}\n`{}`: {about}", self.name)),
            (Some(fix), None) => Some(fix),
            (None, about) => about.as_ref().map(|about| format!("`{}`: {about}", self.name)),
        }
    }

    /// How it is written, as far as its author says.
    fn how_to_write(&self) -> Option<String> {
        self.example.as_ref().map(|example| format!("write {example}"))
    }

    fn fault(&self, message: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            label: "not this".to_owned(),
            help: help.into(),
        }
    }

    fn text(&self, rule: &Text, text: &str) -> Option<Fault> {
        let is_meant = |value: &String| value == text || rule.any_case && value.eq_ignore_ascii_case(text);
        if !rule.values.is_empty() && !rule.values.iter().any(is_meant) {
            let values: Vec<&str> = rule.values.iter().map(String::as_str).collect();
            let list = suggest::list(&values).unwrap_or_default();
            let help = suggest::did_you_mean(text, &values, || Some("write one of these words".to_owned()));
            return Some(self.fault(format!("has to be {list}"), help.unwrap_or_default()));
        }
        if let Some(form) = rule.form.filter(|form| !form.is_had_by(text)) {
            return Some(self.fault(format!("has to be {}", form.phrase()), form.help()));
        }
        let bytes = text.len();
        if bytes == 0 && rule.min_bytes.is_some_and(|least| bytes < least) {
            return Some(self.fault(
                "is empty",
                "write something between the quotes, or leave the setting out",
            ));
        }
        if rule.min_bytes.is_some_and(|least| bytes < least) || rule.max_bytes.is_some_and(|most| bytes > most) {
            let wanted = rule.bytes().unwrap_or_default();
            let mut fault = self.fault(format!("has to have {wanted}"), format!("write a text of {wanted}"));
            fault.label = format!("this has {bytes}");
            return Some(fault);
        }
        None
    }

    fn within<T: PartialOrd + std::fmt::Display>(&self, kind: &Type, range: &Range<T>, value: &T) -> Option<Fault> {
        (!range.has(value)).then(|| Fault {
            message: format!("has to be{}", range.phrase()),
            label: "out of range".to_owned(),
            help: format!("write {}", kind.phrase()),
        })
    }

    fn of_another_type(&self, value: &Value) -> Fault {
        let wanted = |is: fn(&Type) -> bool| self.types.iter().any(is);
        let help = match value {
            Value::Number(number) if wanted(|kind| matches!(kind, Type::Duration(_))) => match self.secret {
                false => format!("write it with its unit, as \"{number}s\""),
                true => SPAN_HELP.to_owned(),
            },
            _ if wanted(|kind| matches!(kind, Type::Duration(_))) => SPAN_HELP.to_owned(),
            Value::Number(_) if wanted(|kind| matches!(kind, Type::Text(_))) => "put it in quotes".to_owned(),
            Value::String(text)
                if text.parse::<f64>().is_ok_and(f64::is_finite)
                    && wanted(|kind| matches!(kind, Type::Integer(_) | Type::Number(_))) =>
            {
                "write it without quotes".to_owned()
            }
            Value::Bool(true) if wanted(|kind| matches!(kind, Type::Text(_))) => {
                "write a text behind the name, in quotes".to_owned()
            }
            _ if wanted(|kind| matches!(kind, Type::Block(_))) => {
                "write its settings as properties, or in a block".to_owned()
            }
            _ if wanted(|kind| matches!(kind, Type::Boolean)) => "write its name alone, or #false behind it".to_owned(),
            _ => match self.example {
                Some(_) => self.how_to_write().unwrap_or_default(),
                None => format!("write {}", self.phrase()),
            },
        };
        Fault {
            message: format!("has to be {}", self.phrase()),
            label: format!("this is {}", kind(value)),
            help,
        }
    }
}

impl Type {
    /// Whether values of this kind of JSON are its values, or none at all.
    fn takes(&self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Text(_) | Self::Duration(_) => value.is_string(),
            Self::Integer(_) => value.is_i64() || value.is_u64(),
            Self::Number(_) => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Block(_) => value.is_object(),
        }
    }

    /// Whether there is a kind of JSON that both take.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let text = |kind: &Self| matches!(kind, Self::Text(_) | Self::Duration(_));
        let number = |kind: &Self| matches!(kind, Self::Integer(_) | Self::Number(_));
        let same = std::mem::discriminant(self) == std::mem::discriminant(other);
        let any = matches!(self, Self::Any) || matches!(other, Self::Any);
        same || any || text(self) && text(other) || number(self) && number(other)
    }

    pub(super) fn block(&self) -> Option<&Schema> {
        match self {
            Self::Block(schema) => Some(schema),
            _ => None,
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(true) => "a yes: a name alone, or #true",
        Value::Bool(false) => "#false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a block",
    }
}
