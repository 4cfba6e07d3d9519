//! What holds on one connection: the version, and what the client takes.

use std::num::NonZeroU16;
use std::time::Duration;

use qproxy_mqtt::codec::{self, Connect, Packet, PacketId, Publish, Text, Version};

use super::alias::{Alias, Outgoing};
use super::message::Delivery;
use crate::Limits;

/// Whether a PUBLISH is sent for the first time; decides DUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    First,
    Again,
}

/// What the client takes, towards it.
#[derive(Debug)]
pub(super) struct Terms {
    version: Version,
    /// QoS 1 and 2 messages without an acknowledgement.
    pub(super) window: usize,
    longest: Longest,
    aliases: Outgoing,
}

/// The longest packet that a client takes (MQTT 5 section 3.1.2.11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Longest(Option<usize>);

impl Longest {
    /// As CONNECT says it; none in 3.1.1.
    pub(super) fn of(connect: &Connect) -> Self {
        let asked = connect.properties.as_ref().and_then(|p| p.max_packet_size);
        // What does not fit a usize is no limit.
        Self(asked.and_then(|size| usize::try_from(size.get()).ok()))
    }

    /// Whether a packet may be sent; one that cannot be encoded may not.
    pub(super) fn admits(self, packet: &Packet, version: Version) -> bool {
        self.admits_with(packet, version, 0)
    }

    fn admits_with(self, packet: &Packet, version: Version, more: usize) -> bool {
        let Some(most) = self.0 else { return true };
        codec::encoded_len(packet, version).is_ok_and(|size| size + more <= most)
    }
}

/// What an alias adds to a packet that has its topic too: the property, and a longer length of packet and properties.
const ALIAS_BYTES: usize = 5;

impl Terms {
    pub(super) fn new(connect: &Connect, limits: &Limits) -> Self {
        let asked = connect.properties.as_deref();
        let window = asked
            .and_then(|properties| properties.receive_max)
            .map_or(limits.in_flight, |most| most.get().min(limits.in_flight));
        let aliases = asked
            .and_then(|properties| properties.topic_alias_max)
            .map_or(0, |most| most.min(limits.topic_aliases));
        Self {
            version: connect.version,
            window: window.into(),
            longest: Longest::of(connect),
            aliases: Outgoing::new(aliases),
        }
    }

    /// The packet for a message; `None` where it is longer than the client takes.
    pub(super) fn publish(
        &mut self,
        delivery: &Delivery,
        id: Option<PacketId>,
        sending: Sending,
        now: Duration,
    ) -> Option<Packet> {
        let message = &delivery.message;
        let properties = match self.version {
            Version::V311 => None,
            Version::V5 => message.properties_at(now, &delivery.subscription_ids),
        };
        let packet = Packet::Publish(Publish {
            dup: sending == Sending::Again,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: message.topic.clone(),
            id,
            payload: message.payload.clone(),
            properties,
        });
        self.longest
            .admits(&packet, self.version)
            .then(|| self.shorten(packet))
    }

    /// With an alias in place of the topic, or beside it the first time.
    fn shorten(&mut self, mut packet: Packet) -> Packet {
        // An alias that is set must arrive, so there must be room for it.
        let room = self.longest.admits_with(&packet, self.version, ALIAS_BYTES);
        if let Packet::Publish(publish) = &mut packet
            && room
        {
            match self.aliases.of(&publish.topic) {
                Alias::None => {}
                Alias::New(number) => set_alias(publish, number),
                Alias::Known(number) => {
                    set_alias(publish, number);
                    publish.topic = Text::default();
                }
            }
        }
        packet
    }
}

fn set_alias(publish: &mut Publish, number: NonZeroU16) {
    publish.properties.get_or_insert_default().topic_alias = Some(number);
}
