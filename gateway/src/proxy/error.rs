//! Why an exchange did not go the ordinary way: whose fault it was, what the client is told, and the label it counts under.

use std::io;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::decompression::Fault;
use crate::backend::{Ended, QueueError};
use crate::snapshot::TenantFull;
use crate::snapshot::pages::Page;
use crate::snapshot::rules::RuleAt;
use crate::telemetry::access::{Cause, Phase, Termination};

/// Why the gateway answers in the server's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The client sent something that is not a request, or not one that a gateway forwards.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The request target is longer than `request-limits uri=`.
    #[error("the request target is too long")]
    UriTooLong,
    /// The head is longer, or has more fields, than `request-limits` says.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// The body is longer than `request-limits body=`.
    #[error("the request body is too large")]
    BodyTooLarge,
    /// The client stopped sending its body for longer than `timeout client=`.
    #[error("the client took too long")]
    ClientTimeout,
    /// The client has not sent its body whole within `timeout request-body=`.
    #[error("the request body took too long")]
    SlowBody,
    /// The client's body was malformed.
    #[error("the request body is malformed")]
    BadBody,
    /// The client left in the middle of its body.
    #[error("the request body broke off")]
    BodyAborted,
    /// The body is not in the coding that `decompress` is to take it out of.
    #[error("the request body is not in its coding")]
    BadCoding,
    /// More would come of the body than `decompress` allows.
    #[error("the decoded request body is too large")]
    DecodedTooLarge,
    /// As many messages are being decoded as `decompress` says.
    #[error("too many bodies are being decoded")]
    DecompressBusy,
    /// A `deny` rule held.
    #[error("denied by the rule in line {}", at.line)]
    Denied {
        /// What the rule says, 400 to 599.
        status: u16,
        /// Where the rule stands.
        at: RuleAt,
    },
    /// A rate limit was reached.
    #[error("rate limited")]
    RateLimited {
        /// Milliseconds until a request will be let through.
        retry_after_ms: u64,
    },
    /// No rule took the request and there is no default backend.
    #[error("no backend for this request")]
    NoRoute,
    /// No server of the backend is up.
    #[error("no server is available")]
    NoServer,
    /// No server had room, and as many were waiting as `max-queue` says.
    #[error("too many wait for a server")]
    QueueFull,
    /// No server had room within `timeout queue=`.
    #[error("no server had room in time")]
    QueueTimeout,
    /// No server could be connected to.
    #[error("no server could be connected to")]
    Connect,
    /// The connection to the server that was tried last did not stand within `timeout connect=`.
    #[error("the server could not be connected to in time")]
    ConnectTimeout,
    /// The server that was tried last was there, but TLS with it failed.
    #[error("no TLS with the server")]
    ServerTls,
    /// The gateway lacked what a connection to a server takes.
    #[error("the gateway is out of resources")]
    OutOfResources,
    /// What the server sent is no response, or one that two readers could read differently, or it is beyond
    /// `response-limits`.
    #[error("the server's answer is invalid: {0}")]
    InvalidResponse(&'static str),
    /// The server closed or reset the connection before a response began.
    #[error("the server gave no answer")]
    EmptyResponse,
    /// The server garbled its response's head, or broke it off.
    #[error("the server's answer is not usable")]
    BadResponse,
    /// The backend has as many requests as `max-requests` says.
    #[error("the backend has too many requests")]
    Overloaded,
    /// The server went over to another protocol without having been asked to, or to another than was asked for.
    #[error("the server changed the protocol by itself")]
    BadUpgrade,
    /// The server speaks HTTP/2 and takes no WebSockets over it: its SETTINGS do not allow extended CONNECT (RFC 8441).
    #[error("the server takes no extended CONNECT")]
    NoExtendedConnect,
    /// The server did not answer within `timeout server=`.
    #[error("the server took too long")]
    ServerTimeout,
    /// The server went down before it answered, and `on-marked-down` ends what it has under way.
    #[error("the server went down")]
    ServerDown,
    /// The server is a backup, and one that it stood in for is back: `on-marked-up` ends what it has under way.
    #[error("a server is back that the backup stood in for")]
    BackupRelieved,
    /// An operator ended the exchange.
    #[error("ended by an operator")]
    ShutDown,
    /// The host is a tenant's whose files are at fault, and there is nothing to go on with.
    #[error("the tenant's files are at fault")]
    TenantClosed,
    /// As much is under way for the hosts of the tenant as its `quota requests=` says.
    #[error("the tenant has too many requests")]
    TenantFull,
    /// A policy component failed and its failure policy is to deny.
    #[error("a policy failed")]
    Policy {
        /// What its `on-failure` says, 400 to 599.
        status: u16,
    },
}

impl From<Ended> for ProxyError {
    fn from(why: Ended) -> Self {
        match why {
            Ended::Down => Self::ServerDown,
            Ended::Relieved => Self::BackupRelieved,
            Ended::Ordered => Self::ShutDown,
        }
    }
}

impl From<QueueError> for ProxyError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Full => Self::QueueFull,
            QueueError::Timeout => Self::QueueTimeout,
        }
    }
}

impl From<TenantFull> for ProxyError {
    fn from(TenantFull: TenantFull) -> Self {
        Self::TenantFull
    }
}

impl ProxyError {
    /// What an error of a body was, when it is one of these.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        let status = match self {
            Self::BadRequest(_) | Self::BadBody | Self::BodyAborted | Self::BadCoding => 400,
            Self::UriTooLong => 414,
            Self::HeadTooLarge => 431,
            Self::BodyTooLarge | Self::DecodedTooLarge => 413,
            Self::ClientTimeout | Self::SlowBody => 408,
            Self::RateLimited { .. } => 429,
            Self::NoRoute => 404,
            Self::DecompressBusy
            | Self::TenantClosed
            | Self::TenantFull
            | Self::NoServer
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::Connect
            | Self::ConnectTimeout
            | Self::ServerTls
            | Self::OutOfResources
            | Self::Overloaded
            | Self::ServerDown
            | Self::BackupRelieved
            | Self::ShutDown => 503,
            Self::EmptyResponse
            | Self::BadResponse
            | Self::InvalidResponse(_)
            | Self::BadUpgrade
            | Self::NoExtendedConnect => 502,
            Self::ServerTimeout => 504,
            Self::Denied { status, .. } | Self::Policy { status } => *status,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A label for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(what) | Self::InvalidResponse(what) => what,
            Self::UriTooLong => "uri-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::ClientTimeout => "client-timeout",
            Self::SlowBody => "slow-body",
            Self::BadBody => "bad-body",
            Self::BodyAborted => "body-aborted",
            Self::BadCoding => Fault::Malformed.reason(),
            Self::DecodedTooLarge => Fault::TooLarge.reason(),
            Self::DecompressBusy => "decompress-busy",
            Self::Denied { .. } => "denied",
            Self::RateLimited { .. } => "rate-limited",
            Self::NoRoute => "no-route",
            Self::NoServer => "no-server",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Connect => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::ServerTls => "server-tls-failed",
            Self::OutOfResources => "out-of-resources",
            Self::EmptyResponse | Self::BadResponse => "bad-response",
            Self::Overloaded => "max-requests",
            Self::BadUpgrade => "bad-upgrade",
            Self::NoExtendedConnect => "no-extended-connect",
            Self::ServerTimeout => "server-timeout",
            Self::ServerDown => "server-down",
            Self::BackupRelieved => "backup-relieved",
            Self::ShutDown => "shut-down",
            Self::TenantClosed => "tenant-closed",
            Self::TenantFull => "tenant-full",
            Self::Policy { .. } => "policy-failure",
        }
    }

    /// Who ended the exchange.
    pub fn cause(&self) -> Cause {
        self.termination(Phase::Data).cause
    }

    /// Who ended the exchange, and in which phase, which is that it was at where a client chose the moment.
    pub fn termination(&self, at: Phase) -> Termination {
        let (cause, phase) = match self {
            Self::BadRequest(_)
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::BadBody
            | Self::BadCoding
            | Self::DecodedTooLarge
            | Self::Denied { .. }
            | Self::RateLimited { .. }
            | Self::NoRoute
            | Self::TenantClosed
            | Self::TenantFull
            | Self::Policy { .. } => (Cause::Proxy, Phase::Request),
            Self::DecompressBusy => (Cause::Resource, Phase::Request),
            Self::ClientTimeout | Self::SlowBody => (Cause::ClientTimeout, Phase::Data),
            Self::BodyAborted => (Cause::ClientAborted, at),
            Self::QueueFull | Self::Overloaded => (Cause::Proxy, Phase::Queue),
            Self::QueueTimeout => (Cause::ServerTimeout, Phase::Queue),
            Self::NoServer | Self::Connect | Self::ServerTls => (Cause::ServerAborted, Phase::Connect),
            Self::ConnectTimeout => (Cause::ServerTimeout, Phase::Connect),
            Self::OutOfResources => (Cause::Resource, Phase::Connect),
            Self::ServerDown => (Cause::ServerDown, Phase::Headers),
            Self::BackupRelieved => (Cause::BackupRelieved, Phase::Headers),
            Self::ShutDown => (Cause::Killed, Phase::Headers),
            Self::EmptyResponse | Self::BadResponse => (Cause::ServerAborted, Phase::Headers),
            Self::BadUpgrade | Self::NoExtendedConnect | Self::InvalidResponse(_) => (Cause::Proxy, Phase::Headers),
            Self::ServerTimeout => (Cause::ServerTimeout, Phase::Headers),
        };
        Termination { cause, phase }
    }

    /// The response that says so, with the operator's page for its status where there is one. The one place where an error
    /// becomes something that a client sees.
    pub fn response(&self, page: Option<&Page>) -> Response<Bytes> {
        let mut response = self.plain_response();
        if let Some(page) = page {
            page.dress(&mut response);
        }
        response
    }

    fn plain_response(&self) -> Response<Bytes> {
        let mut response = in_own_words(self.status());
        if let Self::RateLimited { retry_after_ms } = self {
            // Whole seconds, never 0: a client that came back at once would only be refused again.
            let seconds = retry_after_ms.div_ceil(1000).max(1);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What the gateway says by itself where there is no page for a status.
pub fn in_own_words(status: StatusCode) -> Response<Bytes> {
    with_words(status, status.canonical_reason().unwrap_or("Error"))
}

/// The same in these words.
pub fn with_words(status: StatusCode, words: &str) -> Response<Bytes> {
    let text = format!("{} {words}\n", status.as_str());
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limited_client_is_told_when_to_come_back() {
        let retry = |retry_after_ms| {
            ProxyError::RateLimited { retry_after_ms }.response(None).headers()[header::RETRY_AFTER].clone()
        };
        assert_eq!(retry(0), "1");
        assert_eq!(retry(1000), "1");
        assert_eq!(retry(1001), "2");
    }

    #[test]
    fn every_error_has_an_error_status() {
        let denied = ProxyError::Denied {
            status: 451,
            at: RuleAt { line: 1, file: None },
        };
        assert_eq!(denied.status(), 451);
        for error in [
            ProxyError::BadRequest("x"),
            ProxyError::NoRoute,
            ProxyError::Connect,
            ProxyError::ConnectTimeout,
            ProxyError::ServerTimeout,
            denied,
        ] {
            assert!(error.status().is_client_error() || error.status().is_server_error());
            assert_ne!(error.termination(Phase::Headers), Termination::default());
        }
    }
}
