//! The handle that programs use.
//!
//! Cheap to clone; all clones speak over one connection, kept by a task that `connect` starts and that ends with
//! `disconnect` or with the last clone. No call needs another to be polled.

mod publish;
mod publish_options;
mod subscribe;
mod answer;
pub(crate) mod query;
mod respond;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::{Mutex, broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::driver::keep;
use crate::driver::{Driver, Ended, First, Leave, Left, Shared};
use crate::error::Error;
use crate::inbox::Inbox;
use crate::queue::Queue;
use crate::session::{self, Session, Terms};
use crate::stats::{Counters, Latencies, Recorders, Stats};

pub use crate::driver::{Event, Farewell};
pub use crate::inbox::Messages;
pub use crate::options::MqttConfig;
pub use publish::PublishToken;
pub use publish_options::PublishOptions;
pub use respond::{Request, Responder};
pub use subscribe::SubscribeOptions;

/// Events that a slow listener can be behind.
const EVENT_BACKLOG: usize = 256;

/// A client of one MQTT server.
///
/// ```no_run
/// use qproxy_mqtt::{Error, MqttClient, MqttConfig, QoS};
///
/// # async fn example() -> Result<(), Error> {
/// let client = MqttClient::new(MqttConfig::default());
/// client.connect().await?;
/// client.publish("lamp/1", "on", QoS::AtLeastOnce).await?;
/// client.disconnect().await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MqttClient {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    life: Mutex<Life>,
}

/// The driver's task, where there is one, and between two of them what the first has left.
#[derive(Debug, Default)]
struct Life {
    task: Option<JoinHandle<Box<Ended>>>,
    left: Option<Left>,
}

impl MqttClient {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(config: MqttConfig) -> Self {
        let events = broadcast::Sender::new(EVENT_BACKLOG);
        let queue = Arc::new(Queue::new(&config, events.clone()));
        let (inbound, bytes) = (config.inbound_messages, config.inbound_bytes);
        let shared = Arc::new(Shared {
            inbox: Inbox::new(inbound, bytes, config.ack_mode, queue.clone()),
            queries: query::Queries::new(&config),
            counters: Counters::default(),
            latencies: Recorders::default(),
            events,
            connected: AtomicBool::new(false),
            next_number: AtomicU64::new(0),
            terms: StdMutex::default(),
            leave: watch::Sender::new(Leave::Stay),
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

    /// Connects in the background, and tries again however often it fails; see [`MqttClient::events`] for how it goes.
    /// Publishes are queued until there is a connection. Only one thing stops it, with [`Event::Stopped`]: another client
    /// that seems to have the same id (`takeover`).
    ///
    /// ```no_run
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// client.start().await?;
    /// // Waits in the queue where the server is not there yet.
    /// let token = client.try_publish("lamp/1", "on", qproxy_mqtt::QoS::AtLeastOnce)?;
    /// token.await
    /// # }
    /// ```
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
            if *shared.leave.borrow() == Leave::Stay && shared.queue.is_open() {
                return Ok(false);
            }
        }
        // How the last one ended was told to whoever waited for it.
        let _ = life.reap().await;
        let left = keep::restore(shared, &mut life.left, || {
            Session::new(&self.session_config())
        })?;
        shared.leave.send_replace(Leave::Stay);
        shared.queue.open();
        let driver = Driver::new(shared.clone(), left);
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
            version: config.protocol,
            window: config.window,
            window_exactly_once: config.window_exactly_once,
            continuity: config.continuity(),
            keep_alive: std::time::Duration::from_secs(config.keep_alive.into()),
            ack_mode: config.ack_mode,
            receive_maximum: config.receive_maximum,
            topic_alias_maximum: config.topic_alias_maximum,
            on_session_lost: config.on_session_lost,
        }
    }

    /// Delivers what is queued and in flight, within `drain_timeout`, and disconnects in order: the server publishes
    /// no will, and has a second to close. Does nothing where there is no connection. `connect` may follow.
    ///
    /// # Errors
    /// Messages were left, or the client had stopped by itself; it is disconnected all the same.
    pub async fn disconnect(&self) -> Result<(), Error> {
        self.disconnect_with(Farewell::InOrder).await
    }

    /// As [`MqttClient::disconnect`]; `farewell` says whether the server publishes the will.
    ///
    /// ```no_run
    /// use qproxy_mqtt::client::Farewell;
    ///
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// client.disconnect_with(Farewell::WithWill).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`MqttClient::disconnect`].
    pub async fn disconnect_with(&self, farewell: Farewell) -> Result<(), Error> {
        let mut life = self.handle.life.lock().await;
        if life.task.is_none() {
            return Ok(());
        }
        self.shared().leave.send_replace(Leave::Go(farewell));
        self.shared().queue.close();
        life.reap().await
    }

    /// Whether there is a connection right now.
    ///
    /// ```
    /// # use qproxy_mqtt::{MqttClient, MqttConfig};
    /// let client = MqttClient::new(MqttConfig::default());
    /// assert!(!client.is_connected());
    /// ```
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared().connected.load(Ordering::Relaxed)
    }

    /// On which terms the server accepted the latest connection: in MQTT 5.0 its limits, and what it chose instead of
    /// what was asked for; `None` before the first.
    ///
    /// ```
    /// # use qproxy_mqtt::{MqttClient, MqttConfig};
    /// let client = MqttClient::new(MqttConfig::default());
    /// assert_eq!(client.terms(), None);
    /// ```
    #[must_use]
    pub fn terms(&self) -> Option<Terms> {
        let terms = &self.shared().terms;
        terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What happens to the connection, from now on.
    ///
    /// ```no_run
    /// use qproxy_mqtt::client::Event;
    ///
    /// # async fn example(client: qproxy_mqtt::MqttClient) {
    /// let mut events = client.events();
    /// while let Ok(event) = events.recv().await {
    ///     if let Event::Disconnected { reason } = event {
    ///         eprintln!("the connection ended: {reason}");
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared().events.subscribe()
    }

    /// What the client has counted.
    ///
    /// ```
    /// # use qproxy_mqtt::{MqttClient, MqttConfig, QoS};
    /// let client = MqttClient::new(MqttConfig::default());
    /// assert!(client.try_publish("lamp/1", "on", QoS::AtLeastOnce).is_err());
    /// assert_eq!(client.stats().published, 0);
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        Stats {
            queued: shared.queue.len() as u64,
            displaced: shared.queue.displaced(),
            expired: shared.queue.expired(),
            open_queries: shared.queries.len() as u64,
            ..shared.counters.read()
        }
    }

    /// How long the server took to answer, since the client was made.
    ///
    /// ```
    /// # use qproxy_mqtt::{MqttClient, MqttConfig};
    /// let client = MqttClient::new(MqttConfig::default());
    /// assert_eq!(client.latencies().publish.quantile(0.99), None);
    /// ```
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        self.shared().latencies.read()
    }

    /// The messages of all subscriptions, but for those that a [`MqttClient::subscribe_stream`] or a responder
    /// takes. Call it before `connect`: what nobody listens for is acknowledged, dropped and counted as `unclaimed`.
    /// (In manual mode it waits for the first call instead.) A second call ends the first receiver.
    ///
    /// ```no_run
    /// # async fn example(client: qproxy_mqtt::MqttClient) -> Result<(), qproxy_mqtt::Error> {
    /// let mut messages = client.messages();
    /// client.connect().await?;
    /// client.subscribe("lamp/+", qproxy_mqtt::QoS::AtLeastOnce).await?;
    /// while let Some(message) = messages.recv().await {
    ///     println!("{}: {} bytes", message.topic, message.payload.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.shared().inbox.everything()
    }
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
        self.left = Some(ended.left);
        ended.result
    }
}

/// The last clone is gone: the driver drains, leaves in order, and ends by itself.
impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave.send_replace(Leave::Go(Farewell::InOrder));
        self.shared.queue.close();
    }
}
