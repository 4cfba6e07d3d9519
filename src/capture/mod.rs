//! The tee: a capped copy of what flows through a proxy, on its way to the spool.
//!
//! ```text
//! proxy tasks --(Tee, StreamTee: copies, counts)--> Queue --> worker thread: filter, redact, encode --> Outlet
//! ```
//!
//! It never delays the client: the proxy's side takes no lock, no disk and no broker round trip. All copies
//! together stay under one budget of bytes; past it the copy is dropped, counted, and leaves a gap in the
//! sequence, while the traffic goes on. The worker gives out the sequence numbers, so they have no holes.

mod settings;
mod redact;
mod head;
mod body;
mod queue;
mod messages;
mod pace;
mod exchange;
mod frames;
mod upgrade;
mod stream;
#[cfg(not(fuzzing))]
mod calls;
/// The readers of what is said on streams; public only where they are fuzzed.
#[cfg(fuzzing)]
pub mod calls;
mod model;
mod encode;
mod worker;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::record::{
    ConnectionId, Epoch, IdSource, Keyring, NodeId, Protocol, Sequence, Subject, TlsFacts,
};

pub use exchange::{InterimTee, RequestTee, ResponseTee, Tee};
pub use metrics::{Metrics, Stats};
pub use settings::{Glob, InvalidSetting, Rule, Settings, StatusMatch};
pub use stream::StreamTee;

use calls::Budget;
use queue::Queue;
use stream::Keeps;
use worker::Worker;

/// The request header that replayed traffic carries; such requests are not recorded again.
pub const REPLAY_HEADER: &str = "qproxy-replay";

/// What a chunk's or a segment's message needs beside the bytes.
const MESSAGE_OVERHEAD: usize = 512;
/// The same of a sealed one, which has an outside as well.
const SEALED_OVERHEAD: usize = 1024;

/// The limits of capture; what can change while it runs is in [`Settings`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The recorder's name.
    pub node: NodeId,
    /// What all copies together may hold before they are encoded, in bytes.
    pub queue_bytes: usize,
    /// How many messages may wait for the encoder.
    pub queue_items: usize,
    /// The largest body that stands in its record, in bytes.
    pub inline_bytes: usize,
    /// The size of a chunk of a larger body, in bytes.
    pub chunk_bytes: usize,
    /// The largest encoded item, in bytes.
    pub max_message_bytes: usize,
    /// What is kept of one TCP or WebSocket stream, in bytes.
    pub max_stream_bytes: u64,
    /// The largest JSON body that is held back for redaction by JSON paths, in bytes.
    pub redact_buffer_bytes: usize,
    /// What the calls that are told apart on all open TCP streams may take together, in bytes.
    pub calls_bytes: usize,
    /// How long the encoder waits for more before it works on little.
    pub linger: Duration,
    /// What holds at start.
    pub settings: Settings,
    /// Whose first key seals what is recorded; without one it can be read by anyone.
    pub keys: Arc<Keyring>,
}

impl Config {
    /// The defaults for a recorder of this name.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            queue_bytes: 32 << 20,
            queue_items: 65_536,
            inline_bytes: 16 << 10,
            chunk_bytes: 48 << 10,
            max_message_bytes: 60 << 10,
            max_stream_bytes: 64 << 20,
            redact_buffer_bytes: 1 << 20,
            calls_bytes: 16 << 20,
            linger: Duration::from_millis(2),
            settings: Settings::default(),
            keys: Arc::default(),
        }
    }

    /// Looks whether capture could start with it.
    ///
    /// # Errors
    /// [`Error::Limit`] where a limit makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |name, wanted| Err(Error::Limit { name, wanted });
        if self.max_message_bytes < 4096 {
            return wrong("max_message_bytes", "at least 4096");
        }
        let (overhead, wanted) = match self.keys.writing() {
            None => (MESSAGE_OVERHEAD, "over 0 and 512 under max_message_bytes"),
            Some(_) => (
                SEALED_OVERHEAD,
                "over 0 and 1024 under max_message_bytes, where items are sealed",
            ),
        };
        if self.chunk_bytes == 0 || self.chunk_bytes + overhead > self.max_message_bytes {
            return wrong("chunk_bytes", wanted);
        }
        if self.inline_bytes > self.chunk_bytes {
            return wrong("inline_bytes", "at most chunk_bytes");
        }
        if self.queue_bytes < 2 * self.max_message_bytes {
            return wrong("queue_bytes", "at least twice max_message_bytes");
        }
        if self.queue_items == 0 {
            return wrong("queue_items", "at least 1");
        }
        if self.linger > Duration::from_secs(1) {
            return wrong("linger", "at most a second");
        }
        Ok(())
    }
}

/// Why capture cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit that makes no sense.
    #[error("capture limit `{name}` must be {wanted}")]
    Limit {
        /// Its name.
        name: &'static str,
        /// What is allowed.
        wanted: &'static str,
    },
    /// The operating system gave no thread.
    #[error("start the capture thread")]
    Thread(#[source] std::io::Error),
}

/// One encoded item, ready for the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its place in the recorder's sequence; a gap's first.
    pub seq: Sequence,
    /// How many places it takes; more than 1 for gaps only.
    pub span: u64,
    /// What it is about.
    pub subject: Subject,
    /// Its MessagePack form.
    pub payload: Bytes,
}

/// An outlet could not take a batch: all of it is lost.
#[derive(Debug, thiserror::Error)]
#[error("append captured items")]
pub struct OutletError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where encoded items go: the spool, seen from here.
pub trait Outlet: Send {
    /// The recorder's life that the outlet was opened for.
    fn epoch(&self) -> Epoch;

    /// Takes a batch, all or nothing; may block, as it is called on capture's own thread.
    ///
    /// # Errors
    /// [`OutletError`] where none of the batch was kept.
    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError>;
}

/// What the exchanges of one client connection have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The connection, unique within this recorder's life.
    pub id: ConnectionId,
    /// The service that the listener stands in front of.
    pub service: Arc<str>,
    /// The client's address, `ip:port`.
    pub client: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Its TLS, where the listener ended one.
    pub tls: Option<TlsFacts>,
}

/// The handle that proxies capture with; cheap to clone.
#[derive(Debug, Clone)]
pub struct Capture(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: Queue,
    calls: Budget,
    ids: IdSource,
    settings: ArcSwap<Settings>,
    sampled: AtomicU64,
    epoch: Instant,
    metrics: Metrics,
    config: Config,
    worker: Worker,
}

impl Capture {
    /// Starts capture, with its thread, in front of `outlet`.
    ///
    /// # Errors
    /// [`Error`] where a limit makes no sense or there is no thread.
    pub fn start(config: Config, metrics: Metrics, outlet: Box<dyn Outlet>) -> Result<Self, Error> {
        config.check()?;
        let (worker, ready) = Worker::new();
        let inner = Arc::new(Inner {
            queue: Queue::new(config.queue_bytes, config.queue_items),
            calls: Budget::new(config.calls_bytes),
            ids: IdSource::default(),
            settings: ArcSwap::from_pointee(config.settings.clone()),
            sampled: AtomicU64::new(0),
            epoch: Instant::now(),
            metrics,
            config,
            worker,
        });
        ready
            .spawn(Arc::clone(&inner), outlet)
            .map_err(Error::Thread)?;
        Ok(Self(Some(inner)))
    }

    /// A handle that captures nothing, for a node that only forwards.
    #[must_use]
    pub const fn disabled() -> Self {
        Self(None)
    }

    /// Begins the copy of an HTTP exchange; `None` where it is not to be copied: capture is off or paused,
    /// the exchange is sampled or filtered out, was sent by a replay, or there is no room.
    #[must_use]
    pub fn begin(&self, connection: &Arc<Connection>, head: &http::request::Parts) -> Option<Tee> {
        self.begin_as_sent(connection, head, None)
    }

    /// [`Capture::begin`] with the head's bytes as they came over HTTP/1.1, which have the order and the case of
    /// the names.
    #[must_use]
    pub fn begin_as_sent(
        &self,
        connection: &Arc<Connection>,
        head: &http::request::Parts,
        raw: Option<&[u8]>,
    ) -> Option<Tee> {
        let inner = self.0.as_ref()?;
        let settings = inner.wanted()?;
        if head.headers.contains_key(REPLAY_HEADER) {
            inner.metrics.skipped.replay.inc();
            return None;
        }
        if !settings.may_keep_request(head) {
            inner.metrics.skipped.filtered.inc();
            return None;
        }
        Tee::begin(inner, settings, connection, head, raw)
    }

    /// Begins the copy of a byte stream; `None` as for [`Capture::begin`].
    #[must_use]
    pub fn begin_stream(&self, connection: &Arc<Connection>) -> Option<StreamTee> {
        let inner = self.0.as_ref()?;
        inner.wanted()?;
        StreamTee::begin(inner, connection, Keeps::Segments)
    }

    /// Begins the account of a byte stream of which no byte is kept; `None` as for [`Capture::begin`].
    #[must_use]
    pub fn begin_summary(&self, connection: &Arc<Connection>) -> Option<StreamTee> {
        let inner = self.0.as_ref()?;
        inner.wanted()?;
        StreamTee::begin(inner, connection, Keeps::Nothing)
    }

    /// Stops to begin copies; those that have begun are completed.
    pub fn pause(&self) {
        self.change(|settings| settings.enabled = false);
    }

    /// Begins copies again.
    pub fn resume(&self) {
        self.change(|settings| settings.enabled = true);
    }

    /// Copies this share of the exchanges, 0 to 1, evenly spread.
    pub fn set_sample(&self, share: f64) {
        self.change(|settings| settings.sample = share.clamp(0.0, 1.0));
    }

    /// Replaces all settings for what begins from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.change(|old| *old = settings.clone());
    }

    /// The settings that hold now; `None` for a handle that captures nothing.
    #[must_use]
    pub fn settings(&self) -> Option<Arc<Settings>> {
        self.0.as_ref().map(|inner| inner.settings.load_full())
    }

    /// What was captured and dropped so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0
            .as_ref()
            .map(|inner| inner.metrics.stats(&inner.queue))
            .unwrap_or_default()
    }

    /// Hands all that waits to the outlet and ends the thread; tells whether that was done within `grace`.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        match &self.0 {
            None => true,
            Some(inner) => inner.worker.shutdown(&inner.queue, grace).await,
        }
    }

    fn change(&self, change: impl Fn(&mut Settings)) {
        if let Some(inner) = &self.0 {
            inner.settings.rcu(|old| {
                let mut new = Settings::clone(old);
                change(&mut new);
                new
            });
        }
    }
}

impl Inner {
    /// The settings, where the next exchange or stream is to be copied.
    fn wanted(&self) -> Option<arc_swap::Guard<Arc<Settings>>> {
        let settings = self.settings.load();
        if !settings.enabled {
            self.metrics.skipped.paused.inc();
            return None;
        }
        if settings.sample < 1.0 && !self.in_sample(settings.sample) {
            self.metrics.skipped.sampled.inc();
            return None;
        }
        Some(settings)
    }

    /// Picks one in 1/share evenly: the n-th is taken where the running total passes a whole number.
    fn in_sample(&self, share: f64) -> bool {
        // Exact for the first 2^53 exchanges, which is 28,000 years at 10,000 a second.
        let n = self.sampled.fetch_add(1, Relaxed) as f64;
        ((n + 1.0) * share).floor() > (n * share).floor()
    }

    /// Microseconds between two moments, 0 where they are the wrong way round.
    fn micros(from: Instant, to: Instant) -> u64 {
        u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
    }

    fn wall_us() -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
            })
    }
}

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
