//! `cookie "SRVID" insert indirect nocache`, the servers' values for it, and what `balance` hashes of a request.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::balance::Hashed;
use super::header;
use super::server::ReadServer;
use super::settings::{TIMEOUT_RANGE, http_only};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{CookieMode, CookiePersistence, HashOf, Mode, Spread, Stick, StickKey, UriPart};
use crate::config::reader::{At, Context, Node, Value, clip};

/// Reads a backend's `cookie`.
pub(super) fn cookie(mut node: Node<'_>, mode: Option<At<Mode>>) -> Option<CookiePersistence> {
    http_only(&node, mode);
    let name = node.argument("the cookie's name").map(|value| cookie_name(&value));
    let flags = Flags::read(&mut node);
    let how = flags.mode(&node);
    let path = text(&mut node, "path");
    let domain = text(&mut node, "domain");
    let attr = text(&mut node, "attr");
    let same_site = node.property("samesite").map(|value| {
        let word = value.choice(&[("strict", "Strict"), ("lax", "Lax"), ("none", "None")])?;
        Some(value.at(word))
    });
    let max_idle = duration(&mut node, "max-idle");
    let max_life = duration(&mut node, "max-life");
    let said = [
        ("nocache", flags.nocache),
        ("postonly", flags.postonly),
        ("httponly", flags.httponly),
        ("secure", flags.secure),
        ("path=", path.as_ref().and_then(span)),
        ("domain=", domain.as_ref().and_then(span)),
        ("attr=", attr.as_ref().and_then(span)),
        ("samesite=", same_site.as_ref().and_then(span)),
        ("max-idle=", max_idle.as_ref().and_then(span)),
        ("max-life=", max_life.as_ref().and_then(span)),
    ];
    if how != CookieMode::Insert {
        for (what, at) in said.iter().filter_map(|(what, at)| Some((what, (*at)?))) {
            let error = ConfigError::new(Code::Inert, format!("`{what}` does nothing without `insert`"));
            let error = error.label(at, "is for cookies that the gateway sets");
            node.fail(error.help("leave it out, or write: cookie \"SRVID\" insert indirect nocache"));
        }
    }
    if let (CookieMode::Rewrite, Some(indirect)) = (how, flags.indirect) {
        let error = ConfigError::new(Code::Conflict, "`rewrite` and `indirect` do not go together");
        let error = error.label(indirect, "a server that never sees the cookie cannot set it again");
        node.fail(error.help("leave one of them out"));
    }
    if let (Some(preserve), None, CookieMode::Passive | CookieMode::Rewrite | CookieMode::Prefix) =
        (flags.preserve, flags.indirect, how)
    {
        let error = ConfigError::new(Code::Inert, "`preserve` does nothing without `insert` or `indirect`");
        node.fail(
            error
                .label(preserve, "keeps what would be taken away, and nothing is")
                .help("leave it out"),
        );
    }
    if let (Some(Some(none)), None) = (
        same_site.filter(|at| at.is_some_and(|at| at.value == "None")),
        flags.secure,
    ) {
        let error = ConfigError::new(Code::Conflict, "`samesite=\"none\"` needs `secure`");
        let error = error.label(none.span, "browsers take no such cookie over plain HTTP");
        node.fail(error.help("add `secure`"));
    }
    node.finish();
    let (path, domain, attr) = (path.flatten(), domain.flatten(), attr.flatten());
    // In HAProxy's order, so that what it sets and what the gateway sets are the same bytes.
    let mut attributes = format!("; path={}", path.map_or("/", |path| path.value));
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(attributes, "; {name}{value}");
        }
    };
    add("domain=", domain.map(|domain| domain.value));
    add("HttpOnly", flags.httponly.map(|_| ""));
    add("Secure", flags.secure.map(|_| ""));
    add("SameSite=", same_site.flatten().map(|at| at.value));
    add("", attr.map(|attr| attr.value));
    Some(CookiePersistence {
        name: name??,
        mode: how,
        indirect: flags.indirect.is_some(),
        nocache: flags.nocache.is_some(),
        postonly: flags.postonly.is_some(),
        preserve: flags.preserve.is_some(),
        max_idle: max_idle.flatten().map(|at| at.value),
        max_life: max_life.flatten().map(|at| at.value),
        attributes,
    })
}

#[derive(Default)]
struct Flags {
    insert: Option<SourceSpan>,
    rewrite: Option<SourceSpan>,
    prefix: Option<SourceSpan>,
    indirect: Option<SourceSpan>,
    nocache: Option<SourceSpan>,
    postonly: Option<SourceSpan>,
    preserve: Option<SourceSpan>,
    httponly: Option<SourceSpan>,
    secure: Option<SourceSpan>,
}

impl Flags {
    fn read(node: &mut Node<'_>) -> Self {
        Self {
            insert: node.flag("insert"),
            rewrite: node.flag("rewrite"),
            prefix: node.flag("prefix"),
            indirect: node.flag("indirect"),
            nocache: node.flag("nocache"),
            postonly: node.flag("postonly"),
            preserve: node.flag("preserve"),
            httponly: node.flag("httponly"),
            secure: node.flag("secure"),
        }
    }

    fn mode(&self, node: &Node<'_>) -> CookieMode {
        let modes = [
            (self.insert, CookieMode::Insert),
            (self.rewrite, CookieMode::Rewrite),
            (self.prefix, CookieMode::Prefix),
        ];
        let mut said = modes.into_iter().filter_map(|(at, mode)| Some((at?, mode)));
        let Some((first, mode)) = said.next() else {
            return CookieMode::Passive;
        };
        if let Some((second, _)) = said.next() {
            let error = ConfigError::new(Code::Conflict, "a cookie is made in one way");
            let error = error.label(first, "this one").label(second, "and this one");
            node.fail(error.help("write one of `insert`, `rewrite` and `prefix`"));
        }
        mode
    }
}

/// A value of a server: short, and without what has a meaning of its own around it.
pub(super) fn server_value(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.is_empty() || text.len() > MAX_COOKIE_VALUE {
        let message = format!("a server's cookie has 1 to {MAX_COOKIE_VALUE} bytes");
        return value.fail(
            message,
            format!("has {}", text.len()),
            "write a short word, as \"app01\"",
        );
    }
    // RFC 6265, section 4.1.1: cookie-octet; and HAProxy's two separators.
    let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\|~".contains(&byte);
    if !text.bytes().all(is_octet) {
        return value.fail(
            format!("{:?} cannot be a cookie's value", clip(text)),
            "has characters that cannot be there",
            "letters, digits and most signs may stand there, but no spaces, quotes, \\ , ; | or ~",
        );
    }
    Some(text.to_owned())
}

/// Reports a cookie that keeps nobody anywhere, and values of servers that nobody asks for.
pub(super) fn report_cookies(ctx: &Context<'_>, cookie: Option<SourceSpan>, servers: &[ReadServer]) {
    let value = servers.iter().find_map(|server| server.cookie);
    match (cookie, value) {
        (Some(cookie), None) => {
            let error = ConfigError::new(Code::Inert, "`cookie` does nothing: no server has a value for it");
            ctx.report(
                error
                    .label(cookie, "says which server a client is kept at")
                    .help("give each its own: server \"app-1\" \"10.0.0.1:8080\" cookie=\"app01\""),
            );
        }
        (None, Some(value)) => {
            let error = ConfigError::new(Code::Inert, "`cookie=` does nothing: this backend has no `cookie`");
            ctx.report(
                error
                    .label(value, "nobody is told")
                    .help("write how clients are kept: cookie \"SRVID\" insert indirect nocache"),
            );
        }
        _ => {}
    }
}

/// Reads what of a request is hashed, of a `balance` that hashes one.
pub(super) fn hash_of(node: &mut Node<'_>, what: At<Hashed>, spread: Spread) -> Option<(Spread, HashOf)> {
    let whole = node.flag("whole");
    let name = node.property("name");
    let length = node.property("length");
    let depth = node.property("depth");
    let is_uri = what.value == Hashed::Uri;
    let uris = [
        ("whole", whole),
        ("length=", length.as_ref().map(Value::span)),
        ("depth=", depth.as_ref().map(Value::span)),
    ];
    for (word, at) in uris.into_iter().filter_map(|(word, at)| Some((word, at?))) {
        if !is_uri {
            let error = ConfigError::new(Code::Inert, format!("`{word}` does nothing here"));
            let error = error.label(at, "says which part of a URI counts");
            node.fail(error.label(what.span, "looks at something else").help("leave it out"));
        }
    }
    let of = match (what.value, name) {
        (Hashed::Uri, None) => Some(HashOf::Uri(UriPart {
            whole: whole.is_some(),
            length: super::or_none(length.map(|value| usize::try_from(value.integer(URI_LENGTH)?).ok()))?,
            depth: super::or_none(depth.map(|value| usize::try_from(value.integer(URI_DEPTH)?).ok()))?,
        })),
        (Hashed::Uri, Some(name)) => {
            let error = ConfigError::new(Code::Inert, "`name=` does nothing here");
            node.fail(error.label(name.span(), "a request has one URI").help("leave it out"));
            None
        }
        (Hashed::Header | Hashed::Query | Hashed::Cookie, None) => {
            unnamed(node, what.span, r#"balance "header" name="X-Session-Id" consistent"#);
            None
        }
        (Hashed::Header, Some(name)) => {
            let text = header::header_name(&name)?;
            Some(HashOf::Header(http::HeaderName::from_bytes(text.as_bytes()).ok()?))
        }
        (Hashed::Query, Some(name)) => Some(HashOf::Query(name.name()?.to_owned())),
        (Hashed::Cookie, Some(name)) => Some(HashOf::Cookie(cookie_name(&name)?)),
    };
    Some((spread, of?))
}

/// Reads a backend's `stick "header" name="X-Session-Id" expire="30m" size=100000`.
pub(super) fn stick(mut node: Node<'_>, mode: Option<At<Mode>>, servers: usize) -> Option<Stick> {
    let what = node.argument("what tells clients apart");
    let what = what.and_then(|value| Some(value.at(value.choice(STICKS)?)));
    let name = node.property("name");
    let expire = node.required_property("expire");
    let expire = expire.and_then(|value| value.duration(TIMEOUT_RANGE));
    let size = node.property("size").map_or(Some(DEFAULT_STICK_SIZE), |value| {
        usize::try_from(value.integer(STICK_SIZE)?).ok()
    });
    if servers < 2 {
        let error = ConfigError::new(Code::Inert, "`stick` does nothing: there is one server");
        let error = error.label(node.span(), "everybody is at it");
        node.fail(error.help("leave it out, or add servers"));
    }
    let key = what.and_then(|what| stick_key(&mut node, what, name, mode));
    node.finish();
    Some(Stick {
        key: key?,
        expire: expire?,
        size: size?,
    })
}

fn stick_key(
    node: &mut Node<'_>,
    what: At<Option<Hashed>>,
    name: Option<Value<'_>>,
    mode: Option<At<Mode>>,
) -> Option<StickKey> {
    let Some(hashed) = what.value else {
        if let Some(name) = name {
            let error = ConfigError::new(Code::Inert, "`name=` does nothing here");
            let error = error.label(name.span(), "a client has one address");
            node.fail(error.help("leave it out"));
        }
        return Some(StickKey::ClientIp);
    };
    http_only(node, mode);
    let Some(name) = name else {
        unnamed(node, what.span, r#"stick "header" name="X-Session-Id" expire="30m""#);
        return None;
    };
    Some(StickKey::Of(match hashed {
        Hashed::Header => {
            let text = header::header_name(&name)?;
            HashOf::Header(http::HeaderName::from_bytes(text.as_bytes()).ok()?)
        }
        Hashed::Cookie => HashOf::Cookie(cookie_name(&name)?),
        // A URI has no name, and is not among the choices.
        Hashed::Query | Hashed::Uri => HashOf::Query(name.name()?.to_owned()),
    }))
}

/// Reports that `name=` is missing; where the name stands behind the kind, as a rate limit's `key` has it, that alone.
fn unnamed(node: &mut Node<'_>, kind: SourceSpan, example: &str) {
    let section = node.name();
    if let Some(bare) = node.next_argument("the name") {
        let word = node.first_text().unwrap_or_default();
        let help = bare
            .raw()
            .as_string()
            .map(|name| format!("write: {section} {word:?} name={name:?}"));
        let help = help.unwrap_or_else(|| format!("write, for example: {example}"));
        let _: Option<()> = bare.fail(
            format!("`{section}` takes the name as `name=`"),
            "says not of what",
            help,
        );
        return;
    }
    let error = ConfigError::new(Code::Missing, format!("`{section}` needs `name=` here"));
    let error = error.label(kind, "of which name?");
    node.fail(error.help(format!("write, for example: {example}")));
}

fn cookie_name(value: &Value<'_>) -> Option<String> {
    let name = header::token(value)?;
    if name.is_empty() || name.len() > MAX_COOKIE_NAME {
        let message = format!("a cookie's name has 1 to {MAX_COOKIE_NAME} bytes");
        return value.fail(
            message,
            format!("has {}", name.len()),
            "write a short word, as \"SRVID\"",
        );
    }
    Some(name)
}

/// What goes into Set-Cookie as it is.
fn text<'a>(node: &mut Node<'a>, key: &'static str) -> Option<Option<At<&'a str>>> {
    let value = node.property(key)?;
    let read = || {
        let text = value.text()?;
        // RFC 6265, section 4.1.1: av-octet.
        let is_octet = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && byte != b';';
        let fits = !text.is_empty() && text.len() <= MAX_COOKIE_ATTRIBUTE && text.bytes().all(is_octet);
        if !fits {
            let message = format!("`{key}=` has 1 to {MAX_COOKIE_ATTRIBUTE} printable characters, and no `;`");
            return value.fail(
                message,
                "not that",
                "write an attribute as it shall stand in Set-Cookie",
            );
        }
        Some(value.at(text))
    };
    Some(read())
}

fn duration(node: &mut Node<'_>, key: &'static str) -> Option<Option<At<Duration>>> {
    let value = node.property(key)?;
    Some(value.duration(COOKIE_TIME).map(|time| value.at(time)))
}

fn span<T>(value: &Option<At<T>>) -> Option<SourceSpan> {
    value.as_ref().map(|at| at.span)
}

/// Every request is compared with it.
const MAX_COOKIE_NAME: usize = 128;
/// A name of a server, at most: it travels with every request.
const MAX_COOKIE_VALUE: usize = 128;
/// A domain name has 255 at most.
const MAX_COOKIE_ATTRIBUTE: usize = 255;
/// Dates in cookies count in steps of four seconds; browsers keep no cookie for longer than 400 days.
const COOKIE_TIME: RangeInclusive<Duration> = Duration::from_secs(4)..=Duration::from_secs(400 * 86_400);
const STICKS: &[(&str, Option<Hashed>)] = &[
    ("client-ip", None),
    ("header", Some(Hashed::Header)),
    ("query", Some(Hashed::Query)),
    ("cookie", Some(Hashed::Cookie)),
];
/// Some 5 MB.
const DEFAULT_STICK_SIZE: usize = 100_000;
/// Two for each of its parts at least; some 500 MB at most.
const STICK_SIZE: RangeInclusive<u64> = 32..=10_000_000;
/// As long as a request target may be.
const URI_LENGTH: RangeInclusive<u64> = 1..=1 << 20;
/// Deeper than any site is.
const URI_DEPTH: RangeInclusive<u64> = 1..=128;
