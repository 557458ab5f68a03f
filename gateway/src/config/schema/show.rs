//! A schema as documentation: what `gateway plugin inspect` prints.

use std::fmt::{self, Display, Write as _};

use super::{Range, Rule, Schema, Setting, Text, Type};
use crate::config::suggest;

impl Schema {
    /// The names of its settings, in its order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().map(|setting| setting.name.as_str())
    }

    /// The settings and what is said of them, each line behind so many spaces.
    pub fn documentation(&self, indent: usize) -> String {
        let mut text = String::new();
        self.write(&mut text, indent);
        text
    }

    fn write(&self, text: &mut String, indent: usize) {
        // Writing to a string does not fail.
        for setting in &self.settings {
            let _ = writeln!(text, "{:indent$}{}: {setting}", "", setting.name);
            if let Some(about) = &setting.about {
                let _ = writeln!(text, "{:indent$}    {about}", "");
            }
            if let Some(example) = &setting.example {
                let _ = writeln!(text, "{:indent$}    as in: {example}", "");
            }
            if let Some(block) = setting.types.iter().find_map(Type::block) {
                block.write(text, indent + 4);
            }
        }
        for rule in &self.rules {
            let _ = writeln!(text, "{:indent$}{rule}", "");
        }
    }
}

impl Setting {
    /// What a value has to be.
    pub(super) fn phrase(&self) -> String {
        let phrases: Vec<String> = self.types.iter().map(Type::phrase).collect();
        phrases.join(", or ")
    }
}

/// What its values are, without its name.
impl Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.phrase())?;
        match &self.list {
            None => {}
            Some(list) => match list.at_most {
                None => f.write_str("; one or several")?,
                Some(most) => write!(f, "; 1 to {most} of them")?,
            },
        }
        if self.required {
            f.write_str("; has to be said")?;
        }
        if self.secret {
            f.write_str("; secret")?;
        }
        match &self.default {
            None => Ok(()),
            Some(serde_json::Value::Bool(is)) => write!(f, "; #{is} unless said"),
            Some(value) => write!(f, "; {value} unless said"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().iter().map(String::as_str).collect();
        let list = suggest::list(&names).unwrap_or_default();
        match self {
            Self::ExactlyOne(_) => write!(f, "One of {list} has to be said, and no more."),
            Self::AtLeastOne(_) => write!(f, "One of {list} has to be said, or several."),
        }
    }
}

impl Type {
    /// What a value has to be.
    pub(super) fn phrase(&self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Text(text) if !text.values.is_empty() => {
                let values: Vec<&str> = text.values.iter().map(String::as_str).collect();
                suggest::list(&values).unwrap_or_default()
            }
            Self::Text(text) => {
                let what = text.form.map_or("a text", super::Form::phrase);
                match text.bytes() {
                    None => what.to_owned(),
                    Some(bytes) => format!("{what} of {bytes}"),
                }
            }
            Self::Integer(range) => format!("a whole number{}", range.phrase()),
            Self::Number(range) => format!("a number{}", range.phrase()),
            Self::Boolean => "#true or #false".to_owned(),
            Self::Duration(range) => format!("a duration{}", range.phrase()),
            Self::Block(_) => "a block".to_owned(),
        }
    }
}

impl Text {
    /// How long it has to be, when that is said.
    pub(super) fn bytes(&self) -> Option<String> {
        match (self.min_bytes, self.max_bytes) {
            (None, None) => None,
            (Some(0), None) => None,
            (Some(1), None) => Some("at least 1 byte".to_owned()),
            (Some(least), None) => Some(format!("at least {least} bytes")),
            (None, Some(most)) => Some(format!("at most {most} bytes")),
            (Some(least), Some(most)) if least == most => Some(format!("{least} bytes")),
            (Some(least), Some(most)) => Some(format!("{least} to {most} bytes")),
        }
    }
}

impl<T: Display + PartialEq> Range<T> {
    /// A part of a sentence that begins with a space; nothing when everything is within it.
    pub(super) fn phrase(&self) -> String {
        match (&self.from, &self.to) {
            (None, None) => String::new(),
            (Some(from), None) => format!(" at least {from}"),
            (None, Some(to)) => format!(" at most {to}"),
            (Some(from), Some(to)) if from == to => format!(" {from}"),
            (Some(from), Some(to)) => format!(" from {from} to {to}"),
        }
    }
}
