//! The packets the broker sends, but PUBLISH, for which see `terms`.

use qproxy_mqtt::codec::{
    Ack, AckProperties, ConnAck, ConnAckProperties, Disconnect, DisconnectProperties, Packet,
    PacketId, PublishProperties, ReasonCode, Text,
};

use super::message;

pub(super) fn pubrel(id: PacketId, reason: ReasonCode) -> Packet {
    Packet::PubRel(Ack::new(id, reason))
}

pub(super) fn refusal(code: ReasonCode, why: Option<&'static str>) -> Packet {
    let properties = why.map(|words| {
        Box::new(ConnAckProperties {
            reason_string: Some(Text::from_static(words)),
            ..ConnAckProperties::default()
        })
    });
    Packet::ConnAck(ConnAck {
        session_present: false,
        code,
        properties,
    })
}

pub(super) fn disconnect(reason: ReasonCode, words: String) -> Packet {
    let properties = DisconnectProperties {
        reason_string: Some(Text::from(words)),
        ..DisconnectProperties::default()
    };
    Packet::Disconnect(Disconnect {
        reason,
        properties: Some(Box::new(properties)),
    })
}

/// An acknowledgement's properties that say why.
pub(super) fn why(words: &'static str) -> Option<Box<AckProperties>> {
    Some(Box::new(AckProperties {
        reason_string: Some(Text::from_static(words)),
        ..AckProperties::default()
    }))
}

/// The packet without what a client can do without; for one that does not take a longer packet.
pub(super) fn terse(mut packet: Packet) -> Packet {
    match &mut packet {
        Packet::Disconnect(disconnect) => disconnect.properties = None,
        Packet::PubAck(ack) | Packet::PubRec(ack) => ack.properties = None,
        Packet::SubAck(suback) => suback.properties = None,
        _ => {}
    }
    packet
}

/// What a packet counts against [`crate::Limits::outbox_bytes`]; answers are free, since a client that
/// does not take them is not read from.
#[must_use]
pub fn weight(packet: &Packet) -> usize {
    match packet {
        Packet::Publish(publish) => {
            let properties = publish.properties.as_deref();
            publish.topic.as_bytes().len() + publish.payload.len() + properties_weight(properties)
        }
        _ => 0,
    }
}

fn properties_weight(properties: Option<&PublishProperties>) -> usize {
    16 + properties.map_or(0, |properties| {
        message::property_bytes(properties) + 4 * properties.subscription_ids.len()
    })
}
