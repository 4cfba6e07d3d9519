//! The broker as a pure state machine: events and `now` in, actions out; no socket, no clock, no task.
//!
//! Every growing thing has a bound in [`Limits`]: what does not fit is dropped or refused, and counted. No call
//! waits for anybody, so one client cannot hold up another. Sessions and retained messages live in memory and are
//! gone with the process; QProxy does not rely on them, its spool and watermarks send again what was lost.

mod auth;
mod connect;
mod filter;
mod message;
mod outbound;
mod packet;
mod publish;
mod retained;
mod session;
mod shared;
mod subscribe;
mod sys;
mod tree;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use qproxy_mqtt::codec::{DecodeError, Packet, ReasonCode, Will};

use crate::stats::{Counters, Stats};
use crate::{Config, Limits};
use auth::Door;
use message::Budget;
use retained::Retained;
use session::{SessionId, Sessions};
use shared::Groups;
use tree::Tree;

pub use packet::weight;

/// A network connection, named by the driver; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the driver has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a packet.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        packet: Packet,
    },
    /// Write what was sent before and close; the broker has forgotten the connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client sent DISCONNECT; its will is not published.
    Disconnected,
    /// The socket was closed or failed without DISCONNECT.
    Gone,
    /// CONNACK said no.
    Refused(ReasonCode),
    /// The bytes are no MQTT.
    Malformed(DecodeError),
    /// A legal packet at the wrong time or in the wrong direction.
    Protocol(&'static str),
    /// A limit of this broker, by its field in [`Limits`].
    Limit(&'static str),
    /// The same client id connected again.
    TakenOver,
    /// Nothing came for 1.5 times the keep alive (MQTT 3.1.1 section 3.1.2.10).
    KeepAlive,
    /// No CONNECT came in time.
    ConnectTimeout,
    /// The socket took no byte for too long.
    WriteTimeout,
    /// The broker stops.
    Shutdown,
    /// A fault script or a test asked for it.
    Fault,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => formatter.write_str("client disconnected"),
            Self::Gone => formatter.write_str("connection lost"),
            Self::Refused(code) => write!(formatter, "refused: {code}"),
            Self::Malformed(error) => write!(formatter, "malformed packet: {error}"),
            Self::Protocol(what) => write!(formatter, "protocol error: {what}"),
            Self::Limit(name) => write!(formatter, "over the limit {name}"),
            Self::TakenOver => formatter.write_str("taken over by a new connection"),
            Self::KeepAlive => formatter.write_str("keep alive timed out"),
            Self::ConnectTimeout => formatter.write_str("no CONNECT in time"),
            Self::WriteTimeout => formatter.write_str("socket took nothing in time"),
            Self::Shutdown => formatter.write_str("broker stops"),
            Self::Fault => formatter.write_str("closed by a fault script"),
        }
    }
}

/// The state of the whole broker.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
    door: Door,
    connections: HashMap<ConnectionId, Connection>,
    sessions: Sessions,
    tree: Tree,
    groups: Groups,
    retained: Retained,
    budget: Budget,
    counters: Counters,
    actions: Vec<Action>,
    now: Duration,
    sys_due: Duration,
    /// For client ids that the broker assigns.
    assigned: u64,
}

#[derive(Debug)]
struct Connection {
    /// When its last packet came, or when it was made.
    heard: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    AwaitsConnect,
    Online(Online),
}

#[derive(Debug)]
struct Online {
    session: SessionId,
    /// The longest silence allowed: 1.5 times the client's keep alive.
    patience: Option<Duration>,
    will: Option<Will>,
}

impl Broker {
    /// A broker without clients. `now` of every later call counts from any fixed point and never goes back.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let limits = config.limits.clone();
        Self {
            door: Door::new(config),
            connections: HashMap::new(),
            sessions: Sessions::default(),
            tree: Tree::default(),
            groups: Groups::default(),
            retained: Retained::new(limits.retained_messages, limits.retained_bytes),
            budget: Budget::new(limits.total_queued_bytes),
            counters: Counters::default(),
            actions: Vec::new(),
            now: Duration::ZERO,
            sys_due: Duration::ZERO,
            assigned: 0,
            limits,
        }
    }

    /// A socket was accepted. Over `Limits::connections` it is closed at once.
    pub fn connected(&mut self, connection: ConnectionId, now: Duration) {
        self.now = now;
        if self.connections.len() >= self.limits.connections {
            self.counters.connections_over_limit += 1;
            let reason = CloseReason::Limit("connections");
            self.actions.push(Action::Close { connection, reason });
            return;
        }
        self.counters.connections_accepted += 1;
        let state = State::AwaitsConnect;
        self.connections
            .insert(connection, Connection { heard: now, state });
    }

    /// A packet came. Packets of a connection that the broker has closed are ignored.
    pub fn packet(&mut self, connection: ConnectionId, packet: Packet, now: Duration) {
        self.now = now;
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        self.counters.packets_received += 1;
        known.heard = now;
        match (&known.state, packet) {
            (State::AwaitsConnect, Packet::Connect(connect)) => self.connect(connection, *connect),
            (State::AwaitsConnect, _) => {
                self.close(connection, CloseReason::Protocol("packet before CONNECT"));
            }
            (State::Online(online), packet) => {
                let session = online.session;
                self.online_packet(connection, session, packet);
            }
        }
    }

    /// Bytes came that are no packet. A CONNECT of another protocol level is answered first
    /// [MQTT-3.1.2-2].
    pub fn malformed(&mut self, connection: ConnectionId, error: DecodeError, now: Duration) {
        self.now = now;
        let Some(known) = self.connections.get(&connection) else {
            return;
        };
        let fresh = matches!(known.state, State::AwaitsConnect);
        if fresh && matches!(error, DecodeError::ProtocolLevel(_)) {
            self.refuse(connection, ReasonCode::UnsupportedProtocolVersion);
        } else {
            self.close(connection, CloseReason::Malformed(error));
        }
    }

    /// The driver has closed the connection, or its peer has.
    pub fn disconnected(&mut self, connection: ConnectionId, reason: &CloseReason, now: Duration) {
        self.now = now;
        self.forget(connection, reason);
    }

    /// `bytes` of [`weight`] were written to the socket: there is room for more.
    pub fn written(&mut self, connection: ConnectionId, bytes: usize) {
        if let Some(session) = self.session_of(connection) {
            self.sessions.written(session, bytes);
            self.pump(session);
        }
    }

    /// Time has passed: time-outs, expiry and the `$SYS` topics. To be called a few times a second.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        self.close_silent();
        for session in self.sessions.expired(now, self.limits.session_expiry) {
            self.counters.sessions_expired += 1;
            self.end_session(session);
        }
        self.publish_sys();
    }

    /// Closes every connection and keeps the sessions; wills are not published.
    pub fn close_all(&mut self, reason: &CloseReason) {
        for connection in self.connections.values_mut() {
            if let State::Online(online) = &mut connection.state {
                online.will = None;
            }
        }
        self.cut_all(reason);
    }

    /// Closes every connection as if the network had failed: wills are published.
    pub fn cut_all(&mut self, reason: &CloseReason) {
        let mut all: Vec<ConnectionId> = self.connections.keys().copied().collect();
        all.sort_unstable();
        for connection in all {
            self.close(connection, reason.clone());
        }
    }

    /// Ends every session that has no connection now, as a broker does that is started afresh.
    pub fn forget_offline_sessions(&mut self) {
        for session in self.sessions.expired(self.now, Duration::ZERO) {
            self.end_session(session);
        }
    }

    /// The connection on which a client is online.
    #[must_use]
    pub fn connection_of(&self, client_id: &str) -> Option<ConnectionId> {
        let session = self.sessions.find(client_id)?;
        self.sessions.get(session)?.connection()
    }

    /// What is to be done since the last call, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// How things stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            clients: self.sessions.online(),
            sessions: self.sessions.len(),
            subscriptions: self.sessions.subscriptions(),
            retained_messages: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            queued_bytes: self.budget.used(),
            counters: self.counters,
        }
    }

    fn online_packet(&mut self, connection: ConnectionId, session: SessionId, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.publish(connection, session, publish),
            Packet::PubAck(ack) => self.puback(session, ack.id),
            Packet::PubRec(ack) => self.pubrec(connection, session, ack.id),
            Packet::PubRel(ack) => self.pubrel(connection, session, ack.id),
            Packet::PubComp(ack) => self.pubcomp(session, ack.id),
            Packet::Subscribe(subscribe) => self.subscribe(connection, session, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(connection, session, &unsubscribe),
            Packet::PingReq => self.send(connection, Packet::PingResp),
            Packet::Disconnect(_) => self.close(connection, CloseReason::Disconnected),
            Packet::Connect(_) => self.close(connection, CloseReason::Protocol("second CONNECT")),
            Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Auth(_) => {
                let reason = CloseReason::Protocol("packet that only a server sends");
                self.close(connection, reason);
            }
        }
    }

    fn close_silent(&mut self) {
        let now = self.now;
        let silent: Vec<(ConnectionId, CloseReason)> = self
            .connections
            .iter()
            .filter_map(|(&id, connection)| {
                let silence = now.saturating_sub(connection.heard);
                let (patience, reason) = match &connection.state {
                    State::AwaitsConnect => {
                        (self.limits.connect_timeout, CloseReason::ConnectTimeout)
                    }
                    State::Online(online) => (online.patience?, CloseReason::KeepAlive),
                };
                (silence > patience).then_some((id, reason))
            })
            .collect();
        for (connection, reason) in silent {
            self.close(connection, reason);
        }
    }

    fn send(&mut self, connection: ConnectionId, packet: Packet) {
        self.actions.push(Action::Send { connection, packet });
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.forget(connection, &reason);
        self.actions.push(Action::Close { connection, reason });
    }

    /// Everything that the end of a connection means for the others.
    fn forget(&mut self, connection: ConnectionId, reason: &CloseReason) {
        let Some(gone) = self.connections.remove(&connection) else {
            return;
        };
        match reason {
            CloseReason::Malformed(_) | CloseReason::Protocol(_) => {
                self.counters.protocol_errors += 1
            }
            CloseReason::Limit(_) => self.counters.limit_errors += 1,
            CloseReason::KeepAlive => self.counters.keep_alive_timeouts += 1,
            CloseReason::ConnectTimeout => self.counters.connect_timeouts += 1,
            CloseReason::WriteTimeout => self.counters.write_timeouts += 1,
            CloseReason::TakenOver => self.counters.takeovers += 1,
            _ => {}
        }
        if let State::Online(online) = gone.state {
            self.leave(online, reason);
        }
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        match &self.connections.get(&connection)?.state {
            State::Online(online) => Some(online.session),
            State::AwaitsConnect => None,
        }
    }
}
