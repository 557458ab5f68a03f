//! Resilience: which requests are sent again, when servers are ejected, and how much a backend takes on.

use std::time::Duration;

use super::StatusSet;

/// `retry-on "conn-failure" "empty-response" 503`: after what another attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn {
    /// `conn-failure`: the server could not be connected to. Every request may go elsewhere then.
    pub conn_failure: bool,
    /// `empty-response`: the connection ended before a response began.
    pub empty_response: bool,
    /// `junk-response`: what came was no response.
    pub junk_response: bool,
    /// `response-timeout`: no response began within `timeout server=`.
    pub response_timeout: bool,
    /// Responses of these statuses.
    pub statuses: StatusSet,
    /// `grpc-unavailable` and its like: answers to calls of gRPC that say one of these, and nothing else.
    pub grpc: GrpcStatuses,
}

/// A set of gRPC's statuses, 0 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcStatuses(u32);

/// `retry-budget percent=20 min=3 max=100`: how many requests are sent again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Percent of the requests that the backend has under way.
    pub percent: usize,
    /// So many requests always.
    pub min: usize,
    /// Never more requests.
    pub max: usize,
}

/// `outlier-ejection consecutive-errors=5 base-time="30s"`: servers that answer badly get nothing for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierEjection {
    /// Answers of 500 and above in a row, or none at all.
    pub consecutive_errors: Option<u32>,
    /// 502, 503 and 504 in a row, or no answers at all.
    pub consecutive_gateway_errors: Option<u32>,
    /// Answers in a row that took longer than this.
    pub slow: Option<Slow>,
    /// How long a server is ejected for the first time; twice as long the next, and so on.
    pub base_time: Duration,
    /// How long at most.
    pub max_time: Duration,
    /// Of the backend's servers, in percent.
    pub max_ejected: usize,
}

/// `slow="1s" consecutive-slow=10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// What is slow.
    pub above: Duration,
    /// How many in a row.
    pub consecutive: u32,
}

/// When a request may go over a connection to a server that another client's requests went over: HAProxy's `http-reuse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Whenever there is one.
    Always,
    /// As `Safe`, and a client's first request too when the connection has been used again before.
    Aggressive,
    /// Not a client's first request.
    Safe,
    /// Never: each client's connection has its own to the servers.
    Never,
}

impl RetryOn {
    /// Whether requests that were sent are sent again, calls of gRPC among them.
    pub fn sends_again(&self) -> bool {
        self.repeats() || self.grpc != GrpcStatuses::NONE
    }

    /// Whether idempotent requests that were sent are sent again.
    pub fn repeats(&self) -> bool {
        self.empty_response || self.junk_response || self.response_timeout || self.statuses != StatusSet::NONE
    }
}

impl GrpcStatuses {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds one; others than 0 to 16 are passed over.
    pub fn add(&mut self, status: u8) {
        if status <= MOST_GRPC {
            self.0 |= 1 << status;
        }
    }

    /// Whether it is in the set.
    pub fn contains(self, status: u8) -> bool {
        status <= MOST_GRPC && self.0 >> status & 1 == 1
    }
}

/// UNAUTHENTICATED.
const MOST_GRPC: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_grpcs_statuses_has_what_was_added() {
        let mut set = GrpcStatuses::NONE;
        for status in [1, 14, 16, 17, 32, 255] {
            set.add(status);
        }
        let has: Vec<_> = (0..=u8::MAX).filter(|status| set.contains(*status)).collect();
        assert_eq!(has, [1, 14, 16]);
    }
}
