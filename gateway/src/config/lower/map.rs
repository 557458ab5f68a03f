//! `map "hosts" file="hosts.map" match="domain"`: what stands for what, in a file.

use std::ops::RangeInclusive;

use super::names::Names;
use super::or_none;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{MapFile, MapKind};
use crate::config::reader::{Asked, Context, Node};

/// Reads the maps, and makes their names known.
pub(super) fn maps(ctx: &Context<'_>, nodes: Vec<Node<'_>>) -> (Names<Option<MapKind>>, Vec<Option<MapFile>>) {
    let mut names = Names::new("map");
    let maps = nodes.into_iter().map(|node| map(ctx, &mut names, node)).collect();
    (names, maps)
}

fn map(ctx: &Context<'_>, names: &mut Names<Option<MapKind>>, mut node: Node<'_>) -> Option<MapFile> {
    let (origin, span) = (node.origin(), node.span());
    let name = node.argument("the map's name").and_then(|value| {
        let text = value.name()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match text.chars().all(is_plain) {
            true => Some(value.at(text)),
            false => value.fail(
                "a map's name stands in variables",
                "has something else than letters, digits and - _ .",
                "write it as map \"hosts\", for %{host|map:hosts}",
            ),
        }
    });
    let file = node.required_property("file");
    let kind = node.property("match").map(|value| value.choice(KINDS));
    let kind = or_none(kind).map(|kind| kind.unwrap_or(MapKind::Exact));
    let default = node.property("default").map(|value| value.text().map(str::to_owned));
    let ignore_case = node.flag("ignore-case");
    let entries = node.property("max-entries").map(|value| value.integer(ENTRIES));
    let size = node.property("max-size").map(|value| value.size(SIZES));
    if let (Some(flag), Some(MapKind::Domain | MapKind::Subnet)) = (ignore_case, kind) {
        let error = ConfigError::new(Code::Inert, "`ignore-case` does nothing here");
        let error = error.label(flag, "names of domains and addresses have no case");
        node.fail(error.help("leave it out"));
    }
    node.finish();
    match name {
        Some(name) => names.add(ctx, name, kind),
        None => names.skip(span, kind),
    }
    let file = file?;
    let number = |read: Option<u64>, default: usize| read.map_or(Some(default), |read| usize::try_from(read).ok());
    Some(MapFile {
        name: name?.value.into(),
        path: file.at(ctx.path(file.text()?)),
        kind: kind?,
        ignore_case: ignore_case.is_some(),
        default: or_none(default)?,
        max_entries: number(or_none(entries)?, DEFAULT_ENTRIES)?,
        max_size: number(or_none(size)?, DEFAULT_SIZE)?,
        origin,
    })
}

/// Holds what variables have asked of maps against the maps that there are.
pub(super) fn settle(ctx: &Context<'_>, names: &Names<Option<MapKind>>, asked: &[Asked]) {
    for asked in asked {
        let Some(position) = names.find(ctx, &asked.map, asked.span) else {
            continue;
        };
        let Some((kind, declared)) = names.get(position) else {
            continue;
        };
        if asked.is_address && kind.is_some_and(|kind| kind != MapKind::Subnet) {
            let error = ConfigError::new(Code::Conflict, "an address is looked up among networks");
            let error = error
                .label(asked.span, "an address")
                .label(declared, "has other keys than networks");
            ctx.report(error.help("write match=\"subnet\" with the map, and addresses or networks into its file"));
        }
    }
    names.report_unused(ctx, "no variable has `|map:` with it");
}

const KINDS: &[(&str, MapKind)] = &[
    ("exact", MapKind::Exact),
    ("prefix", MapKind::Prefix),
    ("suffix", MapKind::Suffix),
    ("domain", MapKind::Domain),
    ("subnet", MapKind::Subnet),
    ("regex", MapKind::Regex),
];

/// A domain of a large hoster each; some 20 MiB of memory.
const DEFAULT_ENTRIES: usize = 100_000;
const ENTRIES: RangeInclusive<u64> = 1..=10_000_000;
/// So many lines of 160 bytes.
const DEFAULT_SIZE: usize = 16 << 20;
const SIZES: RangeInclusive<u64> = 1..=(1 << 30);
