//! Policy plugins for the gateway, in Rust.
//!
//! A plugin is a type that implements [`Plugin`] and one or more *hooks* ([`AccessControl`], [`RateLimit`],
//! [`RequestFilter`], [`CallAnswered`], [`RequestBodyFilter`], [`ResponseFilter`], [`ResponseBodyFilter`], [`AccessLog`],
//! [`ConnectionFilter`]), and one line that says which:
//!
//! ```
//! use gateway_plugin_sdk::{ConfigError, Failure, Needs, Outcome, Plugin, Request, RequestEdits, RequestFilter, plugin};
//! use gateway_plugin_sdk::needs::RequestNeed;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// The pool that requests without a session are sent to.
//!     pool: String,
//! }
//!
//! /// Tags requests that carry no session.
//! pub struct Tag {
//!     config: Config,
//!     session: RequestNeed,
//! }
//!
//! impl Plugin for Tag {
//!     type Config = Config;
//!     const NAME: &'static str = "tag";
//!     const ABOUT: &'static str = "Tags requests that carry no session.";
//!
//!     fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
//!         Ok(Tag { config, session: needs.request.cookie("session") })
//!     }
//! }
//!
//! impl RequestFilter for Tag {
//!     fn on_request(&self, request: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
//!         if request.get(self.session).is_none() {
//!             edits.set_header("x-pool", &self.config.pool)?;
//!         }
//!         Ok(Outcome::Proceed)
//!     }
//! }
//!
//! plugin!(Tag: RequestFilter);
//! # fn main() {}
//! ```
//!
//! Built for `wasm32-unknown-unknown` this is a plugin; built natively it is an ordinary library, to be tested with
//! `cargo test` against the host in `test`.
//!
//! The contract behind it is `wit/policy.wit`: what the phases are, what an attribute means, what the host promises.

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod allocator;
mod body;
pub mod buckets;
mod call;
pub mod clock;
pub mod config;
mod connection;
pub mod counters;
mod edits;
mod exchange;
mod facts;
pub mod fields;
#[cfg(any(all(target_arch = "wasm32", feature = "allocator"), test))]
mod heap;
mod hooks;
pub mod kv;
pub mod log;
pub mod metrics;
pub mod needs;
mod place;
mod plugin;
pub mod random;
mod request;
mod response;
pub mod tags;
#[cfg(not(target_arch = "wasm32"))]
pub mod test;

#[cfg(target_arch = "wasm32")]
#[path = "sys/wasm.rs"]
mod sys;
#[cfg(not(target_arch = "wasm32"))]
#[path = "sys/native.rs"]
mod sys;

#[cfg(target_arch = "wasm32")]
mod export;

pub use body::{BodyMode, Piece, PieceOutcome, PieceVerdict};
pub use call::{Answer, Call, CallError};
pub use connection::{Connection, TlsInfo};
pub use edits::{EditRefused, RequestEdits, ResponseEdits};
pub use exchange::Exchange;
pub use hooks::{
    AccessControl, AccessLog, Answers, CallAnswered, ConnectionFilter, ConnectionVerdict, Failure, LimitPolicy,
    LimitVerdict, Outcome, RateLimit, Reply, RequestBodyFilter, RequestFilter, ResponseBodyFilter, ResponseFilter,
};
pub use needs::Needs;
pub use plugin::{ConfigError, Plugin};
pub use request::Request;
pub use response::Response;

/// Makes a component of a plugin: `plugin!(Geo: AccessControl)`, `plugin!(Tag: RequestFilter + ResponseFilter)`.
///
/// Once per crate. Exports the hooks that are named and no others; the gateway calls what it finds exported. Natively the
/// line only checks that the hooks are implemented.
#[macro_export]
macro_rules! plugin {
    ($plugin:ty : $hook:ident $(+ $more:ident)*) => {
        $crate::__hooks!($plugin; $hook $($more)*);
    };
}

/// What `plugin!` expands to natively.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __hooks {
    ($plugin:ty; $($hook:ident)+) => {
        $(
            const _: () = {
                const fn implemented<T: $crate::$hook>() {}
                implemented::<$plugin>()
            };
        )+
    };
}

/// What `plugin!` expands to in a guest.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __hooks {
    ($plugin:ty; $($hook:ident)+) => {
        const _: () = {
            type Exports = $crate::__private::Exports<$plugin>;

            ::std::thread_local! {
                // A guest has one thread: this is a plain static.
                static INSTANCE: ::std::cell::OnceCell<$plugin> = const { ::std::cell::OnceCell::new() };
            }

            impl $crate::__private::Instance for $plugin {
                fn cell() -> &'static ::std::thread::LocalKey<::std::cell::OnceCell<Self>> {
                    &INSTANCE
                }
            }

            $crate::__private::lifecycle::export!(Exports with_types_in $crate::__private::lifecycle);
            $($crate::__hook!($hook);)+
        };
    };
}

/// The exports of one hook.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (AccessControl) => {
        $crate::__private::predicates::export!(Exports with_types_in $crate::__private::predicates);
    };
    (RateLimit) => {
        $crate::__private::limiter::export!(Exports with_types_in $crate::__private::limiter);
    };
    (RequestFilter) => {
        $crate::__private::request_filter::export!(Exports with_types_in $crate::__private::request_filter);
    };
    (CallAnswered) => {
        $crate::__private::call_answered::export!(Exports with_types_in $crate::__private::call_answered);
    };
    (RequestBodyFilter) => {
        $crate::__private::request_body_filter::export!(Exports with_types_in $crate::__private::request_body_filter);
    };
    (ResponseFilter) => {
        $crate::__private::response_filter::export!(Exports with_types_in $crate::__private::response_filter);
    };
    (ResponseBodyFilter) => {
        $crate::__private::response_body_filter::export!(Exports with_types_in $crate::__private::response_body_filter);
    };
    (AccessLog) => {
        $crate::__private::access_log::export!(Exports with_types_in $crate::__private::access_log);
    };
    (ConnectionFilter) => {
        $crate::__private::connection_filter::export!(Exports with_types_in $crate::__private::connection_filter);
    };
    ($other:ident) => {
        compile_error!(concat!(
            "no hook `",
            stringify!($other),
            "`: there are AccessControl, RateLimit, RequestFilter, CallAnswered, RequestBodyFilter, ResponseFilter, \
             ResponseBodyFilter, AccessLog and ConnectionFilter"
        ));
    };
}

/// For the macros' use.
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod __private {
    pub use crate::export::{Exports, Instance};
    pub use crate::sys::{
        access_log, call_answered, connection_filter, lifecycle, limiter, predicates, request_body_filter,
        request_filter, response_body_filter, response_filter,
    };
}
