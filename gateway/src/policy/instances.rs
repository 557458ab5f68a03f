//! A worker's instances, and the calls of their hooks.

mod set_up;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use wasmtime::Store;

use super::attachment::Attachment;
use super::bindings::gateway::policy::types;
use super::crew::Crew;
use super::edits::Edits;
use super::facts::Facts;
use super::failure::{Failure, FailureKind, Untaken};
use super::hook::{Hook, INSTANTIATE};
use super::host::Host;
use super::instance::{Guests, Instance, failure};
use super::kept::with_connection;
use super::made_beside::{Awaited, Inbox};
use super::memo::{Recalled, Repeatable};
use super::meter::{Measure, Measuring};
use super::pace::Took;
use super::quarantine::Change;
use super::slot::Slot;
use super::state::{Phase, State, thread_cpu_time};
use super::stats::WorkerStats;
use super::subject::Subject;
use super::ticker::Activity;
use super::warm::Warm;
use crate::config::Isolation;

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

    /// Calls a hook under the attachment's limits. What it is about is in the store while it runs. `finish` makes of its answer
    /// and its edits what the call comes to, or says what the contract does not allow in them.
    #[inline]
    pub(super) fn call<R, T>(
        &mut self,
        attachment: &Arc<Attachment>,
        subject: Subject<'_>,
        hook: Hook,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, &mut Edits, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        let start = self.admit(attachment, hook)?;
        subject.find((hook.needs)(&attachment.needs), &mut self.facts);
        self.call_with_facts(attachment, subject, hook, start, call, finish)
    }

    /// As [`call`](Self::call), unless the answer is known.
    #[inline]
    pub(super) fn call_or_recall<R: Repeatable, T>(
        &mut self,
        attachment: &Arc<Attachment>,
        mut subject: Subject<'_>,
        hook: Hook,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, &mut Edits, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        if !attachment.is_repeatable {
            return self.call(attachment, subject, hook, call, finish);
        }
        let start = self.admit(attachment, hook)?;
        subject.find((hook.needs)(&attachment.needs), &mut self.facts);
        let most = self.host.settings().answers;
        let slot = slot(&mut self.slots, attachment);
        let place = match slot.memo.recall(hook.bit, &self.facts, most) {
            Recalled::Known(said) => match R::again(said) {
                Some((answer, mut edits)) => {
                    slot.stats.count_call();
                    slot.stats.count_repeat();
                    return finish(answer, &mut edits, &mut subject).map_err(|untaken| untaken.failure(hook.name));
                }
                None => None,
            },
            Recalled::Asked(place) => Some(place),
            Recalled::Unknown => None,
        };
        let mut said = None;
        let answer = self.call_with_facts(attachment, subject, hook, start, call, |answer, edits, subject| {
            said = place.and_then(|place| Some((place, answer.said(edits)?)));
            finish(answer, edits, subject)
        })?;
        if let (Some((place, said)), Some(slot)) = (said, slot_of(&mut self.slots, attachment)) {
            slot.memo.keep(place, &self.facts, said);
        }
        Ok(answer)
    }

    /// Whether a call may be made, and when it begins, where that counts.
    #[inline]
    fn admit(&mut self, attachment: &Arc<Attachment>, hook: Hook) -> Result<Option<Instant>, Failure> {
        if self.instead_of_crew && !attachment.is_never_refused {
            return Err(self.refuse_heavy(attachment, hook));
        }
        if let Some(quarantine) = attachment.quarantine()
            && !quarantine.admits(hook.place)
        {
            return Err(self.refuse(attachment, hook, FailureKind::Quarantined, QUARANTINED));
        }
        let start = attachment.measures_cpu.then(Instant::now);
        if let Some(start) = start
            && let Err(message) = attachment.budget.admit(start)
        {
            return Err(self.refuse(attachment, hook, FailureKind::Quota, &message));
        }
        Ok(start)
    }

    /// Why a heavy plugin was not called elsewhere.
    #[cold]
    fn refuse_heavy(&mut self, attachment: &Arc<Attachment>, hook: Hook) -> Failure {
        if attachment.would_refuse(hook.place) {
            return self.refuse(attachment, hook, FailureKind::Quarantined, QUARANTINED);
        }
        match attachment.budget.admit(Instant::now()) {
            Ok(()) => self.refuse(attachment, hook, FailureKind::Quota, NO_THREAD),
            Err(message) => self.refuse(attachment, hook, FailureKind::Quota, &message),
        }
    }

    /// The call itself, which has been admitted and whose facts have been found.
    #[inline]
    fn call_with_facts<R, T>(
        &mut self,
        attachment: &Arc<Attachment>,
        mut subject: Subject<'_>,
        hook: Hook,
        mut start: Option<Instant>,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, &mut Edits, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        let mut instance = match self.take(attachment, &mut subject) {
            Some(instance) => {
                if slot_of(&mut self.slots, attachment).is_none() || self.activity.is_none() {
                    self.receive(attachment, hook)?;
                }
                instance
            }
            None => {
                let instance = self.set_up(attachment, false)?;
                // That has been charged already.
                start = attachment.measures_cpu.then(Instant::now);
                instance
            }
        };
        let Self {
            slots,
            facts,
            activity,
            measures,
            ..
        } = self;
        let (Some(activity), Some(slot)) = (activity, slot_of(slots, attachment)) else {
            return Err(hook.failed("has no instance"));
        };
        slot.stats.count_call();
        if facts.bytes() > MAX_FACT_BYTES {
            let message = format!(
                "wants {} bytes of attributes; at most {MAX_FACT_BYTES} are handed over",
                facts.bytes()
            );
            self.put(attachment, instance, &mut subject, hook);
            return Err(self.refuse(attachment, hook, FailureKind::HostCall, &message));
        }
        let Instance { store, guests, .. } = &mut *instance;
        let state = store.data_mut();
        state.begin(hook.phase, attachment.limits.cpu);
        subject.swap(state);
        let measuring = measures.is_some().then(|| {
            state.written = Some(Vec::new());
            Measuring::start(state.host_calls)
        });
        store.set_epoch_deadline(1);
        let watched = attachment.pace.is_watched().then(thread_cpu_time);
        activity.begin();
        let answer = call(guests, store, facts.lowered());
        activity.end();
        let state = store.data_mut();
        if let (Some(measures), Some(measuring)) = (measures, measuring) {
            measures.push(measuring.end(hook.name, state));
        }
        subject.swap(state);
        state.phase = Phase::Setup;
        // Of those whose calls are not timed, what no tick has met counts for nothing.
        let mut took = Took::exactly(state.cpu.at_least());
        if let Some(since) = watched {
            took = Took::exactly(thread_cpu_time().saturating_sub(since));
        }
        if let Some(start) = start {
            let now = Instant::now();
            let by_the_wall = now.saturating_duration_since(start);
            let used = match watched {
                Some(_) => took.at_most,
                None => state.cpu.used(by_the_wall),
            };
            if watched.is_none() {
                took.at_most = by_the_wall;
            }
            slot.stats.count_cpu(used);
            attachment.budget.charge(now, used);
        }
        attachment.keep_pace(hook, took);
        let failure = match answer {
            Some(Ok(answer)) => {
                let held = attachment.hold_so_much(state.edits.bytes());
                let finished = match held {
                    Ok(held) => {
                        let finished = finish(answer, &mut state.edits, &mut subject);
                        // Edits that are not made are gone, and so is what they took.
                        if finished.is_ok()
                            && let Some(held) = held
                        {
                            subject.hold(held);
                        }
                        finished
                    }
                    Err(full) => Err(full.into()),
                };
                match finished {
                    Ok(answer) => {
                        if !state.tags.is_empty() {
                            let tags = std::mem::take(&mut state.tags);
                            if !attachment.is_shadow() {
                                subject.tag(tags, attachment);
                            }
                        }
                        succeeded(attachment, hook);
                        self.put(attachment, instance, &mut subject, hook);
                        return Ok(answer);
                    }
                    Err(untaken) => {
                        let is_full = matches!(untaken, Untaken::Full(_));
                        let failure = untaken.failure(hook.name);
                        if is_full && !matches!(attachment.isolation, Isolation::PerRequest { .. }) {
                            // It has worked, and nothing of it is taken. Setting another up for each call until there is room again
                            // would cost more than the calls.
                            state.edits.clear();
                            drop(std::mem::take(&mut state.tags));
                            self.put(attachment, instance, &mut subject, hook);
                            return Err(self.report(attachment, hook, failure));
                        }
                        failure
                    }
                }
            }
            Some(Err(error)) => failure(state, &error, FailureKind::Trap, hook.name),
            None => hook.failed("is not exported by the component"),
        };
        drop(instance);
        Err(self.report(attachment, hook, failure))
    }

    /// The instance that a call gets; none when it has to be made.
    #[inline]
    fn take(&mut self, attachment: &Arc<Attachment>, subject: &mut Subject<'_>) -> Option<Box<Instance>> {
        subject
            .kept(attachment)
            .or_else(|| slot_of(&mut self.slots, attachment).and_then(Slot::take))
    }

    /// Where an instance goes after a call that succeeded.
    #[inline]
    fn put(
        &mut self,
        attachment: &Arc<Attachment>,
        mut instance: Box<Instance>,
        subject: &mut Subject<'_>,
        hook: Hook,
    ) {
        let Some(slot) = slot_of(&mut self.slots, attachment) else {
            return;
        };
        match (attachment.isolation, subject) {
            (Isolation::Reuse { max_requests, max_age }, subject) => {
                // Pieces of a body are of a request that has been counted.
                if attachment.begins_with(hook.bit) && !matches!(subject, Subject::Body(_)) {
                    instance.requests += 1;
                }
                if max_age.is_some() && instance.first_used.is_none() {
                    instance.first_used = Some(Instant::now());
                }
                match max_requests {
                    Some(most) if instance.requests >= most.get() => put_aside(&mut self.spent, instance),
                    _ => slot.put(instance),
                }
            }
            (Isolation::PerRequest { .. }, Subject::Exchange(exchange)) if !attachment.ends_with(hook.bit) => {
                // None is there: one exchange is in one phase at a time.
                let second = exchange.kept.put(attachment, instance);
                second.into_iter().for_each(|second| put_aside(&mut self.spent, second));
            }
            (Isolation::PerConnection { .. }, Subject::Exchange(exchange)) if exchange.kept_by_connection.is_some() => {
                if let Some(kept) = &exchange.kept_by_connection {
                    attachment.budget.resting.note(&attachment.budget, &mut instance, kept);
                    let second = with_connection(kept, |kept| kept.put(attachment, instance));
                    second.into_iter().for_each(|second| put_aside(&mut self.spent, second));
                }
            }
            (_, Subject::Body(body)) if !body.is_last => body.instance = Some(instance),
            // A connection is asked about once; a request has come to its last phase, and a body to its end.
            (Isolation::PerRequest { .. } | Isolation::PerConnection { .. }, _) => put_aside(&mut self.spent, instance),
        }
        list(&mut self.short, slot, attachment);
        if !self.spent.is_empty() || !self.short.is_empty() {
            self.work.notify_one();
        }
    }

    /// The first instance of an attachment that comes to these was made by others: the worker whose exchange it goes with, or the
    /// crew.
    #[cold]
    fn receive(&mut self, attachment: &Arc<Attachment>, hook: Hook) -> Result<(), Failure> {
        slot(&mut self.slots, attachment);
        if let Err(failure) = self.begin_activity() {
            return Err(self.refuse(attachment, hook, failure.kind, &failure.message));
        }
        Ok(())
    }

    /// No call is made.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        attachment: &Arc<Attachment>,
        hook: Hook,
        kind: FailureKind,
        message: &str,
    ) -> Failure {
        let failure = Failure::new(kind, hook.name, message.to_owned());
        self.report(attachment, hook, failure)
    }

    /// Counts and logs a failure, whose message may be the guest's.
    #[cold]
    fn report(&mut self, attachment: &Arc<Attachment>, hook: Hook, failure: Failure) -> Failure {
        let stats = &slot(&mut self.slots, attachment).stats;
        report(attachment, stats, hook, failure)
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

/// Notes that a hook works, which ends its quarantine.
#[inline]
fn succeeded(attachment: &Attachment, hook: Hook) {
    if let Some(quarantine) = attachment.quarantine()
        && quarantine.succeeded(hook.place) == Change::Ends
    {
        tracing::info!(
            plugin = attachment.label(),
            tenant = attachment.tenant(),
            hook = hook.name,
            "works again: the quarantine has ended"
        );
    }
}

/// Counts and logs a failure, whose message may be the guest's.
#[cold]
fn report(attachment: &Attachment, stats: &WorkerStats, hook: Hook, failure: Failure) -> Failure {
    let failure = failure.in_one_line();
    stats.count_failure(failure.kind);
    if let Some(quarantine) = attachment.quarantine()
        && failure.kind.is_the_components()
        && let Change::Begins(wait) = quarantine.failed(hook.place)
    {
        tracing::warn!(
            plugin = attachment.label(),
            tenant = attachment.tenant(),
            hook = failure.hook,
            kind = %failure.kind,
            at = attachment.origin().map(|origin| tracing::field::display(format!("{}:{}", origin.file, origin.line))),
            "in quarantine for {wait:?}: it has done nothing but fail",
        );
    }
    // That a quarantine has begun is said once.
    if failure.kind != FailureKind::Quarantined
        && let Some(dropped) = attachment.takes_failure_line()
    {
        let (plugin, tenant) = (attachment.label(), attachment.tenant());
        let Failure {
            kind, hook, message, ..
        } = &failure;
        match attachment.origin() {
            Some(origin) => {
                let at = format_args!("{}:{}", origin.file, origin.line);
                tracing::warn!(plugin, tenant, hook, %kind, %at, dropped, "{message}");
            }
            None => tracing::warn!(plugin, tenant, hook, %kind, dropped, "{message}"),
        }
    }
    failure
}

/// Bytes of all facts of one call. Copying them into the guest is work that no deadline bounds.
const MAX_FACT_BYTES: usize = 1024 * 1024;

const NO_THREAD: &str = "is heavy or slow, and no thread has had time for it: as many calls wait as `heavy queue=` says, or this one has as long as `wait=` says";

pub(super) const QUARANTINED: &str = "is in quarantine: it has failed too often";

/// Used instances that may wait to be dropped. Each holds a place in the pool; a worker that has so many has no time to wait
/// for.
const MAX_SPENT: usize = 64;
