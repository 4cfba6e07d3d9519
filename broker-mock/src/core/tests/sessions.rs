//! CONNECT, durable sessions, takeover, wills, time-outs, and packets at the wrong time.

use super::*;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use qproxy_mqtt::codec::{DecodeError, Disconnect, ReasonCode};

fn refused(bench: &mut Bench, connection: u64, connect: Connect) -> ReasonCode {
    bench.open(connection);
    bench.send(connection, Packet::Connect(Box::new(connect)));
    let code = match bench.take(connection).as_slice() {
        [Packet::ConnAck(ack)] => ack.code,
        other => panic!("one CONNACK, not {other:?}"),
    };
    assert_eq!(bench.closed[&connection], CloseReason::Refused(code));
    code
}

#[test]
fn a_durable_session_gets_what_came_meanwhile() {
    let mut bench = Bench::new();
    bench.join(1, clean("publisher"));
    assert!(!bench.join(2, durable("s")));
    bench.subscribe(2, "t", AtLeastOnce);
    bench.send(2, Packet::Disconnect(Disconnect::default()));
    bench.send(1, publish("t", "qos 0", AtMostOnce, 0));
    bench.send(1, publish("t", "1", AtLeastOnce, 1));
    bench.send(1, publish("t", "2", AtLeastOnce, 2));
    assert!(bench.join(3, durable("s")), "session present");
    let messages = bench.messages(3);
    assert_eq!(messages.iter().map(text).collect::<Vec<_>>(), ["1", "2"]);
    assert!(
        messages.iter().all(|message| !message.dup),
        "never sent before"
    );
}

#[test]
fn unfinished_messages_come_again_in_order_with_dup_and_the_same_id() {
    let mut bench = Bench::new();
    bench.join(1, clean("publisher"));
    bench.join(2, durable("s"));
    bench.subscribe(2, "t", ExactlyOnce);
    for number in 1..=4 {
        let qos = if number == 2 {
            AtLeastOnce
        } else {
            ExactlyOnce
        };
        bench.send(1, publish("t", &number.to_string(), qos, number));
    }
    let first = bench.messages(2);
    bench.send(2, Packet::PubRec(Ack::from(first[0].id.unwrap())));
    bench.cut(2);
    assert!(bench.join(3, durable("s")));
    let again = bench.take(3);
    assert_eq!(again[0], Packet::PubRel(Ack::from(first[0].id.unwrap())));
    for (packet, before) in again[1..].iter().zip(&first[1..]) {
        let Packet::Publish(publish) = packet else {
            panic!("a PUBLISH, not {packet:?}")
        };
        assert!(publish.dup);
        assert_eq!((publish.id, &publish.payload), (before.id, &before.payload));
    }
    assert_eq!(again.len(), 4);
}

#[test]
fn a_received_qos_2_id_outlives_the_connection() {
    let mut bench = Bench::new();
    bench.join(1, durable("publisher"));
    bench.join(2, clean("subscriber"));
    bench.subscribe(2, "t", AtMostOnce);
    bench.send(1, publish("t", "1", ExactlyOnce, 4));
    bench.cut(1);
    bench.join(3, durable("publisher"));
    bench.send(3, publish("t", "1", ExactlyOnce, 4));
    assert_eq!(bench.payloads(2), ["1"], "delivered once");
}

#[test]
fn a_clean_session_ends_with_its_connection() {
    let mut bench = Bench::new();
    bench.join(1, durable("s"));
    bench.subscribe(1, "t", AtLeastOnce);
    bench.cut(1);
    assert!(!bench.join(2, clean("s")), "clean start forgets");
    bench.subscribe(2, "t", AtLeastOnce);
    bench.cut(2);
    assert!(!bench.join(3, durable("s")), "clean sessions are not kept");
    assert_eq!(bench.stats().subscriptions, 0);
}

#[test]
fn the_same_client_id_takes_over() {
    let mut bench = Bench::new();
    bench.join(1, with_will(durable("s"), "will"));
    bench.subscribe(1, "t", AtLeastOnce);
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "will", AtMostOnce);
    assert!(bench.join(2, durable("s")));
    assert_eq!(bench.closed[&1], CloseReason::TakenOver);
    assert_eq!(
        bench.payloads(9),
        ["gone"],
        "the old connection did not say goodbye"
    );
    bench.cut(1);
    bench.send(9, publish("t", "1", AtLeastOnce, 1));
    assert_eq!(
        bench.payloads(2),
        ["1"],
        "the late end of the old one changes nothing"
    );
    assert_eq!(
        (bench.stats().clients, bench.stats().counters.takeovers),
        (2, 1)
    );
}

#[test]
fn a_will_is_published_when_a_client_is_lost_and_not_when_it_leaves() {
    let mut bench = Bench::new();
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "will/#", AtMostOnce);
    bench.join(1, with_will(clean("a"), "will/a"));
    bench.join(2, with_will(clean("b"), "will/b"));
    bench.join(
        3,
        with_will(
            Connect {
                keep_alive: 1,
                ..clean("c")
            },
            "will/c",
        ),
    );
    bench.join(4, with_will(clean("d"), "will/d"));
    bench.cut(1);
    bench.send(2, Packet::Disconnect(Disconnect::default()));
    bench.wait(Duration::from_secs(2));
    bench.send(
        4,
        Packet::ConnAck(qproxy_mqtt::codec::ConnAck {
            session_present: false,
            code: ReasonCode::Success,
            properties: None,
        }),
    );
    let topics: Vec<String> = bench
        .messages(9)
        .iter()
        .map(|message| message.topic.to_string())
        .collect();
    assert_eq!(topics, ["will/a", "will/c", "will/d"]);
    assert_eq!(bench.closed[&2], CloseReason::Disconnected);
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_a_connection() {
    let mut bench = Bench::new();
    bench.join(
        1,
        Connect {
            keep_alive: 10,
            ..clean("a")
        },
    );
    bench.join(
        2,
        Connect {
            keep_alive: 0,
            ..clean("b")
        },
    );
    bench.join(
        3,
        Connect {
            keep_alive: 10,
            ..clean("c")
        },
    );
    bench.wait(Duration::from_secs(15));
    bench.send(3, Packet::PingReq);
    assert_eq!(bench.take(3), [Packet::PingResp]);
    assert!(bench.closed.is_empty());
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.closed[&1], CloseReason::KeepAlive);
    bench.wait(Duration::from_secs(100_000));
    assert!(!bench.closed.contains_key(&2), "0 switches it off");
    assert!(bench.closed.contains_key(&3));
}

#[test]
fn who_never_connects_is_closed() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.wait(Duration::from_secs(10));
    assert!(bench.closed.is_empty());
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.closed[&1], CloseReason::ConnectTimeout);
}

#[test]
fn an_empty_client_id_needs_a_clean_session() {
    let mut bench = Bench::new();
    assert_eq!(
        refused(&mut bench, 1, durable("")),
        ReasonCode::ClientIdNotValid
    );
    bench.join(2, clean(""));
    bench.join(3, clean(""));
    assert_eq!(bench.stats().clients, 2, "each gets a name of its own");
}

#[test]
fn name_and_token_are_checked() {
    let mut bench = Bench::configured(Config {
        app_id: Some("shop".into()),
        token: Some("secret".into()),
        ..Config::default()
    });
    let with = |username: &'static str, password: &'static str| Connect {
        username: Some(username.into()),
        password: Some(Bytes::from_static(password.as_bytes())),
        ..clean("c")
    };
    assert_eq!(
        refused(&mut bench, 1, clean("c")),
        ReasonCode::NotAuthorized
    );
    assert_eq!(
        refused(&mut bench, 2, with("shop", "wrong")),
        ReasonCode::NotAuthorized
    );
    assert_eq!(
        refused(&mut bench, 3, with("other", "secret")),
        ReasonCode::NotAuthorized
    );
    bench.join(4, with("shop", "secret"));
    assert_eq!(bench.stats().counters.connects_refused, 3);
}

#[test]
fn packets_at_the_wrong_time_close_the_connection() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.send(1, Packet::PingReq);
    assert_eq!(
        bench.closed[&1],
        CloseReason::Protocol("packet before CONNECT")
    );
    bench.join(2, clean("a"));
    bench.send(2, Packet::Connect(Box::new(clean("a"))));
    assert_eq!(bench.closed[&2], CloseReason::Protocol("second CONNECT"));
    for (connection, packet) in [
        (3, Packet::PingResp),
        (4, unsuback(1)),
        (
            5,
            Packet::SubAck(SubAck {
                id: id(1),
                codes: vec![ReasonCode::UnspecifiedError],
                properties: None,
            }),
        ),
    ] {
        bench.join(connection, clean("a"));
        bench.send(connection, packet);
        let reason = CloseReason::Protocol("packet that only a server sends");
        assert_eq!(bench.closed[&connection], reason);
    }
    assert_eq!(bench.stats().counters.protocol_errors, 5);
    assert_eq!(bench.stats().connections, 0);
}

#[test]
fn another_protocol_level_is_answered() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.broker.malformed(
        ConnectionId(1),
        DecodeError::ProtocolLevel(5),
        Duration::ZERO,
    );
    bench.settle();
    match bench.take(1).as_slice() {
        [Packet::ConnAck(ack)] => assert_eq!(ack.code, ReasonCode::UnsupportedProtocolVersion),
        other => panic!("a CONNACK, not {other:?}"),
    }
    bench.join(2, clean("a"));
    bench
        .broker
        .malformed(ConnectionId(2), DecodeError::PacketType(0), Duration::ZERO);
    bench.settle();
    assert_eq!(bench.take(2), []);
    assert_eq!(
        bench.closed[&2],
        CloseReason::Malformed(DecodeError::PacketType(0))
    );
}

#[test]
fn sessions_expire() {
    let mut bench = Bench::new();
    bench.join(1, durable("s"));
    bench.subscribe(1, "t", AtLeastOnce);
    bench.cut(1);
    bench.wait(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(bench.stats().sessions, 1);
    bench.wait(Duration::from_secs(1));
    assert_eq!(
        (bench.stats().sessions, bench.stats().subscriptions),
        (0, 0)
    );
    assert_eq!(bench.stats().counters.sessions_expired, 1);
}
