//! The recorder's driver: spool -> MQTT, and again where a player asks.
//!
//! One task owns all state and never waits for the network: it hands messages to the client, whose tokens say
//! when the broker has them. The unbroken front of what the broker has is released from the spool. What is
//! decided, and by what, stands in `packer`, `unacked` and `flow`.

mod driver;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use qproxy_mqtt::MqttClient;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::record::{Epoch, NodeId, SequenceRange};
use crate::spool::{self, Spool};

use super::control::{Trouble, log_events, stopped};
use super::endpoint::Endpoint;
use super::error::{Error, ResendError};
use super::flow::FlowConfig;
use super::frame::Compression;
use super::metrics::Metrics;
use super::notice::{Ack, MAX_SEQUENCE, ResendAnswer, ResendRequest};
use super::status::RecorderStatus;
use super::topics::Topics;
use driver::Running;

/// How a recorder publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherConfig {
    /// How messages are packed.
    pub compression: Compression,
    /// The largest payload, before compression; a single item may be larger if it packs under it.
    pub max_payload_bytes: usize,
    /// Messages handed to the broker that it has not acknowledged, at most.
    pub max_unacked: u16,
    /// How much is read from the spool at once.
    pub read_bytes: usize,
    /// How long to wait for more to pack while messages are on their way.
    pub linger: Duration,
    /// With fewer messages than this on their way nothing lingers.
    pub eager_messages: usize,
    /// How far to run ahead of players.
    pub flow: FlowConfig,
    /// How often the head is told while it moves.
    pub head_interval: Duration,
    /// How often it is told otherwise.
    pub head_idle: Duration,
    /// Messages sent again per second, at most.
    pub resend_per_second: u32,
    /// Items that one request to send again gets, at most.
    pub resend_items: usize,
    /// The first pause after a failed publish; doubled up to `longest_pause`.
    pub first_pause: Duration,
    /// The longest pause after failed publishes.
    pub longest_pause: Duration,
    /// How long to wait at shutdown for what is on its way.
    pub drain: Duration,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            max_payload_bytes: 60 << 10,
            max_unacked: 64,
            read_bytes: 512 << 10,
            linger: Duration::from_millis(5),
            eager_messages: 4,
            flow: FlowConfig::default(),
            head_interval: Duration::from_millis(250),
            head_idle: Duration::from_secs(5),
            resend_per_second: 500,
            resend_items: 1000,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            drain: Duration::from_secs(5),
        }
    }
}

/// Requests that wait to be sent again; beyond, callers hear that we are busy.
const RESEND_QUEUE: usize = 2;
const ACK_QUEUE: usize = 256;

/// The recorder's end of the bus, to be run.
#[derive(Debug)]
pub struct Publisher {
    config: PublisherConfig,
    endpoint: Endpoint,
    client_id: String,
    node: NodeId,
    topics: Topics,
    spool: Spool,
    metrics: Metrics,
    acks: mpsc::Receiver<(NodeId, Ack)>,
    resends: mpsc::Receiver<Vec<spool::Message>>,
    status: Arc<Mutex<RecorderStatus>>,
}

/// How others speak to a running [`Publisher`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct PublisherHandle {
    spool: Spool,
    resend_items: usize,
    metrics: Metrics,
    acks: mpsc::Sender<(NodeId, Ack)>,
    resends: mpsc::Sender<Vec<spool::Message>>,
    status: Arc<Mutex<RecorderStatus>>,
}

impl PublisherHandle {
    /// A player said what it has. Too many at once are dropped: the next one says it again.
    pub(super) fn heard(&self, player: NodeId, ack: Ack) {
        // A full queue costs one of several acknowledgements per second.
        let _ = self.acks.try_send((player, ack));
    }

    /// Looks up what a player asks for and queues it to be sent again.
    ///
    /// # Errors
    /// [`ResendError`] by what the asker can do.
    pub async fn resend(&self, request: ResendRequest) -> Result<ResendAnswer, ResendError> {
        let result = self.look_up(request).await;
        let outcome = match &result {
            Ok(answer) => {
                let gone: u64 = answer.gone.iter().map(|range| range.get().count()).sum();
                self.metrics.resend_gone.inc_by(gone);
                "served"
            }
            Err(ResendError::Invalid(_)) => "invalid",
            Err(ResendError::Busy) => "busy",
            Err(ResendError::Spool(_) | ResendError::Stopped) => "failed",
        };
        self.metrics
            .resends_served
            .get_or_create(&outcome.into())
            .inc();
        result
    }

    async fn look_up(&self, request: ResendRequest) -> Result<ResendAnswer, ResendError> {
        let ResendRequest { epoch, first, last } = request;
        if first == 0 || first > last || last > MAX_SEQUENCE {
            return Err(ResendError::Invalid(format!("no range: {first} to {last}")));
        }
        let permit = self.resends.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => ResendError::Busy,
            mpsc::error::TrySendError::Closed(()) => ResendError::Stopped,
        })?;
        let (spool, most) = (self.spool.clone(), self.resend_items);
        let range = SequenceRange { first, last };
        let read = move || spool.range(Epoch(epoch), range, most);
        let found = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| ResendError::Stopped)??;
        let answer = ResendAnswer {
            sent: found.messages.len() as u64,
            gone: found.gone.into_iter().map(Into::into).collect(),
            up_to: found.rest.map_or(last, |rest| rest.first - 1),
        };
        permit.send(found.messages);
        Ok(answer)
    }

    /// How it goes.
    #[must_use]
    pub fn status(&self) -> RecorderStatus {
        self.status.lock().clone()
    }
}

impl Publisher {
    /// A publisher for what is in `spool`.
    #[must_use]
    pub fn new(
        config: PublisherConfig,
        endpoint: Endpoint,
        node: NodeId,
        topics: Topics,
        spool: Spool,
        metrics: Metrics,
    ) -> (Self, PublisherHandle) {
        let (ack_sender, acks) = mpsc::channel(ACK_QUEUE);
        let (resend_sender, resends) = mpsc::channel(RESEND_QUEUE);
        let status = Arc::new(Mutex::new(RecorderStatus::default()));
        let handle = PublisherHandle {
            spool: spool.clone(),
            resend_items: config.resend_items,
            metrics: metrics.clone(),
            acks: ack_sender,
            resends: resend_sender,
            status: status.clone(),
        };
        let publisher = Self {
            config,
            client_id: format!("{node}-publisher"),
            endpoint,
            node,
            topics,
            spool,
            metrics,
            acks,
            resends,
            status,
        };
        (publisher, handle)
    }

    /// Publishes until `shutdown`; then waits a moment for what is on its way.
    ///
    /// # Errors
    /// [`Error`] where it cannot go on; what is in the spool stays there, and it can be run again.
    pub async fn run(&mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let status = self.status.clone();
        let result = self.publish(shutdown).await;
        status.lock().connected = false;
        result
    }

    async fn publish(&mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut settings = self.endpoint.client_config(self.client_id.clone());
        settings.window = self.config.max_unacked;
        settings.drain_timeout = self.config.drain;
        let client = MqttClient::new(settings);
        let (events, connection) = (client.events(), client.events());
        let (client_id, server) = (self.client_id.clone(), self.endpoint.to_string());
        let failed = |source| Error::Mqtt {
            client_id: client_id.clone(),
            server: server.clone(),
            source: Box::new(source),
        };
        client.start().await.map_err(failed)?;
        let watch = log_events(
            self.endpoint.clone(),
            "publisher",
            events,
            Trouble::default(),
        );
        let reader = self.spool.reader()?;
        let mut running = Running::new(self, client.clone(), reader);
        let result = tokio::select! {
            result = running.run(&shutdown) => result,
            // With nothing on its way no delivery says so.
            reason = stopped(connection) => Err(failed(reason)),
            never = watch => match never {},
        };
        // What waits is in the spool; without a connection no waiting brings it out.
        if client.is_connected() {
            running.drain().await;
            if let Err(error) = client.disconnect().await {
                tracing::warn!(%error, "publisher left messages; they stay in the spool");
            }
        }
        result
    }
}
