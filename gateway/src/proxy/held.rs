//! The server's side of an exchange while its response goes to the client.
//!
//! Mostly the response's body has it to itself. While a client of HTTP/1.1 has content to send yet, its connection has a hand in
//! it, too: hyper asks a body for more only when it has room for more, so a client that sends without reading would hold up what
//! it sends itself. And what the client sends yet when all of the answer has been handed over, hyper has no part in. Streams of
//! HTTP/2 see to both on their own.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use tokio::time::sleep_until;

use super::lease::Lease;
use super::rest::Rest;
use super::turns::{Late, Turns};

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
#[derive(Default)]
pub(super) struct Uploading {
    /// While its answer is on the way.
    beside: RefCell<Weak<RefCell<Option<Lease>>>>,
    /// Behind it.
    behind: RefCell<Option<Box<Rest>>>,
    /// Nobody has looked at one of them yet.
    is_new: Cell<bool>,
}

impl fmt::Debug for Uploading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploading").finish_non_exhaustive()
    }
}

impl Held {
    /// Does this with the lease; nothing when the exchange is over.
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Lease) -> R) -> Option<R> {
        match self {
            Self::Alone(lease) => Some(act(lease)),
            Self::Shared(shared) => shared.borrow_mut().as_mut().map(act),
            Self::Over => None,
        }
    }

    /// Whether the exchange goes on.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Alone(_) => true,
            Self::Shared(shared) => shared.borrow().is_some(),
            Self::Over => false,
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
        *self.beside.borrow_mut() = Rc::downgrade(&shared);
        self.is_new.set(true);
        Held::Shared(shared)
    }

    /// The answer has been produced whole, and this is left of the exchange.
    pub(super) fn go_on(&self, rest: Rest) {
        *self.behind.borrow_mut() = Some(Box::new(rest));
        self.is_new.set(true);
    }

    /// Whether there is something since this was last asked that nobody has looked at.
    pub(super) fn is_new(&self) -> bool {
        self.is_new.take()
    }

    /// Moves what the client sends yet along, if there is an exchange in which it does.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let shared = self.beside.borrow().upgrade();
        if let Some(shared) = shared
            && let Some(lease) = &mut *shared.borrow_mut()
        {
            lease.poll_request(cx);
        }
        let _ = self.poll_behind(cx);
    }

    /// Ready when nothing is left of an exchange whose answer has been produced.
    fn poll_behind(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut rest) = self.behind.take() else {
            return Poll::Ready(());
        };
        let polled = rest.poll(cx);
        if polled.is_pending() {
            *self.behind.borrow_mut() = Some(rest);
        }
        polled
    }

    /// Waits for the end of the exchange before.
    pub(super) async fn is_over(&self) {
        poll_fn(|cx| self.poll_behind(cx)).await;
    }

    /// Waits for the end of the exchange before while nothing more comes of the client, or until somebody is late.
    pub(super) async fn finish(&self, turns: &Turns) {
        let mut timer = pin!(sleep_until(turns.now()));
        poll_fn(|cx| {
            loop {
                let now = turns.tick();
                if self.poll_behind(cx).is_ready() {
                    return Poll::Ready(());
                }
                match turns.expire(now) {
                    None => {}
                    // What is left of the exchange sees it.
                    Some(Late::Server | Late::Body) => continue,
                    Some(_) => return Poll::Ready(()),
                }
                // Nobody is awaited who has no time.
                let Some(deadline) = turns.deadline() else {
                    return Poll::Pending;
                };
                timer.as_mut().reset(deadline);
                ready!(timer.as_mut().poll(cx));
            }
        })
        .await;
    }

    /// Whether there is nothing to wait for.
    pub(super) fn has_none_behind(&self) -> bool {
        self.behind.borrow().is_none()
    }

    /// The connection is over, and with it whatever was left.
    pub(super) fn give_up(&self) {
        if let Some(rest) = self.behind.take() {
            rest.give_up();
        }
    }
}
