//! Variables of the environment, as a configuration reads and sets them (HAProxy's configuration manual, 2.3).

use std::collections::HashMap;

/// What variables have which value: those of the conversion, and over them what `global` has set so far.
pub(super) struct Environment<'a> {
    outside: &'a dyn Fn(&str) -> Option<String>,
    /// None for one that was taken away.
    own: HashMap<String, Option<String>>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(outside: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            outside,
            own: HashMap::new(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        match self.own.get(name) {
            Some(own) => own.clone(),
            None => (self.outside)(name),
        }
    }

    /// `setenv NAME VALUE`, `presetenv NAME VALUE`, `unsetenv NAME…` of `global`. False when the line is none of that.
    pub(super) fn obey(&mut self, words: &[String]) -> bool {
        match words {
            [keyword, name, value] if keyword == "setenv" || keyword == "presetenv" => {
                if keyword == "setenv" || self.get(name).is_none() {
                    self.own.insert(name.clone(), Some(value.clone()));
                }
                true
            }
            [keyword, names @ ..] if keyword == "unsetenv" => {
                self.own.extend(names.iter().map(|name| (name.clone(), None)));
                true
            }
            _ => false,
        }
    }

    /// What stands for a variable, and the text behind it, where `text` begins behind its `$`. Fails with the reason, of one that is not
    /// set unless `or_nothing` may stand for it, as HAProxy has it.
    pub(super) fn expand<'t>(&self, text: &'t str, or_nothing: bool) -> Result<(String, &'t str), String> {
        let is_braced = text.starts_with('{');
        let inner = text.strip_prefix('{').unwrap_or(text);
        let length = inner
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(inner.len());
        let (name, behind) = inner.split_at(length);
        if name.is_empty() {
            return Err("a `$` between double quotes without the name of a variable".to_owned());
        }
        let (default, rest) = match is_braced {
            false => (None, behind),
            true => {
                let (said, rest) = behind.split_once('}').ok_or("a `${` that is not closed")?;
                match said.strip_prefix('-') {
                    Some(default) => (Some(default), rest),
                    None if said.is_empty() => (None, rest),
                    None => return Err(format!("`${{{name}{said}}}` has no counterpart: write its value")),
                }
            }
        };
        let value = self.get(name).or_else(|| default.map(str::to_owned));
        let value = value.or_else(|| or_nothing.then(String::new));
        let value = value
            .ok_or_else(|| format!("`${name}` is not set here: set it for `gateway convert`, or write its value"))?;
        Ok((value, rest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_looked_up_where_they_were_set_last() {
        let outside = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let mut environment = Environment::new(&outside);
        for line in [
            &["setenv", "PORT", "80"][..],
            &["presetenv", "PORT", "81"],
            &["unsetenv", "HOME"],
        ] {
            let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            assert!(environment.obey(&words), "{line:?}");
        }
        assert!(!environment.obey(&["maxconn".to_owned(), "1".to_owned()]));
        for (text, value, rest) in [
            ("PORT", "80", ""),
            ("{PORT}:x", "80", ":x"),
            ("PORT:x", "80", ":x"),
            ("{NONE-a b}c", "a b", "c"),
        ] {
            assert_eq!(environment.expand(text, false), Ok((value.to_owned(), rest)), "{text}");
        }
        for wrong in ["HOME", "{NONE}", "{PORT", "{PORT[*]}", "", "-"] {
            environment.expand(wrong, false).unwrap_err();
        }
        assert_eq!(environment.expand("{NONE}x", true), Ok((String::new(), "x")));
    }
}
