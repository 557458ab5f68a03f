//! What an acl asks: a fetch and the values that it is compared with, as a predicate of ours.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::expressions::Shape;
use super::maps;
use super::numbers::{OPERATORS, compared, ports_beside};
use super::outline::Node;
use super::texts::Text;
use crate::regular_file;

/// The node that asks what an acl's criterion asks: `path_beg /api/ /v1/`. Fails with the reason.
pub(super) fn criterion(words: &[String]) -> Result<Vec<Node>, String> {
    let (fetch, rest) = words.split_first().ok_or("an acl without a criterion")?;
    let (sample, converters) = maps::split(fetch)
        .split_first()
        .map_or(("", Vec::new()), |(sample, converters)| (*sample, converters.to_vec()));
    let (name, argument) = match sample.split_once('(') {
        Some((name, argument)) => (name, Some(argument.strip_suffix(')').unwrap_or(argument))),
        None => (sample, None),
    };
    let is_host = maps::is_host(sample);
    let (mut is_lowered, mut is_without_port) = (false, false);
    for converter in converters {
        match converter {
            "lower" => is_lowered = true,
            "field(1,:)" | "word(1,:)" | "host_only" if is_host => is_without_port = true,
            map if map.starts_with("map") => {
                return Err(format!(
                    "no predicate for `{fetch}`: whether a map has something cannot be asked; write its keys into a file of their own, \
                     and ask for these with `file=`"
                ));
            }
            other => {
                return Err(format!(
                    "no predicate for `{fetch}`: there is no counterpart of `{other}`"
                ));
            }
        }
    }
    // The one form of a name that is written here as there.
    let is_whole_name = matches!((name, argument), ("ssl_c_s_dn" | "ssl_c_i_dn", Some(RFC_2253)));
    if name.contains(',') || (!is_whole_name && argument.is_some_and(|argument| argument.contains([',', ')']))) {
        return Err(format!("no predicate for `{fetch}`: converters and further arguments"));
    }
    let name = name.strip_prefix("req.").unwrap_or(name);
    let mut matching = None;
    let mut values = Vec::new();
    let mut files = Vec::new();
    let mut ignores_case = false;
    let mut rest = rest.iter();
    // Flags stand before the values.
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-i" => ignores_case = true,
            "-m" => matching = rest.next().map(String::as_str),
            "-n" => {}
            "--" => break,
            "-f" => files.push(rest.next().ok_or("`-f` without a file")?),
            "-M" | "-u" => return Err(format!("there is no `{word}`")),
            value => {
                values.push(value);
                break;
            }
        }
    }
    values.extend(rest.map(String::as_str));
    let (base, suffix) = match name.rsplit_once('_') {
        Some((base, suffix @ ("beg" | "end" | "reg" | "sub" | "dir" | "dom" | "len" | "str"))) => (base, Some(suffix)),
        _ => (name, None),
    };
    let how = matching.or(suffix).unwrap_or("str");
    if is_lowered {
        if !files.is_empty() || values.iter().any(|value| has_capitals(value)) {
            return Err(format!(
                "no predicate for `{fetch}`: write the values in lower case, and `-i` in the place of `lower`"
            ));
        }
        ignores_case = true;
    }
    let all = |node: &str| values.iter().fold(Node::new(node), |node, value| node.arg(*value));
    let single = |node| Ok(vec![node]);
    let names_below = |node: &str| {
        let names = values.iter().map(|value| format!("*{value}"));
        names.fold(Node::new(node), Node::arg)
    };
    if !files.is_empty() {
        let said = match values.is_empty() {
            true => Vec::new(),
            false => criterion(&without_files(words))?,
        };
        let listed = files.into_iter().map(|file| {
            let node = listed((base, argument), how, ignores_case)
                .ok_or_else(|| format!("values of `{fetch}` from a file have to be written out"))?;
            let names_host = argument.is_some_and(|header| header.eq_ignore_ascii_case("host"));
            if base == "hdr" && how == "reg" && !names_host {
                refuse_anchors(file)?;
            }
            Ok(node.prop("file", file))
        });
        return said.into_iter().map(Ok).chain(listed).collect();
    }
    let are_domains = values.iter().all(|value| value.starts_with('.'));
    let text = Text {
        how,
        ignores_case,
        has_items: base == "hdr",
        values: &values,
    };
    match (base, argument) {
        ("nbsrv", Some(backend)) => single(servers_up(backend, &values)?),
        ("hdr" | "fhdr", Some(_)) if is_host && is_without_port && how != "str" => Text {
            ignores_case: true,
            has_items: false,
            ..text
        }
        .patterns(Node::new("host-regex")),
        ("path", None) => {
            let node = match how {
                "str" | "beg" | "end" if ignores_case => return text.patterns(Node::new("path-regex")),
                "sub" if !ignores_case => "path-contains",
                "reg" | "sub" | "dir" | "dom" => return text.patterns(Node::new("path-regex")),
                "str" => "path",
                "beg" => "path-prefix",
                "end" => "path-suffix",
                _ => return Err(format!("no predicate for `{fetch}` with `{how}`")),
            };
            single(all(node))
        }
        // No query begins before the first `?`.
        ("url", None)
            if how == "beg"
                && values
                    .iter()
                    .all(|value| value.starts_with('/') && !value.contains('?')) =>
        {
            match ignores_case {
                true => text.patterns(Node::new("path-regex")),
                false => single(all("path-prefix")),
            }
        }
        ("url", None) if how == "len" => single(compared(Node::new("uri-length"), fetch, &values)?),
        ("fhdr_cnt", Some(header)) => {
            let node = Node::new("header-count").arg(header.to_ascii_lowercase());
            single(compared(node, fetch, &values)?)
        }
        // Where there is no field, there is nothing between its commas either.
        ("hdr_cnt", Some(header)) if matches!(values.as_slice(), ["eq" | "gt", "0"] | ["0"] | ["ge" | "lt", "1"]) => {
            let node = Node::new("header-count").arg(header.to_ascii_lowercase());
            single(compared(node, fetch, &values)?)
        }
        ("hdr_cnt", Some(header)) => Err(format!(
            "`{fetch}` counts what stands between commas, and `header-count` fields: ask `fhdr_cnt({header})`"
        )),
        ("base", None) => Err("`base` is host and path in one: ask for both, `host` and `path-prefix`".to_owned()),
        ("url", None) => {
            Err("`url` has the query in it, which no predicate for paths sees: ask `path` or `url_param`".to_owned())
        }
        // Hosts and names of TLS are compared without regard to case, always.
        ("hdr" | "fhdr", Some(header)) if header.eq_ignore_ascii_case("host") => match how {
            "str" if !values.is_empty() => single(all("host")),
            "end" if are_domains => single(names_below("host")),
            _ => Text {
                ignores_case: true,
                // It is none, and has no commas.
                has_items: false,
                ..text
            }
            .named("header", "host"),
        },
        ("hdr" | "fhdr", Some(header)) => text.named("header", &header.to_ascii_lowercase()),
        ("cook", Some(cookie)) => text.named("cookie", cookie),
        ("url_param" | "urlp", Some(parameter)) => text.named("query", parameter),
        ("ssl_fc_sni" | "ssl_sni" | "req_ssl_sni", None) if how == "str" => single(all("sni")),
        ("ssl_fc_sni" | "ssl_sni" | "req_ssl_sni", None) if how == "end" && are_domains => single(names_below("sni")),
        ("ssl_fc_sni" | "ssl_sni" | "req_ssl_sni", None) if how == "reg" => {
            let names: Option<Vec<_>> = values.iter().map(|value| server_names(value)).collect();
            let names = names.ok_or_else(|| format!("no predicate for `{fetch}` with this expression: {SNI}"))?;
            single(names.into_iter().flatten().fold(Node::new("sni"), Node::arg))
        }
        ("ssl_fc_sni" | "ssl_sni" | "req_ssl_sni", None) => {
            Err(format!("no predicate for `{fetch}` with `{how}`: {SNI}"))
        }
        ("ssl_c_s_dn", Some(part)) if part.eq_ignore_ascii_case("cn") => text.about("client-cert-cn"),
        ("ssl_c_s_dn", Some(RFC_2253)) => text.about("client-cert-subject"),
        ("ssl_c_i_dn", Some(RFC_2253)) => text.about("client-cert-issuer"),
        ("method" | "ssl_fc_alpn" | "ssl_alpn", None) if ignores_case => {
            Err(format!("`{fetch}` cannot be compared without regard to case"))
        }
        ("src" | "dst", None) if matches!(how, "str" | "ip") => {
            let node = if base == "src" { "source" } else { "destination" };
            let networks = values.iter().map(|value| network(value));
            single(networks.fold(Node::new(node), Node::arg))
        }
        ("http_auth" | "http_auth_group", Some(_)) => Err(format!(
            "who somebody is is a plugin's to know, and `{fetch}` can be asked by `http-request auth` alone"
        )),
        ("var", Some(_)) => Err(format!(
            "what `{fetch}` is depends on the rules before it: ask for what they set it to"
        )),
        _ if how != "str" => Err(format!("no predicate for `{fetch}` with `{how}`")),
        ("method", None) => single(all("method")),
        ("dst_port" | "src_port", None) => {
            let ports = match values.as_slice() {
                [operator, number] if OPERATORS.contains(operator) => vec![ports_beside(operator, number)?],
                values => values.iter().map(|value| value.replace(':', "-")).collect(),
            };
            let node = if base == "src_port" { "source-port" } else { "port" };
            single(ports.into_iter().fold(Node::new(node), Node::arg))
        }
        ("req_ver" | "ver", None) => single(all("http-version")),
        ("ssl_fc", None) if values.is_empty() || values == ["1"] => single(Node::new("tls")),
        ("ssl_fc_alpn" | "ssl_alpn", None) => single(all("alpn")),
        ("ssl_c_used", None) if values.is_empty() || values == ["1"] => single(Node::new("client-cert")),
        ("ssl_fc_protocol", None) if values.iter().all(|value| value.starts_with("TLSv1.")) => {
            let versions = values.iter().map(|value| value.trim_start_matches("TLSv"));
            single(versions.fold(Node::new("tls-version"), Node::arg))
        }
        _ => Err(format!("no predicate for `{fetch}`")),
    }
}

/// `10.0.0.5/8` and `10.0.0.0/255.0.0.0`, which HAProxy takes for `10.0.0.0/8`.
pub(super) fn network(text: &str) -> String {
    let parsed = text.split_once('/').and_then(|(address, mask)| {
        let address: IpAddr = address.parse().ok()?;
        let length = match mask.parse::<Ipv4Addr>() {
            Ok(mask) => ipnet::ipv4_mask_to_prefix(mask).ok()?,
            Err(_) => mask.parse().ok()?,
        };
        ipnet::IpNet::new(address, length).ok()
    });
    parsed.map_or_else(|| text.to_owned(), |network| network.trunc().to_string())
}

/// Whether a text, or an expression, asks for capitals; `\S` and its like are none.
fn has_capitals(text: &str) -> bool {
    let mut before = ' ';
    text.chars().any(|c| {
        let is_one = c.is_ascii_uppercase() && before != '\\';
        before = if before == '\\' { ' ' } else { c };
        is_one
    })
}

/// Fails where an expression of a file asks for where something begins or ends: in HAProxy that is between commas.
fn refuse_anchors(file: &str) -> Result<(), String> {
    let again = "ask with `fhdr`, which looks at whole fields, or write the values out";
    let text = regular_file::read(Path::new(file), LONGEST_LIST).map_err(|error| {
        format!("whether values of `{file}` ask between commas cannot be seen here ({error}): {again}")
    })?;
    let text = String::from_utf8_lossy(&text);
    let mut values = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let anchored = values.find(|value| {
        let shape = Shape::of(value);
        shape.begins_anchored || shape.ends_anchored || shape.is_anchored_within
    });
    match anchored {
        Some(value) => Err(format!(
            "`{value}` of `{file}` asks where something begins or ends: in HAProxy that is between commas, and in the field here; {again}"
        )),
        None => Ok(()),
    }
}

/// Bytes of a list that is looked through.
const LONGEST_LIST: usize = 16 << 20;

/// The words of a criterion, but for `-f FILE`.
fn without_files(words: &[String]) -> Vec<String> {
    let mut words = words.iter();
    let mut others = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-f" => {
                words.next();
            }
            "--" => {
                others.push(word.clone());
                others.extend(words.by_ref().cloned());
            }
            _ => others.push(word.clone()),
        }
    }
    others
}

/// The node that compares with the values of a file, which is to follow. None where those would have to be other ones than
/// HAProxy's.
fn listed((fetch, argument): (&str, Option<&str>), how: &str, ignores_case: bool) -> Option<Node> {
    let is_host = argument.is_some_and(|header| header.eq_ignore_ascii_case("host"));
    let named = |node: Node| {
        let kind = match how {
            "str" => return Some(node),
            "beg" => "prefix",
            "end" => "suffix",
            "sub" => "contains",
            "reg" => "regex",
            _ => return None,
        };
        Some(node.prop("match", kind))
    };
    match (fetch, argument) {
        ("hdr" | "fhdr", Some(_)) if is_host && how == "str" => return Some(Node::new("host")),
        ("ssl_fc_sni" | "ssl_sni" | "req_ssl_sni", None) if how == "str" => return Some(Node::new("sni")),
        ("src", None) if matches!(how, "str" | "ip") => return Some(Node::new("source")),
        ("dst", None) if matches!(how, "str" | "ip") => return Some(Node::new("destination")),
        _ if ignores_case => return None,
        _ => {}
    }
    let name = match (fetch, argument, how) {
        ("path", None, "str") => "path",
        ("path", None, "beg") => "path-prefix",
        ("path", None, "end") => "path-suffix",
        ("path", None, "sub") => "path-contains",
        ("path", None, "reg") => "path-regex",
        ("method", None, "str") => "method",
        ("ssl_fc_alpn" | "ssl_alpn", None, "str") => "alpn",
        ("hdr" | "fhdr", Some(_), "reg") if is_host => "host-regex",
        // Values of a file cannot be looked for between the commas of a field.
        ("hdr", Some(_), "str" | "beg" | "end") => return None,
        ("hdr" | "fhdr", Some(header), _) if !is_host => {
            return named(Node::new("header").arg(header.to_ascii_lowercase()));
        }
        ("cook", Some(cookie), _) => return named(Node::new("cookie").arg(cookie)),
        ("url_param" | "urlp", Some(parameter), _) => return named(Node::new("query").arg(parameter)),
        ("ssl_c_s_dn", Some(part), _) if part.eq_ignore_ascii_case("cn") => return named(Node::new("client-cert-cn")),
        ("ssl_c_s_dn", Some(RFC_2253), _) => return named(Node::new("client-cert-subject")),
        ("ssl_c_i_dn", Some(RFC_2253), _) => return named(Node::new("client-cert-issuer")),
        _ => return None,
    };
    Some(Node::new(name))
}

/// What says of a certificate's name that all of it is meant, as RFC 2253 writes it.
const RFC_2253: &str = ",0,rfc2253";

/// `nbsrv(app) lt 2`, `nbsrv(app) ge 1`.
fn servers_up(backend: &str, values: &[&str]) -> Result<Node, String> {
    compared(Node::new(SERVERS_UP).arg(backend), "nbsrv", values)
}

/// The names that an expression about a server name stands for: `^(.+\.)?example\.net$`, `^example\.net$`, `\.example\.net$`.
fn server_names(expression: &str) -> Option<Vec<String>> {
    let inner = expression.strip_suffix('$')?;
    let with_others = [r"^(.+\.)?", r"^(.*\.)?"];
    let below = [r"^.+\.", r"^.*\.", r"^(.+)\.", r"^(.*)\.", r".*\.", r"\."];
    let behind = |starts: &[&str]| {
        starts
            .iter()
            .find_map(|start| inner.strip_prefix(start))
            .map(str::to_owned)
    };
    let (name, is_name, is_below) = match (behind(&with_others), behind(&below)) {
        (Some(name), _) => (name, true, true),
        (None, Some(name)) => (name, false, true),
        (None, None) => (inner.strip_prefix('^')?.to_owned(), true, false),
    };
    let name = name.replace(r"\.", "\n").replace(r"\-", "-");
    let is_plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '\n'));
    let name = name.replace('\n', ".").to_ascii_lowercase();
    let names = is_name.then(|| name.clone()).into_iter();
    (is_plain && !name.is_empty()).then(|| names.chain(is_below.then(|| format!("*.{name}"))).collect())
}

/// What names of TLS are compared with.
const SNI: &str = "names are compared as a whole, as in sni \"example.net\" \"*.example.net\"";

/// What stands alone in an acl that has a name.
pub(super) const SERVERS_UP: &str = "servers-up";

/// HAProxy's predefined acls that have a counterpart.
pub(super) fn predefined(name: &str) -> Option<Node> {
    Some(match name {
        "METH_CONNECT" | "METH_DELETE" | "METH_GET" | "METH_HEAD" | "METH_OPTIONS" | "METH_POST" | "METH_PUT"
        | "METH_TRACE" => {
            let node = Node::new("method").arg(&name["METH_".len()..]);
            // As HAProxy's own definition has it.
            if name == "METH_GET" { node.arg("HEAD") } else { node }
        }
        "HTTP_1.0" | "HTTP_1.1" => Node::new("http-version").arg(&name["HTTP_".len()..]),
        "HTTP_2.0" => Node::new("http-version").arg("2"),
        // A path begins so, but of `OPTIONS *` and `CONNECT`.
        "HTTP_URL_SLASH" => Node::new("path-prefix").arg("/"),
        "LOCALHOST" => Node::new("source").arg("127.0.0.0/8").arg("::1/128"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_about_server_names_are_names() {
        for (expression, names) in [
            (r"^(.+\.)?Shop\.example$", Some("shop.example *.shop.example")),
            (r"^shop-1\.example$", Some("shop-1.example")),
            (r"\.example\.net$", Some("*.example.net")),
            (r"^.*\.example\.net$", Some("*.example.net")),
            (r"example\.net$", None),
            (r"^shop.example$", None),
            (r"^(a|b)\.example$", None),
            (r"^shop\.", None),
            (r"^$", None),
        ] {
            assert_eq!(
                server_names(expression).map(|names| names.join(" ")).as_deref(),
                names,
                "{expression}"
            );
        }
    }

    #[test]
    fn networks_are_written_out() {
        for (theirs, ours) in [
            ("10.0.0.5/8", "10.0.0.0/8"),
            ("10.1.2.3/255.255.0.0", "10.1.0.0/16"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("10.0.0.5", "10.0.0.5"),
            ("10.0.0.0/255.0.255.0", "10.0.0.0/255.0.255.0"),
        ] {
            assert_eq!(network(theirs), ours);
        }
    }
}
