//! Round trips of generated packets, every prefix and split, mutations, and one rejection for each rule.

mod v5;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Ack, ConnAck, Connect, DecodeError, Disconnect, EncodeError, Kind, Packet, PacketId, Publish,
    QoS, ReasonCode, SubAck, Subscribe, Subscription, Text, UnsubAck, Unsubscribe, Version, Will,
    decode, encode, encode_publish_head, encoded_len,
};
use crate::topic::TopicError;

const LIMIT: usize = 1 << 20;

fn bytes_of(packet: &Packet) -> BytesMut {
    let mut buf = BytesMut::new();
    encode(packet, Version::V311, &mut buf).unwrap();
    buf
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn ack() -> impl Strategy<Value = Ack> {
    packet_id().prop_map(Ack::from)
}

fn text(pattern: &'static str) -> impl Strategy<Value = Text> {
    pattern.prop_map(Text::from)
}

fn topic_name() -> impl Strategy<Value = Text> {
    text("[a-zé😀 $]{1,5}(/[a-zé$]{0,4}){0,4}")
}

fn filter() -> impl Strategy<Value = Text> {
    text("([a-zé]{1,4}|\\+)(/([a-zé]{0,4}|\\+)){0,3}(/#)?")
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn connect() -> impl Strategy<Value = Packet> {
    let will = (topic_name(), payload(), qos(), any::<bool>()).prop_map(
        |(topic, payload, qos, retain)| Will {
            topic,
            payload,
            qos,
            retain,
            properties: None,
        },
    );
    let credentials = option::of((text("[a-zé]{0,8}"), option::of(payload())));
    (
        text("[a-z0-9é]{0,23}"),
        any::<bool>(),
        any::<u16>(),
        option::of(will),
        credentials,
    )
        .prop_map(
            |(client_id, clean_session, keep_alive, will, credentials)| {
                let (username, password) = match credentials {
                    None => (None, None),
                    Some((username, password)) => (Some(username), password),
                };
                Packet::Connect(Box::new(Connect {
                    client_id,
                    clean_session,
                    keep_alive,
                    will,
                    username,
                    password,
                    properties: None,
                    version: Version::V311,
                }))
            },
        )
}

fn connack() -> impl Strategy<Value = Packet> {
    const CODES: [ReasonCode; 6] = [
        ReasonCode::Success,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadCredentials,
        ReasonCode::NotAuthorized,
    ];
    let code = proptest::sample::select(&CODES[..]);
    (any::<bool>(), code).prop_map(|(session_present, code)| {
        let session_present = session_present && code == ReasonCode::Success;
        Packet::ConnAck(ConnAck {
            session_present,
            code,
            properties: None,
        })
    })
}

fn publish() -> impl Strategy<Value = Packet> {
    (
        qos(),
        any::<bool>(),
        any::<bool>(),
        topic_name(),
        packet_id(),
        payload(),
    )
        .prop_map(|(qos, dup, retain, topic, id, payload)| {
            let id = (qos != QoS::AtMostOnce).then_some(id);
            Packet::Publish(Publish {
                dup: dup && id.is_some(),
                qos,
                retain,
                topic,
                id,
                payload,
                properties: None,
            })
        })
}

fn subscribe() -> impl Strategy<Value = Packet> {
    let wanted = (filter(), qos()).prop_map(|(filter, qos)| Subscription::new(filter, qos));
    (packet_id(), vec(wanted, 1..5)).prop_map(|(id, filters)| {
        Packet::Subscribe(Subscribe {
            id,
            filters,
            properties: None,
        })
    })
}

fn suback() -> impl Strategy<Value = Packet> {
    let code = prop_oneof![
        qos().prop_map(ReasonCode::granted),
        Just(ReasonCode::UnspecifiedError)
    ];
    (packet_id(), vec(code, 1..5)).prop_map(|(id, codes)| {
        Packet::SubAck(SubAck {
            id,
            codes,
            properties: None,
        })
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect(),
        connack(),
        publish(),
        publish(),
        ack().prop_map(Packet::PubAck),
        ack().prop_map(Packet::PubRec),
        ack().prop_map(Packet::PubRel),
        ack().prop_map(Packet::PubComp),
        subscribe(),
        suback(),
        (packet_id(), vec(filter(), 1..5)).prop_map(|(id, filters)| Packet::Unsubscribe(
            Unsubscribe {
                id,
                filters,
                user_properties: Vec::new()
            }
        )),
        packet_id().prop_map(|id| Packet::UnsubAck(UnsubAck::from(id))),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        Just(Packet::Disconnect(Disconnect::default())),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(packet in packet()) {
        let mut buf = bytes_of(&packet);
        prop_assert_eq!(encoded_len(&packet, Version::V311).unwrap(), buf.len());
        prop_assert_eq!(decode(&mut buf, LIMIT, Version::V311).unwrap(), Some(packet));
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn no_prefix_is_a_packet_or_an_error(packet in packet()) {
        let whole = bytes_of(&packet);
        for length in 0..whole.len() {
            let mut prefix = BytesMut::from(&whole[..length]);
            prop_assert_eq!(decode(&mut prefix, LIMIT, Version::V311), Ok(None));
            prop_assert_eq!(prefix.len(), length);
        }
    }

    #[test]
    fn any_split_gives_the_same_packets(packets in vec(packet(), 1..6), chunk in 1_usize..40) {
        let mut wire = BytesMut::new();
        for packet in &packets {
            encode(packet, Version::V311, &mut wire).unwrap();
        }
        let mut buf = BytesMut::new();
        let mut decoded = Vec::new();
        for piece in wire.chunks(chunk) {
            buf.put_slice(piece);
            while let Some(packet) = decode(&mut buf, LIMIT, Version::V311).unwrap() {
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
        if let Ok(Some(accepted)) = decode(&mut wire, LIMIT, Version::V311) {
            let mut again = bytes_of(&accepted);
            prop_assert_eq!(decode(&mut again, LIMIT, Version::V311).unwrap(), Some(accepted));
        }
    }

    #[test]
    fn random_bytes_never_panic_and_never_stall(noise in vec(any::<u8>(), 0..200)) {
        let mut buf = BytesMut::from(&noise[..]);
        loop {
            let before = buf.len();
            match decode(&mut buf, LIMIT, Version::V311) {
                Ok(Some(_)) => prop_assert!(buf.len() < before),
                Ok(None) | Err(_) => break,
            }
        }
    }

    #[test]
    fn head_and_payload_are_the_whole_publish(packet in publish()) {
        let Packet::Publish(publish) = &packet else { unreachable!("a PUBLISH was asked for") };
        let mut vectored = BytesMut::new();
        encode_publish_head(publish, Version::V311, &mut vectored).unwrap();
        vectored.put_slice(&publish.payload);
        prop_assert_eq!(vectored, bytes_of(&packet));
    }
}

fn refuse(bytes: &[u8]) -> DecodeError {
    decode(&mut BytesMut::from(bytes), LIMIT, Version::V311).expect_err("the bytes break a rule")
}

#[test]
fn fixed_headers_are_judged_from_their_first_byte() {
    assert_eq!(refuse(&[0x00]), DecodeError::PacketType(0));
    assert_eq!(refuse(&[0xf0]), DecodeError::PacketType(15));
    let plain = [
        (0x10, Kind::Connect),
        (0x20, Kind::ConnAck),
        (0x40, Kind::PubAck),
        (0x50, Kind::PubRec),
        (0x70, Kind::PubComp),
        (0x90, Kind::SubAck),
        (0xb0, Kind::UnsubAck),
        (0xc0, Kind::PingReq),
        (0xd0, Kind::PingResp),
        (0xe0, Kind::Disconnect),
    ];
    for (first, kind) in plain {
        for flags in 1..16 {
            assert_eq!(refuse(&[first | flags]), DecodeError::Flags { kind, flags });
        }
    }
    for (first, kind) in [
        (0x60, Kind::PubRel),
        (0x80, Kind::Subscribe),
        (0xa0, Kind::Unsubscribe),
    ] {
        for flags in (0..16).filter(|&flags| flags != 2) {
            assert_eq!(refuse(&[first | flags]), DecodeError::Flags { kind, flags });
        }
    }
    assert_eq!(refuse(&[0x36]), DecodeError::QoS(Kind::Publish));
    assert_eq!(refuse(&[0x38]), DecodeError::Dup);
}

#[test]
fn remaining_length_is_limited_before_its_bytes_arrive() {
    assert_eq!(
        refuse(&[0x30, 0xff, 0xff, 0xff, 0xff]),
        DecodeError::RemainingLength
    );
    let mut huge = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
    let before = huge.capacity();
    let error = decode(&mut huge, LIMIT, Version::V311).expect_err("256 MB is over the limit");
    let size = super::MAX_REMAINING_LENGTH + 5;
    assert_eq!(
        error,
        DecodeError::TooLarge {
            kind: Kind::Publish,
            size,
            limit: LIMIT
        }
    );
    assert_eq!(
        decode(&mut huge, usize::MAX, Version::V311),
        Ok(None),
        "allowed, and still nothing is reserved"
    );
    assert_eq!(huge.capacity(), before);
    assert_eq!(
        refuse(&[0xc0, 1]),
        DecodeError::Length {
            kind: Kind::PingReq,
            found: 1
        }
    );
    assert_eq!(
        refuse(&[0x40, 3]),
        DecodeError::Length {
            kind: Kind::PubAck,
            found: 3
        }
    );
    assert_eq!(
        refuse(&[0x20, 1]),
        DecodeError::Length {
            kind: Kind::ConnAck,
            found: 1
        }
    );
    assert_eq!(
        refuse(&[0x30, 1]),
        DecodeError::Length {
            kind: Kind::Publish,
            found: 1
        }
    );
    let limit = 4;
    let size = 5;
    let error =
        decode(&mut BytesMut::from(&[0x30, 3][..]), limit, Version::V311).expect_err("one over");
    assert_eq!(
        error,
        DecodeError::TooLarge {
            kind: Kind::Publish,
            size,
            limit
        }
    );
    assert!(
        decode(
            &mut BytesMut::from(&[0x40, 2, 0, 1][..]),
            limit,
            Version::V311
        )
        .unwrap()
        .is_some()
    );
}

#[test]
fn packet_id_zero_is_refused_everywhere() {
    for (first, kind) in [
        (0x40, Kind::PubAck),
        (0x50, Kind::PubRec),
        (0x62, Kind::PubRel),
        (0x70, Kind::PubComp),
        (0xb0, Kind::UnsubAck),
    ] {
        assert_eq!(refuse(&[first, 2, 0, 0]), DecodeError::PacketId(kind));
    }
    assert_eq!(
        refuse(b"\x32\x05\0\x01a\0\0"),
        DecodeError::PacketId(Kind::Publish)
    );
    assert_eq!(
        refuse(b"\x82\x06\0\0\0\x01a\0"),
        DecodeError::PacketId(Kind::Subscribe)
    );
    assert_eq!(
        refuse(b"\x90\x03\0\0\0"),
        DecodeError::PacketId(Kind::SubAck)
    );
    assert_eq!(
        refuse(b"\xa2\x05\0\0\0\x01a"),
        DecodeError::PacketId(Kind::Unsubscribe)
    );
}

#[test]
fn text_and_topics_follow_their_rules() {
    let topic = |source| DecodeError::Topic {
        kind: Kind::Publish,
        source,
    };
    assert_eq!(refuse(b"\x30\x02\0\0"), topic(TopicError::Empty));
    assert_eq!(refuse(b"\x30\x03\0\x01#"), topic(TopicError::Wildcard));
    assert_eq!(refuse(b"\x30\x05\0\x03a/+"), topic(TopicError::Wildcard));
    assert_eq!(
        refuse(b"\x30\x04\0\x02a\0"),
        DecodeError::Null(Kind::Publish)
    );
    assert_eq!(
        refuse(b"\x30\x03\0\x01\xff"),
        DecodeError::Utf8(Kind::Publish)
    );
    assert_eq!(
        refuse(b"\x30\x05\0\x03\xed\xa0\x80"),
        DecodeError::Utf8(Kind::Publish),
        "surrogate"
    );
    assert_eq!(
        refuse(b"\x30\x03\0\x02a"),
        DecodeError::Truncated(Kind::Publish)
    );
    assert_eq!(
        refuse(b"\x32\x03\0\x01a"),
        DecodeError::Truncated(Kind::Publish)
    );
    let filter = |kind, source| DecodeError::Topic { kind, source };
    assert_eq!(
        refuse(b"\x82\x07\0\x01\0\x02a#\0"),
        filter(Kind::Subscribe, TopicError::MultiLevel)
    );
    assert_eq!(
        refuse(b"\xa2\x06\0\x01\0\x02+a"),
        filter(Kind::Unsubscribe, TopicError::SingleLevel)
    );
}

#[test]
fn lists_are_not_empty_and_codes_are_known() {
    assert_eq!(
        refuse(b"\x82\x02\0\x01"),
        DecodeError::EmptyList(Kind::Subscribe)
    );
    assert_eq!(
        refuse(b"\x90\x02\0\x01"),
        DecodeError::EmptyList(Kind::SubAck)
    );
    assert_eq!(
        refuse(b"\xa2\x02\0\x01"),
        DecodeError::EmptyList(Kind::Unsubscribe)
    );
    assert_eq!(
        refuse(b"\x82\x06\0\x01\0\x01a\x03"),
        DecodeError::QoS(Kind::Subscribe)
    );
    assert_eq!(
        refuse(b"\x82\x06\0\x01\0\x01a\x04"),
        DecodeError::SubscribeBits(4)
    );
    assert_eq!(
        refuse(b"\x82\x05\0\x01\0\x01a"),
        DecodeError::Truncated(Kind::Subscribe)
    );
    assert_eq!(refuse(b"\x90\x03\0\x01\x03"), DecodeError::SubAckCode(3));
    assert_eq!(refuse(b"\x20\x02\x02\0"), DecodeError::ConnAckFlags(2));
    assert_eq!(refuse(b"\x20\x02\0\x06"), DecodeError::ConnAckCode(6));
    assert_eq!(refuse(b"\x20\x02\x01\x05"), DecodeError::SessionPresent);
}

#[test]
fn connect_flags_are_consistent() {
    let with = |name: &[u8], level: u8, flags: u8, rest: &[u8]| {
        let mut body = BytesMut::new();
        body.put_slice(name);
        body.put_slice(&[level, flags, 0, 60]);
        body.put_slice(rest);
        let mut packet = BytesMut::from(&[0x10, u8::try_from(body.len()).unwrap()][..]);
        packet.put_slice(&body);
        decode(&mut packet, LIMIT, Version::V311)
    };
    let name = b"\0\x04MQTT";
    assert!(with(name, 4, 0b10, b"\0\x01a").is_ok());
    assert_eq!(
        with(b"\0\x06MQIsdp", 3, 2, b"\0\x01a"),
        Err(DecodeError::ProtocolName)
    );
    assert_eq!(
        with(name, 3, 2, b"\0\x01a"),
        Err(DecodeError::ProtocolLevel(3))
    );
    assert_eq!(
        with(name, 6, 2, b"\0\0\x01a"),
        Err(DecodeError::ProtocolLevel(6))
    );
    assert_eq!(
        with(name, 4, 0b11, b"\0\x01a"),
        Err(DecodeError::ConnectFlag)
    );
    assert_eq!(
        with(name, 4, 0b1000, b"\0\x01a"),
        Err(DecodeError::WillFlags)
    );
    assert_eq!(
        with(name, 4, 0b10_0000, b"\0\x01a"),
        Err(DecodeError::WillFlags)
    );
    assert_eq!(
        with(name, 4, 0b1_1100, b"\0\x01a"),
        Err(DecodeError::QoS(Kind::Connect))
    );
    assert_eq!(
        with(name, 4, 0b0100_0000, b"\0\x01a"),
        Err(DecodeError::PasswordAlone)
    );
    assert_eq!(
        with(name, 4, 2, b"\0\x01aX"),
        Err(DecodeError::Trailing {
            kind: Kind::Connect,
            count: 1
        })
    );
    let binary = with(name, 4, 0b1100_0010, b"\0\x01a\0\x01u\0\x02\xff\0").unwrap();
    let Some(Packet::Connect(connect)) = binary else {
        panic!("a CONNECT was decoded")
    };
    assert_eq!(
        connect.password.as_deref(),
        Some(&b"\xff\0"[..]),
        "a password is any bytes"
    );
    assert!(
        !format!("{connect:?}").contains("255"),
        "a password does not print"
    );
}

#[test]
fn connect_fields_stand_in_the_prescribed_order() {
    let connect = Connect {
        client_id: "id".into(),
        clean_session: true,
        keep_alive: 258,
        will: Some(Will {
            topic: "w".into(),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtLeastOnce,
            retain: true,
            properties: None,
        }),
        username: Some("user".into()),
        password: Some(Bytes::from_static(b"pw")),
        properties: None,
        version: Version::V311,
    };
    let whole = bytes_of(&Packet::Connect(Box::new(connect.clone())));
    let expected = b"\x10\x21\0\x04MQTT\x04\xee\x01\x02\0\x02id\0\x01w\0\x04gone\0\x04user\0\x02pw";
    assert_eq!(&whole[..], expected);
    let bare = Connect {
        will: None,
        username: None,
        password: None,
        ..connect
    };
    let bare = bytes_of(&Packet::Connect(Box::new(bare)));
    assert_eq!(&bare[..], b"\x10\x0e\0\x04MQTT\x04\x02\x01\x02\0\x02id");
}

#[test]
fn encoder_refuses_what_the_decoder_would_and_writes_nothing() {
    let id = PacketId::new(1);
    let publish = |qos, id, topic: &str| {
        let (topic, payload) = (Text::from(topic), Bytes::new());
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            id,
            payload,
            properties: None,
        })
    };
    let long = "x".repeat(65_536);
    for bad in [
        publish(QoS::AtMostOnce, id, "a"),
        publish(QoS::AtLeastOnce, None, "a"),
        publish(QoS::AtMostOnce, None, ""),
        publish(QoS::AtMostOnce, None, "a/#"),
        publish(QoS::AtMostOnce, None, &long),
        Packet::Connect(Box::new(Connect {
            password: Some(Bytes::new()),
            ..Connect::default()
        })),
        Packet::Connect(Box::new(Connect {
            client_id: "a\0".into(),
            ..Connect::default()
        })),
        Packet::Connect(Box::new(Connect {
            client_id: long.as_str().into(),
            ..Connect::default()
        })),
        Packet::ConnAck(ConnAck {
            session_present: true,
            code: ReasonCode::NotAuthorized,
            properties: None,
        }),
        Packet::Subscribe(Subscribe {
            id: PacketId::MIN,
            filters: Vec::new(),
            properties: None,
        }),
        Packet::SubAck(SubAck {
            id: PacketId::MIN,
            codes: Vec::new(),
            properties: None,
        }),
        Packet::Unsubscribe(Unsubscribe {
            id: PacketId::MIN,
            filters: vec!["a#".into()],
            user_properties: Vec::new(),
        }),
    ] {
        let mut buf = BytesMut::from(&b"before"[..]);
        encode(&bad, Version::V311, &mut buf).expect_err("not to be written");
        assert_eq!(&buf[..], b"before");
    }
    let huge = Bytes::from(vec![0; super::MAX_REMAINING_LENGTH]);
    let (topic, qos) = (Text::from("a"), QoS::AtMostOnce);
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        id: None,
        payload: huge,
        properties: None,
    };
    let size = super::MAX_REMAINING_LENGTH + 3;
    assert_eq!(
        encode_publish_head(&publish, Version::V311, &mut BytesMut::new()),
        Err(EncodeError::TooLarge {
            kind: Kind::Publish,
            size
        })
    );
}
