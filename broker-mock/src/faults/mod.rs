//! A broker for tests: the same core and driver, with a script of faults and a record of all that passed.
//!
//! The plain broker contains none of this: its connections have a tap that does nothing.

mod script;
mod second_opinion;
mod tap;
mod transcript;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use qproxy_mqtt::codec::ReasonCode;

use crate::core::{CloseReason, ConnectionId};
use crate::driver::MakeTap;
use crate::{Config, Error, RunningBroker, Stats};
use script::Rules;
use tap::FaultTap;
use transcript::Record;

pub use script::{Direction, Fault, Rule, Scope, Script, When};
pub use transcript::{Entry, Event};

/// A broker that does what a script says.
#[derive(Debug)]
pub struct MockBroker {
    broker: RunningBroker,
    shared: Arc<Shared>,
}

/// What all connections of one mock share.
#[derive(Debug)]
struct Shared {
    seed: u64,
    second_opinion: bool,
    rules: Mutex<Rules>,
    record: Mutex<Record>,
}

impl MockBroker {
    /// Starts on `127.0.0.1`, on a port that the system chooses, with default limits.
    ///
    /// # Errors
    /// As [`MockBroker::bind`].
    pub async fn start(script: Script) -> Result<Self, Error> {
        let config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self::bind(config, script).await
    }

    /// Starts with a configuration of its own.
    ///
    /// # Errors
    /// The configuration is refused, or the system refuses the address.
    pub async fn bind(config: Config, script: Script) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            seed: script.seed,
            second_opinion: script.second_opinion,
            rules: Mutex::new(Rules::new(script.rules)),
            record: Mutex::new(Record::new(script.transcript_entries)),
        });
        let broker = RunningBroker::start(config, Taps(Arc::clone(&shared))).await?;
        Ok(Self { broker, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// How things stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.broker.stats()
    }

    /// Everything that passed so far, oldest first; the oldest are gone once there are more than
    /// [`Script::transcript_entries`].
    #[must_use]
    pub fn transcript(&self) -> Vec<Entry> {
        lock(&self.shared.record).entries()
    }

    /// Adds a rule; it counts packets from now on.
    pub fn add(&self, rule: Rule) {
        lock(&self.shared.rules).add(rule);
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Cuts every connection; wills are published where the clients have some.
    pub fn disconnect_all(&self) {
        self.broker.hub().with(|broker, _| {
            broker.cut_all(&CloseReason::Fault);
        });
    }

    /// Closes a client's connection with this reason in DISCONNECT (MQTT 5; others are only closed); `false` where it is
    /// not connected.
    pub fn disconnect(&self, client_id: &str, reason: ReasonCode) -> bool {
        self.broker.hub().with(|broker, _| {
            let connection = broker.connection_of(client_id);
            if let Some(connection) = connection {
                broker.dismiss(connection, reason);
            }
            connection.is_some()
        })
    }

    /// Cuts every connection and forgets every session, as a broker does that was started afresh.
    pub fn forget_sessions(&self) {
        self.broker.hub().with(|broker, _| {
            broker.close_all(&CloseReason::Fault);
            broker.forget_offline_sessions();
        });
    }

    /// Writes bytes to a connected client as they are; `false` where it is not connected.
    pub fn send_raw(&self, client_id: &str, bytes: Bytes) -> bool {
        let hub = self.broker.hub();
        let connection = hub.with(|broker, _| broker.connection_of(client_id));
        connection.is_some_and(|connection| hub.send_raw(connection, bytes))
    }

    /// Stops as [`RunningBroker::shutdown`] does, and returns the transcript.
    pub async fn shutdown(self) -> Vec<Entry> {
        self.broker.shutdown().await;
        lock(&self.shared.record).entries()
    }
}

struct Taps(Arc<Shared>);

impl MakeTap for Taps {
    type Tap = FaultTap;

    fn make(&mut self, connection: ConnectionId) -> FaultTap {
        FaultTap::new(Arc::clone(&self.0), connection)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
