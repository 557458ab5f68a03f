//! Tags: short texts that go with an exchange from where a component sets them to its end.

/// The tags of an exchange, in the order in which they were first set. Few: looked through, not looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(Vec<(Box<str>, Box<[u8]>)>);

impl Tags {
    /// The value of a tag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All of them: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets others beside these, as far as there is room. Answers the first that found none.
    pub(crate) fn extend(&mut self, others: Self) -> Option<Box<str>> {
        let mut left_out = None;
        for (name, value) in others.0 {
            // Each was checked when the call set it: all that can be wrong is that it is one too many with those of others.
            if self.set(&name, &value).is_err() {
                left_out.get_or_insert(name);
            }
        }
        left_out
    }

    /// All of them: name and value.
    #[must_use]
    pub fn as_slice(&self) -> &[(Box<str>, Box<[u8]>)] {
        &self.0
    }

    /// Sets a tag. The error says why not.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        if !is_name(name) {
            let shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_debug).collect();
            return Err(format!(
                "`{shown}` is not a tag's name: at most {MAX_NAME} letters, digits, `-`, `_` and `.`"
            ));
        }
        if value.len() > MAX_VALUE {
            return Err(format!("a tag's value has at most {MAX_VALUE} bytes"));
        }
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| **known == *name) {
            *known = value.into();
            return Ok(());
        }
        if self.0.len() >= MAX_TAGS {
            return Err(format!("an exchange has at most {MAX_TAGS} tags"));
        }
        self.0.push((name.into(), value.into()));
        Ok(())
    }
}

/// Whether a tag may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
}

/// Tags of one exchange; the contract says these bounds. They are held for every exchange under way, and stand in its log line.
const MAX_TAGS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_few_and_short_and_the_last_word_counts() {
        let mut tags = Tags::default();
        for i in 0..MAX_TAGS {
            tags.set(&format!("t{i}"), b"x").unwrap();
        }
        tags.set("one-too-many", b"x").unwrap_err();
        tags.set("t0", b"y").unwrap();
        assert_eq!(tags.get("t0"), Some(&b"y"[..]));
        assert_eq!(tags.iter().count(), MAX_TAGS);
        for name in ["", "a b", "a\n", "a=b", "\u{e4}", &"x".repeat(65)] {
            tags.set(name, b"").unwrap_err();
        }
        let mut others = Tags::default();
        for name in ["t1", "one-too-many", "two-too-many"] {
            others.set(name, b"z").unwrap();
        }
        assert_eq!(tags.extend(others).as_deref(), Some("one-too-many"));
        assert_eq!((tags.get("t1"), tags.iter().count()), (Some(&b"z"[..]), MAX_TAGS));
        tags.set("t1", &[0; 257]).unwrap_err();
        tags.set("t1", &[0xff; 256]).unwrap();
    }
}
