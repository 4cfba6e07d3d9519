//! The packets the broker sends.

use qproxy_mqtt::codec::{Ack, ConnAck, Packet, PacketId, Publish, ReasonCode, SubAck};

use super::message::Delivery;

/// Whether a PUBLISH is sent for the first time; decides DUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    First,
    Again,
}

pub(super) fn publish(delivery: &Delivery, id: Option<PacketId>, sending: Sending) -> Packet {
    Packet::Publish(Publish {
        dup: sending == Sending::Again,
        qos: delivery.qos,
        retain: delivery.retain,
        topic: delivery.message.topic.clone(),
        id,
        payload: delivery.message.payload.clone(),
        properties: None,
    })
}

pub(super) fn pubrel(id: PacketId) -> Packet {
    Packet::PubRel(Ack::from(id))
}

pub(super) fn connack(session_present: bool) -> Packet {
    Packet::ConnAck(ConnAck {
        session_present,
        code: ReasonCode::Success,
        properties: None,
    })
}

pub(super) fn refusal(code: ReasonCode) -> Packet {
    Packet::ConnAck(ConnAck {
        session_present: false,
        code,
        properties: None,
    })
}

pub(super) fn suback(id: PacketId, codes: Vec<ReasonCode>) -> Packet {
    Packet::SubAck(SubAck {
        id,
        codes,
        properties: None,
    })
}

/// What a packet counts against [`crate::Limits::outbox_bytes`]; answers are free, since a client that
/// does not take them is not read from.
#[must_use]
pub fn weight(packet: &Packet) -> usize {
    match packet {
        Packet::Publish(publish) => publish.topic.as_bytes().len() + publish.payload.len() + 16,
        _ => 0,
    }
}
