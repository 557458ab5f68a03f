//! From the contract's exports to the author's traits. Guest only.

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::thread::LocalKey;

use crate::body::{self, BodyMode};
use crate::call;
use crate::connection::Connection;
use crate::edits::{RequestEdits, ResponseEdits};
use crate::exchange::Exchange;
use crate::facts;
use crate::hooks::{
    AccessControl, AccessLog, CallAnswered, ConnectionFilter, ConnectionVerdict, Outcome, RateLimit, Reply,
    RequestBodyFilter, RequestFilter, ResponseBodyFilter, ResponseFilter,
};
use crate::metrics::{Kind, Metric};
use crate::plugin::{self, Plugin};
use crate::request::Request;
use crate::response::Response;
use crate::sys::access_log::exports::gateway::policy::access_log;
use crate::sys::call_answered::exports::gateway::policy::call_answered;
use crate::sys::connection_filter::exports::gateway::policy::connection_filter;
use crate::sys::lifecycle::exports::gateway::policy::lifecycle;
use crate::sys::limiter::exports::gateway::policy::limiter;
use crate::sys::predicates::exports::gateway::policy::predicates;
use crate::sys::request_body_filter::exports::gateway::policy::request_body_filter;
use crate::sys::request_filter::exports::gateway::policy::request_filter;
use crate::sys::response_body_filter::exports::gateway::policy::response_body_filter;
use crate::sys::response_filter::exports::gateway::policy::response_filter;
use crate::sys::{self, Facts, Field, Needs};

/// A plugin with the place where its one instance lives; implemented by `plugin!`.
pub trait Instance: Plugin {
    /// The place.
    fn cell() -> &'static LocalKey<OnceCell<Self>>;
}

/// The exports of a plugin.
pub struct Exports<P>(PhantomData<P>);

impl<P: Instance> lifecycle::Guest for Exports<P> {
    fn describe() -> lifecycle::Description {
        lifecycle::Description {
            name: P::NAME.to_owned(),
            version: P::VERSION.to_owned(),
            about: P::ABOUT.to_owned(),
            needs: Needs {
                request: Vec::new(),
                response: Vec::new(),
                log: Vec::new(),
                connection: Vec::new(),
            },
            metrics: P::METRICS.iter().map(metric).collect(),
        }
    }

    fn configure(config: String) -> Result<Needs, lifecycle::ConfigError> {
        let (plugin, needs) = plugin::load::<P>(&config).map_err(|error| lifecycle::ConfigError {
            message: error.message().to_owned(),
            at: error.pointer().map(str::to_owned),
        })?;
        if P::cell().with(|cell| cell.set(plugin)).is_err() {
            // The contract says once per instance.
            trap();
        }
        Ok(Needs {
            request: needs.request.into_names(),
            response: needs.response.into_names(),
            log: needs.log.into_names(),
            connection: needs.connection.into_names(),
        })
    }
}

impl<P: Instance + AccessControl> predicates::Guest for Exports<P> {
    fn names() -> Vec<String> {
        with(P::predicates)
    }

    fn evaluate(facts: Facts) -> u64 {
        with(|plugin: &P| plugin.evaluate(&request(&facts)).bits())
    }
}

impl<P: Instance + RateLimit> limiter::Guest for Exports<P> {
    fn policies() -> Vec<limiter::Policy> {
        let policies = with(P::policies).into_iter();
        policies
            .map(|policy| limiter::Policy {
                name: policy.name,
                quota: policy.quota,
                window_ms: policy.window_ms,
            })
            .collect()
    }

    fn check(facts: Facts) -> Option<limiter::Verdict> {
        let verdict = with(|plugin: &P| plugin.check(&request(&facts)))?;
        Some(limiter::Verdict {
            allowed: verdict.allowed,
            policy: verdict.policy,
            remaining: verdict.remaining,
            reset_ms: verdict.reset_ms,
            retry_after_ms: verdict.retry_after_ms,
        })
    }
}

impl<P: Instance + RequestFilter> request_filter::Guest for Exports<P> {
    fn on_request(facts: Facts) -> sys::Outcome {
        let outcome = with(|plugin: &P| plugin.on_request(&request(&facts), &mut RequestEdits::new()));
        outcome.map_or_else(|_| trap(), self::outcome)
    }
}

impl<P: Instance + CallAnswered> call_answered::Guest for Exports<P> {
    fn on_answer(facts: Facts, answer: Result<sys::Answer, sys::CallError>, state: Vec<u8>) -> sys::Outcome {
        let answer = match answer {
            Ok(answer) => Ok(call::Answer {
                status: answer.status,
                headers: answer
                    .headers
                    .into_iter()
                    .map(|field| (field.name, field.value))
                    .collect(),
                body: answer.body,
            }),
            Err(error) => Err(match error {
                sys::CallError::Timeout => call::CallError::Timeout,
                sys::CallError::Busy => call::CallError::Busy,
                sys::CallError::Unreachable => call::CallError::Unreachable,
                sys::CallError::TooLarge => call::CallError::TooLarge,
                sys::CallError::Other(what) => call::CallError::Other(what),
            }),
        };
        let outcome = with(|plugin: &P| plugin.on_answer(&request(&facts), answer, &state, &mut RequestEdits::new()));
        outcome.map_or_else(|_| trap(), self::outcome)
    }
}

impl<P: Instance + RequestBodyFilter> request_body_filter::Guest for Exports<P> {
    fn on_request_body(facts: Facts) -> sys::BodyMode {
        mode(with(|plugin: &P| plugin.on_request_body(&request(&facts))))
    }

    fn on_request_piece(piece: sys::Piece) -> sys::PieceOutcome {
        let outcome = with(|plugin: &P| plugin.on_request_piece(self::piece(piece)));
        outcome.map_or_else(|_| trap(), piece_outcome)
    }
}

impl<P: Instance + ResponseFilter> response_filter::Guest for Exports<P> {
    fn on_response(facts: Facts) -> Option<sys::Reply> {
        let response = Response::new(facts::Facts::new(&facts));
        match with(|plugin: &P| plugin.on_response(&response, &mut ResponseEdits::new())) {
            Ok(reply) => reply.map(self::reply),
            Err(_) => trap(),
        }
    }
}

impl<P: Instance + ResponseBodyFilter> response_body_filter::Guest for Exports<P> {
    fn on_response_body(facts: Facts) -> sys::BodyMode {
        let response = Response::new(facts::Facts::new(&facts));
        mode(with(|plugin: &P| plugin.on_response_body(&response)))
    }

    fn on_response_piece(piece: sys::Piece) -> sys::PieceOutcome {
        let outcome = with(|plugin: &P| plugin.on_response_piece(self::piece(piece)));
        outcome.map_or_else(|_| trap(), piece_outcome)
    }
}

impl<P: Instance + AccessLog> access_log::Guest for Exports<P> {
    fn on_log(facts: Facts) {
        with(|plugin: &P| plugin.on_log(&Exchange::new(facts::Facts::new(&facts))));
    }
}

impl<P: Instance + ConnectionFilter> connection_filter::Guest for Exports<P> {
    fn on_connect(facts: Facts) -> connection_filter::Verdict {
        match with(|plugin: &P| plugin.on_connect(&Connection::new(facts::Facts::new(&facts)))) {
            ConnectionVerdict::Accept => connection_filter::Verdict::Accept,
            ConnectionVerdict::Refuse => connection_filter::Verdict::Refuse,
            ConnectionVerdict::Route(backend) => connection_filter::Verdict::Route(backend),
        }
    }
}

#[inline]
fn request(facts: &Facts) -> Request<'_> {
    Request::new(facts::Facts::new(facts))
}

fn fields(fields: Vec<(String, Vec<u8>)>) -> Vec<Field> {
    fields.into_iter().map(|(name, value)| Field { name, value }).collect()
}

fn reply(reply: Reply) -> sys::Reply {
    sys::Reply {
        status: reply.status,
        headers: fields(reply.headers),
        body: reply.body,
    }
}

fn outcome(outcome: Outcome) -> sys::Outcome {
    match outcome {
        Outcome::Proceed => sys::Outcome::Proceed,
        Outcome::Reply(reply) => sys::Outcome::Reply(self::reply(reply)),
        Outcome::Route(backend) => sys::Outcome::Route(backend),
        Outcome::Call(call) => sys::Outcome::Call(sys::Call {
            backend: call.backend,
            method: call.method,
            target: call.target,
            headers: fields(call.headers),
            body: call.body,
            timeout_ms: call.timeout_ms,
            state: call.state,
        }),
    }
}

fn mode(mode: BodyMode) -> sys::BodyMode {
    match mode {
        BodyMode::Skip => sys::BodyMode::Skip,
        BodyMode::Streamed => sys::BodyMode::Streamed,
        BodyMode::Held => sys::BodyMode::Held,
        BodyMode::Buffered { max } => sys::BodyMode::Buffered(max),
        BodyMode::BufferedOrSkip { max } => sys::BodyMode::BufferedOrSkip(max),
    }
}

fn piece(piece: sys::Piece) -> body::Piece {
    body::Piece {
        state: piece.state,
        bytes: piece.bytes,
        last: piece.last,
    }
}

fn piece_outcome(outcome: body::PieceOutcome) -> sys::PieceOutcome {
    sys::PieceOutcome {
        state: outcome.state,
        verdict: match outcome.verdict {
            body::PieceVerdict::Pass => sys::PieceVerdict::Pass,
            body::PieceVerdict::Replace(bytes) => sys::PieceVerdict::Replace(bytes),
            body::PieceVerdict::PassRest => sys::PieceVerdict::PassRest,
            body::PieceVerdict::Reply(reply) => sys::PieceVerdict::Reply(self::reply(reply)),
            body::PieceVerdict::Abort => sys::PieceVerdict::Abort,
        },
    }
}

fn metric(metric: &Metric) -> lifecycle::Metric {
    lifecycle::Metric {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        kind: match metric.kind {
            Kind::Counter => lifecycle::MetricKind::Counter,
            Kind::Gauge => lifecycle::MetricKind::Gauge,
            Kind::Histogram(bounds) => lifecycle::MetricKind::Histogram(bounds.to_vec()),
        },
        labels: metric
            .labels
            .iter()
            .map(|label| lifecycle::MetricLabel {
                name: label.name.to_owned(),
                values: label.values.iter().map(|&value| value.to_owned()).collect(),
            })
            .collect(),
    }
}

/// The configured plugin; the contract promises that `configure` came first.
#[inline]
fn with<P: Instance, R>(call: impl FnOnce(&P) -> R) -> R {
    P::cell().with(|cell| match cell.get() {
        Some(plugin) => call(plugin),
        None => trap(),
    })
}

/// Abandons the call and the instance. Not a panic: that would link the formatting of a message that nobody sees.
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}
