//! The first-party acl component: answers all named predicates of a frontend in one call.
//!
//! Its configuration is `{"predicates": [{"name": …, "when": …}]}`, where `when` is an expression over tests of the
//! request. What the tests read is declared to the host, so a call is handed the facts that some predicate asks for, and
//! makes no host call itself.

mod config;
mod expression;
mod text;
mod time;

use gateway_plugin_sdk::{AccessControl, Answers, ConfigError, Needs, Plugin, Request, plugin};

pub use config::{Config, Match, Measured, Named, Predicate, Text, Time};
use expression::Expression;

/// The plugin.
#[derive(Debug)]
pub struct Acl {
    names: Vec<String>,
    expressions: Vec<Expression>,
}

impl Plugin for Acl {
    type Config = Config;
    const NAME: &'static str = "acl";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Answers named predicates over paths, hosts, methods, headers, cookies, queries, addresses, \
                                 ports, TLS and the time.";

    fn configure(config: Config, needs: &mut Needs) -> Result<Self, ConfigError> {
        if config.predicates.len() > MAX_PREDICATES {
            let message = format!(
                "{} predicates; at most {MAX_PREDICATES} fit one call",
                config.predicates.len()
            );
            return Err(ConfigError::new(message).at("/predicates"));
        }
        let mut names = Vec::with_capacity(config.predicates.len());
        let mut expressions = Vec::with_capacity(config.predicates.len());
        for (index, predicate) in config.predicates.into_iter().enumerate() {
            let at = format!("/predicates/{index}/when");
            expressions.push(Expression::compile(predicate.when, &mut needs.request, &at)?);
            names.push(predicate.name);
        }
        Ok(Self { names, expressions })
    }
}

impl AccessControl for Acl {
    fn predicates(&self) -> Vec<String> {
        self.names.clone()
    }

    fn evaluate(&self, request: &Request<'_>) -> Answers {
        self.expressions
            .iter()
            .map(|expression| expression.holds(request))
            .collect()
    }
}

plugin!(Acl: AccessControl);

/// One bit of the answer each.
const MAX_PREDICATES: usize = 64;
