//! The end of an exchange: it is counted, its line is written, and components are told.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::time::Instant;

use super::Record;
use super::upstream::Upstream;
use crate::policy::{Exchange, Over, Tags, ToTell};
use crate::proxy::trace::Trace;
use crate::snapshot::OfTenant;
use crate::telemetry::access::{Counts, HttpRecord, HttpTimers, RequestLine, Termination};
use crate::telemetry::choice;
use crate::telemetry::line::Capturing;
use crate::telemetry::log::Severity;

impl Record {
    /// Leaves it to the worker to tell components of what is over.
    pub(super) fn tell(&self, mut exchange: Box<Exchange>, took: Duration) {
        exchange.over = Some(Box::new(Over {
            status: self.status.map(|status| status.as_u16()),
            backend: self.upstream.as_ref().map(|upstream| upstream.backend.name.clone()),
            duration: took,
            bytes_sent: self.sent,
            reason: self.reason,
            is_of_connection: false,
        }));
        let plugins = self.frontend.told.clone();
        self.worker.untold().push(ToTell::new(exchange, plugins));
    }

    fn severity(&self) -> Option<Severity> {
        choice::severity(
            self.frontend.config.log_choice.as_deref(),
            self.termination,
            self.status.map(|status| status.as_u16()),
            self.grpc,
            self.upstream.as_ref().map_or(0, |upstream| upstream.retries),
        )
    }

    fn line(&self, total: Duration, received: u64, trace: Option<&Trace>) -> HttpRecord<'_> {
        let upstream = self.upstream.as_ref();
        let server = upstream.and_then(|upstream| Some(&upstream.backend.servers[upstream.server?]));
        let authority = || self.target.authority().map_or("", |authority| authority.as_str());
        // That of CONNECT has no path.
        let target = self
            .target
            .path_and_query()
            .map_or_else(authority, |target| target.as_str());
        let metrics = &self.frontend.metrics;
        let passed = self.tunnel.as_deref();
        HttpRecord {
            client: self.client_address(),
            destination: self.client.facts.local(),
            started: SystemTime::now() - total,
            frontend: self.frontend.name(),
            tls: self.client.facts.tls.is_some(),
            connection: &*self.client.facts,
            backend: upstream.map(|upstream| &*upstream.backend.name),
            server: server.map(|server| &*server.name),
            timers: HttpTimers {
                request: Some(self.head_took),
                queue: upstream.and_then(Upstream::queue),
                connect: upstream.and_then(|upstream| upstream.connect),
                response: upstream.and_then(|upstream| upstream.response),
                total,
            },
            status: self.status.map(|status| status.as_u16()),
            grpc: self.told.or(self.grpc),
            bytes_sent: self.sent + passed.map_or(0, |passed| passed.from_server),
            bytes_received: received + passed.map_or(0, |passed| passed.from_client),
            termination: self.termination,
            cookies: self.cookies,
            counts: Counts {
                process: self.worker.registry().process().connections(),
                frontend: metrics.connections(),
                backend: upstream.map_or(0, |upstream| upstream.backend.in_flight()),
                server: server.map_or(0, |server| server.in_flight()),
                retries: upstream.map_or(0, |upstream| upstream.retries),
                redispatched: upstream.is_some_and(|upstream| upstream.redispatched),
                queue: upstream.map_or(0, |upstream| upstream.ahead),
            },
            request: Some(RequestLine {
                method: self.method.as_str(),
                host: self.host.as_ref().map(HeaderValue::as_bytes),
                target: target.as_bytes(),
                version: self.version,
            }),
            tenant: self.tenant().map(|of| &*of.tenant.name),
            reason: self.reason,
            rule: self.rule.as_ref().map(|rule| rule.line),
            rule_file: self.rule.as_ref().and_then(|rule| rule.file.as_deref()),
            request_id: self.noted.request_id.as_ref().map(HeaderValue::as_bytes),
            captures: self.frontend.config.captures.as_deref().and_then(|of| {
                let kept = self.noted.kept.as_deref()?;
                Some(Capturing { of, kept })
            }),
            tags: self
                .noted
                .exchange
                .as_ref()
                .and_then(|exchange| exchange.tags.as_deref())
                .map_or(&[], Tags::as_slice),
            format: self.frontend.config.line_format(),
            to: self.frontend.config.log_targets(),
            severity: Severity::default(),
            trace: trace.map(Trace::ids),
        }
    }

    /// Whose host was asked for, where it is somebody's.
    fn tenant(&self) -> Option<&OfTenant> {
        self.frontend.tenant(self.host.as_ref().map(HeaderValue::as_bytes))
    }

    /// Counts the exchange, which is over, and writes its line. Answers how long it took.
    fn close(&mut self) -> Duration {
        if !self.complete {
            if self.termination == Termination::default() {
                self.termination = self.abandoned();
            }
            self.queue_ends();
            // Whatever becomes of the connection, it is not in this exchange any more.
            self.client.turns.end_exchange();
        }
        self.answer_is_made();
        let total = Instant::now().saturating_duration_since(self.started);
        let metrics = &self.frontend.metrics;
        // A tunnel's life is no response time.
        let answered = self.tunnel.as_ref().map_or(total, |tunnel| tunnel.since - self.started);
        metrics.response(self.status.map(|status| status.as_u16()), answered);
        let (read, written) = self.client.connection.take_traffic();
        metrics.bytes(read, written);
        let forwarded = self.client.take_forwarded();
        if let Some(upstream) = &self.upstream {
            upstream.bytes(self.sent, forwarded);
            let status = self.status.map(|status| status.as_u16());
            upstream.backend.metrics.response(status);
            upstream.ended(total, self.termination);
            if let (Some(grpc), Some(server)) = (self.grpc, upstream.server) {
                upstream.backend.servers[server].metrics.grpc_answered(grpc);
            }
        }
        if let Some(of) = self.tenant() {
            let passed = self.tunnel.as_deref();
            let (there, back) = passed.map_or((0, 0), |passed| (passed.from_client, passed.from_server));
            let status = self.status.map(|status| status.as_u16());
            of.metrics.ended(status, forwarded + there, self.sent + back);
        }
        let log = self.frontend.config.access_log.enabled && !self.noted.is_unlogged;
        let severity = log.then(|| self.severity()).flatten();
        let mut trace = self.noted.trace.take();
        if severity.is_none() && trace.is_none() {
            return total;
        }
        // What else came on a connection with other streams was theirs.
        let received = if self.client.is_stream() { forwarded } else { read };
        let mut line = self.line(total, received, trace.as_deref());
        if let (Some(trace), Some(tracer)) = (&mut trace, self.worker.tracer()) {
            trace.finish(tracer, &line);
        }
        if let Some(severity) = severity {
            line.severity = severity;
            self.worker.log().http(&line);
        }
        total
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.close();
        if let Some(exchange) = self.noted.exchange.take_if(|_| !self.frontend.told.is_empty()) {
            self.tell(exchange, total);
        }
    }
}
