//! `source "192.0.2.1" interface="eth1"`: which of the machine's addresses connections to servers come from, or that they come from the
//! client's, and which interface they leave by.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use miette::SourceSpan;

use super::server::ReadServer;
use super::settings::Settings;
use super::{or_none, socket_options};
use crate::address::Address;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{ServerAddress, SourceAddress};
use crate::config::reader::{At, Context, Node, Value};

/// What a backend or `defaults` say; one of the two at least.
#[derive(Debug, Clone)]
pub(super) struct SaidSource {
    address: Option<SourceAddress>,
    interface: Option<Arc<str>>,
}

/// Reads a backend's `source`.
pub(super) fn source(node: &mut Node<'_>) -> Option<SaidSource> {
    let interface = node.property("interface");
    let value = match interface {
        Some(_) => node.next_argument("the address"),
        None => Some(node.argument("the address")?),
    };
    let address = value.map(|value| address(&value));
    let interface = interface.map(|value| socket_options::interface(&value));
    Some(SaidSource {
        address: or_none(address)?,
        interface: or_none(interface)?,
    })
}

/// An address, without a port, or `"client-ip"`.
pub(super) fn address(value: &Value<'_>) -> Option<SourceAddress> {
    let text = value.text()?;
    let title = value.title();
    if text == "client-ip" {
        return Some(SourceAddress::ClientIp);
    }
    if text.parse::<SocketAddr>().is_ok() {
        let help =
            "write the address alone: with a port of its own, there could be one connection to a server at a time";
        return value.fail(format!("{title} has no port"), "the system chooses one", help);
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        let help = "write an address of this machine, as \"192.0.2.1\"; `ip address` says which there are. \"client-ip\" is the client's, and \
                    an interface is said behind it: interface=\"eth1\"";
        return value.fail(format!("{title} has to be an IP address"), "is none", help);
    };
    if address.is_unspecified() {
        return value.fail(
            format!("{title} is every address"),
            "any address is what is taken without it",
            "leave it out",
        );
    }
    Some(SourceAddress::Address(address))
}

/// Settles what each server's connections come from: what it says itself, or its backend, or the defaults. What cannot be, and what does
/// nothing, is reported. `user` is where the process gives root up.
pub(super) fn settle(
    ctx: &Context<'_>,
    own: &Settings,
    inherited: &Settings,
    user: Option<SourceSpan>,
    servers: &mut [ReadServer],
) {
    let shared = own.source.as_ref().or(inherited.source.as_ref());
    let of_backend = shared.and_then(|said| said.value.as_ref());
    let shared_address = shared.and_then(|said| {
        Some(At {
            value: said.value.as_ref()?.address?,
            span: said.span,
        })
    });
    let shared_interface = of_backend.and_then(|said| said.interface.as_ref());
    let mut is_used = false;
    let mut reported: Vec<SourceSpan> = Vec::new();
    for read in &mut *servers {
        let Some(server) = &mut read.server else {
            // It has faults of its own, and may have been one that uses it.
            is_used = true;
            continue;
        };
        let reached = match &server.address {
            ServerAddress::Fixed(Address::Ip(address)) => Some(*address),
            // Of which family its address is, only DNS knows.
            ServerAddress::Name(_) => None,
            // Over a UNIX socket there is none.
            ServerAddress::Fixed(Address::Unix(_)) | ServerAddress::Echo => continue,
        };
        is_used |= read.source.is_none() && shared_address.is_some();
        if server.interface.is_none() && shared_interface.is_some() {
            is_used = true;
            server.interface = shared_interface.cloned();
        }
        let Some(said) = read.source.or(shared_address) else {
            continue;
        };
        match (said.value, reached, user) {
            (SourceAddress::Address(from), Some(address), _) if address.is_ipv4() != from.is_ipv4() => {
                let message = format!("{address} cannot be reached from {from}");
                let error = ConfigError::new(Code::Conflict, message);
                let error = error
                    .label(said.span, "of one family")
                    .label(read.span, "this server is of the other");
                ctx.report(
                    error.help("give this server a `source=` of its own, or write `source \"off\"` in its backend"),
                );
                continue;
            }
            (SourceAddress::ClientIp, _, Some(user)) if !reported.contains(&said.span) => {
                reported.push(said.span);
                let message = "to connect from clients' addresses takes a right that `user` gives up";
                let error = ConfigError::new(Code::Conflict, message);
                let error = error.label(said.span, "takes CAP_NET_ADMIN").label(user, "gives it up");
                let help = "have the service manager start it as that user with this right: User= and AmbientCapabilities=CAP_NET_ADMIN of \
                            systemd";
                ctx.report(error.help(help));
            }
            _ => {}
        }
        server.source = Some(said.value);
    }
    let unused = own.source.as_ref().filter(|said| said.value.is_some() && !is_used);
    if let Some(said) = unused {
        let error = ConfigError::new(
            Code::Inert,
            "`source` does nothing here: no server of this backend uses it",
        );
        let error = error.label(
            said.span,
            "each says its own, is the echo server, or is on a UNIX socket",
        );
        ctx.report(error.help("leave it out"));
    }
}
