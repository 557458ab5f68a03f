//! A worker's instances: what there is of them, and who has one next. How hooks of theirs are called is in `calls.rs`, how they are set up in
//! `set_up.rs`, and what is done with them between calls in `tend.rs`.

mod calls;
mod outcome;
mod set_up;
mod tend;

use std::sync::Arc;

use tokio::sync::Notify;

use super::attachment::Attachment;
use super::crew::Crew;
use super::facts::Facts;
use super::failure::Failure;
use super::host::Host;
use super::instance::Instance;
use super::made_beside::Inbox;
use super::meter::Measure;
use super::slot::Slot;
use super::ticker::Activity;
use super::warm::Warm;
use crate::config::Isolation;
pub(super) use outcome::QUARANTINED;

/// One worker's instances of all attachments. Calls are synchronous and bounded by the attachment's limits.
///
/// Who sees what an instance remembers is the attachment's [`Isolation`]. An instance that an exchange or a connection has
/// used is never used by another one; it is put aside, and made anew when the worker has time: see [`tend`](Self::tend).
///
/// After any failure the instance is gone with its store, and the next call makes another; no other instance is touched. Only one
/// whose answer the gateway has no room for stays, where more than one exchange uses it.
/// Set-ups that fail may take a tenth of a worker's time: beyond that, calls fail at once until there is time again.
/// Set-ups that succeed are never waited for: whoever makes a component trap would make everybody else wait. What does
/// nothing but fail is left alone for a while (`quarantine.rs`).
#[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
pub struct Instances {
    host: Arc<Host>,
    slots: Vec<Option<Slot>>,
    facts: Facts,
    /// There with the first instance.
    activity: Option<Activity>,
    /// Used up: to be dropped when there is time.
    spent: Vec<Box<Instance>>,
    /// Positions of slots that have fewer instances ready than they should.
    short: Vec<usize>,
    /// Notified when there is something to tend to.
    work: Arc<Notify>,
    /// Whether these are a crew's: what is made ahead here is for heavy plugins, and for no others.
    of_crew: bool,
    /// Who makes instances for these where that is slow, and what they make. None where nobody does.
    makers: Option<(Arc<Crew>, Arc<Inbox>)>,
    /// Whether calls are asked for now that no thread of the crew has had time for.
    instead_of_crew: bool,
    /// What calls have cost, where somebody wants to know.
    measures: Option<Vec<Measure>>,
}

impl Instances {
    /// No instances yet.
    #[must_use]
    pub fn new(host: &Arc<Host>) -> Self {
        Self {
            host: Arc::clone(host),
            slots: Vec::new(),
            facts: Facts::by(host.buckets().clock().clone()),
            measures: None,
            activity: None,
            spent: Vec::new(),
            short: Vec::new(),
            work: Arc::default(),
            of_crew: false,
            makers: None,
            instead_of_crew: false,
        }
    }

    /// No instances yet, of a worker: the crew makes those for it that it is slow to set up.
    #[must_use]
    pub fn of_worker(host: &Arc<Host>, crew: &Arc<Crew>) -> Self {
        let worker = Self::new(host);
        let inbox = Inbox::new(&worker.work);
        Self {
            makers: Some((Arc::clone(crew), inbox)),
            ..worker
        }
    }

    /// No instances yet, of a thread that calls heavy plugins.
    #[must_use]
    pub fn of_crew(host: &Arc<Host>) -> Self {
        Self {
            of_crew: true,
            ..Self::new(host)
        }
    }

    /// Makes an instance ahead of need. Does nothing when there is one, or none may be made ahead.
    ///
    /// # Errors
    /// As a call would fail; the next call tries again.
    pub fn warm(&mut self, attachment: &Arc<Attachment>) -> Result<(), Failure> {
        if let Some(instance) = self.warmed(attachment)? {
            self.receive_ready(attachment, instance);
        }
        Ok(())
    }

    /// An instance ahead of need; none when there is one, or none may be made ahead.
    pub(super) fn warmed(&mut self, attachment: &Arc<Attachment>) -> Result<Option<Box<Instance>>, Failure> {
        if !is_called_by(self.of_crew, attachment) {
            return Ok(None);
        }
        let is_for_one = !matches!(attachment.isolation, Isolation::Reuse { .. });
        let slot = slot(&mut self.slots, attachment);
        if !slot.is_empty() || !slot.is_short() || (is_for_one && attachment.budget.is_tight()) {
            return Ok(None);
        }
        self.set_up(attachment, true).map(Some)
    }

    /// Takes in what was made ahead for these.
    pub fn take_in(&mut self, warm: Warm) {
        for (attachment, instance) in warm.0 {
            self.receive_ready(&attachment, instance);
        }
    }

    fn receive_ready(&mut self, attachment: &Arc<Attachment>, instance: Box<Instance>) {
        let slot = slot(&mut self.slots, attachment);
        slot.put(instance);
        list(&mut self.short, slot, attachment);
    }

    /// Whether there is an instance for the next call. If not, and those of this attachment are made elsewhere, more of them are from
    /// now on.
    pub fn has_ready(&mut self, attachment: &Arc<Attachment>) -> bool {
        let slot = slot(&mut self.slots, attachment);
        if !slot.is_empty() {
            return true;
        }
        slot.grow();
        list(&mut self.short, slot, attachment);
        self.work.notify_one();
        false
    }

    /// What comes of a call that a crew should have made and has not. Whoever is the operator's and is slow without being declared
    /// heavy is called here; for all others it is a failure that says why, which is logged and counted.
    pub fn instead_of_crew<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        self.instead_of_crew = true;
        let asked = InsteadOfCrew(self);
        call(&mut *asked.0)
    }

    /// Told when there is something to [tend](Self::tend) to.
    #[must_use]
    pub fn work(&self) -> Arc<Notify> {
        Arc::clone(&self.work)
    }

    /// From now on what calls cost is noted. For tools.
    pub fn measure(&mut self) {
        self.measures = Some(Vec::new());
    }

    /// What calls have cost since this was last asked; nothing unless it is [measured](Self::measure).
    pub fn take_measures(&mut self) -> Vec<Measure> {
        self.measures.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Drops what is used up.
    pub(super) fn drop_spent(&mut self) {
        self.spent.clear();
    }

    /// Lets an attachment's instances go; the next call makes another. For benches.
    pub fn discard(&mut self, attachment: &Attachment) {
        if let Some(slot) = slot_of(&mut self.slots, attachment) {
            slot.clear();
        }
        self.spent.clear();
    }
}

/// While these are asked for what the crew has not done: however that ends, also by a defect of ours, they are not any more.
struct InsteadOfCrew<'a>(&'a mut Instances);

impl Drop for InsteadOfCrew<'_> {
    fn drop(&mut self) {
        self.0.instead_of_crew = false;
    }
}

/// Whether the crew, or else a worker, calls an attachment, as far as that is known ahead of its calls. What a worker has for calls that
/// the crew has no time for takes no room that the crew needs.
fn is_called_by(crew: bool, attachment: &Attachment) -> bool {
    match crew {
        true => attachment.is_heavy(),
        false => !attachment.is_heavy() || (attachment.is_never_refused && !attachment.budget.is_tight()),
    }
}

/// The slot of an attachment, made when it is not there yet.
fn slot<'a>(slots: &'a mut Vec<Option<Slot>>, attachment: &Arc<Attachment>) -> &'a mut Slot {
    let index = attachment.slot.index;
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    // Its position may have been another attachment's, which is gone.
    let place = &mut slots[index];
    if place.as_ref().is_some_and(|slot| slot.serial != attachment.slot.serial) {
        *place = None;
    }
    place.get_or_insert_with(|| Slot::new(attachment))
}

/// The slot of an attachment, if it is there.
#[inline]
fn slot_of<'a>(slots: &'a mut [Option<Slot>], attachment: &Attachment) -> Option<&'a mut Slot> {
    let slot = slots.get_mut(attachment.slot.index)?.as_mut()?;
    (slot.serial == attachment.slot.serial).then_some(slot)
}

/// Notes that a slot is to be filled up, if it is.
#[inline]
fn list(short: &mut Vec<usize>, slot: &mut Slot, attachment: &Attachment) {
    if slot.is_short() && !slot.is_listed {
        slot.is_listed = true;
        short.push(attachment.slot.index);
    }
}

/// Puts an instance aside for when there is time to drop it.
#[allow(clippy::vec_box, reason = "instances move from hand to hand: as pointers")]
fn put_aside(spent: &mut Vec<Box<Instance>>, instance: Box<Instance>) {
    if spent.len() < MAX_SPENT {
        spent.push(instance);
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// Used instances that may wait to be dropped. Each holds a place in the pool; a worker that has so many has no time to wait
/// for.
const MAX_SPENT: usize = 64;
