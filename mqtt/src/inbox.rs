//! The way of messages to the program: bounded receivers, chosen by filter.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::message::Message;
use crate::queue::Queue;
use crate::session::AckMode;
use crate::topic;

/// All receivers of one client.
#[derive(Debug)]
pub(crate) struct Inbox {
    routes: Mutex<Routes>,
    budget: Arc<Budget>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Routes {
    filtered: Vec<(String, mpsc::Sender<Message>)>,
    everything: Option<mpsc::Sender<Message>>,
    /// The other end of `everything` until the program asks for it.
    unclaimed: Option<Messages>,
}

/// Bytes that wait, over all receivers; and who is to hear when they get fewer.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    max: usize,
    paused: AtomicBool,
    queue: Arc<Queue>,
}

/// Which places of a receiver a message may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Those that the bounds give.
    Bounded,
    /// Also the one that is kept for the end of the client, whatever the bounds say.
    Last,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Delivery {
    Queued,
    /// Nobody listens for it.
    Unclaimed,
    /// Its receiver is full; where the bounds kept it out, to be tried again when the queue wakes.
    Full(Message),
}

impl Inbox {
    pub(crate) fn new(capacity: usize, max: usize, mode: AckMode, queue: Arc<Queue>) -> Self {
        let (used, paused) = (AtomicUsize::new(0), AtomicBool::new(false));
        let budget = Arc::new(Budget {
            used,
            max,
            paused,
            queue,
        });
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS - 1);
        let inbox = Self {
            routes: Mutex::default(),
            budget,
            capacity,
        };
        if mode == AckMode::Manual {
            let messages = inbox.everything();
            inbox.routes().unclaimed = Some(messages);
        }
        inbox
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> (mpsc::Sender<Message>, Messages) {
        let (sender, receiver) = mpsc::channel(self.capacity + 1);
        (
            sender,
            Messages {
                receiver,
                budget: self.budget.clone(),
            },
        )
    }

    /// A receiver of whatever no filtered one takes; an earlier one ends.
    pub(crate) fn everything(&self) -> Messages {
        let (sender, messages) = self.channel();
        let mut routes = self.routes();
        if let Some(waiting) = routes.unclaimed.take() {
            return waiting;
        }
        routes.everything = Some(sender);
        messages
    }

    /// A receiver of what `filter` matches, as long as no earlier one does. A shared filter is one of the topics behind
    /// its group, in MQTT 3.1.1 too: many of its servers share subscriptions.
    pub(crate) fn filtered(&self, filter: &str) -> Messages {
        let (sender, messages) = self.channel();
        let mut routes = self.routes();
        // Here too, lest receivers that are given up before a message comes stay for ever.
        routes.filtered.retain(|(_, sender)| !sender.is_closed());
        let matched = topic::unshared(filter).to_owned();
        routes.filtered.push((matched, sender));
        messages
    }

    pub(crate) fn deliver(&self, mut message: Message, place: Place) -> Delivery {
        let bytes = message.cost();
        let mut routes = self.routes();
        // A receiver that ends in this moment makes room for the next one that wants the message.
        while let Some(sender) = routes.choose(message.topic.as_bytes()) {
            let full = sender.capacity() <= 1 || !self.budget.fits(bytes);
            if full && place == Place::Bounded {
                return Delivery::Full(message);
            }
            self.budget.add(bytes);
            let refused = match sender.try_send(message) {
                Ok(()) => return Delivery::Queued,
                Err(refused) => refused,
            };
            self.budget.subtract(bytes);
            match refused {
                TrySendError::Full(back) => return Delivery::Full(back),
                TrySendError::Closed(back) => message = back,
            }
        }
        Delivery::Unclaimed
    }

    /// Asks for a wake-up of the queue at the next message that a receiver takes. The caller tries once more after
    /// this, lest one was taken in between.
    pub(crate) fn pause(&self) {
        self.budget.paused.store(true, Ordering::SeqCst);
    }
}

impl Routes {
    /// The receiver for a topic; those that have ended are forgotten.
    fn choose(&mut self, topic: &[u8]) -> Option<&mpsc::Sender<Message>> {
        self.filtered.retain(|(_, sender)| !sender.is_closed());
        self.everything.take_if(|sender| sender.is_closed());
        let mut filtered = self.filtered.iter();
        let chosen = filtered.find(|(filter, _)| topic::matches_name(filter.as_bytes(), topic));
        chosen
            .map(|(_, sender)| sender)
            .or(self.everything.as_ref())
    }
}

impl Budget {
    /// One message always fits, however large.
    fn fits(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::SeqCst);
        used == 0 || used.saturating_add(bytes) <= self.max
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn taken(&self, bytes: usize) {
        self.subtract(bytes);
        if self.paused.swap(false, Ordering::SeqCst) {
            self.queue.wake();
        }
    }
}

/// Messages on their way to the program, in order of arrival. Also a `Stream`.
///
/// While it is full the driver does not read from the server. A client that ends puts one message in over the bounds:
/// one that was acknowledged already would be lost otherwise.
///
/// ```
/// # use qproxy_mqtt::{MqttClient, MqttConfig};
/// let client = MqttClient::new(MqttConfig::default());
/// let mut messages = client.messages();
/// assert!(messages.is_empty());
/// assert_eq!(messages.len(), 0);
/// assert!(messages.try_recv().is_none());
/// ```
#[derive(Debug)]
pub struct Messages {
    receiver: mpsc::Receiver<Message>,
    budget: Arc<Budget>,
}

impl Messages {
    /// Waits for the next message; `None` when this receiver was replaced or the client is gone. Cancel-safe.
    ///
    /// ```no_run
    /// # async fn example(mut messages: qproxy_mqtt::client::Messages) {
    /// while let Some(message) = messages.recv().await {
    ///     println!("{}", message.topic);
    /// }
    /// # }
    /// ```
    pub async fn recv(&mut self) -> Option<Message> {
        let message = self.receiver.recv().await?;
        self.budget.taken(message.cost());
        Some(message)
    }

    /// The next message, if one is here.
    pub fn try_recv(&mut self) -> Option<Message> {
        let message = self.receiver.try_recv().ok()?;
        self.budget.taken(message.cost());
        Some(message)
    }

    /// Waits for at least one message and takes up to `max` that are here; 0 at the end. Fewer than `max` says that
    /// nothing more waits right now. Cancel-safe.
    ///
    /// ```no_run
    /// # async fn example(mut messages: qproxy_mqtt::client::Messages) {
    /// let mut batch = Vec::new();
    /// while messages.recv_many(&mut batch, 100).await > 0 {
    ///     for message in batch.drain(..) {
    ///         message.ack();
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn recv_many(&mut self, into: &mut Vec<Message>, max: usize) -> usize {
        let before = into.len();
        let count = self.receiver.recv_many(into, max).await;
        let bytes = into[before..].iter().map(Message::cost).sum();
        if count > 0 {
            self.budget.taken(bytes);
        }
        count
    }

    /// How many wait right now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether nothing waits right now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let polled = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(message)) = &polled {
            self.budget.taken(message.cost());
        }
        polled
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.receiver.close();
        let mut bytes = 0;
        while let Ok(message) = self.receiver.try_recv() {
            bytes += message.cost();
        }
        self.budget.taken(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::MqttConfig;

    #[tokio::test]
    async fn receivers_that_were_given_up_are_forgotten() {
        let events = tokio::sync::broadcast::Sender::new(1);
        let queue = Arc::new(Queue::new(&MqttConfig::default(), events));
        let inbox = Inbox::new(1, 1, AckMode::Auto, queue);
        let kept = inbox.filtered("kept");
        for _ in 0..100 {
            drop(inbox.filtered("dropped"));
        }
        assert!(inbox.routes().filtered.len() <= 2);
        drop(kept);
    }
}
