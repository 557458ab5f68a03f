//! Settings that `defaults` may give and a frontend or backend may give again: read by the same functions in both places.

use std::ops::RangeInclusive;
use std::time::Duration;

use miette::SourceSpan;

use super::access_log::{self, AccessLogSetting};
use super::admission;
use super::balance::balance;
use super::forwarding::{ForwardingSettings, or_off};
use super::http2::Http2Settings;
use super::limits::{HttpKeepAliveSettings, PoolSettings, RequestLimitSettings, RetrySettings};
use super::log_format::{self, ReadFormat};
use super::logs::{self, LogNames};
use super::resilience::{self, ResendSettings};
use super::response_limits::ResponseLimitSettings;
use super::source::{self, SaidSource};
use super::timeouts::Timeouts;
use super::{compress, decompress, error_page, keep_alive, upgrades};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Balance, Compress, ConnectionRate, Decompress, ErrorPage, HashOf, KeepAlive, Mode, NormalizePath, PerSource,
    Upgrades,
};
use crate::config::reader::{At, Block, Node};

/// What a `defaults`, a frontend or a backend says itself. What it does not say is none.
#[derive(Default, Clone)]
pub(super) struct Settings {
    pub(super) mode: Option<At<Mode>>,
    pub(super) max_connections: Option<At<usize>>,
    pub(super) per_source: Option<At<PerSource>>,
    pub(super) connection_rate: Option<At<ConnectionRate>>,
    pub(super) timeouts: Timeouts,
    pub(super) keep_alive: Option<At<Option<KeepAlive>>>,
    pub(super) source: Option<At<Option<SaidSource>>>,
    pub(super) error_pages: Vec<At<ErrorPage>>,
    pub(super) normalize_path: Option<At<Option<NormalizePath>>>,
    pub(super) access_log: Option<At<AccessLogSetting>>,
    pub(super) logs: Option<LogNames>,
    pub(super) log_format: Option<At<Option<ReadFormat>>>,
    pub(super) forwarding: ForwardingSettings,
    pub(super) compress: Option<At<Option<Compress>>>,
    pub(super) decompress: Option<At<Option<Decompress>>>,
    pub(super) request_limits: RequestLimitSettings,
    pub(super) http_keep_alive: HttpKeepAliveSettings,
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
    pub(super) on_marked_up: Option<At<bool>>,
    pub(super) retries: RetrySettings,
    pub(super) resend: ResendSettings,
    pub(super) server_close: Option<At<bool>>,
    pub(super) early_hints: Option<At<bool>>,
    pub(super) pool: PoolSettings,
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
        // A frontend reads its own when its acls are known.
        if place == Place::Defaults
            && let Some(node) = block.one("max-connections-per-source")
        {
            self.per_source = admission::per_source(node, None).map(|said| said.limit);
        }
        if let Some(node) = block.one("max-connection-rate") {
            self.connection_rate = admission::connection_rate(node);
        }
        // So it does here.
        if place == Place::Defaults
            && let Some(node) = block.one("access-log")
        {
            self.access_log = access_log::access_log(node, None);
        }
        self.logs = block.one("log").and_then(logs::names);
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
        if let Some(node) = block.one("http-keep-alive") {
            http_only(&node, mode);
            self.http_keep_alive = HttpKeepAliveSettings::read(node);
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
        if let Some(node) = block.one("source") {
            self.source = or_off(node, source::source);
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
        if let Some(mut node) = block.one("on-marked-up") {
            let value = node.argument("what becomes of the backups' sessions");
            self.on_marked_up = value.and_then(|value| Some(value.at(value.choice(ON_MARKED_UP)?)));
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

/// Reports a node of HTTP mode that stands in a section of TCP mode.
pub(super) fn http_only(node: &Node<'_>, mode: Option<At<Mode>>) {
    if let Some(mode) = mode.filter(|mode| mode.value == Mode::Tcp) {
        node.fail(wrong_mode(&format!("`{}`", node.name()), node.span(), mode.span));
    }
}

pub(super) fn wrong_mode(what: &str, span: SourceSpan, mode: SourceSpan) -> ConfigError {
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

pub(super) const MODES: &[(&str, Mode)] = &[("http", Mode::Http), ("tcp", Mode::Tcp)];
/// Whether the sessions of a server that goes down end with it.
pub(super) const ON_MARKED_DOWN: &[(&str, bool)] = &[("shutdown-sessions", true), ("off", false)];

/// What becomes of the backups' sessions when a server comes back: whether they end.
pub(super) const ON_MARKED_UP: &[(&str, bool)] = &[("shutdown-backup-sessions", true), ("off", false)];

/// Below a millisecond the timer wheel cannot tell; above 24 days HAProxy could not either, and nobody missed it.
pub(super) const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 86_400);
/// How much a `max-connections` may say, wherever it stands: a process cannot have more open files than this on Linux
/// (`fs.nr_open`'s ceiling is far above any real one).
pub const MAX_CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;
/// Whoever waits holds a connection: no more than there may be.
const MAX_QUEUE: RangeInclusive<u64> = 0..=*MAX_CONNECTIONS.end();
