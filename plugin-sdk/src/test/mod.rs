//! A host for `cargo test`: build requests and responses, run the hooks, see what came of it. Native only.
//!
//! ```
//! # use gateway_plugin_sdk::{ConfigError, Failure, Needs, Outcome, Plugin, Request, RequestEdits, RequestFilter};
//! # struct Tag;
//! # impl Plugin for Tag {
//! #     type Config = std::collections::HashMap<String, String>;
//! #     const NAME: &'static str = "tag";
//! #     const ABOUT: &'static str = "";
//! #     fn configure(_: Self::Config, _: &mut Needs) -> Result<Self, ConfigError> { Ok(Tag) }
//! # }
//! # impl RequestFilter for Tag {
//! #     fn on_request(&self, _: &Request<'_>, edits: &mut RequestEdits) -> Result<Outcome, Failure> {
//! #         edits.set_header("x-pool", "blue")?;
//! #         Ok(Outcome::Proceed)
//! #     }
//! # }
//! use gateway_plugin_sdk::test;
//!
//! let host = test::Host::new();
//! let tag = host.configure::<Tag>(r#"{"pool": "blue"}"#).expect("a good configuration");
//! let filtered = tag.on_request(&test::Request::get("http://shop.example/cart")).expect("no failure");
//! assert_eq!(filtered.request.header("x-pool"), ["blue"]);
//! ```
//!
//! It keeps the contract's rules: facts are handed over as declared, edits are checked and are discarded when the hook
//! fails, buckets count against a clock that only the test moves, and a host function called where there is nothing for it
//! to answer panics, as it would trap.

mod attributes;
mod bucket;
pub(crate) mod current;
pub(crate) mod edit;
mod head;
mod plugin;
mod stored;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub use current::Measured;
pub use head::{Connection, Request, Response};
pub use plugin::{Answered, Filtered, FilteredBody, Tested};

use crate::log::Level;
use crate::plugin::Plugin;
use crate::{ConfigError, plugin as load};
use current::State;

/// A host, with its own clock, buckets and log.
#[derive(Debug, Clone, Default)]
pub struct Host {
    state: Rc<RefCell<State>>,
}

impl Host {
    /// A host in which no time has passed and nothing has been taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// Configures a plugin as the gateway would: from the JSON of its `config { … }` block.
    ///
    /// # Errors
    /// The configuration is not JSON of the right shape, or the plugin refuses it.
    pub fn configure<P: Plugin>(&self, config: &str) -> Result<Tested<P>, ConfigError> {
        let (plugin, needs) = current::enter(&self.state, None, || load::load::<P>(config))?;
        Ok(Tested::new(self.state.clone(), plugin, needs))
    }

    /// What `clock::now` answers: the time since 1970-01-01T00:00:00Z. It begins at some moment of 2026.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.state.borrow().now_ms())
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.state.borrow_mut().now += by;
    }

    /// What was done with metrics so far: which (its position), which series, and what.
    pub fn measured(&self) -> Vec<(u32, u32, Measured)> {
        self.state.borrow().measured()
    }

    /// The lines that were written so far.
    pub fn log(&self) -> Vec<(Level, String)> {
        self.state.borrow().log.clone()
    }
}
