//! Coming: CONNECT, what both sides announce, and takeover.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use qproxy_mqtt::codec::{
    ConnAck, ConnAckProperties, Connect, Packet, QoS, ReasonCode, Text, Version, Will,
};

use super::alias::Incoming;
use super::message::{self, Message};
use super::session::SessionId;
use super::terms::{Longest, Terms};
use super::{Broker, Caller, CloseReason, ConnectionId, Online, Outcome, State, filter, packet};

/// A will, ready to be published.
#[derive(Debug)]
pub(super) struct Testament {
    pub(super) message: Message,
    /// Seconds, from its publication.
    pub(super) expiry: Option<u32>,
    /// From the loss of the connection.
    pub(super) delay: Duration,
}

impl Testament {
    fn new(will: &Will, session: SessionId) -> Self {
        let properties = will.properties.as_deref();
        let delay = properties.and_then(|properties| properties.delay);
        Self {
            message: Message::will(will, session),
            expiry: properties.and_then(|properties| properties.message_expiry),
            delay: Duration::from_secs(delay.unwrap_or_default().into()),
        }
    }
}

/// Whose choice a client id was.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Given(Text),
    Assigned(Text),
}

impl Name {
    fn text(&self) -> &Text {
        match self {
            Self::Given(text) | Self::Assigned(text) => text,
        }
    }
}

impl Broker {
    pub(super) fn connect(&mut self, connection: ConnectionId, connect: &Connect) {
        let name = match self.admit(connect) {
            Ok(name) => name,
            Err(outcome) => return self.refuse(connection, connect, outcome),
        };
        if connect.version == Version::V311
            && let Some(will) = &connect.will
            && !filter::within(&self.limits, &will.topic)
        {
            let reason = CloseReason::Limit("topic_bytes or topic_levels");
            return self.close(connection, reason);
        }
        let old = self.settle_old_session(name.text(), connect.clean_session);
        let Some(session) = old.or_else(|| self.new_session(name.text().clone())) else {
            let code = match connect.version {
                Version::V311 => ReasonCode::ServerUnavailable,
                Version::V5 => ReasonCode::QuotaExceeded,
            };
            let outcome = Outcome::refused(code, "too many sessions");
            return self.refuse(connection, connect, outcome);
        };
        let caller = Caller {
            connection,
            session,
            version: connect.version,
            longest: Longest::of(connect),
            explains: explains(connect),
        };
        let keep_alive = self.keep_alive(connect);
        let Some(known) = self.connections.get_mut(&connection) else {
            return;
        };
        let aliases = match connect.version {
            Version::V311 => 0,
            Version::V5 => self.limits.topic_aliases,
        };
        known.state = State::Online(Box::new(Online {
            caller,
            patience: patience(keep_alive),
            will: connect
                .will
                .as_ref()
                .map(|will| Testament::new(will, session)),
            aliases: Incoming::new(aliases),
        }));
        let expiry = self.session_expiry(connect);
        let terms = Terms::new(connect, &self.limits);
        self.sessions
            .come_online(session, connection, terms, expiry);
        self.counters.connects_v5 += u64::from(connect.version == Version::V5);
        let connack = Packet::ConnAck(ConnAck {
            session_present: old.is_some(),
            code: ReasonCode::Success,
            properties: (connect.version == Version::V5)
                .then(|| Box::new(self.announce(connect, &name, expiry, keep_alive))),
        });
        self.answer(caller, connack);
        self.pump(session);
    }

    pub(super) fn refuse(&mut self, connection: ConnectionId, connect: &Connect, outcome: Outcome) {
        let code = outcome.reason;
        self.counters.connects_refused += 1;
        let mut refusal = packet::refusal(code, None);
        if connect.version == Version::V5 && outcome.why.is_some() {
            let longer = packet::refusal(code, outcome.why);
            if Longest::of(connect).admits(&longer, connect.version) {
                refusal = longer;
            }
        }
        if Longest::of(connect).admits(&refusal, connect.version) {
            self.send(connection, refusal);
        }
        self.close(connection, CloseReason::Refused(code));
    }

    fn admit(&mut self, connect: &Connect) -> Result<Name, Outcome> {
        let properties = connect.properties.as_deref();
        if properties.is_some_and(|properties| properties.auth_method.is_some()) {
            let why = "no extended authentication here";
            return Err(Outcome::refused(ReasonCode::BadAuthenticationMethod, why));
        }
        if !self
            .door
            .admits(connect.username.as_ref(), connect.password.as_ref())
        {
            return Err(ReasonCode::NotAuthorized.into());
        }
        if let (Version::V5, Some(will)) = (connect.version, &connect.will) {
            self.check_will(will)?;
        }
        self.name(connect)
    }

    fn name(&mut self, connect: &Connect) -> Result<Name, Outcome> {
        let given = &connect.client_id;
        if given.as_bytes().len() > self.limits.topic_bytes {
            let why = "client id too long";
            return Err(Outcome::refused(ReasonCode::ClientIdNotValid, why));
        }
        if !given.as_bytes().is_empty() {
            return Ok(Name::Given(given.detached()));
        }
        if !connect.clean_session && connect.version == Version::V311 {
            return Err(ReasonCode::ClientIdNotValid.into()); // [MQTT-3.1.3-8]
        }
        loop {
            self.assigned += 1;
            let id = format!("auto-{}-{}", self.mark, self.assigned);
            if self.sessions.find(&id).is_none() {
                return Ok(Name::Assigned(id.into()));
            }
        }
    }

    /// What a will may not be (MQTT 5 sections 3.2.2.3.4 and 3.2.2.3.5, and our limits).
    fn check_will(&self, will: &Will) -> Result<(), Outcome> {
        if will.qos > self.limits.maximum_qos {
            return Err(ReasonCode::QoSNotSupported.into());
        }
        if will.retain && !self.retained.is_available() {
            return Err(ReasonCode::RetainNotSupported.into());
        }
        if !filter::within(&self.limits, &will.topic) {
            let why = "will topic too long or of too many levels";
            return Err(Outcome::refused(ReasonCode::TopicNameInvalid, why));
        }
        let cost = will.properties.as_deref().map(message::will_property_bytes);
        if cost.unwrap_or_default() > self.limits.property_bytes {
            let why = "too much in the will's properties";
            return Err(Outcome::refused(ReasonCode::QuotaExceeded, why));
        }
        Ok(())
    }

    /// Takes the client's connection over where there is one [MQTT-3.1.4-2], cleans where that was asked
    /// for, and returns the session that goes on.
    fn settle_old_session(&mut self, client_id: &Text, clean: bool) -> Option<SessionId> {
        let old = self.sessions.find(client_id)?;
        if let Some(taken) = self.sessions.get(old)?.connection() {
            self.close(taken, CloseReason::TakenOver);
        }
        if clean {
            self.end_session(old);
        }
        let goes_on = self.sessions.find(client_id)?;
        self.cancel_will(goes_on);
        Some(goes_on)
    }

    fn new_session(&mut self, client_id: Text) -> Option<SessionId> {
        if self.sessions.len() >= self.limits.sessions {
            let oldest = self.sessions.longest_offline()?;
            self.counters.sessions_evicted += 1;
            self.end_session(oldest);
        }
        Some(self.sessions.insert(client_id, self.now))
    }

    /// How long the session outlives the connection: in MQTT 5 what was asked for, within our limit.
    fn session_expiry(&self, connect: &Connect) -> Duration {
        match (connect.version, connect.clean_session) {
            (Version::V311, true) => Duration::ZERO,
            (Version::V311, false) => self.limits.session_expiry,
            (Version::V5, _) => self.capped_expiry(asked_expiry(connect)),
        }
    }

    /// `u32::MAX` asks for ever and gets the limit like any other number above it.
    pub(super) fn capped_expiry(&self, seconds: u32) -> Duration {
        Duration::from_secs(seconds.into()).min(self.limits.session_expiry)
    }

    /// In seconds; 0 is none.
    fn keep_alive(&self, connect: &Connect) -> u16 {
        let asked = connect.keep_alive;
        match (connect.version, self.limits.maximum_keep_alive) {
            (Version::V5, Some(most)) => {
                let most = u16::try_from(most.as_secs()).unwrap_or(u16::MAX);
                if asked == 0 { most } else { asked.min(most) }
            }
            _ => asked,
        }
    }

    /// CONNACK says what holds: our limits, and where we do other than asked (MQTT 5 section 3.2.2.3).
    fn announce(
        &self,
        connect: &Connect,
        name: &Name,
        expiry: Duration,
        keep_alive: u16,
    ) -> ConnAckProperties {
        let limits = &self.limits;
        let expiry = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
        let receive_max = u16::try_from(limits.incoming_qos2).unwrap_or(u16::MAX);
        let largest = u32::try_from(limits.packet_bytes).unwrap_or(u32::MAX);
        ConnAckProperties {
            session_expiry: (expiry != asked_expiry(connect)).then_some(expiry),
            receive_max: NonZeroU16::new(receive_max),
            max_qos: (limits.maximum_qos < QoS::ExactlyOnce).then_some(limits.maximum_qos),
            retain_available: (!self.retained.is_available()).then_some(false),
            max_packet_size: NonZeroU32::new(largest),
            assigned_client_id: match name {
                Name::Given(_) => None,
                Name::Assigned(text) => Some(text.clone()),
            },
            topic_alias_max: (limits.topic_aliases > 0).then_some(limits.topic_aliases),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..ConnAckProperties::default()
        }
    }
}

fn asked_expiry(connect: &Connect) -> u32 {
    let asked = connect.properties.as_ref().and_then(|p| p.session_expiry);
    asked.unwrap_or_default()
}

/// Whether the client takes reason strings (MQTT 5 section 3.1.2.11.7).
fn explains(connect: &Connect) -> bool {
    let properties = connect.properties.as_ref();
    let asked = properties.and_then(|properties| properties.request_problem_information);
    connect.version == Version::V5 && asked.unwrap_or(true)
}

/// One and a half times the keep alive; 0 switches it off [MQTT-3.1.2-24].
fn patience(keep_alive: u16) -> Option<Duration> {
    (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500))
}
