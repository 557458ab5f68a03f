//! `compress "br" "zstd" "gzip" { … }`.

use std::ops::RangeInclusive;

use super::acl::distinct;
use super::elsewhere;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Coding, Compress, Levels, MediaType};
use crate::config::reader::{Node, Value, clip};

/// Reads the node, which is not `"off"`.
pub(super) fn compress(node: &mut Node<'_>) -> Option<Compress> {
    let offload = node.flag("offload").is_some();
    let codings = distinct(node.some_arguments("a content coding"), |value| value.choice(CODINGS));
    let mut read = Compress {
        codings: codings.clone().unwrap_or_default(),
        types: Vec::new(),
        min_size: DEFAULT_MIN_SIZE,
        levels: DEFAULT_LEVELS,
        offload,
        max_streams: DEFAULT_MAX_STREAMS,
    };
    let mut well = codings.is_some_and(|codings| !codings.is_empty());
    if let Some(mut block) = node.block() {
        if let Some(mut types) = block.one("types") {
            match distinct(types.some_arguments("a media type"), media_type) {
                Some(list) => read.types = list,
                None => well = false,
            }
            types.finish();
        }
        if let Some(mut min_size) = block.one("min-size") {
            match min_size.argument("a size").and_then(|value| value.size(MIN_SIZE)) {
                Some(size) => read.min_size = size,
                None => well = false,
            }
            min_size.finish();
        }
        if let Some(mut max) = block.one("max-streams") {
            let value = max.argument("a number of responses");
            let number = value.and_then(|value| value.integer(MAX_STREAMS));
            match number.and_then(|number| usize::try_from(number).ok()) {
                Some(number) => read.max_streams = number,
                None => well = false,
            }
            max.finish();
        }
        if let Some(level) = block.one("level") {
            well &= levels(level, &mut read);
        }
        block.finish(elsewhere);
    }
    if read.types.is_empty() {
        read.types = default_types();
    }
    well.then_some(read)
}

/// `level br=4 zstd=3 gzip=6`. False when a fault was found.
fn levels(mut node: Node<'_>, read: &mut Compress) -> bool {
    node.require_entries();
    let mut well = true;
    for (key, coding, range) in LEVELS {
        let Some(value) = node.property(key) else { continue };
        if !read.codings.is_empty() && !read.codings.contains(coding) {
            let error = ConfigError::new(Code::Inert, format!("`{key}=` does nothing: `{key}` is not used"));
            node.fail(
                error
                    .label(value.span(), "not among the codings of this `compress`")
                    .help("name it there, or leave this out"),
            );
        }
        match value.integer(range.clone()).and_then(|level| u8::try_from(level).ok()) {
            Some(level) => match coding {
                Coding::Brotli => read.levels.brotli = level,
                Coding::Zstd => read.levels.zstd = level,
                Coding::Gzip => read.levels.gzip = level,
            },
            None => well = false,
        }
    }
    node.finish();
    well
}

/// `text/*`, `application/json` or `*+json`.
fn media_type(value: &Value<'_>) -> Option<MediaType> {
    let text = value.text()?.to_ascii_lowercase();
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    if let Some(suffix) = text.strip_prefix("*+").filter(|suffix| is_token(suffix)) {
        return Some(MediaType::Suffix(format!("+{suffix}")));
    }
    match text.split_once('/') {
        Some((kind, "*")) if is_token(kind) => Some(MediaType::Below(format!("{kind}/"))),
        Some((kind, sub)) if is_token(kind) && is_token(sub) => Some(MediaType::Exact(text)),
        _ => value.fail(
            format!("{:?} is not a media type", clip(&text)),
            "neither a type nor a pattern",
            "write \"application/json\", \"text/*\" or \"*+json\"",
        ),
    }
}

/// What text is sent as on the web. Not what is compressed already: images, fonts, archives.
fn default_types() -> Vec<MediaType> {
    let exact = [
        "application/json",
        "application/javascript",
        "application/xml",
        "application/wasm",
        "application/manifest+json",
        "image/svg+xml",
    ];
    let exact = exact.iter().map(|media| MediaType::Exact((*media).to_owned()));
    let suffixes = ["+json", "+xml"].map(|suffix| MediaType::Suffix(suffix.to_owned()));
    [MediaType::Below("text/".to_owned())]
        .into_iter()
        .chain(exact)
        .chain(suffixes)
        .collect()
}

pub(super) const CODINGS: &[(&str, Coding)] = &[("br", Coding::Brotli), ("zstd", Coding::Zstd), ("gzip", Coding::Gzip)];
/// brotli's levels from 10 and zstd's from 13 take milliseconds for a few KiB: they are for files that are compressed once.
const LEVELS: &[(&str, Coding, RangeInclusive<u64>)] = &[
    ("br", Coding::Brotli, 0..=9),
    ("zstd", Coding::Zstd, 1..=12),
    ("gzip", Coding::Gzip, 1..=9),
];
/// Beyond these a worker's time buys few bytes more.
const DEFAULT_LEVELS: Levels = Levels {
    brotli: 4,
    zstd: 3,
    gzip: 4,
};
/// What fits in a packet gains nothing from being smaller.
const DEFAULT_MIN_SIZE: u64 = 1 << 10;
const MIN_SIZE: RangeInclusive<u64> = 1..=1 << 30;
/// At up to 2 MiB each (measured with brotli), as much as a worker may hold for what makes nothing but bytes fewer.
const DEFAULT_MAX_STREAMS: usize = 256;
pub(super) const MAX_STREAMS: RangeInclusive<u64> = 1..=100_000;
