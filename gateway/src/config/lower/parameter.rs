//! `?from=%{uri}`: what stands in a text as the value of a query's parameter. A client's path or query there is percent-encoded, so that
//! what it has in it becomes no further parameters.

use crate::config::model::{Template, TemplatePart};

/// Where in a URI a text has come to, as it is read from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the query.
    Path,
    /// In a query, at the beginning of a parameter or in its name: what a query brings along here are parameters.
    Name,
    /// Behind a parameter's `=`.
    Value,
    /// Behind the query.
    Fragment,
}

impl Place {
    /// Where it has come to behind this text.
    pub(super) fn behind(self, text: &str) -> Self {
        text.bytes().fold(self, |place, byte| match (place, byte) {
            (Self::Fragment, _) | (_, b'#') => Self::Fragment,
            (Self::Path, b'?') | (Self::Value, b'&') => Self::Name,
            (Self::Name, b'=') => Self::Value,
            (place, _) => place,
        })
    }

    /// Percent-encodes what a client's request stands for as the value of a parameter. Where the text has come to then.
    pub(super) fn encode(mut self, template: &mut Template) -> Self {
        for part in &mut template.0 {
            match part {
                TemplatePart::Text(text) => self = self.behind(text),
                TemplatePart::Fact(name) if self == Self::Value && is_clients_uri(name) => {
                    *part = TemplatePart::url_encoded(name);
                }
                TemplatePart::Fact(_) | TemplatePart::Frontend | TemplatePart::Backend => {}
            }
        }
        self
    }

    /// The first variable of the text that would have to be.
    pub(super) fn first_bare(mut self, template: &Template) -> Option<&str> {
        template.0.iter().find_map(|part| match part {
            TemplatePart::Text(text) => {
                self = self.behind(text);
                None
            }
            TemplatePart::Fact(name) if self == Self::Value && is_clients_uri(name) => Some(name.as_str()),
            TemplatePart::Fact(_) | TemplatePart::Frontend | TemplatePart::Backend => None,
        })
    }
}

/// Parts of a URI as the client sent it, which are written into a URI as they are. All else is percent-encoded anyway, or the operator's.
fn is_clients_uri(attribute: &str) -> bool {
    matches!(attribute, "path" | "query" | "uri" | "host" | "authority")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_begins_behind_its_equals_sign_and_ends_with_the_next_parameter() {
        for (text, expected) in [
            ("/a=b&c", Place::Path),
            ("/a?", Place::Name),
            ("/a?b", Place::Name),
            ("/a?b=", Place::Value),
            ("/a?b=c=d?", Place::Value),
            ("/a?b=c&", Place::Name),
            ("/a?b=c&d=", Place::Value),
            ("/a?b=c#d?e=", Place::Fragment),
            ("https://a.example/?b=https://", Place::Value),
        ] {
            assert_eq!(Place::Path.behind(text), expected, "{text}");
        }
    }

    #[test]
    fn of_a_value_what_the_client_divides_is_encoded_and_nothing_else() {
        let fact = |name: &str| TemplatePart::Fact(name.to_owned());
        let text = |text: &str| TemplatePart::Text(text.to_owned());
        let mut template = Template(vec![
            fact("path"),
            text("?"),
            fact("query"),
            text("&a="),
            fact("uri"),
            fact("map:m:uri"),
            fact("header:x"),
            text("&"),
            fact("query"),
            text("#b="),
            fact("uri"),
        ]);
        assert_eq!(Place::Path.first_bare(&template), Some("uri"));
        assert_eq!(Place::Path.encode(&mut template), Place::Fragment);
        assert_eq!(Place::Path.first_bare(&template), None);
        let changed: Vec<_> = template
            .0
            .iter()
            .filter(|part| matches!(part, TemplatePart::Fact(name) if name.starts_with("url")))
            .collect();
        assert_eq!(changed, [&fact("url-encode:uri")]);
    }
}
