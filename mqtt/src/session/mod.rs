//! The protocol state of one client (sections 3 and 4), without a socket and without a clock.
//!
//! Commands, packets and `now` go in; bytes (the [`Outbox`]) and [`Event`]s come out. It outlives connections:
//! [`Session::connected`] resumes what an earlier one left open. `P` and `S` are whatever the caller wants back when
//! a publish, or a subscribe, is complete. It does not queue publishes: the caller asks [`Session::window_free`]
//! first, so that what waits has one bound in one place.

mod outbox;
mod outgoing;
mod incoming;
mod keep_alive;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::codec::{Kind, Packet, Publish, QoS, ReasonCode, Subscription, Text};

pub use incoming::AckId;
pub use keep_alive::DeadPeer;
pub use outbox::Outbox;

use incoming::Incoming;
use keep_alive::KeepAlive;
use outgoing::Outgoing;

/// What a session is built with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Publishes of QoS 1 and 2 in flight at once; 1 to 65,535 (a 0 counts as 1).
    pub window: u16,
    /// How many of those may be of QoS 2; 1 at least.
    pub window_exactly_once: u16,
    /// Whether the server is told to forget everything (3.1.2.4).
    pub clean_session: bool,
    /// Longest silence in either direction; zero switches pings off.
    pub keep_alive: Duration,
    /// Who acknowledges what arrives.
    pub ack_mode: AckMode,
}

/// Who acknowledges messages of QoS 1 and 2 that arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckMode {
    /// The client, as a message enters the queue towards the program.
    #[default]
    Auto,
    /// The program, with `message.ack()`; before that the server keeps the message.
    Manual,
}

/// What the program does with a message it was to acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done with it: PUBACK or PUBREC goes out, in the order of arrival.
    Acknowledged,
    /// Let go without: nothing goes out, and the server sends it again in the next connection.
    Dropped,
}

/// What the session reports.
#[derive(Debug)]
pub enum Event<P, S> {
    /// A publish of QoS 1 or 2 is complete.
    Published(P),
    /// SUBACK came, with one code for each filter.
    Subscribed(S, Vec<ReasonCode>),
    /// UNSUBACK came.
    Unsubscribed(S),
    /// A message arrived; it has an [`AckId`] where the program has to settle it.
    Message(Publish, Option<AckId>),
    /// The server refused to renew this filter after it had lost the session.
    RenewalRefused(Text),
}

/// Room for publishes in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowFree {
    /// Of QoS 1 and 2 together.
    pub acknowledged: usize,
    /// Of QoS 2 among them.
    pub exactly_once: usize,
}

impl WindowFree {
    /// Takes room for one publish; whether there was any.
    pub fn take(&mut self, qos: QoS) -> bool {
        let (acknowledged, exactly_once) = match qos {
            QoS::AtMostOnce => (0, 0),
            QoS::AtLeastOnce => (1, 0),
            QoS::ExactlyOnce => (1, 1),
        };
        let fits = self.acknowledged >= acknowledged && self.exactly_once >= exactly_once;
        if fits {
            self.acknowledged -= acknowledged;
            self.exactly_once -= exactly_once;
        }
        fits
    }
}

/// What [`Session::connected`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    /// Publishes sent again.
    pub republished: usize,
    /// Filters subscribed again, because the server had lost them.
    pub resubscribed: usize,
}

/// The server broke the protocol; the connection has to be closed (section 4.8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A packet that only a client may send, or a second CONNACK.
    #[error("server sent {0}, which it must not at this point [MQTT-4.8.0-1]")]
    Unexpected(Kind),
    /// Another number of codes than filters were asked for.
    #[error("SUBACK has {found} codes for {expected} filters [MQTT-3.8.4-5]")]
    CodeCount {
        /// Filters asked for.
        expected: usize,
        /// Codes received.
        found: usize,
    },
    /// More than all packet ids can be open at once.
    #[error("server has more than 65,535 messages unacknowledged (section 2.3.1)")]
    TooManyUnacknowledged,
}

/// See the module.
#[derive(Debug)]
pub struct Session<P, S> {
    clean_session: bool,
    outbox: Outbox,
    events: Vec<Event<P, S>>,
    outgoing: Outgoing<P, S>,
    incoming: Incoming,
    subscriptions: BTreeMap<Text, QoS>,
    keep_alive: KeepAlive,
    ignored: u64,
}

impl<P, S> Session<P, S> {
    /// A session that was never connected.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            clean_session: config.clean_session,
            outbox: Outbox::default(),
            events: Vec::new(),
            outgoing: Outgoing::new(config.window, config.window_exactly_once),
            incoming: Incoming::new(config.ack_mode),
            subscriptions: BTreeMap::new(),
            keep_alive: KeepAlive::new(config.keep_alive),

            ignored: 0,
        }
    }

    /// The server accepted the connection: sends again what is open, in its first order.
    ///
    /// With the session present, publishes go out with DUP under their old ids (4.4). Without it they are published
    /// anew, releases count as done (the server had taken the message over), and subscriptions are renewed.
    pub fn connected(&mut self, session_present: bool, now: Instant) -> Resumed {
        self.keep_alive.start(now);
        let present = session_present && !self.clean_session;
        let mut resubscribed = 0;
        let republished = self
            .outgoing
            .resume(present, &mut self.outbox, &mut self.events);
        if !present {
            self.incoming.session_lost();
            resubscribed = self.subscriptions.len();
            self.outgoing.renew(&self.subscriptions);
        }
        self.outgoing.pump_control(&mut self.outbox);
        Resumed {
            republished,
            resubscribed,
        }
    }

    /// The connection is gone; what is not acknowledged waits for the next one.
    pub fn connection_lost(&mut self) {
        self.outbox.clear();
        self.outgoing.connection_lost();
        self.incoming.connection_lost();
        self.keep_alive.stop();
    }

    /// How many subscribes and unsubscribes may be handed over now, for those that wait to have a bound.
    #[must_use]
    pub fn controls_free(&self) -> usize {
        self.outgoing.controls_free()
    }

    /// How many publishes may be handed over now.
    #[must_use]
    pub fn window_free(&self) -> WindowFree {
        self.outgoing.window_free()
    }

    /// Publishes in flight plus subscribes and unsubscribes without an answer.
    #[must_use]
    pub fn open(&self) -> usize {
        self.outgoing.open()
    }

    /// Puts a publish on the wire. Its `id` and `dup` are set here.
    ///
    /// The token comes back at once for QoS 0, which is complete when its bytes are written; otherwise with
    /// [`Event::Published`]. The topic has to be valid and the size within limits.
    pub fn publish(&mut self, publish: Publish, token: P) -> Option<P> {
        self.outgoing.publish(publish, token, &mut self.outbox)
    }

    /// Asks for filters; they have to be valid.
    pub fn subscribe(&mut self, filters: Vec<Subscription>, token: S) {
        self.outgoing.subscribe(filters, token);
        if self.keep_alive.is_connected() {
            self.outgoing.pump_control(&mut self.outbox);
        }
    }

    /// Gives filters up; they have to be valid.
    pub fn unsubscribe(&mut self, filters: Vec<Text>, token: S) {
        self.outgoing.unsubscribe(filters, token);
        if self.keep_alive.is_connected() {
            self.outgoing.pump_control(&mut self.outbox);
        }
    }

    /// The program has settled a message. Ids of earlier connections are fine.
    pub fn settle(&mut self, id: AckId, settled: Settled) {
        self.incoming.settle(id, settled, &mut self.outbox);
    }

    /// Takes a packet from the server.
    ///
    /// # Errors
    /// The server broke the protocol.
    pub fn receive(&mut self, packet: Packet, now: Instant) -> Result<(), Violation> {
        self.keep_alive.received(now);
        let expected = match packet {
            Packet::Publish(publish) => {
                let delivered = self.incoming.publish(publish, &mut self.outbox)?;
                self.events
                    .extend(delivered.map(|(publish, id)| Event::Message(publish, id)));
                true
            }
            Packet::PubRel(ack) => self.incoming.release(ack.id, &mut self.outbox),
            Packet::PubAck(ack) => self.outgoing.puback(ack.id, &mut self.events),
            Packet::PubRec(ack) => self.outgoing.pubrec(ack.id, &mut self.outbox),
            Packet::PubComp(ack) => self.outgoing.pubcomp(ack.id, &mut self.events),
            Packet::SubAck(suback) => {
                self.outgoing
                    .suback(suback, &mut self.subscriptions, &mut self.events)?
            }
            Packet::UnsubAck(ack) => {
                self.outgoing
                    .unsuback(ack.id, &mut self.subscriptions, &mut self.events)
            }
            Packet::PingResp => true,
            other => return Err(Violation::Unexpected(other.kind())),
        };
        self.ignored += u64::from(!expected);
        self.outgoing.pump_control(&mut self.outbox);
        Ok(())
    }

    /// Bytes went out to the server. With more of them waiting, a ping could not have left yet: that the network
    /// takes them counts for an answer, so that a slow upload is not taken for a dead server.
    pub fn wrote(&mut self, now: Instant) {
        self.keep_alive.sent(now);
        if !self.outbox.is_empty() {
            self.keep_alive.received(now);
        }
    }

    /// When to call [`Session::tick`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.keep_alive.deadline()
    }

    /// Sends a ping where one is due.
    ///
    /// # Errors
    /// Nothing has come for one and a half keep-alives.
    pub fn tick(&mut self, now: Instant) -> Result<(), DeadPeer> {
        if self.keep_alive.tick(now)? {
            self.outbox.push_ping();
        }
        Ok(())
    }

    /// The reader stands still because the program is slow: the server's silence proves nothing meanwhile.
    pub fn reading_paused(&mut self, now: Instant) {
        self.keep_alive.received(now);
    }

    /// The bytes to write.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Takes the events so far into `into`, which keeps its memory.
    pub fn take_events(&mut self, into: &mut Vec<Event<P, S>>) {
        into.append(&mut self.events);
    }

    /// Answers that belonged to nothing, and were ignored.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Filters that the server has granted.
    #[must_use]
    pub fn subscriptions(&self) -> &BTreeMap<Text, QoS> {
        &self.subscriptions
    }

    /// Takes every token out. What they stand for stays open, with nobody left to be told.
    pub fn take_tokens(&mut self) -> (Vec<P>, Vec<S>)
    where
        P: Default,
        S: Default,
    {
        self.outgoing.take_tokens()
    }

    /// Takes every token out, with nobody left to be told. What is in flight stays for a later connection, unless
    /// the session is a clean one: then it is forgotten.
    pub fn abandon(&mut self) -> (Vec<P>, Vec<S>)
    where
        P: Default,
        S: Default,
    {
        self.connection_lost();
        self.outgoing.abandon(self.clean_session)
    }
}
