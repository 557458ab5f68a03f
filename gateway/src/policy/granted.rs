//! What an operator grants a plugin beside imports: backends that it may route to and call, and how much of a body it may see
//! at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config::{BackendId, DEFAULT_MAX_BODY};

/// What one use of a plugin was granted.
#[derive(Debug, Clone)]
pub struct Granted {
    /// Backends that it may route to, by name: those of `route-to "api"`, and those that its frontend's own rules lead to.
    pub routes: Vec<(Arc<str>, BackendId)>,
    /// `call "auth"`: backends that it may call.
    pub calls: Vec<CallGrant>,
    /// `limit body="64KiB"`: bytes of a body that are held for it.
    pub max_body: u64,
}

/// A backend that a plugin may call.
#[derive(Debug, Clone)]
pub struct CallGrant {
    /// The backend's name.
    pub name: Arc<str>,
    /// The backend.
    pub backend: BackendId,
    /// How long a whole answer may take.
    pub timeout: Duration,
    /// Calls that may be under way at once, over all workers and uses of the plugin.
    pub in_flight: InFlight,
    /// Bytes of an answer's body.
    pub max_body: u64,
}

/// Counts what is under way, up to a bound.
#[derive(Debug, Clone)]
pub struct InFlight {
    count: Arc<AtomicU32>,
    max: u32,
}

/// A place among what is under way.
#[must_use]
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl Default for Granted {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            calls: Vec::new(),
            max_body: DEFAULT_MAX_BODY,
        }
    }
}

impl Granted {
    /// The backend of this name, if requests may be routed to it.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<BackendId> {
        let granted = self.routes.iter().find(|(known, _)| **known == *name);
        granted.map(|(_, backend)| *backend)
    }

    /// The same with another bound of bodies.
    #[must_use]
    pub fn holding(self: Arc<Self>, max_body: u64) -> Arc<Self> {
        if self.max_body == max_body {
            return self;
        }
        Arc::new(Self {
            max_body,
            ..Self::clone(&self)
        })
    }

    /// The backend of this name, if it may be called.
    #[must_use]
    pub fn call(&self, name: &str) -> Option<&CallGrant> {
        self.calls.iter().find(|grant| *grant.name == *name)
    }
}

impl CallGrant {
    /// A place for a call; none when as many are under way as may be.
    pub fn enter(&self) -> Option<Place> {
        self.in_flight.enter()
    }
}

impl InFlight {
    /// None is under way.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            count: Arc::default(),
            max,
        }
    }

    /// As [`new`](Self::new), with what is under way of another one: of the same call before a reload.
    #[must_use]
    pub fn after(before: &Self, max: u32) -> Self {
        let count = Arc::clone(&before.count);
        Self { count, max }
    }

    /// A place for one more; none when as many are under way as may be.
    pub fn enter(&self) -> Option<Place> {
        let fits = |count: u32| (count < self.max).then_some(count + 1);
        let taken = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.ok().map(|_| Place(Arc::clone(&self.count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let in_flight = InFlight::new(1);
        let place = in_flight.enter();
        assert!(place.is_some());
        assert!(in_flight.clone().enter().is_none());
        let after = InFlight::after(&in_flight, 2);
        let another = after.enter();
        assert!(another.is_some() && after.enter().is_none());
        drop(another);
        drop(place);
        assert!(in_flight.enter().is_some());
    }
}
