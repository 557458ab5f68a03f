//! `decompress "gzip" requests responses { … }`.

use std::ops::RangeInclusive;

use super::acl::distinct;
use super::compress::{CODINGS, MAX_STREAMS};
use super::elsewhere;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Decompress, DecompressLimits};
use crate::config::reader::{Block, Node};

/// Reads the node, which is not `"off"`.
pub(super) fn decompress(node: &mut Node<'_>) -> Option<Decompress> {
    let requests = node.flag("requests").is_some();
    let responses = node.flag("responses").is_some();
    let codings = distinct(node.some_arguments("a content coding"), |value| value.choice(CODINGS));
    let mut well = codings.as_ref().is_some_and(|codings| !codings.is_empty());
    if !requests && !responses {
        let error = ConfigError::new(Code::Missing, "`decompress` does not say what is decoded");
        let error = error.label(node.span(), "neither `requests` nor `responses`");
        node.fail(error.help(r#"write one of them or both, as in decompress "gzip" responses"#));
        well = false;
    }
    let mut read = Decompress {
        codings: codings.unwrap_or_default(),
        requests,
        responses,
        limits: DEFAULT_LIMITS,
        max_streams: DEFAULT_MAX_STREAMS,
    };
    if let Some(mut block) = node.block() {
        well &= limits(&mut block, &mut read).is_some();
        block.finish(elsewhere);
    }
    well.then_some(read)
}

/// What the block says. None when a fault was found.
fn limits(block: &mut Block<'_>, read: &mut Decompress) -> Option<()> {
    let mut well = Some(());
    if let Some(mut node) = block.one("max-size") {
        match node.argument("a size").and_then(|value| value.size(MAX_SIZE)) {
            Some(size) => read.limits.size = size,
            None => well = None,
        }
        node.finish();
    }
    if let Some(mut node) = block.one("max-ratio") {
        let value = node.argument("how many times as long content may become");
        match value.and_then(|value| value.integer(MAX_RATIO)) {
            Some(ratio) => read.limits.ratio = ratio,
            None => well = None,
        }
        node.finish();
    }
    if let Some(mut node) = block.one("max-streams") {
        let value = node.argument("a number of messages");
        let number = value.and_then(|value| value.integer(MAX_STREAMS));
        match number.and_then(|number| usize::try_from(number).ok()) {
            Some(number) => read.max_streams = number,
            None => well = None,
        }
        node.finish();
    }
    well
}

const DEFAULT_LIMITS: DecompressLimits = DecompressLimits {
    // It streams: this bounds no memory, but the time and the traffic that one message can take of whoever gets it.
    size: 256 << 20,
    // Text becomes five to ten times as long, lists of records that repeat themselves thirty times; what gzip can do at most
    // is a thousand times, with nothing but zeros.
    ratio: 100,
};
const MAX_SIZE: RangeInclusive<u64> = 1..=1 << 40;
const MAX_RATIO: RangeInclusive<u64> = 1..=100_000;
/// At up to 16 MiB each (what a window of brotli can be), as much as a worker may hold for who would not decode it himself.
const DEFAULT_MAX_STREAMS: usize = 64;
