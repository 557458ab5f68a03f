//! `process { tracing "https://collector:4318" sample=0.01 service="edge" { tls ca="ca.pem"; header "Authorization" file="token" } }`.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue, header};
use miette::SourceSpan;
use rustls_pki_types::ServerName;

use super::access_log::fraction;
use super::header::header_name;
use super::{elsewhere, tls};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Authorities, CollectorHeader, CollectorValue, Endpoint, Origin, ServerTls, TlsParameters, Tracing, Verify,
};
use crate::config::reader::{At, Block, Context, Node, Value, clip, said_twice};
use crate::crypto::TlsVersion;

/// Reads the node.
pub(super) fn tracing(mut node: Node<'_>) -> Option<Tracing> {
    let origin = node.origin();
    let url = node.argument("the collector's URL").map(|value| endpoint(&value));
    let sample = node.property("sample").map(|value| match value.raw() {
        kdl::KdlValue::Integer(1) => Some(u32::MAX),
        kdl::KdlValue::Float(all) if all.total_cmp(&1.0).is_eq() => Some(u32::MAX),
        _ => fraction(&value),
    });
    let service = node.property("service").map(|value| value.name().map(str::to_owned));
    let queue = node.property("queue").map(|value| value.integer(QUEUE));
    let (tls, headers) = match node.block() {
        Some(mut block) => {
            let tls = tls::of_check(&mut block, false);
            let headers = headers(&mut block);
            block.finish(elsewhere);
            (tls, headers)
        }
        None => (Some(None), Some(Vec::new())),
    };
    let url = url.flatten();
    let tls = match (&url, tls) {
        (Some(url), Some(tls)) => secured(&node, url, tls),
        _ => None,
    };
    node.finish();
    Some(Tracing {
        endpoint: url?.endpoint,
        sample: super::or_none(sample)?.unwrap_or(u32::MAX),
        service: super::or_none(service)?.unwrap_or_else(|| DEFAULT_SERVICE.to_owned()),
        queue: usize::try_from(super::or_none(queue)?.unwrap_or(DEFAULT_QUEUE)).ok()?,
        tls: tls?,
        headers: headers?,
        origin,
    })
}

/// How TLS is spoken with the collector of this URL, where the URL asks for it.
#[allow(clippy::option_option)]
fn secured(node: &Node<'_>, url: &Url, tls: Option<ServerTls>) -> Option<Option<(ServerTls, ServerName<'static>)>> {
    if !url.is_secured {
        let Some(tls) = tls else { return Some(None) };
        let error = ConfigError::new(Code::Inert, "`tls` does nothing with a URL of http://");
        let error = error
            .label(tls.origin.span, "is never spoken")
            .label(url.span, "because of this");
        node.fail(error.help("write https:// in the URL, or leave `tls` out"));
        return None;
    }
    let tls = tls.unwrap_or_else(|| plain(node.origin()));
    if tls.sni_of_client {
        let error = ConfigError::new(
            Code::Value,
            "a collector is not asked for the name that a client asked for",
        );
        let error = error.label(tls.origin.span, "there is no client");
        node.fail(error.help("write the name that its certificate is for, as sni=\"collector.example.net\""));
        return None;
    }
    let name = match &tls.sni {
        Some(name) => name.clone(),
        None => match ServerName::try_from(url.endpoint.host.clone()) {
            Ok(name) => name,
            Err(_) => {
                let error = ConfigError::new(Code::Value, "no certificate can be for this host");
                let error = error.label(url.span, "neither a DNS name nor an address");
                node.fail(
                    error.help("say the name that its certificate is for: { tls sni=\"collector.example.net\" }"),
                );
                return None;
            }
        },
    };
    Some(Some((tls, name)))
}

/// Whom the system trusts is believed, and nothing is shown.
fn plain(origin: Origin) -> ServerTls {
    ServerTls {
        verify: Verify::Required(Authorities::System),
        crls: Vec::new(),
        sni: None,
        sni_of_client: false,
        identity: None,
        parameters: TlsParameters {
            min: TlsVersion::V1_2,
            max: TlsVersion::V1_3,
            ciphers: Vec::new(),
            prefers_client: true,
            curves: Vec::new(),
        },
        alpn: Vec::new(),
        origin,
    }
}

/// `header "X-Tenant" "shop"` and `header "Authorization" file="token"`, any number up to [`MAX_HEADERS`].
fn headers(block: &mut Block<'_>) -> Option<Vec<CollectorHeader>> {
    let mut headers: Vec<At<CollectorHeader>> = Vec::new();
    let mut well = true;
    for mut node in block.many("header") {
        let span = node.span();
        let name = node.argument("the header's name").and_then(|value| field_name(&value));
        let value = match node.property("file") {
            Some(file) => tls::path(&file).map(CollectorValue::File),
            None => node
                .argument("its value, or `file=` with the file that has it")
                .and_then(|value| field_value(&value)),
        };
        match (name, value) {
            (Some(name), Some(value)) => match headers.iter().find(|known| known.value.name == name) {
                Some(first) => {
                    node.fail(said_twice("this header", first.span, span));
                    well = false;
                }
                None if headers.len() == MAX_HEADERS => {
                    let message = format!("a collector is sent at most {MAX_HEADERS} header fields");
                    let error = ConfigError::new(Code::Value, message).label(span, "one too many");
                    node.fail(error.help("send fewer"));
                    well = false;
                }
                None => headers.push(At {
                    value: CollectorHeader { name, value },
                    span,
                }),
            },
            _ => well = false,
        }
        node.finish();
    }
    well.then(|| headers.into_iter().map(|header| header.value).collect())
}

fn field_name(value: &Value<'_>) -> Option<HeaderName> {
    let name = header_name(value)?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    if OWN.contains(&name) {
        let message = format!("the gateway writes `{name}` itself");
        return value.fail(message, "cannot be said here", "leave it out");
    }
    Some(name)
}

fn field_value(value: &Value<'_>) -> Option<CollectorValue> {
    let text = value.text()?;
    match HeaderValue::try_from(text) {
        Ok(mut field) if text.len() <= MAX_VALUE => {
            // It may be a secret.
            field.set_sensitive(true);
            Some(CollectorValue::Said(field))
        }
        Ok(_) => value.fail(
            format!("a header's value has at most {MAX_VALUE} bytes here"),
            "longer than that",
            "say less",
        ),
        Err(_) => value.fail(
            "this is not a header's value",
            "has a character that a value cannot have",
            "a value has no line breaks and no other control characters (RFC 9110, section 5.5)",
        ),
    }
}

/// Reports a variable of a request's trace where no request has one.
pub(super) fn report_untraced(ctx: &Context<'_>, asked: SourceSpan) {
    let error = ConfigError::new(Code::Inert, "this stands for nothing: no request has a trace");
    let error = error.label(asked, "asked for here");
    ctx.report(error.help("say where traces go: process { tracing \"http://127.0.0.1:4318\" }"));
}

/// A collector's URL as it was read.
struct Url {
    endpoint: Endpoint,
    /// It begins with `https`.
    is_secured: bool,
    span: SourceSpan,
}

/// `http://HOST:PORT/PATH` or `https://…`; of the last two, what is not said is OTLP's.
fn endpoint(value: &Value<'_>) -> Option<Url> {
    let text = value.text()?;
    let help = "write the base URL of an OTLP/HTTP collector, as \"http://127.0.0.1:4318\"";
    let Ok(uri) = text.parse::<http::Uri>() else {
        return value.fail(format!("{:?} is not a URL", clip(text)), "cannot be read", help);
    };
    let (Some(scheme @ ("http" | "https")), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query())
    else {
        return value.fail(
            format!("{:?} is not a collector's URL", clip(text)),
            "not of the form http://HOST:PORT or https://HOST:PORT",
            help,
        );
    };
    if authority.as_str().contains('@') {
        return value.fail(
            "a collector's URL names no user",
            "has one",
            "write the credentials as a header: { header \"Authorization\" file=\"token\" }",
        );
    }
    Some(Url {
        endpoint: Endpoint {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            path: uri.path().trim_end_matches('/').to_owned(),
        },
        is_secured: scheme == "https",
        span: value.span(),
    })
}

const DEFAULT_SERVICE: &str = "gateway";
/// OTLP over HTTP (IANA).
const DEFAULT_PORT: u16 = 4318;
/// Exchanges whose spans wait: with two spans of a kilobyte each, some 4 MiB.
const DEFAULT_QUEUE: u64 = 2048;
const QUEUE: RangeInclusive<u64> = 1..=1_000_000;
/// What frames a message and says what it is, is the exporter's own business.
const OWN: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// More than any collector is known to need.
const MAX_HEADERS: usize = 32;
/// As long as a token may be in most servers.
const MAX_VALUE: usize = 8_192;
