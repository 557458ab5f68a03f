//! Which hooks a component has.

use super::attachment::AttachedAs;
use super::hook::hook_bits;

/// Which hooks a component exports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `predicates`: [`Instances::evaluate`](super::Instances::evaluate).
    pub predicates: bool,
    /// `limiter`: [`Instances::check`](super::Instances::check).
    pub limiter: bool,
    /// `request-filter`: [`Instances::on_request`](super::Instances::on_request).
    pub request_filter: bool,
    /// `call-answered`: [`Instances::on_answer`](super::Instances::on_answer).
    pub call_answered: bool,
    /// `request-body-filter`: [`Instances::on_body`](super::Instances::on_body).
    pub request_body_filter: bool,
    /// `response-filter`: [`Instances::on_response`](super::Instances::on_response).
    pub response_filter: bool,
    /// `response-body-filter`: [`Instances::on_body`](super::Instances::on_body).
    pub response_body_filter: bool,
    /// `access-log`: [`Instances::on_log`](super::Instances::on_log).
    pub access_log: bool,
    /// `connection-filter`: [`Instances::on_connect`](super::Instances::on_connect).
    pub connection_filter: bool,
}

impl Hooks {
    /// Whether there is one beside `predicates`, so that there is something to attach as a filter.
    #[must_use]
    pub fn any_filter(self) -> bool {
        self.called(AttachedAs::Filter) != 0
    }

    /// The bits of those that are called at such a place, in the order of an exchange's phases.
    pub(super) fn called(self, place: AttachedAs) -> u8 {
        let filters = [
            (self.limiter, hook_bits::LIMITER),
            (self.request_filter, hook_bits::REQUEST_FILTER),
            (self.request_body_filter, hook_bits::REQUEST_BODY),
            (self.response_filter, hook_bits::RESPONSE_FILTER),
            (self.response_body_filter, hook_bits::RESPONSE_BODY),
            (self.access_log, hook_bits::ACCESS_LOG),
            (self.connection_filter, hook_bits::CONNECTION_FILTER),
        ];
        let hooks = match place {
            AttachedAs::Predicates => &[(self.predicates, hook_bits::PREDICATES)][..],
            AttachedAs::Filter => &filters,
        };
        hooks
            .iter()
            .filter(|(has, _)| *has)
            .fold(0, |bits, (_, bit)| bits | bit)
    }
}
