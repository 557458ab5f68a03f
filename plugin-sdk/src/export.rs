//! From the contract's exports to the author's traits. Guest only.

use std::cell::OnceCell;
use std::marker::PhantomData;
use std::thread::LocalKey;

use crate::connection::Connection;
use crate::edits::{RequestEdits, ResponseEdits};
use crate::hooks::{AccessControl, ConnectionFilter, ConnectionVerdict, RateLimit, RequestFilter, ResponseFilter};
use crate::plugin::{self, Plugin};
use crate::request::Request;
use crate::response::Response;
use crate::sys::connection_filter::exports::gateway::policy::connection_filter;
use crate::sys::lifecycle::exports::gateway::policy::lifecycle;
use crate::sys::limiter::exports::gateway::policy::limiter;
use crate::sys::predicates::exports::gateway::policy::predicates;
use crate::sys::request_filter::exports::gateway::policy::request_filter;
use crate::sys::response_filter::exports::gateway::policy::response_filter;
use crate::sys::{Fact, Field, Needs, Reply};

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
                connection: Vec::new(),
            },
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
            connection: needs.connection.into_names(),
        })
    }
}

impl<P: Instance + AccessControl> predicates::Guest for Exports<P> {
    fn names() -> Vec<String> {
        with(P::predicates)
    }

    fn evaluate(facts: Vec<Fact>) -> u64 {
        with(|plugin: &P| plugin.evaluate(&Request::new(&facts)).bits())
    }
}

impl<P: Instance + RateLimit> limiter::Guest for Exports<P> {
    fn check(facts: Vec<Fact>) -> Option<limiter::Verdict> {
        let verdict = with(|plugin: &P| plugin.check(&Request::new(&facts)))?;
        Some(limiter::Verdict {
            allowed: verdict.allowed,
            rule: verdict.rule,
            limit: verdict.limit,
            remaining: verdict.remaining,
            retry_after_ms: verdict.retry_after_ms,
        })
    }
}

impl<P: Instance + RequestFilter> request_filter::Guest for Exports<P> {
    fn on_request(facts: Vec<Fact>) -> Option<Reply> {
        match with(|plugin: &P| plugin.on_request(&Request::new(&facts), &mut RequestEdits::new())) {
            Ok(reply) => reply.map(|reply| Reply {
                status: reply.status,
                headers: reply
                    .headers
                    .into_iter()
                    .map(|(name, value)| Field { name, value })
                    .collect(),
                body: reply.body,
            }),
            Err(_) => trap(),
        }
    }
}

impl<P: Instance + ResponseFilter> response_filter::Guest for Exports<P> {
    fn on_response(facts: Vec<Fact>) {
        if with(|plugin: &P| plugin.on_response(&Response::new(&facts), &mut ResponseEdits::new())).is_err() {
            trap();
        }
    }
}

impl<P: Instance + ConnectionFilter> connection_filter::Guest for Exports<P> {
    fn on_connect(facts: Vec<Fact>) -> connection_filter::Verdict {
        match with(|plugin: &P| plugin.on_connect(&Connection::new(&facts))) {
            ConnectionVerdict::Accept => connection_filter::Verdict::Accept,
            ConnectionVerdict::Refuse => connection_filter::Verdict::Refuse,
            ConnectionVerdict::Route(backend) => connection_filter::Verdict::Route(backend),
        }
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
