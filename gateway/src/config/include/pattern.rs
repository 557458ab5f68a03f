//! The pattern of an `include`: which files of a folder it means.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::hidden::is_hidden;

/// The files of a folder whose names a pattern means, in their order; those that begin with a dot it does not.
pub(super) fn matching(folder: &Path, pattern: &str) -> std::io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for (position, entry) in folder.read_dir()?.enumerate() {
        if position >= MAX_ENTRIES {
            return Err(std::io::Error::other(format!(
                "more than {MAX_ENTRIES} files are in it"
            )));
        }
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") || !means(pattern.as_bytes(), bytes) {
            continue;
        }
        // It will stand in messages and log lines.
        if name.to_str().is_none_or(|name| name.chars().any(is_hidden)) {
            return Err(std::io::Error::other(format!("the name {name:?} cannot be printed")));
        }
        names.insert(name);
    }
    Ok(names)
}

/// Whether a name is what a pattern says, in which `*` stands for anything. Takes no longer than their lengths multiplied.
pub(super) fn means(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far the name was taken for it.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What is looked at in a folder in search of files.
const MAX_ENTRIES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("*.kdl", "a.kdl"),
            ("*", "a"),
            ("a*b*c", "abbc"),
            ("a*", "a"),
            ("**a", "ba"),
        ] {
            assert!(means(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.kdl", "a.kdl~"),
            ("a*b", "ac"),
            ("", "a"),
            ("a", "ab"),
            ("*ab", "aab c"),
        ] {
            assert!(!means(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
