//! Passive observation: connections or answers of real traffic that fail, in a row, over all workers. What is done about them is for
//! the checks to decide, which alone know how a server comes back.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::config::{Observe, Observed};

/// Counts a server's failures.
#[derive(Debug)]
pub(super) struct Observer {
    what: Observed,
    limit: u32,
    /// In a row. Workers that fail and succeed at the same moment may miscount by what overlaps; that is as well.
    errors: AtomicU32,
    /// The limit was reached.
    tripped: Notify,
}

impl Observer {
    pub(super) fn new(observe: Observe) -> Self {
        Self {
            what: observe.what,
            limit: observe.error_limit,
            errors: AtomicU32::new(0),
            tripped: Notify::new(),
        }
    }

    /// A connection was opened.
    pub(super) fn connected(&self) {
        if self.what == Observed::Connect {
            self.succeeded();
        }
    }

    /// A connection could not be opened; then there is no answer either.
    pub(super) fn connect_failed(&self) {
        self.failed();
    }

    /// It answered with this status; none when there was no answer, or none that is one.
    pub(super) fn answered(&self, status: Option<u16>) {
        if self.what == Observed::Connect {
            return;
        }
        // As HAProxy: what a server does not implement is no failure.
        match status {
            Some(100..=499 | 501 | 505) => self.succeeded(),
            _ => self.failed(),
        }
    }

    /// Only reads, unless one has failed before.
    fn succeeded(&self) {
        if self.errors.load(Ordering::Relaxed) != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self) {
        let errors = self.errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if errors >= self.limit {
            self.errors.store(0, Ordering::Relaxed);
            self.tripped.notify_one();
        }
    }

    /// Waits until the limit is reached.
    pub(super) async fn tripped(&self) {
        self.tripped.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::config::OnError;

    #[test]
    fn only_failures_in_a_row_count() {
        let observer = Observer::new(Observe {
            what: Observed::Connect,
            error_limit: 3,
            on_error: OnError::MarkDown,
        });
        let tripped = || {
            pin!(observer.tripped())
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        };
        for _ in 0..10 {
            observer.connect_failed();
            observer.connect_failed();
            observer.connected();
        }
        assert!(!tripped());
        observer.connect_failed();
        observer.connect_failed();
        observer.connect_failed();
        assert!(tripped());
        assert!(!tripped(), "once");
        observer.connect_failed();
        assert!(!tripped(), "counting begins anew");
    }

    #[test]
    fn answers_count_where_they_are_observed_and_connections_alone_do_not_make_up_for_them() {
        let tripped = |what, observe: &dyn Fn(&Observer)| {
            let observer = Observer::new(Observe {
                what,
                error_limit: 2,
                on_error: OnError::MarkDown,
            });
            observe(&observer);
            pin!(observer.tripped())
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        };
        let fails = |observer: &Observer| {
            observer.connected();
            observer.answered(Some(500));
            observer.connected();
            observer.answered(None);
        };
        assert!(tripped(Observed::Response, &fails));
        assert!(!tripped(Observed::Connect, &fails));
        assert!(!tripped(Observed::Response, &|observer| {
            observer.answered(Some(503));
            observer.answered(Some(501));
            observer.connect_failed();
            observer.answered(Some(404));
        }));
        assert!(tripped(Observed::Response, &|observer| {
            observer.answered(Some(503));
            observer.connect_failed();
        }));
    }
}
