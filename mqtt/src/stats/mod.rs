//! Counters and times that can be read without any metrics crate.

mod histogram;

use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::Histogram;

use histogram::Recorder;

/// How long the server took to answer.
///
/// ```
/// # use qproxy_mqtt::{MqttClient, MqttConfig};
/// let latencies = MqttClient::new(MqttConfig::default()).latencies();
/// assert_eq!(latencies.publish.count(), 0);
/// assert_eq!(latencies.ping.quantile(0.5), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// From the hand-over of a publish of QoS 1 or 2 to the connection until PUBACK or PUBCOMP.
    pub publish: Histogram,
    /// From PINGREQ to PINGRESP.
    pub ping: Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Recorders {
    pub(crate) publish: Recorder,
    pub(crate) ping: Recorder,
}

impl Recorders {
    pub(crate) fn read(&self) -> Latencies {
        Latencies {
            publish: self.publish.read(),
            ping: self.ping.read(),
        }
    }
}

/// A counter that many tasks raise.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What the client has counted since it was made.
        ///
        /// ```
        /// use qproxy_mqtt::{MqttClient, MqttConfig, stats::Stats};
        ///
        /// let stats = MqttClient::new(MqttConfig::default()).stats();
        /// assert_eq!(stats, Stats::default());
        /// ```
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])+ pub $name: u64,)+
            /// Publishes that wait in the queue, now.
            pub queued: u64,
            /// Publishes thrown out of the full queue.
            pub displaced: u64,
            /// Publishes that expired before they were sent.
            pub expired: u64,
            /// Queries that wait for their answer, now.
            pub open_queries: u64,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            /// What is counted here; the rest is 0.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.value(),)+ ..Stats::default() }
            }
        }
    };
}

counters! {
    /// Connections that were accepted.
    connections,
    /// Attempts to connect that failed.
    failed_attempts,
    /// Publishes handed to the wire, without repeats.
    published,
    /// Publishes of QoS 1 and 2 that were acknowledged.
    acknowledged,
    /// Publishes that the server refused, or does not take, or had lost.
    refused,
    /// Publishes sent again after a reconnect.
    republished,
    /// Times the server had lost the session.
    sessions_lost,
    /// Publishes, subscribes and unsubscribes that are sent and have no answer, now.
    in_flight,
    /// Times that calls failed because their answers stood behind messages that nobody received.
    stalls,
    /// Messages received.
    received,
    /// Messages received that nobody listens for.
    unclaimed,
    /// Turns of the driver in which reading stood still because the program was slow.
    pauses,
    /// Times that reading stood still because the server did not take the answers to what it had sent.
    answer_pauses,
    /// Answers of the server that belonged to nothing.
    ignored,
    /// Publishes of QoS 2 that the server answered as if they were of QoS 1: it has them, but they may arrive twice.
    downgraded,
    /// Bytes written.
    bytes_out,
    /// Bytes read.
    bytes_in,
    /// Reads that brought them.
    reads,
    /// Queries asked.
    queries,
    /// Queries that nobody answered in time.
    query_timeouts,
    /// Answers that came too late, or twice.
    late_answers,
    /// Requests that reached a responder.
    requests,
    /// Requests dropped because they were repeats.
    repeated_requests,
    /// Requests answered with "busy".
    busy_requests,
}
