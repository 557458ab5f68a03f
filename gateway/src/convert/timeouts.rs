//! Timeouts that nobody says. HAProxy waits for ever then, or as long as another one says; here each has a value.

use super::Conversion;
use super::haproxy::{Line, Section};
use super::stats;

/// Says which timeouts hold where the configuration says none, once for each set of `defaults`. The sections say their mode, or take
/// it from their `defaults`.
pub(super) fn note_missing(conversion: &mut Conversion, sections: &[Section]) {
    for section in sections {
        let is_stats = stats::is_stats(section);
        let (is_front, is_back) = match section.kind.as_str() {
            "frontend" => (true, false),
            "backend" => (false, true),
            "listen" => (true, true),
            _ => continue,
        };
        let mut all = sections.iter();
        let defaults = all.find(|other| other.kind == "defaults" && section.from == other.name);
        let says = |words: &[&str]| {
            let both = [Some(section), defaults];
            let mut lines = both.into_iter().flatten().flat_map(|section| &section.lines);
            lines.any(|line| words.iter().eq(line.words.iter().take(words.len())))
        };
        let is_tcp = |line: &Line| line.keyword() == "mode" && line.word(1) == Some("tcp");
        let is_http = says(&["mode", "http"]) && !section.lines.iter().any(is_tcp);
        // It holds in their place.
        let has_tunnel = !is_http && says(&["timeout", "tunnel"]);
        if is_stats || super::tables::is_only_a_table(section) {
            continue;
        }
        let forever = "HAProxy waits for ever";
        let mut missing = Vec::new();
        if is_front && !has_tunnel {
            missing.push(("client", "30s", forever));
        }
        if is_front && is_http {
            let client = "HAProxy waits as long as `timeout client` between one piece and the next";
            missing.push(("http-request", "10s", client));
            let request = "HAProxy waits as long as `timeout http-request` says, or else `timeout client`";
            missing.push(("http-keep-alive", "10s", request));
        }
        if is_back {
            missing.push(("connect", "5s", forever));
        }
        if is_back && !has_tunnel {
            missing.push(("server", "30s", forever));
        }
        missing.retain(|(name, ..)| !says(&["timeout", *name]));
        let line = defaults.map_or(section.line, |defaults| defaults.line);
        for (name, ours, theirs) in missing {
            conversion.note(
                line,
                format!("no `timeout {name}` is said: it is {ours} here, and {theirs}"),
            );
        }
    }
}
