//! Named tests of a request or connection, and the conditions made of them.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{AclId, At, BackendId, Origin, UsedPlugin};

/// `acl "is-api" { path-prefix "/api/" }`.
#[derive(Debug, Clone)]
pub struct Acl {
    /// Its name, unique in the frontend.
    pub name: Arc<str>,
    /// What it asks.
    pub test: AclTest,
    /// Where it stands.
    pub origin: Origin,
}

/// What an acl asks.
#[derive(Debug, Clone)]
pub enum AclTest {
    /// Predicates of the first-party `acl` component.
    Match(Match),
    /// `plugin "geo" predicate="blocked"`: a predicate of a third-party component.
    Plugin {
        /// Who is asked.
        asked: Box<AskedPlugin>,
        /// `plugin "new-geo" canary="5%"`, or with `shadow`: who is asked in its place now and then, or beside it.
        on_trial: Option<Box<AskedPlugin>>,
    },
    /// `servers-up "app" max=0`. Answered by the gateway itself: no component knows backends.
    Servers(ServersUp),
}

/// How many servers of a backend may have new work, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServersUp {
    /// The backend.
    pub backend: At<BackendId>,
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

impl AclTest {
    /// The plugins that it asks.
    pub fn plugins(&self) -> impl Iterator<Item = &AskedPlugin> {
        let (asked, on_trial) = match self {
            Self::Match(_) | Self::Servers(_) => (None, None),
            Self::Plugin { asked, on_trial } => (Some(&**asked), on_trial.as_deref()),
        };
        asked.into_iter().chain(on_trial)
    }
}

/// A plugin whose predicate an acl asks for.
#[derive(Debug, Clone)]
pub struct AskedPlugin {
    /// Which, of which requests, and with which limits. Under no condition of a tenant's.
    pub used: UsedPlugin,
    /// The predicate's name; its first one when none is named.
    pub predicate: Option<At<String>>,
}

/// An expression over a request. Serialises to the configuration of the `acl` component.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// All hold; true when empty.
    All(Vec<Match>),
    /// One holds; false when empty.
    Any(Vec<Match>),
    /// It does not hold.
    Not(Box<Match>),
    /// The path, without the query.
    Path(Text),
    /// The host: exact names and `*.suffix` patterns, lower-case. `*.example.net` does not match `example.net`.
    Host(Vec<String>),
    /// The host: regular expressions, on its lower-case form.
    HostRegex(Vec<String>),
    /// The method, exactly.
    Method(Vec<String>),
    /// A request header; one of its values has to pass.
    Header(Named),
    /// A cookie; one of its values has to pass.
    Cookie(Named),
    /// A query parameter, percent-decoded; one of its values has to pass.
    Query(Named),
    /// The client's address is in one of the networks.
    Source(Vec<IpNet>),
    /// The client speaks TLS.
    Tls,
    /// The TLS server name: patterns as for `host`.
    Sni(Vec<String>),
    /// The address that the client connected to is in one of the networks.
    Destination(Vec<IpNet>),
    /// The port that the client connected to is in one of these ranges, ends included.
    Port(Vec<(u16, u16)>),
    /// The client's port is in one of these ranges, ends included.
    SourcePort(Vec<(u16, u16)>),
    /// The version of HTTP: `1.0`, `1.1` or `2`.
    HttpVersion(Vec<String>),
    /// The client asks to change to this protocol, as `websocket`; lower-case.
    Upgrade(Vec<String>),
    /// How many bytes path and query have, the question mark included.
    UriLength(Measured),
    /// How many fields of this name there are.
    HeaderCount(Measured),
    /// How many bytes the values of this name have together.
    HeaderLength(Measured),
    /// The application protocol of TLS is one of these: the one agreed on, or one of those offered where TLS passes through.
    Alpn(Vec<String>),
    /// The time of day and week.
    Time(TimeMatch),
    /// What the handshake of TLS settled; one of the values has to pass.
    Fact(FactMatch),
}

impl Match {
    /// Whether it can be told from the connection's addresses and the clock.
    pub fn needs_only_addresses(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::needs_only_addresses),
            Self::Not(part) => part.needs_only_addresses(),
            Self::Source(_) | Self::SourcePort(_) | Self::Destination(_) | Self::Port(_) | Self::Time(_) => true,
            _ => false,
        }
    }

    /// How much a request may have to be compared with: values, of which a regular expression is worth several.
    pub fn comparisons(&self) -> usize {
        let named = |value: &Option<Text>| value.as_ref().map_or(1, Text::comparisons);
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::comparisons).sum(),
            Self::Not(part) => part.comparisons(),
            Self::Path(text) => text.comparisons(),
            Self::Header(Named { value, .. })
            | Self::Cookie(Named { value, .. })
            | Self::Query(Named { value, .. }) => named(value),
            Self::Fact(fact) => named(&fact.value),
            Self::HostRegex(list) => list.len() * REGEX_COMPARISONS,
            Self::Host(list)
            | Self::Method(list)
            | Self::Sni(list)
            | Self::HttpVersion(list)
            | Self::Upgrade(list)
            | Self::Alpn(list) => list.len(),
            Self::Source(networks) | Self::Destination(networks) => networks.len(),
            Self::Port(ranges) | Self::SourcePort(ranges) => ranges.len(),
            Self::Time(time) => 1 + time.ranges.len(),
            Self::Tls | Self::UriLength(_) | Self::HeaderCount(_) | Self::HeaderLength(_) => 1,
        }
    }

    /// Whether it asks for what a ClientHello says.
    pub fn reads_client_hello(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::reads_client_hello),
            Self::Not(part) => part.reads_client_hello(),
            Self::Sni(_) | Self::Alpn(_) => true,
            _ => false,
        }
    }
}

/// `client-cert-cn "client.example"`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FactMatch {
    /// What is asked about.
    pub name: TlsFact,
    /// The test; none asks only that it is there.
    pub value: Option<Text>,
}

/// What TLS settles about a connection; serialises to the attribute of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsFact {
    /// The version of TLS.
    TlsVersion,
    /// The subject of the client's certificate (RFC 4514).
    ClientCertSubject,
    /// Its subject's common name.
    ClientCertCn,
    /// Its issuer (RFC 4514).
    ClientCertIssuer,
    /// Its serial number, in hexadecimal digits.
    ClientCertSerial,
    /// Its subject's alternative names, as `DNS:client.example`.
    ClientCertSan,
    /// Its SHA-256 digest, in hexadecimal digits.
    ClientCertFingerprint,
}

impl TlsFact {
    /// Whether it is one of the client's certificate.
    pub fn is_of_certificate(self) -> bool {
        !matches!(self, Self::TlsVersion)
    }
}

/// A test of a number, ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Of what; none where that goes without saying. Header names are lower-case here.
    pub name: Option<String>,
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

impl Condition {
    /// How many acls it names, each as often as it does.
    pub fn terms(&self) -> usize {
        match self {
            Self::Acl(_) => 1,
            Self::Not(part) => part.terms(),
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::terms).sum(),
        }
    }

    /// As it would be written, over these acls.
    pub fn written(&self, acls: &[Acl]) -> String {
        // What binds less tightly than what it stands in needs parentheses.
        fn write(condition: &Condition, acls: &[Acl], outer: u8, text: &mut String) {
            let (own, parts, word) = match condition {
                Condition::Acl(id) => return text.push_str(acls.get(id.0).map_or("", |acl| &acl.name)),
                Condition::Not(inner) => {
                    text.push_str("not ");
                    return write(inner, acls, 3, text);
                }
                Condition::And(parts) => (2, parts, " and "),
                Condition::Or(parts) => (1, parts, " or "),
            };
            let is_inner = own < outer;
            text.push_str(if is_inner { "(" } else { "" });
            for (n, part) in parts.iter().enumerate() {
                text.push_str(if n > 0 { word } else { "" });
                write(part, acls, own, text);
            }
            text.push_str(if is_inner { ")" } else { "" });
        }
        let mut text = String::new();
        write(self, acls, 0, &mut text);
        text
    }

    /// Whether the acl at this position is part of it.
    pub fn names(&self, acl: usize) -> bool {
        match self {
            Self::Acl(id) => id.0 == acl,
            Self::Not(part) => part.names(acl),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.names(acl)),
        }
    }
}

/// `time "08:00-18:00" days="mon-fri" zone="Europe/Berlin"`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimeMatch {
    /// A name of the IANA's database; `UTC` unless said.
    pub zone: String,
    /// Days of the week, 1 for Monday; every day when empty.
    pub days: Vec<u8>,
    /// Minutes of the day, up to before the second; the whole day when empty. A range that ends before it begins goes on into
    /// the next day, and belongs to the one on which it began.
    pub ranges: Vec<(u16, u16)>,
}

/// A test of a named value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// Header names are lower-case here.
    pub name: String,
    /// The test; none asks only that it is there.
    pub value: Option<Text>,
}

/// A test of a text; one of the listed alternatives has to hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    /// Equal to one of these.
    Exact(Vec<String>),
    /// Begins with one of these.
    Prefix(Vec<String>),
    /// Ends with one of these.
    Suffix(Vec<String>),
    /// Has one of these somewhere in it.
    Contains(Vec<String>),
    /// One of these matches somewhere. Syntax of the `regex` crate, on bytes; linear in time.
    Regex(Vec<String>),
}

impl Text {
    fn comparisons(&self) -> usize {
        match self {
            Self::Exact(list) | Self::Prefix(list) | Self::Suffix(list) | Self::Contains(list) => list.len(),
            Self::Regex(list) => list.len() * REGEX_COMPARISONS,
        }
    }
}

/// How many texts a regular expression is worth: what comparing with it takes, and the milliseconds in which it is compiled.
pub const REGEX_COMPARISONS: usize = 10;

/// `if="old and not beta"`: an expression over the frontend's acls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The named acl.
    Acl(AclId),
    /// It does not hold.
    Not(Box<Condition>),
    /// All hold.
    And(Vec<Condition>),
    /// One holds.
    Or(Vec<Condition>),
}
