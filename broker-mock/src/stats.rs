//! What the broker counts: whatever was dropped, refused or closed has a number here.

/// Counters since the start, and how things stand now. Taken by [`crate::RunningBroker::stats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Network connections now, with or without a CONNECT.
    pub connections: usize,
    /// Clients that are connected now.
    pub clients: usize,
    /// Sessions now, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions now.
    pub subscriptions: usize,
    /// Retained messages now.
    pub retained_messages: usize,
    /// Bytes of the retained messages now.
    pub retained_bytes: usize,
    /// Bytes that wait or are in flight now.
    pub queued_bytes: usize,
    /// What has happened since the start.
    pub counters: Counters,
}

/// What has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections closed at once because of `Limits::connections`.
    pub connections_over_limit: u64,
    /// Connections closed because their TLS handshake failed, or was not begun by another machine.
    pub handshake_errors: u64,
    /// CONNECTs of MQTT 5 that were accepted.
    pub connects_v5: u64,
    /// CONNECTs answered with a code other than 0.
    pub connects_refused: u64,
    /// Packets received.
    pub packets_received: u64,
    /// PUBLISH packets received.
    pub publishes_received: u64,
    /// PUBLISH packets sent.
    pub publishes_sent: u64,
    /// Messages dropped because a queue or its bytes were full.
    pub dropped_queue_full: u64,
    /// QoS 0 messages that waited when their client went away.
    pub dropped_offline: u64,
    /// Messages that were still held by a session when it ended.
    pub dropped_session_ended: u64,
    /// Messages that were larger than their receiver takes (MQTT 5: Maximum Packet Size).
    pub dropped_too_large: u64,
    /// Messages whose Message Expiry Interval ended before they were sent.
    pub messages_expired: u64,
    /// Messages that were not taken from their publisher: topic or properties over a limit, or a payload that is not
    /// the text it is said to be.
    pub publishes_refused: u64,
    /// Messages that their receiver answered with an error.
    pub rejected_by_receiver: u64,
    /// Messages on topics that only the broker may use (`$SYS/`, `$share/`), acknowledged and ignored.
    pub dropped_reserved_topic: u64,
    /// Messages that were delivered but not retained for want of room.
    pub retained_refused: u64,
    /// Subscriptions answered with a failure.
    pub subscriptions_refused: u64,
    /// Acknowledgements that no message waited for.
    pub unexpected_acknowledgements: u64,
    /// Repeated QoS 2 messages that were recognised and not delivered again.
    pub duplicates_suppressed: u64,
    /// Messages of a shared subscription that moved to another member.
    pub shared_reassigned: u64,
    /// Connections closed because the same client id connected again.
    pub takeovers: u64,
    /// Sessions that ended because they were offline for too long.
    pub sessions_expired: u64,
    /// Offline sessions that gave way to a new one.
    pub sessions_evicted: u64,
    /// Wills published.
    pub wills_published: u64,
    /// Wills whose client came back before their delay was over.
    pub wills_cancelled: u64,
    /// Connections closed for malformed bytes or a breach of the protocol.
    pub protocol_errors: u64,
    /// Connections closed for a limit of this broker.
    pub limit_errors: u64,
    /// Connections closed because the client was silent for 1.5 times its keep alive.
    pub keep_alive_timeouts: u64,
    /// Connections closed because no CONNECT came in time.
    pub connect_timeouts: u64,
    /// Connections closed because their socket took no byte for too long.
    pub write_timeouts: u64,
}

impl Counters {
    /// All messages that were to be delivered and were not.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full
            + self.dropped_offline
            + self.dropped_session_ended
            + self.dropped_too_large
    }
}
