//! Calls of hooks: whether one may be made, with which instance, and where that goes then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;

use super::super::attachment::Attachment;
use super::super::bindings::gateway::policy::types;
use super::super::cpu::thread_cpu_time;
use super::super::edits::Made;
use super::super::facts::MAX_FACT_BYTES;
use super::super::failure::{Failure, FailureKind, Untaken};
use super::super::hook::Hook;
use super::super::instance::{Guests, Instance, failure};
use super::super::kept::with_connection;
use super::super::memo::{Recalled, Repeatable};
use super::super::meter::Measuring;
use super::super::pace::Took;
use super::super::slot::Slot;
use super::super::state::{Phase, State};
use super::super::stats::WorkerStats;
use super::super::subject::Subject;
use super::super::ticker::TICK;
use super::outcome::succeeded;
use super::{Instances, QUARANTINED, list, put_aside, slot, slot_of};
use crate::config::Isolation;

impl Instances {
    /// Calls a hook under the attachment's limits. What it is about is in the store while it runs. `finish` makes of its answer
    /// and its edits what the call comes to, or says what the contract does not allow in them.
    #[inline]
    pub(in crate::policy) fn call<R, T>(
        &mut self,
        attachment: &Arc<Attachment>,
        subject: Subject<'_>,
        hook: Hook,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, Made<'_>, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        let begun = self.admit(attachment, hook)?;
        subject.find((hook.needs)(&attachment.needs), &mut self.facts);
        self.call_with_facts(attachment, subject, hook, begun, call, |answer, state, subject| {
            finish(answer, Made::Once(&mut state.edits), subject)
        })
    }

    /// As [`call`](Self::call), unless the answer is known.
    #[inline]
    pub(in crate::policy) fn call_or_recall<R: Repeatable, T>(
        &mut self,
        attachment: &Arc<Attachment>,
        mut subject: Subject<'_>,
        hook: Hook,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, Made<'_>, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        if !attachment.is_repeatable {
            return self.call(attachment, subject, hook, call, finish);
        }
        let begun = self.admit(attachment, hook)?;
        subject.find((hook.needs)(&attachment.needs), &mut self.facts);
        let most = self.host.settings().answers;
        let slot = slot(&mut self.slots, attachment);
        let place = match slot.memo.recall(hook.bit, &self.facts, most) {
            Recalled::Known(said) => match R::again(said, self.host.buckets()) {
                Some((answer, edits)) => {
                    slot.stats.count_call();
                    slot.stats.count_repeat();
                    begun.ends_without_guest(attachment, &slot.stats, hook);
                    return finish(answer, edits, &mut subject).map_err(|untaken| untaken.failure(hook.name));
                }
                None => None,
            },
            Recalled::Asked(place) => Some(place),
            Recalled::Unknown => None,
        };
        let mut said = None;
        let answer = self.call_with_facts(attachment, subject, hook, begun, call, |answer, state, subject| {
            said = place.and_then(|place| Some((place, answer.said(&state.edits, &state.takings)?)));
            finish(answer, Made::Once(&mut state.edits), subject)
        })?;
        if let (Some((place, said)), Some(slot)) = (said, slot_of(&mut self.slots, attachment)) {
            slot.memo.keep(place, hook.bit, &self.facts, said);
        }
        Ok(answer)
    }

    /// Whether a call may be made, and when it begins, where that counts.
    #[inline]
    fn admit(&mut self, attachment: &Arc<Attachment>, hook: Hook) -> Result<Begun, Failure> {
        if self.instead_of_crew && !attachment.is_never_refused {
            return Err(self.refuse_heavy(attachment, hook));
        }
        if let Some(quarantine) = attachment.quarantine()
            && !quarantine.admits(hook.place)
        {
            return Err(self.refuse(attachment, hook, FailureKind::Quarantined, QUARANTINED));
        }
        let begun = Begun::now(attachment);
        if let Some(now) = begun.wall
            && let Err(message) = attachment.budget.admit(now)
        {
            return Err(self.refuse(attachment, hook, FailureKind::Quota, &message));
        }
        Ok(begun)
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
        mut begun: Begun,
        call: impl FnOnce(&Guests, &mut Store<State>, types::Facts<'_>) -> Option<wasmtime::Result<R>>,
        finish: impl FnOnce(R, &mut State, &mut Subject<'_>) -> Result<T, Untaken>,
    ) -> Result<T, Failure> {
        let mut instance = match self.take(attachment, &mut subject) {
            Some(instance) => {
                if slot_of(&mut self.slots, attachment).is_none() || self.activity.is_none() {
                    self.receive(attachment, hook)?;
                }
                instance
            }
            None => {
                let before = Begun::now(attachment);
                let instance = self.set_up(attachment, false)?;
                // That has been charged already.
                begun = begun.without(before);
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
        if facts.are_too_many() {
            let message = format!("wants more than {MAX_FACT_BYTES} bytes of attributes, as many as are handed over");
            begun.ends_without_guest(attachment, &slot.stats, hook);
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
        activity.begin();
        let answer = call(guests, store, facts.lowered());
        activity.end();
        let state = store.data_mut();
        if let (Some(measures), Some(measuring)) = (measures, measuring) {
            measures.push(measuring.end(hook.name, state));
        }
        subject.swap(state);
        state.phase = Phase::Setup;
        // What its answer comes to is a part of the call: edits of a head that others have made large take as long as they take.
        let made_since = begun.wall.map(|_| Instant::now());
        let finished = match answer {
            Some(Ok(answer)) => Ok(match attachment.hold_so_much(state.edits.held()) {
                Ok(held) => {
                    let finished = finish(answer, state, &mut subject);
                    // Edits that are not made are gone, and so is what they took.
                    if finished.is_ok()
                        && let Some(held) = held
                    {
                        subject.hold(held);
                    }
                    finished
                }
                Err(full) => Err(full.into()),
            }),
            Some(Err(error)) => Err(failure(state, &error, FailureKind::Trap, hook.name)),
            None => Err(hook.failed("is not exported by the component")),
        };
        // Of those whose calls are not timed, what no tick has met counts for nothing.
        let mut took = Took::exactly(state.cpu.at_least());
        if let Some(since) = begun.cpu {
            took = Took::exactly(thread_cpu_time().saturating_sub(since));
        }
        if let Some(start) = begun.wall {
            let now = Instant::now();
            let by_the_wall = now.saturating_duration_since(start);
            let used = match begun.cpu {
                Some(_) => took.at_most,
                // What the gateway makes of the answer no tick meets.
                None => {
                    let making = made_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                    state.cpu.used(by_the_wall.saturating_sub(making)) + making
                }
            };
            if begun.cpu.is_none() {
                took.at_most = by_the_wall;
            }
            slot.stats.count_cpu(used);
            attachment.budget.charge(now, used);
        }
        attachment.keep_pace(hook, took);
        let failure = match finished {
            Ok(Ok(answer)) => {
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
            Ok(Err(untaken)) => {
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
            Err(failure) => failure,
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
}

/// When a call began, by the clocks that are looked at for it. Finding its facts is a part of it: a component may ask for much that takes
/// long to look for and is not there, and no deadline bounds that.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Where CPU time is measured.
    wall: Option<Instant>,
    /// CPU time of the thread, where calls are watched.
    cpu: Option<Duration>,
}

impl Begun {
    #[inline]
    fn now(attachment: &Attachment) -> Self {
        Self {
            wall: attachment.measures_cpu.then(Instant::now),
            cpu: attachment.pace.is_watched().then(thread_cpu_time),
        }
    }

    /// A call is over for which no guest was called: what its facts took is charged, and weighed, as with one.
    fn ends_without_guest(self, attachment: &Attachment, stats: &WorkerStats, hook: Hook) {
        let (now, cpu) = match (self.wall, self.cpu) {
            // Nobody wants to know.
            (None, None) => return,
            (_, since) => (
                Instant::now(),
                since.map(|since| thread_cpu_time().saturating_sub(since)),
            ),
        };
        let by_the_wall = self.wall.map(|start| now.saturating_duration_since(start));
        let took = Took {
            at_least: cpu.unwrap_or_default(),
            at_most: cpu.or(by_the_wall).unwrap_or_default(),
        };
        if let Some(by_the_wall) = by_the_wall {
            // As of a guest that has seen no tick go by.
            let used = cpu.unwrap_or(by_the_wall.min(TICK));
            stats.count_cpu(used);
            attachment.budget.charge(now, used);
        }
        attachment.keep_pace(hook, took);
    }

    /// As if what was done since then had taken no time. What was not measured by the thread's clock throughout is not.
    fn without(self, since: Self) -> Self {
        let wall = |(begun, since): (Instant, Instant)| begun + since.elapsed();
        let cpu = |(begun, since): (Duration, Duration)| begun + thread_cpu_time().saturating_sub(since);
        Self {
            wall: self.wall.zip(since.wall).map(wall),
            cpu: self.cpu.zip(since.cpu).map(cpu),
        }
    }
}

const NO_THREAD: &str = "is heavy or slow, and no thread has had time for it: as many calls wait as `heavy queue=` says, or this one has as long as `wait=` says";
