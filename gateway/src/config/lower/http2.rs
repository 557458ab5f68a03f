//! `http2 max-streams=100 …` in defaults, frontends and backends, and `http2 "off"` in the first two.

use std::ops::RangeInclusive;

use super::settings::Place;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{ClientHttp2, Http2, Server};
use crate::config::reader::{At, Context, Node, Value};

/// What is said of HTTP/2, each on its own.
#[derive(Default, Clone)]
pub(super) struct Http2Settings {
    pub(super) off: Option<At<bool>>,
    max_streams: Option<At<u32>>,
    stream_window: Option<At<u32>>,
    connection_window: Option<At<u32>>,
    max_frame_size: Option<At<u32>>,
    header_table: Option<At<u32>>,
    max_resets: Option<At<u32>>,
    max_control_frames: Option<At<u32>>,
}

impl Http2Settings {
    pub(super) fn read(mut node: Node<'_>, place: Place) -> Self {
        node.require_entries();
        let mut this = Self::default();
        let number = |value: Option<Value<'_>>, range: RangeInclusive<u64>| {
            value.and_then(|value| Some(value.at(u32::try_from(value.integer(range)?).ok()?)))
        };
        let size = |value: Option<Value<'_>>, range: RangeInclusive<u64>| {
            value.and_then(|value| Some(value.at(u32::try_from(value.size(range)?).ok()?)))
        };
        if place != Place::Backend
            && let Some(value) = node.next_argument("the switch")
        {
            this.off = value.choice(&[("off", true), ("on", false)]).map(|off| value.at(off));
        }
        this.max_streams = number(node.property("max-streams"), STREAMS);
        this.stream_window = size(node.property("stream-window"), WINDOW);
        this.connection_window = size(node.property("connection-window"), WINDOW);
        this.max_frame_size = size(node.property("max-frame-size"), FRAME);
        this.header_table = size(node.property("header-table"), TABLE);
        if place != Place::Backend {
            this.max_resets = number(node.property("max-resets"), FRAMES);
            this.max_control_frames = number(node.property("max-control-frames"), FRAMES);
        }
        if let (Some(off), Some(limit)) = (this.off.filter(|off| off.value), this.said()) {
            let error = ConfigError::new(Code::Inert, "bounds on HTTP/2 do nothing when it is off");
            let error = error.label(limit, "bounds it").label(off.span, "turns it off");
            node.fail(error.help("one of them has to go"));
        }
        for key in ["max-resets", "max-control-frames"] {
            if place == Place::Backend
                && let Some(value) = node.hidden_property(key)
            {
                let error = ConfigError::new(Code::Unknown, format!("a backend has no `http2 {key}=`"));
                let error = error.label(value.span(), "this is a frontend's");
                node.fail(error.help("write it in the frontend, or in `defaults`"));
            }
        }
        node.finish();
        this
    }

    /// Reports a backend's bounds when it speaks HTTP/2 with none of its servers.
    pub(super) fn report_unspoken<'s>(&self, ctx: &Context<'_>, servers: impl IntoIterator<Item = Option<&'s Server>>) {
        let Some(said) = self.said() else { return };
        // One that could not be read may speak it.
        if servers
            .into_iter()
            .all(|server| server.is_some_and(|server| !server.http2))
        {
            let error = ConfigError::new(
                Code::Inert,
                "`http2` does nothing: HTTP/2 is spoken with none of the servers",
            );
            let error = error.label(said, "bounds nothing");
            ctx.report(error.help("leave it out, or give a server the flag: server \"app-1\" \"10.0.0.1:8080\" h2"));
        }
    }

    /// Where any bound is said.
    fn said(&self) -> Option<miette::SourceSpan> {
        let all = [
            self.max_streams,
            self.stream_window,
            self.connection_window,
            self.max_frame_size,
            self.header_table,
            self.max_resets,
            self.max_control_frames,
        ];
        all.into_iter().flatten().map(|at| at.span).next()
    }

    fn bounds(&self, inherited: &Self, default: Http2) -> Http2 {
        let or = |own: Option<At<u32>>, inherited: Option<At<u32>>, default| {
            own.or(inherited).map_or(default, |at| at.value)
        };
        Http2 {
            max_streams: or(self.max_streams, inherited.max_streams, default.max_streams),
            stream_window: or(self.stream_window, inherited.stream_window, default.stream_window),
            connection_window: or(
                self.connection_window,
                inherited.connection_window,
                default.connection_window,
            ),
            max_frame_size: or(self.max_frame_size, inherited.max_frame_size, default.max_frame_size),
            header_table: or(self.header_table, inherited.header_table, default.header_table),
        }
    }

    /// What a backend has.
    pub(super) fn of_backend(&self, inherited: &Self) -> Http2 {
        let mut bounds = self.bounds(inherited, Http2::SERVERS);
        if self.connection_window.or(inherited.connection_window).is_none() {
            let all = bounds.stream_window.saturating_mul(bounds.max_streams);
            bounds.connection_window = all.min(MOST_WINDOW);
        }
        bounds
    }

    /// What a frontend has.
    pub(super) fn of_frontend(&self, inherited: &Self) -> ClientHttp2 {
        let or = |own: Option<At<u32>>, inherited: Option<At<u32>>, default| {
            own.or(inherited).map_or(default, |at| at.value)
        };
        ClientHttp2 {
            bounds: self.bounds(inherited, Http2::CLIENTS),
            max_resets: or(self.max_resets, inherited.max_resets, DEFAULT_MAX_RESETS),
            max_control_frames: or(
                self.max_control_frames,
                inherited.max_control_frames,
                DEFAULT_MAX_CONTROL_FRAMES,
            ),
            enabled: !self.off.or(inherited.off).is_some_and(|off| off.value),
        }
    }
}

/// A hundred a second, again and again: no user gives up so often, and a server hardly notices those who do.
const DEFAULT_MAX_RESETS: u32 = 1_000;
/// Clients that measure the network with PING, as those of gRPC, send a few hundred a second at most; each costs the gateway
/// less than a microsecond.
const DEFAULT_MAX_CONTROL_FRAMES: u32 = 10_000;

const STREAMS: RangeInclusive<u64> = 1..=10_000;
/// RFC 9113, section 6.5.2: the initial value, and the largest.
const WINDOW: RangeInclusive<u64> = 65_535..=(1 << 31) - 1;
const MOST_WINDOW: u32 = (1 << 31) - 1;
const FRAME: RangeInclusive<u64> = 1 << 14..=(1 << 24) - 1;
/// Beyond 64 KiB, looking fields up costs more than sending them.
const TABLE: RangeInclusive<u64> = 0..=64 << 10;
const FRAMES: RangeInclusive<u64> = 1..=10_000_000;
