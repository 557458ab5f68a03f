//! Time. Needs `grant "clock"`.

use std::time::Duration;

use crate::sys::clock as host;

/// Time since 1970-01-01T00:00:00Z, to the millisecond.
pub fn now() -> Duration {
    Duration::from_millis(host::now_ms())
}

/// Time since some moment before the gateway started; never goes back.
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::monotonic_ns())
}
