//! `process { tracing "http://127.0.0.1:4318" sample=0.01 service="edge" }`.

use std::ops::RangeInclusive;

use miette::SourceSpan;

use super::access_log::fraction;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Endpoint, Tracing};
use crate::config::reader::{Context, Node, Value, clip};

/// Reads the node.
pub(super) fn tracing(mut node: Node<'_>) -> Option<Tracing> {
    let endpoint = node.argument("the collector's URL").map(|value| endpoint(&value));
    let sample = node.property("sample").map(|value| match value.raw() {
        kdl::KdlValue::Integer(1) => Some(u32::MAX),
        _ => fraction(&value),
    });
    let service = node.property("service").map(|value| value.name().map(str::to_owned));
    let queue = node.property("queue").map(|value| value.integer(QUEUE));
    node.finish();
    Some(Tracing {
        endpoint: endpoint??,
        sample: super::or_none(sample)?.unwrap_or(u32::MAX),
        service: super::or_none(service)?.unwrap_or_else(|| DEFAULT_SERVICE.to_owned()),
        queue: usize::try_from(super::or_none(queue)?.unwrap_or(DEFAULT_QUEUE)).ok()?,
    })
}

/// Reports a variable of a request's trace where no request has one.
pub(super) fn report_untraced(ctx: &Context<'_>, asked: SourceSpan) {
    let error = ConfigError::new(Code::Inert, "this stands for nothing: no request has a trace");
    let error = error.label(asked, "asked for here");
    ctx.report(error.help("say where traces go: process { tracing \"http://127.0.0.1:4318\" }"));
}

/// `http://HOST:PORT/PATH`; of the last two, what is not said is OTLP's.
fn endpoint(value: &Value<'_>) -> Option<Endpoint> {
    let text = value.text()?;
    let help = "write the base URL of an OTLP/HTTP collector, as \"http://127.0.0.1:4318\"";
    let Ok(uri) = text.parse::<http::Uri>() else {
        return value.fail(format!("{:?} is not a URL", clip(text)), "cannot be read", help);
    };
    if uri.scheme_str() == Some("https") {
        let help = "let a collector on this machine send it on over TLS";
        return value.fail("spans are sent without TLS", "asks for TLS", help);
    }
    let (Some("http"), Some(authority), None) = (uri.scheme_str(), uri.authority(), uri.query()) else {
        return value.fail(
            format!("{:?} is not a collector's URL", clip(text)),
            "not of the form http://HOST:PORT",
            help,
        );
    };
    if authority.as_str().contains('@') {
        return value.fail("a collector's URL names no user", "has one", help);
    }
    Some(Endpoint {
        authority: authority.to_string(),
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(DEFAULT_PORT),
        path: uri.path().trim_end_matches('/').to_owned(),
    })
}

const DEFAULT_SERVICE: &str = "gateway";
/// OTLP over HTTP (IANA).
const DEFAULT_PORT: u16 = 4318;
/// Exchanges whose spans wait: with two spans of a kilobyte each, some 4 MiB.
const DEFAULT_QUEUE: u64 = 2048;
const QUEUE: RangeInclusive<u64> = 1..=1_000_000;
