//! The handle that programs use.
//!
//! Cheap to clone; all clones speak over one connection, kept by a task that `connect` starts and that ends with
//! `disconnect` or with the last clone. No call needs another to be polled.

mod publish;
pub(crate) mod query;
mod respond;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::codec::{QoS, ReasonCode, Subscription, Text};
use crate::driver::{ClientSession, Driver, Ended, First, Shared};
use crate::error::Error;
use crate::inbox::Inbox;
use crate::queue::{Control, Queue};
use crate::session::{self, Session};
use crate::stats::{Counters, Stats};
use crate::topic;

pub use crate::driver::Event;
pub use crate::inbox::Messages;
pub use crate::options::MqttConfig;
pub use publish::{PublishOptions, PublishToken};
pub use respond::{Request, Responder};

/// Events that a slow listener can be behind.
const EVENT_BACKLOG: usize = 256;

/// A client of one MQTT server.
#[derive(Debug, Clone)]
pub struct MqttClient {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    life: Mutex<Life>,
}

/// The driver's task, where there is one, and the session between two of them.
#[derive(Debug, Default)]
struct Life {
    task: Option<JoinHandle<Ended>>,
    session: Option<ClientSession>,
}

impl MqttClient {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(config: MqttConfig) -> Self {
        let queue = Arc::new(Queue::new(&config));
        let (inbound, bytes) = (config.inbound_messages, config.inbound_bytes);
        let shared = Arc::new(Shared {
            inbox: Inbox::new(inbound, bytes, config.ack_mode, queue.clone()),
            queries: query::Queries::new(&config),
            counters: Counters::default(),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            connected: AtomicBool::new(false),
            leave: watch::Sender::new(false),
            queue,
            config,
        });
        Self {
            handle: Arc::new(Handle {
                shared,
                life: Mutex::default(),
            }),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Connects, and from then on stays connected: later breaks are mended in the background.
    ///
    /// One attempt is made with each server. A client that is connected already, or mends a break, is left alone.
    ///
    /// # Errors
    /// The attempt failed; the error says at what, with the last server. It may be called again.
    pub async fn connect(&self) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        if !self.spawn(Some(sender)).await? {
            return Ok(());
        }
        receiver.await.unwrap_or(Err(Error::Stopped))
    }

    /// Connects in the background and never gives up; see [`MqttClient::events`] for how it goes. Publishes are
    /// queued until there is a connection.
    ///
    /// # Errors
    /// The configuration cannot work.
    pub async fn start(&self) -> Result<(), Error> {
        self.spawn(None).await.map(drop)
    }

    /// Whether a driver was started; there is never more than one.
    async fn spawn(&self, first: First) -> Result<bool, Error> {
        let shared = self.shared();
        shared.config.check()?;
        let mut life = self.handle.life.lock().await;
        if life.task.as_ref().is_some_and(|task| !task.is_finished()) {
            // One that is on its way out is waited for; one that works is left alone.
            if !*shared.leave.borrow() && shared.queue.is_open() {
                return Ok(false);
            }
        }
        // How the last one ended was told to whoever waited for it.
        let _ = life.reap().await;
        let session = life
            .session
            .take()
            .unwrap_or_else(|| Session::new(&self.session_config()));
        shared.leave.send_replace(false);
        shared.queue.open();
        let driver = Driver::new(shared.clone(), session);
        let span = tracing::info_span!(
            "mqtt",
            client_id = shared.config.client_id,
            server = format_args!("{}:{}", shared.config.host, shared.config.port),
        );
        life.task = Some(tokio::spawn(driver.run(first).instrument(span)));
        Ok(true)
    }

    fn session_config(&self) -> session::Config {
        let config = &self.shared().config;
        session::Config {
            window: config.window,
            window_exactly_once: config.window_exactly_once,
            clean_session: config.clean_session,
            keep_alive: std::time::Duration::from_secs(config.keep_alive.into()),
            ack_mode: config.ack_mode,
        }
    }

    /// Delivers what is queued and in flight, within `drain_timeout`, and disconnects in order: the server publishes
    /// no will. Does nothing where there is no connection. `connect` may follow.
    ///
    /// # Errors
    /// Messages were left, or the client had stopped by itself; it is disconnected all the same.
    pub async fn disconnect(&self) -> Result<(), Error> {
        let mut life = self.handle.life.lock().await;
        if life.task.is_none() {
            return Ok(());
        }
        self.shared().leave.send_replace(true);
        self.shared().queue.close();
        life.reap().await
    }

    /// Whether there is a connection right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared().connected.load(Ordering::Relaxed)
    }

    /// What happens to the connection, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared().events.subscribe()
    }

    /// What the client has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        Stats {
            queued: shared.queue.len() as u64,
            displaced: shared.queue.displaced(),
            open_queries: shared.queries.len() as u64,
            ..shared.counters.read()
        }
    }

    /// The messages of all subscriptions, but for those that a [`MqttClient::subscribe_stream`] or a responder
    /// takes. Call it before `connect`: what nobody listens for is acknowledged, dropped and counted as `unclaimed`.
    /// (In manual mode it waits for the first call instead.) A second call ends the first receiver.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.shared().inbox.everything()
    }

    /// Subscribes to one filter; returns the QoS that the server grants.
    ///
    /// The subscription is renewed whenever the server has lost it. Dropped while it waits, the subscription may
    /// have been made.
    ///
    /// # Errors
    /// The filter is not legal, the server refuses it, or the client has stopped.
    pub async fn subscribe(&self, filter: impl Into<Text>, qos: QoS) -> Result<QoS, Error> {
        subscribe(self.shared(), filter.into(), qos).await
    }

    /// Subscribes to several filters in one packet; returns what became of each.
    ///
    /// # Errors
    /// A filter is not legal, or the client has stopped.
    pub async fn subscribe_many(
        &self,
        filters: Vec<Subscription>,
    ) -> Result<Vec<ReasonCode>, Error> {
        subscribe_many(self.shared(), filters).await
    }

    /// Subscribes, and gives the messages of this filter a receiver of their own. Where filters overlap, the
    /// receiver that was made first takes the message. Dropping it does not unsubscribe.
    ///
    /// # Errors
    /// As [`MqttClient::subscribe`].
    pub async fn subscribe_stream(
        &self,
        filter: impl Into<Text>,
        qos: QoS,
    ) -> Result<Messages, Error> {
        let filter = filter.into();
        topic::validate_filter(&filter)?;
        let messages = self.shared().inbox.filtered(&filter);
        self.subscribe(filter, qos).await?;
        Ok(messages)
    }

    /// Gives a filter up. Messages that are on their way may still come.
    ///
    /// # Errors
    /// The filter is not legal, or the client has stopped.
    pub async fn unsubscribe(&self, filter: impl Into<Text>) -> Result<(), Error> {
        unsubscribe(self.shared(), filter.into()).await
    }
}

pub(crate) async fn subscribe(shared: &Shared, filter: Text, qos: QoS) -> Result<QoS, Error> {
    let wanted = Subscription::new(filter.clone(), qos);
    let codes = subscribe_many(shared, vec![wanted]).await?;
    let granted = codes.first().and_then(|code| code.granted_qos());
    granted.ok_or(Error::SubscribeRefused(filter))
}

async fn subscribe_many(
    shared: &Shared,
    filters: Vec<Subscription>,
) -> Result<Vec<ReasonCode>, Error> {
    if filters.is_empty() {
        return Ok(Vec::new());
    }
    let mut size = 7;
    for wanted in &filters {
        topic::validate_filter(&wanted.filter)?;
        size += 3 + wanted.filter.as_bytes().len();
    }
    publish::check_size(shared, size)?;
    let (sender, receiver) = oneshot::channel();
    shared
        .queue
        .control(Control::Subscribe(filters, Some(sender)))?;
    receiver.await.unwrap_or(Err(Error::Stopped))
}

pub(crate) async fn unsubscribe(shared: &Shared, filter: Text) -> Result<(), Error> {
    topic::validate_filter(&filter)?;
    publish::check_size(shared, 9 + filter.as_bytes().len())?;
    let (sender, receiver) = oneshot::channel();
    shared
        .queue
        .control(Control::Unsubscribe(vec![filter], Some(sender)))?;
    receiver.await.unwrap_or(Err(Error::Stopped)).map(drop)
}

impl Life {
    /// Waits for the driver to end. Cancelled, it can be called again.
    async fn reap(&mut self) -> Result<(), Error> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let ended = task.await;
        self.task = None;
        let ended = ended.map_err(|_| Error::Stopped)?;
        self.session = Some(ended.session);
        ended.result
    }
}

/// The last clone is gone: the driver drains, leaves in order, and ends by itself.
impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave.send_replace(true);
        self.shared.queue.close();
    }
}
