//! What is decided about a connection by its addresses alone, right after it was accepted (or after the PROXY header that
//! says whose it is): `reject`, the denials of TCP mode that ask for nothing more, `max-connections-per-source` and the limits
//! that count connections. Whoever is turned away has had no TLS handshake and no place of `max-connections`.

use std::rc::Rc;
use std::sync::Arc;

use super::error::ProxyError;
use super::local::Local;
use super::policy;
use super::unserved::{Unserved, unserved};
use crate::listener::{Refused, SourceSeat};
use crate::policy::{ConnectionFacts, Exchange};
use crate::snapshot::{AclAnswers, Admission, Frontend};
use crate::telemetry::access::Cause;

/// Lets a connection in, with its place among those of its source where these are counted; or logs and counts that it is
/// turned away.
pub fn admit(
    local: &Rc<Local>,
    frontend: &Frontend,
    admission: &Admission,
    facts: &Arc<ConnectionFacts>,
) -> Result<Option<SourceSeat>, Refused> {
    let mut exchange = policy::of_connection(facts);
    let answers = policy::answers(local, &admission.acls, &mut exchange);
    let is_logged = match (&admission.log_when, &answers) {
        (Some(when), Ok(answers)) => answers.hold(when),
        _ => true,
    };
    let decided = answers
        .map_err(|_| TurnedAway::PolicyFailure)
        .and_then(|answers| decide(local, admission, facts, &answers, &mut exchange));
    decided.map_err(|turned_away| {
        let _counted = frontend.metrics.connection();
        match turned_away {
            TurnedAway::Denied { .. } => frontend.metrics.denied(),
            TurnedAway::RateLimited => frontend.metrics.rate_limited(),
            TurnedAway::TooMany | TurnedAway::PolicyFailure => frontend.metrics.error(turned_away.reason()),
        }
        let ended = Unserved {
            client: facts.client(),
            local: facts.local(),
            since: facts.accepted,
            cause: Cause::Proxy,
            reason: turned_away.reason(),
            rule: turned_away.rule(),
            is_logged,
        };
        unserved(local, frontend, &ended);
        Refused
    })
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy)]
enum TurnedAway {
    /// By the rule at this line of the configuration.
    Denied { line: usize },
    /// Its source makes connections faster than a `limit` allows.
    RateLimited,
    /// Its source has as many as it may.
    TooMany,
    /// A component failed, and its `on-failure` is to deny.
    PolicyFailure,
}

impl TurnedAway {
    /// A label for logs and metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::RateLimited => "rate-limited",
            Self::TooMany => "too-many-connections",
            Self::PolicyFailure => "policy-failure",
        }
    }

    fn rule(self) -> Option<usize> {
        match self {
            Self::Denied { line } => Some(line),
            Self::RateLimited | Self::TooMany | Self::PolicyFailure => None,
        }
    }
}

fn decide(
    local: &Rc<Local>,
    admission: &Admission,
    facts: &ConnectionFacts,
    answers: &AclAnswers,
    exchange: &mut Box<Exchange>,
) -> Result<Option<SourceSeat>, TurnedAway> {
    if let Some(line) = admission.rejects.iter().find_map(|rule| rule.stops(answers)) {
        return Err(TurnedAway::Denied { line });
    }
    // Before the rate: who has too many uses up nobody's tokens.
    let counts_source = admission.sources_when.as_ref().is_none_or(|when| answers.hold(when));
    let sources = admission.sources.as_ref().filter(|_| counts_source);
    let seat = match sources.zip(facts.client_ip()) {
        Some((sources, client)) => Some(sources.take(client).ok_or(TurnedAway::TooMany)?),
        // Who comes over a UNIX socket has no source to be counted by.
        None => None,
    };
    let limiters = admission.limiters.iter().filter(|limiter| limiter.applies(answers));
    let within = policy::within(local, limiters.map(|limiter| &limiter.attachment), exchange);
    within.map_err(|error| match error {
        ProxyError::RateLimited { .. } => TurnedAway::RateLimited,
        _ => TurnedAway::PolicyFailure,
    })?;
    Ok(seat)
}
