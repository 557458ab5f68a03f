//! `source "192.0.2.1"`: which of the machine's addresses connections to servers come from.

use std::net::{IpAddr, SocketAddr};

use super::server::ReadServer;
use super::settings::Settings;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::ServerAddress;
use crate::config::reader::{At, Context, Value};

/// An address, without a port.
pub(super) fn address(value: &Value<'_>) -> Option<IpAddr> {
    let text = value.text()?;
    let title = value.title();
    if text.parse::<SocketAddr>().is_ok() {
        let help =
            "write the address alone: with a port of its own, there could be one connection to a server at a time";
        return value.fail(format!("{title} has no port"), "the system chooses one", help);
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        let help = "write an address of this machine, as \"192.0.2.1\"; `ip address` says which there are";
        return value.fail(format!("{title} has to be an IP address"), "is none", help);
    };
    if address.is_unspecified() {
        return value.fail(
            format!("{title} is every address"),
            "any address is what is taken without it",
            "leave it out",
        );
    }
    Some(address)
}

/// Settles what each server's connections come from: what it says itself, or its backend, or the defaults. What cannot be, and what does
/// nothing, is reported.
pub(super) fn settle(ctx: &Context<'_>, own: &Settings, inherited: &Settings, servers: &mut [ReadServer]) {
    let shared = own.source.or(inherited.source);
    let shared = shared.and_then(|said| {
        Some(At {
            value: said.value?,
            span: said.span,
        })
    });
    let mut is_used = false;
    for read in &mut *servers {
        let Some(server) = &mut read.server else {
            // It has faults of its own, and may have been one that uses it.
            is_used = true;
            continue;
        };
        let Some(said) = read.source.or(shared) else { continue };
        match &server.address {
            ServerAddress::Fixed(address) => match address.ip() {
                Some(ip) if ip.is_ipv4() != said.value.is_ipv4() => {
                    let message = format!("{address} cannot be reached from {}", said.value);
                    let error = ConfigError::new(Code::Conflict, message);
                    let error = error
                        .label(said.span, "of one family")
                        .label(read.span, "this server is of the other");
                    ctx.report(
                        error.help("give this server a `source=` of its own, or write `source \"off\"` in its backend"),
                    );
                    is_used |= read.source.is_none();
                    continue;
                }
                Some(_) => {}
                // Over a UNIX socket there is none.
                None => continue,
            },
            // Of which family its address is, only DNS knows.
            ServerAddress::Name(_) => {}
            ServerAddress::Echo => continue,
        }
        is_used |= read.source.is_none();
        server.source = Some(said.value);
    }
    let unused = own.source.filter(|said| said.value.is_some() && !is_used);
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
