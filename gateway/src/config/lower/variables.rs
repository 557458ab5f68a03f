//! `%{name}` in texts: how a variable is written, which there are, and where each is known.
//!
//! A variable is `%{name}`, or `%{name:of-what}` as in `%{header:x-user}`. `%%{` stands for `%{` itself; a `%` before
//! anything else is only that. With `|map:` behind it, as in `%{host|map:hosts}`, it is what the map of that name has for it. With `|url-encode`
//! at its end, as in `%{uri|url-encode}`, it is percent-encoded as the value of a query's parameter. What a text with variables becomes is its
//! reader's business: `template` for what is put together on the way, `log_format` for lines.

use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{LineField, TlsValue};
use crate::config::reader::{Asked, Value, clip};
use crate::config::suggest;
use crate::config::token::is_token;

/// When a text is put together, which says what is known then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before a backend is chosen.
    Rule,
    /// When the request goes to its backend.
    Request,
    /// When the server has answered.
    Response,
    /// When all is over: in an access line.
    Line,
}

/// A part of a text.
pub(super) enum Part<'a> {
    /// As it is.
    Text(String),
    /// A variable.
    Variable(Variable<'a>),
}

/// A variable where it stands.
#[derive(Clone, Copy)]
pub(super) struct Variable<'a> {
    pub(super) known: &'static Known,
    /// What stands behind the colon.
    pub(super) of: Option<&'a str>,
    /// The map that it is looked up in.
    pub(super) map: Option<&'a str>,
    /// Whether it is percent-encoded.
    pub(super) is_url_encoded: bool,
    pub(super) span: SourceSpan,
}

/// A variable that there is.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// What the name behind the colon is of; none for what has none.
    of_what: Option<&'static str>,
    /// Whether its value is the client's choice.
    pub(super) is_clients: bool,
    /// In texts: from when on it is known, and what it is. None for what only lines have.
    text: Option<(Since, Meaning)>,
    /// In lines.
    pub(super) line: InLine,
}

/// What a variable is in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An attribute of the contract (`types.needs`) of this name; what stands behind the colon does so there.
    Attribute(&'static str),
    /// The frontend's name.
    Frontend,
    /// The name of the backend that was chosen.
    Backend,
}

/// What a variable is in a line.
#[derive(Clone, Copy)]
pub(super) enum InLine {
    /// Something that every exchange has.
    Field(LineField),
    /// Something that has to be kept for the line.
    Kept(Keep),
}

/// What is kept for a line because a variable asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Header,
    ResponseHeader,
    Cookie,
    QueryParam,
}

/// From when on something is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    Always,
    Routed,
    Answered,
}

/// Takes a text apart. Faults are reported where they stand.
pub(super) fn parts<'a>(value: &Value<'a>, text: &'a str, when: When) -> Option<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut well = true;
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        let start = at + found;
        literal.push_str(&text[at..start]);
        let rest = &text[start..];
        if rest.starts_with("%%{") {
            literal.push_str("%{");
            at = start + 3;
            continue;
        }
        let Some(inner) = rest.strip_prefix("%{") else {
            literal.push('%');
            at = start + 1;
            continue;
        };
        let Some(length) = inner.find('}') else {
            let error = ConfigError::new(Code::Value, "a variable that is not closed");
            let error = error.label(value.part(start, 2), "a `}` is missing behind this");
            let error = error.help("write a variable as %{host}, and `%%{` where `%{` is meant as it stands");
            value.context().report(error);
            return None;
        };
        at = start + 2 + length + 1;
        match variable(value, start + 2, &inner[..length], when) {
            Some(variable) => {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Variable(variable));
            }
            None => well = false,
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    well.then_some(parts)
}

impl Variable<'_> {
    /// Whether its value is the client's choice.
    pub(super) fn is_clients(&self) -> bool {
        // A map's values are the operator's.
        self.known.is_clients && self.map.is_none()
    }
}

fn variable<'a>(value: &Value<'_>, start: usize, whole: &'a str, when: When) -> Option<Variable<'a>> {
    let (looked_up, is_url_encoded) = match whole.strip_suffix("|url-encode") {
        Some(looked_up) => (looked_up, true),
        None => (whole, false),
    };
    let (written, lookup) = match looked_up.split_once('|') {
        Some((written, lookup)) => (written, Some(lookup)),
        None => (looked_up, None),
    };
    let span = value.part(start, written.len());
    let fail = |message: String, label: &str, help: Option<String>| {
        let error = ConfigError::new(Code::Reference, message).label(span, label);
        value.context().report(error.maybe_help(help));
        None
    };
    let (name, of) = match written.split_once(':') {
        Some((name, of)) => (name, Some(of)),
        None => (written, None),
    };
    let Some(known) = VARIABLES.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = VARIABLES.iter().map(|known| known.name).collect();
        let help = suggest::did_you_mean(name, &names, || {
            Some("the reference lists them under `Variables`".to_owned())
        });
        let message = format!("there is no variable {:?}", clip(name));
        return fail(message, "unknown variable", help);
    };
    match (known.of_what, of) {
        (Some(what), None | Some("")) => {
            let help = format!("write %{{{name}:NAME}} with {what}");
            return fail(format!("`{name}` of what?"), "lacks a name", Some(help));
        }
        (None, Some(_)) => {
            let help = format!("write %{{{name}}}");
            return fail(format!("`{name}` takes no name"), "one too many", Some(help));
        }
        _ => {}
    }
    if let Some((label, help)) = known.missing(when) {
        return fail(format!("`{name}` is not known here"), label, Some(help.to_owned()));
    }
    let wrong = match (known.line, of) {
        (InLine::Kept(Keep::Header | Keep::ResponseHeader), Some(of)) => {
            http::HeaderName::from_bytes(of.as_bytes()).err().map(|_| "a header's")
        }
        (InLine::Kept(Keep::Cookie), Some(of)) if !is_token(of) => Some("a cookie's"),
        _ => None,
    };
    if let (Some(whose), Some(of)) = (wrong, of) {
        let message = format!("{:?} is not {whose} name", clip(of));
        return fail(
            message,
            "has characters that a name cannot have",
            Some(NAME_HELP.to_owned()),
        );
    }
    if matches!(known.name, "trace-id" | "span-id") {
        value.context().note_trace(span);
    }
    let map = match lookup {
        Some(lookup) => Some(map(value, start + written.len() + 1, lookup, known, when)?),
        None => None,
    };
    if is_url_encoded && when == When::Line {
        let message = "lines have what was, and escape what could be taken for something else".to_owned();
        let help = "write the variable without `|url-encode`".to_owned();
        let span = value.part(start + looked_up.len() + 1, "url-encode".len());
        let error = ConfigError::new(Code::Reference, message).label(span, "percent-encoded");
        value.context().report(error.help(help));
        return None;
    }
    Some(Variable {
        known,
        of,
        map,
        is_url_encoded,
        span,
    })
}

/// The map that stands behind a variable's `|`.
fn map<'a>(value: &Value<'_>, start: usize, lookup: &'a str, known: &Known, when: When) -> Option<&'a str> {
    let span = value.part(start, lookup.len());
    let fail = |message: &str, label: &str, help: &str| {
        let error = ConfigError::new(Code::Reference, message).label(span, label);
        value.context().report(error.help(help));
        None
    };
    let Some(name) = lookup.strip_prefix("map:") else {
        return fail(
            "behind `|` stands what is made of a variable",
            "not a way to do that",
            "write %{host|map:hosts}, with a map that is declared: map \"hosts\" file=\"hosts.map\", or %{uri|url-encode}",
        );
    };
    if when == When::Line {
        return fail(
            "lines have what was, not what it stands for",
            "looked up in a map",
            "write the variable without its map",
        );
    }
    if value.context().folder(value.span()).is_some() {
        return fail(
            "a tenant's file looks nothing up in maps",
            "the maps are the operator's",
            "tell the cases apart with acls, or let the operator write this in the `tenant` block",
        );
    }
    let asked = Asked {
        map: name.to_owned(),
        span: value.part(start + "map:".len(), name.len()),
        is_address: matches!(known.name, "client-ip" | "destination-ip"),
    };
    value.context().ask(asked);
    Some(name)
}

impl Known {
    /// Why it is not known then, and where it would be; none where it is.
    fn missing(&self, when: When) -> Option<(&'static str, &'static str)> {
        match (self.text, when) {
            (_, When::Line) | (Some((Since::Always, _)), _) => None,
            (Some((Since::Routed, _)), When::Request | When::Response) => None,
            (Some((Since::Answered, _)), When::Response) => None,
            (Some((Since::Answered, _)), _) => {
                Some(("known when the server has answered", "use it in `response { … }`"))
            }
            (Some((Since::Routed, _)), _) => Some((
                "known when the backend has been chosen",
                "use it in `request { … }` or `response { … }`",
            )),
            (None, _) => Some(("known when all is over", "use it in `log-format`")),
        }
    }

    /// What it is in a text; what only lines have is none of that.
    pub(super) fn meaning(&self) -> Option<Meaning> {
        self.text.map(|(_, meaning)| meaning)
    }
}

/// A variable that is the attribute of the same name.
const fn of_request(name: &'static str, line: LineField) -> Known {
    attribute(name, name, line)
}

/// A variable that is an attribute.
const fn attribute(name: &'static str, attribute: &'static str, line: LineField) -> Known {
    Known {
        name,
        of_what: None,
        is_clients: false,
        text: Some((Since::Always, Meaning::Attribute(attribute))),
        line: InLine::Field(line),
    }
}

/// The same, whose value is what the client wants it to be.
const fn of_client(name: &'static str, line: LineField) -> Known {
    Known {
        is_clients: true,
        ..of_request(name, line)
    }
}

/// A variable with a name of its own behind the colon.
const fn named(name: &'static str, of_what: &'static str, keep: Keep) -> Known {
    Known {
        name,
        of_what: Some(of_what),
        is_clients: true,
        text: Some((
            match keep {
                Keep::ResponseHeader => Since::Answered,
                _ => Since::Always,
            },
            Meaning::Attribute(name),
        )),
        line: InLine::Kept(keep),
    }
}

/// A variable that is known late.
const fn later(name: &'static str, since: Since, meaning: Meaning, line: LineField) -> Known {
    Known {
        name,
        of_what: None,
        is_clients: false,
        text: Some((since, meaning)),
        line: InLine::Field(line),
    }
}

/// A variable of lines alone.
const fn of_line(name: &'static str, line: LineField) -> Known {
    Known {
        name,
        of_what: None,
        is_clients: true,
        text: None,
        line: InLine::Field(line),
    }
}

/// All variables.
const VARIABLES: &[Known] = &[
    of_request("alpn", LineField::Tls(TlsValue::Alpn)),
    of_client("authority", LineField::Authority),
    later("backend", Since::Routed, Meaning::Backend, LineField::Backend),
    of_line("backend-in-flight", LineField::BackendInFlight),
    of_line("bytes-received", LineField::BytesReceived),
    of_line("bytes-sent", LineField::BytesSent),
    of_line("captures", LineField::Captures),
    of_line("client", LineField::Client),
    of_client("client-cert-cn", LineField::Tls(TlsValue::ClientCertCn)),
    of_request("client-cert-der", LineField::Tls(TlsValue::ClientCertDer)),
    of_request(
        "client-cert-fingerprint",
        LineField::Tls(TlsValue::ClientCertFingerprint),
    ),
    of_client("client-cert-issuer", LineField::Tls(TlsValue::ClientCertIssuer)),
    of_request("client-cert-not-after", LineField::Tls(TlsValue::ClientCertNotAfter)),
    of_request("client-cert-not-before", LineField::Tls(TlsValue::ClientCertNotBefore)),
    of_client("client-cert-san", LineField::Tls(TlsValue::ClientCertSan)),
    of_request("client-cert-serial", LineField::Tls(TlsValue::ClientCertSerial)),
    of_client("client-cert-subject", LineField::Tls(TlsValue::ClientCertSubject)),
    of_request("client-cert-verify", LineField::Tls(TlsValue::ClientCertVerify)),
    of_request("client-ip", LineField::ClientIp),
    of_request("client-port", LineField::ClientPort),
    of_line("connect-ms", LineField::ConnectTime),
    named("cookie", "a cookie's name", Keep::Cookie),
    of_line("cookie-flags", LineField::CookieFlags),
    of_line("date", LineField::Date),
    of_line("destination", LineField::Destination),
    attribute("destination-ip", "local-ip", LineField::DestinationIp),
    attribute("destination-port", "local-port", LineField::DestinationPort),
    later("frontend", Since::Always, Meaning::Frontend, LineField::Frontend),
    of_line("frontend-connections", LineField::FrontendConnections),
    of_line("frontend-tls", LineField::FrontendTls),
    of_line("grpc-status", LineField::GrpcStatus),
    named("header", "a header's name", Keep::Header),
    of_client("host", LineField::Host),
    of_request("http-version", LineField::HttpVersion),
    of_client("method", LineField::Method),
    of_client("path", LineField::Path),
    of_line("process-connections", LineField::ProcessConnections),
    of_client("query", LineField::Query),
    named("query-param", "a parameter's name", Keep::QueryParam),
    of_line("queue", LineField::Queue),
    of_line("queue-ms", LineField::QueueTime),
    of_line("reason", LineField::Reason),
    of_line("request-cookie", LineField::RequestCookie),
    of_request("request-id", LineField::RequestId),
    of_line("request-line", LineField::RequestLine),
    of_line("request-ms", LineField::RequestTime),
    of_line("response-captures", LineField::ResponseCaptures),
    of_line("response-cookie", LineField::ResponseCookie),
    named("response-header", "a header's name", Keep::ResponseHeader),
    of_line("response-ms", LineField::ResponseTime),
    of_line("retries", LineField::Retries),
    of_line("rule", LineField::Rule),
    of_request("scheme", LineField::Scheme),
    later(
        "server",
        Since::Answered,
        Meaning::Attribute("server"),
        LineField::Server,
    ),
    of_line("server-in-flight", LineField::ServerInFlight),
    of_client("sni", LineField::Tls(TlsValue::Sni)),
    of_request("span-id", LineField::SpanId),
    later(
        "status",
        Since::Answered,
        Meaning::Attribute("status"),
        LineField::Status,
    ),
    of_line("tenant", LineField::Tenant),
    of_line("termination", LineField::Termination),
    attribute("time", "local-time:UTC", LineField::Time),
    of_line("timestamp", LineField::Timestamp),
    of_line("tls", LineField::IsTls),
    of_request("tls-cipher", LineField::Tls(TlsValue::Cipher)),
    of_request("tls-version", LineField::Tls(TlsValue::Version)),
    of_line("total-ms", LineField::TotalTime),
    of_request("trace-id", LineField::TraceId),
    of_client("uri", LineField::Uri),
    of_line("version", LineField::Version),
];

/// The attributes that variables stand for, each with a name where it takes one: for a test that the host knows them all.
#[cfg(test)]
pub fn attributes() -> Vec<String> {
    let attribute = |known: &Known| match (known.meaning()?, known.of_what) {
        (Meaning::Attribute(name), Some(_)) => Some(format!("{name}:x")),
        (Meaning::Attribute(name), None) => Some(name.to_owned()),
        _ => None,
    };
    VARIABLES.iter().filter_map(attribute).collect()
}

const NAME_HELP: &str = "a name has letters, digits and - _ . ! # $ % & ' * + ^ ` | ~ (RFC 9110, section 5.6.2)";
