//! What is behind the lock of the queue.

use std::collections::VecDeque;
use std::time::Instant;

use crate::error::Error;
use crate::outcomes::{Number, Outcomes};
use crate::session::{AckId, Settled};

use super::{Control, Idle, Queued, Quiet};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) publishes: VecDeque<Queued>,
    /// Behind them those that are not saved yet; always empty where nothing is saved.
    pub(super) arrivals: VecDeque<Queued>,
    /// Saved ones that were thrown out.
    pub(super) withdrawn: Vec<u64>,
    pub(super) bytes: usize,
    pub(super) controls: Vec<Control>,
    pub(super) settled: Vec<(AckId, Settled)>,
    pub(super) phase: Phase,
    pub(super) sleeper: Sleeper,
    pub(super) displaced: u64,
    /// How often waiting producers were sent away.
    pub(super) stalls: u64,
    /// No publish expires before this.
    pub(super) earliest: Option<Instant>,
    pub(super) expired: u64,
    pub(super) flow: Flow,
}

/// Whether producers were told that they are too fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Flow {
    #[default]
    Free,
    Paused,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before `connect` and after `disconnect`: nothing is taken.
    #[default]
    Closed,
    Open,
}

/// What would be news to the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sleeper {
    /// It is busy and looks again by itself.
    #[default]
    Awake,
    /// It sleeps and has room for publishes.
    Anything,
    /// It sleeps with a full window.
    ControlOnly,
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.arrivals.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.publishes.len() + self.arrivals.len()
    }

    /// The driver has found nothing that it can take.
    pub(super) fn rest(&mut self, idle: Idle) -> Quiet {
        self.sleeper = match idle {
            Idle::LooksAgain => Sleeper::Awake,
            Idle::Sleeps if self.publishes.is_empty() => Sleeper::Anything,
            Idle::Sleeps | Idle::Writes => Sleeper::ControlOnly,
        };
        // Controls may wait for room, of which nothing is told here.
        if self.sleeper == Sleeper::Anything && self.controls.is_empty() {
            Quiet::UntilTold
        } else {
            Quiet::No
        }
    }

    pub(super) fn take_controls(&mut self, room: usize, into: &mut Vec<Control>) {
        let mut wanted = 0;
        let mut seen = self.controls.iter();
        while wanted < room
            && let Some(control) = seen.next()
        {
            wanted += usize::from(control.is_wanted());
        }
        let passed = self.controls.len() - seen.len();
        let passed = self.controls.drain(..passed);
        into.extend(passed.filter(Control::is_wanted));
    }

    /// The oldest that waits, saved or not.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self
            .publishes
            .pop_front()
            .or_else(|| self.arrivals.pop_front())?;
        self.bytes -= queued.cost();
        Some(queued)
    }

    /// Whether there were any.
    pub(super) fn take_expired(
        &mut self,
        now: impl Fn() -> Instant,
        into: &mut Expired<'_>,
    ) -> bool {
        let Some(earliest) = self.earliest else {
            return false;
        };
        let now = now();
        if now < earliest {
            return false;
        }
        self.earliest = None;
        let before = self.publishes.len();
        self.publishes.retain_mut(|queued| {
            if !queued.is_expired(now) {
                self.earliest = [self.earliest, queued.expires].into_iter().flatten().min();
                return true;
            }
            self.bytes -= queued.cost();
            self.withdrawn.extend(queued.number());
            into.numbers.extend(queued.done.take());
            false
        });
        let count = before - self.publishes.len();
        self.expired += count as u64;
        count > 0
    }
}

/// Who is to hear that a message expired; dropped, outside of the lock, they do.
pub(super) struct Expired<'a> {
    outcomes: &'a Outcomes,
    numbers: Vec<Number>,
}

impl<'a> Expired<'a> {
    pub(super) fn new(outcomes: &'a Outcomes) -> Self {
        let numbers = Vec::new();
        Self { outcomes, numbers }
    }
}

impl Drop for Expired<'_> {
    fn drop(&mut self) {
        for number in self.numbers.drain(..) {
            self.outcomes.finish(Some(number), Err(Error::Expired));
        }
    }
}
