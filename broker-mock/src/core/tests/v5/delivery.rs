//! Subscription options, identifiers, expiry, and what goes between the versions.

use super::*;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use qproxy_mqtt::codec::RetainHandling;

const SECOND: Duration = Duration::from_secs(1);

fn lasting(seconds: u32) -> PublishProperties {
    PublishProperties {
        message_expiry: Some(seconds),
        ..PublishProperties::default()
    }
}

#[test]
fn both_versions_meet_on_the_same_topics() {
    let mut bench = Bench::new();
    bench.join(1, clean("old"));
    bench.join(2, plain("new"));
    bench.subscribe(1, "t", ExactlyOnce);
    subscribe_as(&mut bench, 2, subscription("t", ExactlyOnce), Some(7));
    let said = PublishProperties {
        content_type: Some("text".into()),
        ..lasting(60)
    };
    bench.send(2, with(publish("t", "new", AtLeastOnce, 1), said));
    let got = bench.messages(1).remove(0);
    assert_eq!((text(&got), got.properties), ("new".into(), None));
    bench.take(2);
    bench.send(1, publish("t", "old", AtLeastOnce, 1));
    let got = bench.messages(2).remove(0);
    assert_eq!(text(&got), "old");
    let expected = PublishProperties {
        subscription_ids: SubscriptionId::new(7).into_iter().collect(),
        ..PublishProperties::default()
    };
    assert_eq!(properties(&got), expected);
}

#[test]
fn every_identifier_that_matched_comes_with_the_message() {
    let mut bench = Bench::new();
    bench.join(1, plain("c"));
    for (filter, number) in [
        ("a/#", Some(5)),
        ("a/b", Some(3)),
        ("+/b", None),
        ("x", Some(9)),
    ] {
        subscribe_as(&mut bench, 1, subscription(filter, AtMostOnce), number);
    }
    bench.send(1, publish("a/b", "", AtMostOnce, 0));
    let got = bench.messages(1);
    assert_eq!(got.len(), 1, "overlapping filters give one copy");
    let numbers: Vec<u32> = properties(&got[0])
        .subscription_ids
        .iter()
        .map(|id| id.get())
        .collect();
    assert_eq!(numbers, [3, 5]);
    subscribe_as(&mut bench, 1, subscription("a/b", AtMostOnce), None);
    bench.send(1, publish("a/b", "", AtMostOnce, 0));
    let got = bench.messages(1).remove(0);
    assert_eq!(
        properties(&got).subscription_ids.len(),
        1,
        "replaced without"
    );
}

#[test]
fn no_local_keeps_own_messages_away() {
    let mut bench = Bench::new();
    bench.join(1, plain("a"));
    bench.join(2, plain("b"));
    let shy = Subscription {
        no_local: true,
        ..subscription("#", AtMostOnce)
    };
    bench.send(1, retained("kept", "1"));
    subscribe_as(&mut bench, 1, shy.clone(), None);
    subscribe_as(&mut bench, 2, shy.clone(), None);
    assert_eq!(bench.payloads(1), [""; 0], "retained ones too");
    assert_eq!(bench.payloads(2), ["1"]);
    bench.send(1, publish("t", "2", AtMostOnce, 0));
    assert_eq!(bench.payloads(1), [""; 0]);
    assert_eq!(bench.payloads(2), ["2"]);
    let shared = Subscription {
        filter: "$share/g/t".into(),
        ..shy
    };
    let subscribe = Subscribe {
        id: id(1),
        filters: vec![shared],
        properties: None,
    };
    bench.send(1, Packet::Subscribe(subscribe));
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::ProtocolError));
}

#[test]
fn retain_as_published_shows_what_was_published() {
    let mut bench = Bench::new();
    bench.join(1, plain("a"));
    bench.join(2, plain("b"));
    let curious = Subscription {
        retain_as_published: true,
        ..subscription("t", AtMostOnce)
    };
    subscribe_as(&mut bench, 1, curious, None);
    subscribe_as(&mut bench, 2, subscription("t", AtMostOnce), None);
    bench.send(1, retained("t", "1"));
    bench.send(1, publish("t", "2", AtMostOnce, 0));
    let flags = |messages: Vec<Publish>| -> Vec<bool> {
        messages.iter().map(|message| message.retain).collect()
    };
    assert_eq!(flags(bench.messages(1)), [true, false]);
    assert_eq!(flags(bench.messages(2)), [false, false]);
}

#[test]
fn retain_handling_decides_what_greets_a_subscription() {
    let mut bench = Bench::new();
    bench.join(1, plain("a"));
    bench.send(1, retained("t", "1"));
    let mut counts = Vec::new();
    for handling in [
        RetainHandling::Never,
        RetainHandling::SendIfNew,
        RetainHandling::Send,
        RetainHandling::Send,
    ] {
        let wanted = Subscription {
            retain_handling: handling,
            ..subscription("t", AtMostOnce)
        };
        subscribe_as(&mut bench, 1, wanted, None);
        counts.push(bench.messages(1).len());
    }
    assert_eq!(counts, [0, 0, 1, 1]);
    let wanted = Subscription {
        retain_handling: RetainHandling::SendIfNew,
        ..subscription("+", AtMostOnce)
    };
    subscribe_as(&mut bench, 1, wanted, None);
    assert_eq!(bench.messages(1).len(), 1, "a new one gets it");
}

#[test]
fn what_waits_for_too_long_is_not_delivered() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, expiring("s", 1_000));
    bench.subscribe(2, "t", AtLeastOnce);
    bench.cut(2);
    for (payload, seconds) in [("short", 5), ("long", 60)] {
        bench.send(
            1,
            with(publish("t", payload, AtLeastOnce, 1), lasting(seconds)),
        );
    }
    bench.send(1, publish("t", "for ever", AtLeastOnce, 1));
    bench.wait(Duration::from_millis(10_500));
    assert_eq!(bench.stats().counters.messages_expired, 1);
    bench.join(3, expiring("s", 1_000));
    let got = bench.messages(3);
    assert_eq!(
        got.iter().map(text).collect::<Vec<_>>(),
        ["long", "for ever"]
    );
    assert_eq!(properties(&got[0]).message_expiry, Some(50), "what is left");
    assert_eq!(got[1].properties, None);
}

#[test]
fn a_message_behind_a_full_window_expires_without_a_tick() {
    let mut bench = Bench::with(Limits {
        in_flight: 1,
        queued_messages: 1,
        ..Limits::default()
    });
    bench.join(1, plain("p"));
    bench.join(2, plain("s"));
    bench.subscribe(2, "t", AtLeastOnce);
    bench.send(1, publish("t", "1", AtLeastOnce, 1));
    bench.send(1, with(publish("t", "2", AtLeastOnce, 1), lasting(5)));
    bench.now += 5 * SECOND;
    bench.send(1, publish("t", "3", AtLeastOnce, 1));
    assert_eq!(bench.stats().counters.dropped(), 0, "it makes room");
    let first = bench.messages(2).remove(0);
    bench.send(2, Packet::PubAck(Ack::from(first.id.unwrap())));
    assert_eq!(bench.payloads(2), ["3"]);
    assert_eq!(bench.stats().counters.messages_expired, 1);
}

#[test]
fn retained_messages_expire() {
    let mut bench = Bench::new();
    bench.join(1, plain("a"));
    bench.send(1, with(retained("t", "1"), lasting(10)));
    bench.wait(4 * SECOND);
    bench.subscribe(1, "t", AtMostOnce);
    let got = bench.messages(1).remove(0);
    assert_eq!(properties(&got).message_expiry, Some(6));
    bench.wait(6 * SECOND);
    bench.subscribe(1, "t", AtMostOnce);
    assert_eq!(bench.payloads(1), [""; 0]);
    assert!(
        !bench
            .broker
            .retained
            .matching("t", Duration::ZERO)
            .any(|_| true)
    );
}

#[test]
fn a_message_that_was_sent_once_is_sent_again_although_it_expired() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, expiring("s", 1_000));
    bench.subscribe(2, "t", AtLeastOnce);
    bench.send(1, with(publish("t", "1", AtLeastOnce, 1), lasting(5)));
    bench.take(2);
    bench.cut(2);
    bench.wait(10 * SECOND);
    bench.join(3, expiring("s", 1_000));
    let again = bench.messages(3).remove(0);
    assert!(again.dup, "its delivery was started");
    assert_eq!(properties(&again).message_expiry, Some(0));
}

#[test]
fn a_publisher_learns_that_nobody_listens() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.send(1, publish("t", "", AtLeastOnce, 1));
    bench.send(1, publish("t", "", ExactlyOnce, 2));
    let nobody = ReasonCode::NoMatchingSubscribers;
    assert_eq!(reasons(&mut bench, 1), [nobody, nobody]);
    bench.join(2, clean("s"));
    bench.subscribe(2, "t", AtMostOnce);
    bench.send(1, publish("t", "", AtLeastOnce, 1));
    assert_eq!(reasons(&mut bench, 1), [ReasonCode::Success]);
    bench.send(2, publish("x", "", AtLeastOnce, 1));
    assert_eq!(
        reasons(&mut bench, 2),
        [ReasonCode::Success],
        "not in 3.1.1"
    );
}

#[test]
fn unsubscribe_tells_what_was_there() {
    let mut bench = Bench::new();
    bench.join(1, plain("c"));
    bench.subscribe(1, "a", AtMostOnce);
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        id: id(3),
        filters: vec!["a".into(), "b".into()],
        user_properties: Vec::new(),
    });
    bench.send(1, unsubscribe.clone());
    match bench.take(1).as_slice() {
        [Packet::UnsubAck(ack)] => assert_eq!(
            ack.codes,
            [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]
        ),
        other => panic!("an UNSUBACK, not {other:?}"),
    }
    bench.join(2, clean("old"));
    bench.send(2, unsubscribe);
    assert_eq!(bench.take(2), [unsuback(3)], "3.1.1 has no codes");
}

#[test]
fn shared_messages_keep_identifier_and_retain_of_their_subscription() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, plain("new"));
    bench.join(3, clean("old"));
    let wanted = Subscription {
        retain_as_published: true,
        ..subscription("$share/g/t", AtMostOnce)
    };
    subscribe_as(&mut bench, 2, wanted, Some(4));
    bench.subscribe(3, "$share/g/t", AtMostOnce);
    for _ in 0..2 {
        bench.send(1, retained("t", "1"));
    }
    let (new, old) = (bench.messages(2).remove(0), bench.messages(3).remove(0));
    assert!(new.retain && !old.retain);
    assert_eq!(properties(&new).subscription_ids.len(), 1);
    assert_eq!(old.properties, None);
}

#[test]
fn what_a_member_of_a_group_refuses_goes_to_nobody_else() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    for connection in 2..=3 {
        bench.join(connection, expiring(&format!("m{connection}"), 100));
        bench.subscribe(connection, "$share/g/t", ExactlyOnce);
    }
    for (number, qos) in [(1, AtLeastOnce), (2, ExactlyOnce)] {
        bench.send(1, publish("t", "", qos, number));
        bench.send(1, publish("t", "", qos, number + 10));
    }
    for message in bench.messages(2) {
        let refused = Ack::new(message.id.unwrap(), ReasonCode::QuotaExceeded);
        bench.send(
            2,
            match message.qos {
                AtLeastOnce => Packet::PubAck(refused),
                _ => Packet::PubRec(refused),
            },
        );
    }
    bench.take(3);
    assert_eq!(bench.take(2), [], "no PUBREL for what was refused");
    assert_eq!(bench.stats().counters.rejected_by_receiver, 2);
    bench.cut(2);
    assert_eq!(bench.take(3), []);
    bench.cut(3);
    bench.broker.forget_offline_sessions();
    assert_eq!(bench.stats().queued_bytes, 0);
}
