//! The same of MQTT 5.0: round trips with every property, prefixes, splits, mutations, and one rejection for each
//! rule that 3.1.1 does not have.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{
    BoxedStrategy, Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::select;

use super::super::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, DecodeError, Disconnect, DisconnectProperties, EncodeError, Kind,
    MAX_REPEATED_PROPERTIES, Packet, PayloadFormat, Publish, PublishProperties, QoS, ReasonCode,
    RetainHandling, SubAck, Subscribe, SubscribeProperties, Subscription, SubscriptionId, Text,
    UnsubAck, Unsubscribe, UserProperty, Version, Will, WillProperties, decode, encode,
    encode_publish_head, encoded_len,
};
use super::{LIMIT, filter, packet_id, payload, qos, text, topic_name};
use crate::topic::TopicError;

fn bytes_of(packet: &Packet) -> BytesMut {
    let mut buf = BytesMut::new();
    encode(packet, Version::V5, &mut buf).unwrap();
    buf
}

fn words() -> impl Strategy<Value = Text> {
    text("[a-zé 😀]{0,20}")
}

fn user() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((words(), words()), 0..4)
}

/// A code that may stand in packets of `kind`.
fn reason(kind: Kind) -> impl Strategy<Value = ReasonCode> {
    let allowed = ReasonCode::ALL.iter().copied();
    select(
        allowed
            .filter(|code| code.allowed_in(kind))
            .collect::<Vec<_>>(),
    )
}

/// No box where there is nothing in it: that is how it comes back.
fn boxed<T: Default + PartialEq>(value: T) -> Option<Box<T>> {
    (value != T::default()).then(|| Box::new(value))
}

fn nonzero16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|value| NonZeroU16::new(value).unwrap())
}

fn nonzero32() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|value| NonZeroU32::new(value).unwrap())
}

fn subscription_id() -> impl Strategy<Value = SubscriptionId> {
    (1..=268_435_455_u32).prop_map(|value| SubscriptionId::new(value).unwrap())
}

fn format() -> impl Strategy<Value = PayloadFormat> {
    select(&[PayloadFormat::Bytes, PayloadFormat::Utf8][..])
}

fn will() -> impl Strategy<Value = Will> {
    let properties = (
        (option::of(any::<u32>()), option::of(any::<u32>())),
        (option::of(format()), option::of(words())),
        (option::of(topic_name()), option::of(payload())),
        user(),
    )
        .prop_map(
            |(times, content, response, user_properties)| WillProperties {
                delay: times.0,
                message_expiry: times.1,
                payload_format: content.0,
                content_type: content.1,
                response_topic: response.0,
                correlation_data: response.1,
                user_properties,
            },
        );
    (topic_name(), payload(), qos(), any::<bool>(), properties).prop_map(
        |(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties: boxed(properties),
        },
    )
}

fn connect() -> impl Strategy<Value = Packet> {
    let properties = (
        (option::of(any::<u32>()), option::of(nonzero16())),
        (option::of(nonzero32()), option::of(any::<u16>())),
        (option::of(any::<bool>()), option::of(any::<bool>())),
        user(),
        option::of((words(), option::of(payload()))),
    )
        .prop_map(|(session, sizes, requests, user_properties, auth)| {
            let (auth_method, auth_data) = auth.unzip();
            ConnectProperties {
                session_expiry: session.0,
                receive_max: session.1,
                max_packet_size: sizes.0,
                topic_alias_max: sizes.1,
                request_response_information: requests.0,
                request_problem_information: requests.1,
                user_properties,
                auth_method,
                auth_data: auth_data.flatten(),
            }
        });
    (
        (words(), any::<bool>(), any::<u16>()),
        option::of(will()),
        option::of(words()),
        option::of(payload()),
        properties,
    )
        .prop_map(|(base, will, username, password, properties)| {
            Packet::Connect(Box::new(Connect {
                version: Version::V5,
                client_id: base.0,
                clean_session: base.1,
                keep_alive: base.2,
                will,
                username,
                password,
                properties: boxed(properties),
            }))
        })
}

fn connack() -> impl Strategy<Value = Packet> {
    let limits = (
        (option::of(any::<u32>()), option::of(nonzero16())),
        option::of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
        (option::of(any::<bool>()), option::of(nonzero32())),
        (option::of(any::<u16>()), option::of(any::<u16>())),
        (
            option::of(any::<bool>()),
            option::of(any::<bool>()),
            option::of(any::<bool>()),
        ),
    );
    let texts = (
        option::of(words()),
        option::of(words()),
        option::of(words()),
        option::of(words()),
        option::of((words(), option::of(payload()))),
    );
    (reason(Kind::ConnAck), any::<bool>(), limits, texts, user()).prop_map(
        |(code, present, limits, texts, user_properties)| {
            let (auth_method, auth_data) = texts.4.unzip();
            let properties = ConnAckProperties {
                session_expiry: limits.0.0,
                receive_max: limits.0.1,
                max_qos: limits.1,
                retain_available: limits.2.0,
                max_packet_size: limits.2.1,
                topic_alias_max: limits.3.0,
                server_keep_alive: limits.3.1,
                wildcard_available: limits.4.0,
                subscription_ids_available: limits.4.1,
                shared_available: limits.4.2,
                assigned_client_id: texts.0,
                reason_string: texts.1,
                response_information: texts.2,
                server_reference: texts.3,
                user_properties,
                auth_method,
                auth_data: auth_data.flatten(),
            };
            Packet::ConnAck(ConnAck {
                session_present: present && code == ReasonCode::Success,
                code,
                properties: boxed(properties),
            })
        },
    )
}

fn publish() -> impl Strategy<Value = Packet> {
    let properties = (
        (option::of(format()), option::of(any::<u32>())),
        option::of(nonzero16()),
        (option::of(topic_name()), option::of(payload())),
        user(),
        vec(subscription_id(), 0..3),
        option::of(words()),
    )
        .prop_map(
            |(format, topic_alias, response, user_properties, subscription_ids, content_type)| {
                PublishProperties {
                    payload_format: format.0,
                    message_expiry: format.1,
                    topic_alias,
                    response_topic: response.0,
                    correlation_data: response.1,
                    user_properties,
                    subscription_ids,
                    content_type,
                }
            },
        );
    (
        (qos(), any::<bool>(), any::<bool>(), packet_id()),
        (topic_name(), any::<bool>()),
        payload(),
        option::of(properties),
    )
        .prop_map(|(head, (topic, short), payload, properties)| {
            let (qos, dup, retain, id) = head;
            let acknowledged = qos != QoS::AtMostOnce;
            let properties = properties.and_then(boxed);
            let aliased = properties
                .as_ref()
                .is_some_and(|it| it.topic_alias.is_some());
            Packet::Publish(Publish {
                dup: dup && acknowledged,
                qos,
                retain,
                topic: if aliased && short {
                    Text::default()
                } else {
                    topic
                },
                id: acknowledged.then_some(id),
                payload,
                properties,
            })
        })
}

fn ack_properties() -> impl Strategy<Value = Option<Box<AckProperties>>> {
    (option::of(words()), user()).prop_map(|(reason_string, user_properties)| {
        boxed(AckProperties {
            reason_string,
            user_properties,
        })
    })
}

fn ack(kind: Kind) -> impl Strategy<Value = Ack> {
    let parts = (packet_id(), reason(kind), ack_properties());
    parts.prop_map(|(id, reason, properties)| Ack {
        id,
        reason,
        properties,
    })
}

fn any_filter() -> impl Strategy<Value = Text> {
    let shared = filter().prop_map(|filter| Text::from(format!("$share/group/{filter}")));
    prop_oneof![filter(), shared]
}

fn subscribe() -> impl Strategy<Value = Packet> {
    let handling = select(
        &[
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::Never,
        ][..],
    );
    let wanted = (any_filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling)| Subscription {
            no_local: no_local && !filter.starts_with("$share/"),
            filter,
            qos,
            retain_as_published,
            retain_handling,
        },
    );
    let properties = (option::of(subscription_id()), user());
    (packet_id(), vec(wanted, 1..4), properties).prop_map(|(id, filters, properties)| {
        Packet::Subscribe(Subscribe {
            id,
            filters,
            properties: boxed(SubscribeProperties {
                subscription_id: properties.0,
                user_properties: properties.1,
            }),
        })
    })
}

fn suback() -> impl Strategy<Value = Packet> {
    let codes = vec(reason(Kind::SubAck), 1..5);
    (packet_id(), codes, ack_properties()).prop_map(|(id, codes, properties)| {
        Packet::SubAck(SubAck {
            id,
            codes,
            properties,
        })
    })
}

fn unsubscribe() -> impl Strategy<Value = Packet> {
    (packet_id(), vec(any_filter(), 1..4), user()).prop_map(|(id, filters, user_properties)| {
        Packet::Unsubscribe(Unsubscribe {
            id,
            filters,
            user_properties,
        })
    })
}

fn unsuback() -> impl Strategy<Value = Packet> {
    let codes = vec(reason(Kind::UnsubAck), 1..5);
    (packet_id(), codes, ack_properties()).prop_map(|(id, codes, properties)| {
        Packet::UnsubAck(UnsubAck {
            id,
            codes,
            properties,
        })
    })
}

fn disconnect() -> impl Strategy<Value = Packet> {
    let properties = (
        option::of(any::<u32>()),
        option::of(words()),
        user(),
        option::of(words()),
    );
    (reason(Kind::Disconnect), properties).prop_map(|(reason, properties)| {
        Packet::Disconnect(Disconnect {
            reason,
            properties: boxed(DisconnectProperties {
                session_expiry: properties.0,
                reason_string: properties.1,
                user_properties: properties.2,
                server_reference: properties.3,
            }),
        })
    })
}

fn auth() -> impl Strategy<Value = Packet> {
    let properties = (words(), option::of(payload()), option::of(words()), user());
    (reason(Kind::Auth), properties).prop_map(|(reason, properties)| {
        Packet::Auth(Auth {
            reason,
            properties: boxed(AuthProperties {
                auth_method: Some(properties.0),
                auth_data: properties.1,
                reason_string: properties.2,
                user_properties: properties.3,
            }),
        })
    })
}

fn packet() -> BoxedStrategy<Packet> {
    prop_oneof![
        connect(),
        connack(),
        publish(),
        publish(),
        ack(Kind::PubAck).prop_map(Packet::PubAck),
        ack(Kind::PubRec).prop_map(Packet::PubRec),
        ack(Kind::PubRel).prop_map(Packet::PubRel),
        ack(Kind::PubComp).prop_map(Packet::PubComp),
        subscribe(),
        suback(),
        unsubscribe(),
        unsuback(),
        disconnect(),
        auth(),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        Just(Packet::Auth(Auth::default())),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(packet in packet()) {
        let mut buf = bytes_of(&packet);
        prop_assert_eq!(encoded_len(&packet, Version::V5).unwrap(), buf.len());
        prop_assert_eq!(decode(&mut buf, LIMIT, Version::V5).unwrap(), Some(packet));
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn no_prefix_is_a_packet_or_an_error(packet in packet()) {
        let whole = bytes_of(&packet);
        for length in 0..whole.len() {
            let mut prefix = BytesMut::from(&whole[..length]);
            prop_assert_eq!(decode(&mut prefix, LIMIT, Version::V5), Ok(None));
            prop_assert_eq!(prefix.len(), length);
        }
    }

    #[test]
    fn any_split_gives_the_same_packets(packets in vec(packet(), 1..6), chunk in 1_usize..40) {
        let mut wire = BytesMut::new();
        for packet in &packets {
            encode(packet, Version::V5, &mut wire).unwrap();
        }
        let mut buf = BytesMut::new();
        let mut decoded = Vec::new();
        for piece in wire.chunks(chunk) {
            buf.put_slice(piece);
            while let Some(packet) = decode(&mut buf, LIMIT, Version::V5).unwrap() {
                decoded.push(packet);
            }
        }
        prop_assert_eq!(decoded, packets);
    }

    #[test]
    fn a_mutated_packet_never_panics_and_what_is_accepted_is_stable(
        packet in packet(),
        changes in vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let mut wire = bytes_of(&packet);
        for (position, value) in changes {
            let position = position % wire.len();
            wire[position] = value;
        }
        wire.truncate(1 + cut % wire.len());
        if let Ok(Some(accepted)) = decode(&mut wire, LIMIT, Version::V5) {
            let mut again = bytes_of(&accepted);
            prop_assert_eq!(decode(&mut again, LIMIT, Version::V5).unwrap(), Some(accepted));
        }
    }

    #[test]
    fn random_bytes_never_panic_and_never_stall(noise in vec(any::<u8>(), 0..200)) {
        let mut buf = BytesMut::from(&noise[..]);
        loop {
            let before = buf.len();
            match decode(&mut buf, LIMIT, Version::V5) {
                Ok(Some(_)) => prop_assert!(buf.len() < before),
                Ok(None) | Err(_) => break,
            }
        }
    }

    #[test]
    fn head_and_payload_are_the_whole_publish(packet in publish()) {
        let Packet::Publish(publish) = &packet else { unreachable!("a PUBLISH was asked for") };
        let mut vectored = BytesMut::new();
        encode_publish_head(publish, Version::V5, &mut vectored).unwrap();
        vectored.put_slice(&publish.payload);
        prop_assert_eq!(vectored, bytes_of(&packet));
    }
}

fn accept(bytes: &[u8]) -> Packet {
    let mut buf = BytesMut::from(bytes);
    let packet = decode(&mut buf, LIMIT, Version::V5).unwrap().unwrap();
    assert!(buf.is_empty());
    packet
}

fn refuse(bytes: &[u8]) -> DecodeError {
    decode(&mut BytesMut::from(bytes), LIMIT, Version::V5).unwrap_err()
}

#[test]
fn acknowledgements_come_in_three_lengths() {
    let id = packet_id_7();
    let plain = Packet::PubAck(Ack::from(id));
    assert_eq!(accept(b"\x40\x02\0\x07"), plain);
    assert_eq!(accept(b"\x40\x03\0\x07\0"), plain);
    assert_eq!(accept(b"\x40\x04\0\x07\0\0"), plain);
    let nobody = Packet::PubAck(Ack::new(id, ReasonCode::NoMatchingSubscribers));
    assert_eq!(accept(b"\x40\x03\0\x07\x10"), nobody);
    assert_eq!(&bytes_of(&plain)[..], b"\x40\x02\0\x07");
    assert_eq!(&bytes_of(&nobody)[..], b"\x40\x03\0\x07\x10");
}

fn packet_id_7() -> super::PacketId {
    super::PacketId::new(7).unwrap()
}

#[test]
fn disconnect_and_auth_may_be_empty() {
    let normal = Packet::Disconnect(Disconnect::default());
    for bytes in [&b"\xe0\0"[..], b"\xe0\x01\0", b"\xe0\x02\0\0"] {
        assert_eq!(accept(bytes), normal);
    }
    assert_eq!(accept(b"\xf0\0"), Packet::Auth(Auth::default()));
    let shutting_down = Packet::Disconnect(ReasonCode::ServerShuttingDown.into());
    assert_eq!(accept(b"\xe0\x01\x8b"), shutting_down);
    assert_eq!(refuse(b"\xf0\x02\0\0"), DecodeError::AuthMethod(Kind::Auth));
}

#[test]
fn several_subscription_identifiers_leave_the_payload_whole() {
    let packet = accept(b"\x30\x0c\0\x01t\x06\x0b\x01\x0b\x02\x0b\x03PQ");
    let Packet::Publish(publish) = packet else {
        panic!("{packet:?}")
    };
    assert_eq!(publish.payload, Bytes::from_static(b"PQ"));
    let ids = publish.properties.unwrap().subscription_ids;
    assert_eq!(ids, [1, 2, 3].map(|id| SubscriptionId::new(id).unwrap()));
}

#[test]
fn a_publish_names_its_topic_or_has_an_alias_for_it() {
    let kind = Kind::Publish;
    let source = TopicError::Empty;
    assert_eq!(
        refuse(b"\x30\x03\0\0\0"),
        DecodeError::Topic { kind, source }
    );
    let Packet::Publish(publish) = accept(b"\x30\x06\0\0\x03\x23\0\x05") else {
        panic!("no PUBLISH")
    };
    assert_eq!(publish.properties.unwrap().topic_alias, NonZeroU16::new(5));
}

#[test]
fn a_property_comes_as_often_as_is_taken_and_no_more() {
    let message = |pairs: usize| {
        let mut packet = BytesMut::new();
        let publish = Publish {
            topic: "t".into(),
            properties: Some(Box::new(PublishProperties {
                user_properties: vec![(Text::default(), Text::default()); pairs],
                ..PublishProperties::default()
            })),
            ..Publish::default()
        };
        encode(&Packet::Publish(publish), Version::V5, &mut packet).unwrap();
        packet
    };
    let mut most = message(MAX_REPEATED_PROPERTIES);
    assert!(matches!(
        decode(&mut most, usize::MAX, Version::V5),
        Ok(Some(Packet::Publish(_)))
    ));
    let mut more = message(MAX_REPEATED_PROPERTIES + 1);
    let error = decode(&mut more, usize::MAX, Version::V5).unwrap_err();
    let kind = Kind::Publish;
    assert_eq!(error, DecodeError::TooManyProperties { kind, id: 0x26 });
    assert_eq!(error.reason(), ReasonCode::QuotaExceeded);
}

#[test]
fn properties_stand_where_they_may_once_and_in_range() {
    let kind = Kind::Publish;
    // A session expiry in a PUBLISH; one that is not given out.
    assert_eq!(
        refuse(b"\x30\x09\0\x01t\x05\x11\0\0\0\x01"),
        DecodeError::Property { kind, id: 0x11 }
    );
    assert_eq!(
        refuse(b"\x30\x05\0\x01t\x01\x7f"),
        DecodeError::Property { kind, id: 0x7f }
    );
    assert_eq!(
        refuse(b"\x30\x08\0\x01t\x04\x01\x01\x01\x01"),
        DecodeError::PropertyTwice { kind, id: 0x01 }
    );
    for (bytes, id) in [
        (&b"\x30\x06\0\x01t\x02\x01\x02"[..], 0x01),
        (b"\x30\x07\0\x01t\x03\x23\0\0", 0x23),
        (b"\x30\x06\0\x01t\x02\x0b\0", 0x0b),
    ] {
        assert_eq!(refuse(bytes), DecodeError::PropertyValue { kind, id });
    }
    let kind = Kind::ConnAck;
    for (bytes, id) in [
        (&b"\x20\x06\0\0\x03\x21\0\0"[..], 0x21),
        (b"\x20\x08\0\0\x05\x27\0\0\0\0", 0x27),
        (b"\x20\x05\0\0\x02\x24\x02", 0x24),
        (b"\x20\x05\0\0\x02\x25\x02", 0x25),
    ] {
        assert_eq!(refuse(bytes), DecodeError::PropertyValue { kind, id });
    }
}

#[test]
fn the_property_length_is_exact_and_as_short_as_it_can_be() {
    let kind = Kind::Publish;
    for bytes in [
        // Past the end; not the shortest form; five bytes.
        &b"\x30\x05\0\x01t\x05\x01"[..],
        b"\x30\x05\0\x01t\x80\0",
        b"\x30\x08\0\x01t\xff\xff\xff\xff\x01",
    ] {
        assert_eq!(refuse(bytes), DecodeError::PropertyLength(kind));
    }
    // A value that goes past the end of the block, though not of the packet.
    assert_eq!(
        refuse(b"\x30\x08\0\x01t\x02\x02\0\0\0"),
        DecodeError::Truncated(kind)
    );
    assert_eq!(refuse(b"\xd0\x80\0"), DecodeError::RemainingLength);
}

#[test]
fn reason_codes_stand_where_they_may() {
    for (bytes, kind, code) in [
        (&b"\x40\x03\0\x07\x92"[..], Kind::PubAck, 0x92),
        (b"\x62\x03\0\x07\x10", Kind::PubRel, 0x10),
        (b"\xb0\x04\0\x07\0\x01", Kind::UnsubAck, 0x01),
        (b"\xe0\x01\x01", Kind::Disconnect, 0x01),
        (b"\xf0\x01\x80", Kind::Auth, 0x80),
        (b"\x40\x03\0\x07\x03", Kind::PubAck, 0x03),
    ] {
        assert_eq!(refuse(bytes), DecodeError::Reason { kind, code });
    }
    assert_eq!(refuse(b"\x20\x03\0\x01\0"), DecodeError::ConnAckCode(1));
    assert_eq!(refuse(b"\x90\x04\0\x07\0\x03"), DecodeError::SubAckCode(3));
    assert_eq!(refuse(b"\x20\x03\x01\x87\0"), DecodeError::SessionPresent);
}

#[test]
fn subscription_options_have_no_reserved_bits() {
    let with = |options: u8| [&b"\x82\x07\0\x07\0\0\x01t"[..], &[options]].concat();
    for bad in [0x40, 0x80, 0x30] {
        assert_eq!(refuse(&with(bad)), DecodeError::SubscribeBits(bad));
    }
    assert_eq!(refuse(&with(3)), DecodeError::QoS(Kind::Subscribe));
    let Packet::Subscribe(subscribe) = accept(&with(0b0010_1101)) else {
        panic!("no SUBSCRIBE")
    };
    let wanted = &subscribe.filters[0];
    assert!(wanted.no_local && wanted.retain_as_published);
    assert_eq!(wanted.retain_handling, RetainHandling::Never);
}

#[test]
fn shared_filters_have_a_group_and_a_filter_and_are_never_local() {
    let subscribe = |filter: &str, options: u8| {
        let size = u8::try_from(filter.len()).unwrap();
        let head = [0x82, 6 + size, 0, 7, 0, 0, size];
        [&head[..], filter.as_bytes(), &[options]].concat()
    };
    let kind = Kind::Subscribe;
    let source = TopicError::Share;
    for bad in [
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/#",
    ] {
        assert_eq!(
            refuse(&subscribe(bad, 0)),
            DecodeError::Topic { kind, source },
            "{bad}"
        );
    }
    assert_eq!(
        refuse(&subscribe("$share/g/a", 0b100)),
        DecodeError::SharedNoLocal
    );
    accept(&subscribe("$share/g/a/#", 0));
    accept(&subscribe("$shared", 0b100));
}

#[test]
fn authentication_data_needs_a_method() {
    assert_eq!(
        refuse(b"\x20\x07\0\0\x04\x16\0\x01x"),
        DecodeError::AuthMethod(Kind::ConnAck)
    );
    let connack = Packet::ConnAck(ConnAck {
        properties: Some(Box::new(ConnAckProperties {
            auth_data: Some(Bytes::from_static(b"x")),
            ..ConnAckProperties::default()
        })),
        ..ConnAck::default()
    });
    let mut buf = BytesMut::new();
    assert_eq!(
        encode(&connack, Version::V5, &mut buf),
        Err(EncodeError::AuthMethod(Kind::ConnAck))
    );
    assert!(buf.is_empty());
}

#[test]
fn a_password_needs_no_user_name() {
    let Packet::Connect(connect) = accept(b"\x10\x10\0\x04MQTT\x05\x40\0\0\0\0\0\0\x01x") else {
        panic!("no CONNECT")
    };
    assert_eq!(connect.password, Some(Bytes::from_static(b"x")));
}

#[test]
fn a_connect_is_read_in_the_version_that_it_names() {
    let five = b"\x10\x0d\0\x04MQTT\x05\x02\0\0\0\0\0";
    let four = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";
    for version in [Version::V311, Version::V5] {
        for (bytes, named) in [(&five[..], Version::V5), (four, Version::V311)] {
            let packet = decode(&mut BytesMut::from(bytes), LIMIT, version);
            let Ok(Some(Packet::Connect(connect))) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(connect.version, named);
        }
    }
    assert_eq!(
        refuse(b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\0\0"),
        DecodeError::ProtocolLevel(6)
    );
}

#[test]
fn what_3_1_1_has_no_words_for_is_left_out_there() {
    let mut publish = Publish {
        topic: Text::from("t"),
        payload: Bytes::from_static(b"x"),
        ..Publish::default()
    };
    let mut plain = BytesMut::new();
    encode(&Packet::Publish(publish.clone()), Version::V311, &mut plain).unwrap();
    publish.properties = Some(Box::new(PublishProperties {
        message_expiry: Some(1),
        ..PublishProperties::default()
    }));
    let mut rich = BytesMut::new();
    encode(&Packet::Publish(publish), Version::V311, &mut rich).unwrap();
    assert_eq!(rich, plain);
    let auth = Packet::Auth(Auth::default());
    assert_eq!(
        encode(&auth, Version::V311, &mut plain),
        Err(EncodeError::Version(Version::V311))
    );
}

#[test]
fn an_announced_length_reserves_nothing() {
    // 256 MB of PUBLISH, and 256 MB of properties.
    let mut buf = BytesMut::from(&b"\x30\xff\xff\xff\x7f\0\x01t\xff\xff\xff\x7f"[..]);
    let capacity = buf.capacity();
    assert_eq!(decode(&mut buf, usize::MAX, Version::V5), Ok(None));
    assert_eq!(buf.capacity(), capacity);
    let kind = Kind::Publish;
    assert!(matches!(
        refuse(b"\x30\xff\xff\xff\x7f"),
        DecodeError::TooLarge { kind: found, .. } if found == kind
    ));
}

#[test]
fn every_error_has_a_reason_that_a_disconnect_may_carry() {
    for error in [
        refuse(b"\x30\xff\xff\xff\x7f"),
        refuse(b"\x30\x03\0\0\0"),
        refuse(b"\x40\x02\0\0"),
        refuse(b"\x00\0"),
        refuse(b"\x30\x08\0\x01t\x04\x01\x01\x01\x01"),
        refuse(b"\x82\x08\0\x07\0\0\x02#a\0"),
    ] {
        assert!(error.reason().allowed_in(Kind::Disconnect), "{error}");
        assert!(error.reason().is_error());
    }
}
