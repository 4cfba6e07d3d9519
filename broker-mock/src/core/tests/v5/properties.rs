//! What goes through as it came, and how much of it may.

use super::*;
use qproxy_mqtt::codec::PayloadFormat;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce};

fn everything() -> PublishProperties {
    PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        response_topic: Some("answers/é".into()),
        correlation_data: Some(Bytes::from_static(&[0, 255, 7])),
        user_properties: vec![
            ("b".into(), "1".into()),
            ("a".into(), "2".into()),
            ("b".into(), "1".into()),
        ],
        content_type: Some("text/plain".into()),
        ..PublishProperties::default()
    }
}

#[test]
fn properties_arrive_as_they_were_sent_and_in_their_order() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.join(2, expiring("s", 100));
    bench.subscribe(2, "t", AtLeastOnce);
    bench.send(1, with(publish("t", "1", AtLeastOnce, 1), everything()));
    let first = bench.messages(2).remove(0);
    assert_eq!(properties(&first), everything());
    bench.cut(2);
    bench.join(3, expiring("s", 100));
    let again = bench.messages(3).remove(0);
    assert_eq!((again.dup, properties(&again)), (true, everything()));
}

#[test]
fn retained_messages_and_wills_keep_their_properties() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    bench.send(1, with(retained("t", "1"), everything()));
    let all = everything();
    let will = WillProperties {
        delay: None,
        payload_format: all.payload_format,
        message_expiry: Some(60),
        content_type: all.content_type,
        response_topic: all.response_topic,
        correlation_data: all.correlation_data,
        user_properties: all.user_properties,
    };
    let mut dying = with_will(plain("d"), "will");
    if let Some(testament) = &mut dying.will {
        testament.retain = true;
        testament.properties = Some(Box::new(will));
    }
    bench.join(2, dying);
    bench.wait(Duration::from_secs(10));
    bench.cut(2);
    bench.wait(Duration::from_secs(10));
    bench.subscribe(1, "#", AtMostOnce);
    let got: Vec<PublishProperties> = bench.messages(1).iter().map(properties).collect();
    let lasting = PublishProperties {
        message_expiry: Some(50),
        ..everything()
    };
    assert_eq!(got, [everything(), lasting], "expiry counts from the end");
}

#[test]
fn properties_do_not_keep_the_read_buffer_alive() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
    let text = || qproxy_mqtt::codec::Text::from_utf8(buffer.slice(..3)).unwrap();
    let said = PublishProperties {
        response_topic: Some(text()),
        correlation_data: Some(buffer.slice(..3)),
        user_properties: vec![(text(), text())],
        content_type: Some(text()),
        ..PublishProperties::default()
    };
    bench.send(1, with(retained("t", "1"), said));
    assert!(buffer.is_unique());
}

#[test]
fn they_are_counted_and_limited() {
    let mut bench = Bench::with(Limits {
        property_bytes: 400,
        ..Limits::default()
    });
    bench.join(1, plain("p"));
    bench.send(1, with(retained("small", "1"), everything()));
    let small = bench.stats().retained_bytes;
    assert!(small > 200, "more than text and payload: {small}");
    let many = PublishProperties {
        user_properties: vec![(qproxy_mqtt::codec::Text::default(), "".into()); 20],
        ..PublishProperties::default()
    };
    bench.send(1, with(publish("t", "1", AtLeastOnce, 1), many.clone()));
    match bench.take(1).pop() {
        Some(Packet::PubAck(ack)) => {
            assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
            assert!(ack.properties.is_some(), "it says what is too much");
        }
        other => panic!("a PUBACK, not {other:?}"),
    }
    bench.send(1, with(publish("t", "1", AtMostOnce, 0), many));
    assert_eq!(bench.stats().counters.publishes_refused, 2);
    assert!(bench.closed.is_empty());
}

#[test]
fn a_payload_must_be_the_text_that_it_is_said_to_be() {
    let mut bench = Bench::new();
    bench.join(1, plain("p"));
    let Packet::Publish(mut message) = with(publish("t", "", AtLeastOnce, 1), everything()) else {
        unreachable!("made as PUBLISH")
    };
    message.payload = Bytes::from_static(&[0xff]);
    bench.send(1, Packet::Publish(message));
    assert_eq!(reasons(&mut bench, 1), [ReasonCode::PayloadFormatInvalid]);
}

#[test]
fn who_wants_no_explanations_gets_none() {
    let mut bench = Bench::with(Limits {
        subscriptions: 1,
        ..Limits::default()
    });
    let quiet = ConnectProperties {
        request_problem_information: Some(false),
        ..ConnectProperties::default()
    };
    for (connection, connect, explained) in [
        (1, plain("loud"), true),
        (2, connect("quiet", quiet), false),
    ] {
        bench.join(connection, connect);
        bench.send(connection, publish("$SYS/x", "", AtLeastOnce, 1));
        bench.send(connection, subscribe(&[("$share/", AtMostOnce)]));
        match bench.take(connection).as_slice() {
            [Packet::PubAck(ack), Packet::SubAck(suback)] => {
                assert_eq!(ack.reason, ReasonCode::NotAuthorized);
                assert_eq!(ack.properties.is_some(), explained);
                assert_eq!(suback.codes, [ReasonCode::TopicFilterInvalid]);
                assert_eq!(suback.properties.is_some(), explained);
            }
            other => panic!("two answers, not {other:?}"),
        }
    }
}
