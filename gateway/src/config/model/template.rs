//! Texts with variables: `"https://%{host}%{uri}"`.

use serde::{Serialize, Serializer};

/// A text with variables, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub Vec<TemplatePart>);

/// A part of a text with variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplatePart {
    /// As it is.
    Text(String),
    /// What an attribute of the contract (`types.needs`) has for the exchange, by its name there. Before it `map:NAME:` where it is looked
    /// up in a map, and `url-encode:` before all where it is written as the value of a query's parameter.
    Fact(String),
    /// The frontend's name.
    Frontend,
    /// The name of the backend that the request goes to.
    Backend,
}

impl Template {
    /// A text without variables.
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self(if text.is_empty() {
            Vec::new()
        } else {
            vec![TemplatePart::Text(text)]
        })
    }

    /// The text, when it has no variables.
    pub fn as_plain(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [TemplatePart::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The parts that are texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            TemplatePart::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Bytes of it that do not depend on the exchange, where these are the names of frontend and backend.
    pub fn fixed_length(&self, frontend: &str, backend: &str) -> usize {
        let length = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.len(),
            TemplatePart::Frontend => frontend.len(),
            TemplatePart::Backend => backend.len(),
            TemplatePart::Fact(_) => 0,
        };
        self.0.iter().map(length).sum()
    }

    /// Whether something in it says of itself that it is percent-encoded.
    pub fn has_url_encoded(&self) -> bool {
        let is_encoded = |part: &TemplatePart| matches!(part, TemplatePart::Fact(name) if name.starts_with(URL_ENCODE));
        self.0.iter().any(is_encoded)
    }

    /// Whether it depends on the exchange.
    pub fn has_facts(&self) -> bool {
        self.0.iter().any(|part| matches!(part, TemplatePart::Fact(_)))
    }

    /// The text that it begins with; none when a variable comes first.
    pub fn start(&self) -> Option<&str> {
        match self.0.first() {
            None => Some(""),
            Some(TemplatePart::Text(text)) => Some(text),
            Some(_) => None,
        }
    }

    /// The same with the names of frontend and backend put in, which are settled before any request comes.
    #[must_use]
    pub fn named(&self, frontend: &str, backend: Option<&str>) -> Self {
        let mut parts: Vec<TemplatePart> = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            let text = match part {
                TemplatePart::Text(text) => text.as_str(),
                TemplatePart::Frontend => frontend,
                TemplatePart::Backend => backend.unwrap_or_default(),
                TemplatePart::Fact(_) => {
                    parts.push(part.clone());
                    continue;
                }
            };
            match parts.last_mut() {
                Some(TemplatePart::Text(before)) => before.push_str(text),
                _ => parts.push(TemplatePart::Text(text.to_owned())),
            }
        }
        Self(parts)
    }
}

impl TemplatePart {
    /// The attribute of this name, percent-encoded.
    pub fn url_encoded(attribute: &str) -> Self {
        Self::Fact(format!("{URL_ENCODE}{attribute}"))
    }
}

/// What stands before an attribute that is percent-encoded.
const URL_ENCODE: &str = "url-encode:";

/// As the components read it: a text alone where there are no variables, else its parts.
impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_plain() {
            Some(text) => serializer.serialize_str(text),
            None => self.0.serialize(serializer),
        }
    }
}
