//! What a client may rely on, checked on every packet that any test's broker sends.

use std::collections::HashSet;

use qproxy_mqtt::codec::{self, Connect, Packet, PacketId, QoS, Version};

use crate::core::Aliases;

/// What one connection agreed on.
#[derive(Debug)]
pub(super) struct Contract {
    version: Version,
    longest: usize,
    window: usize,
    aliases: Aliases,
    /// Sent on this connection and not acknowledged.
    outstanding: HashSet<PacketId>,
}

impl Contract {
    pub(super) fn of(connect: &Connect) -> Self {
        let asked = connect.properties.as_deref().cloned().unwrap_or_default();
        let longest = asked.max_packet_size.map(|size| size.get() as usize);
        Self {
            version: connect.version,
            longest: longest.unwrap_or(usize::MAX),
            window: asked.receive_max.map_or(65_535, |most| most.get().into()),
            aliases: Aliases::new(asked.topic_alias_max.unwrap_or_default()),
            outstanding: HashSet::new(),
        }
    }

    pub(super) fn sent_by_client(&mut self, packet: &Packet) {
        match packet {
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                self.outstanding.remove(&ack.id);
            }
            Packet::PubRec(ack) if ack.reason.is_error() => {
                self.outstanding.remove(&ack.id);
            }
            _ => {}
        }
    }

    pub(super) fn check(&mut self, packet: &Packet) {
        let size = codec::encoded_len(packet, self.version);
        let size = size.unwrap_or_else(|error| panic!("{error}: {packet:?}"));
        assert!(size <= self.longest, "{size} bytes: {packet:?}");
        if self.version == Version::V311 {
            assert!(!matches!(packet, Packet::Disconnect(_)));
        }
        let Packet::Publish(publish) = packet else {
            return;
        };
        if self.version == Version::V311 {
            assert_eq!(publish.properties, None);
        }
        let properties = publish.properties.as_deref();
        if let Some(alias) = properties.and_then(|properties| properties.topic_alias) {
            let meant = self.aliases.resolve(alias, &publish.topic);
            assert!(meant.is_ok(), "{meant:?}");
        }
        if publish.qos != QoS::AtMostOnce {
            let id = publish.id.expect("QoS above 0 has an id");
            assert!(self.outstanding.insert(id), "{id} is in use");
            assert!(self.outstanding.len() <= self.window, "over the window");
        }
    }
}
