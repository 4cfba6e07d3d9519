//! The tap that carries out a script on one connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use qproxy_mqtt::codec::{
    self, Ack, ConnAck, ConnAckProperties, DecodeError, Kind, Packet, PacketId, Publish,
    ReasonCode, Text, Version,
};

use super::script::{Direction, Fault, Place, Random};
use super::transcript::Event;
use super::{Shared, lock, second_opinion};
use crate::core::{Aliases, CloseReason, ConnectionId};
use crate::driver::{Hub, Step, Tap};

/// Notes and meddles with what passes on one connection.
#[derive(Debug)]
pub(super) struct FaultTap {
    shared: Arc<Shared>,
    connection: u64,
    client: Option<String>,
    random: Random,
    delayed: Vec<(Duration, Direction, Packet)>,
    /// Waits for the next packet of its direction.
    swapped: [Option<Packet>; 2],
    stalled_until: Option<Duration>,
    write_limit: usize,
    version: Version,
    /// The topic aliases of both directions, so that no fault can leave one behind that its receiver does not know.
    aliases: [Aliases; 2],
}

impl FaultTap {
    pub(super) fn new(shared: Arc<Shared>, connection: ConnectionId) -> Self {
        Self {
            random: Random::new(shared.seed, connection.0),
            shared,
            connection: connection.0,
            client: None,
            delayed: Vec::new(),
            swapped: [None, None],
            stalled_until: None,
            write_limit: usize::MAX,
            version: Version::default(),
            aliases: [Aliases::new(u16::MAX), Aliases::new(u16::MAX)],
        }
    }

    fn note(&self, now: Duration, event: Event) {
        lock(&self.shared.record).note(now, self.connection, event);
    }

    fn judge(&mut self, direction: Direction, packet: &Packet) -> Option<Fault> {
        let place = Place {
            connection: self.connection,
            client: self.client.as_deref(),
            direction,
        };
        lock(&self.shared.rules).judge(&place, packet, &mut self.random)
    }

    /// Lets a packet on, and behind it the one that waited for it.
    fn forward(
        &mut self,
        now: Duration,
        direction: Direction,
        packet: Packet,
        steps: &mut Vec<Step>,
    ) {
        let behind = self.swapped[direction as usize].take();
        for packet in std::iter::once(packet).chain(behind) {
            if direction == Direction::ToClient {
                self.note(now, Event::Sent(packet.clone()));
            }
            steps.push(Step::Forward(packet));
        }
    }

    /// Puts the topic beside an alias that stands for it: a packet that sets one can be lost or come late.
    fn spell_out(&mut self, direction: Direction, mut packet: Packet) -> Packet {
        if let Packet::Publish(publish) = &mut packet
            && let Some(topic) = meant(publish, &mut self.aliases[direction as usize])
        {
            publish.topic = topic;
        }
        packet
    }

    fn raw(&self, now: Duration, bytes: Bytes, steps: &mut Vec<Step>) {
        self.note(now, Event::SentRaw(bytes.clone()));
        steps.push(Step::Raw(bytes));
    }

    fn apply(
        &mut self,
        (now, direction): (Duration, Direction),
        fault: Fault,
        packet: Packet,
        steps: &mut Vec<Step>,
    ) {
        self.note(now, Event::Faulted(direction, fault.clone()));
        match fault {
            Fault::Lose => {}
            Fault::DropBefore => steps.push(Step::Close(CloseReason::Fault)),
            Fault::DropAfter => {
                self.forward(now, direction, packet, steps);
                steps.push(Step::Close(CloseReason::Fault));
            }
            Fault::Cut(count) => {
                let start = first_bytes(&packet, self.version, count);
                self.raw(now, start, steps);
                steps.push(Step::Close(CloseReason::Fault));
            }
            Fault::Duplicate => {
                self.forward(now, direction, packet.clone(), steps);
                self.forward(now, direction, packet, steps);
            }
            Fault::Delay(time) => self.delayed.push((now + time, direction, packet)),
            Fault::Swap => {
                if let Some(before) = self.swapped[direction as usize].replace(packet) {
                    steps.push(Step::Forward(before));
                }
            }
            Fault::Malformed(bytes) => {
                self.raw(now, bytes, steps);
                self.forward(now, direction, packet, steps);
            }
            Fault::Refuse(code) => {
                self.raw(now, refusal(code, self.version), steps);
                steps.push(Step::Close(CloseReason::Refused(code)));
            }
            Fault::Disconnect(code) => {
                if self.version == Version::V5 {
                    let bytes = Bytes::copy_from_slice(&[0xe0, 2, code.as_u8(), 0]);
                    self.raw(now, bytes, steps);
                }
                steps.push(Step::Close(CloseReason::Dismissed(code)));
            }
            Fault::Announce(said) => {
                let packet = announce(packet, *said, self.version);
                self.forward(now, direction, packet, steps);
            }
            Fault::Reason(code) => {
                let legal = code.allowed_in(packet.kind());
                match acknowledgement(&packet).filter(|_| self.version == Version::V5) {
                    Some((first, id)) if !legal && direction == Direction::ToClient => {
                        let [high, low] = id.get().to_be_bytes();
                        let bytes = [first, 3, high, low, code.as_u8()];
                        self.raw(now, Bytes::copy_from_slice(&bytes), steps);
                    }
                    _ => {
                        let packet = with_reason(packet, code, self.version);
                        self.forward(now, direction, packet, steps);
                    }
                }
            }
            // The caller has done what concerns the core.
            Fault::ForgetSessions => self.forward(now, direction, packet, steps),
            Fault::StallReads(time) => {
                self.stalled_until = Some(now + time);
                self.forward(now, direction, packet, steps);
            }
            Fault::SplitWrites(count) => {
                self.write_limit = count.max(1);
                self.forward(now, direction, packet, steps);
            }
        }
    }
}

impl Tap for FaultTap {
    const FRAMES: bool = true;

    fn accepted(&mut self, now: Duration) {
        self.note(now, Event::Accepted);
    }

    fn received(&mut self, hub: &Hub, packet: Packet, frame: &[u8], steps: &mut Vec<Step>) {
        let now = hub.now();
        if let (Packet::Connect(connect), None) = (&packet, &self.client) {
            self.client = Some(connect.client_id.to_string());
            self.version = connect.version;
        }
        self.note(now, Event::Received(packet.clone()));
        if self.shared.second_opinion
            && let Err(other) = second_opinion::compare(&packet, self.version, frame)
        {
            self.note(now, Event::Disagreement(other));
            steps.push(Step::Close(CloseReason::Protocol(
                "mqttbytes sees another packet",
            )));
            return;
        }
        let direction = Direction::FromClient;
        let packet = self.spell_out(direction, packet);
        match self.judge(direction, &packet) {
            None => self.forward(now, direction, packet, steps),
            Some(fault) => {
                if fault == Fault::ForgetSessions {
                    hub.with(|broker, _| broker.forget_offline_sessions());
                }
                self.apply((now, direction), fault, packet, steps);
            }
        }
    }

    fn sending(&mut self, now: Duration, packet: Packet, steps: &mut Vec<Step>) {
        let direction = Direction::ToClient;
        let full = self.spell_out(direction, packet.clone());
        let at_risk = lock(&self.shared.rules).concern(direction, Kind::Publish);
        let packet = if at_risk { full } else { packet };
        match self.judge(direction, &packet) {
            None => self.forward(now, direction, packet, steps),
            Some(fault) => self.apply((now, direction), fault, packet, steps),
        }
    }

    fn malformed(&mut self, now: Duration, error: &DecodeError) {
        self.note(now, Event::Malformed(error.to_string()));
    }

    fn closed(&mut self, now: Duration, reason: &CloseReason) {
        self.note(now, Event::Closed(reason.clone()));
    }

    fn due(&self) -> Option<Duration> {
        let delayed = self.delayed.iter().map(|(due, ..)| *due);
        delayed.chain(self.stalled_until).min()
    }

    fn release(&mut self, now: Duration, inbound: &mut Vec<Step>, outbound: &mut Vec<Step>) {
        self.stalled_until = self.stalled_until.filter(|until| *until > now);
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|(due, ..)| *due <= now);
        self.delayed = later;
        for (_, direction, packet) in due {
            let steps = match direction {
                Direction::FromClient => &mut *inbound,
                Direction::ToClient => &mut *outbound,
            };
            self.forward(now, direction, packet, steps);
        }
    }

    fn stalled(&self, now: Duration) -> bool {
        self.stalled_until.is_some_and(|until| until > now)
    }

    fn write_limit(&self) -> usize {
        self.write_limit
    }
}

/// `None` without an alias, and for one that the receiver is to refuse.
fn meant(publish: &Publish, aliases: &mut Aliases) -> Option<Text> {
    let alias = publish.properties.as_ref()?.topic_alias?;
    aliases.resolve(alias, &publish.topic).ok()
}

fn first_bytes(packet: &Packet, version: Version, count: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    codec::encode(packet, version, &mut bytes)
        .expect("the broker sends only packets that can be encoded");
    bytes.truncate(count);
    bytes.freeze()
}

/// In MQTT 5 written by hand, so that codes can be sent that have no place in a CONNACK.
fn refusal(code: ReasonCode, version: Version) -> Bytes {
    match version {
        Version::V5 => Bytes::copy_from_slice(&[0x20, 3, 0, code.as_u8(), 0]),
        Version::V311 => {
            let connack = Packet::ConnAck(ConnAck {
                code,
                ..ConnAck::default()
            });
            first_bytes(&connack, version, usize::MAX)
        }
    }
}

/// First byte and id.
fn acknowledgement(packet: &Packet) -> Option<(u8, PacketId)> {
    match packet {
        Packet::PubAck(ack) => Some((0x40, ack.id)),
        Packet::PubRec(ack) => Some((0x50, ack.id)),
        Packet::PubRel(ack) => Some((0x62, ack.id)),
        Packet::PubComp(ack) => Some((0x70, ack.id)),
        _ => None,
    }
}

fn with_reason(mut packet: Packet, code: ReasonCode, version: Version) -> Packet {
    if let Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) =
        &mut packet
        && version == Version::V5
    {
        *ack = Ack::new(ack.id, code);
    }
    packet
}

fn announce(mut packet: Packet, said: ConnAckProperties, version: Version) -> Packet {
    if let Packet::ConnAck(connack) = &mut packet
        && version == Version::V5
        && !connack.code.is_error()
    {
        let own = connack
            .properties
            .take()
            .map_or_else(Default::default, |own| *own);
        connack.properties = Some(Box::new(ConnAckProperties {
            session_expiry: said.session_expiry.or(own.session_expiry),
            receive_max: said.receive_max.or(own.receive_max),
            max_qos: said.max_qos.or(own.max_qos),
            retain_available: said.retain_available.or(own.retain_available),
            max_packet_size: said.max_packet_size.or(own.max_packet_size),
            assigned_client_id: said.assigned_client_id.or(own.assigned_client_id),
            topic_alias_max: said.topic_alias_max.or(own.topic_alias_max),
            reason_string: said.reason_string.or(own.reason_string),
            user_properties: [own.user_properties, said.user_properties].concat(),
            wildcard_available: said.wildcard_available.or(own.wildcard_available),
            subscription_ids_available: said
                .subscription_ids_available
                .or(own.subscription_ids_available),
            shared_available: said.shared_available.or(own.shared_available),
            server_keep_alive: said.server_keep_alive.or(own.server_keep_alive),
            response_information: said.response_information.or(own.response_information),
            server_reference: said.server_reference.or(own.server_reference),
            auth_method: said.auth_method.or(own.auth_method),
            auth_data: said.auth_data.or(own.auth_data),
        }));
    }
    packet
}
