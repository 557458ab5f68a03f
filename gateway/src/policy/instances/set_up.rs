//! Setting instances up: when one is made, and what becomes of one that cannot be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::attachment::Attachment;
use super::super::budget::Lack;
use super::super::cpu::Work;
use super::super::failure::{Failure, FailureKind};
use super::super::hook::INSTANTIATE;
use super::super::instance::{Instance, SetUpError};
use super::super::made_beside::Made;
use super::super::meter::{HostCalls, Measure, Measuring};
use super::super::ticker::Activity;
use super::outcome::succeeded;
use super::{Instances, QUARANTINED, slot, slot_of};

impl Instances {
    /// An instance for somebody else, if it is still worth having ahead of need. One that cannot be made is reported.
    pub(in crate::policy) fn make_for_another(&mut self, attachment: &Arc<Attachment>) -> Option<Box<Instance>> {
        let is_wanted = !attachment.is_retired() && !attachment.would_refuse(INSTANTIATE.place);
        if !is_wanted || attachment.budget.is_tight() {
            return None;
        }
        self.set_up(attachment, false).ok()
    }

    /// What was to be made elsewhere is here, or has not been made: then the next upkeep has it tried again.
    pub(super) fn accept(&mut self, made: Made) {
        let Some(attachment) = made.attachment.upgrade() else {
            return;
        };
        if let Some(slot) = slot_of(&mut self.slots, &attachment) {
            slot.coming = slot.coming.saturating_sub(1);
            made.instance.into_iter().for_each(|instance| slot.add(instance));
        }
    }

    /// Makes an instance, unless too much time has been lost with that. The first, before anything is served, is timed whoever's it
    /// is.
    #[cold]
    pub(super) fn set_up(&mut self, attachment: &Arc<Attachment>, is_first: bool) -> Result<Box<Instance>, Failure> {
        let debt = slot(&mut self.slots, attachment).paid_back;
        let is_paced = attachment.measures_cpu || is_first || attachment.set_up_pace.is_watched();
        let work = Work::begin(is_paced || debt.is_some());
        let start = work.begun();
        if debt.is_some_and(|paid_back| paid_back > start + SET_UP_CREDIT) {
            let message = "failed too often; waits before it is set up again";
            return Err(self.refuse(attachment, INSTANTIATE, FailureKind::Instantiate, message));
        }
        if let Some(quarantine) = attachment.quarantine()
            && !quarantine.admits(INSTANTIATE.place)
        {
            return Err(self.refuse(attachment, INSTANTIATE, FailureKind::Quarantined, QUARANTINED));
        }
        let measuring = self.measures.is_some().then(|| Measuring::start(HostCalls::default()));
        let is_full = |made: &Result<_, (Failure, _)>| match made {
            Ok(_) => false,
            Err((failure, _)) => failure.kind == FailureKind::StoreFull,
        };
        let mut made = self.make(attachment);
        if is_full(&made) {
            // What nobody will use again makes room.
            self.give_back();
            made = self.make(attachment);
        }
        // And so does whoever asks for nothing: only that its client stays connected is no reason to have no place for others, or no
        // memory. Not for whoever has failed otherwise beside: a set-up that ran past its deadline is not begun again at once.
        if let Err((failure, Some(lack))) = &made
            && matches!(failure.kind, FailureKind::StoreFull | FailureKind::Memory)
            && attachment.budget.make_room(*lack, &self.host)
        {
            made = self.make(attachment);
        }
        let now = Instant::now();
        let took = work.done(now);
        if is_paced {
            attachment.keep_set_up_pace(took);
        }
        let slot = slot(&mut self.slots, attachment);
        if attachment.measures_cpu {
            slot.stats.count_cpu(took);
            attachment.budget.charge(now, took);
        }
        match made {
            Ok(mut instance) => {
                slot.stats.count_instantiation();
                if let (Some(measures), Some(measuring)) = (&mut self.measures, measuring) {
                    measures.push(measuring.end(Measure::SET_UP, instance.store.data_mut()));
                }
                succeeded(attachment, INSTANTIATE);
                Ok(instance)
            }
            Err((failure, _)) => {
                let owed = took * SET_UP_SHARE;
                slot.paid_back = Some(match debt {
                    Some(debt) => debt.max(start) + owed,
                    // The first may have been kept waiting: alone it keeps nobody from the next.
                    None => start + owed.min(SET_UP_CREDIT),
                });
                Err(self.report(attachment, INSTANTIATE, failure))
            }
        }
    }

    /// From now on the ticker sees calls that are made here.
    pub(super) fn begin_activity(&mut self) -> Result<&mut Activity, Failure> {
        match &mut self.activity {
            Some(activity) => Ok(activity),
            none => {
                // Whoever has an attachment has a machine: it was compiled on it.
                let activity = self.host.activity();
                let activity = activity.map_err(|error| unlike_the_first(error.to_string()))?;
                Ok(none.insert(activity))
            }
        }
    }

    /// The error says what it lacked, too, where others may hold that.
    fn make(&mut self, attachment: &Attachment) -> Result<Box<Instance>, (Failure, Option<Lack>)> {
        let Attachment {
            component,
            identity,
            limits,
            budget,
            ..
        } = attachment;
        let not_set_up = |error| match error {
            SetUpError::Failed(failure, lack) => (failure, lack),
            SetUpError::Mistyped(message) => (unlike_the_first(message), None),
            SetUpError::Refused(refused) => {
                let message = format!("refuses its configuration: {}", refused.message);
                (unlike_the_first(message), None)
            }
        };
        self.begin_activity().map_err(|failure| (failure, None))?;
        let Self {
            host,
            activity: Some(activity),
            ..
        } = self
        else {
            return Err((unlike_the_first("has nobody to tick for it".to_owned()), None));
        };
        let made = Instance::new(host, component, identity, *limits, budget, activity);
        let mut instance = made.map_err(not_set_up)?;
        let needs = instance
            .configure(&attachment.config, *limits, activity)
            .map_err(not_set_up)?;
        if attachment.configured != needs {
            return Err((
                unlike_the_first("asks for other attributes than before".to_owned()),
                None,
            ));
        }
        Ok(instance)
    }
}

fn unlike_the_first(message: String) -> Failure {
    Failure::new(FailureKind::Configure, "configure", message)
}

/// How much longer than it took a failed set-up is waited for: such set-ups take at most a tenth of a worker's time.
const SET_UP_SHARE: u32 = 10;

/// How far a worker may be behind with that: some hundred quick set-ups at once, so that a component whose set-up fails
/// now and then is there again at once.
const SET_UP_CREDIT: Duration = Duration::from_millis(100);
