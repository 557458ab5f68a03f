//! Settings that `defaults` may give and a frontend or backend may give again: read by the same functions in both places.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::access_log::{self, AccessLogSetting};
use super::admission;
use super::forwarding::{ForwardingSettings, or_off};
use super::http2::Http2Settings;
use super::log_format::{self, ReadFormat};
use super::names::Names;
use super::persistence;
use super::resilience::{self, ResendSettings};
use super::response_limits::ResponseLimitSettings;
use super::section_name;
use super::{compress, decompress, error_page, keep_alive, upgrades};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Balance, Compress, Decompress, ErrorPage, HashOf, KeepAlive, MAX_RETRIES, Mode, NormalizePath, PerSource,
    Redispatch, Reuse, Spread, Upgrades,
};
use crate::config::reader::{At, Block, Context, Node};

/// What a `defaults`, a frontend or a backend says itself. What it does not say is none.
#[derive(Default, Clone)]
pub(super) struct Settings {
    pub(super) mode: Option<At<Mode>>,
    pub(super) max_connections: Option<At<usize>>,
    pub(super) per_source: Option<At<PerSource>>,
    pub(super) timeouts: Timeouts,
    pub(super) keep_alive: Option<At<Option<KeepAlive>>>,
    pub(super) error_pages: Vec<At<ErrorPage>>,
    pub(super) normalize_path: Option<At<Option<NormalizePath>>>,
    pub(super) access_log: Option<At<AccessLogSetting>>,
    pub(super) log_format: Option<At<Option<ReadFormat>>>,
    pub(super) forwarding: ForwardingSettings,
    pub(super) compress: Option<At<Option<Compress>>>,
    pub(super) decompress: Option<At<Option<Decompress>>>,
    pub(super) request_limits: RequestLimitSettings,
    pub(super) upgrades: Option<At<Upgrades>>,
    pub(super) http2: Http2Settings,
    pub(super) response_limits: ResponseLimitSettings,
    pub(super) balance: Option<At<Balance>>,
    /// Beside `balance`, of what it hashes.
    pub(super) hash_of: Option<HashOf>,
    pub(super) all_backups: Option<At<bool>>,
    pub(super) slow_start: Option<At<Duration>>,
    pub(super) max_queue: Option<At<usize>>,
    pub(super) on_marked_down: Option<At<bool>>,
    pub(super) retries: RetrySettings,
    pub(super) resend: ResendSettings,
    pub(super) server_close: Option<At<bool>>,
    pub(super) early_hints: Option<At<bool>>,
    pub(super) pool: PoolSettings,
}

/// `timeout connect="5s" …`, each on its own.
#[derive(Default, Clone)]
pub(super) struct Timeouts {
    pub(super) client: Option<At<Duration>>,
    pub(super) http_request: Option<At<Duration>>,
    pub(super) http_keep_alive: Option<At<Duration>>,
    pub(super) handshake: Option<At<Duration>>,
    pub(super) connect: Option<At<Duration>>,
    pub(super) server: Option<At<Duration>>,
    pub(super) tunnel: Option<At<Duration>>,
    pub(super) queue: Option<At<Duration>>,
}

/// `request-limits`, each on its own.
#[derive(Default, Clone)]
pub(super) struct RequestLimitSettings {
    pub(super) head: Option<At<usize>>,
    pub(super) headers: Option<At<usize>>,
    pub(super) uri: Option<At<usize>>,
    pub(super) body: Option<At<u64>>,
}

/// `pool`, each on its own.
#[derive(Default, Clone)]
pub(super) struct PoolSettings {
    pub(super) max_idle: Option<At<usize>>,
    pub(super) idle_timeout: Option<At<Duration>>,
    pub(super) reuse: Option<At<Reuse>>,
}

/// `retries`, each part on its own.
#[derive(Default, Clone)]
pub(super) struct RetrySettings {
    pub(super) count: Option<At<usize>>,
    pub(super) redispatch: Option<At<Redispatch>>,
}

/// Who may say what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Defaults,
    Frontend,
    Backend,
}

impl Settings {
    /// Reads the settings that may stand in this place, and remembers whether they fit the mode.
    pub(super) fn read(block: &mut Block<'_>, place: Place, inherited_mode: Option<At<Mode>>) -> Self {
        let mut settings = Self::default();
        if let Some(mut node) = block.one("mode") {
            let value = node.argument("the mode");
            settings.mode = value.and_then(|value| Some(value.at(value.choice(MODES)?)));
            node.finish();
        }
        let mode = match place {
            // Defaults serve sections of both modes.
            Place::Defaults => None,
            _ => settings.mode.or(inherited_mode),
        };
        let timeouts = block.many("timeout");
        settings.timeouts = Timeouts::read(timeouts, place, mode);
        settings.keep_alive = block.one("tcp-keep-alive").and_then(keep_alive::read);
        if let Some(node) = block.one("http2") {
            http_only(&node, mode);
            settings.http2 = Http2Settings::read(node, place);
        }
        let pages = block.many("error-page");
        pages.iter().for_each(|node| http_only(node, mode));
        settings.error_pages = error_page::error_pages(pages);
        if place != Place::Backend {
            settings.read_frontend(block, place, mode);
        }
        if place != Place::Frontend {
            settings.read_backend(block, mode);
        }
        settings
    }

    /// What holds of compression in a section that says this and inherits that.
    pub(super) fn compress(&self, inherited: &Self) -> Option<Box<Compress>> {
        let said = self.compress.as_ref().or(inherited.compress.as_ref())?;
        said.value.clone().map(Box::new)
    }

    /// The same of decompression.
    pub(super) fn decompress(&self, inherited: &Self) -> Option<Box<Decompress>> {
        let said = self.decompress.as_ref().or(inherited.decompress.as_ref())?;
        said.value.clone().map(Box::new)
    }

    fn read_frontend(&mut self, block: &mut Block<'_>, place: Place, mode: Option<At<Mode>>) {
        if let Some(mut node) = block.one("max-connections") {
            let value = node.argument("a number of connections");
            self.max_connections =
                value.and_then(|value| Some(value.at(usize::try_from(value.integer(MAX_CONNECTIONS)?).ok()?)));
            node.finish();
        }
        if let Some(node) = block.one("max-connections-per-source") {
            self.per_source = admission::per_source(node);
        }
        // A frontend reads its own when its acls are known.
        if place == Place::Defaults
            && let Some(node) = block.one("access-log")
        {
            self.access_log = access_log::access_log(node, None);
        }
        self.log_format = block
            .one("log-format")
            .and_then(|node| or_off(node, log_format::log_format));
        self.forwarding = ForwardingSettings::read(block, mode);
        if let Some(node) = block.one("compress") {
            http_only(&node, mode);
            self.compress = or_off(node, compress::compress);
        }
        if let Some(node) = block.one("decompress") {
            http_only(&node, mode);
            self.decompress = or_off(node, decompress::decompress);
        }
        if let Some(node) = block.one("normalize-path") {
            http_only(&node, mode);
            self.normalize_path = error_page::normalize_path(node);
        }
        if let Some(node) = block.one("request-limits") {
            http_only(&node, mode);
            self.request_limits = RequestLimitSettings::read(node);
        }
        if let Some(node) = block.one("upgrades") {
            http_only(&node, mode);
            self.upgrades = upgrades::read(node);
        }
    }

    fn read_backend(&mut self, block: &mut Block<'_>, mode: Option<At<Mode>>) {
        if let Some(node) = block.one("balance") {
            (self.balance, self.hash_of) = balance(node, mode);
        }
        if let Some(node) = block.one("all-backups") {
            self.all_backups = switch(node);
        }
        if let Some(mut node) = block.one("slow-start") {
            let value = node.argument("a duration");
            self.slow_start = value.and_then(|value| Some(value.at(value.duration(TIMEOUT_RANGE)?)));
            node.finish();
        }
        if let Some(mut node) = block.one("max-queue") {
            let value = node.argument("how many may wait");
            self.max_queue = value.and_then(|value| Some(value.at(usize::try_from(value.integer(MAX_QUEUE)?).ok()?)));
            node.finish();
        }
        if let Some(mut node) = block.one("on-marked-down") {
            let value = node.argument("what becomes of sessions");
            self.on_marked_down = value.and_then(|value| Some(value.at(value.choice(ON_MARKED_DOWN)?)));
            node.finish();
        }
        if let Some(node) = block.one("retries") {
            self.retries = RetrySettings::read(node);
        }
        if let Some(node) = block.one("early-hints") {
            http_only(&node, mode);
            self.early_hints = switch(node);
        }
        if let Some(node) = block.one("retry-on") {
            http_only(&node, mode);
            self.resend.on = resilience::retry_on(node);
        }
        if let Some(node) = block.one("retry-buffer") {
            http_only(&node, mode);
            self.resend.buffer = resilience::retry_buffer(node);
        }
        if let Some(node) = block.one("retry-budget") {
            http_only(&node, mode);
            self.resend.budget = resilience::retry_budget(node);
        }
        if let Some(node) = block.one("server-close") {
            http_only(&node, mode);
            self.server_close = switch(node);
        }
        if let Some(node) = block.one("response-limits") {
            http_only(&node, mode);
            self.response_limits = ResponseLimitSettings::read(node);
        }
        if let Some(node) = block.one("pool") {
            http_only(&node, mode);
            self.pool = PoolSettings::read(node);
        }
    }
}

impl Timeouts {
    fn read(nodes: Vec<Node<'_>>, place: Place, mode: Option<At<Mode>>) -> Self {
        let mut all = Self::default();
        for mut node in nodes {
            node.require_entries();
            for (key, side, http) in TIMEOUTS {
                // A side that is `defaults` is both.
                if place != Place::Defaults && place != *side && *side != Place::Defaults {
                    continue;
                }
                let Some(value) = node.property(key) else { continue };
                if *http && let Some(mode) = mode.filter(|mode| mode.value == Mode::Tcp) {
                    node.fail(wrong_mode(&format!("`timeout {key}=`"), value.span(), mode.span));
                }
                let Some(duration) = value.duration(TIMEOUT_RANGE) else {
                    continue;
                };
                let slot = match *key {
                    "client" => &mut all.client,
                    "http-request" => &mut all.http_request,
                    "http-keep-alive" => &mut all.http_keep_alive,
                    "handshake" => &mut all.handshake,
                    "connect" => &mut all.connect,
                    "queue" => &mut all.queue,
                    "tunnel" => &mut all.tunnel,
                    _ => &mut all.server,
                };
                if let Some(first) = slot {
                    node.fail(crate::config::reader::said_twice(
                        &format!("`timeout {key}=`"),
                        first.span,
                        value.span(),
                    ));
                }
                *slot = Some(value.at(duration));
            }
            refuse_other_side(&mut node, place);
            node.finish();
        }
        all
    }
}

impl RequestLimitSettings {
    fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let bytes = |value: u64| usize::try_from(value).ok();
        let this = Self {
            head: node
                .property("head")
                .and_then(|value| Some(value.at(bytes(value.size(HEAD_RANGE)?)?))),
            headers: node
                .property("headers")
                .and_then(|value| Some(value.at(bytes(value.integer(HEADERS_RANGE)?)?))),
            uri: node
                .property("uri")
                .and_then(|value| Some(value.at(bytes(value.size(URI_RANGE)?)?))),
            body: node
                .property("body")
                .and_then(|value| Some(value.at(value.size(BODY_RANGE)?))),
        };
        node.finish();
        this
    }
}

impl PoolSettings {
    fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let max_idle = node.property("max-idle");
        let max_idle = max_idle.and_then(|value| Some(value.at(usize::try_from(value.integer(MAX_IDLE)?).ok()?)));
        let idle_timeout = node.property("idle-timeout");
        let idle_timeout = idle_timeout.and_then(|value| Some(value.at(value.duration(TIMEOUT_RANGE)?)));
        let reuse = node.property("reuse");
        let reuse = reuse.and_then(|value| Some(value.at(value.choice(REUSES)?)));
        node.finish();
        Self {
            max_idle,
            idle_timeout,
            reuse,
        }
    }

    /// Where anything is said of the pool.
    pub(super) fn span(&self) -> Option<SourceSpan> {
        let idle = self.max_idle.map(|value| value.span);
        idle.or(self.idle_timeout.map(|value| value.span))
            .or(self.reuse.map(|value| value.span))
    }
}

impl RetrySettings {
    fn read(mut node: Node<'_>) -> Self {
        node.require_entries();
        let count = node.next_argument("a number of retries");
        let count = count.and_then(|value| Some(value.at(usize::try_from(value.integer(RETRIES)?).ok()?)));
        let redispatch = node.property("redispatch");
        let redispatch = redispatch.and_then(|value| Some(value.at(value.choice(REDISPATCH)?)));
        if let (Some(count), Some(redispatch)) = (count.filter(|count| count.value == 0), redispatch) {
            let error = ConfigError::new(Code::Inert, "`redispatch` does nothing without retries");
            let error = error.label(redispatch.span, "says where retries go");
            node.fail(error.label(count.span, "there are none").help("one of them has to go"));
        }
        node.finish();
        Self { count, redispatch }
    }
}

/// All `defaults` of a configuration.
pub(super) struct Defaults {
    unnamed: Option<(Settings, SourceSpan, Cell<bool>)>,
    named: Names<Settings>,
}

impl Defaults {
    /// Reads `defaults { … }` and `defaults "name" { … }`.
    pub(super) fn read(ctx: &Context<'_>, nodes: Vec<Node<'_>>) -> Self {
        let mut this = Self {
            unnamed: None,
            named: Names::new("set of defaults"),
        };
        for mut node in nodes {
            let name = match node.has_entries() {
                true => section_name(&mut node, "the defaults' name"),
                false => None,
            };
            let span = node.span();
            let settings = node.required_block().map(|mut block| {
                let settings = Settings::read(&mut block, Place::Defaults, None);
                block.finish(super::elsewhere);
                settings
            });
            let settings = settings.unwrap_or_default();
            match (name, &this.unnamed) {
                (Some(name), _) => this.named.add(ctx, name, settings),
                (None, Some((_, first, _))) => {
                    let error = crate::config::reader::said_twice("`defaults`", *first, span);
                    ctx.report(error.help("give one of them a name and let sections ask for it with `from=`"));
                }
                (None, None) => this.unnamed = Some((settings, span, Cell::new(false))),
            }
            node.finish();
        }
        this
    }

    /// What a section inherits: the defaults that its `from=` names, else the unnamed ones.
    pub(super) fn of(&self, section: &mut Node<'_>) -> Settings {
        if let Some(from) = section.property("from") {
            let named = self.named.refer(&from).and_then(|position| self.named.get(position));
            return named.map(|(settings, _)| settings.clone()).unwrap_or_default();
        }
        match &self.unnamed {
            Some((settings, _, used)) => {
                used.set(true);
                settings.clone()
            }
            None => Settings::default(),
        }
    }

    /// Reports defaults that no section takes.
    pub(super) fn report_unused(&self, ctx: &Context<'_>) {
        if let Some((_, span, used)) = &self.unnamed
            && !used.get()
        {
            let error = ConfigError::new(Code::Inert, "these defaults are never used");
            let error = error.label(*span, "every frontend and backend has `from=`, or there is none");
            ctx.report(error.help("leave them out"));
        }
        self.named
            .report_unused(ctx, "no frontend or backend has `from=` with it");
    }
}

/// Reports a node of HTTP mode that stands in a section of TCP mode.
pub(super) fn http_only(node: &Node<'_>, mode: Option<At<Mode>>) {
    if let Some(mode) = mode.filter(|mode| mode.value == Mode::Tcp) {
        node.fail(wrong_mode(&format!("`{}`", node.name()), node.span(), mode.span));
    }
}

fn wrong_mode(what: &str, span: SourceSpan, mode: SourceSpan) -> ConfigError {
    ConfigError::new(Code::Mode, format!("{what} needs HTTP mode"))
        .label(span, "understood in HTTP mode only")
        .label(mode, "the mode is TCP because of this")
        .help("leave it out, or write `mode \"http\"` in this section")
}

/// `server-close`, or `server-close "off"` against the defaults.
fn switch(mut node: Node<'_>) -> Option<At<bool>> {
    let span = node.span();
    let value = match node.next_argument("the switch") {
        Some(value) => value.choice(&[("off", false)])?,
        None => true,
    };
    node.finish();
    Some(At { value, span })
}

/// What of a request is hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashed {
    Header,
    Query,
    Cookie,
    Uri,
}

/// `balance "leastconn"`, `balance "source" consistent`, or `balance "header" name="X-Session-Id"`.
fn balance(mut node: Node<'_>, mode: Option<At<Mode>>) -> (Option<At<Balance>>, Option<HashOf>) {
    let consistent = node.flag("consistent");
    let value = node.argument("the way to choose a server");
    let way = value.and_then(|value| Some(value.at(value.choice(BALANCES)?)));
    let hashed = way.and_then(|way| match way.value {
        Way::Hash(hashed) => Some(At {
            value: hashed,
            span: way.span,
        }),
        Way::Of(_) => None,
    });
    if let Some(hashed) = hashed {
        if let Some(mode) = mode.filter(|mode| mode.value == Mode::Tcp) {
            node.fail(wrong_mode("this `balance`", hashed.span, mode.span));
        }
        let spread = consistent.map_or(Spread::Modulo, |_| Spread::Consistent);
        let of = persistence::hash_of(&mut node, hashed, spread);
        node.finish();
        let (spread, of) = of.unzip();
        let balance = spread.map(|spread| At {
            value: Balance::Hash(spread),
            span: hashed.span,
        });
        return (balance, of);
    }
    let balance = way.and_then(|way| match way.value {
        Way::Of(balance) => Some(At {
            value: balance,
            span: way.span,
        }),
        Way::Hash(_) => None,
    });
    let read = balance.map(|balance| match (balance.value, consistent) {
        (Balance::Source(_), Some(_)) => At {
            value: Balance::Source(Spread::Consistent),
            span: balance.span,
        },
        (_, Some(flag)) => {
            let error = ConfigError::new(Code::Inert, "`consistent` does nothing here");
            node.fail(
                error
                    .label(flag, "says how a hash becomes a server")
                    .label(balance.span, "does not hash")
                    .help("leave it out, or write: balance \"source\" consistent"),
            );
            balance
        }
        (_, None) => balance,
    });
    node.finish();
    (read, None)
}

/// A way to choose a server, as it is written.
#[derive(Clone, Copy)]
enum Way {
    Of(Balance),
    Hash(Hashed),
}

/// A client's timeout in a backend, or a server's in a frontend: says where it belongs.
fn refuse_other_side(node: &mut Node<'_>, place: Place) {
    if place == Place::Defaults {
        return;
    }
    let is_others = |side: Place| side != place && side != Place::Defaults;
    for (key, side, _) in TIMEOUTS.iter().filter(|(_, side, _)| is_others(*side)) {
        if let Some(value) = node.hidden_property(key) {
            let (here, there) = match side {
                Place::Frontend => ("backend", "frontend"),
                _ => ("frontend", "backend"),
            };
            let error = ConfigError::new(Code::Unknown, format!("a {here} has no `timeout {key}=`"));
            let error = error.label(value.span(), format!("this is a {there}'s"));
            node.fail(error.help(format!("write it in the {there}, or in `defaults`")));
        }
    }
}

pub(super) const MODES: &[(&str, Mode)] = &[("http", Mode::Http), ("tcp", Mode::Tcp)];
const BALANCES: &[(&str, Way)] = &[
    ("roundrobin", Way::Of(Balance::RoundRobin)),
    ("leastconn", Way::Of(Balance::LeastConn)),
    ("random", Way::Of(Balance::Random)),
    ("source", Way::Of(Balance::Source(Spread::Modulo))),
    ("first", Way::Of(Balance::First)),
    ("header", Way::Hash(Hashed::Header)),
    ("query", Way::Hash(Hashed::Query)),
    ("cookie", Way::Hash(Hashed::Cookie)),
    ("uri", Way::Hash(Hashed::Uri)),
];

/// Whether the sessions of a server that goes down end with it.
pub(super) const ON_MARKED_DOWN: &[(&str, bool)] = &[("shutdown-sessions", true), ("off", false)];

/// HAProxy's words.
const REUSES: &[(&str, Reuse)] = &[
    ("never", Reuse::Never),
    ("safe", Reuse::Safe),
    ("aggressive", Reuse::Aggressive),
    ("always", Reuse::Always),
];

const REDISPATCH: &[(&str, Redispatch)] = &[
    ("each", Redispatch::Each),
    ("last", Redispatch::Last),
    ("off", Redispatch::Never),
];

/// Which timeouts there are, who has them (both sides, where it says `defaults`), and whether they need HTTP mode.
const TIMEOUTS: &[(&str, Place, bool)] = &[
    ("client", Place::Frontend, false),
    ("http-request", Place::Frontend, true),
    ("http-keep-alive", Place::Frontend, true),
    ("handshake", Place::Frontend, false),
    ("connect", Place::Backend, false),
    ("server", Place::Backend, false),
    ("queue", Place::Backend, false),
    ("tunnel", Place::Defaults, false),
];

/// Below a millisecond the timer wheel cannot tell; above 24 days HAProxy could not either, and nobody missed it.
pub(super) const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 86_400);
/// A process cannot have more open files than this on Linux (`fs.nr_open`'s ceiling is far above any real one).
pub(super) const MAX_CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;
/// Below 1 KiB no browser gets through; beyond 1 MiB a head is an attack.
const HEAD_RANGE: RangeInclusive<u64> = 1 << 10..=1 << 20;
/// Beyond this, parsing the fields costs more than serving the request.
const HEADERS_RANGE: RangeInclusive<u64> = 1..=1_000;
const URI_RANGE: RangeInclusive<u64> = 1..=1 << 20;
const BODY_RANGE: RangeInclusive<u64> = 1..=1 << 50;
/// Per server and worker: more would outlive every server's own bound.
const MAX_IDLE: RangeInclusive<u64> = 1..=100_000;
/// Whoever waits holds a connection: no more than there may be.
const MAX_QUEUE: RangeInclusive<u64> = 0..=*MAX_CONNECTIONS.end();
const RETRIES: RangeInclusive<u64> = 0..=MAX_RETRIES as u64;
