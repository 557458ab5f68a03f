//! Passive observation: connections of real traffic that fail, in a row, over all workers. What is done about them is for
//! the checks to decide, which alone know how a server comes back.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::config::Observe;

/// Counts a server's failures to connect.
#[derive(Debug)]
pub(super) struct Observer {
    limit: u32,
    /// In a row. Workers that fail and succeed at the same moment may miscount by what overlaps; that is as well.
    errors: AtomicU32,
    /// The limit was reached.
    tripped: Notify,
}

impl Observer {
    pub(super) fn new(observe: Observe) -> Self {
        Self {
            limit: observe.error_limit,
            errors: AtomicU32::new(0),
            tripped: Notify::new(),
        }
    }

    /// A connection was opened. Only reads, unless one has failed before.
    pub(super) fn succeeded(&self) {
        if self.errors.load(Ordering::Relaxed) != 0 {
            self.errors.store(0, Ordering::Relaxed);
        }
    }

    /// A connection could not be opened.
    pub(super) fn failed(&self) {
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
            error_limit: 3,
            on_error: OnError::MarkDown,
        });
        let tripped = || {
            pin!(observer.tripped())
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        };
        for _ in 0..10 {
            observer.failed();
            observer.failed();
            observer.succeeded();
        }
        assert!(!tripped());
        observer.failed();
        observer.failed();
        observer.failed();
        assert!(tripped());
        assert!(!tripped(), "once");
        observer.failed();
        assert!(!tripped(), "counting begins anew");
    }
}
