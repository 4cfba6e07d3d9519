//! The protocol state of one client (sections 3 and 4), without a socket and without a clock.
//!
//! Commands, packets and `now` go in; bytes (the [`Outbox`]) and [`Event`]s come out. It outlives connections:
//! [`Session::connected`] resumes what an earlier one left open. `P` and `S` are whatever the caller wants back when
//! a publish, or a subscribe, is complete. It does not queue publishes: the caller asks [`Session::window_free`]
//! first, so that what waits has one bound in one place. One state serves both versions: what only MQTT 5.0 has
//! stands in [`Terms`], which are plain for a server of 3.1.1.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use qproxy_mqtt::codec::{Ack, Packet, PacketId, Publish, QoS, ReasonCode, Version};
//! use qproxy_mqtt::session::*;
//!
//! let config = Config {
//!     version: Version::V311,
//!     window: 10,
//!     window_exactly_once: 5,
//!     continuity: Continuity::Resumed,
//!     keep_alive: Duration::from_secs(60),
//!     ack_mode: AckMode::Manual,
//!     receive_maximum: 100,
//!     topic_alias_maximum: 0,
//!     on_session_lost: OnSessionLost::Republish,
//! };
//! let mut session = Session::<u32, &str>::new(&config);
//! let now = Instant::now();
//! session.connected(&Terms::plain(false), now)?;
//!
//! let publish = Publish {
//!     qos: QoS::AtLeastOnce,
//!     topic: "lamp/1".into(),
//!     ..Publish::default()
//! };
//! assert!(session.window_free().take(publish.qos));
//! assert_eq!(session.publish(publish, 7, now), None, "the token comes with the answer");
//! assert_eq!(session.open(), 1);
//! let bytes = session.outbox().len();
//! session.outbox().advance(bytes);
//! session.wrote(now);
//!
//! session.receive(Packet::PubAck(Ack::from(PacketId::MIN)), now)?;
//! let mut events = Vec::new();
//! session.take_events(&mut events);
//! assert!(matches!(events[..], [Event::Published(7, ReasonCode::Success)]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod event;
mod terms;
mod violation;
mod window;
mod table;
mod in_flight;
mod outbox;
mod outgoing;
mod past;
mod control;
mod alias;
mod incoming;
mod keep_alive;
mod saved;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::codec::{Packet, Publish, Subscription, SubscriptionId, Text, Version};

pub use config::{AckMode, Config, Continuity, OnSessionLost};
pub use event::{Closing, Event, Failure, Resumed};
pub use incoming::{AckId, Settled};
pub use keep_alive::DeadPeer;
pub use outbox::Outbox;
pub use saved::SessionChange;
pub use terms::{Forbidden, Offered, Terms};
pub use violation::Violation;
pub use window::WindowFree;

use control::{Control, Subscriptions};
use incoming::Incoming;
use keep_alive::KeepAlive;
use outgoing::Outgoing;

/// See the module.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// use qproxy_mqtt::codec::{Packet, PacketId, Publish, QoS, Subscription};
///
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// let mut session = Session::<u32, &str>::new(&config);
/// assert!(!session.begins_anew(), "the configuration says to resume");
/// session.connected(&Terms::plain(false), now)?;
///
/// session.subscribe(vec![Subscription::new("lamp/+", QoS::AtLeastOnce)], None, "lamps");
/// let message = Publish {
///     qos: QoS::AtLeastOnce,
///     topic: "lamp/1".into(),
///     id: PacketId::new(9),
///     ..Publish::default()
/// };
/// session.receive(Packet::Publish(message), now)?;
/// let mut events = Vec::new();
/// session.take_events(&mut events);
/// let Some(Event::Message(_, Some(id))) = events.pop() else {
///     panic!("no message to settle");
/// };
/// session.settle(id, Settled::Acknowledged);
///
/// session.tick(now + Duration::from_secs(60))?;
/// assert!(session.tick(now + Duration::from_secs(90)).is_err(), "the server is silent");
/// session.connection_lost();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Without a server in reach, and with one that does not do as it should:
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use qproxy_mqtt::session::*;
/// # use qproxy_mqtt::Version;
/// use qproxy_mqtt::codec::{Ack, Packet, PacketId, Publish, QoS};
///
/// # let config = Config {
/// #     version: Version::V311,
/// #     window: 10,
/// #     window_exactly_once: 5,
/// #     continuity: Continuity::Resumed,
/// #     keep_alive: Duration::from_secs(60),
/// #     ack_mode: AckMode::Manual,
/// #     receive_maximum: 100,
/// #     topic_alias_maximum: 0,
/// #     on_session_lost: OnSessionLost::Republish,
/// # };
/// # let now = Instant::now();
/// # let mut session = Session::<u32, &str>::new(&config);
/// let free = session.controls_free();
/// session.unsubscribe(vec!["lamp/+".into()], "lamps");
/// assert_eq!(session.controls_free(), free - 1, "it waits for a connection");
/// let mut terms = Terms::plain(false);
/// terms.assigned_client_id = Some("chosen-1".into());
/// session.connected(&terms, now)?;
/// assert_eq!(session.controls_free(), free, "it went out");
/// assert!(session.assigned_client_id().is_some_and(|it| it == "chosen-1"));
///
/// let id = PacketId::new(2).expect("not 0, and 1 is that of UNSUBSCRIBE");
/// let qos = QoS::ExactlyOnce;
/// session.publish(Publish { qos, topic: "lamp/1".into(), ..Publish::default() }, 7, now);
/// assert!(!session.is_releasing(), "the server has no session of an earlier process");
/// session.receive(Packet::PubAck(Ack::from(id)), now)?;
/// assert_eq!(session.downgraded(), 1, "PUBREC was due");
/// session.receive(Packet::PubComp(Ack::from(id)), now)?;
/// assert_eq!(session.ignored(), 1);
///
/// assert_eq!(session.deadline(), Some(now + Duration::from_secs(60)));
/// session.reading_paused(now + Duration::from_secs(80));
/// assert!(session.tick(now + Duration::from_secs(90)).is_ok(), "nobody has listened");
///
/// assert_eq!(session.take_tokens(), (vec![], vec!["lamps"]));
/// assert_eq!(session.abandon(), (vec![], vec![""]), "the tokens were taken");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session<P, S> {
    version: Version,
    continuity: Continuity,
    /// Whether a server may have the session from an earlier connection.
    begun: bool,
    assigned_client_id: Option<Text>,
    outbox: Outbox,
    events: Vec<Event<P, S>>,
    outgoing: Outgoing<P, S>,
    incoming: Incoming,
    aliases: alias::Inbound,
    subscriptions: Subscriptions,
    keep_alive: KeepAlive,
    /// What the client asked for; the server may have asked for another.
    keep_alive_interval: Duration,
    ignored: u64,
}

impl<P, S> Session<P, S> {
    /// A session that was never connected.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let (receive_maximum, aliases) = match config.version {
            Version::V311 => (None, 0),
            Version::V5 => (Some(config.receive_maximum), config.topic_alias_maximum),
        };
        Self {
            version: config.version,
            continuity: config.continuity,
            begun: false,
            assigned_client_id: None,
            outbox: Outbox::new(config.version),
            events: Vec::new(),
            outgoing: Outgoing::new(config),
            incoming: Incoming::new(config.ack_mode, receive_maximum),
            aliases: alias::Inbound::new(aliases),
            subscriptions: Subscriptions::new(),
            keep_alive: KeepAlive::new(),
            keep_alive_interval: config.keep_alive,
            ignored: 0,
        }
    }

    /// Whether the next CONNECT has to ask for a new session: clean session in 3.1.1, Clean Start in 5.0.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        match self.continuity {
            Continuity::EachAnew => true,
            Continuity::FirstAnew => !self.begun,
            Continuity::Resumed => false,
        }
    }

    /// The client id that the server chose, to be used from then on (MQTT 5.0 section 3.2.2.3.7).
    #[must_use]
    pub fn assigned_client_id(&self) -> Option<&Text> {
        self.assigned_client_id.as_ref()
    }

    /// The server accepted the connection: sends again what is open, in its first order.
    ///
    /// With the session present, publishes go out with DUP under their old ids (4.4). Without it they are published
    /// anew or fail, releases count as done (the server had taken the message over), and subscriptions are renewed.
    ///
    /// # Errors
    /// The server says that it has a session, to a client that asked for a new one.
    pub fn connected(&mut self, terms: &Terms, now: Instant) -> Result<Resumed, Violation> {
        let anew = self.begins_anew();
        if anew && terms.session_present && self.version == Version::V5 {
            return Err(Violation::SessionPresent);
        }
        self.begun = true;
        if let Some(assigned) = &terms.assigned_client_id {
            self.assigned_client_id = Some(assigned.clone());
        }
        let asked = terms.keep_alive.map(u64::from).map(Duration::from_secs);
        let interval = asked.unwrap_or(self.keep_alive_interval);
        self.keep_alive.start(interval, now);
        let present = terms.session_present && !anew;
        let mut resubscribed = 0;
        let (outbox, events) = (&mut self.outbox, &mut self.events);
        let (republished, failed) =
            self.outgoing
                .resume(terms.clone(), present, now, outbox, events);
        if !present {
            self.incoming.session_lost();
            resubscribed = self.subscriptions.len();
            self.outgoing.renew(&self.subscriptions);
        }
        self.outgoing.pump_control(outbox, events);
        Ok(Resumed {
            republished,
            failed,
            resubscribed,
        })
    }

    /// The connection is gone; what is not acknowledged waits for the next one.
    pub fn connection_lost(&mut self) {
        self.outbox.clear();
        self.outgoing.connection_lost();
        self.incoming.connection_lost();
        self.aliases.connection_lost();
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

    /// Whether publishes wait until the server has let go of ids that an earlier process may have left it: it has kept
    /// the session and we have not, and the first publish of QoS 2 is on its way.
    #[must_use]
    pub fn is_releasing(&self) -> bool {
        self.outgoing.is_releasing()
    }

    /// Publishes in flight plus subscribes and unsubscribes without an answer.
    #[must_use]
    pub fn open(&self) -> usize {
        self.outgoing.open()
    }

    /// Puts a publish on the wire. Its `id` and `dup` are set here; its message expiry counts from `now`.
    ///
    /// The token comes back at once for QoS 0, which is complete when its bytes are written; otherwise with
    /// [`Event::Published`], or with [`Event::PublishFailed`]. The topic has to be valid, the size within limits, and
    /// in MQTT 3.1.1 there have to be no properties.
    pub fn publish(&mut self, publish: Publish, token: P, now: Instant) -> Option<P> {
        let (outbox, events) = (&mut self.outbox, &mut self.events);
        self.outgoing.publish(publish, token, now, outbox, events)
    }

    /// Asks for filters; they have to be valid. All get the same subscription identifier, which has to be `None` in
    /// MQTT 3.1.1.
    pub fn subscribe(&mut self, filters: Vec<Subscription>, id: Option<SubscriptionId>, token: S) {
        self.control(Control::Subscribe(filters, id, token));
    }

    /// Gives filters up; they have to be valid.
    pub fn unsubscribe(&mut self, filters: Vec<Text>, token: S) {
        self.control(Control::Unsubscribe(filters, token));
    }

    fn control(&mut self, control: Control<S>) {
        self.outgoing.waiting.push_back(control);
        if self.keep_alive.is_connected() {
            let (outbox, events) = (&mut self.outbox, &mut self.events);
            self.outgoing.pump_control(outbox, events);
        }
    }

    /// The program has settled a message. Ids of earlier connections are fine.
    pub fn settle(&mut self, id: AckId, settled: Settled) {
        self.incoming.settle(id, settled, &mut self.outbox);
    }

    /// Takes a packet from the server.
    ///
    /// # Errors
    /// The connection has to be closed.
    pub fn receive(&mut self, packet: Packet, now: Instant) -> Result<(), Closing> {
        self.keep_alive.received(now);
        let (outbox, events) = (&mut self.outbox, &mut self.events);
        let subscriptions = &mut self.subscriptions;
        let expected = match packet {
            Packet::Publish(publish) => {
                self.message(publish)?;
                true
            }
            Packet::PubRel(ack) => self.incoming.release(ack.id, outbox),
            Packet::PubAck(ack) => self.outgoing.puback(&ack, events),
            Packet::PubRec(ack) => self.outgoing.pubrec(&ack, outbox, events),
            Packet::PubComp(ack) => self.outgoing.pubcomp(&ack, events),
            Packet::SubAck(suback) => self.outgoing.suback(suback, subscriptions, events)?,
            Packet::UnsubAck(unsuback) => {
                self.outgoing.unsuback(unsuback, subscriptions, events)?
            }
            Packet::PingResp => true,
            Packet::Disconnect(said) if self.version == Version::V5 => {
                return Err(Closing::Server(said));
            }
            other => return Err(Violation::Unexpected(other.kind()).into()),
        };
        self.ignored += u64::from(!expected);
        let (outbox, events) = (&mut self.outbox, &mut self.events);
        self.outgoing.send_again(now, outbox, events);
        self.outgoing.pump_control(outbox, events);
        Ok(())
    }

    fn message(&mut self, mut publish: Publish) -> Result<(), Violation> {
        let alias = publish.properties.as_ref().and_then(|it| it.topic_alias);
        if let Some(alias) = alias {
            publish.topic = self.aliases.resolve(publish.topic, alias)?;
        }
        let delivered = self.incoming.publish(publish, &mut self.outbox)?;
        self.events
            .extend(delivered.map(|(publish, id)| Event::Message(publish, id)));
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
        let next = [self.keep_alive.deadline(), self.outgoing.deadline()];
        next.into_iter().flatten().min()
    }

    /// Sends a ping where one is due.
    ///
    /// # Errors
    /// Nothing has come for one and a half keep-alives.
    pub fn tick(&mut self, now: Instant) -> Result<(), DeadPeer> {
        if self.keep_alive.tick(now)? {
            self.outbox.push_ping();
        }
        if self.keep_alive.is_connected() {
            let (outbox, events) = (&mut self.outbox, &mut self.events);
            self.outgoing.tick(now, outbox, events);
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

    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Takes the events so far into `into`, which keeps its memory.
    pub fn take_events(&mut self, into: &mut Vec<Event<P, S>>) {
        into.append(&mut self.events);
    }

    /// Publishes of QoS 2 that the server answered as if they were of QoS 1: they may arrive twice.
    #[must_use]
    pub fn downgraded(&self) -> u64 {
        self.outgoing.downgraded
    }

    /// Answers that belonged to nothing, and were ignored.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
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
    /// the server forgets it with the client: then it is forgotten.
    pub fn abandon(&mut self) -> (Vec<P>, Vec<S>)
    where
        P: Default,
        S: Default,
    {
        self.connection_lost();
        let forget = self.continuity != Continuity::Resumed;
        self.begun &= !forget;
        self.outgoing.abandon(forget)
    }
}
