//! The hooks of the contract, as calls need them: what each is called, where it stands in an exchange, what it asks for.

use super::attribute::Attribute;
use super::failure::{Failure, FailureKind};
use super::needs::Needs;
use super::phases::AskingPhase;
use super::state::Phase;

/// A hook, as calls need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    pub(super) name: &'static str,
    /// Where it stands in an exchange: what goes on with what another one has begun has that one's.
    pub(super) bit: u8,
    /// A place of its own, for what is remembered of its failures.
    pub(super) place: HookPlace,
    pub(super) phase: Phase,
    pub(super) needs: fn(&Needs) -> &[Attribute],
}

/// One for each hook, and one for setting an instance up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPlace {
    /// Setting an instance up.
    Instantiate,
    /// `evaluate` of predicates.
    Evaluate,
    /// `check` of a limiter.
    Check,
    /// `on-request`.
    OnRequest,
    /// `on-answer`.
    OnAnswer,
    /// `on-request-body`.
    OnRequestBody,
    /// `on-request-piece`.
    OnRequestPiece,
    /// `on-response`.
    OnResponse,
    /// `on-response-body`.
    OnResponseBody,
    /// `on-response-piece`.
    OnResponsePiece,
    /// `on-log`.
    OnLog,
    /// `on-connect`.
    OnConnect,
}

impl HookPlace {
    /// How many there are.
    pub(super) const COUNT: usize = Self::OnConnect as usize + 1;

    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Instantiate,
        Self::Evaluate,
        Self::Check,
        Self::OnRequest,
        Self::OnAnswer,
        Self::OnRequestBody,
        Self::OnRequestPiece,
        Self::OnResponse,
        Self::OnResponseBody,
        Self::OnResponsePiece,
        Self::OnLog,
        Self::OnConnect,
    ];

    /// The phase in which the hook is called; none of setting an instance up, which any of them may begin with.
    pub fn phase(self) -> Option<AskingPhase> {
        Some(match self {
            Self::Instantiate => return None,
            Self::Evaluate => AskingPhase::Acl,
            Self::Check => AskingPhase::Limits,
            Self::OnRequest | Self::OnAnswer => AskingPhase::RequestRewrite,
            Self::OnRequestBody | Self::OnRequestPiece => AskingPhase::RequestBody,
            Self::OnResponse => AskingPhase::ResponseRewrite,
            Self::OnResponseBody | Self::OnResponsePiece => AskingPhase::ResponseBody,
            Self::OnLog => AskingPhase::Log,
            Self::OnConnect => AskingPhase::ConnectionPolicy,
        })
    }
}

impl Hook {
    #[cold]
    pub(super) fn failed(self, message: &str) -> Failure {
        Failure::new(FailureKind::Instantiate, self.name, message.to_owned())
    }
}

/// A bit for each hook that begins something, in the order of an exchange's phases.
pub(super) mod hook_bits {
    pub(in crate::policy) const PREDICATES: u8 = 1;
    pub(in crate::policy) const LIMITER: u8 = 2;
    pub(in crate::policy) const REQUEST_FILTER: u8 = 4;
    pub(in crate::policy) const REQUEST_BODY: u8 = 8;
    pub(in crate::policy) const RESPONSE_FILTER: u8 = 16;
    pub(in crate::policy) const RESPONSE_BODY: u8 = 32;
    pub(in crate::policy) const ACCESS_LOG: u8 = 64;
    pub(in crate::policy) const CONNECTION_FILTER: u8 = 128;
}

/// Setting an instance up is no hook, but fails like one.
pub(super) const INSTANTIATE: Hook = Hook {
    name: "instantiate",
    bit: 0,
    place: HookPlace::Instantiate,
    phase: Phase::Setup,
    needs: |needs| &needs.request,
};

pub(super) const EVALUATE: Hook = Hook {
    name: "evaluate",
    bit: hook_bits::PREDICATES,
    place: HookPlace::Evaluate,
    phase: Phase::Request,
    needs: |needs| &needs.request,
};

pub(super) const CHECK: Hook = Hook {
    name: "check",
    bit: hook_bits::LIMITER,
    place: HookPlace::Check,
    phase: Phase::Request,
    needs: |needs| &needs.request,
};

pub(super) const ON_REQUEST: Hook = Hook {
    name: "on-request",
    bit: hook_bits::REQUEST_FILTER,
    place: HookPlace::OnRequest,
    phase: Phase::RequestFilter,
    needs: |needs| &needs.request,
};

/// Goes on with what `on-request` has begun.
pub(super) const ON_ANSWER: Hook = Hook {
    name: "on-answer",
    bit: hook_bits::REQUEST_FILTER,
    place: HookPlace::OnAnswer,
    phase: Phase::RequestFilter,
    needs: |needs| &needs.request,
};

pub(super) const ON_REQUEST_BODY: Hook = Hook {
    name: "on-request-body",
    bit: hook_bits::REQUEST_BODY,
    place: HookPlace::OnRequestBody,
    phase: Phase::Request,
    needs: |needs| &needs.request,
};

pub(super) const ON_REQUEST_PIECE: Hook = Hook {
    name: "on-request-piece",
    bit: hook_bits::REQUEST_BODY,
    place: HookPlace::OnRequestPiece,
    phase: Phase::Piece,
    needs: |_| &[],
};

pub(super) const ON_RESPONSE: Hook = Hook {
    name: "on-response",
    bit: hook_bits::RESPONSE_FILTER,
    place: HookPlace::OnResponse,
    phase: Phase::ResponseFilter,
    needs: |needs| &needs.response,
};

pub(super) const ON_RESPONSE_BODY: Hook = Hook {
    name: "on-response-body",
    bit: hook_bits::RESPONSE_BODY,
    place: HookPlace::OnResponseBody,
    phase: Phase::Response,
    needs: |needs| &needs.response,
};

pub(super) const ON_RESPONSE_PIECE: Hook = Hook {
    name: "on-response-piece",
    bit: hook_bits::RESPONSE_BODY,
    place: HookPlace::OnResponsePiece,
    phase: Phase::Piece,
    needs: |_| &[],
};

pub(super) const ON_LOG: Hook = Hook {
    name: "on-log",
    bit: hook_bits::ACCESS_LOG,
    place: HookPlace::OnLog,
    phase: Phase::Log,
    needs: |needs| &needs.log,
};

pub(super) const ON_CONNECT: Hook = Hook {
    name: "on-connect",
    bit: hook_bits::CONNECTION_FILTER,
    place: HookPlace::OnConnect,
    phase: Phase::Connection,
    needs: |needs| &needs.connection,
};
