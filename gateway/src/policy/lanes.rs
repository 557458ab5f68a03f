//! Who has the threads of the [crew](super::Crew) next, of those that wait for one, and who is [told](super::LogQueue) next of what is over.
//!
//! Owners share CPU time, not calls: who has had the least of it goes first, so that a hundred calls of a tenth of a millisecond count
//! as much as one of ten. That is start-time fair queueing, in CPU time instead of bytes: an owner that comes begins where the
//! others are, and is owed nothing for the time before. One that goes while he has had more than those who wait is remembered until they
//! have caught up: who sends one call at a time, and is gone after each, would else begin anew each time. What is remembered is
//! bounded by that, and forgotten when nobody waits and nothing runs.
//!
//! What a call takes is known when it is over. Until then its lane is charged with what the one before took, so that a second thread
//! does not go the same way as the first. Of an owner who has just come nobody knows anything: so that his calls do not have all
//! threads until the first of them ends, the last thread that is free is for owners who have none.

use std::collections::VecDeque;
use std::time::Duration;

use super::owner::Owner;

/// What waits, by owner.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    /// As many as there are owners whose calls wait or run now, or did a moment ago: looked through, not looked up.
    lanes: Vec<Lane<T>>,
    /// What the owner of the last turn had had when it began. Who comes begins with that.
    now: Duration,
    /// Turns so far.
    turns: u64,
}

#[derive(Debug)]
struct Lane<T> {
    owner: Owner,
    waiting: VecDeque<T>,
    /// When so many wait, those that nobody wants any more make room.
    sweep_at: usize,
    /// CPU time that its owner has had, and that those of his turns are taken to need which are under way.
    used: Duration,
    /// What the turn took that ended last.
    last: Duration,
    under_way: usize,
    /// The number of the last turn: of two that have had the same, who waited longer goes first.
    turn: u64,
}

/// What there is of the threads that take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// There is one owner, who may have them all.
    OfOne,
    /// So many, for several owners: the last that is free is for those who have none, unless there is only one in all.
    Shared(usize),
}

/// A turn that is under way. Whoever has it says how it [ended](Lanes::end).
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    owner: Owner,
    /// What its lane was charged with beforehand.
    ahead: Duration,
}

impl Turn {
    /// Whose it is.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            now: Duration::ZERO,
            turns: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// Has something wait behind what its owner has waiting. `is_wanted` tells of what waits whether anybody still wants it.
    pub(super) fn push(&mut self, owner: Owner, new: T, is_wanted: impl Fn(&T) -> bool) {
        match self.lanes.iter_mut().find(|lane| lane.owner == owner) {
            Some(lane) => lane.push(new, is_wanted),
            None => self.lanes.push(Lane {
                owner,
                waiting: VecDeque::from([new]),
                sweep_at: SWEEP_AT,
                used: self.now,
                last: Duration::ZERO,
                under_way: 0,
                turn: 0,
            }),
        }
    }

    /// Whose turn it is, and what `begin` makes of what waits there longest; where that is nothing, it takes no turn.
    pub(super) fn take<W>(&mut self, threads: Threads, begin: impl Fn(T) -> Option<W>) -> Option<(Turn, W)> {
        let most = self.most_under_way(threads);
        loop {
            let lanes = self.lanes.iter_mut();
            let waiting = lanes.filter(|lane| !lane.waiting.is_empty() && lane.under_way <= most);
            let lane = waiting.min_by_key(|lane| (lane.used, lane.turn))?;
            let begun = std::iter::from_fn(|| lane.waiting.pop_front()).find_map(&begin);
            let Some(work) = begun else {
                self.forget();
                continue;
            };
            self.now = self.now.max(lane.used);
            self.turns += 1;
            let turn = Turn {
                owner: lane.owner.clone(),
                ahead: lane.last,
            };
            lane.turn = self.turns;
            lane.under_way += 1;
            lane.used = lane.used.saturating_add(turn.ahead);
            return Some((turn, work));
        }
    }

    /// A turn is over, and took so much CPU time.
    pub(super) fn end(&mut self, turn: &Turn, took: Duration) {
        // It is there: a lane of which something is under way is not forgotten.
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.owner == turn.owner) {
            lane.under_way -= 1;
            lane.used = lane.used.saturating_add(took).saturating_sub(turn.ahead);
            lane.last = took;
        }
        self.forget();
    }

    /// Whether nothing waits that would have a turn now, wanted or not.
    pub(super) fn is_idle(&self, threads: Threads) -> bool {
        let most = self.most_under_way(threads);
        let has_turn = |lane: &Lane<T>| !lane.waiting.is_empty() && lane.under_way <= most;
        !self.lanes.iter().any(has_turn)
    }

    /// How many turns of his may be under way of an owner who gets the next.
    fn most_under_way(&self, threads: Threads) -> usize {
        let Threads::Shared(threads) = threads else {
            return usize::MAX;
        };
        let under_way: usize = self.lanes.iter().map(|lane| lane.under_way).sum();
        match threads > 1 && threads.saturating_sub(under_way) <= 1 {
            true => 0,
            false => usize::MAX,
        }
    }

    /// Forgets owners of whom nothing waits or runs, and who have had no more than those of whom something does.
    fn forget(&mut self) {
        let (is_over, now) = (self.lanes.iter().all(Lane::is_idle), self.now);
        self.lanes
            .retain(|lane| !lane.is_idle() || (!is_over && lane.used > now));
    }
}

#[cfg(test)]
impl<T> Lanes<T> {
    /// How many wait in the longest lane, those included that nobody wants any more.
    pub(super) fn longest(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).max().unwrap_or(0)
    }
}

impl<T> Lane<T> {
    fn push(&mut self, new: T, is_wanted: impl Fn(&T) -> bool) {
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(is_wanted);
            self.sweep_at = SWEEP_AT.max(2 * self.waiting.len());
        }
        self.waiting.push_back(new);
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way == 0
    }
}

/// Fewer are not worth looking at.
const SWEEP_AT: usize = 64;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// What waits is what it will take.
    type Costs = Lanes<u64>;

    fn owner(number: usize) -> Owner {
        Owner::Plugin(number.to_string().into())
    }

    fn push(lanes: &mut Costs, number: usize, cost: u64) {
        lanes.push(owner(number), cost, |_| true);
    }

    fn take(lanes: &mut Costs) -> Option<(Turn, u64)> {
        lanes.take(Threads::OfOne, Some)
    }

    fn end(lanes: &mut Costs, turn: &Turn, cost: u64) {
        lanes.end(turn, Duration::from_micros(cost));
    }

    /// Takes so many turns, one after the other, and answers whose they were.
    fn turns(lanes: &mut Costs, count: usize) -> Vec<usize> {
        let one = |_| {
            let (turn, cost) = take(lanes).unwrap();
            end(lanes, &turn, cost);
            (0..10).find(|number| owner(*number) == turn.owner).unwrap()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn who_has_a_long_call_made_waits_until_others_have_had_as_much() {
        let mut lanes = Costs::default();
        (0..3).for_each(|_| push(&mut lanes, 0, 10));
        (0..30).for_each(|_| push(&mut lanes, 1, 1));
        let order = turns(&mut lanes, 33);
        assert_eq!(order[..13], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1], "{order:?}");
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn who_comes_is_owed_nothing_for_the_time_before() {
        let mut lanes = Costs::default();
        (0..200).for_each(|_| push(&mut lanes, 0, 10));
        turns(&mut lanes, 100);
        (0..100).for_each(|_| push(&mut lanes, 1, 10));
        let order = turns(&mut lanes, 100);
        assert_eq!(order.iter().filter(|number| **number == 0).count(), 50, "{order:?}");
    }

    #[test]
    fn who_sends_one_call_at_a_time_does_not_begin_anew_with_each() {
        let mut lanes = Costs::default();
        let (mut had, mut is_there) = ([0, 0], false);
        for _ in 0..10_000 {
            push(&mut lanes, 0, 1);
            if !std::mem::replace(&mut is_there, true) {
                push(&mut lanes, 1, 100);
            }
            let (turn, cost) = take(&mut lanes).unwrap();
            end(&mut lanes, &turn, cost);
            let number = usize::from(turn.owner == owner(1));
            had[number] += cost;
            is_there = number == 0;
        }
        assert!(had[1] <= had[0] + 200, "{had:?}");
    }

    #[test]
    fn a_second_thread_does_not_go_where_the_first_has_gone() {
        let mut lanes = Costs::default();
        (0..3).for_each(|_| push(&mut lanes, 0, 100));
        (0..3).for_each(|_| push(&mut lanes, 1, 110));
        assert_eq!(turns(&mut lanes, 2), [0, 1]);
        let (first, _) = take(&mut lanes).unwrap();
        // He has had less so far, and has one under way.
        let (second, _) = take(&mut lanes).unwrap();
        assert_ne!(first.owner, second.owner);
    }

    #[test]
    fn a_newcomer_does_not_have_all_threads_before_anybody_knows_what_his_calls_take() {
        let threads = Threads::Shared(3);
        let mut lanes = Costs::default();
        (0..5).for_each(|_| push(&mut lanes, 0, 100));
        let (first, _) = lanes.take(threads, Some).unwrap();
        let (_second, _) = lanes.take(threads, Some).unwrap();
        assert!(
            lanes.is_idle(threads) && lanes.take(threads, Some).is_none(),
            "the last is for others"
        );
        push(&mut lanes, 1, 1);
        assert!(!lanes.is_idle(threads));
        let (other, _) = lanes.take(threads, Some).unwrap();
        assert_eq!(other.owner, owner(1));
        // It is for whoever has none, be it the same again.
        push(&mut lanes, 1, 1);
        end(&mut lanes, &other, 1);
        let (other, _) = lanes.take(threads, Some).unwrap();
        assert_eq!(other.owner, owner(1));
        end(&mut lanes, &other, 1);
        assert!(lanes.take(threads, Some).is_none());
        end(&mut lanes, &first, 100);
        assert_eq!(lanes.take(threads, Some).unwrap().0.owner, owner(0));
    }

    #[test]
    fn one_thread_is_for_all_and_all_threads_are_for_one_owner() {
        for threads in [Threads::Shared(1), Threads::OfOne] {
            let mut lanes = Costs::default();
            (0..3).for_each(|_| push(&mut lanes, 0, 1));
            let (turn, _) = lanes.take(threads, Some).unwrap();
            if threads == Threads::OfOne {
                assert!(lanes.take(threads, Some).is_some());
            }
            end(&mut lanes, &turn, 1);
            assert!(lanes.take(threads, Some).is_some(), "{threads:?}");
        }
    }

    #[test]
    fn what_nobody_wants_takes_no_turn_and_makes_room() {
        let mut lanes = Costs::default();
        for _ in 0..10_000 {
            lanes.push(owner(0), 1, |_| false);
        }
        assert!(lanes.longest() <= SWEEP_AT, "{}", lanes.longest());
        push(&mut lanes, 1, 2);
        let (turn, _) = lanes.take(Threads::OfOne, |cost| (cost == 2).then_some(cost)).unwrap();
        assert_eq!(turn.owner, owner(1));
        assert_eq!(lanes.lanes.len(), 1);
    }

    proptest! {
        /// Whoever comes and goes as he likes, on however many threads: from no moment on has he had more than one who has
        /// waited since, but for the calls that are under way.
        #[test]
        fn nobody_has_more_than_who_always_waits(
            threads in 1_usize..5,
            steps in vec((vec((1_usize..4, 0..MOST), 0..4), 0_u64..3, any::<prop::sample::Index>()), 1..1500),
        ) {
            let mut lanes = Costs::default();
            let mut under_way = Vec::new();
            let mut had = [0_i64; 4];
            let mut least_lead = [0_i64; 4];
            let most = i64::try_from(MOST).unwrap() * 2 * i64::try_from(threads + 1).unwrap();
            for (come, own, ends) in steps {
                come.into_iter().for_each(|(number, cost)| push(&mut lanes, number, cost));
                push(&mut lanes, 0, own);
                while under_way.len() < threads && let Some(turn) = take(&mut lanes) {
                    under_way.push(turn);
                }
                let (turn, cost) = under_way.swap_remove(ends.index(under_way.len()));
                end(&mut lanes, &turn, cost);
                let number = (0..4).find(|number| owner(*number) == turn.owner).unwrap();
                had[number] += i64::try_from(cost).unwrap();
                // He waits, as a call of his comes with each step; those of the first steps may be under way all at once.
                for (had_by, least) in had.iter().zip(&mut least_lead) {
                    let lead = had_by - had[0];
                    *least = lead.min(*least);
                    prop_assert!(lead - *least <= most, "{had:?} {least_lead:?}");
                }
                prop_assert!(lanes.lanes.len() <= 4);
            }
        }

        /// Whoever comes and goes as he likes: nobody has all threads of several, and as long as one is free, who has none finds it.
        #[test]
        fn a_thread_is_there_for_who_has_none(
            threads in 2_usize..5,
            steps in vec((vec(0_usize..4, 0..4), any::<prop::sample::Index>()), 1..500),
        ) {
            let mut lanes = Costs::default();
            let mut under_way: Vec<Turn> = Vec::new();
            for (come, ends) in steps {
                come.into_iter().for_each(|number| push(&mut lanes, number, 1));
                while under_way.len() < threads && let Some((turn, _)) = lanes.take(Threads::Shared(threads), Some) {
                    under_way.push(turn);
                }
                for number in 0..4 {
                    let has = under_way.iter().filter(|turn| turn.owner == owner(number)).count();
                    prop_assert!(has < threads);
                    let waits = lanes.lanes.iter().any(|lane| lane.owner == owner(number) && !lane.waiting.is_empty());
                    prop_assert!(!waits || has > 0 || under_way.len() == threads);
                    // Nor is more than one kept free for others.
                    prop_assert!(!waits || under_way.len() + 1 >= threads);
                }
                if !under_way.is_empty() {
                    let turn = under_way.swap_remove(ends.index(under_way.len()));
                    end(&mut lanes, &turn, 1);
                }
            }
        }

        #[test]
        fn everything_has_its_turn_once_in_the_order_in_which_it_came_and_nothing_is_kept(
            come in vec((0_usize..5, any::<bool>()), 1..500),
        ) {
            let mut lanes = Costs::default();
            let mut came = vec![Vec::new(); 5];
            let mut begun = vec![Vec::new(); 5];
            let mut one = |lanes: &mut Costs| {
                let Some((turn, cost)) = take(lanes) else { return false };
                end(lanes, &turn, cost);
                let number = (0..5).find(|number| owner(*number) == turn.owner).unwrap();
                begun[number].push(cost);
                true
            };
            for ((number, has_turn), cost) in come.into_iter().zip(1..) {
                push(&mut lanes, number, cost);
                came[number].push(cost);
                prop_assert!(!has_turn || one(&mut lanes));
            }
            while one(&mut lanes) {}
            prop_assert!(lanes.lanes.is_empty());
            prop_assert_eq!(came, begun);
        }
    }

    const MOST: u64 = 100;
}
