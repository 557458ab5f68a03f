//! Lines as JSON objects.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::parts::{clip, push_address, push_hex, push_ip, push_number, version};
use super::{Counts, HttpRecord, TcpRecord, Termination};
use crate::telemetry::clock::Dates;
use crate::telemetry::escape;

impl HttpRecord<'_> {
    /// Appends a JSON object, without the line's end.
    pub(in crate::telemetry) fn write_json(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_json_origin(out, dates, self.client, self.destination, self.started);
        push_json_names(out, self.frontend, self.tls, self.backend, self.server);
        push_json_timer(out, "request_ms", self.timers.request);
        push_json_timer(out, "queue_ms", self.timers.queue);
        push_json_timer(out, "connect_ms", self.timers.connect);
        push_json_timer(out, "response_ms", self.timers.response);
        push_json_timer(out, "total_ms", Some(self.timers.total));
        push_key(out, "status");
        match self.status {
            Some(status) => push_number(out, status),
            None => out.extend_from_slice(b"null"),
        }
        if let Some(grpc) = self.grpc {
            push_key(out, "grpc_status");
            match grpc.number() {
                Some(number) => push_number(out, number),
                None => out.extend_from_slice(b"null"),
            }
        }
        push_json_bytes(out, self.bytes_received, self.bytes_sent);
        push_json_end(out, self.termination, self.counts);
        if let Some(cookies) = self.cookies {
            push_key(out, "cookie_flags");
            escape::json(out, &cookies.letters());
        }
        push_json_reason(out, self.reason, self.rule);
        if let Some(file) = self.rule_file {
            push_key(out, "rule_file");
            push_json_text(out, Some(file.as_bytes()));
        }
        if let Some(request) = &self.request {
            push_key(out, "method");
            escape::json(out, request.method.as_bytes());
            push_key(out, "host");
            push_json_text(out, request.host.map(clip));
            push_key(out, "target");
            escape::json(out, clip(request.target));
            push_key(out, "version");
            escape::json(out, version(request.version).as_bytes());
        }
        if let Some(tenant) = self.tenant {
            push_key(out, "tenant");
            escape::json(out, tenant.as_bytes());
        }
        if let Some(id) = self.request_id {
            push_key(out, "request_id");
            escape::json(out, id);
        }
        if let Some((trace, span)) = &self.trace {
            out.extend_from_slice(b",\"trace_id\":\"");
            push_hex(out, trace);
            out.extend_from_slice(b"\",\"span_id\":\"");
            push_hex(out, span);
            out.push(b'"');
        }
        if let Some(captures) = &self.captures {
            captures.write_json(out);
        }
        if !self.tags.is_empty() {
            push_key(out, "tags");
            for (at, (name, value)) in self.tags.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                escape::json(out, name.as_bytes());
                out.push(b':');
                escape::json(out, value);
            }
            out.push(b'}');
        }
        out.push(b'}');
    }
}

impl TcpRecord<'_> {
    /// Appends a JSON object, without the line's end.
    pub(in crate::telemetry) fn write_json(&self, out: &mut Vec<u8>, dates: &mut Dates) {
        push_json_origin(out, dates, self.client, self.destination, self.started);
        push_json_names(out, self.frontend, self.tls, self.backend, self.server);
        push_json_timer(out, "queue_ms", self.timers.queue);
        push_json_timer(out, "connect_ms", self.timers.connect);
        push_json_timer(out, "total_ms", Some(self.timers.total));
        push_json_bytes(out, self.bytes_received, self.bytes_sent);
        push_json_end(out, self.termination, self.counts);
        push_json_reason(out, self.reason, self.rule);
        if let Some(file) = self.rule_file {
            push_key(out, "rule_file");
            push_json_text(out, Some(file.as_bytes()));
        }
        if let Some(tenant) = self.tenant {
            push_key(out, "tenant");
            escape::json(out, tenant.as_bytes());
        }
        out.push(b'}');
    }
}

fn push_json_origin(
    out: &mut Vec<u8>,
    dates: &mut Dates,
    client: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    started: SystemTime,
) {
    out.extend_from_slice(b"{\"time\":\"");
    dates.push_iso(out, started);
    out.extend_from_slice(b"\",\"client\":\"");
    push_socket(out, client);
    out.extend_from_slice(b"\",\"destination\":\"");
    push_socket(out, destination);
    out.push(b'"');
}

/// As programs read addresses: IPv6 in brackets, which the text's has not.
fn push_socket(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let Some(address) = address.filter(SocketAddr::is_ipv6) else {
        return push_address(out, address);
    };
    out.push(b'[');
    push_ip(out, address.ip());
    out.extend_from_slice(b"]:");
    push_number(out, address.port());
}

fn push_json_names(out: &mut Vec<u8>, frontend: &str, tls: bool, backend: Option<&str>, server: Option<&str>) {
    push_key(out, "frontend");
    escape::json(out, frontend.as_bytes());
    push_key(out, "tls");
    out.extend_from_slice(if tls { b"true" } else { b"false" });
    push_key(out, "backend");
    push_json_text(out, backend.map(str::as_bytes));
    push_key(out, "server");
    push_json_text(out, server.map(str::as_bytes));
}

fn push_json_timer(out: &mut Vec<u8>, name: &str, timer: Option<Duration>) {
    push_key(out, name);
    match timer {
        Some(timer) => {
            push_number(out, timer.as_millis());
            out.push(b'.');
            let micros = timer.subsec_micros() % 1000;
            for place in [100, 10, 1] {
                out.push(b'0' + u8::try_from(micros / place % 10).unwrap_or(0));
            }
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn push_json_bytes(out: &mut Vec<u8>, received: u64, sent: u64) {
    push_key(out, "bytes_received");
    push_number(out, received);
    push_key(out, "bytes_sent");
    push_number(out, sent);
}

fn push_json_end(out: &mut Vec<u8>, termination: Termination, counts: Counts) {
    push_key(out, "termination");
    out.push(b'"');
    termination.push(out);
    out.push(b'"');
    let numbers = [
        ("process_connections", counts.process),
        ("frontend_connections", counts.frontend),
        ("backend_in_flight", counts.backend),
        ("server_in_flight", counts.server),
    ];
    for (name, number) in numbers {
        push_key(out, name);
        push_number(out, number);
    }
    push_key(out, "retries");
    push_number(out, counts.retries);
    push_key(out, "queue");
    push_number(out, counts.queue);
}

fn push_json_reason(out: &mut Vec<u8>, reason: Option<&str>, rule: Option<usize>) {
    push_key(out, "reason");
    push_json_text(out, reason.map(str::as_bytes));
    push_key(out, "rule");
    match rule {
        Some(rule) => push_number(out, rule),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_json_text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => escape::json(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}
