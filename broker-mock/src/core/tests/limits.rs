//! Each limit: what happens past it, and that it is counted.

use super::*;
use crate::Overflow;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use qproxy_mqtt::codec::ReasonCode;

/// A publisher (1) and a durable subscriber (2) of `t` at QoS 1.
fn pair(limits: Limits) -> Bench {
    let mut bench = Bench::with(limits);
    bench.join(1, clean("publisher"));
    bench.join(2, durable("subscriber"));
    bench.subscribe(2, "t", AtLeastOnce);
    bench
}

fn publish_many(bench: &mut Bench, numbers: std::ops::Range<u16>) {
    for number in numbers {
        bench.send(
            1,
            publish("t", &number.to_string(), AtLeastOnce, number + 1),
        );
    }
}

#[test]
fn connections() {
    let mut bench = Bench::with(Limits {
        connections: 1,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    bench.open(2);
    assert_eq!(bench.closed[&2], CloseReason::Limit("connections"));
    assert_eq!(bench.stats().counters.connections_over_limit, 1);
    bench.cut(1);
    bench.join(3, clean("b"));
}

#[test]
fn the_session_offline_for_longest_gives_way() {
    let mut bench = Bench::with(Limits {
        sessions: 2,
        ..Limits::default()
    });
    bench.join(1, durable("old"));
    bench.join(2, durable("new"));
    bench.cut(1);
    bench.wait(Duration::from_secs(1));
    bench.cut(2);
    bench.join(3, durable("third"));
    assert_eq!(bench.stats().counters.sessions_evicted, 1);
    assert!(bench.join(4, durable("new")), "the newer one was kept");
    bench.open(5);
    bench.send(5, Packet::Connect(Box::new(clean("fourth"))));
    let reason = CloseReason::Refused(ReasonCode::ServerUnavailable);
    assert_eq!(bench.closed[&5], reason, "nobody is offline");
}

#[test]
fn subscriptions_of_one_and_of_all() {
    let mut bench = Bench::with(Limits {
        subscriptions_per_session: 2,
        subscriptions: 3,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    bench.join(2, clean("b"));
    assert_eq!(bench.subscribe(1, "a", AtMostOnce), ReasonCode::Success);
    assert_eq!(bench.subscribe(1, "b", AtMostOnce), ReasonCode::Success);
    assert_eq!(
        bench.subscribe(1, "c", AtMostOnce),
        ReasonCode::UnspecifiedError
    );
    assert_eq!(
        bench.subscribe(1, "a", AtLeastOnce),
        ReasonCode::GrantedQoS1
    );
    assert_eq!(bench.subscribe(2, "a", AtMostOnce), ReasonCode::Success);
    assert_eq!(
        bench.subscribe(2, "b", AtMostOnce),
        ReasonCode::UnspecifiedError
    );
    bench.cut(1);
    assert_eq!(bench.subscribe(2, "b", AtMostOnce), ReasonCode::Success);
    assert_eq!(bench.stats().counters.subscriptions_refused, 2);
}

#[test]
fn topic_length_and_levels() {
    let mut bench = Bench::with(Limits {
        topic_bytes: 10,
        topic_levels: 3,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    assert_eq!(
        bench.subscribe(1, "a/b/c/d", AtMostOnce),
        ReasonCode::UnspecifiedError
    );
    assert_eq!(bench.subscribe(1, "a/b/c", AtMostOnce), ReasonCode::Success);
    bench.send(1, publish("a/b/c/d", "", AtMostOnce, 0));
    assert!(matches!(bench.closed[&1], CloseReason::Limit(_)));
    bench.join(2, clean("b"));
    bench.send(2, publish("0123456789x", "", AtMostOnce, 0));
    assert!(matches!(bench.closed[&2], CloseReason::Limit(_)));
    assert_eq!(bench.stats().counters.limit_errors, 2);
}

#[test]
fn messages_in_flight() {
    let mut bench = pair(Limits {
        in_flight: 2,
        ..Limits::default()
    });
    publish_many(&mut bench, 0..5);
    let sent = bench.messages(2);
    assert_eq!(sent.len(), 2);
    bench.send(2, Packet::PubAck(Ack::from(sent[1].id.unwrap())));
    assert_eq!(
        bench.payloads(2),
        ["2"],
        "each acknowledgement lets one more out"
    );
    assert_eq!(bench.stats().counters.dropped(), 0);
}

#[test]
fn queued_messages_drop_the_newest_or_the_oldest() {
    for (overflow, kept) in [
        (Overflow::DropNewest, ["0", "1", "2"]),
        (Overflow::DropOldest, ["2", "3", "4"]),
    ] {
        let mut bench = pair(Limits {
            queued_messages: 3,
            overflow,
            ..Limits::default()
        });
        bench.cut(2);
        publish_many(&mut bench, 0..5);
        assert_eq!(bench.stats().counters.dropped_queue_full, 2);
        bench.join(3, durable("subscriber"));
        assert_eq!(bench.payloads(3), kept, "{overflow:?}");
    }
}

#[test]
fn queued_bytes_of_one_session() {
    let mut bench = pair(Limits {
        packet_bytes: 1000,
        queued_bytes: 1000,
        ..Limits::default()
    });
    bench.cut(2);
    let large = "x".repeat(383);
    for number in 1..=5 {
        bench.send(1, publish("t", &large, AtLeastOnce, number));
    }
    assert_eq!(bench.stats().queued_bytes, 800);
    assert_eq!(bench.stats().counters.dropped_queue_full, 3);
}

#[test]
fn the_absent_and_the_slow_cannot_starve_the_others() {
    let mut bench = pair(Limits {
        packet_bytes: 1000,
        queued_bytes: 10_000,
        total_queued_bytes: 10_000,
        outbox_bytes: 1_000,
        ..Limits::default()
    });
    bench.join(3, clean("slow"));
    bench.stuck.push(3);
    bench.subscribe(3, "t", AtLeastOnce);
    bench.cut(2);
    let large = "x".repeat(500);
    for number in 1..=100 {
        bench.send(1, publish("t", &large, AtLeastOnce, number));
    }
    let full = bench.stats().queued_bytes;
    assert!((9_000..=11_000).contains(&full), "{full}");
    bench.join(4, clean("healthy"));
    bench.subscribe(4, "u", AtLeastOnce);
    for number in 1..=100 {
        bench.send(1, publish("u", &large, AtLeastOnce, number));
        for message in bench.messages(4) {
            bench.send(4, Packet::PubAck(Ack::from(message.id.unwrap())));
        }
    }
    let before = bench.stats().counters.publishes_sent;
    bench.send(1, publish("u", &large, AtLeastOnce, 1));
    assert_eq!(bench.stats().counters.publishes_sent, before + 1);
    assert_eq!(bench.messages(4).len(), 1);
    bench.cut(3);
    bench.cut(4);
    bench.join(5, clean("subscriber"));
    bench.cut(5);
    assert_eq!(bench.stats().queued_bytes, 0, "all of it comes back");
}

#[test]
fn a_slow_reader_is_handed_no_more_than_its_outbox() {
    let mut bench = pair(Limits {
        outbox_bytes: 1_000,
        queued_messages: 5,
        ..Limits::default()
    });
    bench.stuck.push(2);
    bench.subscribe(2, "t", AtMostOnce);
    let large = "x".repeat(600);
    for _ in 0..10 {
        bench.send(1, publish("t", &large, AtMostOnce, 0));
    }
    assert_eq!(
        bench.messages(2).len(),
        2,
        "the one that crosses the bound is the last"
    );
    assert_eq!(bench.stats().counters.dropped_queue_full, 3);
    bench.stuck.clear();
    bench.broker.written(ConnectionId(2), 2_000);
    bench.settle();
    assert_eq!(
        bench.messages(2).len(),
        5,
        "the rest follows when there is room"
    );
    bench.stuck.push(2);
    for _ in 0..4 {
        bench.send(1, publish("t", &large, AtMostOnce, 0));
    }
    bench.cut(2);
    assert_eq!(bench.stats().counters.dropped_offline, 2);
    assert_eq!(bench.stats().queued_bytes, 0);
}

#[test]
fn unreleased_qos_2_messages() {
    let mut bench = Bench::with(Limits {
        incoming_qos2: 2,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    for number in 1..=2 {
        bench.send(1, publish("t", "", ExactlyOnce, number));
    }
    bench.send(1, publish("t", "", ExactlyOnce, 2));
    assert!(bench.closed.is_empty(), "a repeat needs no room");
    bench.send(1, publish("t", "", ExactlyOnce, 3));
    assert_eq!(bench.closed[&1], CloseReason::Limit("incoming_qos2"));
}

#[test]
fn retained_messages() {
    let mut bench = Bench::with(Limits {
        retained_messages: 1,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    bench.send(1, retained("a", "1"));
    bench.send(1, retained("b", "1"));
    assert_eq!(bench.stats().retained_messages, 1);
    assert_eq!(bench.stats().counters.retained_refused, 1);
}

#[test]
fn retained_messages_stop_at_a_full_queue() {
    let mut bench = Bench::with(Limits {
        queued_messages: 10,
        in_flight: 5,
        ..Limits::default()
    });
    bench.join(1, clean("a"));
    for number in 0..100 {
        let Packet::Publish(message) = retained(&format!("t/{number}"), "1") else {
            unreachable!("made as PUBLISH")
        };
        let message = Publish {
            qos: AtLeastOnce,
            id: Some(id(1)),
            ..message
        };
        bench.send(1, Packet::Publish(message));
    }
    bench.join(2, clean("b"));
    bench.subscribe(2, "#", AtLeastOnce);
    assert_eq!(bench.messages(2).len(), 5);
    assert_eq!(bench.stats().counters.dropped_queue_full, 1);
}
