//! What MQTT 5.0 adds: reasons, the server's terms, aliases, expiry, and a session with a life of its own.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use super::{Tested, config, connect, events, message, publish, sent};
use crate::codec::{
    Ack, AckProperties, Auth, Disconnect, Kind, MAX_REMAINING_LENGTH, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, SubAck, Subscription, SubscriptionId, Text, UnsubAck,
    Version,
};
use crate::session::{
    AckMode, Closing, Config, Continuity, Event, Failure, Forbidden, Offered, OnSessionLost,
    Session, Terms, Violation,
};

fn v5(window: u16) -> Tested {
    Session::new(&config(Version::V5, window))
}

fn connected(window: u16) -> Tested {
    let mut session = v5(window);
    connect(&mut session, false);
    session
}

fn receive(session: &mut Tested, packet: Packet) {
    session.receive(packet, Instant::now()).unwrap();
}

/// The id of the only packet sent, a PUBLISH.
fn published_id(session: &mut Tested) -> PacketId {
    match &sent(session)[..] {
        [Packet::Publish(publish)] => publish.id.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn refused(id: PacketId, reason: ReasonCode, words: &'static str) -> Ack {
    let properties = AckProperties {
        reason_string: Some(Text::from_static(words)),
        ..AckProperties::default()
    };
    Ack {
        properties: Some(Box::new(properties)),
        ..Ack::new(id, reason)
    }
}

#[test]
fn a_refused_publish_fails_with_the_servers_words_and_its_id_is_free() {
    let mut session = connected(1);
    for (qos, reason) in [
        (QoS::AtLeastOnce, ReasonCode::NotAuthorized),
        (QoS::ExactlyOnce, ReasonCode::QuotaExceeded),
    ] {
        publish(&mut session, message(1, qos), 1);
        let ack = refused(published_id(&mut session), reason, "not you");
        receive(
            &mut session,
            if qos == QoS::ExactlyOnce {
                Packet::PubRec(ack)
            } else {
                Packet::PubAck(ack)
            },
        );
        let [Event::PublishFailed(Some(1), Failure::Refused(said))] = &events(&mut session)[..]
        else {
            panic!("not refused");
        };
        assert_eq!(
            (said.reason, said.text.as_deref()),
            (reason, Some("not you"))
        );
        assert!(sent(&mut session).is_empty(), "no PUBREL follows");
        assert_eq!(session.open(), 0);
    }
    publish(&mut session, message(2, QoS::AtLeastOnce), 2);
}

#[test]
fn that_nobody_is_subscribed_is_told() {
    let mut session = connected(1);
    publish(&mut session, message(1, QoS::AtLeastOnce), 1);
    let id = published_id(&mut session);
    receive(
        &mut session,
        Packet::PubAck(Ack::new(id, ReasonCode::NoMatchingSubscribers)),
    );
    assert!(matches!(
        events(&mut session)[..],
        [Event::Published(Some(1), ReasonCode::NoMatchingSubscribers)]
    ));
}

#[test]
fn ids_that_are_not_known_are_answered_as_such() {
    let mut session = connected(1);
    let id = PacketId::new(9).unwrap();
    let unknown = || Ack::new(id, ReasonCode::PacketIdNotFound);
    receive(&mut session, Packet::PubRec(Ack::from(id)));
    receive(&mut session, Packet::PubRel(Ack::from(id)));
    assert_eq!(
        sent(&mut session),
        [Packet::PubRel(unknown()), Packet::PubComp(unknown())]
    );
    receive(&mut session, Packet::PubRec(unknown_error(id)));
    assert!(sent(&mut session).is_empty(), "an error has no answer");
    assert_eq!(session.ignored(), 3);
}

fn unknown_error(id: PacketId) -> Ack {
    Ack::new(id, ReasonCode::UnspecifiedError)
}

#[test]
fn a_release_that_the_server_does_not_know_is_complete() {
    let mut session = connected(2);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    let id = published_id(&mut session);
    receive(&mut session, Packet::PubRec(Ack::from(id)));
    let lost = Ack::new(id, ReasonCode::PacketIdNotFound);
    receive(&mut session, Packet::PubComp(lost));
    assert!(matches!(
        events(&mut session)[..],
        [Event::Published(Some(1), ReasonCode::Success)]
    ));
    assert_eq!(session.open(), 0);
}

#[test]
fn no_more_is_in_flight_than_the_server_takes_also_when_it_takes_less_than_before() {
    let mut session = v5(10);
    let terms = |receive_maximum| Terms {
        receive_maximum,
        ..Terms::plain(true)
    };
    session.connected(&terms(4), Instant::now()).unwrap();
    for number in 0..4 {
        publish(&mut session, message(number, QoS::AtLeastOnce), number);
    }
    assert_eq!(session.window_free().acknowledged, 0);
    assert_eq!(sent(&mut session).len(), 4);

    session.connection_lost();
    let resumed = session.connected(&terms(3), Instant::now()).unwrap();
    assert_eq!((resumed.republished, resumed.failed), (4, 0));
    let again = sent(&mut session);
    assert_eq!(again.len(), 3, "the fourth waits");
    for (sent_again, expected) in again.into_iter().zip(0..) {
        let Packet::Publish(publish) = sent_again else {
            panic!("{sent_again:?}")
        };
        assert_eq!((publish.dup, super::number(&publish)), (true, expected));
        if expected == 0 {
            let early = Ack::from(PacketId::new(4).unwrap());
            receive(&mut session, Packet::PubAck(early));
            assert_eq!(session.ignored(), 1, "it was not sent on this connection");
            receive(&mut session, Packet::PubAck(Ack::from(publish.id.unwrap())));
        }
    }
    assert_eq!(sent(&mut session).len(), 1, "now there is room for it");
    assert_eq!(session.window_free().acknowledged, 0);
}

#[test]
fn what_the_server_does_not_take_fails_before_anything_is_sent() {
    let mut session = v5(10);
    let terms = Terms {
        max_qos: QoS::AtLeastOnce,
        retain: Offered::No,
        wildcards: Offered::No,
        shared: Offered::No,
        subscription_ids: Offered::No,
        max_packet_size: 64,
        ..Terms::plain(false)
    };
    session.connected(&terms, Instant::now()).unwrap();
    let retained = Publish {
        retain: true,
        ..message(1, QoS::AtMostOnce)
    };
    let large = Publish {
        payload: vec![0; 64].into(),
        ..message(1, QoS::AtLeastOnce)
    };
    for publish in [message(1, QoS::ExactlyOnce), retained, large] {
        let back = session.publish(publish, Some(1), Instant::now());
        assert_eq!(back, None);
    }
    let filter = |filter: &str| vec![Subscription::new(filter, QoS::AtMostOnce)];
    session.subscribe(filter("a/+"), None, Some(2));
    session.subscribe(filter("$share/group/a"), None, Some(2));
    session.subscribe(filter("a"), SubscriptionId::new(1), Some(2));
    session.subscribe(filter(&"a".repeat(64)), None, Some(2));
    let failures: Vec<Forbidden> = events(&mut session)
        .into_iter()
        .map(|event| match event {
            Event::PublishFailed(Some(1), Failure::Forbidden(forbidden))
            | Event::ControlFailed(Some(2), Failure::Forbidden(forbidden)) => forbidden,
            other => panic!("{other:?}"),
        })
        .collect();
    let limit = 64;
    let size = |size| Forbidden::TooLarge { size, limit };
    assert_eq!(
        failures,
        [
            Forbidden::QoS(QoS::AtLeastOnce),
            Forbidden::Retain,
            size(2 + 2 + 7 + 2 + 1 + 64),
            Forbidden::Wildcards("a/+".into()),
            Forbidden::Shared("$share/group/a".into()),
            Forbidden::SubscriptionId,
            size(2 + 2 + 1 + 2 + 64 + 1),
        ]
    );
    assert!(session.outbox().is_empty());
    assert_eq!(session.open(), 0);
    publish(&mut session, message(1, QoS::AtLeastOnce), 1);
    assert_eq!(sent(&mut session).len(), 1, "all else goes on");
}

#[test]
fn a_publish_in_flight_that_the_next_server_does_not_take_fails() {
    let mut session = connected(10);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    publish(&mut session, message(2, QoS::AtLeastOnce), 2);
    session.connection_lost();
    let terms = Terms {
        max_qos: QoS::AtLeastOnce,
        ..Terms::plain(false)
    };
    let resumed = session.connected(&terms, Instant::now()).unwrap();
    assert_eq!((resumed.republished, resumed.failed), (1, 1));
    assert!(matches!(
        events(&mut session)[..],
        [Event::PublishFailed(Some(1), Failure::Forbidden(_))]
    ));
}

#[test]
fn a_server_that_exceeds_the_receive_maximum_is_told() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut session: Tested = Session::new(&Config {
            receive_maximum: 2,
            ack_mode: AckMode::Manual,
            ..config(Version::V5, 10)
        });
        connect(&mut session, true);
        let incoming = |id| {
            Packet::Publish(Publish {
                id: PacketId::new(id),
                ..message(1, qos)
            })
        };
        receive(&mut session, incoming(1));
        receive(&mut session, incoming(2));
        let violation = Violation::ReceiveMaximum(2);
        assert_eq!(violation.reason(), ReasonCode::ReceiveMaximumExceeded);
        assert_eq!(
            session.receive(incoming(3), Instant::now()),
            Err(violation.into())
        );
        session.connection_lost();
        connect(&mut session, true);
        receive(&mut session, incoming(1));
        receive(&mut session, incoming(2));
    }
}

/// Topic and alias of the PUBLISH packets sent.
fn topics(session: &mut Tested) -> Vec<(String, Option<u16>)> {
    sent(session)
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => {
                let alias = publish.properties.and_then(|it| it.topic_alias);
                (publish.topic.into(), alias.map(NonZeroU16::get))
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_topic_goes_out_in_full_again_on_every_connection() {
    let mut session = v5(10);
    let terms = Terms {
        topic_alias_maximum: 5,
        ..Terms::plain(true)
    };
    session.connected(&terms, Instant::now()).unwrap();
    for number in 0..3 {
        publish(&mut session, message(number, QoS::AtLeastOnce), number);
    }
    let full = || "a/topic".to_owned();
    assert_eq!(
        topics(&mut session),
        [(full(), None), (full(), Some(1)), (String::new(), Some(1))]
    );
    session.connection_lost();
    connect(&mut session, true);
    assert_eq!(
        topics(&mut session),
        [(full(), None), (full(), None), (full(), None)],
        "this server takes no alias"
    );
    session.connection_lost();
    session.connected(&terms, Instant::now()).unwrap();
    assert_eq!(topics(&mut session)[0], (full(), None));
}

#[test]
fn a_message_that_fits_goes_out_without_the_alias_that_would_make_it_too_large() {
    let mut session = v5(10);
    let large = |bytes| Publish {
        payload: vec![0; bytes].into(),
        ..message(0, QoS::AtLeastOnce)
    };
    let terms = |present| Terms {
        topic_alias_maximum: 5,
        max_packet_size: 64,
        ..Terms::plain(present)
    };
    session.connected(&terms(false), Instant::now()).unwrap();
    let fits = 64 - (2 + 2 + 7 + 2 + 1);
    let full = || ("a/topic".to_owned(), None);
    for token in 0..3 {
        publish(&mut session, large(fits), token);
        assert_eq!(topics(&mut session), [full()]);
    }
    session.connection_lost();
    let resumed = session.connected(&terms(true), Instant::now()).unwrap();
    assert_eq!((resumed.republished, resumed.failed), (3, 0));
    assert_eq!(topics(&mut session), [full(), full(), full()]);
    publish(&mut session, large(1), 3);
    assert_eq!(
        topics(&mut session),
        [("a/topic".to_owned(), Some(1))],
        "where there is room the topic gets a number"
    );
    let back = session.publish(large(fits + 1), Some(4), Instant::now());
    assert_eq!(back, None);
    assert_eq!(topics(&mut session).len(), 1, "and its number saves bytes");
}

#[test]
fn the_largest_packet_there_is_goes_out_without_an_alias() {
    let mut session = v5(10);
    let terms = Terms {
        topic_alias_maximum: 5,
        ..Terms::plain(false)
    };
    session.connected(&terms, Instant::now()).unwrap();
    let head = 2 + 7 + 2 + 1;
    let largest = Publish {
        // Never written to, so no memory stands behind it.
        payload: vec![0; MAX_REMAINING_LENGTH - head].into(),
        ..message(0, QoS::AtLeastOnce)
    };
    for token in 0..2 {
        publish(&mut session, largest.clone(), token);
        assert_eq!(session.outbox().len(), MAX_REMAINING_LENGTH + 5);
        let len = session.outbox().len();
        session.outbox().advance(len);
    }
    assert!(events(&mut session).is_empty());
}

#[test]
fn a_server_names_a_topic_by_its_alias() {
    let mut session = connected(1);
    let incoming = |topic: &'static str, alias| {
        Packet::Publish(Publish {
            topic: Text::from_static(topic),
            properties: Some(Box::new(PublishProperties {
                topic_alias: NonZeroU16::new(alias),
                ..PublishProperties::default()
            })),
            ..Publish::default()
        })
    };
    receive(&mut session, incoming("a", 10));
    receive(&mut session, incoming("", 10));
    for event in events(&mut session) {
        assert!(matches!(&event, Event::Message(publish, None) if publish.topic == "a"));
    }
    for (packet, reason) in [
        (incoming("", 9), ReasonCode::ProtocolError),
        (incoming("a", 11), ReasonCode::TopicAliasInvalid),
    ] {
        let Err(Closing::Violation(violation)) = session.receive(packet, Instant::now()) else {
            panic!("taken");
        };
        assert_eq!(violation.reason(), reason);
    }
}

fn expiry(session: &mut Tested) -> Option<u32> {
    match &sent(session)[..] {
        [Packet::Publish(publish)] => publish.properties.as_ref().unwrap().message_expiry,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_sent_again_has_what_is_left_of_its_life_and_never_none() {
    let mut session = connected(1);
    let start = Instant::now();
    let properties = PublishProperties {
        message_expiry: Some(10),
        ..PublishProperties::default()
    };
    let mortal = Publish {
        properties: Some(Box::new(properties)),
        ..message(1, QoS::AtLeastOnce)
    };
    session.publish(mortal, Some(1), start);
    assert_eq!(expiry(&mut session), Some(10));
    for (seconds, left) in [(3, 7), (60, 1)] {
        session.connection_lost();
        let now = start + Duration::from_secs(seconds);
        session.connected(&Terms::plain(true), now).unwrap();
        assert_eq!(expiry(&mut session), Some(left));
    }
}

#[test]
fn the_servers_keep_alive_overrides_ours() {
    let mut session = v5(1);
    let start = Instant::now();
    let terms = |keep_alive| Terms {
        keep_alive,
        ..Terms::plain(true)
    };
    session.connected(&terms(Some(5)), start).unwrap();
    assert_eq!(session.deadline(), Some(start + Duration::from_secs(5)));
    session.connection_lost();
    session.connected(&terms(Some(0)), start).unwrap();
    assert_eq!(session.deadline(), None);
    session.connection_lost();
    session.connected(&terms(None), start).unwrap();
    assert_eq!(session.deadline(), Some(start + Duration::from_secs(60)));
}

#[test]
fn the_client_id_that_the_server_chose_is_kept() {
    let mut session = v5(1);
    assert_eq!(session.assigned_client_id(), None);
    let terms = Terms {
        assigned_client_id: Some("chosen".into()),
        ..Terms::plain(false)
    };
    session.connected(&terms, Instant::now()).unwrap();
    session.connection_lost();
    connect(&mut session, true);
    assert_eq!(session.assigned_client_id().unwrap(), "chosen");
}

#[test]
fn a_session_begun_anew_is_gone_on_with_until_the_client_leaves() {
    let mut session: Tested = Session::new(&Config {
        continuity: Continuity::FirstAnew,
        ..config(Version::V5, 1)
    });
    assert!(session.begins_anew());
    let present = session.connected(&Terms::plain(true), Instant::now());
    assert_eq!(present.unwrap_err(), Violation::SessionPresent);
    connect(&mut session, false);
    assert!(!session.begins_anew());
    publish(&mut session, message(1, QoS::AtLeastOnce), 1);
    sent(&mut session);
    session.connection_lost();
    connect(&mut session, true);
    assert!(matches!(&sent(&mut session)[..], [Packet::Publish(it)] if it.dup));
    assert_eq!(session.abandon().0, [Some(1)]);
    assert!(session.begins_anew());
    assert_eq!(session.open(), 0);
}

#[test]
fn a_goodbye_of_the_server_is_no_violation_but_auth_is() {
    let mut session = connected(1);
    let goodbye = Disconnect::from(ReasonCode::ServerShuttingDown);
    assert_eq!(
        session.receive(Packet::Disconnect(goodbye.clone()), Instant::now()),
        Err(Closing::Server(goodbye))
    );
    let auth = Packet::Auth(Auth::default());
    assert_eq!(
        session.receive(auth, Instant::now()),
        Err(Violation::Unexpected(Kind::Auth).into())
    );
}

#[test]
fn publishes_in_flight_fail_with_a_lost_session_where_that_is_wanted() {
    for version in [Version::V311, Version::V5] {
        let mut session: Tested = Session::new(&Config {
            on_session_lost: OnSessionLost::Fail,
            ..config(version, 4)
        });
        connect(&mut session, false);
        publish(&mut session, message(1, QoS::AtLeastOnce), 1);
        publish(&mut session, message(2, QoS::ExactlyOnce), 2);
        let Some(Packet::Publish(second)) = sent(&mut session).pop() else {
            panic!("not sent");
        };
        receive(&mut session, Packet::PubRec(Ack::from(second.id.unwrap())));
        sent(&mut session);
        session.connection_lost();
        let resumed = connect(&mut session, true);
        assert_eq!(
            (resumed.republished, resumed.failed),
            (1, 0),
            "it is not lost"
        );
        session.connection_lost();
        sent(&mut session);
        let resumed = connect(&mut session, false);
        assert_eq!((resumed.republished, resumed.failed), (0, 1));
        assert!(matches!(
            events(&mut session)[..],
            [
                Event::PublishFailed(Some(1), Failure::SessionLost),
                Event::Published(Some(2), _)
            ]
        ));
        assert!(sent(&mut session).is_empty());
        assert_eq!(session.window_free().acknowledged, 4);
    }
}

#[test]
fn subscriptions_are_renewed_with_their_options_and_identifiers() {
    let mut session = connected(1);
    let loud = Subscription::new("loud", QoS::AtLeastOnce);
    let quiet = Subscription {
        no_local: true,
        retain_as_published: true,
        ..Subscription::new("quiet", QoS::AtMostOnce)
    };
    for (wanted, id) in [(&loud, None), (&quiet, SubscriptionId::new(7))] {
        session.subscribe(vec![wanted.clone()], id, None);
        let Some(Packet::Subscribe(subscribe)) = sent(&mut session).pop() else {
            panic!("not sent");
        };
        receive(
            &mut session,
            Packet::SubAck(SubAck {
                id: subscribe.id,
                codes: vec![ReasonCode::Success],
                properties: None,
            }),
        );
    }
    session.connection_lost();
    assert_eq!(connect(&mut session, false).resubscribed, 2);
    let renewed: Vec<_> = sent(&mut session)
        .into_iter()
        .map(|packet| match packet {
            Packet::Subscribe(it) => (it.filters, it.properties.and_then(|it| it.subscription_id)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        renewed,
        [(vec![loud], None), (vec![quiet], SubscriptionId::new(7))]
    );
}

#[test]
fn a_filter_that_the_server_does_not_give_up_is_renewed_later() {
    let mut session = connected(1);
    for filter in ["kept", "gone"] {
        let wanted = Subscription::new(filter, QoS::AtMostOnce);
        session.subscribe(vec![wanted], None, None);
        let id = PacketId::new(if filter == "kept" { 1 } else { 2 }).unwrap();
        let (codes, properties) = (vec![ReasonCode::Success], None);
        receive(
            &mut session,
            Packet::SubAck(SubAck {
                id,
                codes,
                properties,
            }),
        );
    }
    session.unsubscribe(vec!["kept".into(), "gone".into()], Some(3));
    let codes = vec![ReasonCode::NotAuthorized, ReasonCode::NoSubscriptionExisted];
    let unsuback = |codes| {
        Packet::UnsubAck(UnsubAck {
            id: PacketId::new(3).unwrap(),
            codes,
            properties: None,
        })
    };
    let short = session.receive(unsuback(vec![ReasonCode::Success]), Instant::now());
    assert!(matches!(
        short,
        Err(Closing::Violation(Violation::CodeCount { .. }))
    ));
    events(&mut session);
    receive(&mut session, unsuback(codes.clone()));
    let [Event::Unsubscribed(Some(3), said, None)] = &events(&mut session)[..] else {
        panic!("no answer");
    };
    assert_eq!(*said, codes);
    session.connection_lost();
    assert_eq!(connect(&mut session, false).resubscribed, 1);
}
