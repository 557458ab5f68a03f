//! `server "app-1" "10.0.0.1:8080"` and `server-template "app" "app.internal:8080" count=5`.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;

use miette::SourceSpan;
use rustls_pki_types::ServerName;

use super::bind::{Port, socket_address};
use super::names::declared_twice;
use super::settings::{MAX_CONNECTIONS, ON_MARKED_DOWN, ON_MARKED_UP, TIMEOUT_RANGE};
use super::{or_none, persistence, resolver, section_name, send_proxy, socket_options, source, tls, unix_socket};
use crate::address::{Address, MOST_UNIX_PATH};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Mode, NameSource, Server, ServerAddress, ServerTls, SessionEnd, SourceAddress, Verify};
use crate::config::reader::{At, Node, Value, clip};
use crate::config::suggest;

/// A server that has been read, and where what is said of it stands.
pub(super) struct ReadServer {
    pub(super) server: Option<Server>,
    pub(super) span: SourceSpan,
    pub(super) backup: Option<SourceSpan>,
    pub(super) weight: Option<At<u16>>,
    pub(super) slow_start: Option<SourceSpan>,
    pub(super) max_connections: Option<SourceSpan>,
    pub(super) on_marked_down: Option<At<bool>>,
    pub(super) on_marked_up: Option<At<bool>>,
    pub(super) cookie: Option<SourceSpan>,
    pub(super) source: Option<At<SourceAddress>>,
}

impl ReadServer {
    /// Whether its name may lead nowhere, which is as good as being down.
    pub(super) fn has_name(&self) -> bool {
        let address = self.server.as_ref().map(|server| &server.address);
        matches!(address, Some(ServerAddress::Name(_)))
    }

    /// Whether it is on a UNIX socket.
    pub(super) fn is_unix(&self) -> bool {
        let address = self.server.as_ref().map(|server| &server.address);
        matches!(address, Some(ServerAddress::Fixed(Address::Unix(_))))
    }
}

/// Reads the servers of a backend.
pub(super) fn servers(nodes: Vec<Node<'_>>, mode: Mode) -> Vec<ReadServer> {
    let mut names: HashMap<String, SourceSpan> = HashMap::new();
    let read = |node| server(node, mode, &mut names);
    nodes.into_iter().flat_map(read).collect()
}

/// HAProxy's words for servers that are said in another place here, or not at all.
fn haproxys(word: &str) -> Option<&'static str> {
    Some(match word {
        "check" | "inter" | "fastinter" | "downinter" | "rise" | "fall" | "port" | "addr" => {
            "a check is the backend's, for all of its servers: check \"tcp\" interval=\"3s\" rise=2 fall=3"
        }
        "agent-check" | "agent-port" | "agent-inter" => {
            "an agent is the backend's, for all of its servers: agent-check port=9777 interval=\"5s\""
        }
        "observe" | "error-limit" | "on-error" => {
            "that is the backend's: observe \"connect\" error-limit=10 on-error=\"mark-down\""
        }
        "maxconn" => "write max-connections=100",
        "maxqueue" => "the queue is the backend's: max-queue 50",
        "tls" | "ssl" | "verify" | "ca" | "ca-file" | "cert" | "crt" | "key" | "sni" => {
            "TLS is said in the server's block: { tls ca=\"ca.pem\" sni=\"db.example.net\" }"
        }
        "alpn" => "protocols stand in the server's block, beside `tls`: { tls; alpn \"h2\" }",
        "send-proxy" => "write send-proxy=\"v1\"",
        "send-proxy-v2" | "send-proxy-v2-ssl" => "write send-proxy=\"v2\"",
        "tcp-ut" => "write tcp-user-timeout=\"30s\"",
        "usesrc" => "write source=\"client-ip\"",
        "resolvers" | "init-addr" => "names are followed by themselves; `resolver`, at the top, says who is asked",
        _ => return None,
    })
}

/// Reads a `server`, or all that a `server-template` makes.
fn server(mut node: Node<'_>, mode: Mode, names: &mut HashMap<String, SourceSpan>) -> Vec<ReadServer> {
    let span = node.span();
    node.hints(haproxys);
    let is_template = node.name() == "server-template";
    let count = if is_template {
        let count = node.required_property("count").map(|value| value.integer(SLOTS));
        count.map(|count| count.unwrap_or(1))
    } else {
        None
    };
    let backup = node.flag("backup");
    let disabled = node.flag("disabled");
    let http2 = node.flag("h2");
    let checksum = node.flag("proxy-crc32c");
    let name = section_name(&mut node, "the server's name");
    let own: Vec<String> = match (name, count) {
        (Some(name), Some(count)) => (1..=count).map(|n| format!("{}-{n}", name.value)).collect(),
        (Some(name), None) => vec![name.value.to_owned()],
        (None, _) => Vec::new(),
    };
    for one in &own {
        let at = name.map_or(span, |name| name.span);
        match names.get(one) {
            Some(first) => {
                node.fail(declared_twice(&format!("the server {:?}", clip(one)), *first, at));
                break;
            }
            None => {
                names.insert(one.clone(), at);
            }
        }
    }
    let place = node.argument("the server's address");
    let address = place.and_then(|value| address(&value));
    if let (true, Some(ServerAddress::Fixed(_) | ServerAddress::Echo), Some(place)) = (is_template, &address, place) {
        let error = ConfigError::new(Code::Conflict, "a template makes servers of a name's addresses");
        let error = error.label(place.span(), "not a name");
        node.fail(error.help("write the name, as \"app.internal:8080\", or a `server` for this address"));
    }
    let weight = node.property("weight").map(|value| {
        let weight = u16::try_from(value.integer(0..=u64::from(MAX_WEIGHT))?).ok()?;
        Some(value.at(weight))
    });
    let slow_start = node
        .property("slow-start")
        .map(|value| Some(value.at(value.duration(TIMEOUT_RANGE)?)));
    let tls = node
        .block()
        .map(|block| tls::of_server(node.ctx, mode, http2.is_some(), block));
    if let (Some(ServerAddress::Echo), Some(Some(Some(tls))), Some(place)) = (&address, &tls, place) {
        let error = ConfigError::new(Code::Conflict, "the echo server speaks no TLS");
        let error = error
            .label(tls.origin.span, "not with it")
            .label(place.span(), "this one");
        node.fail(error.help("leave `tls` out"));
    }
    if let (Some(ServerAddress::Fixed(Address::Unix(_))), Some(Some(Some(tls))), Some(place)) = (&address, &tls, place)
        && tls.sni.is_none()
        && tls.verify != Verify::None
    {
        let error = ConfigError::new(
            Code::Missing,
            "a server on a UNIX socket has no name of its own to verify",
        );
        let error = error
            .label(tls.origin.span, "verifies its certificate")
            .label(place.span(), "has neither a name nor an IP address");
        node.fail(error.help("write the name that its certificate is for: tls sni=\"app.example.net\""));
    }
    if let Some(flag) = http2 {
        report_http2(&node, mode, flag, address.as_ref());
    }
    let at = address.as_ref().zip(place.map(|place| place.span()));
    let send_proxy = send_proxy::send_proxy(&mut node, checksum, at);
    let on_marked_down = node.property("on-marked-down");
    let on_marked_down = on_marked_down.map(|value| Some(value.at(value.choice(ON_MARKED_DOWN)?)));
    let on_marked_up = node.property("on-marked-up");
    let on_marked_up = on_marked_up.map(|value| Some(value.at(value.choice(ON_MARKED_UP)?)));
    let own_source = node.property("source");
    let interface = node.property("interface");
    let user_timeout = node.property("tcp-user-timeout");
    if let Some(ServerAddress::Echo | ServerAddress::Fixed(Address::Unix(_))) = &address {
        let said = [
            ("source", &own_source),
            ("interface", &interface),
            ("tcp-user-timeout", &user_timeout),
        ];
        for (name, said) in said.into_iter().filter_map(|(name, said)| Some((name, said.as_ref()?))) {
            let error = ConfigError::new(
                Code::Inert,
                format!("`{name}=` does nothing: this server is not reached over a network"),
            );
            node.fail(error.label(said.span(), "not used").help("leave it out"));
        }
    }
    let own_source = own_source.map(|value| Some(value.at(source::address(&value)?)));
    let interface = interface.map(|value| socket_options::interface(&value));
    let user_timeout = user_timeout.map(|value| socket_options::user_timeout(&value));
    let cookie = node.property("cookie");
    if let (Some(cookie), Mode::Tcp) = (&cookie, mode) {
        let error = ConfigError::new(Code::Mode, "`cookie=` needs HTTP mode");
        node.fail(
            error
                .label(cookie.span(), "connections have no cookies")
                .help("leave it out"),
        );
    }
    let cookie_at = cookie.as_ref().map(Value::span);
    let cookie = cookie.map(|value| persistence::server_value(&value));
    let max_connections = node.property("max-connections");
    let max_connections_at = max_connections.as_ref().map(Value::span);
    let max_connections =
        max_connections.map(|value| NonZeroUsize::new(usize::try_from(value.integer(MAX_CONNECTIONS)?).ok()?));
    if let (Some(ServerAddress::Name(source)), Some(Some(weight))) = (&address, &weight)
        && let NameSource::Service { .. } = **source
    {
        let error = ConfigError::new(Code::Inert, "`weight=` does nothing: SRV records say the weight");
        node.fail(error.label(weight.span, "not used").help("leave it out"));
    }
    node.finish();
    let tls = tls.map(|tls| Some(tls?.map(|tls| named(tls, address.as_ref()))));
    // Servers of a template are told apart as their names are.
    let cookie_of = |name: &str| -> Option<Option<Arc<str>>> {
        let number = name.rsplit_once('-').filter(|_| is_template);
        Some(or_none(cookie.clone())?.map(|value| match number {
            Some((_, number)) => format!("{value}-{number}").into(),
            None => value.into(),
        }))
    };
    let server = |name: &str| {
        Some(Server {
            name: name.into(),
            address: address.clone()?,
            weight: or_none(weight)?.map_or(DEFAULT_WEIGHT, |weight| weight.value),
            backup: backup.is_some(),
            disabled: disabled.is_some(),
            slow_start: or_none(slow_start)?.map(|value| value.value),
            cookie: cookie_of(name)?,
            tls: or_none(tls.clone())?.flatten(),
            send_proxy: send_proxy?,
            http2: http2.is_some(),
            max_connections: or_none(max_connections)?,
            // So has it of this.
            source: or_none(own_source)?.map(|source| source.value),
            interface: or_none(interface.clone())?,
            user_timeout: or_none(user_timeout)?,
            // The backend has its say, too: settled there.
            session_end: or_none(on_marked_down).map(|_| SessionEnd::Natural)?,
            relieves_backups: or_none(on_marked_up).map(|_| false)?,
        })
    };
    let read = |server| ReadServer {
        server,
        span,
        backup,
        weight: weight.flatten(),
        slow_start: slow_start.flatten().map(|value| value.span),
        max_connections: max_connections_at,
        on_marked_down: on_marked_down.flatten(),
        on_marked_up: on_marked_up.flatten(),
        cookie: cookie_at,
        source: own_source.flatten(),
    };
    if own.is_empty() {
        return vec![read(None)];
    }
    own.iter().map(|name| read(server(name))).collect()
}

/// Reports HTTP/2 to a server that cannot have it.
fn report_http2(node: &Node<'_>, mode: Mode, flag: SourceSpan, address: Option<&ServerAddress>) {
    let error = if mode == Mode::Tcp {
        ConfigError::new(Code::Mode, "`h2` needs HTTP mode")
            .label(flag, "in TCP mode, what the client speaks goes through as it is")
            .help("leave it out")
    } else if let Some(ServerAddress::Echo) = address {
        ConfigError::new(Code::Conflict, "the echo server speaks HTTP/1.1")
            .label(flag, "not this")
            .help("leave `h2` out")
    } else {
        return;
    };
    node.fail(error);
}

/// In TLS, a server that has a name is asked for it and has to show it.
fn named(tls: ServerTls, address: Option<&ServerAddress>) -> ServerTls {
    let Some(ServerAddress::Name(source)) = address else {
        return tls;
    };
    let NameSource::Host { name, .. } = &**source else {
        return tls;
    };
    let own = ServerName::try_from(name.to_string()).ok();
    ServerTls {
        sni: tls.sni.or(own),
        ..tls
    }
}

fn address(value: &Value<'_>) -> Option<ServerAddress> {
    match value.text()? {
        "echo" => Some(ServerAddress::Echo),
        word if !word.contains([':', '.']) && suggest::nearest(word, ["echo"]).is_some() => value.fail(
            "a server's address is an IP address or a name, with a port, or \"echo\"",
            "none of these",
            "did you mean `echo`?",
        ),
        text if unix_socket::is_meant(text) => unix_socket::address(value, MOST_UNIX_PATH).map(ServerAddress::Fixed),
        name if resolver::looks_like_a_name(name) => Some(ServerAddress::Name(Arc::new(resolver::source(value)?))),
        _ => socket_address(value, Port::Set).map(|address| ServerAddress::Fixed(address.into())),
    }
}

const DEFAULT_WEIGHT: u16 = 1;
/// Servers of one template: more records than this are not looked at either.
const SLOTS: RangeInclusive<u64> = 1..=256;
/// As HAProxy's; the smooth algorithms stay exact far above it.
const MAX_WEIGHT: u16 = 256;
