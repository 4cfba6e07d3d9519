//! What both versions have in common: identifiers, and exchanges that break off at every step.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::{Tested, config, connect, events, message, publish, sent};
use crate::codec::{Ack, Packet, PacketId, QoS, Version};
use crate::session::{Event, Session};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

fn receive(session: &mut Tested, packet: Packet) {
    session.receive(packet, Instant::now()).unwrap();
}

/// The ids of the PUBLISH packets sent, which are nothing else.
fn published(session: &mut Tested) -> Vec<PacketId> {
    let ids = sent(session).into_iter().map(|packet| match packet {
        Packet::Publish(publish) => publish.id.unwrap(),
        other => panic!("{other:?}"),
    });
    ids.collect()
}

/// Acknowledges 70,000 publishes, each `behind` others; the first not at all.
fn wrap_ids(version: Version, window: u16, behind: usize) {
    let mut session: Tested = Session::new(&config(version, window));
    connect(&mut session, false);
    let mut in_flight = VecDeque::new();
    let mut open = HashSet::new();
    for index in 0..70_000 {
        publish(&mut session, message(index, QoS::AtLeastOnce), index);
        let ids = published(&mut session);
        let [id] = ids[..] else { panic!("{ids:?}") };
        assert!(open.insert(id), "{id} is in flight already");
        in_flight.push_back(id);
        if in_flight.len() > behind {
            let id = in_flight.remove(1).unwrap();
            open.remove(&id);
            receive(&mut session, Packet::PubAck(Ack::from(id)));
        }
    }
    assert_eq!(session.open(), in_flight.len());
}

#[test]
fn seventy_thousand_publishes_wrap_ids_without_zero_or_reuse() {
    for version in VERSIONS {
        wrap_ids(version, u16::MAX, 1000);
    }
}

#[test]
fn a_small_window_with_one_long_open_id_never_uses_that_again() {
    for version in VERSIONS {
        wrap_ids(version, 3, 2);
    }
}

/// What goes out after a break: the kind of packet, DUP and the id.
fn again(session: &mut Tested) -> Vec<(&'static str, bool, PacketId)> {
    session.connection_lost();
    connect(session, true);
    let packets = sent(session).into_iter().map(|packet| match packet {
        Packet::Publish(publish) => ("PUBLISH", publish.dup, publish.id.unwrap()),
        Packet::PubRel(ack) => ("PUBREL", false, ack.id),
        other => panic!("{other:?}"),
    });
    packets.collect()
}

#[test]
fn a_break_after_any_step_resends_that_step_under_its_id_and_in_order() {
    for version in VERSIONS {
        let mut session: Tested = Session::new(&config(version, 10));
        connect(&mut session, false);
        for (number, qos) in (0..).zip([QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]) {
            publish(&mut session, message(number, qos), number);
        }
        let ids = published(&mut session);
        let [first, second, third] = ids[..] else {
            panic!("{ids:?}")
        };
        let whole = [
            ("PUBLISH", true, first),
            ("PUBLISH", true, second),
            ("PUBLISH", true, third),
        ];
        assert_eq!(again(&mut session), whole, "after PUBLISH");
        assert_eq!(again(&mut session), whole, "and once more");
        receive(&mut session, Packet::PubRec(Ack::from(first)));
        let released = [whole[1], whole[2], ("PUBREL", false, first)];
        assert_eq!(again(&mut session), released, "after PUBREC");
        assert_eq!(again(&mut session), released, "after PUBREL");
        receive(&mut session, Packet::PubAck(Ack::from(second)));
        receive(&mut session, Packet::PubComp(Ack::from(first)));
        assert_eq!(again(&mut session), [whole[2]], "after PUBCOMP and PUBACK");
        let done = events(&mut session);
        assert!(matches!(
            done[..],
            [Event::Published(Some(1), _), Event::Published(Some(0), _)]
        ));
    }
}
