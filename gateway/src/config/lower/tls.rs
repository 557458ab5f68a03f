//! `tls …` and `alpn …` in the blocks of binds and servers.

use std::path::PathBuf;

use rustls_pki_types::ServerName;

use super::{elsewhere, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Authorities, BindTls, Mode, ServerTls, Verify};
use crate::config::reader::{At, Block, Context, Node, Value, clip, said_twice};

/// Reads a server's block: `{ tls ca="ca.pem" sni="db.example.net"; alpn "postgresql" }`.
#[allow(clippy::option_option)]
pub(super) fn of_server(ctx: &Context<'_>, mode: Mode, http2: bool, mut block: Block<'_>) -> Option<Option<ServerTls>> {
    let tls = block.one("tls");
    let spoken: Option<&[&[u8]]> = match (mode, http2) {
        (Mode::Tcp, _) => None,
        (Mode::Http, true) => Some(&[HTTP2]),
        (Mode::Http, false) => Some(&[HTTP1]),
    };
    let alpn = alpn(ctx, spoken, block.one("alpn"), tls.is_some());
    block.finish(elsewhere);
    let Some(tls) = tls else { return Some(None) };
    let tls = server(tls);
    let alpn = alpn?;
    let mut tls = tls?;
    tls.alpn = alpn;
    Some(Some(tls))
}

/// Reads a bind's `tls`.
pub(super) fn of_bind(mut node: Node<'_>) -> Option<BindTls> {
    let cert = node.required_property("cert").and_then(|value| path(&value));
    let key = node.property("key").map(|value| path(&value));
    node.finish();
    Some(BindTls {
        cert: cert?,
        key: or_none(key)?,
    })
}

fn server(mut node: Node<'_>) -> Option<ServerTls> {
    let origin = node.origin();
    let verify = node.property("verify").map(|value| {
        let required = value.choice(&[("required", true), ("none", false)])?;
        Some(value.at(required))
    });
    let ca = node.property("ca").map(|value| path(&value));
    let sni = node.property("sni").map(|value| server_name(&value));
    let cert = node.property("cert").map(|value| path(&value));
    let key = node.property("key").map(|value| path(&value));
    let well = !(is_inert_ca(&node, verify.flatten(), ca.as_ref()) | is_inert_key(&node, cert.is_some(), key.as_ref()));
    node.finish();
    let verify = match (or_none(verify)?, or_none(ca)?) {
        (Some(At { value: false, .. }), _) => Verify::None,
        (_, Some(ca)) => Verify::Required(Authorities::File(ca)),
        (_, None) => Verify::Required(Authorities::System),
    };
    let (cert, key) = (or_none(cert)?, or_none(key)?);
    well.then_some(ServerTls {
        verify,
        sni: or_none(sni)?,
        identity: cert.map(|cert| BindTls { cert, key }),
        alpn: Vec::new(),
        origin,
    })
}

#[allow(clippy::option_option)]
fn is_inert_ca(node: &Node<'_>, verify: Option<At<bool>>, ca: Option<&Option<At<PathBuf>>>) -> bool {
    let (Some(At { value: false, span }), Some(ca)) = (verify, ca) else {
        return false;
    };
    let error = ConfigError::new(Code::Inert, "`ca=` does nothing beside verify=\"none\"");
    let place = ca.as_ref().map_or(node.span(), |ca| ca.span);
    let error = error
        .label(place, "nobody is asked for a certificate of theirs")
        .label(span, "because of this");
    node.fail(error.help("leave `verify=` out to believe only these authorities"));
    true
}

#[allow(clippy::option_option)]
fn is_inert_key(node: &Node<'_>, has_cert: bool, key: Option<&Option<At<PathBuf>>>) -> bool {
    let (false, Some(key)) = (has_cert, key) else {
        return false;
    };
    let error = ConfigError::new(Code::Inert, "`key=` does nothing without `cert=`");
    let place = key.as_ref().map_or(node.span(), |key| key.span);
    let error = error.label(place, "of which certificate?");
    node.fail(error.help("write cert=\"client.pem\" beside it, the certificate that is shown to the server"));
    true
}

/// What may be agreed on with clients; none means anything, as nothing of it is read.
pub(super) fn spoken_to_clients(mode: Mode) -> Option<&'static [&'static [u8]]> {
    (mode == Mode::Http).then_some(&[HTTP2, HTTP1])
}

/// `alpn "h2" "http/1.1"`, in order of preference. `spoken` is what may be agreed on; none means anything.
pub(super) fn alpn(
    ctx: &Context<'_>,
    spoken: Option<&[&[u8]]>,
    node: Option<Node<'_>>,
    beside_tls: bool,
) -> Option<Vec<Vec<u8>>> {
    let Some(mut node) = node else { return Some(Vec::new()) };
    let values = node.some_arguments("a protocol");
    let mut well = !values.is_empty() && beside_tls;
    if !beside_tls {
        let error = ConfigError::new(Code::Inert, "`alpn` does nothing without `tls`");
        ctx.report(
            error
                .label(node.span(), "agreed on in a handshake of TLS")
                .help("write `tls` beside it"),
        );
    }
    let mut protocols: Vec<At<Vec<u8>>> = Vec::new();
    for value in values {
        let Some(protocol) = protocol(spoken, &value) else {
            well = false;
            continue;
        };
        match protocols.iter().find(|first| first.value == protocol) {
            Some(first) => ctx.report(said_twice("this protocol", first.span, value.span())),
            None => protocols.push(value.at(protocol)),
        }
    }
    node.finish();
    well.then(|| protocols.into_iter().map(|at| at.value).collect())
}

fn protocol(spoken: Option<&[&[u8]]>, value: &Value<'_>) -> Option<Vec<u8>> {
    let text = value.text()?;
    if text.len() > LONGEST_PROTOCOL {
        let message = format!("a protocol's name is longer than {LONGEST_PROTOCOL} bytes");
        return value.fail(message, "too long", "names are those of RFC 7301, as \"http/1.1\"");
    }
    if let Some(spoken) = spoken
        && !spoken.contains(&text.as_bytes())
    {
        let known: Vec<_> = spoken.iter().map(|name| String::from_utf8_lossy(name)).collect();
        let message = format!(
            "HTTP mode speaks {} here, and not {:?}",
            known.join(" and "),
            clip(text)
        );
        return value.fail(
            message,
            "could be agreed on, and then not spoken",
            "leave it out, or use mode \"tcp\" to pass it on unread",
        );
    }
    Some(text.as_bytes().to_vec())
}

fn path(value: &Value<'_>) -> Option<At<PathBuf>> {
    Some(value.at(value.context().path(value.text()?)))
}

fn server_name(value: &Value<'_>) -> Option<ServerName<'static>> {
    let text = value.text()?;
    match ServerName::try_from(text) {
        Ok(name) => Some(name.to_owned()),
        Err(_) => value.fail(
            format!("{:?} is not the name of a server", clip(text)),
            "neither a DNS name nor an address",
            "write the name that its certificate is for, as sni=\"db.example.net\"",
        ),
    }
}

/// HTTP/2, as TLS knows it (RFC 9113, section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1, as TLS knows it.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// RFC 7301, section 3.1: the length is one byte.
const LONGEST_PROTOCOL: usize = 255;
