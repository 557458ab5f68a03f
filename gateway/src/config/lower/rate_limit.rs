//! `rate-limit "per-ip" { key "client-ip"; allow "100/s" burst=200 }`.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::{Scope, check_http, elsewhere, header, or_none};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{RateKey, RateLimit, StatusSet};
use crate::config::reader::{At, Block, Context, Node, Value, said_twice};
use crate::config::units;

/// What others have to know of a rate limit.
pub(super) struct Known {
    /// A part of its key that only a request has, and where it stands.
    pub(super) of_request: Option<SourceSpan>,
}

/// Reads a named rate limit and makes it known.
pub(super) fn rate_limit(scope: &mut Scope<'_>, mut node: Node<'_>) -> Option<RateLimit> {
    let name = own_name(&mut node);
    let block = node.required_block();
    let span = node.span();
    node.finish();
    let mut of_request = None;
    let limit = block.and_then(|block| limit(scope.ctx, span, block, &mut of_request));
    if let Some(name) = name {
        scope.rate_limits.add(scope.ctx, name, Known { of_request });
    }
    let (key, (tokens, period, burst), count_status) = limit?;
    Some(RateLimit {
        name: name?.value.into(),
        key,
        tokens,
        period_ms: u64::try_from(period.as_millis()).ok()?,
        burst: burst.unwrap_or(tokens),
        count_status,
    })
}

/// Its name. Clients are told it where `rate-limit-headers` stands, in quotes of a structured field (RFC 9651, section 3.3.3).
fn own_name<'a>(node: &mut Node<'a>) -> Option<At<&'a str>> {
    let value = node.argument("the rate limit's name")?;
    let name = value.name()?;
    let is_plain = name
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    if !is_plain || name.len() > LONGEST_NAME {
        return value.fail(
            format!(
                "{} has at most {LONGEST_NAME} characters of ASCII, and neither quotes nor backslashes",
                value.title()
            ),
            "clients cannot be told this",
            "they are told it where `rate-limit-headers` stands: choose a plainer one",
        );
    }
    Some(value.at(name))
}

/// Characters of a rate limit's name, as the hosts of limiters take it.
const LONGEST_NAME: usize = 64;

fn limit(
    ctx: &Context<'_>,
    span: SourceSpan,
    mut block: Block<'_>,
    of_request: &mut Option<SourceSpan>,
) -> Option<(Vec<RateKey>, Allowance, Option<StatusSet>)> {
    let mut keys: Vec<(RateKey, SourceSpan)> = Vec::new();
    let mut whole = true;
    for key_node in block.many("key") {
        let span = key_node.span();
        let Some(key) = key(key_node) else {
            whole = false;
            continue;
        };
        if !matches!(key, RateKey::ClientIp { .. }) {
            of_request.get_or_insert(span);
        }
        match keys.iter().find(|(first, _)| *first == key) {
            Some((_, first)) => ctx.report(said_twice("this part of the key", *first, span)),
            None if keys.len() == MAX_KEYS => {
                let error = ConfigError::new(Code::Value, format!("a key has at most {MAX_KEYS} parts"));
                ctx.report(error.label(span, "one too many").help("count by fewer things together"));
                break;
            }
            None => keys.push((key, span)),
        }
    }
    let allow = block.one("allow");
    if allow.is_none() {
        let error = ConfigError::new(Code::Missing, "a rate limit needs `allow`");
        ctx.report(
            error
                .label(span, "limits nothing")
                .help("write how many requests it allows: allow \"100/s\""),
        );
    }
    let allow = allow.and_then(allowance);
    let counted = block.one("count-status").map(|node| {
        // Connections have no status either.
        of_request.get_or_insert(node.span());
        count_status(node)
    });
    block.finish(elsewhere);
    let key = whole.then(|| keys.into_iter().map(|(key, _)| key).collect());
    Some((key?, allow?, or_none(counted)?))
}

/// `count-status "400-499"`: the statuses of responses that count.
fn count_status(mut node: Node<'_>) -> Option<StatusSet> {
    let value = node.argument("the statuses of responses that count");
    node.finish();
    Some(StatusSet::of(&check_http::statuses(&value?)?))
}

/// How many in what time, and how many at once.
type Allowance = (u64, Duration, Option<u64>);

fn allowance(mut node: Node<'_>) -> Option<Allowance> {
    let rate = node.argument("a rate").and_then(|value| {
        let (tokens, period) = match units::rate(value.text()?) {
            Ok(rate) => rate,
            Err(error) => return value.fail("the rate cannot be read", error.message, error.help),
        };
        if !TOKENS.contains(&tokens) {
            let message = format!("a rate has to be from {} to {} requests", TOKENS.start(), TOKENS.end());
            return value.fail(message, "out of range", units::RATE_HELP);
        }
        if !PERIOD.contains(&period) || !period.as_micros().is_multiple_of(1_000) {
            let message = "a rate's period has to be a whole number of milliseconds, at most a day";
            return value.fail(message, "out of range", units::RATE_HELP);
        }
        Some((tokens, period))
    });
    let burst = node.property("burst").map(|value| value.integer(TOKENS));
    node.finish();
    let (tokens, period) = rate?;
    Some((tokens, period, or_none(burst)?))
}

fn key(mut node: Node<'_>) -> Option<RateKey> {
    #[derive(Clone, Copy)]
    enum Kind {
        ClientIp,
        Path,
        Host,
        Method,
        Header,
        Cookie,
        Query,
    }
    let kinds = [
        ("client-ip", Kind::ClientIp),
        ("path", Kind::Path),
        ("host", Kind::Host),
        ("method", Kind::Method),
        ("header", Kind::Header),
        ("cookie", Kind::Cookie),
        ("query", Kind::Query),
    ];
    let kind = node
        .argument("what is counted together")
        .and_then(|value| value.choice(&kinds));
    let key = match kind {
        None => {
            node.raw();
            None
        }
        Some(Kind::Path) => Some(RateKey::Path),
        Some(Kind::Host) => Some(RateKey::Host),
        Some(Kind::Method) => Some(RateKey::Method),
        Some(Kind::Header) => named(&mut node, "the header's name", r#"key "header" "X-Api-Key""#)
            .and_then(|value| Some(RateKey::Header(header::header_name(&value)?))),
        Some(Kind::Cookie) => named(&mut node, "the cookie's name", r#"key "cookie" "session""#)
            .and_then(|value| Some(RateKey::Cookie(header::token(&value)?))),
        Some(Kind::Query) => named(&mut node, "the parameter's name", r#"key "query" "token""#)
            .and_then(|value| Some(RateKey::Query(value.text()?.to_owned()))),
        Some(Kind::ClientIp) => client_ip(&mut node),
    };
    node.finish();
    key
}

/// The name that follows the kind. Who writes it as `balance` and `stick` have it is told of that alone.
fn named<'a>(node: &mut Node<'a>, what: &'static str, example: &'static str) -> Option<Value<'a>> {
    let property = node.hidden_property("name");
    let value = node.next_argument(what);
    let Some(property) = property else {
        if value.is_none() {
            let error = ConfigError::new(Code::Missing, format!("`key` needs {what}"));
            let error = error.label(node.span(), format!("{what} has to follow"));
            node.fail(error.help(format!("write {example}")));
        }
        return value;
    };
    if value.is_some() {
        return property.fail("`key` has no property `name`", "unknown property", "leave it out");
    }
    let kind = node.first_text().unwrap_or_default();
    let help = property.any_text().map(|name| format!("write key {kind:?} {name:?}"));
    property.fail(
        format!("`key` takes {what} without `name=`"),
        "no property here",
        help.unwrap_or_else(|| format!("write {example}")),
    )
}

fn client_ip(node: &mut Node<'_>) -> Option<RateKey> {
    let RateKey::ClientIp {
        mut ipv4_prefix,
        mut ipv6_prefix,
    } = RateKey::CLIENT_IP
    else {
        return None;
    };
    for (key, bits, slot) in [
        ("ipv4-prefix", 32, &mut ipv4_prefix),
        ("ipv6-prefix", 128, &mut ipv6_prefix),
    ] {
        if let Some(value) = node.property(key) {
            *slot = u8::try_from(value.integer(0..=bits)?).ok()?;
        }
    }
    Some(RateKey::ClientIp {
        ipv4_prefix,
        ipv6_prefix,
    })
}

/// Each is read for every request.
const MAX_KEYS: usize = 16;
/// Up to a thousand million: beyond what a machine serves in any period that makes sense.
const TOKENS: RangeInclusive<u64> = 1..=1_000_000_000;
const PERIOD: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);
