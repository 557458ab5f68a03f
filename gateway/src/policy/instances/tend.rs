//! What can wait until the worker has time: making instances ahead of need, and giving up what is used up, too old, or nobody's any more.

use std::time::Instant;

use super::super::hook::INSTANTIATE;
use super::super::made_beside::Awaited;
use super::{Instances, MAX_SPENT, is_called_by, list, slot_of};
use crate::config::Isolation;

impl Instances {
    /// Does one piece of what can wait: drops a used instance, or makes one ahead of need. Answers whether there may be more. To
    /// be called when the worker has nothing better to do, or is about to.
    pub fn tend(&mut self) -> bool {
        if let Some(instance) = self.spent.pop() {
            drop(instance);
            return true;
        }
        if let Some(made) = self.makers.as_ref().and_then(|(_, inbox)| inbox.take()) {
            self.accept(made);
            return true;
        }
        let Some(index) = self.short.pop() else { return false };
        let Some(Some(slot)) = self.slots.get_mut(index) else {
            return true;
        };
        slot.is_listed = false;
        let Some(attachment) = slot.attachment.upgrade() else {
            return true;
        };
        let is_wanted = slot.is_short() && !attachment.would_refuse(INSTANTIATE.place);
        if !is_wanted || !is_called_by(self.of_crew, &attachment) || attachment.budget.is_tight() {
            return true;
        }
        if attachment.is_set_up_beside()
            && let Some((crew, inbox)) = &self.makers
            && let Some(slot) = slot_of(&mut self.slots, &attachment)
        {
            // All at once: what finds no place in the queue is asked for again by the next call or upkeep, and not before.
            while slot.is_short() {
                slot.coming += 1;
                crew.make(&attachment, Awaited::of(&attachment, inbox));
            }
            return true;
        }
        // One that cannot be made is reported; the next call tries again.
        if let Ok(instance) = self.set_up(&attachment, false)
            && let Some(slot) = slot_of(&mut self.slots, &attachment)
        {
            slot.add(instance);
            list(&mut self.short, slot, &attachment);
        }
        true
    }

    /// Regular upkeep, several times a second: what is too old or was made for a rush that is over is put aside, and so are the
    /// instances of attachments that are gone.
    pub fn upkeep(&mut self) {
        self.sweep();
        let now = Instant::now();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let Some(attachment) = slot.attachment.upgrade() else {
                continue;
            };
            if attachment.is_retired() {
                // Connections on which nothing comes keep their configuration alive, and with it all that lies ready for them.
                match attachment.isolation {
                    Isolation::Reuse { .. } => slot.wind_down(now, &mut self.spent),
                    Isolation::PerRequest { .. } | Isolation::PerConnection { .. } => {
                        slot.put_aside(&mut self.spent);
                        attachment.budget.resting.take_all(MAX_SPENT, &mut self.spent);
                    }
                }
                continue;
            }
            if !is_called_by(self.of_crew, &attachment) {
                // Whoever makes its calls now has instances of his own.
                slot.put_aside(&mut self.spent);
                continue;
            }
            slot.upkeep(now, &mut self.spent);
            if slot.is_short() && !slot.is_listed {
                slot.is_listed = true;
                self.short.push(index);
            }
        }
        if !self.spent.is_empty() || !self.short.is_empty() {
            self.work.notify_one();
        }
    }

    /// Gives back the instances of attachments that are gone. To be called after a configuration was replaced and its
    /// last exchange has ended; until then they only take up room in the pool.
    pub fn sweep(&mut self) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|slot| slot.attachment.strong_count() == 0) {
                *slot = None;
            }
        }
    }

    /// Gives back what nobody will use again, to make room.
    pub fn give_back(&mut self) {
        self.spent.clear();
        self.sweep();
    }
}
