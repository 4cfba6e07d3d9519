//! Receive maximum, packet size, aliases, packet ids: each way, and what happens past them.

use super::*;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use std::num::{NonZeroU16, NonZeroU32};

fn taking(receive_max: u16) -> ConnectProperties {
    ConnectProperties {
        session_expiry: Some(100),
        receive_max: NonZeroU16::new(receive_max),
        ..ConnectProperties::default()
    }
}

fn aliased(topic: &str, alias: u16) -> Packet {
    let said = PublishProperties {
        topic_alias: NonZeroU16::new(alias),
        ..PublishProperties::default()
    };
    with(publish(topic, topic, AtMostOnce, 0), said)
}

#[test]
fn a_client_gets_no_more_at_once_than_it_takes() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, connect("s", taking(2)));
    bench.subscribe(2, "t", ExactlyOnce);
    for number in 1..=5 {
        let qos = if number == 1 {
            ExactlyOnce
        } else {
            AtLeastOnce
        };
        bench.send(1, publish("t", &number.to_string(), qos, number));
    }
    let first = bench.messages(2);
    assert_eq!(first.len(), 2);
    let (once, least) = (first[0].id.unwrap(), first[1].id.unwrap());
    bench.send(2, Packet::PubRec(Ack::from(once)));
    assert_eq!(bench.messages(2).len(), 0, "PUBREC makes no room");
    bench.send(2, Packet::PubComp(Ack::from(once)));
    assert_eq!(bench.payloads(2), ["3"]);
    bench.send(2, Packet::PubAck(Ack::from(least)));
    assert_eq!(bench.payloads(2), ["4"]);
}

#[test]
fn a_smaller_window_after_coming_back_is_kept_too() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, connect("s", taking(10)));
    bench.subscribe(2, "t", AtLeastOnce);
    for number in 1..=4 {
        bench.send(1, publish("t", &number.to_string(), AtLeastOnce, number));
    }
    assert_eq!(bench.messages(2).len(), 4);
    bench.cut(2);
    bench.join(3, connect("s", taking(1)));
    let mut seen = Vec::new();
    loop {
        let messages = bench.messages(3);
        let Some(message) = messages.first() else {
            break;
        };
        assert_eq!(messages.len(), 1, "one at a time");
        assert!(message.dup);
        seen.push(text(message));
        bench.send(3, Packet::PubAck(Ack::from(message.id.unwrap())));
    }
    assert_eq!(seen, ["1", "2", "3", "4"], "in order");
    assert_eq!(bench.stats().queued_bytes, 0);
}

#[test]
fn a_released_message_is_finished_whatever_the_window() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, connect("s", taking(10)));
    bench.subscribe(2, "t", ExactlyOnce);
    for number in 1..=2 {
        bench.send(1, publish("t", &number.to_string(), ExactlyOnce, number));
    }
    let sent = bench.messages(2);
    for message in &sent {
        bench.send(2, Packet::PubRec(Ack::from(message.id.unwrap())));
    }
    bench.cut(2);
    bench.join(3, connect("s", taking(1)));
    assert_eq!(bench.take(3).len(), 2, "both PUBREL");
}

#[test]
fn who_sends_more_than_the_receive_maximum_is_told() {
    let mut bench = Bench::with(Limits {
        incoming_qos2: 2,
        ..Limits::default()
    });
    bench.join(1, plain("p"));
    for number in 1..=3 {
        bench.send(1, publish("t", "", ExactlyOnce, number));
    }
    let reason = ReasonCode::ReceiveMaximumExceeded;
    assert_eq!(farewell(&mut bench, 1), Some(reason));
    assert_eq!(bench.stats().counters.limit_errors, 1);
}

#[test]
fn a_message_too_large_for_one_receiver_reaches_the_others() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    let small = ConnectProperties {
        max_packet_size: NonZeroU32::new(100),
        ..taking(1)
    };
    bench.join(2, connect("small", small.clone()));
    bench.join(3, plain("large"));
    for connection in 2..=3 {
        bench.subscribe(connection, "t", AtLeastOnce);
    }
    for payload in [&"x".repeat(200), "ok"] {
        bench.send(1, publish("t", payload, AtLeastOnce, 1));
        bench.send(1, publish("t", payload, AtMostOnce, 0));
    }
    assert_eq!(
        bench.payloads(2),
        ["ok", "ok"],
        "the window was not used up"
    );
    assert_eq!(bench.messages(3).len(), 4);
    assert_eq!(bench.stats().counters.dropped_too_large, 2);
    bench.cut(2);
    bench.join(4, connect("small", taking(10)));
    bench.send(1, publish("t", &"y".repeat(200), AtLeastOnce, 1));
    assert_eq!(bench.messages(4).len(), 2);
    bench.cut(4);
    bench.join(5, connect("small", small));
    let again = bench.messages(5);
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), ["ok"]);
    bench.send(5, Packet::PubAck(Ack::from(again[0].id.unwrap())));
    assert_eq!(bench.payloads(5), [""; 0], "nor is it sent again");
    assert_eq!(bench.stats().counters.dropped_too_large, 3);
}

#[test]
fn no_answer_is_longer_than_the_client_takes() {
    let tiny = |bytes| ConnectProperties {
        max_packet_size: NonZeroU32::new(bytes),
        ..ConnectProperties::default()
    };
    let mut bench = Bench::new();
    bench.join(1, connect("c", tiny(30)));
    bench.send(1, publish("$SYS/x", "", AtLeastOnce, 1));
    match bench.take(1).pop() {
        Some(Packet::PubAck(ack)) => assert_eq!(ack.properties, None, "no room to explain"),
        other => panic!("a PUBACK, not {other:?}"),
    }
    let many: Vec<(&str, QoS)> = vec![("a", AtMostOnce); 40];
    bench.send(1, subscribe(&many));
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::PacketTooLarge));
    bench.open(2);
    bench.send(2, Packet::Connect(Box::new(connect("c", tiny(1)))));
    assert_eq!(bench.take(2), [], "not even a CONNACK");
    assert!(bench.closed.contains_key(&2));
}

#[test]
fn aliases_of_a_client_stand_for_topics() {
    let mut bench = Bench::with(Limits {
        topic_aliases: 2,
        topic_levels: 2,
        ..Limits::default()
    });
    bench.join(1, plain("p"));
    bench.join(2, clean("s"));
    bench.subscribe(2, "#", AtMostOnce);
    bench.send(1, aliased("a", 1));
    bench.send(1, aliased("b", 2));
    bench.send(1, aliased("", 1));
    bench.send(1, aliased("c", 1));
    bench.send(1, aliased("", 1));
    let topics: Vec<String> = bench
        .messages(2)
        .iter()
        .map(|message| message.topic.to_string())
        .collect();
    assert_eq!(topics, ["a", "b", "a", "c", "c"]);
    for (packet, reason) in [
        (aliased("a", 3), ReasonCode::TopicAliasInvalid),
        (aliased("", 1), ReasonCode::ProtocolError),
        (publish("", "", AtMostOnce, 0), ReasonCode::ProtocolError),
        (aliased("a/b/c", 1), ReasonCode::TopicNameInvalid),
    ] {
        bench.join(3, plain("q"));
        bench.send(3, packet);
        assert_eq!(farewell(&mut bench, 3), Some(reason));
    }
}

#[test]
fn aliases_towards_a_client_shorten_what_comes_again() {
    let mut bench = Bench::new();
    let wants = ConnectProperties {
        topic_alias_max: Some(1),
        max_packet_size: NonZeroU32::new(100),
        ..taking(10)
    };
    bench.join(1, connect("c", wants.clone()));
    bench.subscribe(1, "#", AtMostOnce);
    let seen = |bench: &mut Bench| -> Vec<(String, Option<u16>)> {
        let messages = bench.messages(1);
        let alias = |message: &Publish| properties(message).topic_alias.map(NonZeroU16::get);
        messages
            .iter()
            .map(|message| (message.topic.to_string(), alias(message)))
            .collect()
    };
    for topic in ["long/a", "long/a", "long/b", "long/a", "a"] {
        bench.send(1, publish(topic, "", AtMostOnce, 0));
    }
    let expected = [
        ("long/a".into(), Some(1)),
        (String::new(), Some(1)),
        ("long/b".into(), Some(1)),
        ("long/a".into(), Some(1)),
        ("a".into(), None),
    ];
    assert_eq!(seen(&mut bench), expected);
    bench.send(1, publish("long/x", &"x".repeat(88), AtMostOnce, 0));
    assert_eq!(
        seen(&mut bench),
        [("long/x".into(), None)],
        "no room for one"
    );
    bench.send(1, publish("long/a", "", AtMostOnce, 0));
    assert_eq!(seen(&mut bench), [(String::new(), Some(1))]);
}

#[test]
fn what_connack_denied_closes() {
    let mut bench = Bench::with(Limits {
        maximum_qos: AtMostOnce,
        retained_messages: 0,
        ..Limits::default()
    });
    bench.join(1, plain("a"));
    assert_eq!(bench.subscribe(1, "t", ExactlyOnce), ReasonCode::Success);
    bench.send(1, publish("t", "", AtLeastOnce, 1));
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::QoSNotSupported));
    bench.join(2, plain("a"));
    bench.send(2, retained("t", "1"));
    let reason = ReasonCode::RetainNotSupported;
    assert_eq!(farewell(&mut bench, 2), Some(reason));
    bench.join(3, clean("old"));
    bench.send(3, retained("t", "1"));
    assert_eq!(bench.stats().counters.retained_refused, 1);
    bench.send(3, publish("t", "", AtLeastOnce, 1));
    assert!(matches!(bench.closed[&3], CloseReason::Breach(..)));
}

#[test]
fn subscriptions_past_the_quota_and_bad_filters_have_their_codes() {
    let mut bench = Bench::with(Limits {
        subscriptions_per_session: 1,
        topic_levels: 3,
        ..Limits::default()
    });
    bench.join(1, plain("c"));
    for (filter, code) in [
        ("a/b/c/d", ReasonCode::TopicFilterInvalid),
        ("$share/g+/a", ReasonCode::TopicFilterInvalid),
        ("a", ReasonCode::GrantedQoS1),
        ("b", ReasonCode::QuotaExceeded),
        ("a", ReasonCode::GrantedQoS1),
    ] {
        assert_eq!(bench.subscribe(1, filter, AtLeastOnce), code, "{filter}");
    }
}

#[test]
fn topics_over_the_limits_are_answered() {
    let mut bench = Bench::with(Limits {
        topic_levels: 2,
        ..Limits::default()
    });
    bench.join(1, plain("c"));
    bench.send(1, publish("a/b/c", "", AtLeastOnce, 1));
    bench.send(1, publish("a/b/c", "", ExactlyOnce, 2));
    bench.send(1, publish("a/b/c", "", AtMostOnce, 0));
    let invalid = ReasonCode::TopicNameInvalid;
    assert_eq!(reasons(&mut bench, 1), [invalid, invalid]);
    assert_eq!(bench.stats().counters.publishes_refused, 3);
    bench.send(1, publish("a/b", "", ExactlyOnce, 2));
    let free = ReasonCode::NoMatchingSubscribers;
    assert_eq!(reasons(&mut bench, 1), [free], "a refused id is free");
}

#[test]
fn packet_ids_are_used_once_at_a_time() {
    let mut bench = Bench::new();
    bench.join(1, expiring("c", 100));
    bench.join(2, clean("s"));
    bench.subscribe(2, "t", AtMostOnce);
    bench.send(1, publish("t", "1", ExactlyOnce, 1));
    assert_eq!(reasons(&mut bench, 1), [ReasonCode::Success]);
    let in_use = ReasonCode::PacketIdInUse;
    bench.send(1, publish("t", "2", ExactlyOnce, 1));
    bench.send(1, publish("t", "3", AtLeastOnce, 1));
    assert_eq!(reasons(&mut bench, 1), [in_use, in_use]);
    assert_eq!(bench.subscribe(1, "t", AtMostOnce), in_use);
    bench.send(1, unsubscribe("t"));
    match bench.take(1).pop() {
        Some(Packet::UnsubAck(ack)) => assert_eq!(ack.codes, [in_use]),
        other => panic!("an UNSUBACK, not {other:?}"),
    }
    bench.cut(1);
    bench.join(3, expiring("c", 100));
    let Packet::Publish(again) = publish("t", "1", ExactlyOnce, 1) else {
        unreachable!("made as PUBLISH")
    };
    bench.send(3, Packet::Publish(Publish { dup: true, ..again }));
    bench.send(3, Packet::PubRel(ack(1)));
    bench.send(3, Packet::PubRel(ack(1)));
    let expected = [
        ReasonCode::Success,
        ReasonCode::Success,
        ReasonCode::PacketIdNotFound,
    ];
    assert_eq!(reasons(&mut bench, 3), expected);
    assert_eq!(bench.payloads(2), ["1"], "delivered once");
    bench.send(3, Packet::PubRec(ack(9)));
    assert_eq!(reasons(&mut bench, 3), [ReasonCode::PacketIdNotFound]);
}
