//! `heavy queue=64 wait="1s"`: a plugin whose calls would make a worker's other requests wait.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::model::Heavy;
use crate::config::reader::Node;

/// It is heavy, whatever is wrong with what it says. What a tenant's file says goes no further than the defaults.
pub(super) fn heavy(mut node: Node<'_>, is_strangers: bool) -> Heavy {
    let (most_calls, longest) = match is_strangers {
        true => (Heavy::DEFAULT.queue as u64, Heavy::DEFAULT.wait),
        false => (*QUEUE.end(), *WAIT.end()),
    };
    let queue = node.property("queue");
    let queue = queue.and_then(|value| value.integer(*QUEUE.start()..=most_calls));
    let queue = queue.and_then(|queue| usize::try_from(queue).ok());
    let wait = node.property("wait");
    let wait = wait.and_then(|value| value.duration(*WAIT.start()..=longest));
    node.finish();
    Heavy {
        queue: queue.unwrap_or(Heavy::DEFAULT.queue),
        wait: wait.unwrap_or(Heavy::DEFAULT.wait),
    }
}

const QUEUE: RangeInclusive<u64> = 1..=100_000;
/// As for calls of backends.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
