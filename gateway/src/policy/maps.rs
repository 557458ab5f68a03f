//! Maps: from a key that a request brings to a value that a file has. Read once, and looked up without going through all keys,
//! but for patterns, which are all asked in one pass.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::authority;
use crate::config::{MapFile, MapKind};

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

/// The keys of a file that is being read: each has the number of its entry, and none is there twice.
enum Keys<'a> {
    Texts {
        kind: MapKind,
        folds: bool,
        /// In their order.
        listed: Vec<Cow<'a, str>>,
        known: HashMap<Cow<'a, str>, u32>,
    },
    Networks(Networks, u32),
}

impl<'a> Keys<'a> {
    fn of(file: &MapFile) -> Self {
        match file.kind {
            MapKind::Subnet => Self::Networks(Networks::default(), 0),
            kind => Self::Texts {
                kind,
                folds: folds(file) && kind != MapKind::Regex,
                listed: Vec::new(),
                known: HashMap::new(),
            },
        }
    }

    /// Adds a key. Answers with the entry that has the same one, in whatever way it is written there. The error is a message.
    fn add(&mut self, key: &'a str) -> Result<Option<u32>, String> {
        match self {
            Self::Texts {
                kind,
                folds,
                listed,
                known,
            } => {
                // `.example.net` and `example.net` mean the same in HAProxy's files.
                let bare = match kind {
                    MapKind::Domain => key.strip_prefix('.').unwrap_or(key),
                    _ => key,
                };
                let key = match folds {
                    true => Cow::Owned(bare.to_ascii_lowercase()),
                    false => Cow::Borrowed(bare),
                };
                if let Some(first) = known.get(&key) {
                    return Ok(Some(*first));
                }
                let position = u32::try_from(listed.len()).unwrap_or(u32::MAX);
                known.insert(key.clone(), position);
                listed.push(key);
                Ok(None)
            }
            Self::Networks(networks, count) => {
                let network =
                    network(key).ok_or_else(|| format!("{:?} is neither an address nor a network", clip(key)))?;
                let first = networks.add(network, *count);
                *count += u32::from(first.is_none());
                Ok(first)
            }
        }
    }

    /// What keys are looked up in. `lines` has the line of each.
    fn table(self, of: &MapFile, lines: &[usize]) -> Result<Table, Vec<MapError>> {
        let (listed, known) = match self {
            Self::Texts { listed, known, .. } => (listed, known),
            Self::Networks(mut networks, _) => {
                networks.settle();
                return Ok(Table::Subnet(networks));
            }
        };
        let hashed = |known: HashMap<Cow<'_, str>, u32>| {
            let owned = |(key, position): (Cow<'_, str>, u32)| (key.as_bytes().into(), position);
            known.into_iter().map(owned).collect()
        };
        let numbered = || listed.iter().map(|key| key.as_bytes()).zip(0u32..);
        Ok(match of.kind {
            MapKind::Exact | MapKind::Subnet => Table::Exact(hashed(known)),
            MapKind::Domain => Table::Domain(hashed(known)),
            MapKind::Prefix => Table::Prefix(Sorted::new(numbered().map(|(key, n)| (key.to_vec(), n)).collect())),
            MapKind::Suffix => {
                let backwards = |(key, n): (&[u8], u32)| (key.iter().rev().copied().collect(), n);
                Table::Suffix(Sorted::new(numbered().map(backwards).collect()))
            }
            MapKind::Regex => Table::Regex(patterns(of, &listed, lines)?),
        })
    }
}

/// Whether case makes no difference.
fn folds(of: &MapFile) -> bool {
    of.ignore_case || of.kind == MapKind::Domain
}

/// An address or a network. One of IPv4 that is written as IPv6 maps it is one of IPv4: so are addresses when they are looked up.
fn network(key: &str) -> Option<IpNet> {
    let network = key.parse().or_else(|_| key.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let IpNet::V6(mapped) = network else {
        return Some(network);
    };
    let plain = mapped
        .addr()
        .to_ipv4_mapped()
        .zip(mapped.prefix_len().checked_sub(MAPPED));
    Some(match plain {
        Some((address, length)) => IpNet::new(address.into(), length).ok()?,
        None => network,
    })
}

/// All patterns together, or which of them cannot be used.
fn patterns(of: &MapFile, listed: &[Cow<'_, str>], lines: &[usize]) -> Result<RegexSet, Vec<MapError>> {
    let build = |patterns: &[Cow<'_, str>]| {
        RegexSetBuilder::new(patterns)
            .unicode(false)
            .case_insensitive(of.ignore_case)
            .size_limit(REGEX_SIZE)
            .build()
    };
    if let Ok(set) = build(listed) {
        return Ok(set);
    }
    let wrong = listed.iter().zip(lines).filter_map(|(key, line)| {
        let text = build(std::slice::from_ref(key)).err()?.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Some(MapError {
            line: *line,
            message: format!("not a regular expression: {why}"),
        })
    });
    let wrong: Vec<_> = wrong.take(MOST_ERRORS).collect();
    if wrong.is_empty() {
        let message = format!("its patterns take more than {} MiB together", REGEX_SIZE >> 20);
        return Err(vec![MapError { line: 0, message }]);
    }
    Err(wrong)
}

/// Keys in order, each with the longest other one that it begins with.
#[derive(Debug)]
struct Sorted {
    keys: Vec<(Vec<u8>, u32)>,
    parents: Vec<Option<usize>>,
}

impl Sorted {
    fn new(mut keys: Vec<(Vec<u8>, u32)>) -> Self {
        keys.sort();
        let mut parents = Vec::with_capacity(keys.len());
        // Those that the key before begins with, the longest last.
        let mut open: Vec<usize> = Vec::new();
        for (position, (key, _)) in keys.iter().enumerate() {
            while open.last().is_some_and(|last| !key.starts_with(&keys[*last].0)) {
                open.pop();
            }
            parents.push(open.last().copied());
            open.push(position);
        }
        Self { keys, parents }
    }

    /// The longest key that a text begins with. It stands before the text in the order, and whatever stands between them
    /// begins with it.
    fn longest_prefix(&self, text: &[u8]) -> Option<u32> {
        let behind = self.keys.partition_point(|(key, _)| key.as_slice() <= text);
        let mut at = behind.checked_sub(1);
        while let Some(position) = at {
            let (key, value) = &self.keys[position];
            if text.starts_with(key) {
                return Some(*value);
            }
            at = self.parents[position];
        }
        None
    }
}

/// Networks by the length of their prefix, the longest first: at most 33 lengths of IPv4 and 129 of IPv6.
#[derive(Debug, Default)]
struct Networks {
    v4: Vec<(u8, HashMap<u32, u32>)>,
    v6: Vec<(u8, HashMap<u128, u32>)>,
}

impl Networks {
    /// Adds a network, unless it is there already: then the answer is its position.
    fn add(&mut self, network: IpNet, position: u32) -> Option<u32> {
        fn of<K>(lists: &mut Vec<(u8, HashMap<K, u32>)>, length: u8) -> &mut HashMap<K, u32> {
            let at = lists.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
                lists.push((length, HashMap::new()));
                lists.len() - 1
            });
            &mut lists[at].1
        }
        match network.trunc() {
            IpNet::V4(net) => put(of(&mut self.v4, net.prefix_len()), net.network().to_bits(), position),
            IpNet::V6(net) => put(of(&mut self.v6, net.prefix_len()), net.network().to_bits(), position),
        }
    }

    fn settle(&mut self) {
        self.v4.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        self.v6.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    }

    fn find(&self, ip: IpAddr) -> Option<u32> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.iter().find_map(|(length, keys)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                keys.get(&(ip.to_bits() & mask)).copied()
            }),
            IpAddr::V6(ip) => self.v6.iter().find_map(|(length, keys)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                keys.get(&(ip.to_bits() & mask)).copied()
            }),
        }
    }
}

/// Where a key stands already, which it does after this.
fn put<K: Eq + std::hash::Hash>(known: &mut HashMap<K, u32>, key: K, position: u32) -> Option<u32> {
    match known.entry(key) {
        Entry::Occupied(first) => Some(*first.get()),
        Entry::Vacant(free) => {
            free.insert(position);
            None
        }
    }
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Beyond these, the file is another one than was meant.
const MOST_ERRORS: usize = 10;
/// RFC 1035, section 2.3.4.
const MAX_DOMAIN: usize = 255;
/// Bits in front of an IPv4 address in an IPv6 one (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;
/// Bytes of all patterns of a map, compiled.
const REGEX_SIZE: usize = 16 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_longest_prefix_is_that_of_looking_at_all(
            keys in proptest::collection::hash_set("[ab]{0,5}", 0..20), text in "[ab]{0,8}",
        ) {
            let keys: Vec<String> = keys.into_iter().collect();
            let sorted = Sorted::new(keys.iter().zip(0u32..).map(|(key, n)| (key.clone().into_bytes(), n)).collect());
            let naive = keys.iter().zip(0u32..).filter(|(key, _)| text.starts_with(key.as_str()));
            let naive = naive.max_by_key(|(key, _)| key.len()).map(|(_, n)| n);
            prop_assert_eq!(sorted.longest_prefix(text.as_bytes()), naive);
        }
    }
}
