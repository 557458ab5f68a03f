//! Which access lines are written.

use super::access::{Cause, Termination};
use super::grpc::GrpcStatus;
use super::log::Severity;
use super::random::random;
use crate::config::LogChoice;

/// Whether an exchange or connection went as it should: HAProxy's `dontlog-normal`.
fn is_normal(termination: Termination, status: Option<u16>, grpc: Option<GrpcStatus>, retries: u32) -> bool {
    let went_well = matches!(termination.cause, Cause::Normal | Cause::Local);
    let is_unsaid = grpc == Some(GrpcStatus::Unsaid) && status == Some(200);
    went_well
        && retries == 0
        && status.is_none_or(|status| status < 500)
        && !is_unsaid
        && !grpc.is_some_and(GrpcStatus::is_servers_fault)
}

/// How grave the line of an exchange or connection is; none when it is not written.
pub fn severity(
    choice: Option<&LogChoice>,
    termination: Termination,
    status: Option<u16>,
    grpc: Option<GrpcStatus>,
    retries: u32,
) -> Option<Severity> {
    let Some(choice) = choice else {
        return Some(Severity::default());
    };
    let is_normal = is_normal(termination, status, grpc, retries);
    is_wanted(choice, is_normal).then_some(match choice.separate_errors && !is_normal {
        true => Severity::Error,
        false => Severity::default(),
    })
}

/// Whether its line is written.
fn is_wanted(choice: &LogChoice, is_normal: bool) -> bool {
    if !is_normal {
        return true;
    }
    !choice.only_errors && choice.sample.is_none_or(|sample| draw() < sample)
}

/// A number at random, of all that fit 32 bits. Not for secrets.
pub fn draw() -> u32 {
    // The upper half of 64 bits.
    (random() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access::Phase;

    #[test]
    fn errors_timeouts_retries_and_5xx_are_not_normal() {
        let fine = Termination::default();
        let is_normal = |termination, status, retries| is_normal(termination, status, None, retries);
        assert!(is_normal(fine, Some(404), 0) && is_normal(fine, None, 0));
        assert!(is_normal(Termination::new(Cause::Local, Phase::Request), Some(301), 0));
        assert!(!is_normal(fine, Some(500), 0));
        assert!(!is_normal(fine, Some(200), 1));
        assert!(!is_normal(
            Termination::new(Cause::ClientTimeout, Phase::Data),
            Some(200),
            0
        ));
        assert!(!is_normal(Termination::new(Cause::Proxy, Phase::Request), Some(403), 0));
    }

    #[test]
    fn calls_of_grpc_that_fail_by_the_servers_fault_are_not_normal() {
        let is_normal = |status, grpc| is_normal(Termination::default(), Some(status), Some(grpc), 0);
        assert!(is_normal(200, GrpcStatus::Said(0)) && is_normal(200, GrpcStatus::Said(5)));
        assert!(!is_normal(200, GrpcStatus::Said(14)) && !is_normal(200, GrpcStatus::Said(2)));
        assert!(!is_normal(200, GrpcStatus::Unsaid));
        // HTTP's own says it.
        assert!(is_normal(404, GrpcStatus::Unsaid));
    }

    #[test]
    fn a_sample_is_about_as_large_as_it_was_asked_for() {
        let choice = LogChoice {
            sample: Some(u32::MAX / 10),
            ..LogChoice::default()
        };
        let wanted = (0..20_000).filter(|_| is_wanted(&choice, true)).count();
        // Ten standard deviations: never by chance.
        assert!((1_576..2_424).contains(&wanted), "{wanted}");
        assert!((0..100).all(|_| is_wanted(&choice, false)));
    }
}
