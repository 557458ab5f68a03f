//! The configuration, as the gateway writes it.

use serde::Deserialize;

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The predicates, in the order of their bits.
    pub predicates: Vec<Predicate>,
}

/// A named question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// Its name.
    pub name: String,
    /// What it asks.
    pub when: Match,
}

/// An expression over a request.
#[derive(Debug, Deserialize)]
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
    /// The host: exact names and `*.suffix` patterns. `*.example.net` does not match `example.net`.
    Host(Vec<String>),
    /// The host, which arrives in lower case: patterns.
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
    Source(Vec<String>),
    /// The client speaks TLS.
    Tls,
    /// The TLS server name: patterns as for `host`.
    Sni(Vec<String>),
    /// The address that the client connected to is in one of the networks.
    Destination(Vec<String>),
    /// The port that the client connected to is in one of the ranges, ends included.
    Port(Vec<(u16, u16)>),
    /// The client's port is in one of the ranges, ends included.
    SourcePort(Vec<(u16, u16)>),
    /// The version of HTTP: `1.0`, `1.1` or `2`.
    HttpVersion(Vec<String>),
    /// The client asks to change to one of these protocols; lower-case.
    Upgrade(Vec<String>),
    /// How many bytes path and query have, the question mark included.
    UriLength(Measured),
    /// How many fields of this name there are.
    HeaderCount(Measured),
    /// How many bytes the values of this name have together.
    HeaderLength(Measured),
    /// The application protocol of TLS, agreed on or offered, is one of these.
    Alpn(Vec<String>),
    /// The time of day and week.
    Time(Time),
    /// What the handshake of TLS settled, by the name of its attribute; one of the values has to pass.
    Fact(Named),
}

/// A test of a number, ends included.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Of what; none where that goes without saying.
    pub name: Option<String>,
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: u32,
}

/// A test of the time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// The zone, a name of the IANA's database.
    pub zone: String,
    /// Days of the week, 1 for Monday; all when empty.
    pub days: Vec<u8>,
    /// Minutes of the day, from the first and up to before the second; all of the day when empty. One that ends before it
    /// begins goes on into the next day, and belongs to the day on which it began.
    pub ranges: Vec<(u16, u16)>,
}

/// A test of a named value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The test; none asks only that it is there.
    pub value: Option<Text>,
}

/// A test of a text; one of the listed alternatives has to hold.
#[derive(Debug, Deserialize)]
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
    /// One of these matches somewhere.
    Regex(Vec<String>),
}
