//! Maps: `%[req.hdr(host),lower,map_dom(/etc/haproxy/hosts.map,app)]` becomes `%{host|map:hosts-domain-app}`, and a `map` of that
//! name.

use super::haproxy::Section;
use super::outline::Node;
use super::variables;

/// A map that an expression looks something up in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map<'a> {
    file: &'a str,
    kind: &'static str,
    default: Option<&'a str>,
    ignores_case: bool,
    /// Of those that would have its name otherwise; none of the first.
    number: Option<usize>,
}

/// The sections, in which maps that would have the name of another have a number behind their converter's: `map_dom#2(other/hosts.map)`.
pub(super) fn told_apart(sections: &[Section]) -> Vec<Section> {
    let mut settled = sections.to_vec();
    let mut known: Vec<(String, Node)> = Vec::new();
    let lines = settled.iter_mut().flat_map(|section| &mut section.lines);
    for word in lines.flat_map(|line| &mut line.words) {
        let found: Vec<_> = converters(word)
            .into_iter()
            .filter_map(|(converter, before)| {
                let map = map(converter, &before).ok()?;
                Some((converter.to_owned(), map.name(), map.node()))
            })
            .collect();
        for (converter, name, node) in found {
            let alike = known.iter().filter(|(other, _)| *other == name);
            let at = alike.clone().position(|(_, other)| *other == node);
            let number = at.unwrap_or_else(|| alike.count()) + 1;
            if at.is_none() {
                known.push((name, node));
            }
            if number > 1 {
                *word = word.replace(&converter, &converter.replacen('(', &format!("#{number}("), 1));
            }
        }
    }
    settled
}

/// The maps of a word of a line, each with what stands before it.
fn converters(word: &str) -> Vec<(&str, Vec<&str>)> {
    let expressions = word.split("%[").skip(1);
    let maps = expressions.filter_map(|rest| {
        let mut parts = split(rest.split(']').next()?);
        // What is made of a map's value.
        parts.pop_if(|last| matches!(*last, "url_enc" | "url_enc()"));
        Some((parts.pop()?, parts))
    });
    maps.collect()
}

/// The variable that an expression with a map is. None when it has no map; fails with the reason where there is no counterpart.
pub(super) fn variable(expression: &str) -> Option<Result<String, String>> {
    let parts = split(expression);
    let (last, before) = parts.split_last()?;
    last.strip_prefix("map")
        .filter(|rest| rest.starts_with(['(', '_', '#']))?;
    let map = match map(last, before) {
        Ok(map) => map,
        Err(reason) => return Some(Err(reason)),
    };
    let fetch = match before.first() {
        // Without its port and in lower case, as who writes such files means it.
        Some(fetch) if is_host(fetch) => Ok("%{host}".to_owned()),
        Some(fetch) => variables::variable(fetch),
        None => Err("a map of nothing".to_owned()),
    };
    let mapped = |fetch: String| format!("{}|map:{}}}", fetch.trim_end_matches('}'), map.name());
    Some(fetch.map(mapped))
}

/// The maps of a word of a line, as nodes.
pub(super) fn nodes(word: &str) -> Vec<Node> {
    let maps = converters(word).into_iter();
    maps.filter_map(|(converter, before)| Some(map(converter, &before).ok()?.node()))
        .collect()
}

impl Map<'_> {
    /// The same for the same map, and for no other.
    fn name(&self) -> String {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        let mut name = file.strip_suffix(".map").unwrap_or(file).to_owned();
        if self.kind != "exact" {
            name = format!("{name}-{}", self.kind);
        }
        if let Some(default) = self.default {
            name = format!("{name}-{default}");
        }
        if self.ignores_case {
            name.push_str("-i");
        }
        if let Some(number) = self.number {
            name = format!("{name}-{number}");
        }
        name.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "_")
    }

    fn node(&self) -> Node {
        let mut node = Node::new("map").arg(self.name()).prop("file", self.file);
        if self.kind != "exact" {
            node = node.prop("match", self.kind);
        }
        if let Some(default) = self.default {
            node = node.prop("default", default);
        }
        match self.ignores_case {
            true => node.flag("ignore-case"),
            false => node,
        }
    }
}

/// The map that a converter is; `before` is the fetch and what is done to it first.
fn map<'a>(converter: &'a str, before: &[&str]) -> Result<Map<'a>, String> {
    let none = || format!("there is no counterpart of `{converter}`");
    let (name, arguments) = converter
        .strip_suffix(')')
        .and_then(|text| text.split_once('('))
        .ok_or_else(none)?;
    let (name, number) = match name.split_once('#') {
        Some((name, number)) => (name, number.parse().ok()),
        None => (name, None),
    };
    let kind = match name.strip_suffix("_str").unwrap_or(name) {
        "map" => "exact",
        "map_beg" => "prefix",
        "map_end" => "suffix",
        "map_dom" => "domain",
        "map_ip" => "subnet",
        "map_reg" => "regex",
        _ => return Err(none()),
    };
    let (file, default) = match arguments.split_once(',') {
        Some((file, default)) => (file, Some(default)),
        None => (arguments, None),
    };
    let (fetch, done) = before.split_first().ok_or_else(none)?;
    let mut ignores_case = false;
    for converter in done {
        match *converter {
            "lower" => ignores_case = true,
            "field(1,:)" | "host_only" if is_host(fetch) => {}
            other => return Err(format!("there is no counterpart of `{other}` before a map")),
        }
    }
    // Hosts and names of TLS are in lower case here, and addresses have none.
    let has_case = !is_host(fetch) && !fetch.contains("sni") && !matches!(kind, "domain" | "subnet");
    Ok(Map {
        file,
        kind,
        default,
        ignores_case: ignores_case && has_case,
        number,
    })
}

pub(super) fn is_host(fetch: &str) -> bool {
    let fetch = fetch.strip_prefix("req.").unwrap_or(fetch).to_ascii_lowercase();
    matches!(fetch.as_str(), "hdr(host)" | "fhdr(host)")
}

/// Parts between commas, but for those within parentheses.
pub(super) fn split(expression: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, byte) in expression.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&expression[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expressions_with_maps_become_variables() {
        for (haproxys, ours) in [
            (
                "req.hdr(host),lower,map_dom(/etc/hosts.map,app)",
                "%{host|map:hosts-domain-app}",
            ),
            ("hdr(Host),field(1,:),map(/etc/hosts.map)", "%{host|map:hosts}"),
            ("path,map_beg(paths.map)", "%{path|map:paths-prefix}"),
            ("path,lower,map_end_str(paths)", "%{path|map:paths-suffix-i}"),
            ("src,map_ip(nets.map,far away)", "%{client-ip|map:nets-subnet-far_away}"),
            ("url_param(a),map_reg(x.map)", "%{query-param:a|map:x-regex}"),
            ("req.ssl_sni,lower,map(sni.map)", "%{sni|map:sni}"),
        ] {
            assert_eq!(variable(haproxys).unwrap().unwrap(), ours, "{haproxys}");
        }
        assert_eq!(variable("req.hdr(host)"), None);
        for wrong in [
            "path,map_int(a)",
            "path,url_dec,map(a)",
            "rand,map(a)",
            "path,map_sub(a)",
        ] {
            assert!(variable(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
