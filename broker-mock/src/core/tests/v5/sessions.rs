//! Session expiry, client ids, takeover, wills with a delay, and how connections end.

use super::*;
use qproxy_mqtt::codec::QoS::{AtLeastOnce, AtMostOnce};
use qproxy_mqtt::codec::{Auth, DecodeError, DisconnectProperties, Kind};

const SECOND: Duration = Duration::from_secs(1);

fn leaving(reason: ReasonCode, session_expiry: Option<u32>) -> Packet {
    Packet::Disconnect(Disconnect {
        reason,
        properties: Some(Box::new(DisconnectProperties {
            session_expiry,
            ..DisconnectProperties::default()
        })),
    })
}

fn delayed_will(connect: Connect, topic: &str, delay: u32) -> Connect {
    let mut connect = with_will(connect, topic);
    if let Some(will) = &mut connect.will {
        will.properties = Some(Box::new(WillProperties {
            delay: Some(delay),
            ..WillProperties::default()
        }));
    }
    connect
}

#[test]
fn connack_tells_the_limits() {
    let mut bench = Bench::with(Limits {
        packet_bytes: 5_000,
        incoming_qos2: 7,
        topic_aliases: 3,
        maximum_qos: AtLeastOnce,
        retained_messages: 0,
        maximum_keep_alive: Some(30 * SECOND),
        ..Limits::default()
    });
    let ack = bench.connack(1, plain("c"));
    let expected = ConnAckProperties {
        receive_max: std::num::NonZeroU16::new(7),
        max_qos: Some(AtLeastOnce),
        retain_available: Some(false),
        max_packet_size: std::num::NonZeroU32::new(5_000),
        topic_alias_max: Some(3),
        server_keep_alive: Some(30),
        ..ConnAckProperties::default()
    };
    assert_eq!(announced(&ack), expected);
    bench.wait(45 * SECOND);
    assert!(bench.closed.is_empty());
    bench.wait(SECOND);
    assert_eq!(bench.closed[&1], CloseReason::KeepAlive, "ours holds");
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::KeepAliveTimeout));
    assert_eq!(bench.connack(2, clean("old")).properties, None);
}

#[test]
fn defaults_are_not_told() {
    let mut bench = Bench::new();
    let ack = announced(&bench.connack(1, plain("c")));
    assert_eq!((ack.max_qos, ack.retain_available), (None, None));
    assert_eq!((ack.server_keep_alive, ack.session_expiry), (None, None));
    assert_eq!(ack.assigned_client_id, None);
}

#[test]
fn a_session_lives_as_long_as_it_asked_for() {
    let mut bench = Bench::new();
    assert!(!bench.join(1, expiring("s", 10)));
    bench.subscribe(1, "t", AtLeastOnce);
    bench.cut(1);
    bench.wait(9 * SECOND);
    assert!(bench.join(2, expiring("s", 10)), "session present");
    bench.cut(2);
    bench.wait(10 * SECOND);
    assert_eq!(bench.stats().counters.sessions_expired, 1);
    assert!(!bench.join(3, expiring("s", 10)), "it has expired");
}

#[test]
fn without_an_expiry_the_session_ends_with_its_connection() {
    let mut bench = Bench::new();
    for connect in [plain("s"), expiring("s", 0)] {
        bench.join(1, connect);
        bench.subscribe(1, "t", AtLeastOnce);
        bench.cut(1);
        assert_eq!(bench.stats().sessions, 0);
    }
}

#[test]
fn for_ever_is_as_long_as_the_limit_and_is_told() {
    let mut bench = Bench::with(Limits {
        session_expiry: 100 * SECOND,
        ..Limits::default()
    });
    let ack = bench.connack(1, expiring("s", u32::MAX));
    assert_eq!(announced(&ack).session_expiry, Some(100));
    assert_eq!(
        announced(&bench.connack(2, expiring("t", 50))).session_expiry,
        None
    );
    bench.cut(1);
    bench.wait(99 * SECOND);
    assert!(bench.join(3, expiring("s", u32::MAX)));
}

#[test]
fn clean_start_forgets_but_keeps_afterwards() {
    let mut bench = Bench::new();
    bench.join(1, expiring("s", 100));
    bench.subscribe(1, "t", AtLeastOnce);
    bench.cut(1);
    let fresh = Connect {
        clean_session: true,
        ..expiring("s", 100)
    };
    assert!(!bench.join(2, fresh));
    assert_eq!(bench.stats().subscriptions, 0);
    bench.cut(2);
    assert!(bench.join(3, expiring("s", 100)));
}

#[test]
fn disconnect_changes_the_expiry_but_not_from_zero() {
    let mut bench = Bench::new();
    bench.join(1, expiring("s", 100));
    bench.send(1, leaving(ReasonCode::Success, Some(0)));
    assert_eq!(bench.closed[&1], CloseReason::Disconnected);
    assert_eq!(bench.stats().sessions, 0);
    bench.join(2, expiring("s", 1));
    bench.send(2, leaving(ReasonCode::Success, Some(100)));
    bench.wait(50 * SECOND);
    assert!(bench.join(3, expiring("s", 0)));
    bench.send(3, leaving(ReasonCode::Success, Some(100)));
    assert_eq!(farewell(&mut bench, 3), Some(ReasonCode::ProtocolError));
    assert!(matches!(bench.closed[&3], CloseReason::Protocol(_)));
    assert_eq!(bench.stats().sessions, 0);
}

#[test]
fn a_client_without_a_name_is_given_one_that_it_can_come_back_with() {
    let mut bench = Bench::new();
    let first = bench.connack(1, expiring("", 100));
    let name = announced(&first).assigned_client_id.expect("a name");
    let second = bench.connack(2, plain(""));
    assert_ne!(announced(&second).assigned_client_id, Some(name.clone()));
    bench.cut(1);
    let again = bench.connack(3, expiring(&name, 100));
    assert!(again.session_present);
    assert_eq!(announced(&again).assigned_client_id, None);
    let other = Bench::new().connack(1, plain(""));
    assert_ne!(
        announced(&other).assigned_client_id,
        Some(name),
        "another broker gives other names"
    );
}

#[test]
fn who_is_taken_over_is_told() {
    let mut bench = Bench::new();
    bench.join(1, expiring("s", 100));
    assert!(
        bench.join(2, durable("s")),
        "a 3.1.1 client goes on with it"
    );
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::SessionTakenOver));
    assert_eq!(bench.closed[&1], CloseReason::TakenOver);
    assert!(bench.join(3, plain("s")));
    assert_eq!(bench.take(2), [], "3.1.1 has no such packet");
}

#[test]
fn a_delayed_will_is_published_when_its_time_has_come() {
    let mut bench = Bench::new();
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "will/#", AtMostOnce);
    bench.join(1, delayed_will(expiring("long", 100), "will/long", 10));
    bench.join(2, delayed_will(expiring("short", 5), "will/short", 10));
    bench.join(3, delayed_will(plain("none"), "will/none", 10));
    for connection in 1..=3 {
        bench.cut(connection);
    }
    let topics = |bench: &mut Bench| -> Vec<String> {
        let messages = bench.messages(9);
        messages
            .iter()
            .map(|message| message.topic.to_string())
            .collect()
    };
    assert_eq!(topics(&mut bench), ["will/none"], "its session has ended");
    bench.wait(4 * SECOND);
    assert_eq!(topics(&mut bench), [""; 0]);
    bench.wait(SECOND);
    assert_eq!(topics(&mut bench), ["will/short"], "its session ends first");
    bench.wait(5 * SECOND);
    assert_eq!(topics(&mut bench), ["will/long"]);
    assert_eq!(bench.stats().counters.wills_published, 3);
    assert_eq!(bench.stats().queued_bytes, 0);
}

#[test]
fn who_comes_back_in_time_has_no_will_published() {
    let mut bench = Bench::new();
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "will", AtMostOnce);
    bench.join(1, delayed_will(expiring("s", 100), "will", 10));
    bench.cut(1);
    assert!(bench.stats().queued_bytes > 0, "what waits is counted");
    bench.wait(9 * SECOND);
    bench.join(2, expiring("s", 100));
    bench.wait(9 * SECOND);
    assert_eq!(bench.payloads(9), [""; 0]);
    assert_eq!(bench.stats().counters.wills_cancelled, 1);
    bench.cut(2);
    bench.join(3, delayed_will(expiring("s", 100), "will", 10));
    let fresh = Connect {
        clean_session: true,
        ..expiring("s", 100)
    };
    bench.join(4, fresh);
    assert_eq!(
        bench.payloads(9),
        ["gone"],
        "a clean start ends the session"
    );
    assert_eq!(bench.stats().queued_bytes, 0);
}

#[test]
fn without_room_a_will_does_not_wait() {
    let mut bench = Bench::with(Limits {
        packet_bytes: 128,
        queued_bytes: 128,
        total_queued_bytes: 128,
        ..Limits::default()
    });
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "#", AtMostOnce);
    for number in 1..=4 {
        let name = format!("s{number}");
        bench.join(number, delayed_will(expiring(&name, 100), "will", 10));
        bench.cut(number);
    }
    assert_eq!(
        bench.payloads(9).len(),
        2,
        "two fill the half for who is away"
    );
}

#[test]
fn only_a_normal_disconnect_takes_the_will_back() {
    let mut bench = Bench::new();
    bench.join(9, clean("watcher"));
    bench.subscribe(9, "will/#", AtMostOnce);
    bench.join(1, with_will(plain("a"), "will/a"));
    bench.join(2, with_will(plain("b"), "will/b"));
    bench.send(1, leaving(ReasonCode::Success, None));
    bench.send(2, leaving(ReasonCode::DisconnectWithWill, None));
    let messages = bench.messages(9);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].topic, *"will/b");
    let reason = CloseReason::Left(ReasonCode::DisconnectWithWill);
    assert_eq!(bench.closed[&2], reason);
}

#[test]
fn extended_authentication_is_refused() {
    let mut bench = Bench::new();
    let asks = ConnectProperties {
        auth_method: Some("SCRAM-SHA-1".into()),
        ..ConnectProperties::default()
    };
    let ack = bench.connack(1, connect("c", asks));
    assert_eq!(ack.code, ReasonCode::BadAuthenticationMethod);
    bench.join(2, plain("c"));
    bench.send(2, Packet::Auth(Auth::default()));
    assert_eq!(farewell(&mut bench, 2), Some(ReasonCode::ProtocolError));
}

#[test]
fn each_end_has_its_reason() {
    let mut bench = Bench::new();
    bench.join(1, plain("a"));
    bench.send(1, Packet::Connect(Box::new(plain("a"))));
    assert_eq!(farewell(&mut bench, 1), Some(ReasonCode::ProtocolError));
    for (error, reason) in [
        (DecodeError::PacketType(0), ReasonCode::MalformedPacket),
        (
            DecodeError::TooLarge {
                kind: Kind::Publish,
                size: 2,
                limit: 1,
            },
            ReasonCode::PacketTooLarge,
        ),
    ] {
        bench.join(2, plain("a"));
        bench.broker.malformed(ConnectionId(2), error, bench.now);
        bench.settle();
        assert_eq!(farewell(&mut bench, 2), Some(reason));
    }
    bench.join(3, plain("a"));
    bench
        .broker
        .dismiss(ConnectionId(3), ReasonCode::ServerMoved);
    bench.settle();
    assert_eq!(farewell(&mut bench, 3), Some(ReasonCode::ServerMoved));
    for error in [DecodeError::ProtocolName, DecodeError::ProtocolLevel(9)] {
        bench.join(4, plain("a"));
        bench.broker.malformed(ConnectionId(4), error, bench.now);
        bench.settle();
        let reason = ReasonCode::UnspecifiedError;
        assert_eq!(farewell(&mut bench, 4), Some(reason), "0x84 has no place");
    }
    bench.join(4, plain("a"));
    bench.broker.close_all(&CloseReason::Shutdown);
    bench.settle();
    assert_eq!(
        farewell(&mut bench, 4),
        Some(ReasonCode::ServerShuttingDown)
    );
    bench.join(5, plain("a"));
    bench.broker.cut_all(&CloseReason::Fault);
    bench.settle();
    assert_eq!(
        farewell(&mut bench, 5),
        None,
        "a failing network says nothing"
    );
}

#[test]
fn no_session_left_is_a_quota() {
    let mut bench = Bench::with(Limits {
        sessions: 1,
        ..Limits::default()
    });
    bench.join(1, plain("a"));
    let ack = bench.connack(2, plain("b"));
    assert_eq!(ack.code, ReasonCode::QuotaExceeded);
    assert!(announced(&ack).reason_string.is_some());
}

#[test]
fn wills_that_break_what_holds_are_refused() {
    let mut bench = Bench::with(Limits {
        maximum_qos: AtMostOnce,
        retained_messages: 0,
        topic_levels: 2,
        property_bytes: 100,
        ..Limits::default()
    });
    let will = |topic: &str, qos, retain, text: &str| Connect {
        will: Some(Will {
            topic: topic.into(),
            payload: Bytes::new(),
            qos,
            retain,
            properties: Some(Box::new(WillProperties {
                content_type: Some(text.into()),
                ..WillProperties::default()
            })),
        }),
        ..plain("c")
    };
    let long = "x".repeat(200);
    for (connect, code) in [
        (
            will("t", AtLeastOnce, false, ""),
            ReasonCode::QoSNotSupported,
        ),
        (
            will("t", AtMostOnce, true, ""),
            ReasonCode::RetainNotSupported,
        ),
        (
            will("a/b/c", AtMostOnce, false, ""),
            ReasonCode::TopicNameInvalid,
        ),
        (
            will("t", AtMostOnce, false, &long),
            ReasonCode::QuotaExceeded,
        ),
        (will("t", AtMostOnce, false, ""), ReasonCode::Success),
    ] {
        assert_eq!(bench.connack(1, connect).code, code);
        bench.cut(1);
    }
}
