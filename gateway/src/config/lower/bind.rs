//! `bind "127.0.0.1:8080" accept-proxy { tls cert="…" key="…" }`, and addresses in general.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use miette::SourceSpan;

use super::{accept_proxy, elsewhere, or_none, socket_options, tls, unix_socket};
use crate::address::{Address, MOST_LISTENING_PATH};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AcceptProxy, BACKLOG, Bind, Mode, Trusted};
use crate::config::reader::{At, Context, Node, Value};

/// The addresses that are listened on, over the whole configuration: the same one twice would split its connections
/// between two owners at random, since every worker shares its port. On an interface each it is two.
#[derive(Default)]
pub(super) struct Binds {
    taken: HashMap<Address, Vec<Taken>>,
}

/// That an address is taken: on which interface, where it is on one alone, and where that is said.
struct Taken {
    interface: Option<Arc<str>>,
    at: SourceSpan,
}

impl Binds {
    /// The IP address that a value says, when nobody has it yet.
    pub(super) fn take(&mut self, value: &Value<'_>) -> Option<SocketAddr> {
        let address = socket_address(value, Port::Any)?;
        self.take_address(value, address.into(), None)?.socket()
    }

    /// The same, or a UNIX socket.
    fn take_any(&mut self, value: &Value<'_>, interface: Option<&Arc<str>>) -> Option<Address> {
        let address = match unix_socket::is_meant(value.text()?) {
            true => unix_socket::address(value, MOST_LISTENING_PATH)?,
            false => socket_address(value, Port::Any)?.into(),
        };
        self.take_address(value, address, interface)
    }

    fn take_address(&mut self, value: &Value<'_>, address: Address, interface: Option<&Arc<str>>) -> Option<Address> {
        if address.socket().is_some_and(|address| address.port() == 0) {
            return Some(address);
        }
        let taken = self.taken.entry(address.clone()).or_default();
        let is_same = |other: Option<&Arc<str>>| match (other, interface) {
            (Some(other), Some(interface)) => other == interface,
            // Whoever names none has them all.
            _ => true,
        };
        if let Some(first) = taken.iter().find(|other| is_same(other.interface.as_ref())) {
            let error = ConfigError::new(Code::Duplicate, format!("{address} is listened on twice"));
            let error = error
                .label(value.span(), "again here")
                .label(first.at, "already taken here");
            let help = match address {
                Address::Ip(_) => "give one of them another port",
                Address::Unix(_) => "give one of them another path",
            };
            value.context().report(error.help(help));
            return None;
        }
        taken.push(Taken {
            interface: interface.cloned(),
            at: value.span(),
        });
        Some(address)
    }
}

/// Reads a frontend's `bind`.
pub(super) fn bind(binds: &mut Binds, mode: Mode, mut node: Node<'_>) -> Option<Bind> {
    let origin = node.origin();
    node.hints(haproxys);
    let place = node.argument("an address");
    let is_unix = place
        .and_then(|value| value.raw().as_string())
        .is_some_and(unix_socket::is_meant);
    let socket = socket_options::of_bind(&mut node, is_unix);
    let interface = socket.as_ref().and_then(|socket| socket.interface.as_ref());
    let address = place.and_then(|value| binds.take_any(&value, interface));
    let access = unix_socket::access(&mut node, address.as_ref());
    let flag = node.flag("accept-proxy");
    let backlog = match node.property("backlog") {
        Some(value) => value.integer(BACKLOGS).and_then(|backlog| u32::try_from(backlog).ok()),
        None => Some(BACKLOG),
    };
    let (tls, alpn, said) = match node.block() {
        Some(mut block) => {
            let tls = block.one("tls");
            let alpn = tls::alpn(node.ctx, tls::spoken_to_clients(mode), block.one("alpn"), tls.is_some());
            let tls = tls.map(tls::of_bind);
            let said = block.one("accept-proxy");
            block.finish(elsewhere);
            (tls, alpn, said.map(|node| accept_proxy::accept_proxy(node, flag)))
        }
        None => (None, Some(Vec::new()), None),
    };
    let accept_proxy = said.or(flag.map(|_| Some(accept_proxy::flag())));
    report_networks(&node, address.as_ref(), accept_proxy.as_ref());
    node.finish();
    Some(Bind {
        address: address?,
        access: access?,
        socket: socket?,
        tls: or_none(tls)?,
        accept_proxy: or_none(accept_proxy)?,
        alpn: alpn?,
        backlog: backlog?,
        origin,
    })
}

/// Reports networks of a bind that nobody connects to from one.
fn report_networks(node: &Node<'_>, address: Option<&Address>, accept: Option<&Option<AcceptProxy>>) {
    if let (Some(Address::Unix(_)), Some(Some(accept))) = (address, accept)
        && let Trusted::Networks(_) = accept.trusted
    {
        let error = ConfigError::new(Code::Inert, "nobody connects to a UNIX socket from a network");
        let error = error.label(
            node.span(),
            "its `accept-proxy` names some, and would ask nobody for a header",
        );
        node.fail(error.help("leave the networks out, and say by `mode=` and `group=` who may connect"));
    }
}

/// The protocols that are agreed on where nothing is said of them: those that are spoken.
pub(super) fn agree(ctx: &Context<'_>, bind: &mut Bind, http2_off: Option<At<bool>>) {
    if bind.tls.is_none() {
        return;
    }
    if bind.alpn.is_empty() {
        let http2 = http2_off.is_none().then(|| tls::HTTP2.to_vec());
        bind.alpn = http2.into_iter().chain([tls::HTTP1.to_vec()]).collect();
    } else if let Some(off) = http2_off
        && bind.alpn.iter().any(|protocol| protocol == tls::HTTP2)
    {
        let error = ConfigError::new(Code::Conflict, "HTTP/2 is agreed on, and is off");
        let error = error
            .label(bind.origin.span, "this bind has it in `alpn`")
            .label(off.span, "turns it off");
        ctx.report(error.help("one of them has to go"));
    }
}

/// Reports that there is no `bind`.
pub(super) fn report_none(ctx: &Context<'_>, whose: &str, span: SourceSpan) {
    let error = ConfigError::new(Code::Missing, format!("{whose} needs a `bind`"));
    let error = error.label(span, "listens nowhere");
    ctx.report(error.help("write where clients connect to: bind \"127.0.0.1:8080\""));
}

/// HAProxy's words for what is said in another way here.
fn haproxys(word: &str) -> Option<&'static str> {
    match word {
        "tcp-ut" => Some("write tcp-user-timeout=\"30s\""),
        "v4v6" | "v6only" => {
            Some("`[::]` is IPv6 alone: for both kinds write two binds, \"0.0.0.0:443\" and \"[::]:443\"")
        }
        "tls" | "ssl" | "cert" | "crt" | "key" | "ca-file" | "verify" | "min-version" | "alpn" => {
            Some("TLS is said in the block: bind \"0.0.0.0:443\" { tls cert=\"bundle.pem\" }")
        }
        _ => None,
    }
}

/// Whether port 0 means something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// It asks the system for a free one.
    Any,
    /// There is nothing there.
    Set,
}

/// An IP address and a port. Names are not looked up: what they mean could change while they are being used.
pub(super) fn socket_address(value: &Value<'_>, port: Port) -> Option<SocketAddr> {
    let text = value.text()?;
    let title = value.title();
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 && port == Port::Set {
            return value.fail(
                format!("{title} has port 0"),
                "nothing can be there",
                "write the port it listens on",
            );
        }
        return Some(address);
    }
    let message = format!("{title} has to be an IP address and a port");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let help = format!("write it before the port, as \"0.0.0.0:{text}\" or \"127.0.0.1:{text}\"");
        return value.fail(message, "the address is missing", help);
    }
    let split = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    if let Some((ip, port)) = split.filter(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok()) {
        let help = format!("write \"[{ip}]:{port}\" for port {port} of {ip}");
        return value.fail(message, "an IPv6 address needs brackets", help);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 8080);
        return value.fail(
            message,
            "the port is missing",
            format!("write it behind the address, as \"{example}\""),
        );
    }
    let (host, _) = text.rsplit_once(':').unwrap_or((text, ""));
    if host.is_empty() || host == "*" {
        let help = "write \"0.0.0.0:PORT\" for all IPv4 addresses, \"[::]:PORT\" for all of IPv6";
        return value.fail(message, "the address is missing", help);
    }
    let trimmed = host.trim_start_matches('[').trim_end_matches(']');
    if trimmed.parse::<IpAddr>().is_ok() {
        return value.fail(message, "the port is not one", "a port is a number from 0 to 65535");
    }
    if text.contains("://") {
        return value.fail(
            message,
            "this is a URL",
            "write the address and the port alone, as \"10.0.0.1:8080\"",
        );
    }
    if unix_socket::is_meant(text) {
        return value.fail(
            message,
            "this is a UNIX socket",
            "write an IP address and a port, as \"127.0.0.1:8080\": only a frontend's `bind` and a `server` may be one",
        );
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let label = "not an IPv4 address";
        return value.fail(
            message,
            label,
            "it has four numbers from 0 to 255, as \"10.0.0.1:8080\"",
        );
    }
    value.fail(
        message,
        "host names are not looked up",
        "write the IP address that the name has, as \"10.0.0.1:8080\"",
    )
}

/// What `listen(2)` can be told that a queue of 16 bits took once, and no more than memory should be promised for.
const BACKLOGS: RangeInclusive<u64> = 1..=65_535;
