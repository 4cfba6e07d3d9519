//! Two sessions joined in memory, one publishing and one receiving, under loss at every position, in both versions.
//!
//! A session does not know which end it is: what one publishes the other receives as if from a server. In MQTT 5.0 the
//! receiver takes only so many at once, fewer on some connections than on others, and topics travel as aliases.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::BytesMut;

use super::{Tested, config, events, message, number, take_bytes};
use crate::codec::{self, Packet, PacketId, Publish, QoS, Text, Version};
use crate::session::{AckId, AckMode, Config, Event, Session, Settled, Terms};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
/// Topics in use; more than there are aliases.
const TOPICS: u32 = 5;
/// Aliases that the receiver takes.
const ALIASES: u16 = 3;

/// splitmix64: small, seeded, good enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn topic(number: u32) -> Text {
    format!("topic/{}", number % TOPICS).into()
}

/// A publisher and a receiver with a wire between them that can break anywhere.
struct Pair {
    version: Version,
    now: Instant,
    sender: Tested,
    receiver: Tested,
    to_receiver: BytesMut,
    to_sender: BytesMut,
    /// How many messages the receiver takes at once.
    receive_maximum: u16,
    /// Messages on this connection between their PUBLISH and their last acknowledgement, seen from the wire.
    on_wire: HashSet<PacketId>,
    /// Messages that the receiving program holds.
    held: Vec<(AckId, QoS, u32)>,
    processed: Vec<(QoS, u32)>,
    completed: Vec<u32>,
    published: u32,
}

impl Pair {
    fn new(version: Version, window: u16, ack_mode: AckMode) -> Self {
        let side = |ack_mode| {
            Session::new(&Config {
                ack_mode,
                receive_maximum: window,
                topic_alias_maximum: ALIASES,
                ..config(version, window)
            })
        };
        let mut pair = Self {
            version,
            now: Instant::now(),
            sender: side(AckMode::Auto),
            receiver: side(ack_mode),
            to_receiver: BytesMut::new(),
            to_sender: BytesMut::new(),
            receive_maximum: window,
            on_wire: HashSet::new(),
            held: Vec::new(),
            processed: Vec::new(),
            completed: Vec::new(),
            published: 0,
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let mut terms = Terms::plain(true);
        if self.version == Version::V5 {
            terms.receive_maximum = self.receive_maximum;
            terms.topic_alias_maximum = ALIASES;
        }
        self.sender.connected(&terms, self.now).unwrap();
        self.receiver
            .connected(&Terms::plain(true), self.now)
            .unwrap();
    }

    fn publish(&mut self, qos: QoS) {
        if !self.sender.window_free().take(qos) {
            return;
        }
        let publish = Publish {
            topic: topic(self.published),
            ..message(self.published, qos)
        };
        let token = self.sender.publish(publish, Some(self.published), self.now);
        assert!(token.is_none());
        self.published += 1;
    }

    /// Moves up to `count` bytes each way; whether any moved.
    fn carry(&mut self, count: usize) -> bool {
        let forth = take_bytes(self.sender.outbox(), count);
        let back = take_bytes(self.receiver.outbox(), count);
        self.to_receiver.extend_from_slice(&forth);
        self.to_sender.extend_from_slice(&back);
        while let Some(packet) = next(&mut self.to_receiver, self.version) {
            self.saw(&packet);
            self.receiver.receive(packet, self.now).unwrap();
        }
        while let Some(packet) = next(&mut self.to_sender, self.version) {
            self.saw(&packet);
            self.sender.receive(packet, self.now).unwrap();
        }
        self.collect();
        !(forth.is_empty() && back.is_empty())
    }

    fn saw(&mut self, packet: &Packet) {
        match packet {
            Packet::Publish(Publish { id: Some(id), .. }) => {
                self.on_wire.insert(*id);
                let most = self.on_wire.len() <= usize::from(self.receive_maximum);
                assert!(
                    self.version == Version::V311 || most,
                    "more than the receiver takes at once"
                );
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                self.on_wire.remove(&ack.id);
            }
            _ => {}
        }
    }

    fn collect(&mut self) {
        for event in events(&mut self.receiver) {
            let Event::Message(publish, id) = event else {
                panic!("{event:?}")
            };
            assert_eq!(publish.topic, topic(number(&publish)));
            match id {
                None => self.processed.push((publish.qos, number(&publish))),
                Some(id) => self.held.push((id, publish.qos, number(&publish))),
            }
        }
        for event in events(&mut self.sender) {
            let Event::Published(token, _) = event else {
                panic!("{event:?}")
            };
            self.completed.push(token.unwrap());
        }
    }

    fn settle(&mut self, index: usize, settled: Settled) {
        let (id, qos, number) = self.held.remove(index);
        self.receiver.settle(id, settled);
        if settled == Settled::Acknowledged {
            self.processed.push((qos, number));
        }
    }

    fn reconnect(&mut self) {
        self.sender.connection_lost();
        self.receiver.connection_lost();
        self.to_receiver.clear();
        self.to_sender.clear();
        self.on_wire.clear();
        self.connect();
    }

    /// No more faults: everything has to come to its end.
    fn finish(&mut self) {
        for _ in 0..3 {
            self.reconnect();
            loop {
                let moved = self.carry(usize::MAX);
                while !self.held.is_empty() {
                    self.settle(0, Settled::Acknowledged);
                }
                if !moved && self.receiver.outbox().is_empty() {
                    break;
                }
            }
        }
        assert_eq!(self.sender.open(), 0, "something is open for ever");
        let distinct: HashSet<_> = self.completed.iter().collect();
        assert_eq!(
            distinct.len(),
            self.completed.len(),
            "a publish completed twice"
        );
        assert_eq!(
            self.completed.len(),
            self.published as usize,
            "a publish never completed"
        );
    }

    fn check(&self, in_order: bool, seed: u64) {
        let mut times: HashMap<u32, (QoS, u32)> = HashMap::new();
        let mut firsts = Vec::new();
        for &(qos, number) in &self.processed {
            let entry = times.entry(number).or_insert((qos, 0));
            entry.1 += 1;
            if entry.1 == 1 {
                firsts.push((qos, number));
            }
        }
        assert_eq!(
            times.len(),
            self.published as usize,
            "seed {seed}: messages were lost"
        );
        for (number, (qos, count)) in times {
            assert!(
                qos != QoS::ExactlyOnce || count == 1,
                "seed {seed}: {number} came {count} times"
            );
        }
        if in_order {
            for wanted in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let order = firsts.iter().filter(|(qos, _)| *qos == wanted);
                assert!(
                    order.map(|(_, number)| number).is_sorted(),
                    "seed {seed}: order was lost"
                );
            }
        }
    }
}

fn next(wire: &mut BytesMut, version: Version) -> Option<Packet> {
    codec::decode(wire, 1 << 20, version).unwrap()
}

fn any_qos(random: &mut Random) -> QoS {
    if random.below(2) == 0 {
        QoS::AtLeastOnce
    } else {
        QoS::ExactlyOnce
    }
}

fn under_faults(version: Version, seed: u64) {
    let mut random = Random(seed);
    let ack_mode = if seed.is_multiple_of(2) {
        AckMode::Auto
    } else {
        AckMode::Manual
    };
    let drops = seed % 4 == 3;
    let window = 1 + random.below(8) as u16;
    let mut pair = Pair::new(version, window, ack_mode);
    // Some are long enough for packet ids to come round.
    let steps = if seed % 20 < 2 { 800 } else { 120 };
    for _ in 0..steps {
        match random.below(10) {
            0..3 => {
                let qos = any_qos(&mut random);
                pair.publish(qos);
            }
            3..8 => {
                pair.carry(1 + random.below(30) as usize);
            }
            8 if !pair.held.is_empty() => {
                // In order, unless this seed drops some: then in any.
                let index = if drops {
                    random.below(pair.held.len() as u64) as usize
                } else {
                    0
                };
                let dropped = drops && random.below(4) == 0;
                let settled = if dropped {
                    Settled::Dropped
                } else {
                    Settled::Acknowledged
                };
                pair.settle(index, settled);
            }
            9 if random.below(3) == 0 => {
                pair.receive_maximum = 1 + random.below(window.into()) as u16;
                pair.reconnect();
            }
            _ => {}
        }
    }
    pair.finish();
    pair.check(!drops, seed);
}

#[test]
fn nothing_is_lost_doubled_or_reordered_under_seeded_faults() {
    for seed in 0..10_000 {
        for version in VERSIONS {
            under_faults(version, seed);
        }
    }
}

#[test]
fn a_break_at_any_byte_is_mended() {
    for (version, ack_mode) in VERSIONS
        .into_iter()
        .flat_map(|version| [(version, AckMode::Auto), (version, AckMode::Manual)])
    {
        for cut in 0..300 {
            let mut pair = Pair::new(version, 10, ack_mode);
            for qos in [QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                pair.publish(qos);
            }
            for _ in 0..cut {
                pair.carry(1);
                if cut % 3 == 0 && !pair.held.is_empty() {
                    pair.settle(0, Settled::Acknowledged);
                }
            }
            pair.finish();
            pair.check(true, cut);
        }
    }
}
