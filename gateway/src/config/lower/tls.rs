//! `tls …` and `alpn …` in the blocks of binds and servers.

use std::path::PathBuf;

use kdl::KdlValue;
use rustls_pki_types::ServerName;

use super::resumption::{self, Returning};
use super::tls_parameters::{self, End, Versions};
use super::{elsewhere, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Authorities, BindTls, CertificateFiles, CertificateSource, ClientAuthorities, Mode, ServerTls, Verify,
};
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

/// Reads how a check speaks TLS: `tls …` in its block, and `alpn …` where the check itself does not say what is agreed on.
#[allow(clippy::option_option)]
pub(super) fn of_check(block: &mut Block<'_>, has_alpn: bool) -> Option<Option<ServerTls>> {
    let tls = block.one("tls");
    let alpn = match has_alpn.then(|| block.one("alpn")).flatten() {
        Some(node) => alpn(node.ctx, None, Some(node), tls.is_some()),
        None => Some(Vec::new()),
    };
    let Some(tls) = tls else { return Some(None) };
    let tls = server(tls);
    let alpn = alpn?;
    let mut tls = tls?;
    tls.alpn = alpn;
    Some(Some(tls))
}

/// Reads a bind's `tls`.
pub(super) fn of_bind(mut node: Node<'_>) -> Option<BindTls> {
    let origin = node.origin();
    let versions = Versions::read(&mut node);
    let strict_sni = node.flag("strict-sni").is_some();
    let folder = node.property("cert-dir").map(|value| path(&value));
    let mut sources = Vec::new();
    if node.block_says("cert") || node.block_says("cert-dir") || folder.is_some() {
        let files = node.property("cert").map(|value| path(&value));
        match files {
            Some(cert) => sources.push(certificate(&mut node, cert)),
            None => refuse_without_cert(&mut node),
        }
    } else {
        let cert = node.required_property("cert").and_then(|value| path(&value));
        sources.push(certificate(&mut node, cert));
    }
    sources.extend(folder.map(|folder| folder.map(CertificateSource::Folder)));
    let (parameters, clients, resumption) = match node.block() {
        Some(mut block) => {
            for mut node in block.any(&["cert", "cert-dir"]) {
                let place = node.argument(if node.name() == "cert" { "a file" } else { "a folder" });
                let place = place.and_then(|value| path(&value));
                sources.push(match node.name() {
                    "cert" => certificate(&mut node, place),
                    _ => place.map(CertificateSource::Folder),
                });
                node.finish();
            }
            let parameters = tls_parameters::read(&versions, &mut block, End::Bind);
            let crls = crls(&mut block);
            let clients = clients(block.one("client-ca"), crls);
            let resumption = resumption::read(&mut block);
            block.finish(elsewhere_in_tls);
            (parameters, clients, resumption)
        }
        None => (versions.alone(), Some(None), Some(Returning::default())),
    };
    node.finish();
    let Returning { resumption, keys } = resumption?;
    Some(BindTls {
        certificates: sources.into_iter().collect::<Option<_>>()?,
        strict_sni,
        clients: clients?,
        parameters: parameters?,
        resumption,
        ticket_keys: keys,
        origin,
    })
}

/// `key=` and `ocsp=` beside a certificate.
fn certificate(node: &mut Node<'_>, cert: Option<At<PathBuf>>) -> Option<CertificateSource> {
    let key = node.property("key").map(|value| path(&value));
    let ocsp = node.property("ocsp").map(|value| path(&value));
    Some(CertificateSource::Files(CertificateFiles {
        cert: cert?,
        key: or_none(key)?,
        ocsp: or_none(ocsp)?,
    }))
}

/// `key=` and `ocsp=` belong to a `cert=`.
fn refuse_without_cert(node: &mut Node<'_>) {
    for key in ["key", "ocsp"] {
        if let Some(value) = node.property(key) {
            let error = ConfigError::new(Code::Inert, format!("`{key}=` does nothing without `cert=`"));
            let error = error.label(value.span(), "of which certificate?");
            node.fail(error.help(format!("write it behind its certificate: cert \"a.pem\" {key}=\"…\"")));
        }
    }
}

/// `client-ca "ca.pem" verify="optional" depth=1`, and the `crl` beside it.
#[allow(clippy::option_option)]
fn clients(node: Option<Node<'_>>, crls: Crls<'_>) -> Option<Option<ClientAuthorities>> {
    let Some(mut node) = node else {
        if let Some(fail) = crls.inert {
            fail();
        }
        return crls.files.map(|_| None);
    };
    let files = node.some_arguments("a file with authorities");
    let files: Option<Vec<_>> = match files.is_empty() {
        true => None,
        false => files.iter().map(path).collect(),
    };
    let required = node.property("verify").map(|value| match value.any_text() {
        Some("none") => value.fail(
            "clients that are not verified are not asked for a certificate",
            "would make `client-ca` do nothing",
            "leave `client-ca` out, or write verify=\"optional\" to let those in who show none",
        ),
        _ => value.choice(&[("required", true), ("optional", false)]),
    });
    let depth = node.property("depth").map(|value| {
        let depth = value.integer(0..=MAX_DEPTH)?;
        usize::try_from(depth).ok()
    });
    node.finish();
    Some(Some(ClientAuthorities {
        files: files?,
        required: or_none(required)?.unwrap_or(true),
        depth: or_none(depth)?,
        crls: crls.files?,
    }))
}

/// The files of a `crl`, and what is to be said when nobody's certificates are looked at.
struct Crls<'a> {
    files: Option<Vec<At<PathBuf>>>,
    inert: Option<Box<dyn FnOnce() + 'a>>,
}

/// `crl "ca.crl" "other.crl"`.
fn crls<'a>(block: &mut Block<'a>) -> Crls<'a> {
    let Some(mut node) = block.one("crl") else {
        return Crls {
            files: Some(Vec::new()),
            inert: None,
        };
    };
    let values = node.some_arguments("a file with a revocation list");
    let files = match values.is_empty() {
        true => None,
        false => values.iter().map(path).collect(),
    };
    let (ctx, span) = (node.ctx, node.span());
    node.finish();
    let inert = move || {
        let error = ConfigError::new(Code::Inert, "`crl` does nothing here");
        let error = error.label(span, "nobody's certificate is looked at");
        ctx.report(
            error.help("say whose certificates are believed: client-ca \"ca.pem\" in a bind, `ca=` at a server"),
        );
    };
    Crls {
        files,
        inert: Some(Box::new(inert)),
    }
}

fn server(mut node: Node<'_>) -> Option<ServerTls> {
    let origin = node.origin();
    let versions = Versions::read(&mut node);
    let verify = node.property("verify").map(|value| {
        let required = value.choice(&[("required", true), ("none", false)])?;
        Some(value.at(required))
    });
    let ca = node.property("ca").map(|value| path(&value));
    let sni = node.property("sni");
    let of_client = sni.filter(|value| matches!(value.raw(), KdlValue::String(text) if text == CLIENT));
    let sni = match of_client {
        Some(_) => node.property("check-sni").map(|value| server_name(&value)),
        None => sni.map(|value| server_name(&value)),
    };
    if let (None, Some(name)) = (of_client, node.hidden_property("check-sni")) {
        let error = ConfigError::new(Code::Inert, "`check-sni=` does nothing without sni=\"client\"");
        let error = error.label(name.span(), "checks ask for the same name as traffic");
        node.fail(error.help("leave it out, or write sni=\"client\" to ask for each client's name"));
    }
    let cert = node.property("cert").map(|value| path(&value));
    let key = node.property("key").map(|value| path(&value));
    let well = !(is_inert_ca(&node, verify.flatten(), ca.as_ref()) | is_inert_key(&node, cert.is_some(), key.as_ref()));
    let (parameters, crls) = match node.block() {
        Some(mut block) => {
            let parameters = tls_parameters::read(&versions, &mut block, End::Server);
            let crls = crls(&mut block);
            block.finish(elsewhere_in_tls);
            (parameters, crls)
        }
        None => (
            versions.alone(),
            Crls {
                files: Some(Vec::new()),
                inert: None,
            },
        ),
    };
    node.finish();
    let verify = match (or_none(verify)?, or_none(ca)?) {
        (Some(At { value: false, .. }), _) => Verify::None,
        (_, Some(ca)) => Verify::Required(Authorities::File(ca)),
        (_, None) => Verify::Required(Authorities::System),
    };
    if let (Verify::None, Some(fail)) = (&verify, crls.inert) {
        fail();
    }
    let (cert, key) = (or_none(cert)?, or_none(key)?);
    well.then_some(ServerTls {
        verify,
        crls: crls.files?,
        sni: or_none(sni)?,
        sni_of_client: of_client.is_some(),
        identity: cert.map(|cert| CertificateFiles { cert, key, ocsp: None }),
        parameters: parameters?,
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

pub(super) fn path(value: &Value<'_>) -> Option<At<PathBuf>> {
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

fn elsewhere_in_tls(name: &str) -> Option<&'static str> {
    match name {
        "key" | "ocsp" => Some("write it behind its certificate: cert \"a.pem\" key=\"a.key\" ocsp=\"a.ocsp\""),
        "ca" => Some("`ca=` is a property of a server's `tls`; in a bind, write client-ca \"ca.pem\""),
        "verify" => Some("write it behind the authorities: client-ca \"ca.pem\" verify=\"optional\""),
        "min-version" | "max-version" => Some("this is a property: tls min-version=\"1.2\" { … }"),
        "strict-sni" => Some("this is a flag: tls cert=\"bundle.pem\" strict-sni"),
        "alpn" => Some("`alpn` stands beside `tls`, not in its block"),
        "ciphersuites" => Some("write `ciphers`, for all versions"),
        "groups" | "ecdhe" => Some("write `curves`"),
        name => elsewhere(name),
    }
}

/// HTTP/2, as TLS knows it (RFC 9113, section 3.1).
pub(super) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1, as TLS knows it.
pub(super) const HTTP1: &[u8] = b"http/1.1";
/// What `sni=` says instead of a name.
const CLIENT: &str = "client";

/// RFC 7301, section 3.1: the length is one byte.
const LONGEST_PROTOCOL: usize = 255;
/// The library builds no longer paths.
const MAX_DEPTH: u64 = 6;
