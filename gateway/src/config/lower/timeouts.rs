//! `timeout connect="5s" client="30s" …`: which there are, and who may say them.

use std::time::Duration;

use super::settings::{Place, TIMEOUT_RANGE, wrong_mode};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::Mode;
use crate::config::reader::{At, Node, said_twice};

/// `timeout connect="5s" …`, each on its own.
#[derive(Default, Clone)]
pub(super) struct Timeouts {
    pub(super) client: Option<At<Duration>>,
    pub(super) http_request: Option<At<Duration>>,
    pub(super) request_body: Option<At<Duration>>,
    pub(super) http_keep_alive: Option<At<Duration>>,
    pub(super) unread: Option<At<Duration>>,
    pub(super) handshake: Option<At<Duration>>,
    pub(super) connect: Option<At<Duration>>,
    pub(super) server: Option<At<Duration>>,
    pub(super) tunnel: Option<At<Duration>>,
    pub(super) queue: Option<At<Duration>>,
}

impl Timeouts {
    /// Reads the nodes of a section.
    pub(super) fn read(nodes: Vec<Node<'_>>, place: Place, mode: Option<At<Mode>>) -> Self {
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
                    "request-body" => &mut all.request_body,
                    "http-keep-alive" => &mut all.http_keep_alive,
                    "unread" => &mut all.unread,
                    "handshake" => &mut all.handshake,
                    "connect" => &mut all.connect,
                    "queue" => &mut all.queue,
                    "tunnel" => &mut all.tunnel,
                    _ => &mut all.server,
                };
                if let Some(first) = slot {
                    node.fail(said_twice(&format!("`timeout {key}=`"), first.span, value.span()));
                }
                *slot = Some(value.at(duration));
            }
            refuse_other_side(&mut node, place);
            node.finish();
        }
        all
    }
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

/// Which timeouts there are, who has them (both sides, where it says `defaults`), and whether they need HTTP mode.
const TIMEOUTS: &[(&str, Place, bool)] = &[
    ("client", Place::Frontend, false),
    ("http-request", Place::Frontend, true),
    ("request-body", Place::Frontend, true),
    ("http-keep-alive", Place::Frontend, true),
    ("unread", Place::Frontend, true),
    ("handshake", Place::Frontend, false),
    ("connect", Place::Backend, false),
    ("server", Place::Backend, false),
    ("queue", Place::Backend, false),
    ("tunnel", Place::Defaults, false),
];
