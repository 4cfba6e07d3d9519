//! What `mqttbytes` makes of the bytes of a packet that our codec has accepted.
//!
//! Two decoders that were written apart hardly share a bug; with one alone, a client and a broker built on it would
//! agree on a mistake. `mqttbytes` reads passwords as text, so a binary one is the single packet it is not asked about.

use bytes::BytesMut;
use mqttbytes::v4;
use qproxy_mqtt::codec::{Connect, Packet, Publish, QoS, Text};

/// Compares field by field; the error is what the other decoder sees.
pub(super) fn compare(ours: &Packet, frame: &[u8]) -> Result<(), String> {
    if let Packet::Connect(connect) = ours
        && let Some(password) = &connect.password
        && std::str::from_utf8(password).is_err()
    {
        return Ok(());
    }
    let mut bytes = BytesMut::from(frame);
    let theirs = v4::read(&mut bytes, frame.len()).map_err(|error| format!("{error:?}"))?;
    if bytes.is_empty() && same(ours, &theirs) {
        Ok(())
    } else {
        Err(describe(&theirs))
    }
}

/// Without payloads and passwords.
fn describe(packet: &v4::Packet) -> String {
    match packet {
        v4::Packet::Publish(publish) => format!(
            "PUBLISH to {:?}, {:?}, id {}, {} bytes",
            publish.topic,
            publish.qos,
            publish.pkid,
            publish.payload.len()
        ),
        v4::Packet::Connect(connect) => format!("CONNECT of {:?}", connect.client_id),
        other => format!("{other:?}"),
    }
}

fn same(ours: &Packet, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => same_connect(ours, theirs),
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => same_publish(ours, theirs),
        (Packet::PubAck(ours), v4::Packet::PubAck(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRec(ours), v4::Packet::PubRec(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRel(ours), v4::Packet::PubRel(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubComp(ours), v4::Packet::PubComp(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            let wanted = ours
                .filters
                .iter()
                .map(|one| (one.filter.as_str(), one.qos));
            let seen = theirs
                .filters
                .iter()
                .map(|one| (one.path.as_str(), qos(one.qos)));
            ours.id.get() == theirs.pkid && wanted.eq(seen)
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            let wanted = ours.filters.iter().map(Text::as_str);
            ours.id.get() == theirs.pkid && wanted.eq(theirs.topics.iter().map(String::as_str))
        }
        (Packet::PingReq, v4::Packet::PingReq)
        | (Packet::Disconnect(_), v4::Packet::Disconnect) => true,
        // What only a server sends is the core's to refuse; that both see the same kind is enough.
        (Packet::ConnAck(_), v4::Packet::ConnAck(_))
        | (Packet::SubAck(_), v4::Packet::SubAck(_))
        | (Packet::UnsubAck(_), v4::Packet::UnsubAck(_))
        | (Packet::PingResp, v4::Packet::PingResp) => true,
        _ => false,
    }
}

fn same_connect(ours: &Connect, theirs: &v4::Connect) -> bool {
    let will = match (&ours.will, &theirs.last_will) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => {
            ours.topic == *theirs.topic.as_str()
                && ours.payload == theirs.message
                && ours.qos == qos(theirs.qos)
                && ours.retain == theirs.retain
        }
        _ => false,
    };
    let (username, password) = theirs.login.as_ref().map_or(("", ""), |login| {
        (login.username.as_str(), login.password.as_str())
    });
    will && ours.client_id == *theirs.client_id.as_str()
        && ours.keep_alive == theirs.keep_alive
        && ours.clean_session == theirs.clean_session
        && ours.username.as_deref().unwrap_or_default() == username
        && ours.password.as_deref().unwrap_or_default() == password.as_bytes()
}

fn same_publish(ours: &Publish, theirs: &v4::Publish) -> bool {
    ours.topic == *theirs.topic.as_str()
        && ours.payload == theirs.payload
        && ours.qos == qos(theirs.qos)
        && ours.id.map_or(0, std::num::NonZeroU16::get) == theirs.pkid
        && (ours.dup, ours.retain) == (theirs.dup, theirs.retain)
}

fn qos(theirs: mqttbytes::QoS) -> QoS {
    match theirs {
        mqttbytes::QoS::AtMostOnce => QoS::AtMostOnce,
        mqttbytes::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqttbytes::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
    use qproxy_mqtt::codec::{
        self, Ack, Disconnect, PacketId, Subscribe, Subscription, Unsubscribe, Version, Will,
    };

    use super::*;

    fn bytes_of(packet: &Packet) -> BytesMut {
        let mut bytes = BytesMut::new();
        codec::encode(packet, Version::V311, &mut bytes).unwrap();
        bytes
    }

    fn id() -> impl Strategy<Value = PacketId> {
        any::<PacketId>()
    }

    fn qos_value() -> impl Strategy<Value = QoS> {
        prop_oneof![
            Just(QoS::AtMostOnce),
            Just(QoS::AtLeastOnce),
            Just(QoS::ExactlyOnce)
        ]
    }

    fn publish() -> impl Strategy<Value = Packet> {
        let flags = (qos_value(), any::<bool>(), any::<bool>());
        (flags, id(), "[a-zé/$]{1,20}", vec(any::<u8>(), 0..300)).prop_map(
            |((qos, dup, retain), id, topic, payload)| {
                let acknowledged = qos != QoS::AtMostOnce;
                Packet::Publish(Publish {
                    dup: dup && acknowledged,
                    qos,
                    retain,
                    topic: topic.into(),
                    id: acknowledged.then_some(id),
                    payload: payload.into(),
                    properties: None,
                })
            },
        )
    }

    fn connect() -> impl Strategy<Value = Packet> {
        let will = ("[a-zé/]{1,9}", qos_value(), any::<bool>());
        let login = ("[a-zé]{1,9}", proptest::option::of("[a-z0-9é]{1,9}"));
        (
            "[a-zé]{0,9}",
            any::<bool>(),
            any::<u16>(),
            proptest::option::of(will),
            proptest::option::of(login),
        )
            .prop_map(|(client_id, clean_session, keep_alive, will, login)| {
                let (username, password) = login.unzip();
                Packet::Connect(Box::new(Connect {
                    client_id: client_id.into(),
                    clean_session,
                    keep_alive,
                    will: will.map(|(topic, qos, retain)| Will {
                        topic: topic.into(),
                        payload: Bytes::from_static(b"gone"),
                        qos,
                        retain,
                        properties: None,
                    }),
                    username: username.map(Text::from),
                    password: password.flatten().map(Bytes::from),
                    properties: None,
                    version: Version::V311,
                }))
            })
    }

    fn packet() -> impl Strategy<Value = Packet> {
        let filter = || "([a-zé]{1,5}|\\+)(/([a-z]{0,4}|\\+)){0,3}(/#)?";
        prop_oneof![
            publish(),
            connect(),
            (id(), vec((filter(), qos_value()), 1..5)).prop_map(|(id, filters)| {
                let filters = filters.into_iter();
                let filters = filters.map(|(filter, qos)| Subscription::new(filter, qos));
                Packet::Subscribe(Subscribe {
                    id,
                    filters: filters.collect(),
                    properties: None,
                })
            }),
            (id(), vec(filter(), 1..5)).prop_map(|(id, filters)| {
                let filters = filters.into_iter().map(Text::from).collect();
                Packet::Unsubscribe(Unsubscribe {
                    id,
                    filters,
                    user_properties: Vec::new(),
                })
            }),
            id().prop_map(|id| Packet::PubAck(Ack::from(id))),
            id().prop_map(|id| Packet::PubRec(Ack::from(id))),
            id().prop_map(|id| Packet::PubRel(Ack::from(id))),
            id().prop_map(|id| Packet::PubComp(Ack::from(id))),
            Just(Packet::PingReq),
            Just(Packet::Disconnect(Disconnect::default())),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn both_decoders_agree_on_what_a_client_may_send(packet in packet()) {
            let bytes = bytes_of(&packet);
            proptest::prop_assert_eq!(compare(&packet, &bytes), Ok(()));
        }

        /// Where our strict decoder accepts changed bytes, the other sees the same packet.
        #[test]
        fn both_agree_on_mutated_packets_that_ours_accepts(
            packet in packet(),
            position in any::<proptest::sample::Index>(),
            value in any::<u8>(),
        ) {
            let mut bytes = bytes_of(&packet);
            let at = position.index(bytes.len());
            bytes[at] = value;
            let frame = bytes.clone();
            if let Ok(Some(accepted)) = codec::decode(&mut bytes, usize::MAX, Version::V311) {
                let used = frame.len() - bytes.len();
                proptest::prop_assert_eq!(compare(&accepted, &frame[..used]), Ok(()));
            }
        }
    }

    #[test]
    fn a_difference_is_described_without_the_payload() {
        let with = |payload: &'static [u8]| {
            Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: "t".into(),
                id: PacketId::new(7),
                payload: Bytes::from_static(payload),
                properties: None,
            })
        };
        let seen = compare(&with(b"a"), &bytes_of(&with(b"secret"))).unwrap_err();
        assert!(seen.contains("id 7, 6 bytes"), "{seen}");
        assert!(!seen.contains("secret"), "{seen}");
    }
}
