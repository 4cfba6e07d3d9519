//! The hand-over from the program's tasks to the driver: bounded by messages and bytes, drained in batches.
//!
//! One lock per call on either side, and the driver is only woken where it sleeps and can take what was put in.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::codec::{Publish, ReasonCode, Subscription, Text};
use crate::error::Error;
use crate::options::{MqttConfig, Overflow};
use crate::session::{AckId, Settled, WindowFree};

/// Where the outcome of a publish goes, if somebody waits for it.
pub(crate) type Published = Option<oneshot::Sender<Result<(), Error>>>;
/// Where the answer to a subscribe or an unsubscribe goes.
pub(crate) type Answered = Option<oneshot::Sender<Result<Vec<ReasonCode>, Error>>>;

/// A publish on its way to the driver.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) publish: Publish,
    pub(crate) done: Published,
}

impl Queued {
    /// What it counts for against the bound on bytes; never nothing.
    fn cost(&self) -> usize {
        self.publish.payload.len() + self.publish.topic.as_bytes().len() + 64
    }
}

/// Other things for the driver; few and small.
#[derive(Debug)]
pub(crate) enum Control {
    Subscribe(Vec<Subscription>, Answered),
    Unsubscribe(Vec<Text>, Answered),
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
    bytes: usize,
    controls: Vec<Control>,
    settled: Vec<(AckId, Settled)>,
    phase: Phase,
    sleeper: Sleeper,
    displaced: u64,
    /// How often waiting producers were sent away.
    stalls: u64,
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
}

impl Queue {
    pub(crate) fn new(config: &MqttConfig) -> Self {
        let (state, work, space) = (Mutex::default(), Notify::new(), Notify::new());
        Self {
            state,
            work,
            space,
            max_messages: config.queue_messages.max(1),
            max_bytes: config.queue_bytes,
            overflow: config.overflow,
            stall_timeout: config.stall_timeout,
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
        let mut queued = queued;
        let mut since = None;
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            space.as_mut().enable();
            match self.push(queued, self.overflow)? {
                None => return Ok(()),
                Some((back, stalls)) if *since.get_or_insert(stalls) == stalls => queued = back,
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
        let mut displaced = Vec::new();
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(Error::NotConnected);
        }
        let cost = queued.cost();
        // One that is larger than the whole bound goes in alone.
        while !state.publishes.is_empty()
            && (state.publishes.len() >= self.max_messages || state.bytes + cost > self.max_bytes)
        {
            match overflow {
                Overflow::Wait => return Ok(Some((queued, state.stalls))),
                Overflow::Refuse => return Err(Error::QueueFull),
                Overflow::DropOldest => displaced.extend(state.pop()),
            }
        }
        state.displaced += displaced.len() as u64;
        state.bytes += cost;
        state.publishes.push_back(queued);
        let wake = state.sleeper == Sleeper::Anything;
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

    pub(crate) fn control(&self, control: Control) -> Result<(), Error> {
        let mut state = self.state();
        if state.phase == Phase::Closed {
            return Err(Error::NotConnected);
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
        let controls = room.controls.min(state.controls.len());
        batch.controls.extend(state.controls.drain(..controls));
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
        self.state().publishes.len()
    }

    /// Whether neither publishes nor anything else waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state();
        state.publishes.is_empty() && state.controls.is_empty() && state.settled.is_empty()
    }

    /// Publishes thrown out for younger ones.
    pub(crate) fn displaced(&self) -> u64 {
        self.state().displaced
    }

    /// Takes everything out, for nobody will send it.
    pub(crate) fn clear(&self) -> Batch {
        let mut state = self.state();
        state.bytes = 0;
        Batch {
            publishes: std::mem::take(&mut state.publishes).into(),
            controls: std::mem::take(&mut state.controls),
            settled: std::mem::take(&mut state.settled),
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Queued> {
        let queued = self.publishes.pop_front()?;
        self.bytes -= queued.cost();
        Some(queued)
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
            done: None,
        }
    }

    fn queue_of(queue_messages: usize, queue_bytes: usize, overflow: Overflow) -> Queue {
        let queue = Queue::new(&MqttConfig {
            queue_messages,
            queue_bytes,
            overflow,
            ..MqttConfig::default()
        });
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
}
