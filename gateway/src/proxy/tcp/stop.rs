//! Why a TCP connection ends before anything was relayed, and how logs and metrics say so.

use crate::backend::QueueError;
use crate::telemetry::access::{Cause, Phase, Termination};

/// Why a connection ends before anything was relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A `deny` held, which the record has.
    Denied,
    /// Its host is a tenant's whose files are at fault, and there is nothing to go on with.
    TenantClosed,
    /// As many connections for its tenant's hosts are under way as `quota connections=` says.
    TenantFull,
    /// A component refused it.
    Refused,
    /// A component failed, and its `on-failure` is to deny.
    PolicyFailure,
    /// No rule took it and there is no default backend.
    NoRoute,
    /// No server of the backend is up.
    NoServer,
    /// No server had room.
    Queue(QueueError),
    /// The server that was tried last could not be connected to.
    ConnectFailed,
    /// The connection to it did not stand within `timeout connect=`.
    ConnectTimeout,
    /// It was there, but TLS with it failed.
    ServerTlsFailed,
    /// The gateway lacked what a connection to it takes.
    OutOfResources,
    /// The client was gone before a server was reached.
    ClientLeft,
    /// So it was, and had said nothing until then: somebody looks whether the port is open.
    ClientSilent,
}

impl Stop {
    /// A label for logs and metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::TenantClosed => "tenant-closed",
            Self::TenantFull => "tenant-full",
            Self::Refused => REFUSED_BY_PLUGIN,
            Self::PolicyFailure => "policy-failure",
            Self::NoRoute => "no-route",
            Self::NoServer => "no-server",
            Self::Queue(QueueError::Full) => "queue-full",
            Self::Queue(QueueError::Timeout) => "queue-timeout",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::ServerTlsFailed => "server-tls-failed",
            Self::OutOfResources => "out-of-resources",
            Self::ClientLeft | Self::ClientSilent => "client-left",
        }
    }

    /// Whether a server was tried, and could not be reached.
    pub(super) fn is_of_connecting(self) -> bool {
        matches!(
            self,
            Self::ConnectFailed | Self::ConnectTimeout | Self::ServerTlsFailed | Self::OutOfResources
        )
    }

    /// How it ended, in a phase that the client may have chosen.
    pub(super) fn termination(self, at: Phase) -> Termination {
        let (cause, phase) = match self {
            Self::Denied
            | Self::TenantClosed
            | Self::TenantFull
            | Self::Refused
            | Self::PolicyFailure
            | Self::NoRoute => (Cause::Proxy, Phase::Request),
            Self::Queue(QueueError::Full) => (Cause::Proxy, Phase::Queue),
            Self::Queue(QueueError::Timeout) => (Cause::ServerTimeout, Phase::Queue),
            Self::NoServer | Self::ConnectFailed | Self::ServerTlsFailed => (Cause::ServerAborted, Phase::Connect),
            Self::ConnectTimeout => (Cause::ServerTimeout, Phase::Connect),
            Self::OutOfResources => (Cause::Resource, Phase::Connect),
            Self::ClientLeft | Self::ClientSilent => (Cause::ClientAborted, at),
        };
        Termination { cause, phase }
    }
}

/// What logs and components are told of a connection that a component has refused.
pub const REFUSED_BY_PLUGIN: &str = "refused-by-plugin";
