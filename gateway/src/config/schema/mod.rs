//! What a plugin's configuration may say, as its component says it: the schema in `config.schema.kdl`, read, held against
//! a `config { … }` block, and shown as documentation.
//!
//! A schema describes the JSON that the component gets, not the KDL that it was written as: whoever writes `client name="ada"`
//! and whoever writes `client { name "ada" }` have said the same, to the component and so here. It comes from a stranger: its
//! length, its nesting and the number of its settings are bounded, and holding a configuration against it takes time in
//! proportion to the configuration.

mod check;
mod read;
mod show;
mod span;
mod text;

use serde::Serialize;
use serde_json::Value;

use super::diagnostics::ConfigErrors;
pub(super) use span::Span;
pub(super) use text::Form;

/// Settings that may stand together: a whole configuration, or a block in one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Schema {
    settings: Vec<Setting>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Rule>,
    /// It is of a block whose values are not shown: nor are names that it does not have.
    #[serde(skip)]
    is_secret: bool,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Setting {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
    /// What a value may be. No two take the same JSON.
    types: Vec<Type>,
    /// Several values may be said; none when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<List>,
    required: bool,
    /// Its values are not shown. So it is for all settings within a secret one.
    secret: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
}

/// How many values there may be: one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<usize>,
}

/// A kind of value, and which of that kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Type {
    /// Whatever can be said.
    Any,
    /// A text.
    Text(Text),
    /// A whole number.
    Integer(Range<i64>),
    /// A number.
    Number(Range<f64>),
    /// Yes or no. A name without a value is a yes.
    Boolean,
    /// A length of time.
    Duration(Range<Span>),
    /// Properties or a block.
    Block(Schema),
}

/// Which texts. Of `values` and what is said of a text's form and length, one is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    /// These alone; any when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
    /// In whatever case.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    any_case: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
}

/// From where to where, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
struct Range<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<T>,
}

/// Which of some settings have to be said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// One of them and no other.
    ExactlyOne(Vec<String>),
    /// One or several of them.
    AtLeastOne(Vec<String>),
}

impl Schema {
    /// Reads a schema. `name` is what messages call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        read::schema(text).map_err(|errors| ConfigErrors::new(name, text, errors))
    }
}

impl<T: PartialOrd> Range<T> {
    fn has(&self, value: &T) -> bool {
        self.from.as_ref().is_none_or(|from| from <= value) && self.to.as_ref().is_none_or(|to| value <= to)
    }
}

impl Rule {
    fn names(&self) -> &[String] {
        match self {
            Self::ExactlyOne(names) | Self::AtLeastOne(names) => names,
        }
    }
}

/// Bytes of a schema: twenty times the longest of those that ship with the gateway.
pub const MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
