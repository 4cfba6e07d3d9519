//! Packets made from a seed, and their bytes spoilt.

use bytes::{Bytes, BytesMut};
use qproxy_mqtt::codec::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, SubAck,
    Subscribe, Subscription, Text, UnsubAck, Unsubscribe, Version, Will, encode,
};

/// splitmix64: small, seeded, good enough.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Bytes {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }
}

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn id(random: &mut Random) -> PacketId {
    PacketId::new(u16::from(random.byte()) + 1).unwrap()
}

fn text(random: &mut Random, choices: &[&'static str]) -> Text {
    Text::from_static(random.pick(choices))
}

fn topic(random: &mut Random) -> Text {
    text(
        random,
        &[
            "a",
            "a/b",
            "/",
            "é/😀",
            "$SYS/x",
            "a//b ",
            "long/er/topic/name",
        ],
    )
}

fn filter(random: &mut Random) -> Text {
    text(
        random,
        &["a", "#", "+", "a/+/b", "a/#", "+/+", "$share/g/é", "/"],
    )
}

fn connect(random: &mut Random) -> Packet {
    let will = random.coin().then(|| Will {
        topic: topic(random),
        payload: random.bytes(8),
        qos: random.pick(&QOS),
        retain: random.coin(),
        properties: None,
    });
    let username = random.coin().then(|| text(random, &["", "u", "é"]));
    // A password may be any bytes, and often is text.
    let password = (username.is_some() && random.coin()).then(|| match random.coin() {
        true => Bytes::from_static(b"secret"),
        false => random.bytes(4),
    });
    Packet::Connect(Box::new(Connect {
        client_id: text(random, &["", "id", "é-1"]),
        clean_session: random.coin(),
        keep_alive: u16::from(random.byte()),
        will,
        username,
        password,
        properties: None,
        version: Version::V311,
    }))
}

fn publish(random: &mut Random) -> Packet {
    let qos = random.pick(&QOS);
    let id = (qos != QoS::AtMostOnce).then(|| id(random));
    Packet::Publish(Publish {
        dup: id.is_some() && random.coin(),
        qos,
        retain: random.coin(),
        topic: topic(random),
        id,
        payload: random.bytes(200),
        properties: None,
    })
}

/// A legal packet of any type.
pub(crate) fn any_packet(random: &mut Random) -> Packet {
    let count = 1 + random.below(3);
    match random.below(15) {
        0 => connect(random),
        1 => {
            let code = random.pick(&[
                ReasonCode::Success,
                ReasonCode::UnsupportedProtocolVersion,
                ReasonCode::ClientIdNotValid,
                ReasonCode::ServerUnavailable,
                ReasonCode::BadCredentials,
                ReasonCode::NotAuthorized,
            ]);
            let session_present = code == ReasonCode::Success && random.coin();
            Packet::ConnAck(ConnAck {
                session_present,
                code,
                properties: None,
            })
        }
        2..=4 => publish(random),
        5 => Packet::PubAck(Ack::from(id(random))),
        6 => Packet::PubRec(Ack::from(id(random))),
        7 => Packet::PubRel(Ack::from(id(random))),
        8 => Packet::PubComp(Ack::from(id(random))),
        9 => Packet::Subscribe(Subscribe {
            id: id(random),
            filters: (0..count)
                .map(|_| Subscription::new(filter(random), random.pick(&QOS)))
                .collect(),
            properties: None,
        }),
        10 => Packet::SubAck(SubAck {
            id: id(random),
            codes: (0..count)
                .map(|_| ReasonCode::from_u8(random.pick(&[0, 1, 2, 0x80])).unwrap())
                .collect(),
            properties: None,
        }),
        11 => Packet::Unsubscribe(Unsubscribe {
            id: id(random),
            filters: (0..count).map(|_| filter(random)).collect(),
            user_properties: Vec::new(),
        }),
        12 => Packet::UnsubAck(UnsubAck::from(id(random))),
        13 => Packet::PingReq,
        _ if random.coin() => Packet::PingResp,
        _ => Packet::Disconnect(Disconnect::default()),
    }
}

/// The bytes of a packet.
pub(crate) fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut buf = BytesMut::new();
    encode(packet, Version::V311, &mut buf).unwrap();
    buf.to_vec()
}

/// Spoils bytes in a few places. Most of the time the remaining length is put right again, or hardly a body would
/// ever be looked at.
pub(crate) fn mutate(random: &mut Random, wire: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(wire.len());
        if wire[0] == 0x10 && wire.len() > 12 && random.coin() {
            // The connect flags, which rule over all that follows, or the protocol level.
            match random.below(8) {
                0 => wire[8] ^= 1,
                _ => wire[9] ^= 1 << random.below(8),
            }
            continue;
        }
        match random.below(8) {
            0 => wire[at] = random.byte(),
            1 => wire[at] ^= 1 << random.below(8),
            2 => wire[0] ^= 1 << random.below(8),
            3 => wire[at] = random.pick(&[0, 1, 3, 4, 5, b'#', b'+', 0x7f, 0x80, 0xff]),
            4 => wire.insert(at, random.pick(&[0, b'#', b'+', b'/', 0xff])),
            5 if wire.len() > 2 => drop(wire.remove(at)),
            6 => wire.push(random.byte()),
            _ => wire.truncate(1 + at),
        }
    }
    if wire.len() >= 2 && wire.len() < 130 && random.below(8) != 0 {
        wire[1] = u8::try_from(wire.len() - 2).unwrap();
        if wire.len() == 129 {
            wire.pop();
            wire[1] -= 1;
        }
    }
}
