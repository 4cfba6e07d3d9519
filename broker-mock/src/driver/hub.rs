//! The core behind its lock, and the outboxes its actions go to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use qproxy_mqtt::codec::Packet;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::{Action, Broker, CloseReason, ConnectionId};
use crate::{Config, Limits};

/// What all tasks of one broker share.
#[derive(Debug)]
pub(crate) struct Hub {
    core: Mutex<Core>,
    limits: Limits,
    start: Instant,
}

#[derive(Debug)]
struct Core {
    broker: Broker,
    outboxes: HashMap<ConnectionId, Arc<Outbox>>,
}

impl Hub {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            core: Mutex::new(Core {
                broker: Broker::new(config),
                outboxes: HashMap::new(),
            }),
            limits: config.limits.clone(),
            start: Instant::now(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Gives the core something to do and hands out what follows from it.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Broker, Duration) -> R) -> R {
        let now = self.now();
        let mut core = lock(&self.core);
        let result = act(&mut core.broker, now);
        core.dispatch();
        result
    }

    /// Writes bytes to a connection as they are; `false` where there is none.
    pub(crate) fn send_raw(&self, connection: ConnectionId, bytes: Bytes) -> bool {
        let outbox = lock(&self.core).outboxes.get(&connection).cloned();
        if let Some(outbox) = &outbox {
            lock(&outbox.pending).raw.push(bytes);
            outbox.filled.notify_one();
        }
        outbox.is_some()
    }

    /// Makes a connection known; its outbox is there before the core can send to it.
    pub(super) fn join(&self, connection: ConnectionId) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::default());
        let now = self.now();
        let mut core = lock(&self.core);
        core.outboxes.insert(connection, Arc::clone(&outbox));
        core.broker.connected(connection, now);
        core.dispatch();
        outbox
    }

    pub(super) fn leave(&self, connection: ConnectionId, reason: &CloseReason) {
        self.with(|broker, now| broker.disconnected(connection, reason, now));
        lock(&self.core).outboxes.remove(&connection);
    }
}

impl Core {
    fn dispatch(&mut self) {
        for action in self.broker.drain() {
            match action {
                Action::Send { connection, packet } => {
                    if let Some(outbox) = self.outboxes.get(&connection) {
                        outbox.push(packet);
                    }
                }
                Action::Close { connection, reason } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        outbox.close(reason);
                    }
                }
            }
        }
    }
}

/// What the core has for one connection. Bounded by the core: it stops at `Limits::outbox_bytes` of messages,
/// and who does not take answers is not read from.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    filled: Notify,
}

/// The contents of an [`Outbox`].
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) packets: Vec<Packet>,
    /// Bytes of a test, behind the packets.
    pub(super) raw: Vec<Bytes>,
    /// To be done when the packets are written.
    pub(super) close: Option<CloseReason>,
}

impl Outbox {
    fn push(&self, packet: Packet) {
        let mut pending = lock(&self.pending);
        pending.packets.push(packet);
        if pending.packets.len() == 1 {
            self.filled.notify_one();
        }
    }

    pub(super) fn close(&self, reason: CloseReason) {
        lock(&self.pending).close = Some(reason);
        self.filled.notify_one();
    }

    /// Everything that is there.
    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *lock(&self.pending))
    }

    /// Resolves when something was put in since the last time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }
}

/// A panic elsewhere must not take the broker down with it: each call leaves the core whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
