//! Anything in any order: nothing panics, nothing leaks, QoS keeps its promise.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::Overflow;
use qproxy_mqtt::codec::{ConnAck, Disconnect, ReasonCode};

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Cut(u64),
    Send(u64, Packet),
    Written(u64, usize),
    Wait(u64),
    Forget,
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn topic() -> impl Strategy<Value = String> {
    "([ab]|é|\\$SYS)(/[ab]){0,4}"
}

fn filter() -> impl Strategy<Value = String> {
    "(\\$share/[gh]/)?([ab+]|é)(/[ab+]){0,4}(/#)?|#|\\$share/x"
}

fn connect() -> impl Strategy<Value = Packet> {
    (0..4_u8, any::<bool>(), any::<bool>(), 0..3_u16).prop_map(
        |(name, clean_session, will, keep_alive)| {
            let connect = Connect {
                clean_session,
                keep_alive,
                ..clean("abc".get(..usize::from(name)).unwrap_or_default())
            };
            let connect = if will {
                with_will(connect, "a/b")
            } else {
                connect
            };
            Packet::Connect(Box::new(connect))
        },
    )
}

fn message() -> impl Strategy<Value = Packet> {
    (topic(), 0..400_usize, qos(), any::<bool>(), 1..6_u16).prop_map(
        |(topic, size, qos, retain, number)| match publish(&topic, &"x".repeat(size), qos, number) {
            Packet::Publish(publish) => Packet::Publish(Publish { retain, ..publish }),
            other => other,
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        4 => connect(),
        8 => message(),
        4 => vec((filter(), qos()), 1..4).prop_map(|filters| {
            let filters: Vec<(&str, QoS)> = filters.iter().map(|(text, qos)| (text.as_str(), *qos)).collect();
            subscribe(&filters)
        }),
        1 => filter().prop_map(|filter| unsubscribe(&filter)),
        3 => (1..12_u16).prop_map(|number| Packet::PubAck(ack(number))),
        2 => (1..12_u16).prop_map(|number| Packet::PubRec(ack(number))),
        2 => (1..12_u16).prop_map(|number| Packet::PubRel(ack(number))),
        2 => (1..12_u16).prop_map(|number| Packet::PubComp(ack(number))),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::Disconnect(Disconnect::default())),
        1 => Just(Packet::ConnAck(ConnAck { session_present: false, code: ReasonCode::Success, properties: None })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..6_u64).prop_map(Step::Open),
        1 => (0..6_u64).prop_map(Step::Cut),
        12 => ((0..6_u64), packet()).prop_map(|(connection, packet)| Step::Send(connection, packet)),
        2 => ((0..6_u64), 0..2_000_usize).prop_map(|(connection, bytes)| Step::Written(connection, bytes)),
        1 => (0..3_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Forget),
    ]
}

fn tight(overflow: Overflow) -> Limits {
    Limits {
        connections: 4,
        sessions: 3,
        subscriptions_per_session: 3,
        subscriptions: 5,
        topic_levels: 4,
        packet_bytes: 512,
        in_flight: 3,
        incoming_qos2: 3,
        queued_messages: 4,
        queued_bytes: 1_000,
        total_queued_bytes: 2_000,
        overflow,
        retained_messages: 14,
        retained_bytes: 2_000,
        outbox_bytes: 500,
        ..Limits::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_events_keep_every_bound(steps in vec(step(), 1..120), oldest in any::<bool>()) {
        let overflow = if oldest { Overflow::DropOldest } else { Overflow::DropNewest };
        let limits = tight(overflow);
        let mut bench = Bench::with(limits.clone());
        bench.stuck = (0..6).collect();
        for step in steps {
            match step {
                Step::Open(connection) => {
                    bench.cut(connection);
                    bench.open(connection);
                }
                Step::Cut(connection) => bench.cut(connection),
                Step::Send(connection, packet) => bench.send(connection, packet),
                Step::Written(connection, bytes) => {
                    bench.broker.written(ConnectionId(connection), bytes);
                    bench.settle();
                }
                Step::Wait(millis) => bench.wait(Duration::from_millis(millis)),
                Step::Forget => bench.broker.forget_offline_sessions(),
            }
            let stats = bench.stats();
            prop_assert!(stats.connections <= limits.connections);
            prop_assert!(stats.sessions <= limits.sessions);
            prop_assert!(stats.clients <= stats.sessions);
            prop_assert!(stats.subscriptions <= limits.subscriptions);
            prop_assert!(stats.retained_bytes <= limits.retained_bytes);
            let most = limits.total_queued_bytes + limits.sessions * (limits.outbox_bytes + 512);
            prop_assert!(stats.queued_bytes <= most);
        }
        for connection in 0..6 {
            bench.cut(connection);
        }
        bench.broker.forget_offline_sessions();
        let stats = bench.stats();
        prop_assert_eq!(
            (stats.connections, stats.clients, stats.sessions, stats.subscriptions, stats.queued_bytes),
            (0, 0, 0, 0, 0)
        );
        prop_assert!(bench.broker.tree.is_empty(), "no filter is left behind");
    }
}

/// A client that answers as the specification says, over a network that may break at any packet.
struct Subscriber {
    connection: u64,
    /// QoS 2 ids that were received and not released.
    held: Vec<PacketId>,
    got: Vec<String>,
}

impl Subscriber {
    fn take(&mut self, bench: &mut Bench, packet: &Packet) {
        match packet {
            Packet::Publish(publish) => {
                let Some(id) = publish.id else { return };
                let again = publish.qos == QoS::ExactlyOnce && self.held.contains(&id);
                if !again {
                    self.got.push(text(publish));
                }
                if publish.qos == QoS::ExactlyOnce {
                    if !again {
                        self.held.push(id);
                    }
                    bench.send(self.connection, Packet::PubRec(Ack::from(id)));
                } else {
                    bench.send(self.connection, Packet::PubAck(Ack::from(id)));
                }
            }
            Packet::PubRel(release) => {
                self.held.retain(|id| *id != release.id);
                bench.send(self.connection, Packet::PubComp(release.clone()));
            }
            _ => {}
        }
    }
}

/// Publishes 30 numbered messages to a durable subscriber whose connection breaks at places that the seed picks.
fn survives_breaks(qos: QoS, seed: u64) -> Vec<String> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut bench = Bench::with(Limits {
        in_flight: 5,
        ..Limits::default()
    });
    bench.join(1, clean("publisher"));
    let mut subscriber = Subscriber {
        connection: 100,
        held: Vec::new(),
        got: Vec::new(),
    };
    bench.join(100, durable("s"));
    bench.subscribe(100, "t", qos);
    let mut wire: VecDeque<Packet> = VecDeque::new();
    let mut number = 0;
    loop {
        wire.extend(bench.take(subscriber.connection));
        if number == 30 && wire.is_empty() && bench.stats().queued_bytes == 0 {
            return subscriber.got;
        }
        match random(10) {
            0 => {
                wire.clear();
                bench.cut(subscriber.connection);
                subscriber.connection += 1;
                assert!(
                    bench.join(subscriber.connection, durable("s")),
                    "session present"
                );
            }
            1..=4 if number < 30 => {
                number += 1;
                bench.send(1, publish("t", &number.to_string(), qos, number));
            }
            _ => {
                if let Some(packet) = wire.pop_front() {
                    subscriber.take(&mut bench, &packet);
                }
            }
        }
    }
}

#[test]
fn qos_2_arrives_exactly_once_and_in_order_whatever_breaks() {
    let expected: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    for seed in 0..500 {
        assert_eq!(
            survives_breaks(QoS::ExactlyOnce, seed),
            expected,
            "seed {seed}"
        );
    }
}

#[test]
fn qos_1_arrives_at_least_once_and_in_order_whatever_breaks() {
    for seed in 0..500 {
        let got = survives_breaks(QoS::AtLeastOnce, seed);
        let mut first: Vec<u32> = Vec::new();
        for text in got {
            let number = text.parse().unwrap();
            if !first.contains(&number) {
                first.push(number);
            }
        }
        assert_eq!(first, (1..=30).collect::<Vec<u32>>(), "seed {seed}");
    }
}
