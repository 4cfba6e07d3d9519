//! Two sessions joined in memory, one publishing and one receiving, under loss at every position.
//!
//! A session does not know which end it is: what one publishes the other receives as if from a server.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{AckId, AckMode, Config, Event, Session, Settled, Violation};
use crate::codec::{
    self, Ack, ConnAck, Kind, Packet, PacketId, Publish, QoS, ReasonCode, SubAck, Subscription,
    Text, UnsubAck,
};

type Tested = Session<Option<u32>, Option<u32>>;

fn session(window: u16, ack_mode: AckMode) -> Tested {
    let keep_alive = Duration::from_secs(60);
    let window_exactly_once = window.div_ceil(2);
    let clean_session = false;
    Session::new(&Config {
        window,
        window_exactly_once,
        clean_session,
        keep_alive,
        ack_mode,
    })
}

fn message(number: u32, qos: QoS) -> Publish {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    let topic = Text::from_static("t");
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        id: None,
        payload,
        properties: None,
    }
}

fn number(publish: &Publish) -> u32 {
    u32::from_be_bytes(publish.payload[..].try_into().unwrap())
}

/// Everything in the outbox, decoded.
fn sent(session: &mut Tested) -> Vec<Packet> {
    let mut bytes = take_bytes(session, usize::MAX);
    let mut packets = Vec::new();
    while let Some(packet) = codec::decode(&mut bytes, 1 << 20, codec::Version::V311).unwrap() {
        packets.push(packet);
    }
    assert!(bytes.is_empty());
    packets
}

fn take_bytes(session: &mut Tested, count: usize) -> BytesMut {
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let outbox = session.outbox();
    let used = outbox.slices(&mut slices);
    let mut bytes = BytesMut::new();
    for slice in &slices[..used] {
        let part = slice.len().min(count - bytes.len());
        bytes.extend_from_slice(&slice[..part]);
    }
    outbox.advance(bytes.len());
    bytes
}

fn events(session: &mut Tested) -> Vec<Event<Option<u32>, Option<u32>>> {
    let mut events = Vec::new();
    session.take_events(&mut events);
    events
}

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

/// A publisher and a receiver with a wire between them that can break anywhere.
struct Pair {
    now: Instant,
    sender: Tested,
    receiver: Tested,
    to_receiver: BytesMut,
    to_sender: BytesMut,
    /// Messages that the receiving program holds.
    held: Vec<(AckId, QoS, u32)>,
    processed: Vec<(QoS, u32)>,
    completed: Vec<u32>,
    published: u32,
}

impl Pair {
    fn new(window: u16, ack_mode: AckMode) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            now,
            sender: session(window, AckMode::Auto),
            receiver: session(window, ack_mode),
            to_receiver: BytesMut::new(),
            to_sender: BytesMut::new(),
            held: Vec::new(),
            processed: Vec::new(),
            completed: Vec::new(),
            published: 0,
        };
        pair.sender.connected(true, now);
        pair.receiver.connected(true, now);
        pair
    }

    fn publish(&mut self, qos: QoS) {
        if !self.sender.window_free().take(qos) {
            return;
        }
        let token = self
            .sender
            .publish(message(self.published, qos), Some(self.published));
        assert!(token.is_none());
        self.published += 1;
    }

    /// Moves up to `count` bytes each way; whether any moved.
    fn carry(&mut self, count: usize) -> bool {
        let forth = take_bytes(&mut self.sender, count);
        let back = take_bytes(&mut self.receiver, count);
        self.to_receiver.extend_from_slice(&forth);
        self.to_sender.extend_from_slice(&back);
        while let Some(packet) =
            codec::decode(&mut self.to_receiver, 1 << 20, codec::Version::V311).unwrap()
        {
            self.receiver.receive(packet, self.now).unwrap();
        }
        while let Some(packet) =
            codec::decode(&mut self.to_sender, 1 << 20, codec::Version::V311).unwrap()
        {
            self.sender.receive(packet, self.now).unwrap();
        }
        self.collect();
        !(forth.is_empty() && back.is_empty())
    }

    fn collect(&mut self) {
        for event in events(&mut self.receiver) {
            let Event::Message(publish, id) = event else {
                panic!("{event:?}")
            };
            match id {
                None => self.processed.push((publish.qos, number(&publish))),
                Some(id) => self.held.push((id, publish.qos, number(&publish))),
            }
        }
        for event in events(&mut self.sender) {
            let Event::Published(token) = event else {
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
        self.sender.connected(true, self.now);
        self.receiver.connected(true, self.now);
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

fn any_qos(random: &mut Random) -> QoS {
    if random.below(2) == 0 {
        QoS::AtLeastOnce
    } else {
        QoS::ExactlyOnce
    }
}

#[test]
fn nothing_is_lost_doubled_or_reordered_under_seeded_faults() {
    for seed in 0..10_000_u64 {
        let mut random = Random(seed);
        let ack_mode = if seed % 2 == 0 {
            AckMode::Auto
        } else {
            AckMode::Manual
        };
        let drops = seed % 4 == 3;
        let mut pair = Pair::new(1 + random.below(8) as u16, ack_mode);
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
                9 if random.below(3) == 0 => pair.reconnect(),
                _ => {}
            }
        }
        pair.finish();
        pair.check(!drops, seed);
    }
}

#[test]
fn a_break_at_any_byte_is_mended() {
    for ack_mode in [AckMode::Auto, AckMode::Manual] {
        for cut in 0..200 {
            let mut pair = Pair::new(10, ack_mode);
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

#[test]
fn seventy_thousand_publishes_wrap_ids_without_zero_or_reuse() {
    let mut session = session(u16::MAX, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    let mut in_flight = std::collections::VecDeque::new();
    let mut open = HashSet::new();
    for index in 0..70_000 {
        let token = session.publish(message(index, QoS::AtLeastOnce), None);
        assert!(token.is_none());
        let packets = sent(&mut session);
        let [Packet::Publish(publish)] = &packets[..] else {
            panic!("{packets:?}")
        };
        let id = publish.id.unwrap();
        assert!(open.insert(id), "{id} is in flight already");
        in_flight.push_back(Ack::from(id));
        // One is never acknowledged, the others late.
        if in_flight.len() > 1000 {
            let id = in_flight.remove(1).unwrap();
            open.remove(&id.id);
            session.receive(Packet::PubAck(id), now).unwrap();
        }
    }
    assert_eq!(session.open(), in_flight.len());
}

#[test]
fn window_is_respected_and_fills_the_whole_id_space() {
    let mut session = session(u16::MAX, AckMode::Auto);
    session.connected(false, Instant::now());
    let filter = Subscription::new("a", QoS::AtMostOnce);
    session.subscribe(vec![filter], None);
    let mut published = 0;
    while session.window_free().take(QoS::AtLeastOnce) {
        session.publish(message(0, QoS::AtLeastOnce), None);
        published += 1;
    }
    assert_eq!(published, 65_534, "one id belongs to the SUBSCRIBE");
}

#[test]
fn resume_sends_publishes_then_releases_in_order_with_dup() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    for (index, qos) in [
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
    ]
    .iter()
    .enumerate()
    {
        session.publish(message(index as u32, *qos), Some(index as u32));
    }
    let ids: Vec<PacketId> = sent(&mut session)
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) if !publish.dup => publish.id.unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    session
        .receive(Packet::PubRec(Ack::from(ids[2])), now)
        .unwrap();
    session
        .receive(Packet::PubRec(Ack::from(ids[0])), now)
        .unwrap();
    session.connection_lost();
    let resumed = session.connected(true, now);
    assert_eq!(resumed.republished, 2);
    let packets = sent(&mut session);
    let shape: Vec<_> = packets
        .iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => (publish.dup, publish.id.unwrap(), "publish"),
            Packet::PubRel(ack) => (false, ack.id, "release"),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (true, ids[1], "publish"),
        (true, ids[3], "publish"),
        (false, ids[2], "release"),
        (false, ids[0], "release"),
    ];
    assert_eq!(shape, expected);
}

#[test]
fn a_lost_session_is_published_and_subscribed_anew() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    let filter = |name: &str| Subscription::new(name, QoS::AtLeastOnce);
    session.subscribe(vec![filter("a"), filter("b")], Some(1));
    let packets = sent(&mut session);
    let [Packet::Subscribe(subscribe)] = &packets[..] else {
        panic!("{packets:?}")
    };
    let codes = vec![ReasonCode::Success, ReasonCode::UnspecifiedError];
    session
        .receive(
            Packet::SubAck(SubAck {
                id: subscribe.id,
                codes,
                properties: None,
            }),
            now,
        )
        .unwrap();
    session.publish(message(7, QoS::AtLeastOnce), Some(7));
    session.publish(message(8, QoS::ExactlyOnce), Some(8));
    let packets = sent(&mut session);
    let Packet::Publish(second) = &packets[1] else {
        panic!("{packets:?}")
    };
    session
        .receive(Packet::PubRec(Ack::from(second.id.unwrap())), now)
        .unwrap();
    events(&mut session);
    session.connection_lost();

    let resumed = session.connected(false, now);
    assert_eq!((resumed.republished, resumed.resubscribed), (1, 1));
    let packets = sent(&mut session);
    let [Packet::Publish(again), Packet::Subscribe(renewed)] = &packets[..] else {
        panic!("{packets:?}")
    };
    assert_eq!(
        (number(again), again.dup),
        (7, false),
        "to this session it is new"
    );
    assert_eq!(
        renewed.filters,
        [filter("a")],
        "the refused filter is not asked for again"
    );
    let done = events(&mut session);
    assert!(
        matches!(done[..], [Event::Published(Some(8))]),
        "the server had taken it over"
    );
    let refused = SubAck {
        id: renewed.id,
        codes: vec![ReasonCode::UnspecifiedError],
        properties: None,
    };
    session.receive(Packet::SubAck(refused), now).unwrap();
    assert!(matches!(&events(&mut session)[..], [Event::RenewalRefused(name)] if *name == "a"));
    assert!(session.subscriptions().is_empty());
}

#[test]
fn a_kept_session_is_not_subscribed_again_but_an_unanswered_subscribe_is() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    let filter = Subscription::new("a", QoS::AtLeastOnce);
    session.subscribe(vec![filter], Some(1));
    session.unsubscribe(vec!["b".into()], Some(2));
    let first = sent(&mut session);
    session.connection_lost();
    session.connected(true, now);
    let kinds: Vec<Kind> = sent(&mut session).iter().map(Packet::kind).collect();
    assert_eq!(kinds, [Kind::Subscribe, Kind::Unsubscribe]);
    assert_eq!(first.len(), 2);
}

#[test]
fn answers_to_nothing_are_tolerated_as_the_specification_says() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    let id = PacketId::new(9).unwrap();
    for (packet, answer) in [
        (Packet::PubAck(Ack::from(id)), vec![]),
        (Packet::PubComp(Ack::from(id)), vec![]),
        (Packet::UnsubAck(UnsubAck::from(id)), vec![]),
        (
            Packet::PubRec(Ack::from(id)),
            vec![Packet::PubRel(Ack::from(id))],
        ),
        (
            Packet::PubRel(Ack::from(id)),
            vec![Packet::PubComp(Ack::from(id))],
        ),
    ] {
        session.receive(packet, now).unwrap();
        assert_eq!(sent(&mut session), answer);
    }
    assert_eq!(session.ignored(), 5);
    session.publish(message(1, QoS::ExactlyOnce), Some(1));
    let packets = sent(&mut session);
    let Packet::Publish(publish) = &packets[0] else {
        panic!("{packets:?}")
    };
    let id = publish.id.unwrap();
    session.receive(Packet::PubAck(Ack::from(id)), now).unwrap();
    session
        .receive(Packet::PubComp(Ack::from(id)), now)
        .unwrap();
    assert_eq!(
        session.open(),
        1,
        "neither completes a QoS 2 publish before PUBREC"
    );
    assert!(events(&mut session).is_empty());
}

#[test]
fn what_only_a_client_may_send_is_a_violation() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(false, now);
    let connack = ConnAck {
        session_present: false,
        code: ReasonCode::Success,
        properties: None,
    };
    for packet in [
        Packet::PingReq,
        Packet::Disconnect(codec::Disconnect::default()),
        Packet::ConnAck(connack),
    ] {
        let kind = packet.kind();
        assert_eq!(
            session.receive(packet, now),
            Err(Violation::Unexpected(kind))
        );
    }
    let filter = Subscription::new("a", QoS::AtLeastOnce);
    session.subscribe(vec![filter], Some(1));
    let packets = sent(&mut session);
    let Packet::Subscribe(subscribe) = &packets[0] else {
        panic!("{packets:?}")
    };
    let suback = SubAck {
        id: subscribe.id,
        codes: vec![ReasonCode::UnspecifiedError; 2],
        properties: None,
    };
    let expected = Violation::CodeCount {
        expected: 1,
        found: 2,
    };
    assert_eq!(session.receive(Packet::SubAck(suback), now), Err(expected));
}

#[test]
fn manual_acknowledgements_leave_in_order_of_arrival() {
    let mut session = session(10, AckMode::Manual);
    let now = Instant::now();
    session.connected(false, now);
    for (id, qos) in [
        (5, QoS::AtLeastOnce),
        (3, QoS::ExactlyOnce),
        (4, QoS::AtLeastOnce),
    ] {
        let id = PacketId::new(id);
        session
            .receive(
                Packet::Publish(Publish {
                    id,
                    ..message(1, qos)
                }),
                now,
            )
            .unwrap();
    }
    let ids: Vec<AckId> = events(&mut session)
        .into_iter()
        .map(|event| match event {
            Event::Message(_, Some(id)) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        sent(&mut session).is_empty(),
        "nothing is acknowledged before the program does"
    );
    session.settle(ids[2], Settled::Acknowledged);
    assert!(sent(&mut session).is_empty(), "it waits for its elders");
    session.settle(ids[0], Settled::Dropped);
    assert!(sent(&mut session).is_empty());
    session.settle(ids[1], Settled::Acknowledged);
    session.settle(ids[1], Settled::Acknowledged);
    let ack = |id| Ack::from(PacketId::new(id).unwrap());
    assert_eq!(
        sent(&mut session),
        [Packet::PubRec(ack(3)), Packet::PubAck(ack(4))]
    );
    session.connection_lost();
    session.connected(true, now);
    session.settle(ids[0], Settled::Acknowledged);
    assert!(
        sent(&mut session).is_empty(),
        "an acknowledgement dies with its connection"
    );
}

#[test]
fn a_server_that_ignores_the_id_space_is_a_violation() {
    let mut session = session(10, AckMode::Manual);
    let now = Instant::now();
    session.connected(false, now);
    let publish = Publish {
        id: PacketId::new(1),
        ..message(1, QoS::AtLeastOnce)
    };
    for _ in 0..u16::MAX {
        session
            .receive(Packet::Publish(publish.clone()), now)
            .unwrap();
    }
    let one_more = session.receive(Packet::Publish(publish), now);
    assert_eq!(one_more, Err(Violation::TooManyUnacknowledged));
}

#[test]
fn clean_session_forgets_what_was_received_but_not_what_was_published() {
    let keep_alive = Duration::ZERO;
    let (window, window_exactly_once, ack_mode) = (4, 4, AckMode::Auto);
    let config = Config {
        window,
        window_exactly_once,
        clean_session: true,
        keep_alive,
        ack_mode,
    };
    let mut session: Tested = Session::new(&config);
    let now = Instant::now();
    session.connected(false, now);
    let incoming = Publish {
        id: PacketId::new(1),
        ..message(1, QoS::ExactlyOnce)
    };
    session
        .receive(Packet::Publish(incoming.clone()), now)
        .unwrap();
    session.publish(message(2, QoS::AtLeastOnce), Some(2));
    session.connection_lost();
    let resumed = session.connected(false, now);
    assert_eq!(resumed.republished, 1);
    events(&mut session);
    session.receive(Packet::Publish(incoming), now).unwrap();
    assert_eq!(
        events(&mut session).len(),
        1,
        "in a new session it is a new message"
    );
    assert_eq!(session.abandon().0, [Some(2)]);
    assert_eq!(session.open(), 0);
}

#[test]
fn a_slow_upload_is_not_taken_for_a_dead_server() {
    let mut session = session(10, AckMode::Auto);
    let start = Instant::now();
    session.connected(false, start);
    session.publish(message(1, QoS::AtLeastOnce), None);
    let at = |seconds| start + Duration::from_secs(seconds);
    session.outbox().advance(1);
    session.wrote(at(80));
    assert_eq!(
        session.tick(at(100)),
        Ok(()),
        "the network took bytes, and more wait"
    );
    assert!(session.tick(at(170)).is_err(), "it takes none any more");
}

#[test]
fn qos_2_has_a_window_of_its_own() {
    let mut session = session(10, AckMode::Auto);
    session.connected(false, Instant::now());
    for _ in 0..5 {
        assert!(session.window_free().take(QoS::ExactlyOnce));
        session.publish(message(1, QoS::ExactlyOnce), None);
    }
    assert!(!session.window_free().take(QoS::ExactlyOnce));
    assert!(session.window_free().take(QoS::AtLeastOnce));
    let packets = sent(&mut session);
    let Packet::Publish(publish) = &packets[0] else {
        panic!("{packets:?}")
    };
    let id = publish.id.unwrap();
    session
        .receive(Packet::PubRec(Ack::from(id)), Instant::now())
        .unwrap();
    assert!(
        !session.window_free().take(QoS::ExactlyOnce),
        "it is in flight until PUBCOMP"
    );
    session
        .receive(Packet::PubComp(Ack::from(id)), Instant::now())
        .unwrap();
    assert!(session.window_free().take(QoS::ExactlyOnce));
}

#[test]
fn a_qos_2_message_held_over_a_reconnect_is_delivered_once_and_acknowledged() {
    let mut session = session(10, AckMode::Manual);
    let now = Instant::now();
    session.connected(false, now);
    let id = PacketId::new(5);
    let incoming = Packet::Publish(Publish {
        id,
        ..message(1, QoS::ExactlyOnce)
    });
    let ack = || Ack::from(id.unwrap());
    for settled_before_repeat in [false, true] {
        session.receive(incoming.clone(), now).unwrap();
        let held = match &events(&mut session)[..] {
            [Event::Message(_, Some(held))] => *held,
            other => panic!("{other:?}"),
        };
        session.connection_lost();
        session.connected(true, now);
        if settled_before_repeat {
            session.settle(held, Settled::Acknowledged);
            assert!(
                sent(&mut session).is_empty(),
                "the server has not asked yet"
            );
        }
        for _ in 0..2 {
            session.receive(incoming.clone(), now).unwrap();
        }
        assert!(
            events(&mut session).is_empty(),
            "the program has it already"
        );
        session.settle(held, Settled::Acknowledged);
        assert_eq!(sent(&mut session).first(), Some(&Packet::PubRec(ack())));
        session.receive(Packet::PubRel(ack()), now).unwrap();
        assert_eq!(sent(&mut session), [Packet::PubComp(ack())]);
    }
}
