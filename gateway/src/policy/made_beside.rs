//! Instances that the crew makes for a worker, since setting one up is slow: on their way from one thread to the other.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use super::attachment::Attachment;
use super::instance::Instance;

/// Where a worker finds what was made for it. It waits for no more than its slots have room for.
pub(super) struct Inbox {
    made: Mutex<Vec<Made>>,
    work: Arc<Notify>,
}

/// What has become of an instance that was to be made.
pub(super) struct Made {
    pub(super) attachment: Weak<Attachment>,
    /// None where it could not be made, or nobody had time for it.
    pub(super) instance: Option<Box<Instance>>,
}

/// An instance that a worker waits for. Whatever becomes of it, the worker hears of it.
pub(super) struct Awaited {
    attachment: Weak<Attachment>,
    pub(super) instance: Option<Box<Instance>>,
    inbox: Arc<Inbox>,
}

impl Inbox {
    /// Of a worker that is told by this when there is something to tend to.
    pub(super) fn new(work: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            made: Mutex::default(),
            work: Arc::clone(work),
        })
    }

    /// One that has come.
    pub(super) fn take(&self) -> Option<Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, made: Made) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        self.work.notify_one();
    }
}

impl Awaited {
    pub(super) fn of(attachment: &Arc<Attachment>, inbox: &Arc<Inbox>) -> Self {
        Self {
            attachment: Arc::downgrade(attachment),
            instance: None,
            inbox: Arc::clone(inbox),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.inbox.put(Made {
            attachment: std::mem::take(&mut self.attachment),
            instance: self.instance.take(),
        });
    }
}
