//! Forms of texts that a schema can ask for by name. There are no patterns: nothing that a stranger writes decides how long a
//! look at a text takes.

use serde::Serialize;

use crate::config::token::is_token;

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum Form {
    /// The name of a field, a cookie or a method (RFC 9110, section 5.6.2).
    Token,
    /// A path of a URL.
    Path,
    /// Hexadecimal digits.
    Hex,
    /// Printable ASCII.
    Printable,
}

impl Form {
    /// All of them, by the names that they have in a schema.
    pub(in crate::config) const ALL: &[(&str, Self)] = &[
        ("token", Self::Token),
        ("path", Self::Path),
        ("hex", Self::Hex),
        ("printable", Self::Printable),
    ];

    /// Whether a text has it.
    pub(in crate::config) fn is_had_by(self, text: &str) -> bool {
        let mut bytes = text.bytes();
        match self {
            Self::Token => is_token(text),
            Self::Path => text.starts_with('/') && bytes.all(|byte| matches!(byte, b'!'..=b'~')),
            Self::Hex => !text.is_empty() && bytes.all(|byte| byte.is_ascii_hexdigit()),
            Self::Printable => bytes.all(|byte| matches!(byte, b' '..=b'~')),
        }
    }

    /// What such a text is, behind "has to be".
    pub(in crate::config) fn phrase(self) -> &'static str {
        match self {
            Self::Token => "a name as fields and cookies have",
            Self::Path => "a path that begins with `/`",
            Self::Hex => "a text of hexadecimal digits",
            Self::Printable => "a text of printable ASCII",
        }
    }

    /// What may be in it.
    pub(in crate::config) fn help(self) -> &'static str {
        match self {
            Self::Token => "such a name has letters, digits and !#$%&'*+-.^_`|~, and no spaces",
            Self::Path => "a path begins with `/` and has printable ASCII, without spaces",
            Self::Hex => "hexadecimal digits are 0 to 9 and a to f",
            Self::Printable => "write letters, digits, spaces and signs that ASCII has",
        }
    }
}
