//! How publishes ended, on the way from the driver to the tokens.
//!
//! Each publish that somebody wants to hear of has a number, in the order of the queue. Nearly all end well and in that
//! order: then one number says so of all below it, and a token that looks needs neither a lock nor memory of its own.
//! What ends out of turn is kept in runs, what ends otherwise until its token has taken it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::codec::ReasonCode;
use crate::error::Error;

/// The reason is one of success.
pub(crate) type Outcome = Result<ReasonCode, Error>;

/// What a publish is known by, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(NonZeroU64);

impl Number {
    pub(crate) const fn get(self) -> u64 {
        self.0.get()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outcomes {
    /// The next number.
    next: AtomicU64,
    /// What `State::until` says, to be seen without the lock.
    until: AtomicU64,
    /// How many there are in `State::others`; written before `until`.
    others: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Every publish below has ended.
    until: u64,
    /// The others that have: where a run starts, and where it ends (exclusive). No two of them touch, and there are no
    /// more of them than publishes under way.
    early: BTreeMap<u64, u64>,
    /// Those of them whose token is to hear something else than success.
    others: BTreeMap<Number, Outcome>,
    waiting: BTreeMap<Number, Waker>,
    /// Under way, with nobody who wants to hear of them any more.
    given_up: BTreeSet<Number>,
}

impl Default for Outcomes {
    fn default() -> Self {
        let state = State {
            until: 1,
            early: BTreeMap::new(),
            others: BTreeMap::new(),
            waiting: BTreeMap::new(),
            given_up: BTreeSet::new(),
        };
        Self {
            next: AtomicU64::new(1),
            until: AtomicU64::new(1),
            others: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }
}

impl Outcomes {
    /// A number for a publish that is to be finished under it, whatever happens.
    pub(crate) fn issue(&self) -> Number {
        let number = NonZeroU64::new(self.next.fetch_add(1, Ordering::Relaxed));
        Number(number.expect("at a billion a second it takes centuries"))
    }

    pub(crate) fn finish(&self, number: Option<Number>, outcome: Outcome) {
        let Some(number) = number else {
            return;
        };
        let mut state = self.state();
        let waker = state.finish(number, outcome);
        self.release(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// They ended well. Takes all of them, and leaves the memory.
    pub(crate) fn succeed(&self, numbers: &mut Vec<Number>) {
        if numbers.is_empty() {
            return;
        }
        let mut wakers = Vec::new();
        let mut state = self.state();
        for number in numbers.drain(..) {
            wakers.extend(state.finish(number, Ok(ReasonCode::Success)));
        }
        self.release(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nobody is left who would finish what was issued.
    pub(crate) fn stop(&self) {
        let mut wakers = Vec::new();
        let mut state = self.state();
        let next = self.next.load(Ordering::Relaxed);
        while state.until < next {
            let number = NonZeroU64::new(state.until).map(Number);
            let number = number.expect("it starts at 1");
            wakers.extend(state.finish(number, Err(Error::Stopped)));
        }
        self.release(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody see what was changed.
    fn release(&self, state: MutexGuard<'_, State>) {
        self.others.store(state.others.len(), Ordering::Release);
        self.until.store(state.until, Ordering::Release);
    }

    /// Whether this one has ended well, as far as can be told without the lock.
    fn is_fine(&self, number: Number) -> bool {
        number.get() < self.until.load(Ordering::Acquire)
            && self.others.load(Ordering::Acquire) == 0
    }

    /// What is said once; the waker hears of it otherwise.
    pub(crate) fn poll(&self, number: Number, context: &mut Context<'_>) -> Poll<Outcome> {
        if self.is_fine(number) {
            return Poll::Ready(Ok(ReasonCode::Success));
        }
        let mut state = self.state();
        if !state.has_ended(number) {
            let waker = state.waiting.entry(number);
            let waker = waker.or_insert_with(|| context.waker().clone());
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let outcome = state.others.remove(&number);
        self.release(state);
        Poll::Ready(outcome.unwrap_or(Ok(ReasonCode::Success)))
    }

    /// Nobody will ask about this one, which was not told yet.
    pub(crate) fn give_up(&self, number: Number) {
        if self.is_fine(number) {
            return;
        }
        let mut state = self.state();
        let waker = state.waiting.remove(&number);
        if state.has_ended(number) {
            state.others.remove(&number);
        } else {
            state.given_up.insert(number);
        }
        self.release(state);
        // Not under the lock: it may be the last of its task.
        drop(waker);
    }
}

impl State {
    fn has_ended(&self, number: Number) -> bool {
        let number = number.get();
        let run = || self.early.range(..=number).next_back();
        number < self.until || run().is_some_and(|(_, end)| number < *end)
    }

    /// Who waits for it. A second outcome counts for nothing: what waits in the queue of a driver that is gone is
    /// finished with it, and once more by the next one, which sends it.
    fn finish(&mut self, number: Number, outcome: Outcome) -> Option<Waker> {
        if number.get() != self.until && self.has_ended(number) {
            return None;
        }
        let is_given_up = !self.given_up.is_empty() && self.given_up.remove(&number);
        if !is_given_up && !matches!(outcome, Ok(ReasonCode::Success)) {
            self.others.insert(number, outcome);
        }
        self.end(number.get());
        if self.waiting.is_empty() {
            return None;
        }
        self.waiting.remove(&number)
    }

    fn end(&mut self, number: u64) {
        if number == self.until {
            let run = if self.early.is_empty() {
                None
            } else {
                self.early.remove(&(number + 1))
            };
            self.until = run.unwrap_or(number + 1);
            return;
        }
        let end = self.early.remove(&(number + 1)).unwrap_or(number + 1);
        let before = self.early.range_mut(..number).next_back();
        match before.filter(|(_, end)| **end == number) {
            Some((_, before)) => *before = end,
            None => {
                self.early.insert(number, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(outcomes: &Outcomes, number: Number) -> Poll<Outcome> {
        outcomes.poll(number, &mut Context::from_waker(Waker::noop()))
    }

    fn is_success(told: &Poll<Outcome>) -> bool {
        matches!(told, Poll::Ready(Ok(ReasonCode::Success)))
    }

    #[test]
    fn what_ends_in_turn_leaves_nothing_behind() {
        let outcomes = Outcomes::default();
        let mut numbers: Vec<_> = (0..1000).map(|_| outcomes.issue()).collect();
        let kept = numbers.clone();
        assert!(kept.iter().all(|it| ask(&outcomes, *it).is_pending()));
        outcomes.succeed(&mut numbers);
        assert!(numbers.is_empty());
        assert!(kept.iter().all(|it| is_success(&ask(&outcomes, *it))));
        let state = outcomes.state();
        assert_eq!(state.until, 1001);
        assert!(state.early.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn each_hears_its_own_outcome_once_and_only_who_waits_for_it_is_woken() {
        let outcomes = Outcomes::default();
        let [first, second, third] = [(); 3].map(|()| outcomes.issue());
        let woken = [(); 2].map(|()| Arc::new(Woken::default()));
        for (number, woken) in [first, third].into_iter().zip(&woken) {
            let waker = Waker::from(Arc::clone(woken));
            let context = &mut Context::from_waker(&waker);
            assert!(outcomes.poll(number, context).is_pending());
            assert!(outcomes.poll(number, context).is_pending());
        }
        outcomes.finish(Some(third), Err(Error::Displaced));
        outcomes.finish(Some(second), Ok(ReasonCode::NoMatchingSubscribers));
        outcomes.finish(None, Err(Error::Stopped));
        let count = |at: usize| woken[at].0.load(Ordering::Relaxed);
        assert_eq!((count(0), count(1)), (0, 1));
        let told = ask(&outcomes, third);
        assert!(matches!(told, Poll::Ready(Err(Error::Displaced))));
        assert!(ask(&outcomes, first).is_pending());
        outcomes.finish(Some(first), Ok(ReasonCode::Success));
        assert!(is_success(&ask(&outcomes, first)));
        let Poll::Ready(Ok(reason)) = ask(&outcomes, second) else {
            panic!("it ended well");
        };
        assert_eq!(reason, ReasonCode::NoMatchingSubscribers);
        assert!(outcomes.is_fine(third), "what was told is forgotten");
    }

    #[test]
    fn what_nobody_asks_about_is_not_kept() {
        let outcomes = Outcomes::default();
        let numbers = [(); 4].map(|()| outcomes.issue());
        for number in &numbers[..2] {
            assert!(ask(&outcomes, *number).is_pending());
            outcomes.give_up(*number);
        }
        for number in numbers {
            outcomes.finish(Some(number), Err(Error::Expired));
        }
        for number in &numbers[2..] {
            outcomes.give_up(*number);
        }
        let state = outcomes.state();
        assert!(state.others.is_empty() && state.given_up.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn whoever_waits_for_a_driver_that_is_gone_hears_that() {
        let outcomes = Arc::new(Outcomes::default());
        let [first, second, third, fourth] = [(); 4].map(|()| outcomes.issue());
        outcomes.finish(Some(third), Ok(ReasonCode::Success));
        assert!(ask(&outcomes, first).is_pending());
        outcomes.give_up(second);
        outcomes.stop();
        for number in [first, fourth] {
            let told = ask(&outcomes, number);
            assert!(matches!(told, Poll::Ready(Err(Error::Stopped))));
        }
        assert!(is_success(&ask(&outcomes, third)));
        for number in [first, second, third, fourth] {
            outcomes.finish(Some(number), Err(Error::Expired));
            assert!(outcomes.is_fine(number), "what comes later is not kept");
        }
        let fifth = outcomes.issue();
        outcomes.finish(Some(fifth), Ok(ReasonCode::Success));
        let state = outcomes.state();
        assert_eq!(state.until, 6);
        assert!(state.early.is_empty());
    }

    proptest! {
        /// In whatever order they end and tokens go away: each hears what happened to it, and nothing is left.
        #[test]
        fn any_order(order in Just((0..40).collect::<Vec<usize>>()).prop_shuffle(), fates in prop::collection::vec(0..5, 40)) {
            let outcomes = Outcomes::default();
            let numbers: Vec<_> = (0..40).map(|_| outcomes.issue()).collect();
            for (done, &at) in order.iter().enumerate() {
                let (number, fate) = (numbers[at], fates[at]);
                prop_assert!(ask(&outcomes, number).is_pending());
                if fate == 0 {
                    outcomes.give_up(number);
                }
                let outcome = if fate < 2 { Err(Error::Expired) } else { Ok(ReasonCode::Success) };
                outcomes.finish(Some(number), outcome);
                if fate == 4 {
                    outcomes.give_up(number);
                }
                let runs = outcomes.state().early.len();
                prop_assert!(runs <= 40 - done);
            }
            for (number, fate) in numbers.into_iter().zip(fates) {
                match (fate, ask(&outcomes, number)) {
                    (1, told) => prop_assert!(matches!(told, Poll::Ready(Err(Error::Expired)))),
                    (_, told) => prop_assert!(is_success(&told)),
                }
            }
            let state = outcomes.state();
            prop_assert_eq!(state.until, 41);
            prop_assert!(state.early.is_empty() && state.others.is_empty());
            prop_assert!(state.waiting.is_empty() && state.given_up.is_empty());
        }
    }
}
