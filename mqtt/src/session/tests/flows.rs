//! One exchange after the other, as MQTT 3.1.1 has it.

use std::time::{Duration, Instant};

use super::{Tested, config, events, message, number, sent, session};
use crate::codec::{
    self, Ack, ConnAck, Kind, Packet, PacketId, Publish, QoS, ReasonCode, SubAck, Subscription,
    UnsubAck, Version,
};
use crate::session::{
    AckId, AckMode, Config, Continuity, Event, Session, Settled, Terms, Violation,
};

#[test]
fn window_is_respected_and_fills_the_whole_id_space() {
    let mut session = session(u16::MAX, AckMode::Auto);
    session
        .connected(&Terms::plain(false), Instant::now())
        .unwrap();
    let filter = Subscription::new("a", QoS::AtMostOnce);
    session.subscribe(vec![filter], None, None);
    let mut published = 0;
    while session.window_free().take(QoS::AtLeastOnce) {
        session.publish(message(0, QoS::AtLeastOnce), None, Instant::now());
        published += 1;
    }
    assert_eq!(published, 65_519, "sixteen ids are kept for controls");
    for filter in ["b", "c"] {
        let filter = Subscription::new(filter, QoS::AtMostOnce);
        session.subscribe(vec![filter], None, None);
    }
    assert_eq!(session.open(), 65_522, "and they take theirs");
}

#[test]
fn controls_that_come_after_room_was_promised_find_their_ids() {
    let mut session = session(u16::MAX, AckMode::Auto);
    session
        .connected(&Terms::plain(false), Instant::now())
        .unwrap();
    let mut room = session.window_free();
    for _ in 0..20 {
        let filter = Subscription::new("a", QoS::AtMostOnce);
        session.subscribe(vec![filter], None, None);
    }
    let mut published = 0;
    while room.take(QoS::AtLeastOnce) {
        session.publish(message(0, QoS::AtLeastOnce), None, Instant::now());
        published += 1;
    }
    assert_eq!(session.open(), published + 20);
}

#[test]
fn resume_sends_publishes_then_releases_in_order_with_dup() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
    for (index, qos) in [
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
        QoS::ExactlyOnce,
        QoS::AtLeastOnce,
    ]
    .iter()
    .enumerate()
    {
        session.publish(
            message(index as u32, *qos),
            Some(index as u32),
            Instant::now(),
        );
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
    let resumed = session.connected(&Terms::plain(true), now).unwrap();
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
    session.connected(&Terms::plain(false), now).unwrap();
    let filter = |name: &str| Subscription::new(name, QoS::AtLeastOnce);
    session.subscribe(vec![filter("a"), filter("b")], None, Some(1));
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
    session.publish(message(7, QoS::AtLeastOnce), Some(7), Instant::now());
    session.publish(message(8, QoS::ExactlyOnce), Some(8), Instant::now());
    let packets = sent(&mut session);
    let Packet::Publish(second) = &packets[1] else {
        panic!("{packets:?}")
    };
    session
        .receive(Packet::PubRec(Ack::from(second.id.unwrap())), now)
        .unwrap();
    events(&mut session);
    session.connection_lost();

    let resumed = session.connected(&Terms::plain(false), now).unwrap();
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
        matches!(done[..], [Event::Published(Some(8), ReasonCode::Success)]),
        "the server had taken it over"
    );
    let refused = SubAck {
        id: renewed.id,
        codes: vec![ReasonCode::UnspecifiedError],
        properties: None,
    };
    session.receive(Packet::SubAck(refused), now).unwrap();
    assert!(
        matches!(&events(&mut session)[..], [Event::RenewalRefused(name, Some(_))] if *name == "a")
    );
    assert!(session.subscriptions.is_empty());
}

#[test]
fn a_kept_session_is_not_subscribed_again_but_an_unanswered_subscribe_is() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
    let filter = Subscription::new("a", QoS::AtLeastOnce);
    session.subscribe(vec![filter], None, Some(1));
    session.unsubscribe(vec!["b".into()], Some(2));
    let first = sent(&mut session);
    session.connection_lost();
    session.connected(&Terms::plain(true), now).unwrap();
    let kinds: Vec<Kind> = sent(&mut session).iter().map(Packet::kind).collect();
    assert_eq!(kinds, [Kind::Subscribe, Kind::Unsubscribe]);
    assert_eq!(first.len(), 2);
}

#[test]
fn answers_to_nothing_are_tolerated_as_the_specification_says() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
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
    session.publish(message(1, QoS::ExactlyOnce), Some(1), Instant::now());
    let packets = sent(&mut session);
    let Packet::Publish(publish) = &packets[0] else {
        panic!("{packets:?}")
    };
    let id = publish.id.unwrap();
    session
        .receive(Packet::PubComp(Ack::from(id)), now)
        .unwrap();
    assert_eq!(
        session.open(),
        1,
        "PUBCOMP does not complete a QoS 2 publish before PUBREC"
    );
    assert!(events(&mut session).is_empty());
}

#[test]
fn what_only_a_client_may_send_is_a_violation() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
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
            Err(Violation::Unexpected(kind).into())
        );
    }
    let filter = Subscription::new("a", QoS::AtLeastOnce);
    session.subscribe(vec![filter], None, Some(1));
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
        kind: Kind::SubAck,
        expected: 1,
        found: 2,
    };
    assert_eq!(
        session.receive(Packet::SubAck(suback), now),
        Err(expected.into())
    );
}

#[test]
fn manual_acknowledgements_leave_in_order_of_arrival() {
    let mut session = session(10, AckMode::Manual);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
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
    session.connected(&Terms::plain(true), now).unwrap();
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
    session.connected(&Terms::plain(false), now).unwrap();
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
    assert_eq!(one_more, Err(Violation::TooManyUnacknowledged.into()));
}

#[test]
fn clean_session_forgets_what_was_received_but_not_what_was_published() {
    let config = Config {
        continuity: Continuity::EachAnew,
        keep_alive: Duration::ZERO,
        ..config(Version::V311, 4)
    };
    let mut session: Tested = Session::new(&config);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
    let incoming = Publish {
        id: PacketId::new(1),
        ..message(1, QoS::ExactlyOnce)
    };
    session
        .receive(Packet::Publish(incoming.clone()), now)
        .unwrap();
    session.publish(message(2, QoS::AtLeastOnce), Some(2), Instant::now());
    session.connection_lost();
    let resumed = session.connected(&Terms::plain(false), now).unwrap();
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
    session.connected(&Terms::plain(false), start).unwrap();
    session.publish(message(1, QoS::AtLeastOnce), None, Instant::now());
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
    session
        .connected(&Terms::plain(false), Instant::now())
        .unwrap();
    for _ in 0..5 {
        assert!(session.window_free().take(QoS::ExactlyOnce));
        session.publish(message(1, QoS::ExactlyOnce), None, Instant::now());
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
fn a_qos_2_publish_answered_as_qos_1_is_complete_and_counted() {
    let mut session = session(10, AckMode::Auto);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
    session.publish(message(1, QoS::ExactlyOnce), Some(1), now);
    let packets = sent(&mut session);
    let Packet::Publish(publish) = &packets[0] else {
        panic!("{packets:?}")
    };
    let ack = Ack::from(publish.id.unwrap());
    session.receive(Packet::PubAck(ack.clone()), now).unwrap();
    let events = events(&mut session);
    assert!(
        matches!(&events[..], [Event::Published(Some(1), _)]),
        "{events:?}"
    );
    assert_eq!((session.open(), session.downgraded()), (0, 1));

    // After PUBREC it can only be a stray one.
    session.publish(message(2, QoS::ExactlyOnce), Some(2), now);
    let packets = sent(&mut session);
    let Packet::Publish(publish) = &packets[0] else {
        panic!("{packets:?}")
    };
    let ack = Ack::from(publish.id.unwrap());
    session.receive(Packet::PubRec(ack.clone()), now).unwrap();
    session.receive(Packet::PubAck(ack), now).unwrap();
    assert_eq!((session.open(), session.downgraded()), (1, 1));
}

#[test]
fn a_qos_2_message_held_over_a_reconnect_is_delivered_once_and_acknowledged() {
    let mut session = session(10, AckMode::Manual);
    let now = Instant::now();
    session.connected(&Terms::plain(false), now).unwrap();
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
        session.connected(&Terms::plain(true), now).unwrap();
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
