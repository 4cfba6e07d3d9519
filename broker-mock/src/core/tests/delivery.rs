//! QoS, wildcards, retained messages, shared subscriptions, `$SYS`.

use super::*;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

fn pair() -> Bench {
    let mut bench = Bench::new();
    bench.join(1, clean("publisher"));
    bench.join(2, clean("subscriber"));
    bench
}

#[test]
fn qos_0_is_delivered_and_not_acknowledged() {
    let mut bench = pair();
    bench.subscribe(2, "#", ExactlyOnce);
    bench.send(1, publish("é/x", "hello", AtMostOnce, 0));
    assert_eq!(bench.take(1), []);
    let messages = bench.messages(2);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].qos, messages[0].id), (AtMostOnce, None));
    assert_eq!(messages[0].topic, *"é/x");
}

#[test]
fn qos_1_is_acknowledged_on_both_sides() {
    let mut bench = pair();
    bench.subscribe(2, "a/+", AtLeastOnce);
    bench.send(1, publish("a/b", "1", AtLeastOnce, 77));
    assert_eq!(bench.take(1), [Packet::PubAck(ack(77))]);
    let message = bench.messages(2).remove(0);
    assert_eq!(message.qos, AtLeastOnce);
    assert!(bench.stats().queued_bytes > 0);
    bench.send(2, Packet::PubAck(Ack::from(message.id.unwrap())));
    assert_eq!(bench.stats().queued_bytes, 0);
}

#[test]
fn qos_2_takes_two_round_trips_on_both_sides() {
    let mut bench = pair();
    bench.subscribe(2, "a", ExactlyOnce);
    bench.send(1, publish("a", "1", ExactlyOnce, 5));
    bench.send(1, publish("a", "1", ExactlyOnce, 5));
    assert_eq!(
        bench.take(1),
        [Packet::PubRec(ack(5)), Packet::PubRec(ack(5))]
    );
    bench.send(1, Packet::PubRel(ack(5)));
    assert_eq!(bench.take(1), [Packet::PubComp(ack(5))]);
    let messages = bench.messages(2);
    assert_eq!(
        messages.len(),
        1,
        "the repeated PUBLISH is the same message"
    );
    assert_eq!(bench.stats().counters.duplicates_suppressed, 1);
    let release = Ack::from(messages[0].id.unwrap());
    bench.send(2, Packet::PubRec(release.clone()));
    assert_eq!(bench.take(2), [Packet::PubRel(release.clone())]);
    bench.send(2, Packet::PubComp(release));
    assert_eq!(bench.stats().queued_bytes, 0);
    bench.send(1, publish("a", "2", ExactlyOnce, 5));
    assert_eq!(bench.payloads(2), ["2"], "a released id is free again");
}

#[test]
fn the_lower_qos_counts() {
    let mut bench = pair();
    bench.subscribe(2, "one", AtLeastOnce);
    bench.subscribe(2, "two", ExactlyOnce);
    bench.send(1, publish("one", "", ExactlyOnce, 1));
    bench.send(1, publish("two", "", AtLeastOnce, 2));
    let qos: Vec<QoS> = bench
        .messages(2)
        .iter()
        .map(|message| message.qos)
        .collect();
    assert_eq!(qos, [AtLeastOnce, AtLeastOnce]);
}

#[test]
fn unsubscribed_and_unknown_filters_are_both_acknowledged() {
    let mut bench = pair();
    bench.subscribe(2, "a", AtMostOnce);
    bench.send(2, unsubscribe("a"));
    bench.send(2, unsubscribe("never"));
    assert_eq!(bench.take(2), [unsuback(1), unsuback(1)]);
    bench.send(1, publish("a", "1", AtMostOnce, 0));
    assert_eq!(bench.payloads(2), [""; 0]);
    assert_eq!(bench.stats().subscriptions, 0);
}

#[test]
fn acknowledgements_that_nobody_waits_for_do_no_harm() {
    let mut bench = pair();
    bench.send(1, Packet::PubAck(ack(9)));
    bench.send(1, Packet::PubComp(ack(9)));
    bench.send(1, Packet::PubRec(ack(9)));
    bench.send(1, Packet::PubRel(ack(9)));
    assert_eq!(
        bench.take(1),
        [Packet::PubRel(ack(9)), Packet::PubComp(ack(9))],
        "the handshake can be finished"
    );
    assert_eq!(bench.stats().counters.unexpected_acknowledgements, 3);
    bench.subscribe(2, "a", ExactlyOnce);
    bench.send(1, publish("a", "1", ExactlyOnce, 1));
    let sent = bench.messages(2).remove(0).id.unwrap();
    bench.send(2, Packet::PubAck(Ack::from(sent)));
    bench.send(2, Packet::PubComp(Ack::from(sent)));
    assert!(
        bench.stats().queued_bytes > 0,
        "QoS 2 is not done by a PUBACK"
    );
}

#[test]
fn retained_messages_greet_a_new_subscription() {
    let mut bench = pair();
    bench.send(1, retained("a/x", "1"));
    bench.send(1, retained("a/x", "2"));
    bench.send(1, retained("a/y", "3"));
    bench.send(1, retained("a/y", ""));
    bench.subscribe(2, "a/#", AtMostOnce);
    let messages = bench.messages(2);
    assert_eq!(messages.len(), 1);
    assert!(messages[0].retain);
    assert_eq!(text(&messages[0]), "2");
    bench.send(1, retained("a/x", "4"));
    let live = bench.messages(2);
    assert!(!live[0].retain, "retain is off on what was just published");
    bench.subscribe(2, "a/#", AtMostOnce);
    assert_eq!(bench.payloads(2), ["4"], "again on the same filter");
}

#[test]
fn shared_messages_go_round_and_retained_ones_do_not_come() {
    let mut bench = Bench::new();
    for connection in 1..=3 {
        bench.join(connection, clean(&format!("c{connection}")));
    }
    bench.send(1, retained("a/b", "old"));
    for connection in 2..=3 {
        bench.subscribe(connection, "$share/g/a/+", AtMostOnce);
    }
    for number in 0..4 {
        bench.send(1, publish("a/b", &number.to_string(), AtMostOnce, 0));
    }
    assert_eq!(bench.payloads(2), ["0", "2"]);
    assert_eq!(bench.payloads(3), ["1", "3"]);
    bench.send(2, unsubscribe("$share/g/a/+"));
    bench.take(2);
    bench.send(1, publish("a/b", "4", AtMostOnce, 0));
    assert_eq!((bench.payloads(2).len(), bench.payloads(3).len()), (0, 1));
}

#[test]
fn what_a_leaving_member_has_not_acknowledged_goes_to_another() {
    let mut bench = Bench::new();
    bench.join(1, clean("publisher"));
    bench.join(2, durable("a"));
    bench.join(3, durable("b"));
    bench.subscribe(2, "$share/g/t", AtLeastOnce);
    bench.subscribe(3, "$share/g/t", AtLeastOnce);
    for number in 0..4 {
        bench.send(
            1,
            publish("t", &number.to_string(), AtLeastOnce, 1 + number),
        );
    }
    assert_eq!(bench.payloads(2), ["0", "2"]);
    assert_eq!(bench.payloads(3), ["1", "3"]);
    bench.cut(2);
    let moved = bench.messages(3);
    assert_eq!(moved.iter().map(text).collect::<Vec<_>>(), ["0", "2"]);
    assert!(
        moved.iter().all(|message| !message.dup),
        "new for its receiver"
    );
    assert_eq!(bench.stats().counters.shared_reassigned, 2);
    bench.send(1, publish("t", "4", AtLeastOnce, 9));
    bench.send(1, publish("t", "5", AtLeastOnce, 10));
    assert_eq!(
        bench.payloads(3),
        ["4", "5"],
        "only who is there gets new ones"
    );
    bench.cut(3);
    bench.send(1, publish("t", "6", AtLeastOnce, 11));
    bench.join(3, durable("b"));
    assert_eq!(
        bench.payloads(3).len(),
        6,
        "with nobody there, durable members keep them"
    );
    bench.join(2, durable("a"));
    assert_eq!(bench.payloads(2), ["6"]);
}

#[test]
fn a_full_member_of_a_group_is_passed_over() {
    let mut bench = Bench::with(Limits {
        in_flight: 1,
        queued_messages: 1,
        ..Limits::default()
    });
    bench.join(1, clean("publisher"));
    bench.join(2, clean("slow"));
    bench.join(3, clean("fast"));
    bench.subscribe(2, "$share/g/t", AtLeastOnce);
    bench.subscribe(3, "$share/g/t", AtLeastOnce);
    for number in 0..10 {
        bench.send(1, publish("t", &number.to_string(), AtLeastOnce, 1));
        for message in bench.messages(3) {
            bench.send(3, Packet::PubAck(Ack::from(message.id.unwrap())));
        }
    }
    assert_eq!(bench.stats().counters.dropped(), 0);
}

#[test]
fn malformed_shared_filters_are_refused() {
    let mut bench = pair();
    assert_eq!(
        bench.subscribe(2, "$share/g", AtMostOnce),
        ReasonCode::UnspecifiedError
    );
    assert_eq!(bench.stats().counters.subscriptions_refused, 1);
}

#[test]
fn sys_topics_tell_how_the_broker_does() {
    let mut bench = pair();
    bench.wait(Duration::from_secs(10));
    bench.subscribe(2, "#", AtMostOnce);
    assert_eq!(
        bench.payloads(2),
        [""; 0],
        "a leading wildcard does not match $SYS"
    );
    bench.subscribe(2, "$SYS/broker/clients/connected", AtMostOnce);
    assert_eq!(bench.payloads(2), ["2"]);
    bench.subscribe(2, "$SYS/broker/version", AtMostOnce);
    assert!(bench.payloads(2)[0].starts_with("broker-mock "));
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.payloads(2).len(), 2, "published again");
}

#[test]
fn clients_cannot_publish_as_the_broker() {
    let mut bench = pair();
    bench.subscribe(2, "$SYS/#", AtMostOnce);
    bench.take(2);
    bench.send(1, publish("$SYS/broker/version", "mine", AtLeastOnce, 3));
    assert_eq!(bench.take(1), [Packet::PubAck(ack(3))]);
    assert_eq!(bench.payloads(2), [""; 0]);
    assert_eq!(bench.stats().counters.dropped_reserved_topic, 1);
}

#[test]
fn a_small_message_does_not_keep_the_read_buffer_alive() {
    let mut bench = pair();
    let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
    bench.send(
        1,
        Packet::Publish(Publish {
            dup: false,
            qos: AtMostOnce,
            retain: true,
            topic: "a".into(),
            id: None,
            payload: buffer.slice(..10),
            properties: None,
        }),
    );
    assert!(
        buffer.is_unique(),
        "the retained message has memory of its own"
    );
}
