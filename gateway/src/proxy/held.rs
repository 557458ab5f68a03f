//! The server's side of an exchange while its response goes to the client.
//!
//! Mostly the response's body has it to itself. While a client of HTTP/1.1 has content to send yet, its connection has a hand in
//! it, too: hyper asks a body for more only when it has room for more, so a client that sends without reading would hold up what
//! it sends itself. Streams of HTTP/2 see to that on their own.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::Context;

use super::upstream::Lease;

/// A lease, until the exchange is over.
pub(super) enum Held {
    /// By a body alone.
    Alone(Lease),
    /// By a body, and meanwhile lent to the client's connection.
    Shared(Rc<RefCell<Option<Lease>>>),
    /// The exchange is over.
    Over,
}

/// What the client sends yet in the exchange under way, for its connection to move along.
#[derive(Debug, Default)]
pub(super) struct Uploading(RefCell<Weak<RefCell<Option<Lease>>>>);

impl Held {
    /// Does this with the lease; nothing when the exchange is over.
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Lease) -> R) -> Option<R> {
        match self {
            Self::Alone(lease) => Some(act(lease)),
            Self::Shared(shared) => shared.borrow_mut().as_mut().map(act),
            Self::Over => None,
        }
    }

    /// The lease, when the exchange ends with this.
    pub(super) fn take(&mut self) -> Option<Lease> {
        match std::mem::replace(self, Self::Over) {
            Self::Alone(lease) => Some(lease),
            Self::Shared(shared) => shared.take(),
            Self::Over => None,
        }
    }
}

impl Uploading {
    /// Lends a lease, until whoever gets the answer lets go of it.
    pub(super) fn share(&self, lease: Lease) -> Held {
        let shared = Rc::new(RefCell::new(Some(lease)));
        *self.0.borrow_mut() = Rc::downgrade(&shared);
        Held::Shared(shared)
    }

    /// Moves what the client sends yet along, if there is an exchange in which it does.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let shared = self.0.borrow().upgrade();
        if let Some(shared) = shared
            && let Some(lease) = &mut *shared.borrow_mut()
        {
            lease.poll_request(cx);
        }
    }
}
