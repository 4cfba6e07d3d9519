//! The hand-over from the program's tasks to the driver: bounded by messages and bytes, drained in batches.
//!
//! One lock per call on either side, and the driver is only woken where it sleeps and can take what was put in.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, oneshot};

use crate::codec::{Publish, ReasonCode, Subscription, SubscriptionId, Text};
use crate::driver::Event;
use crate::error::Error;
use crate::message::properties_cost;
use crate::options::{MqttConfig, Overflow};
use crate::session::{AckId, Settled, WindowFree};

/// Where the outcome of a publish goes, if somebody waits for it; the reason is one of success.
pub(crate) type Published = Option<oneshot::Sender<Result<ReasonCode, Error>>>;
/// Where the answer to a subscribe or an unsubscribe goes.
pub(crate) type Answered = Option<oneshot::Sender<Result<Answer, Error>>>;

/// What the server answered to a subscribe or an unsubscribe.
#[derive(Debug)]
pub(crate) struct Answer {
    /// One for each filter.
    pub(crate) codes: Vec<ReasonCode>,
    /// In the server's words.
    pub(crate) text: Option<Text>,
}

/// A publish on its way to the driver.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) publish: Publish,
    /// When it is of no use any more.
    pub(crate) expires: Option<Instant>,
    pub(crate) done: Published,
    /// Whether it is to outlive the process.
    pub(crate) kept: Kept,
    /// Under which it is saved, where it is.
    pub(crate) number: Option<u64>,
    /// Hears when it is, or dies with the reason in `done`.
    pub(crate) saved: Option<oneshot::Sender<()>>,
}

/// Whether a publish outlives the process, with `persistence` and a QoS that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    #[default]
    Yes,
    /// A query: with the process its caller is gone.
    No,
}

impl Queued {
    /// What it counts for against the bound on bytes; never nothing.
    fn cost(&self) -> usize {
        let properties = properties_cost(self.publish.properties.as_deref());
        self.publish.payload.len() + self.publish.topic.as_bytes().len() + properties + 64
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Other things for the driver; few and small.
#[derive(Debug)]
pub(crate) enum Control {
    Subscribe(Vec<Subscription>, Option<SubscriptionId>, Answered),
    Unsubscribe(Vec<Text>, Answered),
}

impl Control {
    /// A subscription that nobody waits for any more is not made: calls that are given up while there is no connection
    /// would pile up otherwise. Filters are given up all the same.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Subscribe(.., Some(answered)) => !answered.is_closed(),
            Self::Subscribe(.., None) | Self::Unsubscribe(..) => true,
        }
    }
}

/// What the driver takes at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) publishes: Vec<Queued>,
    pub(crate) controls: Vec<Control>,
    pub(crate) settled: Vec<(AckId, Settled)>,
}

/// What the driver has room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Publishes of QoS 1 and 2.
    pub(crate) window: WindowFree,
    /// Bytes of publishes of any kind.
    pub(crate) bytes: usize,
    /// Subscribes and unsubscribes.
    pub(crate) controls: usize,
}

#[derive(Debug, Default)]
struct State {
    publishes: VecDeque<Queued>,
    /// Behind them those that are not saved yet; always empty where nothing is saved.
    arrivals: VecDeque<Queued>,
    /// Saved ones that were thrown out.
    withdrawn: Vec<u64>,
    bytes: usize,
    controls: Vec<Control>,
    settled: Vec<(AckId, Settled)>,
    phase: Phase,
    sleeper: Sleeper,
    displaced: u64,
    /// How often waiting producers were sent away.
    stalls: u64,
    /// No publish expires before this.
    earliest: Option<Instant>,
    expired: u64,
    flow: Flow,
}

/// Whether producers were told that they are too fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Free,
    Paused,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// Before `connect` and after `disconnect`: nothing is taken.
    #[default]
    Closed,
    Open,
}

/// What would be news to the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sleeper {
    /// It is busy and looks again by itself.
    #[default]
    Awake,
    /// It sleeps and has room for publishes.
    Anything,
    /// It sleeps with a full window.
    ControlOnly,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something for the driver.
    work: Notify,
    /// Room for producers.
    space: Notify,
    max_messages: usize,
    max_bytes: usize,
    overflow: Overflow,
    stall_timeout: Duration,
    events: broadcast::Sender<Event>,
    keeping: Keeping,
}

/// Whether publishes are saved before they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Nothing,
    All,
}

impl Queue {
    pub(crate) fn new(config: &MqttConfig, events: broadcast::Sender<Event>) -> Self {
        let (state, work, space) = (Mutex::default(), Notify::new(), Notify::new());
        Self {
            state,
            work,
            space,
            max_messages: config.queue_messages.max(1),
            max_bytes: config.queue_bytes,
            overflow: config.overflow,
            stall_timeout: config.stall_timeout,
            events,
            keeping: match config.persistence {
                None => Keeping::Nothing,
                Some(_) => Keeping::All,
            },
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
        self.work.notify_one();
    }

    /// Puts a publish in, as the overflow policy says where it is full. Cancelled while it waits, nothing is put in.
    pub(crate) async fn publish(&self, queued: Queued) -> Result<(), Error> {
        // Most find room at once, and need no place among those who wait for it.
        let Some((mut queued, since)) = self.push(queued, self.overflow)? else {
            return Ok(());
        };
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            space.as_mut().enable();
            match self.push(queued, self.overflow)? {
                None => return Ok(()),
                Some((back, stalls)) if stalls == since => queued = back,
                Some(_) => return Err(Error::Stalled(self.stall_timeout)),
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
        for done in waiting {
            // The token was dropped: nobody wants to know.
            let _ = done.send(Err(Error::Stalled(self.stall_timeout)));
        }
        told
    }

    /// As [`Queue::publish`], but refuses where it would have to wait.
    pub(crate) fn try_publish(&self, queued: Queued) -> Result<(), Error> {
        let overflow = match self.overflow {
            Overflow::Wait => Overflow::Refuse,
            other => other,
        };
        self.push(queued, overflow).map(drop)
    }

    /// Gives the publish back where the producer has to wait, with the number of stalls so far.
    fn push(&self, queued: Queued, overflow: Overflow) -> Result<Option<(Queued, u64)>, Error> {
        let (mut displaced, mut expired) = (Vec::new(), Expired::default());
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(Error::NotConnected);
        }
        let cost = queued.cost();
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
                Overflow::Wait => return Ok(Some((queued, state.stalls))),
                Overflow::Refuse => return Err(Error::QueueFull),
                Overflow::DropOldest => {
                    let oldest = state.pop();
                    state
                        .withdrawn
                        .extend(oldest.iter().filter_map(|it| it.number));
                    displaced.extend(oldest);
                }
            }
        }
        state.displaced += displaced.len() as u64;
        state.bytes += cost;
        state.earliest = [state.earliest, queued.expires].into_iter().flatten().min();
        let wake = match self.keeping {
            Keeping::Nothing => {
                state.publishes.push_back(queued);
                state.sleeper == Sleeper::Anything
            }
            Keeping::All => {
                state.arrivals.push_back(queued);
                state.sleeper != Sleeper::Awake || state.arrivals.len() == 1
            }
        };
        if wake {
            state.sleeper = Sleeper::Awake;
        }
        drop(state);
        if wake {
            self.work.notify_one();
        }
        for done in displaced.into_iter().filter_map(|queued| queued.done) {
            // Nobody waits for it: then nobody is told.
            let _ = done.send(Err(Error::Displaced));
        }
        Ok(None)
    }

    /// Fails what is of no use any more. What is left to expire while there is a connection fails as it is taken.
    pub(crate) fn expire(&self, now: Instant) {
        let mut expired = Expired::default();
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
        self.work.notify_one();
        Ok(())
    }

    pub(crate) fn settle(&self, id: AckId, settled: Settled) {
        let mut state = self.state();
        state.settled.push((id, settled));
        let wake = state.sleeper != Sleeper::Awake;
        state.sleeper = Sleeper::Awake;
        drop(state);
        if wake {
            self.work.notify_one();
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
        self.work.notify_one();
    }

    /// Waits until there may be something to take.
    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }

    /// Moves what there is room for into `batch`. The driver is taken to sleep from then on.
    pub(crate) fn take(&self, mut room: Room, batch: &mut Batch) {
        let mut state = self.state();
        state.take_controls(room.controls, &mut batch.controls);
        batch.settled.append(&mut state.settled);
        let mut taken = false;
        while let Some(next) = state.publishes.front() {
            if room.bytes == 0 || !room.window.take(next.publish.qos) {
                break;
            }
            room.bytes = room.bytes.saturating_sub(next.cost());
            batch.publishes.extend(state.pop());
            taken = true;
        }
        self.flow_again(&mut state);
        state.sleeper = if state.publishes.is_empty() && room.bytes > 0 {
            Sleeper::Anything
        } else {
            Sleeper::ControlOnly
        };
        drop(state);
        if taken {
            self.space.notify_waiters();
        }
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
        let mut publishes: Vec<_> = std::mem::take(&mut state.publishes).into();
        publishes.extend(state.arrivals.drain(..));
        Batch {
            publishes,
            controls: std::mem::take(&mut state.controls),
            settled: Vec::new(),
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.arrivals.is_empty()
    }

    fn waiting(&self) -> usize {
        self.publishes.len() + self.arrivals.len()
    }

    fn take_controls(&mut self, room: usize, into: &mut Vec<Control>) {
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
    fn pop(&mut self) -> Option<Queued> {
        let queued = self
            .publishes
            .pop_front()
            .or_else(|| self.arrivals.pop_front())?;
        self.bytes -= queued.cost();
        Some(queued)
    }

    /// Whether there were any.
    fn take_expired(&mut self, now: impl Fn() -> Instant, into: &mut Expired) -> bool {
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
            self.withdrawn.extend(queued.number);
            into.0.extend(queued.done.take());
            false
        });
        let count = before - self.publishes.len();
        self.expired += count as u64;
        count > 0
    }
}

/// Who is to hear that a message expired; dropped, outside of the lock, they do.
#[derive(Default)]
struct Expired(Vec<oneshot::Sender<Result<ReasonCode, Error>>>);

impl Drop for Expired {
    fn drop(&mut self) {
        for done in self.0.drain(..) {
            // The token was dropped: nobody wants to know.
            let _ = done.send(Err(Error::Expired));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::QoS;

    const ALL: Room = room(100);

    const fn room(acknowledged: usize) -> Room {
        let window = WindowFree {
            acknowledged,
            exactly_once: acknowledged,
        };
        Room {
            window,
            bytes: 1 << 20,
            controls: 16,
        }
    }

    fn queued(number: u8, qos: QoS) -> Queued {
        let payload = Bytes::copy_from_slice(&[number]);
        let topic = Text::from_static("t");
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            id: None,
            payload,
            properties: None,
        };
        Queued {
            publish,
            expires: None,
            done: None,
            kept: Kept::Yes,
            number: None,
            saved: None,
        }
    }

    fn queue_of(queue_messages: usize, queue_bytes: usize, overflow: Overflow) -> Queue {
        let config = MqttConfig {
            queue_messages,
            queue_bytes,
            overflow,
            ..MqttConfig::default()
        };
        let queue = Queue::new(&config, broadcast::Sender::new(8));
        queue.open();
        queue
    }

    fn queue(overflow: Overflow) -> Queue {
        queue_of(2, 1 << 20, overflow)
    }

    fn taken(queue: &Queue, room: Room) -> Vec<u8> {
        let mut batch = Batch::default();
        queue.take(room, &mut batch);
        batch
            .publishes
            .iter()
            .map(|queued| queued.publish.payload[0])
            .collect()
    }

    #[test]
    fn refuses_or_displaces_when_full() {
        let refusing = queue(Overflow::Refuse);
        let displacing = queue(Overflow::DropOldest);
        for queue in [&refusing, &displacing] {
            queue.try_publish(queued(1, QoS::AtLeastOnce)).unwrap();
            queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
        }
        let refused = refusing.try_publish(queued(3, QoS::AtLeastOnce));
        assert!(matches!(refused, Err(Error::QueueFull)));
        displacing.try_publish(queued(3, QoS::AtLeastOnce)).unwrap();
        assert_eq!(taken(&refusing, ALL), [1, 2]);
        assert_eq!(taken(&displacing, ALL), [2, 3]);
        assert_eq!(displacing.displaced(), 1);
    }

    #[test]
    fn is_bounded_by_bytes_too_but_lets_one_large_message_through() {
        let queue = queue_of(100, 100, Overflow::Refuse);
        let large = || {
            let mut large = queued(1, QoS::AtMostOnce);
            large.publish.payload = Bytes::from_static(&[0; 200]);
            large
        };
        queue.try_publish(large()).unwrap();
        assert!(matches!(queue.try_publish(large()), Err(Error::QueueFull)));
    }

    #[test]
    fn takes_no_more_than_the_window_and_keeps_the_order() {
        let queue = queue(Overflow::Refuse);
        queue.try_publish(queued(1, QoS::AtLeastOnce)).unwrap();
        queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();

        assert!(taken(&queue, room(0)).is_empty(), "QoS 0 does not overtake");
        assert_eq!(taken(&queue, room(1)), [1, 2]);
    }

    #[tokio::test]
    async fn a_waiting_producer_goes_on_when_there_is_room() {
        let queue = std::sync::Arc::new(queue(Overflow::Wait));
        queue.try_publish(queued(1, QoS::AtMostOnce)).unwrap();
        queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();
        let producer = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.publish(queued(3, QoS::AtMostOnce)).await })
        };
        tokio::task::yield_now().await;
        assert!(!producer.is_finished());
        assert_eq!(taken(&queue, ALL), [1, 2]);
        producer.await.unwrap().unwrap();
        assert_eq!(taken(&queue, ALL), [3]);
    }

    #[tokio::test]
    async fn closing_frees_whoever_waits() {
        let queue = std::sync::Arc::new(queue(Overflow::Wait));
        queue.try_publish(queued(1, QoS::AtMostOnce)).unwrap();
        queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();
        let producer = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.publish(queued(3, QoS::AtMostOnce)).await })
        };
        tokio::task::yield_now().await;
        queue.close();
        assert!(matches!(producer.await.unwrap(), Err(Error::NotConnected)));
    }

    #[test]
    fn takes_no_more_controls_than_there_is_room_for() {
        let queue = queue(Overflow::Refuse);
        for _ in 0..2 {
            queue
                .control(Control::Unsubscribe(Vec::new(), None))
                .unwrap();
        }
        let more = queue.control(Control::Unsubscribe(Vec::new(), None));
        assert!(matches!(more, Err(Error::QueueFull)));
        let mut batch = Batch::default();
        let room = Room { controls: 1, ..ALL };
        queue.take(room, &mut batch);
        assert_eq!(batch.controls.len(), 1);
        assert!(!queue.is_empty());
    }

    #[test]
    fn subscribes_that_were_given_up_take_no_room_and_are_not_made() {
        let queue = queue(Overflow::Refuse);
        let subscribe = || {
            let (answered, waiting) = oneshot::channel();
            let subscribe = Control::Subscribe(Vec::new(), None, Some(answered));
            (queue.control(subscribe), waiting)
        };
        for _ in 0..3 {
            let (queued, waiting) = subscribe();
            queued.unwrap();
            drop(waiting);
        }
        assert!(queue.is_empty(), "nobody has to wait for them");
        let (queued, _waiting) = subscribe();
        queued.unwrap();
        queue
            .control(Control::Unsubscribe(Vec::new(), None))
            .unwrap();
        let (queued, _) = subscribe();
        assert!(matches!(queued, Err(Error::QueueFull)));
        let mut batch = Batch::default();
        queue.take(ALL, &mut batch);
        assert!(matches!(
            batch.controls[..],
            [Control::Subscribe(..), Control::Unsubscribe(..)]
        ));
    }

    #[tokio::test]
    async fn a_stall_sends_everybody_away_and_keeps_what_is_queued() {
        let queue = std::sync::Arc::new(queue(Overflow::Wait));
        let (done, outcome) = oneshot::channel();
        let mut first = queued(1, QoS::AtLeastOnce);
        first.done = Some(done);
        queue.try_publish(first).unwrap();
        queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
        let producer = {
            let queue = queue.clone();
            tokio::spawn(async move { queue.publish(queued(3, QoS::AtLeastOnce)).await })
        };
        tokio::task::yield_now().await;
        queue.stall();
        assert!(matches!(producer.await.unwrap(), Err(Error::Stalled(_))));
        assert!(matches!(outcome.await.unwrap(), Err(Error::Stalled(_))));
        assert_eq!(taken(&queue, ALL), [1, 2]);
    }

    #[test]
    fn what_has_expired_makes_room_and_says_so() {
        let queue = queue(Overflow::Refuse);
        let now = Instant::now();
        let (done, mut outcome) = oneshot::channel();
        let mut useless = queued(1, QoS::AtLeastOnce);
        useless.expires = Some(now);
        useless.done = Some(done);
        queue.try_publish(useless).unwrap();
        queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
        queue.try_publish(queued(3, QoS::AtLeastOnce)).unwrap();
        assert!(matches!(outcome.try_recv(), Ok(Err(Error::Expired))));
        assert_eq!(taken(&queue, ALL), [2, 3]);

        let mut later = queued(4, QoS::AtLeastOnce);
        later.expires = Some(now + Duration::from_secs(60));
        queue.try_publish(later).unwrap();
        queue.expire(now + Duration::from_secs(59));
        assert_eq!(queue.len(), 1);
        queue.expire(now + Duration::from_secs(60));
        assert_eq!((queue.len(), queue.expired()), (0, 2));
    }

    #[test]
    fn a_full_queue_says_so_once_and_again_when_half_of_it_is_free() {
        let queue = queue_of(4, 1 << 20, Overflow::Refuse);
        let mut events = queue.events.subscribe();
        for number in 0..6 {
            let _ = queue.try_publish(queued(number, QoS::AtLeastOnce));
        }
        assert!(matches!(events.try_recv(), Ok(Event::OutgoingPaused)));
        taken(&queue, room(1));
        assert!(events.try_recv().is_err(), "not yet");
        taken(&queue, room(1));
        assert!(matches!(events.try_recv(), Ok(Event::OutgoingResumed)));
        assert!(events.try_recv().is_err());
    }
}
