//! `send "GET" "/health" …` and `expect status=200`: what a check of kind "http" asks and what it wants to hear; and
//! `check "grpc" service="…"`.

use std::ops::RangeInclusive;

use http::{HeaderName, HeaderValue};

use super::check::Openings;
use super::{elsewhere, header, regexes, tls};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{CheckVersion, GrpcCheck, HttpCheck, HttpExpect, HttpTest, Pattern, ServerTls, TextTest};
use crate::config::reader::{At, Block, Node, Value, clip, said_twice};

/// What is sent, what is expected, and how TLS is spoken for it. Faults are reported; what is sent and expected has defaults in
/// their place.
#[allow(clippy::option_option)]
pub(super) fn http(
    block: Option<Block<'_>>,
    body_limit: Option<Value<'_>>,
    openings: Openings,
) -> (HttpCheck, Option<Option<ServerTls>>) {
    let mut own_tls = Some(None);
    let mut check = HttpCheck {
        method: DEFAULT_METHOD.to_owned(),
        uri: DEFAULT_URI.to_owned(),
        version: None,
        host: None,
        headers: Vec::new(),
        body: Vec::new(),
        drain: Vec::new(),
        expects: Vec::new(),
        most_body: DEFAULT_BODY,
    };
    if let Some(mut block) = block {
        if let Some(node) = block.one("send") {
            send(node, &mut check, openings);
        }
        if let Some(node) = block.one("drain") {
            check.drain = drain(node).unwrap_or_default();
        }
        let mut status: Option<At<()>> = None;
        for node in block.many("expect") {
            expect(node, &mut check, &mut status);
        }
        own_tls = tls::of_check(&mut block, false);
        block.finish(elsewhere);
    }
    if !check.expects.iter().any(HttpExpect::is_of_status) {
        let test = HttpTest::Status(vec![DEFAULT_STATUS]);
        check.expects.insert(0, HttpExpect { negated: false, test });
    }
    if let Some(limit) = body_limit {
        if !check.expects.iter().any(HttpExpect::is_of_body) {
            limit.context().report(
                ConfigError::new(Code::Inert, "`body-limit=` does nothing here")
                    .label(limit.span(), "nothing is expected of the body")
                    .help("leave it out"),
            );
        } else if let Some(limit) = limit.size(BODY)
            && let Ok(limit) = usize::try_from(limit)
        {
            check.most_body = limit;
        }
    }
    (check, own_tls)
}

/// `check "grpc" service="shop.Orders" host="orders.internal"`.
pub(super) fn grpc(node: &mut Node<'_>, openings: Openings) -> Option<GrpcCheck> {
    let service = node.property("service").map(|value| {
        let text = value.text()?;
        if text.len() > MAX_SERVICE {
            let message = format!("a service's name has at most {MAX_SERVICE} bytes");
            return value.fail(
                message,
                "longer than that",
                "write it as its .proto does: \"shop.Orders\"",
            );
        }
        Some(text.to_owned())
    });
    let host = node.property("host").map(|value| host(&value));
    if openings.tls_http1 {
        let error = ConfigError::new(Code::Conflict, "gRPC is spoken over HTTP/2");
        let error = error.label(node.span(), "the TLS of a server of this backend agrees on HTTP/1.1");
        node.fail(error.help("write `h2` behind the servers' addresses, or give the check a `tls` of its own"));
    }
    Some(GrpcCheck {
        service: super::or_none(service)?.unwrap_or_default(),
        host: super::or_none(host)?,
    })
}

/// `send "POST" "/health" version="1.1" host="app.example" { header "X-Probe" "1"; body "…" }`.
fn send(mut node: Node<'_>, check: &mut HttpCheck, openings: Openings) {
    if let Some(method) = node.argument("the method").and_then(|value| header::token(&value)) {
        check.method = method;
    }
    if let Some(value) = node.argument("the request target")
        && let Some(uri) = target(&value, &check.method)
    {
        check.uri = uri;
    }
    if let Some(value) = node.property("version") {
        let versions = [
            ("1.0", CheckVersion::Http10),
            ("1.1", CheckVersion::Http11),
            ("2", CheckVersion::Http2),
        ];
        check.version = value.choice(&versions);
        let other = match check.version {
            Some(CheckVersion::Http2) => openings.tls_http1.then_some("HTTP/1.1"),
            Some(_) => openings.tls_http2.then_some("HTTP/2"),
            None => None,
        };
        if let Some(other) = other {
            value.fail::<()>(
                "this version cannot be spoken to all servers of this backend",
                format!("the TLS of one of them agrees on {other}"),
                "leave `version=` out: a check speaks what traffic does; or give it a `tls` of its own",
            );
        }
    }
    if let Some(value) = node.property("host") {
        check.host = host(&value);
    }
    if let Some(mut block) = node.block() {
        for mut node in block.many("header") {
            let name = node.argument("the header's name").and_then(|value| field_name(&value));
            let value = node.argument("its value").and_then(|value| field_value(&value));
            if check.headers.len() == MAX_HEADERS {
                let error = ConfigError::new(
                    Code::Value,
                    format!("a check sends at most {MAX_HEADERS} header fields"),
                );
                node.fail(error.label(node.span(), "one too many").help("send fewer"));
            } else {
                check.headers.extend(name.zip(value));
            }
            node.finish();
        }
        if let Some(mut node) = block.one("body") {
            if let Some(value) = node.argument("the body")
                && let Some(text) = value.text()
            {
                if text.len() > MAX_SENT {
                    let message = format!("a check sends at most {MAX_SENT} bytes");
                    value.fail::<()>(message, "longer than that", "ask the server for less");
                }
                check.body = text.as_bytes().to_vec();
            }
            node.finish();
        }
        block.finish(elsewhere);
    }
    node.finish();
}

/// `drain status=404`.
fn drain(mut node: Node<'_>) -> Option<Vec<(u16, u16)>> {
    node.require_entries();
    let drain = node.property("status").and_then(|value| statuses(&value));
    node.finish();
    drain
}

/// `expect status=200`, `expect header="X-Ready" value="yes"`, `expect not body-contains="error"`.
fn expect(mut node: Node<'_>, check: &mut HttpCheck, status: &mut Option<At<()>>) {
    node.require_entries();
    let not = node.flag("not");
    let before = check.expects.len();
    if let Some(value) = node.property("status") {
        if not.is_none() {
            if let Some(first) = status {
                let error = said_twice("the expected status", first.span, value.span());
                node.fail(error.help("several are written in one: expect status=\"200,204,300-399\""));
            }
            *status = Some(value.at(()));
        }
        push(check, not, statuses(&value).map(HttpTest::Status));
    }
    let like = [
        ("value", TextTest::Exact as fn(String) -> TextTest),
        ("prefix", TextTest::Prefix),
        ("contains", TextTest::Contains),
    ];
    let mut tests: Vec<_> = like
        .into_iter()
        .filter_map(|(key, make)| Some((node.property(key)?, make)))
        .map(|(value, make)| (value, text(&value).map(make)))
        .collect();
    if let Some(value) = node.property("regex") {
        tests.push((
            value,
            regexes::regex(&value).map(|regex| TextTest::Regex(Pattern(regex))),
        ));
    }
    if let Some((second, _)) = tests.get(1) {
        second.fail::<()>(
            "one `expect` says one thing of a header",
            "beside another",
            "write two `expect`",
        );
    }
    match node.property("header") {
        Some(name) => {
            let name = header::header_name(&name).and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
            let test = match tests.into_iter().next() {
                Some((_, test)) => test.map(Some),
                None => Some(None),
            };
            push(
                check,
                not,
                name.zip(test).map(|(name, test)| HttpTest::Header(name, test)),
            );
        }
        None => {
            for (value, _) in tests {
                value.fail::<()>(
                    "this says nothing without `header=`",
                    "of which header?",
                    "write expect header=\"X-Ready\" value=\"yes\", or expect body-contains=\"ready\"",
                );
            }
        }
    }
    let bodies = [
        node.property("body-contains")
            .map(|value| (value, text(&value).map(TextTest::Contains))),
        node.property("body-regex").map(|value| {
            (
                value,
                regexes::regex(&value).map(|regex| TextTest::Regex(Pattern(regex))),
            )
        }),
    ];
    for (value, test) in bodies.into_iter().flatten() {
        if check.method == "HEAD" {
            let error = ConfigError::new(Code::Conflict, "the answer to HEAD has no body");
            node.fail(error.label(value.span(), "never found").help("send \"GET\""));
        }
        let test = test.map(HttpTest::Body);
        let is_known = |known: &HttpExpect| Some(&known.test) == test.as_ref();
        if check.expects.iter().any(is_known) {
            let error = ConfigError::new(Code::Duplicate, "this text is looked for already");
            node.fail(error.label(value.span(), "said again here").help("leave it out"));
        }
        push(check, not, test);
    }
    if let Some(not) = not
        && check.expects.len() > before + 1
    {
        let error = ConfigError::new(Code::Conflict, "`not` is said of one thing");
        let error = error.label(not, "of which of these?");
        node.fail(error.help("write an `expect` for each"));
    }
    if check.expects.len() > MAX_EXPECTS && before <= MAX_EXPECTS {
        let error = ConfigError::new(Code::Value, format!("a check expects at most {MAX_EXPECTS} things"));
        node.fail(error.label(node.span(), "one too many").help("expect fewer"));
    }
    node.finish();
}

fn push(check: &mut HttpCheck, not: Option<miette::SourceSpan>, test: Option<HttpTest>) {
    check.expects.extend(test.map(|test| HttpExpect {
        negated: not.is_some(),
        test,
    }));
}

fn text(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > MAX_TEXT {
        let message = format!("{} has at most {MAX_TEXT} bytes", value.title());
        return value.fail(message, "longer than that", "look for a shorter text");
    }
    Some(text.to_owned())
}

fn host(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match text.parse::<http::uri::Authority>() {
        Ok(_) => Some(text.to_owned()),
        Err(_) => {
            let help = "write a host name, with a port if it is not the usual one, as \"www.example.net\"";
            value.fail("`host` is not a host", "cannot stand in a Host header", help)
        }
    }
}

/// A header that a check may send.
fn field_name(value: &Value<'_>) -> Option<HeaderName> {
    let name = header::header_name(value)?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    if OWN.contains(&name) {
        let message = format!("the check writes `{name}` itself");
        return value.fail(message, "cannot be said here", "leave it out; `host=` says the Host");
    }
    Some(name)
}

fn field_value(value: &Value<'_>) -> Option<HeaderValue> {
    let text = text(value)?;
    match HeaderValue::try_from(&text) {
        Ok(field) => Some(field),
        Err(_) => value.fail(
            format!("{:?} is not a header's value", clip(&text)),
            "has a character that a value cannot have",
            "a value has no line breaks and no other control characters (RFC 9110, section 5.5)",
        ),
    }
}

/// A path with, perhaps, a query; or the server as a whole, as OPTIONS alone asks for it (RFC 9110, section 9.3.7).
fn target(value: &Value<'_>, method: &str) -> Option<String> {
    let text = value.text()?;
    if text == WHOLE_SERVER && method == "OPTIONS" {
        return Some(text.to_owned());
    }
    let help = "write a path, as \"/health\"";
    if !text.starts_with('/') {
        return value.fail("the request target has to begin with `/`", "does not", help);
    }
    if text.parse::<http::uri::PathAndQuery>().is_err() || text.contains('#') {
        return value.fail(
            "this cannot be a request target",
            "has a character that cannot be there",
            help,
        );
    }
    Some(text.to_owned())
}

/// `200`, `"200-299"` or `"200,204,300-399"`.
pub(super) fn statuses(value: &Value<'_>) -> Option<Vec<(u16, u16)>> {
    if !value.raw().is_string() {
        let status = u16::try_from(value.integer(u64::from(*STATUS.start())..=u64::from(*STATUS.end()))?).ok()?;
        return Some(vec![(status, status)]);
    }
    let text = value.text()?;
    let mut ranges = Vec::new();
    let help = "write a status, a range or several with commas: \"200\", \"200-299\", \"200,204,300-399\"";
    for part in text.split(',') {
        let part = part.trim();
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(number) if text.len() == 3 && STATUS.contains(&number) => Some(number),
            _ => None,
        };
        let (Some(low), Some(high)) = (number(low), number(high)) else {
            let message = format!("statuses are from {} to {}", STATUS.start(), STATUS.end());
            return value.fail(
                message,
                format!("{:?} is not one, nor a range of them", clip(part)),
                help,
            );
        };
        if low > high {
            return value.fail(
                "this range of statuses is empty",
                format!("{low} is more than {high}"),
                help,
            );
        }
        ranges.push((low, high));
    }
    Some(ranges)
}

const DEFAULT_METHOD: &str = "GET";
const DEFAULT_URI: &str = "/";
const WHOLE_SERVER: &str = "*";
/// A redirect shows a server that is alive.
const DEFAULT_STATUS: (u16, u16) = (200, 399);
const STATUS: RangeInclusive<u16> = 100..=599;
/// What frames a message, and where it goes, is the check's own business.
const OWN: [HeaderName; 5] = [
    http::header::HOST,
    http::header::CONNECTION,
    http::header::CONTENT_LENGTH,
    http::header::TRANSFER_ENCODING,
    http::header::UPGRADE,
];
/// Each is looked for in every answer.
const MAX_EXPECTS: usize = 32;
/// More than any probe is known to need.
const MAX_HEADERS: usize = 32;
/// Far below the 64 KiB of a body that are looked at.
const MAX_TEXT: usize = 4_096;
/// A probe's body is a line or two; it goes out at every interval.
const MAX_SENT: usize = 4_096;
/// Full names of services are a few words.
const MAX_SERVICE: usize = 256;
/// Room for a health page of some length, at every interval.
const DEFAULT_BODY: usize = 64 * 1024;
/// What one check may make the gateway hold.
const BODY: RangeInclusive<u64> = 1..=1024 * 1024;
