//! Answers: to whom, in which words, and no longer than the client takes.

use qproxy_mqtt::codec::{Kind, Packet, ReasonCode, Version};

use super::session::SessionId;
use super::terms::Longest;
use super::{Broker, CloseReason, ConnectionId, State, packet};

/// Who sent a packet, and how it is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) connection: ConnectionId,
    pub(super) session: SessionId,
    pub(super) version: Version,
    pub(super) longest: Longest,
    /// The client takes reason strings.
    pub(super) explains: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) reason: ReasonCode,
    /// For a person to read, where the reason alone does not tell.
    pub(super) why: Option<&'static str>,
}

impl From<ReasonCode> for Outcome {
    fn from(reason: ReasonCode) -> Self {
        Self { reason, why: None }
    }
}

impl Outcome {
    pub(super) fn refused(reason: ReasonCode, why: &'static str) -> Self {
        let why = Some(why);
        Self { reason, why }
    }
}

impl Broker {
    /// Sends an answer, without its explanation where the client does not take so long a packet, and not at all
    /// where that is still too long [MQTT-3.1.2-24]: then the client cannot be served.
    pub(super) fn answer(&mut self, caller: Caller, packet: Packet) {
        let (connection, version) = (caller.connection, caller.version);
        if caller.longest.admits(&packet, version) {
            return self.send(connection, packet);
        }
        let packet = packet::terse(packet);
        if caller.longest.admits(&packet, version) {
            return self.send(connection, packet);
        }
        let code = ReasonCode::PacketTooLarge;
        self.close(
            connection,
            CloseReason::Breach(code, "an answer is longer than the client takes"),
        );
    }

    /// MQTT 5 only [MQTT-4.13.1-1].
    pub(super) fn say_why(&mut self, connection: ConnectionId, reason: &CloseReason) {
        let state = self.connections.get(&connection).map(|known| &known.state);
        let (Some(State::Online(online)), Some(code)) = (state, reason.farewell()) else {
            return;
        };
        let code = if code.allowed_in(Kind::Disconnect) {
            code
        } else {
            ReasonCode::UnspecifiedError
        };
        let caller = online.caller;
        if caller.version == Version::V311 {
            return;
        }
        let full = packet::disconnect(code, reason.to_string());
        for packet in [full.clone(), packet::terse(full)] {
            if caller.longest.admits(&packet, caller.version) {
                return self.send(connection, packet);
            }
        }
    }
}
