//! An expression over a request, compiled: every test knows the fact it reads and holds what it compares with.

use gateway_plugin_networks::Networks;
use gateway_plugin_sdk::needs::{List, OnRequest, RequestNeed};
use gateway_plugin_sdk::{ConfigError, Request};

use crate::config::{Match, Measured, Named, Text};
use crate::text::{HostTest, TextTest};
use crate::time::TimeTest;

/// An expression.
#[derive(Debug)]
pub(crate) enum Expression {
    /// All hold.
    All(Vec<Expression>),
    /// One holds.
    Any(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// One of the fact's values passes the test.
    Fact(RequestNeed, Test),
    /// A number about the fact's values is within bounds.
    Measure(RequestNeed, Measure, Bounds),
}

/// What is measured of a fact's values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// How many there are.
    Count,
    /// How many bytes they have together.
    Bytes,
}

/// Ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    min: u32,
    max: u32,
}

/// A test of one value.
#[derive(Debug)]
pub(crate) enum Test {
    /// It is there.
    Present,
    /// A text.
    Text(TextTest),
    /// A host name.
    Host(HostTest),
    /// An address.
    Networks(Networks),
    /// A port.
    Ports(Vec<(u16, u16)>),
    /// A time.
    Time(TimeTest),
}

impl Expression {
    /// Compiles what was configured; `at` is its JSON Pointer.
    pub(crate) fn compile(when: Match, needs: &mut List<OnRequest>, at: &str) -> Result<Self, ConfigError> {
        Ok(match when {
            Match::All(parts) => Self::All(Self::compile_all(parts, needs, &format!("{at}/all"))?),
            Match::Any(parts) => Self::Any(Self::compile_all(parts, needs, &format!("{at}/any"))?),
            Match::Not(part) => Self::Not(Box::new(Self::compile(*part, needs, &format!("{at}/not"))?)),
            Match::Path(text) => {
                let test = TextTest::compile(text, &format!("{at}/path"))?;
                Self::Fact(needs.path(), Test::Text(test))
            }
            Match::Method(methods) => Self::Fact(needs.method(), Test::Text(TextTest::exact(methods))),
            Match::Host(patterns) => {
                let test = HostTest::compile(patterns, &format!("{at}/host"))?;
                Self::Fact(needs.host(), Test::Host(test))
            }
            Match::Sni(patterns) => {
                let test = HostTest::compile(patterns, &format!("{at}/sni"))?;
                Self::Fact(needs.sni(), Test::Host(test))
            }
            Match::Header(named) => Self::named(needs.header(&named.name), named, &format!("{at}/header"))?,
            Match::Cookie(named) => Self::named(needs.cookie(&named.name), named, &format!("{at}/cookie"))?,
            Match::Query(named) => Self::named(needs.query_param(&named.name), named, &format!("{at}/query"))?,
            Match::Source(networks) => {
                let test = networks_of(&networks, &format!("{at}/source"))?;
                Self::Fact(needs.client_ip(), Test::Networks(test))
            }
            Match::Destination(networks) => {
                let test = networks_of(&networks, &format!("{at}/destination"))?;
                Self::Fact(needs.local_ip(), Test::Networks(test))
            }
            Match::HostRegex(patterns) => {
                let test = TextTest::compile(Text::Regex(patterns), &format!("{at}/host-regex"))?;
                Self::Fact(needs.host(), Test::Text(test))
            }
            Match::SourcePort(ranges) => Self::Fact(needs.client_port(), Test::Ports(ranges)),
            Match::HttpVersion(versions) => {
                Self::Fact(needs.attribute("http-version"), Test::Text(TextTest::exact(versions)))
            }
            Match::Upgrade(protocols) => Self::Fact(needs.attribute("upgrade"), Test::Text(TextTest::exact(protocols))),
            Match::UriLength(measured) => Self::Measure(needs.attribute("uri"), Measure::Bytes, Bounds::of(&measured)),
            Match::HeaderCount(measured) => {
                let need = needs.header(measured.name.as_deref().unwrap_or_default());
                Self::Measure(need, Measure::Count, Bounds::of(&measured))
            }
            Match::HeaderLength(measured) => {
                let need = needs.header(measured.name.as_deref().unwrap_or_default());
                Self::Measure(need, Measure::Bytes, Bounds::of(&measured))
            }
            Match::Port(ranges) => Self::Fact(needs.local_port(), Test::Ports(ranges)),
            Match::Alpn(protocols) => Self::Fact(needs.alpn(), Test::Text(TextTest::exact(protocols))),
            Match::Time(time) => {
                let need = needs.local_time(&time.zone);
                Self::Fact(need, Test::Time(TimeTest::compile(time, &format!("{at}/time"))?))
            }
            Match::Fact(named) => Self::named(needs.attribute(&named.name), named, &format!("{at}/fact"))?,
            Match::Tls => Self::Fact(needs.tls_version(), Test::Present),
        })
    }

    fn compile_all(parts: Vec<Match>, needs: &mut List<OnRequest>, at: &str) -> Result<Vec<Self>, ConfigError> {
        let numbered = parts.into_iter().enumerate();
        numbered
            .map(|(index, part)| Self::compile(part, needs, &format!("{at}/{index}")))
            .collect()
    }

    fn named(need: RequestNeed, named: Named, at: &str) -> Result<Self, ConfigError> {
        let test = match named.value {
            Some(text) => Test::Text(TextTest::compile(text, &format!("{at}/value"))?),
            None => Test::Present,
        };
        Ok(Self::Fact(need, test))
    }

    /// Whether it holds for this request.
    pub(crate) fn holds(&self, request: &Request<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(request)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(request)),
            Self::Not(part) => !part.holds(request),
            Self::Fact(need, test) => request.all(*need).any(|value| test.passes(value)),
            Self::Measure(need, measure, bounds) => {
                let values = request.all(*need);
                let measured = match measure {
                    Measure::Count => values.count(),
                    Measure::Bytes => values.map(<[u8]>::len).sum(),
                };
                (bounds.min as usize..=bounds.max as usize).contains(&measured)
            }
        }
    }
}

impl Bounds {
    fn of(measured: &Measured) -> Self {
        Self {
            min: measured.min,
            max: measured.max,
        }
    }
}

impl Test {
    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Text(text) => text.passes(value),
            Self::Host(host) => host.passes(value),
            Self::Networks(networks) => networks.contain(value),
            Self::Ports(ranges) => {
                let port = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse::<u16>().ok());
                port.is_some_and(|port| ranges.iter().any(|&(first, last)| (first..=last).contains(&port)))
            }
            Self::Time(time) => time.passes(value),
        }
    }
}

fn networks_of(texts: &[String], at: &str) -> Result<Networks, ConfigError> {
    Networks::new(texts.iter().map(String::as_str)).map_err(|position| {
        let text = texts.get(position).map_or("", String::as_str);
        let message = format!("`{text}` is not a network such as 10.0.0.0/8 or 2001:db8::/32");
        ConfigError::new(message).at(format!("{at}/{position}"))
    })
}
