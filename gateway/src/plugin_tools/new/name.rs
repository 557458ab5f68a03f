//! A plugin's name: also that of its crate, of its WIT package and world, and of files.

use anyhow::{Result, ensure};
use wit_parser::Resolve;

/// A name that crates and WIT can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// # Errors
    /// It is none; the text says why.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase())
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        ensure!(
            text.split('-').all(is_word),
            "{text:?} is no name for a plugin: it has words of a-z and 0-9, each with a letter first, with `-` between them, as \
             \"api-key\""
        );
        ensure!(
            text.len() <= MAX_NAME,
            "{text:?} is no name for a plugin: it is longer than {MAX_NAME} characters"
        );
        let is_taken = |what| format!("{text:?} is no name for a plugin: it is {what}");
        let world = format!("package example:{text};\nworld {text} {{}}\n");
        ensure!(
            Resolve::default().push_str("name.wit", &world).is_ok(),
            is_taken("a keyword of WIT")
        );
        ensure!(!KEYWORDS.contains(&text), is_taken("a keyword of Rust"));
        ensure!(!CRATES.contains(&text), is_taken("a crate that plugins use"));
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What its crate's library is called, and its component's file.
    pub(super) fn as_crate(&self) -> String {
        self.0.replace('-', "_")
    }

    /// A template's text with this name in the places of the template's own.
    pub(super) fn put_into(&self, text: &str) -> String {
        text.replace("my-plugin", &self.0)
            .replace("my_plugin", &self.as_crate())
    }
}

/// As long as a DNS label, and a file's name with room for what is put behind it.
const MAX_NAME: usize = 63;

/// Words that no crate can be called by (the Rust reference, "Keywords"), as far as they can be names here.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Crates that a plugin's code means by these names: its own cannot have one of them.
const CRATES: &[&str] = &[
    "alloc",
    "core",
    "gateway-plugin-sdk",
    "proc-macro",
    "serde",
    "std",
    "test",
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_crates_and_wit_can_have() {
        for name in ["a", "geo", "api-key", "x2-y3", "my-plugin", &"a".repeat(63)] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "", "-", "a-", "-a", "a--b", "Geo", "api_key", "2fa", "a-2", "geo.acl", "a/b", "../a", "é", "a b", "--help",
        ] {
            let error = Name::parse(name).unwrap_err().to_string();
            assert!(error.contains("each with a letter first"), "{name}: {error}");
        }
        let error = Name::parse(&"a".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("longer than 63"), "{error}");
    }

    #[test]
    fn words_that_mean_something_else_are_refused() {
        for (name, why) in [
            ("list", "a keyword of WIT"),
            ("world", "a keyword of WIT"),
            ("interface", "a keyword of WIT"),
            ("u8", "a keyword of WIT"),
            ("fn", "a keyword of Rust"),
            ("crate", "a keyword of Rust"),
            ("test", "a crate that plugins use"),
            ("serde", "a crate that plugins use"),
            ("gateway-plugin-sdk", "a crate that plugins use"),
        ] {
            let error = Name::parse(name).unwrap_err().to_string();
            assert!(error.ends_with(why), "{name}: {error}");
        }
    }

    #[test]
    fn a_name_takes_the_place_of_the_templates() {
        let name = Name::parse("api-key").unwrap();
        assert_eq!(
            name.put_into(r#"plugin "my-plugin" "my_plugin.wasm""#),
            r#"plugin "api-key" "api_key.wasm""#
        );
    }
}
