//! Maps: what stands for what, in a file.

use std::path::PathBuf;
use std::sync::Arc;

use super::{At, Origin};

/// `map "hosts" file="hosts.map" match="domain" default="app"`.
#[derive(Debug, Clone)]
pub struct MapFile {
    /// Its name, unique among maps.
    pub name: Arc<str>,
    /// The file, which is read when the configuration is loaded.
    pub path: At<PathBuf>,
    /// How its keys are compared.
    pub kind: MapKind,
    /// `ignore-case`: capital letters are as small ones.
    pub ignore_case: bool,
    /// `default=`: what is found where nothing is.
    pub default: Option<String>,
    /// `max-entries=`: lines with a key.
    pub max_entries: usize,
    /// `max-size=`: bytes of the file.
    pub max_size: usize,
    /// Where it stands.
    pub origin: Origin,
}

/// How the keys of a map are compared with what is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// It is the key.
    Exact,
    /// It begins with the key; the longest one.
    Prefix,
    /// It ends with the key; the longest one.
    Suffix,
    /// It is the key, or below it as a domain; the longest one.
    Domain,
    /// It is in the network; the smallest one.
    Subnet,
    /// The key, a regular expression, matches; the first one.
    Regex,
}

#[cfg(test)]
impl MapFile {
    /// A map without options.
    pub fn for_tests(name: &str) -> Self {
        let span = miette::SourceSpan::from(0);
        let (file, value) = (Arc::from("test"), PathBuf::from("test.map"));
        Self {
            name: name.into(),
            path: At { value, span },
            kind: MapKind::Exact,
            ignore_case: false,
            default: None,
            max_entries: 1000,
            max_size: 1 << 20,
            origin: Origin { file, line: 1, span },
        }
    }
}
