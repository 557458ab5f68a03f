//! `session-cache 20000` and `tickets rotate="1h"` in the block of a bind's `tls`: how clients come back.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::or_none;
use super::tls::path;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Resumption, TicketKeys};
use crate::config::reader::{Block, Node, Value};
use crate::crypto::MAX_TICKET_ROTATION;

/// What a bind says of clients that come back.
pub(super) struct Returning {
    pub(super) resumption: Resumption,
    pub(super) keys: Option<TicketKeys>,
}

impl Default for Returning {
    fn default() -> Self {
        Self {
            resumption: DEFAULT_RESUMPTION,
            keys: None,
        }
    }
}

/// Reads both.
pub(super) fn read(block: &mut Block<'_>) -> Option<Returning> {
    let cache = block.one("session-cache").map(|mut node| {
        let cache = node
            .argument("how many sessions")
            .and_then(|value| value.integer(0..=MAX_SESSIONS));
        node.finish();
        usize::try_from(cache?).ok()
    });
    let tickets = block.one("tickets").map(tickets);
    let cache = or_none(cache)?.unwrap_or(DEFAULT_RESUMPTION.cache);
    let (tickets, keys) = match or_none(tickets)? {
        None => (DEFAULT_RESUMPTION.tickets, None),
        Some(Tickets::Off) => (None, None),
        Some(Tickets::Own(rotate)) => (Some(rotate), None),
        Some(Tickets::Shared(keys)) => (None, Some(keys)),
    };
    Some(Returning {
        resumption: Resumption { cache, tickets },
        keys,
    })
}

/// Whose keys make tickets.
enum Tickets {
    Off,
    /// The gateway's own, and how long each of them does.
    Own(Duration),
    Shared(TicketKeys),
}

/// `tickets "off"`, `tickets rotate="1h"`, or `tickets keys="tickets.keys" lifetime="1h"`.
fn tickets(mut node: Node<'_>) -> Option<Tickets> {
    node.require_entries();
    let off = node
        .next_argument("the switch")
        .map(|value| Some(value.at(value.choice(&[("off", ())])?)));
    let keys = node.property("keys").map(|value| path(&value));
    let rotate = node.property("rotate");
    let lifetime = node.property("lifetime");
    let time = |value: Option<&Value<'_>>, range| or_none(value.map(|value| value.duration(range)));
    let (rotates, lasts) = (time(rotate.as_ref(), ROTATIONS), time(lifetime.as_ref(), LIFETIMES));
    let inert = |key: &str, value: Option<&Value<'_>>, beside: &str, why: &str| {
        if let Some(value) = value {
            let error = ConfigError::new(Code::Inert, format!("`{key}=` does nothing {beside}"));
            node.fail(error.label(value.span(), why).help("leave one of them out"));
        }
    };
    match (&off, &keys) {
        (Some(off), _) => {
            inert("rotate", rotate.as_ref(), "beside \"off\"", "there are no keys");
            inert("lifetime", lifetime.as_ref(), "beside \"off\"", "there are no tickets");
            if let (Some(off), Some(Some(keys))) = (off, &keys) {
                let error = ConfigError::new(Code::Inert, "`keys=` does nothing beside \"off\"");
                let error = error
                    .label(keys.span, "makes tickets")
                    .label(off.span, "there are none");
                node.fail(error.help("leave one of them out"));
            }
        }
        (None, Some(_)) => inert(
            "rotate",
            rotate.as_ref(),
            "beside `keys=`",
            "keys of a file change when the file does",
        ),
        (None, None) => {
            if let Some(value) = &lifetime {
                let error = ConfigError::new(Code::Inert, "`lifetime=` does nothing without `keys=`");
                let error = error.label(value.span(), "tickets are good as long as their key makes new ones");
                node.fail(error.help("write `rotate=`, or name the file with keys: keys=\"tickets.keys\""));
            }
        }
    }
    node.finish();
    let (rotates, lasts) = (rotates?, lasts?);
    if or_none(off)?.is_some() {
        return Some(Tickets::Off);
    }
    Some(match or_none(keys)? {
        Some(file) => Tickets::Shared(TicketKeys {
            file,
            lifetime: lasts.unwrap_or(DEFAULT_LIFETIME),
        }),
        None => Tickets::Own(rotates.unwrap_or(MAX_TICKET_ROTATION)),
    })
}

/// A session of a client without a certificate takes some 300 bytes.
const MAX_SESSIONS: u64 = 1_000_000;
/// Sessions as HAProxy keeps them (`tune.ssl.cachesize`), of which most clients need none: they have tickets. Keys make tickets
/// for six hours and open them for another six, as the library advises: what is sent in resumed sessions can be read by who
/// steals the key within that time, and not after.
const DEFAULT_RESUMPTION: Resumption = Resumption {
    cache: 20_000,
    tickets: Some(MAX_TICKET_ROTATION),
};
const ROTATIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=MAX_TICKET_ROTATION;
/// As of tickets that the gateway's own keys make.
const DEFAULT_LIFETIME: Duration = MAX_TICKET_ROTATION;
/// RFC 8446, section 4.6.1.
const LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
