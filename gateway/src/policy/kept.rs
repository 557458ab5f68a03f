//! Instances that are kept for those who have used them: for the later phases of one exchange, or for the later requests of
//! one connection.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::attachment::Attachment;
use super::instance::Instance;
use super::resting::Place;

/// The instances of one exchange or connection, one per use of a plugin. They go with it.
#[derive(Default)]
pub struct Kept(Vec<KeptInstance>);

/// The instances of one connection. Its streams use them in turn, each for the length of a call.
pub type KeptByConnection = Arc<Mutex<Kept>>;

struct KeptInstance {
    attachment: Weak<Attachment>,
    instance: Box<Instance>,
}

impl Kept {
    /// The instance of an attachment, if one is kept here.
    pub(super) fn take(&mut self, attachment: &Arc<Attachment>) -> Option<Box<Instance>> {
        let position = self
            .0
            .iter()
            .position(|kept| std::ptr::eq(kept.attachment.as_ptr(), Arc::as_ptr(attachment)))?;
        Some(self.0.swap_remove(position).instance)
    }

    /// The instance that has this place, if it is not in use.
    pub(super) fn take_from(&mut self, place: &Arc<Place>) -> Option<Box<Instance>> {
        let has_it = |kept: &KeptInstance| kept.instance.place.as_ref().is_some_and(|of| Arc::ptr_eq(of, place));
        let position = self.0.iter().position(has_it)?;
        Some(self.0.swap_remove(position).instance)
    }

    /// Whether one is kept here of an attachment.
    pub(super) fn has(&self, attachment: &Attachment) -> bool {
        let is_of = |kept: &KeptInstance| std::ptr::eq(kept.attachment.as_ptr(), attachment);
        self.0.iter().any(is_of)
    }

    /// Keeps an instance. Those of attachments that are gone, since the configuration was replaced, are given back. One of an attachment is
    /// enough: requests of one connection that are called about at once beside the workers leave one each, and all but the first that
    /// is put here come back.
    pub(super) fn put(&mut self, attachment: &Arc<Attachment>, instance: Box<Instance>) -> Option<Box<Instance>> {
        self.0.retain(|kept| kept.attachment.strong_count() > 0);
        if self.has(attachment) {
            return Some(instance);
        }
        self.0.push(KeptInstance {
            attachment: Arc::downgrade(attachment),
            instance,
        });
        None
    }
}

/// What a connection keeps, for the length of one step.
pub(super) fn with_connection<T>(kept: &KeptByConnection, step: impl FnOnce(&mut Kept) -> T) -> T {
    step(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instances", self.0.len())
    }
}
