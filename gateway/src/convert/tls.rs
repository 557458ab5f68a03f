//! The options of `bind` and `server` that are about TLS.

use std::path::Path;

use super::haproxy::Line;
use super::options::Options;
use super::outline::Node;
use super::proxies::Proxy;
use super::servers::report;
use super::{checks, crt_list};
use crate::crypto::{CipherSuite, Group};

/// What a bind with `ssl` says of TLS, in the block of `bind`.
pub(super) fn of_bind(proxy: &mut Proxy<'_>, bind: usize, options: &Options<'_>, line: &Line) {
    let mut tls = Node::new("tls");
    let mut crts = options.values("crt");
    let mut listed = crt_list::certificates(proxy, options, line).into_iter();
    if let Some(crt) = crts.next() {
        tls = tls.prop(place_of(crt), crt);
    } else if let Some(file) = listed.next() {
        tls = tls.prop("cert", file);
    }
    let tls = versions(proxy, tls, options, line);
    let tls = match options.has("strict-sni") {
        true => tls.flag("strict-sni"),
        false => tls,
    };
    let tls = proxy.conversion.outline.add(Some(bind), tls, line.number, &line.text);
    let mut nodes: Vec<Node> = crts.map(|crt| Node::new(place_of(crt)).arg(crt)).collect();
    nodes.extend(listed.map(|file| Node::new("cert").arg(file)));
    nodes.extend(clients(proxy, options, line));
    nodes.extend(parameters(proxy, options, line));
    if options.has("no-tls-tickets") {
        nodes.push(Node::new("tickets").arg("off"));
    } else if let Some(file) = options.value("tls-ticket-keys") {
        nodes.push(Node::new("tickets").prop("keys", file));
        let message = "the first key of `tls-ticket-keys` makes tickets here, and not the last but one: put that first";
        proxy.conversion.note(line.number, message);
    }
    for node in nodes {
        proxy.conversion.outline.add(Some(tls), node, line.number, &line.text);
    }
    alpn(proxy, bind, options, line);
}

/// What a server with `ssl` says of TLS, in the block of `server`. What is spoken to it in HTTP mode is not to be agreed on.
pub(super) fn of_server(
    proxy: &mut Proxy<'_>,
    server: usize,
    (is_http, http2): (bool, bool),
    options: &Options<'_>,
    line: &Line,
) {
    let mut tls = Node::new("tls");
    let mut asks_for_the_clients = false;
    for (haproxys, ours) in [("ca-file", "ca"), ("crt", "cert")] {
        match options.value(haproxys) {
            Some("@system-ca") | None => {}
            Some(path) => tls = tls.prop(ours, path),
        }
    }
    match options.value("sni").or_else(|| options.value("verifyhost")) {
        Some(sni) if sni.starts_with("str(") => {
            tls = tls.prop("sni", sni.trim_start_matches("str(").trim_end_matches(')'));
        }
        Some("ssl_fc_sni" | "req.ssl_sni" | "req.hdr(host)" | "req.hdr(Host)" | "hdr(host)" | "hdr(Host)") => {
            asks_for_the_clients = true;
            tls = tls.prop("sni", "client");
            if let Some(name) = options.value("check-sni") {
                tls = tls.prop("check-sni", name);
            }
        }
        Some(sni) if !sni.contains('(') => tls = tls.prop("sni", sni),
        Some(_) => proxy
            .conversion
            .note(line.number, "a name for SNI that is made from the request was left out"),
        None if options.value("verify") != Some("none") => {
            let message = "HAProxy verifies no name where no `sni` or `verifyhost` says one; here the certificate has to be for the server's \
                           address: say its name with `sni=`";
            proxy.conversion.note(line.number, message);
        }
        None => {}
    }
    let verifies = options.value("verify") != Some("none");
    if !verifies {
        tls = tls.prop("verify", "none");
    }
    let tls = versions(proxy, tls, options, line);
    let tls = proxy.conversion.outline.add(Some(server), tls, line.number, &line.text);
    let mut nodes = parameters(proxy, options, line);
    match options.value("crl-file") {
        Some(path) if verifies => nodes.push(Node::new("crl").arg(path)),
        Some(_) => report(
            proxy,
            line,
            "server",
            options.named(&["crl-file"]),
            "nobody is verified",
        ),
        None => {}
    }
    for node in nodes {
        proxy.conversion.outline.add(Some(tls), node, line.number, &line.text);
    }
    match options.value("alpn") {
        Some(alpn) if is_http => {
            if !http2 && alpn.split(',').any(|protocol| protocol == "h2") {
                let message = format!(
                    "`alpn {alpn}` of the server was left out: it is spoken to in HTTP/1.1; write `h2` behind its address if it has that"
                );
                proxy.conversion.note(line.number, message);
            }
        }
        _ => alpn(proxy, server, options, line),
    }
    if let (Some(name), false) = (options.value("check-sni"), asks_for_the_clients) {
        let message = format!("`check-sni {name}` was left out: checks ask for the name of `sni`");
        proxy.conversion.note(line.number, message);
    }
    if let (Some(_), Some(name)) = (options.value("sni"), options.value("verifyhost")) {
        let message = format!("`verifyhost {name}` was left out: the name of `sni` is verified");
        proxy.conversion.note(line.number, message);
    }
}

/// `check-ssl` of a server that traffic does not speak TLS with, and `ssl` of what a check says of its `connect`ion.
pub(super) fn of_check(
    proxy: &mut Proxy<'_>,
    check: usize,
    is_http: bool,
    connect: &Options<'_>,
    options: &Options<'_>,
    line: &Line,
) {
    let mut tls = Node::new("tls");
    for (haproxys, ours) in [("ca-file", "ca"), ("crt", "cert")] {
        match options.value(haproxys) {
            Some("@system-ca") | None => {}
            Some(path) => tls = tls.prop(ours, path),
        }
    }
    let name = connect.value("sni").or_else(|| options.value("check-sni"));
    if let Some(name) = name.or_else(|| options.value("verifyhost")) {
        tls = tls.prop("sni", name);
    }
    if options.value("verify") == Some("none") {
        tls = tls.prop("verify", "none");
    }
    let tls = versions(proxy, tls, options, line);
    let tls = proxy.conversion.outline.add(Some(check), tls, line.number, &line.text);
    for node in parameters(proxy, options, line) {
        proxy.conversion.outline.add(Some(tls), node, line.number, &line.text);
    }
    let protocols = connect.value("alpn").or_else(|| options.value("check-alpn"));
    if let Some(protocols) = protocols.filter(|_| !is_http) {
        let node = protocols
            .split(',')
            .fold(Node::new("alpn"), |node, protocol| node.arg(protocol));
        proxy.conversion.outline.add(Some(check), node, line.number, &line.text);
    }
}

/// HAProxy takes a folder, too; whether it is one only the system can tell that has it.
fn place_of(crt: &str) -> &'static str {
    if crt.ends_with('/') || Path::new(crt).is_dir() {
        "cert-dir"
    } else {
        "cert"
    }
}

fn clients(proxy: &mut Proxy<'_>, options: &Options<'_>, line: &Line) -> Vec<Node> {
    let verify = options.value("verify").filter(|verify| *verify != "none");
    match (verify, options.value("ca-file")) {
        (Some(verify), Some(ca)) => {
            let node = Node::new("client-ca").arg(ca);
            let node = match verify {
                "optional" => node.prop("verify", "optional"),
                _ => node,
            };
            let crl = options.value("crl-file").map(|path| Node::new("crl").arg(path));
            std::iter::once(node).chain(crl).collect()
        }
        (Some(_), None) => {
            let reason = "it asks clients for certificates, and no `ca-file` says from whom";
            report(proxy, line, "bind", options.named(&["verify", "crl-file"]), reason);
            Vec::new()
        }
        (None, _) => {
            let reason = "clients are asked for certificates with `verify` only";
            report(proxy, line, "bind", options.named(&["ca-file", "crl-file"]), reason);
            Vec::new()
        }
    }
}

/// `ssl-min-ver TLSv1.2`, `no-tlsv12`, `force-tlsv13`, and their likes.
fn versions(proxy: &mut Proxy<'_>, tls: Node, options: &Options<'_>, line: &Line) -> Node {
    let forced = match (options.has("force-tlsv12"), options.has("force-tlsv13")) {
        (true, _) => Some("1.2"),
        (_, true) => Some("1.3"),
        _ => None,
    };
    let mut limit = |key: &str| match options.value(key) {
        None => None,
        Some("TLSv1.2") => Some("1.2"),
        Some("TLSv1.3") => Some("1.3"),
        Some(old) => {
            let message = format!("`{key} {old}` was left out: TLS 1.2 is the oldest that is spoken here");
            proxy.conversion.note(line.number, message);
            None
        }
    };
    let (min, max) = (limit("ssl-min-ver"), limit("ssl-max-ver"));
    let min = forced.or(min).or(options.has("no-tlsv12").then_some("1.3"));
    let max = forced.or(max).or(options.has("no-tlsv13").then_some("1.2"));
    for old in ["force-sslv3", "force-tlsv10", "force-tlsv11"] {
        if options.has(old) {
            let message = format!("`{old}` was left out: TLS 1.2 is the oldest that is spoken here");
            proxy.conversion.note(line.number, message);
        }
    }
    // What is so anyway is not said.
    let tls = match min {
        Some(min) if min != "1.2" => tls.prop("min-version", min),
        _ => tls,
    };
    match max {
        Some(max) if max != "1.3" => tls.prop("max-version", max),
        _ => tls,
    }
}

/// `ciphers`, `ciphersuites`, `curves` and `ecdhe`: what is there under another name, or not.
fn parameters(proxy: &mut Proxy<'_>, options: &Options<'_>, line: &Line) -> Vec<Node> {
    let mut found: Vec<String> = Vec::new();
    for key in ["ciphersuites", "ciphers"] {
        let names = options.value(key).unwrap_or_default();
        for name in names.split([':', ',']).filter(|name| !name.is_empty()) {
            let suite = CipherSuite::all().find(|suite| suite.openssl_name() == name || suite.name() == name);
            match suite {
                Some(suite) if !found.contains(&suite.name()) => found.push(suite.name()),
                Some(_) => {}
                None => {
                    let message = format!("`{name}` of `{key}` was left out: there is no such cipher suite here");
                    proxy.conversion.note(line.number, message);
                }
            }
        }
    }
    let mut curves: Vec<String> = Vec::new();
    for key in ["curves", "ecdhe"] {
        let names = options.value(key).unwrap_or_default();
        for name in names.split([':', ',']).filter(|name| !name.is_empty()) {
            match Group::named(name) {
                Some(group) if !curves.contains(&group.name()) => curves.push(group.name()),
                Some(_) => {}
                None => {
                    let message = format!("`{name}` of `{key}` was left out: there is no such curve here");
                    proxy.conversion.note(line.number, message);
                }
            }
        }
    }
    let node = |name, values: Vec<String>| {
        let any = !values.is_empty();
        any.then(|| values.into_iter().fold(Node::new(name), Node::arg))
    };
    let prefers_client = options.has("prefer-client-ciphers");
    let ciphers = node("ciphers", found).map(|ciphers| match prefers_client {
        true => ciphers.prop("prefer", "client"),
        false => ciphers,
    });
    ciphers.into_iter().chain(node("curves", curves)).collect()
}

fn alpn(proxy: &mut Proxy<'_>, parent: usize, options: &Options<'_>, line: &Line) {
    if let Some(alpn) = options.value("alpn") {
        let node = alpn.split(',').fold(Node::new("alpn"), Node::arg);
        proxy
            .conversion
            .outline
            .add(Some(parent), node, line.number, &line.text);
    }
}

/// Options that are about TLS alone, for whom there is none.
pub(super) fn report_without_tls(proxy: &mut Proxy<'_>, whose: &str, options: &Options<'_>, line: &Line) {
    // They are about the TLS of its checks.
    if options.has("check-ssl") || (whose == "server" && checks::connects_in_tls(proxy.section)) {
        return;
    }
    let names = options.named(match whose {
        "bind" => &BIND_OPTIONS,
        _ => &SERVER_OPTIONS,
    });
    report(proxy, line, whose, names, "it does nothing without `ssl`");
}

/// Options whose absence changes nothing: what they turn off is not there.
pub(super) const SILENT: [&str; 4] = ["no-sslv3", "no-tlsv10", "no-tlsv11", "no-tls-compression"];

/// Options of a bind about TLS that are carried over.
pub(super) const BIND_OPTIONS: [&str; 22] = [
    "alpn",
    "ca-file",
    "ciphers",
    "ciphersuites",
    "crl-file",
    "crt",
    "curves",
    "ecdhe",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "no-tls-tickets",
    "no-tlsv12",
    "no-tlsv13",
    "prefer-client-ciphers",
    "ssl-max-ver",
    "ssl-min-ver",
    "strict-sni",
    "tls-ticket-keys",
    "verify",
];

/// Options of a server about TLS that are carried over.
pub(super) const SERVER_OPTIONS: [&str; 21] = [
    "alpn",
    "ca-file",
    "check-sni",
    "check-ssl",
    "ciphers",
    "ciphersuites",
    "crl-file",
    "crt",
    "curves",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "no-tlsv12",
    "no-tlsv13",
    "sni",
    "ssl-max-ver",
    "ssl-min-ver",
    "verify",
    "verifyhost",
];
