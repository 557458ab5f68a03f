//! Tags: short texts that go with an exchange from where a component sets them to its end.
//!
//! Those of a tenant's plugins stand under its name, as `acme/user`: they neither replace nor crowd out anybody else's, whatever
//! they are called. Its own plugins ask for them without that.

/// The tags of an exchange, in the order in which they were first set. Few: looked through, not looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(Vec<(Box<str>, Box<[u8]>)>);

impl Tags {
    /// The value of a tag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The value of a tag as a plugin sees it: of a tenant's own, else of the operator's.
    pub(crate) fn seen_by(&self, tenant: Option<&str>, name: &str) -> Option<&[u8]> {
        let Some(tenant) = tenant else { return self.get(name) };
        let own = self.iter().find(|(known, _)| own_name(known, tenant) == Some(name));
        own.map(|(_, value)| value)
            .or_else(|| (!name.contains(BETWEEN)).then(|| self.get(name)).flatten())
    }

    /// All of them: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets others beside these, as far as there is room: those of a plugin of this tenant's, or of the operator's. Answers how many
    /// found none, and the first of them.
    pub(crate) fn extend(&mut self, others: Self, tenant: Option<&str>) -> Option<(u64, Box<str>)> {
        let mut left_out: Option<(u64, Box<str>)> = None;
        for (name, value) in others.0 {
            // Each was checked when the call set it: all that can be wrong is that it is one too many with those of others.
            let set = match tenant {
                None => self.put(&name, &value, |known| !known.contains(BETWEEN), u64::MAX),
                Some(tenant) => {
                    let full = [tenant, "/", &*name].concat();
                    self.put(&full, &value, |known| own_name(known, tenant).is_some(), TENANTS_BYTES)
                }
            };
            if set.is_err() {
                left_out.get_or_insert((0, name)).0 += 1;
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
        self.put(name, value, |_| true, u64::MAX)
            .map_err(|NoRoom| format!("an exchange has at most {MAX_TAGS} tags"))
    }

    /// Sets a tag, in place of the one of this name, if those that count with it have room for that, in number and bytes.
    fn put(&mut self, name: &str, value: &[u8], counts: impl Fn(&str) -> bool, bytes: u64) -> Result<(), NoRoom> {
        let others = || self.iter().filter(|(known, _)| *known != name && counts(known));
        let sizes = others().map(|(name, value)| (name.len() + value.len()) as u64);
        let size = (name.len() + value.len()) as u64;
        if others().count() >= MAX_TAGS || sizes.sum::<u64>() + size > bytes {
            return Err(NoRoom);
        }
        match self.0.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
        Ok(())
    }
}

/// There are as many as there may be.
struct NoRoom;

/// What a tenant calls one of its tags that is called so in all; none when it is not its.
fn own_name<'a>(known: &'a str, tenant: &str) -> Option<&'a str> {
    known.strip_prefix(tenant)?.strip_prefix(BETWEEN)
}

/// Whether a tag may be asked for by this name: a plugin's own, or a tenant's with its name in front.
pub(crate) fn may_be_asked(name: &str) -> bool {
    let (tenant, name) = name.rsplit_once(BETWEEN).unwrap_or(("-", name));
    !tenant.is_empty() && is_name(name)
}

/// Whether a tag may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(allowed)
}

/// Between a tenant's name and that of a tag of its: no name that a plugin gives has it.
const BETWEEN: char = '/';

/// Tags of one exchange, of the operator's plugins and of a tenant's each; the contract says these bounds. They are held for every
/// exchange under way, and stand in its log line.
const MAX_TAGS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 256;

/// Bytes of a tenant's tags in one exchange, with all names: they stand in a line that no `quota log=` bounds, which is to be of
/// the size that lines have.
const TENANTS_BYTES: u64 = 1024;

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
        assert_eq!(tags.extend(others, None), Some((2, "one-too-many".into())));
        assert_eq!((tags.get("t1"), tags.iter().count()), (Some(&b"z"[..]), MAX_TAGS));
        tags.set("t1", &[0; 257]).unwrap_err();
        tags.set("t1", &[0xff; 256]).unwrap();
    }

    #[test]
    fn a_tenants_tags_replace_nobody_elses_and_take_no_room_of_others() {
        let set = |names: &[&str], value: &[u8]| {
            let mut tags = Tags::default();
            names.iter().for_each(|name| tags.set(name, value).unwrap());
            tags
        };
        let mut tags = set(&["user", "role"], b"operator");
        let many: Vec<String> = (0..15).map(|i| format!("t{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["user"]).collect();
        assert_eq!(tags.extend(set(&many, b"acme"), Some("acme")), None);
        assert_eq!(tags.extend(set(&["user"], b"rival"), Some("rival")), None);
        let seen = |tenant, name| tags.seen_by(tenant, name).map(<[u8]>::to_vec);
        for (tenant, name, value) in [
            (None, "user", Some("operator")),
            (None, "acme/user", Some("acme")),
            (None, "t0", None),
            (Some("acme"), "user", Some("acme")),
            (Some("acme"), "role", Some("operator")),
            (Some("acme"), "rival/user", None),
            (Some("acme"), "acme/user", None),
            (Some("rival"), "user", Some("rival")),
            (Some("acm"), "e/user", None),
        ] {
            assert_eq!(seen(tenant, name), value.map(Into::into), "{tenant:?} {name}");
        }
        // The operator's are not fewer for them, nor are the tenant's long.
        assert_eq!(tags.extend(set(&many[..14], b"operator"), None), None);
        let left_out = tags.extend(set(&["t0", "t1", "t2", "t3", "t4"], &[b'x'; 256]), Some("acme"));
        assert_eq!(left_out, Some((2, "t3".into())));
        let bytes = tags.iter().filter(|(name, _)| name.starts_with("acme/"));
        assert!(bytes.map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 1024);
    }

    #[test]
    fn tags_are_asked_for_by_their_own_names_or_with_their_tenants() {
        for name in ["user", "acme/user", "a b/user"] {
            assert!(may_be_asked(name), "{name}");
        }
        for name in ["", "/user", "acme/", "acme/us er"] {
            assert!(!may_be_asked(name), "{name}");
        }
    }
}
