//! The hand-over from the program's tasks to the driver: bounded by messages and bytes, drained in batches.
//!
//! One lock per call on either side, and the driver is only woken where it sleeps and can take what was put in.

mod item;
mod signal;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast};

use crate::driver::Event;
use crate::error::Error;
use crate::options::{MqttConfig, Overflow};
use crate::outcomes::Outcomes;
use crate::session::{AckId, Settled};

pub(crate) use item::{
    Answer, Answered, Batch, Control, Hear, Idle, Keeping, Published, Queued, Quiet, Room,
};

use signal::Signal;
use state::{Expired, Flow, Phase, Sleeper, State};

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something for the driver.
    work: Signal,
    /// Room for producers.
    space: Notify,
    max_messages: usize,
    max_bytes: usize,
    overflow: Overflow,
    stall_timeout: Duration,
    events: broadcast::Sender<Event>,
    saving: Saving,
    outcomes: Arc<Outcomes>,
}

/// Whether publishes are saved before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saving {
    Nothing,
    All,
}

impl Queue {
    pub(crate) fn new(config: &MqttConfig, events: broadcast::Sender<Event>) -> Self {
        let (state, work, space) = (Mutex::default(), Signal::default(), Notify::new());
        Self {
            state,
            work,
            space,
            max_messages: config.queue_messages.max(1),
            max_bytes: config.queue_bytes,
            overflow: config.overflow,
            stall_timeout: config.stall_timeout,
            events,
            saving: match config.persistence {
                None => Saving::Nothing,
                Some(_) => Saving::All,
            },
            outcomes: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self) {
        self.state().phase = Phase::Open;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state().phase == Phase::Open
    }

    /// Takes nothing more from producers.
    pub(crate) fn close(&self) {
        self.state().phase = Phase::Closed;
        self.space.notify_waiters();
        self.work.give();
    }

    /// Where the driver tells how publishes ended.
    pub(crate) fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    /// Puts a publish in, as the overflow policy says where it is full, and takes it out of its place for that. Cancelled
    /// while it waits, nothing is put in. The number is there where `hear` says so.
    pub(crate) async fn publish(
        &self,
        place: &mut Option<Queued>,
        hear: Hear,
    ) -> Result<Published, Error> {
        // Most find room at once, and need no place among those who wait for it.
        let since = match self.push(place, hear, self.overflow)? {
            Pushed::In(number) => return Ok(number),
            Pushed::Full { stalls } => stalls,
        };
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            space.as_mut().enable();
            match self.push(place, hear, self.overflow)? {
                Pushed::In(number) => return Ok(number),
                Pushed::Full { stalls } if stalls == since => {}
                Pushed::Full { .. } => return Err(Error::Stalled(self.stall_timeout)),
            }
            space.await;
        }
    }

    /// Tells everybody who waits for a publish that the connection stands still; what is queued stays so.
    /// Returns how many were told at least.
    pub(crate) fn stall(&self) -> usize {
        let mut state = self.state();
        state.stalls += 1;
        let waiting = state.publishes.iter_mut();
        let waiting: Vec<_> = waiting.filter_map(|queued| queued.done.take()).collect();
        drop(state);
        self.space.notify_waiters();
        let told = waiting.len();
        for number in waiting {
            let stalled = Error::Stalled(self.stall_timeout);
            self.outcomes.finish(Some(number), Err(stalled));
        }
        told
    }

    /// As [`Queue::publish`], but refuses where it would have to wait.
    pub(crate) fn try_publish(
        &self,
        place: &mut Option<Queued>,
        hear: Hear,
    ) -> Result<Published, Error> {
        let overflow = match self.overflow {
            Overflow::Wait => Overflow::Refuse,
            other => other,
        };
        match self.push(place, hear, overflow)? {
            Pushed::In(number) => Ok(number),
            Pushed::Full { .. } => Err(Error::QueueFull),
        }
    }

    /// Takes the publish out of its place, unless the producer has to wait. In a place and not by value, for it is large
    /// and moves with every message.
    fn push(
        &self,
        place: &mut Option<Queued>,
        hear: Hear,
        overflow: Overflow,
    ) -> Result<Pushed, Error> {
        let Some(queued) = place else {
            return Ok(Pushed::In(None));
        };
        let cost = queued.cost();
        let (mut displaced, mut expired) = (Vec::new(), Expired::new(&self.outcomes));
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(Error::NotConnected);
        }
        // One that is larger than the whole bound goes in alone.
        while !state.is_empty()
            && (state.waiting() >= self.max_messages || state.bytes + cost > self.max_bytes)
        {
            if state.take_expired(Instant::now, &mut expired) {
                continue;
            }
            if std::mem::replace(&mut state.flow, Flow::Paused) == Flow::Free {
                // Under the lock, so that it cannot come after the end of the pause. Nobody listens: that is fine.
                let _ = self.events.send(Event::OutgoingPaused);
            }
            match overflow {
                Overflow::Wait => {
                    let stalls = state.stalls;
                    return Ok(Pushed::Full { stalls });
                }
                Overflow::Refuse => return Err(Error::QueueFull),
                Overflow::DropOldest => {
                    let oldest = state.pop();
                    state
                        .withdrawn
                        .extend(oldest.iter().filter_map(Queued::number));
                    displaced.extend(oldest);
                }
            }
        }
        state.displaced += displaced.len() as u64;
        state.bytes += cost;
        state.earliest = [state.earliest, queued.expires].into_iter().flatten().min();
        // Under the lock: numbers are to be in the order of the queue.
        queued.done = (hear == Hear::Outcome).then(|| self.outcomes.issue());
        let number = queued.done;
        let into = match self.saving {
            Saving::Nothing => &mut state.publishes,
            Saving::All => &mut state.arrivals,
        };
        if let Some(queued) = place.take() {
            into.push_back(queued);
        }
        let wake = match self.saving {
            Saving::Nothing => state.sleeper == Sleeper::Anything,
            Saving::All => state.sleeper != Sleeper::Awake || state.arrivals.len() == 1,
        };
        if wake {
            state.sleeper = Sleeper::Awake;
        }
        drop(state);
        if wake {
            self.work.give();
        }
        for queued in displaced {
            self.outcomes.finish(queued.done, Err(Error::Displaced));
        }
        Ok(Pushed::In(number))
    }

    /// Fails what is of no use any more. What is left to expire while there is a connection fails as it is taken.
    pub(crate) fn expire(&self, now: Instant) {
        let mut expired = Expired::new(&self.outcomes);
        let mut state = self.state();
        if state.take_expired(|| now, &mut expired) {
            self.flow_again(&mut state);
            drop(state);
            self.space.notify_waiters();
        }
    }

    /// Half of the bound is free again: producers hear of it.
    fn flow_again(&self, state: &mut State) {
        let half = state.waiting() <= self.max_messages / 2 && state.bytes <= self.max_bytes / 2;
        if state.flow == Flow::Paused && half {
            state.flow = Flow::Free;
            // Nobody listens: that is fine.
            let _ = self.events.send(Event::OutgoingResumed);
        }
    }

    pub(crate) fn control(&self, control: Control) -> Result<(), Error> {
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(Error::NotConnected);
        }
        if state.controls.len() >= self.max_messages {
            state.controls.retain(Control::is_wanted);
        }
        if state.controls.len() >= self.max_messages {
            return Err(Error::QueueFull);
        }
        state.controls.push(control);
        state.sleeper = Sleeper::Awake;
        drop(state);
        self.work.give();
        Ok(())
    }

    pub(crate) fn settle(&self, id: AckId, settled: Settled) {
        let mut state = self.state();
        state.settled.push((id, settled));
        let wake = state.sleeper != Sleeper::Awake;
        state.sleeper = Sleeper::Awake;
        drop(state);
        if wake {
            self.work.give();
        }
    }

    /// What was settled so far, for a driver that takes nothing else.
    pub(crate) fn take_settled(&self) -> Vec<(AckId, Settled)> {
        std::mem::take(&mut self.state().settled)
    }

    /// What is not saved yet, to be given back with [`Queue::admit`].
    pub(crate) fn take_arrivals(&self) -> Vec<Queued> {
        self.state().arrivals.drain(..).collect()
    }

    /// Numbers of saved ones that were thrown out.
    pub(crate) fn take_withdrawn(&self) -> Vec<u64> {
        std::mem::take(&mut self.state().withdrawn)
    }

    /// Takes those back that are to be taken again. They are no more than were ever saved.
    pub(crate) fn give_back_withdrawn(&self, withdrawn: &[u64]) {
        self.state().withdrawn.extend_from_slice(withdrawn);
    }

    /// Lets them be sent, in their order; those that are not given back are forgotten.
    pub(crate) fn admit(&self, admitted: Vec<Queued>, forgotten: &[Queued]) {
        let mut state = self.state();
        state.bytes -= forgotten.iter().map(Queued::cost).sum::<usize>();
        for queued in admitted {
            state.earliest = [state.earliest, queued.expires].into_iter().flatten().min();
            state.publishes.push_back(queued);
        }
        drop(state);
        if !forgotten.is_empty() {
            self.space.notify_waiters();
        }
    }

    /// Puts in what an earlier process had accepted, whatever the bounds say.
    pub(crate) fn restore(&self, restored: impl Iterator<Item = Queued>) {
        let mut state = self.state();
        for queued in restored {
            state.bytes += queued.cost();
            state.earliest = [state.earliest, queued.expires].into_iter().flatten().min();
            state.publishes.push_back(queued);
        }
    }

    /// Tells the driver to look again.
    pub(crate) fn wake(&self) {
        self.work.give();
    }

    /// Waits until there may be something to take. One at a time can.
    pub(crate) async fn work(&self) {
        self.work.wait().await;
    }

    /// As [`Queue::work`].
    pub(crate) fn poll_work(&self, context: &mut Context<'_>) -> Poll<()> {
        self.work.poll(context)
    }

    /// Whether [`Queue::work`] would not wait.
    pub(crate) fn has_told(&self) -> bool {
        self.work.is_given()
    }

    /// Moves what there is room for into `batch`, which is empty. Unless it looks again by itself, or takes something
    /// now, the driver is taken to sleep from then on.
    pub(crate) fn take(&self, mut room: Room, batch: &mut Batch, idle: Idle) -> Quiet {
        let mut state = self.state();
        if state.publishes.is_empty() && state.controls.is_empty() && state.settled.is_empty() {
            self.flow_again(&mut state);
            return state.rest(idle);
        }
        state.take_controls(room.controls, &mut batch.controls);
        batch.settled.append(&mut state.settled);
        // Counted first, and then moved all at once.
        let (mut count, mut bytes) = (0, 0);
        for next in &state.publishes {
            if room.bytes == 0 || !room.window.take(next.publish.qos) {
                break;
            }
            let cost = next.cost();
            room.bytes = room.bytes.saturating_sub(cost);
            bytes += cost;
            count += 1;
        }
        state.bytes -= bytes;
        if batch.publishes.is_empty() && count == state.publishes.len() {
            std::mem::swap(&mut batch.publishes, &mut state.publishes);
        } else {
            batch.publishes.extend(state.publishes.drain(..count));
        }
        self.flow_again(&mut state);
        let quiet = if batch.is_empty() {
            state.rest(idle)
        } else {
            state.sleeper = Sleeper::Awake;
            Quiet::No
        };
        drop(state);
        if count > 0 {
            self.space.notify_waiters();
        }
        quiet
    }

    /// Publishes that wait.
    pub(crate) fn len(&self) -> usize {
        self.state().waiting()
    }

    /// Whether neither publishes nor anything else waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        let asked = state.controls.iter().any(Control::is_wanted);
        state.is_empty() && !asked && state.settled.is_empty()
    }

    /// Publishes thrown out for younger ones.
    pub(crate) fn displaced(&self) -> u64 {
        self.state().displaced
    }

    /// Publishes that expired before they were sent.
    pub(crate) fn expired(&self) -> u64 {
        self.state().expired
    }

    /// One more expired, on its way out of here.
    pub(crate) fn count_expired(&self) {
        self.state().expired += 1;
    }

    /// Takes everything out, for nobody will send it. What is settled from now on waits for the next driver, which
    /// has the same session.
    pub(crate) fn clear(&self) -> Batch {
        let mut state = self.state();
        state.bytes = 0;
        state.earliest = None;
        state.flow = Flow::Free;
        let mut publishes = std::mem::take(&mut state.publishes);
        publishes.extend(state.arrivals.drain(..));
        Batch {
            publishes,
            controls: std::mem::take(&mut state.controls),
            settled: Vec::new(),
        }
    }
}

/// Held by the driver: when it ends, in whatever way, nobody waits on, and nothing more is put in.
#[derive(Debug)]
pub(crate) struct LastWord(pub(crate) Arc<Queue>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.close();
        self.0.outcomes.stop();
    }
}

/// What became of a publish that was to go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushed {
    In(Published),
    /// The producer has to wait; so many stalls there were so far.
    Full {
        stalls: u64,
    },
}

#[cfg(test)]
mod tests;
