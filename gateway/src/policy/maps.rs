//! Maps: from a key that a request brings to a value that a file has. Read once, and looked up without going through all keys,
//! but for patterns, which are all asked in one pass.

mod keys;
mod networks;
mod sorted;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use regex::bytes::RegexSet;

use crate::authority;
use crate::config::{MapFile, MapKind};
use keys::Keys;
use networks::Networks;
use sorted::Sorted;

/// All maps of a configuration, by name.
pub type Maps = HashMap<Arc<str>, Arc<Map>>;

/// A map.
#[derive(Debug)]
pub struct Map {
    name: Arc<str>,
    table: Table,
    /// In the order of the file.
    values: Vec<Box<[u8]>>,
    /// The line of each.
    lines: Vec<usize>,
    /// What is found where nothing else is.
    default: Option<Box<[u8]>>,
    ignores_case: bool,
}

/// Keys; a number is a value's position.
#[derive(Debug)]
enum Table {
    Exact(HashMap<Box<[u8]>, u32>),
    Prefix(Sorted),
    /// With the keys written backwards.
    Suffix(Sorted),
    Domain(HashMap<Box<[u8]>, u32>),
    Subnet(Networks),
    Regex(RegexSet),
}

/// What is wrong with a line of a map's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapError {
    /// From 1; 0 when it is the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl PartialEq for Map {
    /// Of one configuration, whose maps have different names.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Map {}

impl Map {
    /// Of a file's content. Fails with everything that is wrong with it, as far as [`MOST_ERRORS`].
    pub fn read(of: &MapFile, text: &str) -> Result<Self, Vec<MapError>> {
        let mut errors = Vec::new();
        let mut keys = Keys::of(of);
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            if errors.len() >= MOST_ERRORS {
                break;
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fail = |message: String| errors.push(MapError { line: number, message });
            let Some((key, value)) = line.split_once([' ', '\t']) else {
                fail(format!("the key {:?} has no value", clip(line)));
                continue;
            };
            if values.len() == of.max_entries {
                let message = format!("more than {} entries: `max-entries=` allows no more", of.max_entries);
                fail(message);
                break;
            }
            match keys.add(key) {
                Ok(None) => {}
                Ok(Some(first)) => {
                    let first: usize = lines.get(first as usize).copied().unwrap_or_default();
                    fail(format!("the key {:?} stands in line {first} already", clip(key)));
                    continue;
                }
                Err(message) => {
                    fail(message);
                    continue;
                }
            }
            values.push(value.trim().as_bytes().into());
            lines.push(number);
        }
        let table = match errors.is_empty() {
            true => keys.table(of, &lines).map_err(|wrong| errors.extend(wrong)).ok(),
            false => None,
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            name: Arc::clone(&of.name),
            table: table.unwrap_or_else(|| Table::Exact(HashMap::new())),
            values,
            lines,
            default: of.default.as_ref().map(|default| default.as_bytes().into()),
            ignores_case: folds(of),
        })
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What stands for a text, or the default.
    pub fn find(&self, key: &[u8]) -> Option<&[u8]> {
        self.value(self.position(key))
    }

    /// What stands for an address of 4 or 16 bytes, or the default.
    pub fn find_address(&self, address: &[u8]) -> Option<&[u8]> {
        let ip = <[u8; 4]>::try_from(address).map(IpAddr::from);
        let ip = ip.or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from));
        self.value(match (&self.table, ip) {
            (Table::Subnet(networks), Ok(ip)) => networks.find(ip),
            _ => None,
        })
    }

    /// What stands for the first of several texts that something stands for, or the default.
    pub(crate) fn first_of<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) -> Option<&[u8]> {
        self.value(keys.find_map(|key| self.position(key)))
    }

    /// Each value with its line; the default has line 0.
    pub fn values(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let listed = self
            .lines
            .iter()
            .zip(&self.values)
            .map(|(line, value)| (*line, &**value));
        listed.chain(self.default.iter().map(|value| (0, &**value)))
    }

    fn value(&self, position: Option<u32>) -> Option<&[u8]> {
        let listed = position.and_then(|position| self.values.get(position as usize));
        listed.or(self.default.as_ref()).map(|value| &**value)
    }

    fn position(&self, key: &[u8]) -> Option<u32> {
        let folded = match self.ignores_case {
            true => Cow::Owned(key.to_ascii_lowercase()),
            false => Cow::Borrowed(key),
        };
        match &self.table {
            Table::Exact(keys) => keys.get(&*folded).copied(),
            Table::Prefix(keys) => keys.longest_prefix(&folded),
            Table::Suffix(keys) => keys.longest_prefix(&folded.iter().rev().copied().collect::<Vec<_>>()),
            Table::Domain(keys) => domain(keys, authority::host(&folded)),
            Table::Subnet(networks) => networks.find(std::str::from_utf8(key).ok()?.parse().ok()?),
            // Patterns say themselves whether case matters.
            Table::Regex(patterns) => patterns
                .matches(key)
                .iter()
                .next()
                .and_then(|first| u32::try_from(first).ok()),
        }
    }
}

/// The longest of these names that the host is, or is below. A name has 255 bytes at most: what is longer is none.
fn domain(keys: &HashMap<Box<[u8]>, u32>, host: &[u8]) -> Option<u32> {
    if host.len() > MAX_DOMAIN {
        return None;
    }
    let mut rest = host;
    loop {
        if let Some(position) = keys.get(rest) {
            return Some(*position);
        }
        let dot = rest.iter().position(|byte| *byte == b'.')?;
        rest = &rest[dot + 1..];
    }
}

/// Whether case makes no difference.
fn folds(of: &MapFile) -> bool {
    of.ignore_case || of.kind == MapKind::Domain
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Beyond these, the file is another one than was meant.
const MOST_ERRORS: usize = 10;
/// RFC 1035, section 2.3.4.
const MAX_DOMAIN: usize = 255;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(kind: MapKind) -> MapFile {
        MapFile {
            kind,
            ..MapFile::for_tests("m")
        }
    }

    fn found(map: &Map, key: &str) -> Option<String> {
        map.find(key.as_bytes())
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn the_format_is_haproxys() {
        let text = "# hosts\n\n a.example\t app  one \r\n\tb.example   b\n  # no more\n";
        let map = Map::read(&of(MapKind::Exact), text).unwrap();
        assert_eq!(found(&map, "a.example").as_deref(), Some("app  one"));
        assert_eq!(found(&map, "b.example").as_deref(), Some("b"));
        assert_eq!((found(&map, "A.example"), found(&map, "#")), (None, None));
        let file = MapFile {
            ignore_case: true,
            default: Some("rest".to_owned()),
            ..of(MapKind::Exact)
        };
        let map = Map::read(&file, text).unwrap();
        assert_eq!(found(&map, "A.EXAMPLE").as_deref(), Some("app  one"));
        assert_eq!(found(&map, "c").as_deref(), Some("rest"));
        assert_eq!(map.values().map(|(line, _)| line).collect::<Vec<_>>(), [3, 4, 0]);
    }

    #[test]
    fn each_kind_finds_the_longest_that_fits() {
        // How keys are compared, the file, and what is found for what.
        type Case<'a> = (MapKind, &'a str, &'a [(&'a str, Option<&'a str>)]);
        let cases: [Case<'_>; 5] = [
            (
                MapKind::Prefix,
                "/ root\n/api/ api\n/api/v2/ two\n/b b",
                &[
                    ("/api/v2/x", Some("two")),
                    ("/api/v3", Some("api")),
                    ("/apiary", Some("root")),
                    ("/b", Some("b")),
                    ("", None),
                ],
            ),
            (
                MapKind::Suffix,
                ".png image\ncat.png cat",
                &[("a.png", Some("image")), ("/cat.png", Some("cat")), ("png", None)],
            ),
            (
                MapKind::Domain,
                "example.net net\n.Shop.example.net shop",
                &[
                    ("a.shop.example.net", Some("shop")),
                    ("SHOP.example.net:8443", Some("shop")),
                    ("www.example.net", Some("net")),
                    ("notexample.net", None),
                    ("example.net.evil.example", None),
                    ("", None),
                ],
            ),
            (
                MapKind::Subnet,
                "10.0.0.0/8 ten\n10.1.0.0/16 one\n10.1.2.3 host\n2001:db8::/32 six\n0.0.0.0/0 any",
                &[
                    ("10.1.2.3", Some("host")),
                    ("10.1.9.9", Some("one")),
                    ("10.9.9.9", Some("ten")),
                    ("192.0.2.1", Some("any")),
                    ("::ffff:10.1.9.9", Some("one")),
                    ("2001:db8::1", Some("six")),
                    ("2001:db9::1", None),
                    ("nonsense", None),
                ],
            ),
            (
                MapKind::Regex,
                "^/a/[0-9]+$ number\n^/a/ letter",
                &[("/a/12", Some("number")), ("/a/x", Some("letter")), ("/b", None)],
            ),
        ];
        for (kind, text, expected) in cases {
            let map = Map::read(&of(kind), text).unwrap();
            for (key, value) in expected {
                assert_eq!(found(&map, key).as_deref(), *value, "{kind:?} {key}");
            }
        }
        let map = Map::read(&of(MapKind::Subnet), "10.0.0.0/8 ten").unwrap();
        assert_eq!(map.find_address(&[10, 1, 2, 3]), Some(&b"ten"[..]));
        assert_eq!(map.find_address(&[10]), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let errors = |file: &MapFile, text: &str| -> Vec<(usize, String)> {
            let errors = Map::read(file, text).unwrap_err();
            errors.into_iter().map(|error| (error.line, error.message)).collect()
        };
        let exact = of(MapKind::Exact);
        assert_eq!(
            errors(&exact, "a 1\nb\na 2"),
            [
                (2, "the key \"b\" has no value".to_owned()),
                (3, "the key \"a\" stands in line 1 already".to_owned())
            ]
        );
        let few = MapFile {
            max_entries: 1,
            ..exact.clone()
        };
        assert_eq!(errors(&few, "a 1\nb 2\nc 3").len(), 1);
        assert_eq!(errors(&of(MapKind::Subnet), "\n10.0.0.0/33 x")[0].0, 2);
        assert_eq!(errors(&of(MapKind::Regex), "a 1\n( 2")[0].0, 2);
        let many = |line: &str| -> String { (0..1000).map(|n| line.replace('@', &n.to_string())).collect() };
        for (kind, line) in [
            (MapKind::Exact, "key-@\n"),
            (MapKind::Subnet, "key-@ x\n"),
            (MapKind::Regex, "(@ x\n"),
            (MapKind::Domain, "a x\n.A x@\n"),
        ] {
            assert_eq!(errors(&of(kind), &many(line)).len(), MOST_ERRORS, "{kind:?}");
        }
    }

    #[test]
    fn a_key_that_is_written_in_another_way_is_the_same_one() {
        for (kind, text) in [
            (MapKind::Domain, "Example.net a\n.example.NET b"),
            (MapKind::Subnet, "10.0.0.0/8 a\n10.1.2.3/8 b"),
            (MapKind::Subnet, "10.0.0.1 a\n10.0.0.1/32 b"),
            (MapKind::Subnet, "10.0.0.0/8 a\n::ffff:10.0.0.0/104 b"),
            (MapKind::Subnet, "2001:db8::/32 a\n2001:DB8:0::/32 b"),
        ] {
            let errors = Map::read(&of(kind), text).unwrap_err();
            assert_eq!((errors.len(), errors[0].line), (1, 2), "{text}");
            assert!(errors[0].message.ends_with("stands in line 1 already"), "{errors:?}");
        }
    }

    #[test]
    fn networks_of_ipv4_match_however_they_are_written() {
        let text = "::ffff:10.0.0.0/104 ten\n::ffff:10.1.2.3 host\n::/0 six\n10.1.0.0/16 one";
        let map = Map::read(&of(MapKind::Subnet), text).unwrap();
        for (address, expected) in [
            ("10.9.9.9", Some("ten")),
            ("::ffff:10.9.9.9", Some("ten")),
            ("10.1.2.3", Some("host")),
            ("10.1.2.4", Some("one")),
            ("2001:db8::1", Some("six")),
            ("192.0.2.1", None),
        ] {
            assert_eq!(found(&map, address).as_deref(), expected, "{address}");
        }
    }
}
