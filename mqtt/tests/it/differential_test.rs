//! Our decoder held against another one: `mqttbytes`, which shares no code with it.
//!
//! Both see the same generated and spoilt packets. Where they differ, the difference has to be in [`EXPLAINED`], with
//! the reason why ours is right; a row that never occurs fails the test as well. `MQTT_DIFFERENTIAL_PACKETS` sets
//! how many packets are tried.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use mqttbytes::v4;
use qproxy_mqtt::codec::{Connect, DecodeError, Packet, QoS, ReasonCode, Text, Version, decode};

use crate::packets::{Random, any_packet, bytes_of, mutate};

/// Packets in a normal run.
const PACKETS: u64 = 100_000;

/// What we say, what they say, and why we are right.
const EXPLAINED: &[(&str, &str, &str)] = &[
    // The fixed header.
    (
        "Flags",
        "a packet",
        "they ignore the low four bits of all but PUBLISH [MQTT-2.2.2-2]",
    ),
    (
        "Flags",
        "more bytes",
        "we judge the first byte as it comes, they wait for the whole packet",
    ),
    (
        "PacketType",
        "more bytes",
        "types 0 and 15 are known to be wrong from the first byte (section 2.2.1)",
    ),
    (
        "Length",
        "a packet",
        "they ignore what follows the fields of an acknowledgement, a ping, a CONNACK or a DISCONNECT",
    ),
    (
        "Length",
        "more bytes",
        "the announced length cannot be: there is nothing to wait for",
    ),
    // PUBLISH.
    ("Dup", "a packet", "DUP on QoS 0 [MQTT-3.3.1-2]"),
    ("Dup", "more bytes", "as above, known from the first byte"),
    (
        "QoS",
        "more bytes",
        "QoS 3 [MQTT-3.3.1-4], known from the first byte",
    ),
    (
        "PacketId",
        "a packet",
        "they check for identifier 0 in PUBLISH alone [MQTT-2.3.1-1]",
    ),
    // Text, names and filters.
    (
        "Null",
        "a packet",
        "they take U+0000 in text [MQTT-1.5.3-2]",
    ),
    (
        "Topic Empty",
        "a packet",
        "they take empty names and filters [MQTT-4.7.3-1]",
    ),
    (
        "Topic Wildcard",
        "a packet",
        "they take wildcards in a topic name [MQTT-3.3.2-2]",
    ),
    (
        "Topic MultiLevel",
        "a packet",
        "# that is not the last level, or not alone in it [MQTT-4.7.1-2]",
    ),
    (
        "Topic SingleLevel",
        "a packet",
        "+ that is not alone in its level [MQTT-4.7.1-3]",
    ),
    // The other packets.
    (
        "EmptyList",
        "a packet",
        "SUBSCRIBE and UNSUBSCRIBE about nothing [MQTT-3.8.3-3] [MQTT-3.10.3-2]",
    ),
    (
        "SubscribeBits",
        "a packet",
        "they ignore the reserved bits beside the QoS [MQTT-3.8.3-4]",
    ),
    (
        "ConnAckFlags",
        "a packet",
        "they ignore the reserved acknowledge flags (section 3.2.2.1)",
    ),
    (
        "SessionPresent",
        "a packet",
        "a refusing CONNACK says that it has a session [MQTT-3.2.2-4]",
    ),
    (
        "ConnectFlag",
        "a packet",
        "they ignore the reserved connect flag [MQTT-3.1.2-3]",
    ),
    (
        "ProtocolLevel",
        "a packet",
        "they read level 5 by the rules of level 4, which have no properties",
    ),
    (
        "PasswordAlone",
        "a packet",
        "they take a password without a user name [MQTT-3.1.2-22]",
    ),
    (
        "Trailing",
        "a packet",
        "they ignore what follows the last field of CONNECT",
    ),
    (
        "a packet",
        "TopicNotUtf8",
        "a password is any bytes (section 3.1.3.5); they take only UTF-8",
    ),
];

fn variant(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(|character: char| !character.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// One decoder's verdict on some bytes, and how many it took.
enum Verdict<P> {
    Packet(P, usize),
    More,
    Refused(String),
}

impl<P> Verdict<P> {
    fn name(&self) -> &str {
        match self {
            Self::Packet(..) => "a packet",
            Self::More => "more bytes",
            Self::Refused(error) => error,
        }
    }
}

fn ours(wire: &[u8]) -> Verdict<Packet> {
    let mut buf = BytesMut::from(wire);
    match decode(&mut buf, usize::MAX, Version::V311) {
        // Read in its own version, which the other decoder of 3.1.1 does not know.
        Ok(Some(Packet::Connect(connect))) if connect.version != Version::V311 => {
            Verdict::Refused("ProtocolLevel".to_owned())
        }
        Ok(Some(packet)) => Verdict::Packet(packet, wire.len() - buf.len()),
        Ok(None) => Verdict::More,
        Err(DecodeError::Topic { source, .. }) => {
            Verdict::Refused(format!("Topic {}", variant(&source)))
        }
        Err(_) if names_level_5(wire) => Verdict::Refused("ProtocolLevel".to_owned()),
        Err(error) => Verdict::Refused(variant(&error)),
    }
}

/// A CONNECT that mutation has made one of version 5.0.
fn names_level_5(wire: &[u8]) -> bool {
    let body = 2 + wire[1..]
        .iter()
        .take_while(|byte| **byte & 0x80 != 0)
        .count();
    let body = wire.get(body..).unwrap_or_default();
    wire[0] >> 4 == 1 && body.starts_with(b"\0\x04MQTT\x05")
}

fn theirs(wire: &[u8]) -> Verdict<v4::Packet> {
    let mut buf = BytesMut::from(wire);
    match v4::read(&mut buf, usize::MAX) {
        Ok(packet) => Verdict::Packet(packet, wire.len() - buf.len()),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Verdict::More,
        Err(error) => Verdict::Refused(variant(&error)),
    }
}

/// The pair of verdicts, where they are not the same.
fn disagreement(wire: &[u8]) -> Option<(String, String)> {
    let (ours, theirs) = (ours(wire), theirs(wire));
    let differ = |what: &str| Some((what.to_owned(), "a packet".to_owned()));
    match (&ours, &theirs) {
        (Verdict::More, Verdict::More) | (Verdict::Refused(_), Verdict::Refused(_)) => None,
        (Verdict::Packet(_, left), Verdict::Packet(_, right)) if left != right => {
            differ("another length")
        }
        (Verdict::Packet(left, _), Verdict::Packet(right, _)) => (!same(left, right))
            .then(|| differ("another content"))
            .flatten(),
        _ => Some((ours.name().to_owned(), theirs.name().to_owned())),
    }
}

fn level(qos: mqttbytes::QoS) -> QoS {
    QoS::from_u8(qos as u8).unwrap()
}

/// The reason code that stands for a return code of 3.1.1.
fn reason(code: v4::ConnectReturnCode) -> ReasonCode {
    match code {
        v4::ConnectReturnCode::Success => ReasonCode::Success,
        v4::ConnectReturnCode::RefusedProtocolVersion => ReasonCode::UnsupportedProtocolVersion,
        v4::ConnectReturnCode::BadClientId => ReasonCode::ClientIdNotValid,
        v4::ConnectReturnCode::ServiceUnavailable => ReasonCode::ServerUnavailable,
        v4::ConnectReturnCode::BadUserNamePassword => ReasonCode::BadCredentials,
        v4::ConnectReturnCode::NotAuthorized => ReasonCode::NotAuthorized,
    }
}

fn same(ours: &Packet, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => same_connect(ours, theirs),
        (Packet::ConnAck(ours), v4::Packet::ConnAck(theirs)) => {
            ours.session_present == theirs.session_present && ours.code == reason(theirs.code)
        }
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => {
            (ours.dup, ours.retain, ours.qos) == (theirs.dup, theirs.retain, level(theirs.qos))
                && ours.id.map_or(0, u16::from) == theirs.pkid
                && ours.topic == *theirs.topic
                && ours.payload == theirs.payload
        }
        (Packet::PubAck(ours), v4::Packet::PubAck(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRec(ours), v4::Packet::PubRec(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRel(ours), v4::Packet::PubRel(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubComp(ours), v4::Packet::PubComp(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::UnsubAck(ours), v4::Packet::UnsubAck(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            let mine = ours.filters.iter().map(|it| (it.filter.as_str(), it.qos));
            let other = theirs.filters.iter();
            ours.id.get() == theirs.pkid
                && mine.eq(other.map(|it| (it.path.as_str(), level(it.qos))))
        }
        (Packet::SubAck(ours), v4::Packet::SubAck(theirs)) => {
            let codes = theirs.return_codes.iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(qos) => ReasonCode::granted(level(*qos)),
                v4::SubscribeReasonCode::Failure => ReasonCode::UnspecifiedError,
            });
            ours.id.get() == theirs.pkid && ours.codes.iter().copied().eq(codes)
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            let mine = ours.filters.iter().map(Text::as_str);
            ours.id.get() == theirs.pkid && mine.eq(theirs.topics.iter().map(String::as_str))
        }
        (Packet::PingReq, v4::Packet::PingReq)
        | (Packet::PingResp, v4::Packet::PingResp)
        | (Packet::Disconnect(_), v4::Packet::Disconnect) => true,
        _ => false,
    }
}

/// They do not tell an absent user name, or password, from an empty one.
fn same_connect(ours: &Connect, theirs: &v4::Connect) -> bool {
    let will = match (&ours.will, &theirs.last_will) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => {
            ours.topic == *theirs.topic
                && ours.payload == theirs.message
                && (ours.qos, ours.retain) == (level(theirs.qos), theirs.retain)
        }
        _ => false,
    };
    let (username, password) = match &theirs.login {
        None => ("", ""),
        Some(login) => (login.username.as_str(), login.password.as_str()),
    };
    will && ours.client_id == *theirs.client_id
        && (ours.clean_session, ours.keep_alive) == (theirs.clean_session, theirs.keep_alive)
        && ours.username.as_deref().unwrap_or_default() == username
        && ours.password.as_deref().unwrap_or_default() == password.as_bytes()
}

#[test]
fn every_disagreement_with_another_decoder_is_explained() {
    let packets = match std::env::var("MQTT_DIFFERENTIAL_PACKETS") {
        Ok(count) => count.parse().expect("a number of packets"),
        Err(_) => PACKETS,
    };
    let mut random = Random(1);
    let mut found: BTreeMap<(String, String), (u64, Vec<u8>)> = BTreeMap::new();
    for number in 0..packets {
        let mut wire = bytes_of(&any_packet(&mut random));
        // One in ten stays as it is: both have to take it, and alike.
        if number % 10 != 0 {
            mutate(&mut random, &mut wire);
        }
        if let Some(pair) = disagreement(&wire) {
            let entry = found.entry(pair).or_insert_with(|| (0, wire.clone()));
            entry.0 += 1;
            if wire.len() < entry.1.len() {
                entry.1 = wire;
            }
        }
    }
    let explained: BTreeSet<_> = EXPLAINED
        .iter()
        .map(|(ours, theirs, _)| (*ours, *theirs))
        .collect();
    assert_eq!(explained.len(), EXPLAINED.len(), "a row stands twice");
    let unexplained: Vec<String> = found
        .iter()
        .filter(|((ours, theirs), _)| !explained.contains(&(ours.as_str(), theirs.as_str())))
        .map(|((ours, theirs), (count, wire))| {
            format!("we: {ours}; they: {theirs}; {count} times, shortest {wire:02x?}")
        })
        .collect();
    assert!(
        unexplained.is_empty(),
        "not explained:\n{}",
        unexplained.join("\n")
    );
    let stale: Vec<_> = explained
        .iter()
        .filter(|(ours, theirs)| !found.contains_key(&((*ours).to_owned(), (*theirs).to_owned())))
        .collect();
    assert!(
        packets < PACKETS || stale.is_empty(),
        "no longer seen: {stale:?}"
    );
}
