//! What calls cost, for the tools: how long each took, what it asked of the host, and how much memory its instance has. A worker
//! measures nothing of this.

use std::time::{Duration, Instant};

use super::cpu::thread_cpu_time;
use super::state::State;

/// What one call has cost, or the making of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// The hook; [`Measure::SET_UP`] where an instance was made and configured.
    pub hook: &'static str,
    /// CPU time of the thread, from before the call to after it: with the copying in and out.
    pub cpu: Duration,
    /// The time on the wall, likewise.
    pub wall: Duration,
    /// Calls of the host's functions.
    pub host_calls: HostCalls,
    /// Bytes of linear memory that the instance had at the end of the call. Memory never shrinks, so these are the most.
    pub memory: u64,
    /// Lines that it has written into the log, as they stand there.
    pub log: Vec<String>,
}

impl Measure {
    /// In the place of a hook.
    pub const SET_UP: &'static str = "instantiate";
}

/// Interfaces of the host whose functions components call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Request,
    RequestEdits,
    Response,
    ResponseEdits,
    ConnectionInfo,
    Tags,
    Buckets,
    Counters,
    Kv,
    Metrics,
    Random,
    Log,
    Clock,
}

/// How often each interface's functions were called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCalls([u32; INTERFACES.len()]);

impl HostCalls {
    /// One more of this interface.
    #[inline]
    pub(crate) fn count(&mut self, interface: Interface) {
        let count = &mut self.0[interface as usize];
        *count = count.wrapping_add(1);
    }

    /// Those of these that have been made since others.
    fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (now, before) in since.0.iter_mut().zip(&before.0) {
            *now = now.wrapping_sub(*before);
        }
        since
    }

    /// By the interface's name, those that were called.
    pub fn by_interface(&self) -> impl Iterator<Item = (&'static str, u32)> {
        INTERFACES.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// A call that is being measured.
pub(super) struct Measuring {
    cpu: Duration,
    wall: Instant,
    host_calls: HostCalls,
}

impl Measuring {
    /// It begins, and so many calls of the host have been made before.
    pub(super) fn start(host_calls: HostCalls) -> Self {
        Self {
            cpu: thread_cpu_time(),
            wall: Instant::now(),
            host_calls,
        }
    }

    /// It is over.
    pub(super) fn end(self, hook: &'static str, state: &mut State) -> Measure {
        // First: asking for CPU time is a call of the system, which is no part of what is measured.
        let wall = self.wall.elapsed();
        Measure {
            hook,
            cpu: thread_cpu_time().saturating_sub(self.cpu),
            wall,
            host_calls: state.host_calls.since(&self.host_calls),
            memory: state.bounds.memory(),
            log: state.written.take().unwrap_or_default(),
        }
    }
}

/// By [`Interface`]: its name in the contract.
const INTERFACES: [&str; 13] = [
    "request",
    "request-edits",
    "response",
    "response-edits",
    "connection-info",
    "tags",
    "buckets",
    "counters",
    "kv",
    "metrics",
    "random",
    "log",
    "clock",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_interface_and_from_where_one_begins() {
        let mut calls = HostCalls::default();
        calls.count(Interface::Kv);
        let before = calls;
        calls.count(Interface::Clock);
        calls.count(Interface::Request);
        calls.count(Interface::Clock);
        let since = calls.since(&before);
        assert_eq!(since.by_interface().collect::<Vec<_>>(), [("request", 1), ("clock", 2)]);
        assert_eq!(calls.by_interface().count(), 3);
    }
}
