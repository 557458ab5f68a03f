//! When a connection is watched that came unwatched (see [`accepted`](crate::accepted)): not while its first request is being answered
//! in no time.

use std::time::Duration;

use tokio::time::Instant;

use super::turns::Phase;

/// A connection that nobody watches yet, as its task sees it.
#[derive(Debug, Default)]
pub(super) struct Newcomer {
    /// When its request is not answered in no time any more.
    until: Option<Instant>,
}

impl Newcomer {
    /// When its task looks again by itself, now that there is nothing more to do in this phase; none when the connection is to be
    /// watched from now on. `has_content` says whether the client has more to send than the head of its request.
    pub(super) fn looks_again(&mut self, phase: Phase, has_content: bool, now: Instant) -> Option<Instant> {
        match phase {
            // The server is awaited, not the client. That it has left is seen when the answer has come, or a little later.
            Phase::Exchange | Phase::Response if !has_content => {
                let until = *self.until.get_or_insert(now + NO_TIME);
                (now < until).then_some(until)
            }
            _ => None,
        }
    }
}

/// How long a client may be gone before its server has answered and nobody notices.
const NO_TIME: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_watched_whenever_it_is_its_turn() {
        let now = Instant::now();
        for (phase, has_content) in [
            (Phase::Head(now), false),
            (Phase::Idle(now), false),
            (Phase::Exchange, true),
            (Phase::Response, true),
        ] {
            let again = Newcomer::default().looks_again(phase, has_content, now);
            assert_eq!(again, None, "{phase:?}, content: {has_content}");
        }
    }

    #[test]
    fn nobody_is_away_for_long_unnoticed() {
        let now = Instant::now();
        let mut newcomer = Newcomer::default();
        let until = now + NO_TIME;
        for (phase, time, again) in [
            (Phase::Exchange, now, Some(until)),
            (Phase::Response, until - Duration::from_millis(1), Some(until)),
            (Phase::Response, until, None),
        ] {
            assert_eq!(newcomer.looks_again(phase, false, time), again);
        }
    }
}
