//! A worker's warm instances, and the calls of their hooks.

use std::sync::Arc;

use super::attachment::Attachment;
use super::exchange::{ConnectionFacts, ConnectionVerdict, Exchange, LimitVerdict, Reply};
use super::failure::{Failure, FailureKind};
use super::host::Host;

/// One worker's warm instances: one per attachment, in a slot of its own. Calls are synchronous and bounded by the
/// attachment's limits.
#[derive(Debug)]
pub struct Instances {
    host: Arc<Host>,
}

impl Instances {
    /// No instances yet.
    #[must_use]
    pub fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host) }
    }

    /// Makes an instance ahead of need. Does nothing when there is one.
    ///
    /// # Errors
    /// As a call would fail; the next call tries again.
    pub fn warm(&mut self, attachment: &Arc<Attachment>) -> Result<(), Failure> {
        let _ = (&self.host, attachment);
        Err(not_there("warm"))
    }

    /// Gives back the instances of attachments that are gone. To be called after a configuration was replaced.
    pub fn sweep(&mut self) {}

    /// Asks all predicates: bit `i` answers the `i`-th of [`Attachment::predicates`].
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn evaluate(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<u64, Failure> {
        let _ = (attachment, exchange);
        Err(not_there("evaluate"))
    }

    /// Asks the limiter. None when no limit applies.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn check(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<LimitVerdict>, Failure> {
        let _ = (attachment, exchange);
        Err(not_there("check"))
    }

    /// Runs the request filter; its edits are in `exchange.request` when it succeeded. A reply ends the request here.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_request(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Reply>, Failure> {
        let _ = (attachment, exchange);
        Err(not_there("on-request"))
    }

    /// Runs the response filter; its edits are in `exchange.response` when it succeeded.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_response(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<(), Failure> {
        let _ = (attachment, exchange);
        Err(not_there("on-response"))
    }

    /// Asks what becomes of a connection.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_connect(
        &mut self,
        attachment: &Arc<Attachment>,
        connection: &Arc<ConnectionFacts>,
    ) -> Result<ConnectionVerdict, Failure> {
        let _ = (attachment, connection);
        Err(not_there("on-connect"))
    }
}

fn not_there(hook: &'static str) -> Failure {
    Failure {
        kind: FailureKind::Instantiate,
        hook,
        message: "not there yet".to_owned(),
    }
}
