//! The facts that a component is handed with a call: what its [needs](super::needs) have found, one behind the other.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

use gateway_plugin_template::{Kind, Place};
use http::{HeaderMap, HeaderName};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::attribute::Attribute;
use super::bindings::gateway::policy::types;
use super::clock::Clock;
use super::exchange::{ConnectionFacts, Exchange};
use super::maps::Map;
use super::query::{percent_decode, query_params};
use crate::telemetry::trace::context;

/// The facts of one call, in the shape in which they are handed over. Used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    bytes: Vec<u8>,
    /// Three numbers a fact: its need, and where its value begins and ends.
    index: Vec<u32>,
    /// What `local-time` goes by; none for the machine's own.
    clock: Option<Clock>,
}

impl Facts {
    /// None yet; times are told by this clock.
    pub(crate) fn by(clock: Clock) -> Self {
        Self {
            clock: Some(clock),
            ..Self::default()
        }
    }

    /// Finds the facts of an exchange.
    pub(crate) fn of_exchange(&mut self, needs: &[Attribute], exchange: &Exchange) {
        self.clear();
        for (need, attribute) in (0..).zip(needs) {
            // They are not handed over, and so not looked for.
            if self.are_too_many() {
                break;
            }
            attribute.find(need, exchange, self);
        }
    }

    /// Finds the facts of a connection.
    pub(crate) fn of_connection(&mut self, needs: &[Attribute], connection: &ConnectionFacts) {
        self.clear();
        for (need, attribute) in (0..).zip(needs) {
            if self.are_too_many() {
                break;
            }
            attribute.find_in_connection(need, connection, self);
        }
    }

    /// Whether they come to more than is handed over.
    pub(crate) fn are_too_many(&self) -> bool {
        self.bytes.len() + size_of_val(&*self.index) > MAX_FACT_BYTES
    }

    /// As the bindings want them.
    pub(crate) fn lowered(&self) -> types::Facts<'_> {
        types::Facts {
            index: &self.index,
            bytes: &self.bytes,
        }
    }

    /// The facts: a need's position and a value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.index.chunks_exact(3).filter_map(|fact| match *fact {
            [need, start, end] => Some((need, self.bytes.get(start as usize..end as usize)?)),
            _ => None,
        })
    }

    /// Forgets them all.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        // One giant request does not make every later one's buffer giant.
        self.bytes.shrink_to(KEPT_BYTES);
        self.index.shrink_to(KEPT_BYTES / size_of::<u32>());
    }

    pub(super) fn push(&mut self, need: u32, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.close(need, start);
    }

    pub(super) fn push_lower(&mut self, need: u32, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.bytes[start..].make_ascii_lowercase();
        self.close(need, start);
    }

    pub(super) fn push_all(&mut self, need: u32, headers: &HeaderMap, name: &HeaderName) {
        for value in headers.get_all(name) {
            self.push(need, value.as_bytes());
        }
    }

    /// Nothing where there is no address, as of a UNIX socket: no network has it in it then.
    pub(super) fn push_ip(&mut self, need: u32, address: Option<SocketAddr>) {
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V4(ip)) => self.push(need, &ip.octets()),
            Some(IpAddr::V6(ip)) => self.push(need, &ip.octets()),
            None => {}
        }
    }

    pub(super) fn push_port(&mut self, need: u32, address: Option<SocketAddr>) {
        self.push_number(need, address.map(|address| address.port().into()));
    }

    /// The time now, in a zone.
    pub(super) fn push_now(&mut self, need: u32, zone: &TimeZone) {
        let now = match &self.clock {
            None => Timestamp::now(),
            // A time beyond the year 9999 is none.
            Some(clock) => match Timestamp::try_from(UNIX_EPOCH + clock.since_1970()) {
                Ok(now) => now,
                Err(_) => return,
            },
        };
        self.push_time(need, &now.to_zoned(zone.clone()));
    }

    /// As `4 2026-01-01T01:00:00+01:00`: ISO 8601 with the day of the week in front, 1 for Monday.
    pub(super) fn push_time(&mut self, need: u32, time: &Zoned) {
        let start = self.bytes.len();
        // Writing into memory does not fail.
        let _ = write!(self.bytes, "{}", time.strftime("%u %Y-%m-%dT%H:%M:%S%:z"));
        self.close(need, start);
    }

    /// In lower-case digits.
    pub(super) fn push_hex(&mut self, need: u32, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.resize(start + 2 * bytes.len(), 0);
        context::write_hex(bytes, &mut self.bytes[start..]);
        self.close(need, start);
    }

    pub(super) fn push_query_param(&mut self, need: u32, query: &str, name: &[u8]) {
        for value in query_params(query, name) {
            let start = self.bytes.len();
            self.bytes.extend(percent_decode(value.as_bytes()));
            self.close(need, start);
        }
    }

    pub(super) fn push_number(&mut self, need: u32, number: Option<u64>) {
        if let Some(number) = number {
            self.push(need, itoa::Buffer::new().format(number).as_bytes());
        }
    }

    /// Where the facts end that have been noted: what [`look_up`](Self::look_up) goes back to.
    pub(super) const fn end(&self) -> usize {
        self.index.len()
    }

    /// Puts what a map has for the first of the facts noted since this [end](Self::end) that it has something for in the place of
    /// them all.
    pub(super) fn look_up(&mut self, need: u32, since: usize, map: &Map, is_address: bool) {
        let noted = self.index[since..].chunks_exact(3);
        let mut values = noted.filter_map(|fact| self.bytes.get(fact[1] as usize..fact[2] as usize));
        let found = match is_address {
            true => values.next().and_then(|value| map.find_address(value)),
            false => map.first_of(values),
        };
        self.forget(since);
        if let Some(value) = found {
            self.push(need, value);
        }
    }

    /// Puts what a text would have of the facts noted since this [end](Self::end), percent-encoded as the value of a query's
    /// parameter, in the place of them all. Where there are none, there is none.
    pub(super) fn url_encode(&mut self, need: u32, since: usize, kind: Kind) {
        let mut encoded = Vec::new();
        let noted = self.index[since..].chunks_exact(3);
        let wanted = if kind == Kind::List { usize::MAX } else { 1 };
        for (position, fact) in noted.take(wanted).enumerate() {
            if position > 0 {
                Place::Parameter.write(b", ", &mut encoded);
            }
            let value = self.bytes.get(fact[1] as usize..fact[2] as usize);
            kind.write(value.unwrap_or_default(), Place::Parameter, &mut encoded);
        }
        if self.index.len() > since {
            self.forget(since);
            self.push(need, &encoded);
        }
    }

    /// Forgets the facts noted since this [end](Self::end).
    fn forget(&mut self, since: usize) {
        let start = self
            .index
            .get(since + 1)
            .map_or(self.bytes.len(), |start| *start as usize);
        self.index.truncate(since);
        self.bytes.truncate(start);
    }

    fn close(&mut self, need: u32, start: usize) {
        // More than `u32` holds is far more than is handed over.
        let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.index.extend([need, position(start), position(self.bytes.len())]);
    }
}

/// Bytes of all facts of one call: of their values, and 12 for each of where it is. Copying them into the guest is work that no deadline
/// bounds.
pub(super) const MAX_FACT_BYTES: usize = 1024 * 1024;

/// Facts of ordinary requests fit; more is given back after the call.
const KEPT_BYTES: usize = 64 * 1024;
