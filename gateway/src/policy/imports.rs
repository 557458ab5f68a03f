//! The host interfaces, as the contract documents them. Everything here is bounded by what the exchange holds, by the
//! edits' limits or by the store's host-call fuel, and nothing holds a lock or a borrow while results are lowered.

mod shared;

use std::sync::atomic::Ordering;

use http::HeaderMap;
use wasmtime::Result;

use super::bindings::gateway::policy::{
    buckets, clock, connection_info, log, request, request_edits, response, response_edits, types,
};
use super::buckets::{Rate, Taken};
use super::exchange::ConnectionFacts;
use super::find;
use super::instance::HOSTCALL_BYTES;
use super::state::{Identity, Phase, State};
use super::takings::{Taking, Takings};
use crate::hidden::is_hidden;

impl types::Host for State {}

impl request::Host for State {
    fn method(&mut self) -> Result<String> {
        Ok(self.request()?.method.as_str().to_owned())
    }

    fn scheme(&mut self) -> Result<String> {
        self.request()?;
        Ok(find::scheme(&self.exchange).to_owned())
    }

    fn authority(&mut self) -> Result<String> {
        self.request()?;
        Ok(String::from_utf8_lossy(find::authority(&self.exchange)).into_owned())
    }

    fn path(&mut self) -> Result<Vec<u8>> {
        Ok(self.request()?.uri.path().as_bytes().to_vec())
    }

    fn query(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.request()?.uri.query().map(|query| query.as_bytes().to_vec()))
    }

    fn header(&mut self, name: String) -> Result<Vec<Vec<u8>>> {
        let copied = values(&self.request()?.headers, &[name]);
        self.copies(copied).map(only)
    }

    fn get_many(&mut self, names: Vec<String>) -> Result<Vec<Vec<Vec<u8>>>> {
        self.bounded(names.len())?;
        let copied = values(&self.request()?.headers, &names);
        self.copies(copied)
    }

    fn headers(&mut self) -> Result<Vec<types::FieldResult>> {
        let copied = fields(&self.request()?.headers);
        self.copies(copied)
    }
}

impl response::Host for State {
    fn status(&mut self) -> Result<u16> {
        Ok(self.response()?.status.as_u16())
    }

    fn header(&mut self, name: String) -> Result<Vec<Vec<u8>>> {
        let copied = values(&self.response()?.headers, &[name]);
        self.copies(copied).map(only)
    }

    fn get_many(&mut self, names: Vec<String>) -> Result<Vec<Vec<Vec<u8>>>> {
        self.bounded(names.len())?;
        let copied = values(&self.response()?.headers, &names);
        self.copies(copied)
    }

    fn headers(&mut self) -> Result<Vec<types::FieldResult>> {
        let copied = fields(&self.response()?.headers);
        self.copies(copied)
    }
}

impl request_edits::Host for State {
    fn set_header(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::RequestFilter)
            .and_then(|state| state.edits.set_header(&name, &value));
        Ok(self.told("set-header", made))
    }

    fn add_header(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::RequestFilter)
            .and_then(|state| state.edits.add_header(&name, &value));
        Ok(self.told("add-header", made))
    }

    fn remove_header(&mut self, name: String) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::RequestFilter)
            .and_then(|state| state.edits.remove_header(&name));
        Ok(self.told("remove-header", made))
    }

    fn set_path(&mut self, path: Vec<u8>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::RequestFilter)
            .and_then(|state| state.edits.set_path(path));
        Ok(self.told("set-path", made))
    }

    fn set_query(&mut self, query: Option<Vec<u8>>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::RequestFilter)
            .and_then(|state| state.edits.set_query(query));
        Ok(self.told("set-query", made))
    }
}

impl response_edits::Host for State {
    fn set_header(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::ResponseFilter)
            .and_then(|state| state.edits.set_header(&name, &value));
        Ok(self.told("set-header", made))
    }

    fn add_header(&mut self, name: String, value: Vec<u8>) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::ResponseFilter)
            .and_then(|state| state.edits.add_header(&name, &value));
        Ok(self.told("add-header", made))
    }

    fn remove_header(&mut self, name: String) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::ResponseFilter)
            .and_then(|state| state.edits.remove_header(&name));
        Ok(self.told("remove-header", made))
    }

    fn set_status(&mut self, status: u16) -> Result<Result<(), String>> {
        let made = self
            .in_phase(Phase::ResponseFilter)
            .and_then(|state| state.edits.set_status(status));
        Ok(self.told("set-status", made))
    }
}

impl connection_info::Host for State {
    fn client(&mut self) -> Result<connection_info::Endpoint> {
        Ok(endpoint(self.connection()?.client()))
    }

    fn local(&mut self) -> Result<connection_info::Endpoint> {
        Ok(endpoint(self.connection()?.local()))
    }

    fn peer(&mut self) -> Result<connection_info::Endpoint> {
        Ok(endpoint(self.connection()?.peer()))
    }

    fn tls(&mut self) -> Result<Option<connection_info::TlsInfo>> {
        let tls = self.connection()?.tls.as_ref();
        Ok(tls.map(|tls| connection_info::TlsInfo {
            version: tls.version.to_owned(),
            sni: tls.sni.clone(),
            alpn: tls.alpn.clone(),
            client_certificate: tls.client_certificate.as_ref().map(|shown| shown.der().to_vec()),
        }))
    }
}

impl buckets::Host for State {
    fn take(&mut self, bucket: String, key: Vec<u8>, rate: buckets::Rate, tokens: u32) -> Result<buckets::Taken> {
        if rate.tokens == 0 || rate.period_ms == 0 || rate.burst == 0 {
            return Err(self.misused("a rate's numbers have to be at least 1"));
        }
        let rate = Rate {
            tokens: rate.tokens,
            period_ms: rate.period_ms,
            burst: rate.burst,
        };
        let place = self.identity.namespace.place(&bucket, &key);
        let Taken {
            allowed,
            remaining,
            retry_after_ms,
        } = match self.identity.counted.iter().find(|of| *of.name == *bucket) {
            None => {
                let taking = Taking { place, rate, tokens };
                let taken = taking.make(&self.buckets);
                self.takings.add(taking, taken);
                taken
            }
            Some(of) => {
                // What is taken depends on the response.
                self.takings = Takings::More;
                let taken = self.buckets.look(place, rate, tokens);
                if taken.allowed {
                    self.exchange.counted.push(&self.buckets, place, rate, of.statuses);
                }
                taken
            }
        };
        Ok(buckets::Taken {
            allowed,
            remaining,
            retry_after_ms,
        })
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        let Identity {
            lines, shared, tenant, ..
        } = &*self.identity;
        let Some(dropped) = lines.take() else {
            shared.lines_refused.by_plugin.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        // The tenant's last: what a plugin may not write anyway takes nothing from the others.
        if !shared.takes_line_of_tenant() {
            lines.leave_out(dropped);
            return Ok(());
        }
        let message = log_line(&message);
        if let Some(written) = &mut self.written {
            written.push(message.clone());
        }
        let (plugin, tenant) = (&*self.identity.label, tenant.as_deref());
        match level {
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, tenant, dropped, "{message}"),
            log::Level::Info => tracing::info!(target: "plugin", plugin, tenant, dropped, "{message}"),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, tenant, dropped, "{message}"),
            log::Level::Error => tracing::error!(target: "plugin", plugin, tenant, dropped, "{message}"),
        }
        Ok(())
    }
}

impl clock::Host for State {
    fn now_ms(&mut self) -> Result<u64> {
        let now = self.buckets.clock().since_1970();
        Ok(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&mut self) -> Result<u64> {
        let now = self.buckets.clock().elapsed();
        Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl State {
    /// The request, in the phases that have one.
    fn request(&mut self) -> Result<&http::request::Parts> {
        match self.phase {
            Phase::Request | Phase::RequestFilter | Phase::ResponseFilter | Phase::Response => {
                Ok(&self.exchange.request)
            }
            Phase::Setup | Phase::Connection | Phase::Piece | Phase::Log => {
                Err(self.misused("there is no request to be read now"))
            }
        }
    }

    /// The response, in the phase that has one.
    fn response(&mut self) -> Result<&http::response::Parts> {
        if !matches!(self.phase, Phase::ResponseFilter | Phase::Response) || self.exchange.response.is_none() {
            return Err(self.misused("there is no response to be read now"));
        }
        match &self.exchange.response {
            Some(response) => Ok(response),
            None => Err(wasmtime::Error::msg("no response")),
        }
    }

    fn connection(&mut self) -> Result<&ConnectionFacts> {
        match self.phase {
            Phase::Setup | Phase::Piece | Phase::Log => {
                Err(self.misused("there is no connection to be asked about now"))
            }
            _ => Ok(&self.exchange.connection),
        }
    }

    /// This state, if edits of this kind may be made now.
    fn in_phase(&mut self, phase: Phase) -> Result<&mut Self, String> {
        if self.phase == phase {
            return Ok(self);
        }
        Err(match phase {
            Phase::RequestFilter => "requests can be edited in `request-filter` and `call-answered` only",
            _ => "responses can be edited in `response-filter` only",
        }
        .to_owned())
    }

    fn bounded(&mut self, names: usize) -> Result<()> {
        match names > MAX_NAMES {
            true => Err(self.misused("too many names in one call")),
            false => Ok(()),
        }
    }

    /// What was copied for the guest; nothing if that was too much.
    fn copies<T>(&mut self, copied: Result<T, TooMuch>) -> Result<T> {
        copied.map_err(|TooMuch| self.misused("wants more copied than one call may have the gateway copy"))
    }

    fn misused(&mut self, how: &'static str) -> wasmtime::Error {
        self.misuse = true;
        wasmtime::Error::msg(how)
    }
}

/// More than one call may have the gateway copy.
struct TooMuch;

/// What one call may still have the gateway copy.
struct Copies(usize);

impl Copies {
    fn new() -> Self {
        Self(HOSTCALL_BYTES)
    }

    /// Of this text, with its place in a list.
    fn of(&mut self, bytes: &[u8]) -> Result<Vec<u8>, TooMuch> {
        self.takes(bytes.len() + EACH)?;
        Ok(bytes.to_vec())
    }

    fn takes(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooMuch)?;
        Ok(())
    }
}

/// All values of each of these fields.
fn values(headers: &HeaderMap, names: &[String]) -> Result<Vec<Vec<Vec<u8>>>, TooMuch> {
    let mut copies = Copies::new();
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        copies.takes(EACH)?;
        let values = headers.get_all(name).iter().map(|value| copies.of(value.as_bytes()));
        all.push(values.collect::<Result<_, _>>()?);
    }
    Ok(all)
}

/// The values of the one name that was asked for.
fn only(mut values: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    values.pop().unwrap_or_default()
}

fn fields(headers: &HeaderMap) -> Result<Vec<types::FieldResult>, TooMuch> {
    let mut copies = Copies::new();
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| -> Result<_, TooMuch> {
        copies.takes(name.as_str().len() + EACH)?;
        Ok(types::FieldResult {
            name: name.as_str().to_owned(),
            value: copies.of(value.as_bytes())?,
        })
    };
    headers.iter().map(field).collect()
}

/// The contract has no word for an end without an address, as of a UNIX socket: that is told as 0.0.0.0, port 0, which is nobody's.
fn endpoint(address: Option<std::net::SocketAddr>) -> connection_info::Endpoint {
    let address = address.unwrap_or_else(|| (std::net::Ipv4Addr::UNSPECIFIED, 0).into());
    let ip = match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    connection_info::Endpoint {
        ip,
        port: address.port(),
    }
}

/// A guest's log line: cut, and without a way to forge another line or to move a terminal's cursor.
fn log_line(message: &str) -> String {
    let mut end = message.len().min(MAX_LOG_LINE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut line = String::with_capacity(end);
    for c in message[..end].chars() {
        if is_hidden(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Bytes of a log line, before escaping; the contract says so.
const MAX_LOG_LINE: usize = 1024;

/// Bytes that each text in a list takes beside its own.
const EACH: usize = size_of::<Vec<u8>>();

/// Names asked for in one `get-many`: more than a request may have header fields by default.
const MAX_NAMES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_cut_and_escaped() {
        assert_eq!(log_line("a\nb\r\x1b[2J\u{85}\u{e4}"), "a\\nb\\r\\u{1b}[2J\\u{85}\u{e4}");
        assert_eq!(log_line("a\u{2028}b\u{202e}c"), "a\\u{2028}b\\u{202e}c");
        assert_eq!(log_line(&"x".repeat(5000)).len(), MAX_LOG_LINE);
        // 1,024 is in the middle of a character.
        assert_eq!(log_line(&format!("x{}", "\u{e4}".repeat(2000))).len(), MAX_LOG_LINE - 1);
    }
}
