//! What is over and waits until components are told of it (the hook `on-log`), on one worker: exchanges, and connections of TCP mode.
//!
//! There is room for so many. Half of it is kept for the owners of the configuration that serves, in equal parts; the other half has who
//! comes first. So whoever is told slowly, or of much, leaves all others theirs. What finds no room is left out for this owner alone:
//! its components are not told, which is counted and logged as theirs, and those of others are.
//!
//! What components of several owners are told of waits for one owner after the other, in the order of their components. Owners take turns by
//! the time that telling takes ([`Lanes`]).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::attachment::Attachment;
use super::exchange::Exchange;
use super::host_memory::HostMemory;
use super::lanes::{Lanes, Threads, Turn};
use super::owner::Owner;

/// What waits to be told, by whose components are told next.
#[derive(Default)]
pub struct LogQueue {
    lanes: Lanes<ToTell>,
    room: Room,
}

/// An exchange that is over, and the components that are told of it.
pub struct ToTell {
    exchange: Box<Exchange>,
    told: Told,
}

/// The components that are told of an exchange, and how far that is.
pub struct Told {
    plugins: Arc<[Arc<Attachment>]>,
    /// Those that are told now: of one owner.
    now: Range<usize>,
    /// What the heads take that wait for them, where that is much.
    heads: Option<HostMemory>,
}

/// A turn of one owner's.
#[must_use]
pub struct LogTurn(Turn);

/// How many there are of whose.
#[derive(Debug, Default)]
struct Room {
    owners: HashMap<Owner, Share>,
    /// In all.
    waiting: usize,
    /// What each owner has of the half that is kept.
    part: usize,
    /// What is kept and nobody has.
    free: usize,
}

#[derive(Debug, Default)]
struct Share {
    waiting: usize,
    /// Whether it has a part that is kept for it.
    is_kept: bool,
}

impl LogQueue {
    /// From now on the owners of these have their parts, and nobody else.
    pub fn keep_for<'a>(&mut self, attachments: impl Iterator<Item = &'a Arc<Attachment>>) {
        self.room.keep_for(attachments.map(|attachment| attachment.owner()));
    }

    /// Has something wait for the next owner whose components take part in it, for whom there is room, and for whom the gateway may hold
    /// its heads. Answers whether there is one.
    pub fn push(&mut self, mut over: ToTell) -> bool {
        while let Some(owner) = over.goes_on() {
            if over.is_held() && self.room.take(&owner) {
                self.lanes.push(owner, over, |_| true);
                return true;
            }
            over.is_left_out();
        }
        false
    }

    /// Whose turn it is, and what waits there longest. Whoever has it says how it [ended](Self::end).
    pub fn take(&mut self) -> Option<(LogTurn, ToTell)> {
        let (turn, over) = self.lanes.take(Threads::OfOne, Some)?;
        self.room.give_back(turn.owner());
        Some((LogTurn(turn), over))
    }

    /// A turn is over, and took so long.
    pub fn end(&mut self, turn: &LogTurn, took: Duration) {
        self.lanes.end(&turn.0, took);
    }
}

impl ToTell {
    /// Nobody has been told yet. The components are told in order.
    #[must_use]
    pub fn new(exchange: Box<Exchange>, plugins: Arc<[Arc<Attachment>]>) -> Self {
        Self {
            exchange,
            told: Told {
                plugins,
                now: 0..0,
                heads: None,
            },
        }
    }

    /// What it is, and the components that are told now. Among them may be some that take no part in it.
    pub fn parts(&mut self) -> (&mut Box<Exchange>, &[Arc<Attachment>]) {
        (&mut self.exchange, self.told.now())
    }

    /// The same for somebody who sends the exchange away.
    #[must_use]
    pub fn taken_apart(self) -> (Box<Exchange>, Told) {
        (self.exchange, self.told)
    }

    /// Goes on to the next owner whose components take part in it; none when all have had their turn.
    fn goes_on(&mut self) -> Option<Owner> {
        let Self { exchange, told } = self;
        let Told { plugins, now, .. } = told;
        let first = (now.end..plugins.len()).find(|at| plugins[*at].takes_part(exchange))?;
        let owner = plugins[first].owner();
        let others = plugins[first..].iter().position(|plugin| plugin.owner() != owner);
        *now = first..others.map_or(plugins.len(), |others| first + others);
        // What its connection keeps is in the way of others while it waits.
        if exchange.kept_by_connection.is_some()
            && !plugins[first..].iter().any(|plugin| plugin.is_kept_by_connection())
        {
            exchange.kept_by_connection = None;
        }
        Some(owner)
    }

    /// Counts its heads as held for those that are told now, and for nobody else any more. Answers whether they may be.
    fn is_held(&mut self) -> bool {
        let Self { exchange, told } = self;
        told.heads = None;
        let Some(first) = told.now().first() else {
            return true;
        };
        if exchange.is_headless {
            return false;
        }
        let held = first.hold_so_much(exchange.bytes_of_heads());
        held.map(|heads| told.heads = heads).is_ok()
    }

    /// Those that were to be told now are not.
    #[cold]
    fn is_left_out(&mut self) {
        self.told.heads = None;
        let (exchange, plugins) = self.parts();
        for plugin in plugins {
            if plugin.takes_part(exchange) {
                plugin.is_not_told();
            }
        }
    }
}

impl Told {
    /// Of an exchange that has come back.
    #[must_use]
    pub fn of(self, exchange: Box<Exchange>) -> ToTell {
        ToTell { exchange, told: self }
    }

    fn now(&self) -> &[Arc<Attachment>] {
        &self.plugins[self.now.clone()]
    }
}

impl Room {
    fn keep_for(&mut self, owners: impl Iterator<Item = Owner>) {
        self.owners.values_mut().for_each(|share| share.is_kept = false);
        for owner in owners {
            self.owners.entry(owner).or_default().is_kept = true;
        }
        self.owners.retain(|_, share| share.is_kept || share.waiting > 0);
        let kept = || self.owners.values().filter(|share| share.is_kept);
        // Where there are very many, one for each.
        self.part = (MAX_WAITING / 2 / kept().count().max(1)).max(1);
        self.free = kept().map(|share| self.part.saturating_sub(share.waiting)).sum();
    }

    /// Room for one more of an owner's, if there is some.
    fn take(&mut self, owner: &Owner) -> bool {
        let share = self.owners.get_mut(owner);
        let is_of_its_part = share
            .as_ref()
            .is_some_and(|share| share.is_kept && share.waiting < self.part);
        let kept = if is_of_its_part { 0 } else { self.free };
        if self.waiting + kept >= MAX_WAITING {
            return false;
        }
        self.waiting += 1;
        self.free -= usize::from(is_of_its_part);
        match share {
            Some(share) => share.waiting += 1,
            // Of a configuration that another has taken the place of: nothing is kept for it.
            None => {
                let share = Share {
                    waiting: 1,
                    is_kept: false,
                };
                self.owners.insert(owner.clone(), share);
            }
        }
        true
    }

    /// One less waits.
    fn give_back(&mut self, owner: &Owner) {
        // It is there: what has taken room has counted it.
        let Some(share) = self.owners.get_mut(owner) else {
            return;
        };
        share.waiting -= 1;
        self.waiting -= 1;
        if share.is_kept {
            self.free += usize::from(share.waiting < self.part);
        } else if share.waiting == 0 {
            self.owners.remove(owner);
        }
    }
}

/// What may wait on one worker: with heads of 16 KiB some megabytes at most, and far fewer while a worker keeps up.
const MAX_WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(number: usize) -> Owner {
        Owner::Tenant(number.to_string().into())
    }

    fn takes(room: &mut Room, number: usize) -> usize {
        (0..=MAX_WAITING).take_while(|_| room.take(&owner(number))).count()
    }

    #[test]
    fn who_has_much_that_waits_leaves_the_others_their_parts() {
        let mut room = Room::default();
        room.keep_for((0..4).map(owner));
        assert_eq!(takes(&mut room, 0), 1024 - 3 * 128);
        assert_eq!(takes(&mut room, 1), 128);
        room.give_back(&owner(0));
        // What is given back of more than a part is for whoever comes first.
        assert_eq!(takes(&mut room, 1), 1);
        assert_eq!((takes(&mut room, 2), takes(&mut room, 3)), (128, 128));
        assert_eq!(room.waiting, MAX_WAITING);
    }

    #[test]
    fn who_is_not_in_the_configuration_any_more_has_what_is_kept_for_nobody() {
        let mut room = Room::default();
        room.keep_for([0, 1].into_iter().map(owner));
        assert_eq!(takes(&mut room, 0), 768);
        room.keep_for([1, 2].into_iter().map(owner));
        assert_eq!(takes(&mut room, 0), 0);
        assert_eq!((takes(&mut room, 1), takes(&mut room, 2)), (256, 0));
        (0..768).for_each(|_| room.give_back(&owner(0)));
        assert!(!room.owners.contains_key(&owner(0)));
        assert_eq!(takes(&mut room, 0), 512);
        assert_eq!(takes(&mut room, 2), 256);
    }

    #[test]
    fn of_very_many_owners_each_has_one() {
        let mut room = Room::default();
        room.keep_for((0..800).map(owner));
        assert_eq!(takes(&mut room, 0), 225);
        assert!((1..800).all(|number| room.take(&owner(number))));
        assert!(!room.take(&owner(1)));
    }

    proptest! {
        #[test]
        fn what_is_counted_is_what_waits(steps in proptest::collection::vec((0_usize..6, any::<bool>(), 0_u8..40), 0..400)) {
            let mut room = Room::default();
            let mut waiting = [0_usize; 6];
            for (number, comes, reload) in steps {
                if reload == 0 {
                    room.keep_for((number..6).map(owner));
                }
                if comes {
                    waiting[number] += usize::from(room.take(&owner(number)));
                } else if waiting[number] > 0 {
                    waiting[number] -= 1;
                    room.give_back(&owner(number));
                }
                prop_assert_eq!(room.waiting, waiting.iter().sum::<usize>());
                let kept = room.owners.values().filter(|share| share.is_kept);
                prop_assert_eq!(room.free, kept.map(|share| room.part.saturating_sub(share.waiting)).sum::<usize>());
            }
        }
    }
}
