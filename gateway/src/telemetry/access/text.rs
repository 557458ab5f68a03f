//! Lines as HAProxy writes them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::parts::{clip, push_address, push_hex, push_number, version};
use super::{CookieFlags, Counts, HttpRecord, TcpRecord};
use crate::telemetry::clock::Dates;
use crate::telemetry::escape;

impl HttpRecord<'_> {
    /// Appends a line of text, without its end.
    pub(in crate::telemetry) fn write_text(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_origin(out, dates, self.client, self.started);
        push_names(out, self.frontend, self.tls, self.backend, self.server);
        let timers = &self.timers;
        let phases = [
            timers.request,
            timers.queue,
            timers.connect,
            timers.response,
            Some(timers.total),
        ];
        push_timers(out, &phases);
        out.push(b' ');
        match self.status {
            Some(status) => push_number(out, status),
            None => out.extend_from_slice(b"-1"),
        }
        out.push(b' ');
        push_number(out, self.bytes_sent);
        match self.captures.filter(|captures| captures.of.cookie.is_some()) {
            Some(captures) => captures.write_cookies(out),
            None => out.extend_from_slice(b" - -"),
        }
        out.push(b' ');
        self.termination.push(out);
        out.extend_from_slice(&self.cookies.map_or(*b"--", CookieFlags::letters));
        push_counts(out, self.counts);
        if let Some(captures) = &self.captures {
            captures.write_text(out);
        }
        out.extend_from_slice(b" \"");
        match &self.request {
            Some(request) => {
                escape::hash(out, request.method.as_bytes());
                out.push(b' ');
                escape::hash_word(out, clip(request.target));
                out.push(b' ');
                out.extend_from_slice(version(request.version).as_bytes());
            }
            None => out.extend_from_slice(b"<BADREQ>"),
        }
        out.push(b'"');
        push_reason(out, self.reason, self.rule);
        push_whose(out, self.rule_file, self.tenant);
        if let Some(id) = self.request_id {
            out.extend_from_slice(b" request_id=");
            escape::hash_word(out, id);
        }
        if let Some((trace, _)) = &self.trace {
            out.extend_from_slice(b" trace_id=");
            push_hex(out, trace);
        }
    }
}

impl TcpRecord<'_> {
    /// Appends a line of text, without its end.
    pub(in crate::telemetry) fn write_text(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_origin(out, dates, self.client, self.started);
        push_names(out, self.frontend, self.tls, self.backend, self.server);
        push_timers(out, &[self.timers.queue, self.timers.connect, Some(self.timers.total)]);
        out.push(b' ');
        push_number(out, self.bytes_sent);
        out.push(b' ');
        self.termination.push(out);
        push_counts(out, self.counts);
        push_reason(out, self.reason, self.rule);
        push_whose(out, self.rule_file, self.tenant);
    }
}

/// ` rule_file=tenants/acme/a.kdl tenant=acme`
fn push_whose(out: &mut Vec<u8>, rule_file: Option<&str>, tenant: Option<&str>) {
    for (key, value) in [(&b" rule_file="[..], rule_file), (b" tenant=", tenant)] {
        if let Some(value) = value {
            out.extend_from_slice(key);
            escape::hash_word(out, value.as_bytes());
        }
    }
}

/// `127.0.0.1:51234 [06/Feb/2009:12:14:14.655] `
fn push_origin(out: &mut Vec<u8>, dates: &mut Dates, client: Option<SocketAddr>, started: SystemTime) {
    push_address(out, client);
    out.extend_from_slice(b" [");
    dates.push_text(out, started);
    out.extend_from_slice(b"] ");
}

/// `web~ app/app-1 `
fn push_names(out: &mut Vec<u8>, frontend: &str, tls: bool, backend: Option<&str>, server: Option<&str>) {
    escape::hash_word(out, frontend.as_bytes());
    if tls {
        out.push(b'~');
    }
    out.push(b' ');
    // HAProxy's habit: without a backend, the frontend stands in its place.
    escape::hash_word(out, backend.unwrap_or(frontend).as_bytes());
    out.push(b'/');
    match server {
        Some(server) => escape::hash_word(out, server.as_bytes()),
        None => out.extend_from_slice(b"<NOSRV>"),
    }
    out.push(b' ');
}

/// `10/0/30/69/109`
fn push_timers(out: &mut Vec<u8>, timers: &[Option<Duration>]) {
    for (i, timer) in timers.iter().enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        match timer {
            Some(timer) => push_number(out, timer.as_millis()),
            None => out.extend_from_slice(b"-1"),
        }
    }
}

/// ` 1/1/1/1/0 0/0`: servers have no queues of their own.
fn push_counts(out: &mut Vec<u8>, counts: Counts) {
    let numbers = [counts.process, counts.frontend, counts.backend, counts.server];
    for (i, number) in numbers.into_iter().enumerate() {
        out.push(if i == 0 { b' ' } else { b'/' });
        push_number(out, number);
    }
    out.push(b'/');
    if counts.redispatched {
        out.push(b'+');
    }
    push_number(out, counts.retries);
    out.extend_from_slice(b" 0/");
    push_number(out, counts.queue);
}

/// The fields that HAProxy does not have; they stand last, and only when there is something to say.
fn push_reason(out: &mut Vec<u8>, reason: Option<&str>, rule: Option<usize>) {
    if let Some(reason) = reason {
        out.extend_from_slice(b" reason=");
        escape::hash_word(out, reason.as_bytes());
    }
    if let Some(rule) = rule {
        out.extend_from_slice(b" rule=");
        push_number(out, rule);
    }
}
