//! A server that has kept the session, and a client that has not: no id is used for QoS 2 that the server may hold.

use std::collections::BTreeSet;

use super::{Tested, connect, events, message, number, publish, sent, session};
use crate::codec::{Ack, Packet, PacketId, Publish, QoS};
use crate::session::{AckMode, Event};
use std::time::{Duration, Instant};

fn ids(packets: &[Packet]) -> BTreeSet<PacketId> {
    let id = |packet: &Packet| match packet {
        Packet::PubRel(ack) => ack.id,
        other => panic!("not a PUBREL: {other:?}"),
    };
    packets.iter().map(id).collect()
}

fn pubcomp(session: &mut Tested, id: PacketId) {
    session
        .receive(Packet::PubComp(Ack::from(id)), Instant::now())
        .unwrap();
}

fn publishes(packets: Vec<Packet>) -> Vec<Publish> {
    let publish = |packet| match packet {
        Packet::Publish(publish) => publish,
        other => panic!("not a PUBLISH: {other:?}"),
    };
    packets.into_iter().map(publish).collect()
}

#[test]
fn ids_are_released_before_the_first_publish_of_qos_2_and_nothing_else_waits_longer() {
    let mut session = session(4, AckMode::Auto);
    connect(&mut session, true);
    publish(&mut session, message(0, QoS::AtLeastOnce), 0);
    assert_eq!(
        publishes(sent(&mut session)).len(),
        1,
        "QoS 1 needs none of it"
    );

    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    let released = ids(&sent(&mut session));
    assert!(
        !session.window_free().take(QoS::AtLeastOnce),
        "order is kept"
    );
    // Handed over in the same batch.
    session.publish(message(2, QoS::AtLeastOnce), Some(2), Instant::now());
    assert!(sent(&mut session).is_empty());

    for &id in released.iter().skip(1) {
        pubcomp(&mut session, id);
        assert!(sent(&mut session).is_empty(), "one is not answered yet");
    }
    pubcomp(&mut session, released.first().copied().unwrap());
    let published = publishes(sent(&mut session));
    assert_eq!(published.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    for publish in &published {
        assert!(released.contains(&publish.id.unwrap()));
        assert!(!publish.dup);
    }
    assert_eq!(session.ignored(), 0, "every answer was waited for");

    // Every id that is used from now on was released.
    for number in 3..1000 {
        publish(&mut session, message(number, QoS::ExactlyOnce), number);
        let [Packet::Publish(publish)] = &sent(&mut session)[..] else {
            panic!("one packet for one message");
        };
        let id = publish.id.unwrap();
        assert!(released.contains(&id));
        session
            .receive(Packet::PubRec(Ack::from(id)), Instant::now())
            .unwrap();
        pubcomp(&mut session, id);
        sent(&mut session);
    }
}

#[test]
fn a_break_before_all_are_released_begins_again_and_sends_nothing_as_a_repeat() {
    let mut session = session(4, AckMode::Auto);
    connect(&mut session, true);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    let released = ids(&sent(&mut session));
    let first = released.first().copied().unwrap();
    pubcomp(&mut session, first);
    session.connection_lost();
    let resumed = connect(&mut session, true);
    assert_eq!((resumed.republished, resumed.failed), (0, 0));
    let rest = ids(&sent(&mut session));
    assert_eq!(rest, released.into_iter().skip(1).collect());
    for id in rest {
        pubcomp(&mut session, id);
    }
    let published = publishes(sent(&mut session));
    assert_eq!(published.len(), 1);
    assert!(!published[0].dup, "it goes out for the first time");
}

#[test]
fn a_session_that_the_server_lost_meanwhile_has_nothing_to_release() {
    let mut session = session(4, AckMode::Auto);
    connect(&mut session, true);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    sent(&mut session);
    session.connection_lost();
    connect(&mut session, false);
    let published = publishes(sent(&mut session));
    assert_eq!(published.len(), 1);
    assert!(!published[0].dup);
    assert!(
        events(&mut session).is_empty(),
        "it was never sent, so it is not lost"
    );
}

#[test]
fn a_server_that_does_not_answer_a_release_is_not_waited_for_for_ever() {
    let mut session = session(4, AckMode::Auto);
    connect(&mut session, true);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    sent(&mut session);
    let until = session.deadline().unwrap();
    session.tick(until - Duration::from_millis(1)).unwrap();
    assert!(sent(&mut session).is_empty());
    session.tick(until).unwrap();
    assert_eq!(publishes(sent(&mut session)).len(), 1);
    assert!(session.window_free().take(QoS::AtLeastOnce));
}

#[test]
fn a_session_of_our_own_is_known() {
    for restored in [false, true] {
        let mut session = session(4, AckMode::Auto);
        if restored {
            session.restore_release(PacketId::MIN, Some(0));
            connect(&mut session, true);
            pubcomp(&mut session, PacketId::MIN);
            sent(&mut session);
        } else {
            connect(&mut session, false);
            session.connection_lost();
            connect(&mut session, true);
        }
        publish(&mut session, message(1, QoS::ExactlyOnce), 1);
        assert_eq!(publishes(sent(&mut session)).len(), 1);
    }
}

#[test]
fn a_server_that_hangs_up_at_every_release_is_not_asked_for_ever() {
    let mut session = session(4, AckMode::Auto);
    connect(&mut session, true);
    publish(&mut session, message(1, QoS::ExactlyOnce), 1);
    for _ in 0..3 {
        assert!(!ids(&sent(&mut session)).is_empty());
        session.connection_lost();
        connect(&mut session, true);
    }
    let published = publishes(sent(&mut session));
    assert_eq!(published.len(), 1);
    session
        .receive(
            Packet::PubAck(Ack::from(published[0].id.unwrap())),
            Instant::now(),
        )
        .unwrap();
    assert!(matches!(
        events(&mut session)[..],
        [Event::Published(Some(1), _)]
    ));
}
