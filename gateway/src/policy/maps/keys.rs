//! The keys of a map's file while it is being read, and what they are looked up in afterwards.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::networks::Networks;
use super::sorted::Sorted;
use super::{MOST_ERRORS, MapError, Table, clip, folds};
use crate::config::{MapFile, MapKind};

/// The keys of a file that is being read: each has the number of its entry, and none is there twice.
pub(super) enum Keys<'a> {
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
    pub(super) fn of(file: &MapFile) -> Self {
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
    pub(super) fn add(&mut self, key: &'a str) -> Result<Option<u32>, String> {
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
    pub(super) fn table(self, of: &MapFile, lines: &[usize]) -> Result<Table, Vec<MapError>> {
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

/// Bits in front of an IPv4 address in an IPv6 one (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;
/// Bytes of all patterns of a map, compiled.
const REGEX_SIZE: usize = 16 << 20;
