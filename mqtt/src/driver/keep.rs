//! Between the session and its store: what the program hands in is saved before it may be sent, what the session
//! changes before the packet that follows from it leaves. Without `persistence` nothing here does anything.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::client::PublishToken;
use crate::error::{Disconnected, Error};
use crate::persistence::{Change, InFlight, PersistenceError};
use crate::queue::{Keeping, Queued};
use crate::session::SessionChange;

use super::latency::Waiting;
use super::{Chain, ClientSession, Driver, Event, Left, Shared};

/// What to go on with, and in the queue what was never sent. A session in memory is no older than the store, and the
/// store is brought up to it first: what is in flight would be queued once more otherwise. Where it fails, what was left
/// stays where it is.
pub(crate) fn restore(
    shared: &Shared,
    left: &mut Option<Left>,
    new: impl FnOnce() -> ClientSession,
) -> Result<Left, Error> {
    let Some(store) = &shared.config.persistence else {
        return Ok(left.take().unwrap_or_else(|| Left::nothing(new())));
    };
    if let Some(left) = left.as_mut().filter(|left| !left.unsaved.is_empty()) {
        store.save(&left.unsaved)?;
        left.unsaved.clear();
    }
    save_withdrawals(shared)?;
    let saved = store.load(&shared.config.client_id)?;
    let clocks = Clocks::now();
    let next = &shared.next_number;
    next.fetch_max(saved.next_number(), Ordering::Relaxed);
    shared
        .queue
        .restore(saved.queued().map(|(number, publish, expires)| Queued {
            expires: expires.map(|it| clocks.steady(it)),
            publish: publish.clone(),
            done: None,
            keeping: Some(Box::new(Keeping {
                number: Some(number),
                saved: None,
            })),
        }));
    if let Some(left) = left.take() {
        return Ok(left);
    }
    let mut session = new();
    for (id, in_flight) in saved.in_flight() {
        match in_flight {
            InFlight::Publish {
                publish, expires, ..
            } => {
                let expires = expires.map(|it| clocks.steady(it));
                session.restore_publish(id, publish.clone(), expires, Waiting::default());
            }
            InFlight::Release { .. } => session.restore_release(id, Waiting::default()),
        }
    }
    saved.received().for_each(|id| session.restore_received(id));
    session.note_changes();
    Ok(Left::nothing(session))
}

/// Both clocks at once. What is saved is of the wall clock: the other begins anew with the system. Where somebody sets
/// that one, a message lives as much longer or shorter.
struct Clocks {
    steady: Instant,
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// What is over is over now.
    fn steady(&self, wall: SystemTime) -> Instant {
        let left = wall.duration_since(self.wall).unwrap_or_default();
        self.steady.checked_add(left).unwrap_or(self.steady)
    }

    /// What the wall clock cannot say never comes.
    fn wall(&self, steady: Instant) -> Option<SystemTime> {
        let left = steady.saturating_duration_since(self.steady);
        self.wall.checked_add(left)
    }
}

/// Asks to hear of it, where it is going to be saved.
pub(crate) fn hear_of_saving(queued: &mut Queued) -> Option<oneshot::Receiver<()>> {
    let keeping = queued.keeping.as_mut()?;
    let (sender, receiver) = oneshot::channel();
    keeping.saved = Some(sender);
    Some(receiver)
}

/// Waits until it is saved; the token knows why it is not.
pub(crate) async fn saved(
    saved: oneshot::Receiver<()>,
    token: PublishToken,
) -> Result<PublishToken, Error> {
    match saved.await {
        Ok(()) => Ok(token),
        Err(_) => token.await.and(Err(Error::Stopped)),
    }
}

/// Saves what producers put in, as long as there is no connection that does. Never ends.
pub(super) async fn keep_saving(shared: &Shared) -> Infallible {
    if shared.config.persistence.is_none() {
        return std::future::pending().await;
    }
    loop {
        save_arrivals(shared);
        shared.queue.work().await;
    }
}

/// Saves that publishes were thrown out of the queue: a batch of its own, for a full store takes it and has room then.
///
/// # Errors
/// None of it was saved; it is tried again with the next.
pub(super) fn save_withdrawals(shared: &Shared) -> Result<(), PersistenceError> {
    let Some(store) = &shared.config.persistence else {
        return Ok(());
    };
    let withdrawn = shared.queue.take_withdrawn();
    if withdrawn.is_empty() {
        return Ok(());
    }
    let numbers = withdrawn.iter();
    let changes: Vec<_> = numbers
        .map(|&number| Change::Withdrawn { number })
        .collect();
    let saved = store.save(&changes);
    if saved.is_err() {
        shared.queue.give_back_withdrawn(&withdrawn);
    }
    saved
}

/// Saves what producers put in, in one batch, and lets it be sent; what cannot be saved fails.
pub(super) fn save_arrivals(shared: &Shared) {
    let Some(store) = &shared.config.persistence else {
        return;
    };
    if let Err(reason) = save_withdrawals(shared) {
        debug!(reason = %Chain(&reason), "what was thrown out stays in the store for now");
    }
    let mut arrivals = shared.queue.take_arrivals();
    let mut changes = Vec::new();
    let clocks = Clocks::now();
    for queued in &mut arrivals {
        let Some(keeping) = &mut queued.keeping else {
            continue;
        };
        let number = shared.next_number.fetch_add(1, Ordering::Relaxed);
        keeping.number = Some(number);
        let publish = queued.publish.clone();
        changes.push(Change::Accepted {
            number,
            publish,
            expires: queued.expires.and_then(|it| clocks.wall(it)),
        });
    }
    let result = if changes.is_empty() {
        Ok(())
    } else {
        store.save(&changes)
    };
    let Err(reason) = result else {
        let keeping = arrivals.iter_mut().filter_map(|it| it.keeping.as_mut());
        for saved in keeping.filter_map(|it| it.saved.take()) {
            // The producer went away; its message stays.
            let _ = saved.send(());
        }
        shared.queue.admit(arrivals, &[]);
        return;
    };
    let (kept, admitted): (Vec<_>, Vec<_>) = arrivals
        .into_iter()
        .partition(|queued| queued.keeping.is_some());
    shared.queue.admit(admitted, &kept);
    let publishes = kept.len();
    warn!(publishes, reason = %Chain(&reason), "messages could not be saved, and are not sent");
    // Nobody listens: that is fine.
    let _ = shared.events.send(Event::NotSaved {
        reason: reason.clone(),
        publishes,
    });
    for queued in kept {
        let reason = Error::NotSaved(reason.clone());
        shared.queue.outcomes().finish(queued.done, Err(reason));
    }
}

impl Driver {
    /// The session's changes so far become the store's, in their order. `sent` is the number of the publish that it
    /// was handed last, which only the driver knows.
    fn collect_changes(&mut self, sent: Option<u64>) {
        self.session.take_changes(&mut self.changes);
        self.unsaved
            .extend(self.changes.drain(..).filter_map(|change| match change {
                SessionChange::Sent(id) => sent.map(|number| Change::Sent { number, id }),
                SessionChange::Released(id) => Some(Change::Released { id }),
                SessionChange::Completed(id) => Some(Change::Completed { id }),
                SessionChange::Received(id) => Some(Change::Received { id }),
                SessionChange::Forgotten(id) => Some(Change::Forgotten { id }),
                SessionChange::AllForgotten => Some(Change::AllForgotten),
            }));
    }

    /// The session was handed this publish.
    pub(super) fn note_sent(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.collect_changes(Some(number));
            if !matches!(self.unsaved.last(), Some(Change::Sent { number: it, .. }) if *it == number)
            {
                // The session did not take it.
                self.unsaved.push(Change::Withdrawn { number });
            }
        }
    }

    /// Saves the session's changes; what failed is tried again with the next.
    pub(super) fn save_session(&mut self) -> Result<(), Disconnected> {
        let Some(store) = self.shared.config.persistence.clone() else {
            return Ok(());
        };
        self.collect_changes(None);
        if self.unsaved.is_empty() {
            return Ok(());
        }
        store.save(&self.unsaved).map_err(Disconnected::NotSaved)?;
        self.unsaved.clear();
        Ok(())
    }

    /// Before messages are handed on: one of QoS 2 that the program has seen must not come again after a crash.
    pub(super) fn save_received(&mut self) -> Result<(), Disconnected> {
        if self.shared.config.persistence.is_none() {
            return Ok(());
        }
        self.collect_changes(None);
        let received = |change: &Change| matches!(change, Change::Received { .. });
        if self.unsaved.iter().any(received) {
            self.save_session()?;
        }
        Ok(())
    }
}
