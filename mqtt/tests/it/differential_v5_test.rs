//! MQTT 5.0 held against `mqttbytes` as well, whose decoder of that version is known to be wrong in many ways: each
//! way has to be in [`EXPLAINED`], and no other may show. UNSUBSCRIBE is left out, because their decoder prints each
//! one. What the two make of a packet's content is not compared, as theirs corrupts payloads: that is what
//! `oracle_test` and the round trips are for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use mqttbytes::v5;
use qproxy_mqtt::codec::{DecodeError, Packet, Version, decode};

use crate::oracle::packet_v5;
use crate::packets::{Random, mutate};

const PACKETS: u64 = 200_000;

/// What we say, what they say, and why we are right.
const EXPLAINED: &[(&str, &str, &str)] = &[
    // They look for the whole packet first, and at little of its fixed header.
    (
        "PacketType",
        "more",
        "type 0 is wrong from the first byte (2.1.2)",
    ),
    ("Flags", "more", "known from the first byte"),
    (
        "Flags",
        "packet",
        "they ignore the low four bits of all but PUBLISH [MQTT-2.1.3-1]",
    ),
    (
        "Length",
        "more",
        "the announced length cannot be: there is nothing to wait for",
    ),
    (
        "Length",
        "packet",
        "they ignore what follows a ping (3.12, 3.13)",
    ),
    (
        "RemainingLength",
        "more",
        "not the shortest form is wrong from the header [MQTT-1.5.5-1]",
    ),
    (
        "RemainingLength",
        "packet",
        "they take it in any length [MQTT-1.5.5-1]",
    ),
    ("Dup", "more", "known from the first byte"),
    ("Dup", "packet", "DUP on QoS 0 [MQTT-3.3.1-2]"),
    (
        "QoS",
        "more",
        "QoS 3, known from the first byte [MQTT-3.3.1-4]",
    ),
    // Inside a whole packet they answer "more bytes" where a field goes past its end: a reader waits for ever.
    (
        "Truncated",
        "more",
        "a field goes past the end of its packet (2.1.4)",
    ),
    ("Null", "more", "the same, behind what we see first"),
    ("PacketId", "more", "the same, behind what we see first"),
    (
        "PropertyLength",
        "more",
        "the same, behind what we see first",
    ),
    ("ConnectFlag", "more", "the same, behind what we see first"),
    ("WillFlags", "more", "the same, behind what we see first"),
    ("ConnAckFlags", "more", "the same, behind what we see first"),
    (
        "packet",
        "more",
        "DISCONNECT of one byte, a reason and no properties (3.14.2.1)",
    ),
    // Fields that they do not check.
    (
        "PacketId",
        "packet",
        "they check for identifier 0 in PUBLISH alone (2.2.1)",
    ),
    ("Null", "packet", "they take U+0000 in text [MQTT-1.5.4-2]"),
    (
        "Topic Empty",
        "packet",
        "a topic that is empty without an alias (3.3.2.1) [MQTT-4.7.3-1]",
    ),
    (
        "Topic Wildcard",
        "packet",
        "wildcards in a name [MQTT-3.3.2-2] [MQTT-3.3.2-14]",
    ),
    (
        "Topic MultiLevel",
        "packet",
        "# that is not the last level, or not alone in it [MQTT-4.7.1-1]",
    ),
    (
        "Topic SingleLevel",
        "packet",
        "+ that is not alone in its level [MQTT-4.7.1-2]",
    ),
    (
        "Topic Share",
        "packet",
        "a shared filter without a group or a filter [MQTT-4.8.2-1] [MQTT-4.8.2-2]",
    ),
    (
        "SharedNoLocal",
        "packet",
        "no local on a shared subscription [MQTT-3.8.3-4]",
    ),
    (
        "SubscribeBits",
        "packet",
        "reserved bits beside the options [MQTT-3.8.3-5]",
    ),
    (
        "EmptyList",
        "packet",
        "SUBSCRIBE about nothing [MQTT-3.8.3-2]",
    ),
    (
        "ConnectFlag",
        "packet",
        "the reserved connect flag [MQTT-3.1.2-3]",
    ),
    (
        "ConnAckFlags",
        "packet",
        "the reserved acknowledge flags [MQTT-3.2.2-1]",
    ),
    (
        "SessionPresent",
        "packet",
        "a refusing CONNACK says that it has a session [MQTT-3.2.2-6]",
    ),
    (
        "Trailing",
        "packet",
        "they ignore what follows the last field",
    ),
    (
        "PasswordAlone",
        "packet",
        "they read a CONNECT of 3.1.1 by the rules of 5.0 [3.1.1: MQTT-3.1.2-22]",
    ),
    // Properties.
    (
        "Property",
        "packet",
        "a subscription identifier in more bytes than they count makes them lose their place",
    ),
    (
        "PropertyLength",
        "packet",
        "the same, or a length that is not the shortest",
    ),
    (
        "PropertyTwice",
        "packet",
        "the same; or one that may come once comes twice (2.2.2.2)",
    ),
    (
        "PropertyValue",
        "packet",
        "0 where it means nothing; a flag that is neither 0 nor 1; maximum QoS 2",
    ),
    (
        "Truncated",
        "packet",
        "properties that go past their length, into what follows (2.2.2.1)",
    ),
    (
        "AuthMethod",
        "packet",
        "authentication data without a method (3.2.2.3.18)",
    ),
    // What they refuse and the standard allows.
    (
        "packet",
        "TopicNotUtf8",
        "a password is any bytes (3.1.3.6); they take only UTF-8",
    ),
    (
        "packet",
        "PayloadRequired",
        "DISCONNECT may be empty (3.14.1)",
    ),
    (
        "packet",
        "InvalidPacketType",
        "they do not know AUTH (3.15)",
    ),
];

fn variant(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(|character: char| !character.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// `None` for a CONNECT that mutation made one of 3.1.1, and that is one.
fn ours(wire: &[u8]) -> Option<String> {
    Some(
        match decode(&mut BytesMut::from(wire), usize::MAX, Version::V5) {
            Ok(Some(Packet::Connect(connect))) if connect.version != Version::V5 => return None,
            Ok(Some(_)) => "packet".to_owned(),
            Ok(None) => "more".to_owned(),
            Err(DecodeError::Topic { source, .. }) => format!("Topic {}", variant(&source)),
            Err(error) => variant(&error),
        },
    )
}

fn theirs(wire: &[u8]) -> String {
    match v5::read(&mut BytesMut::from(wire), usize::MAX) {
        Ok(_) => "packet".to_owned(),
        Err(mqttbytes::Error::InsufficientBytes(_)) => "more".to_owned(),
        Err(error) => variant(&error),
    }
}

#[test]
fn every_disagreement_about_5_0_with_another_decoder_is_explained() {
    let mut random = Random(6);
    let mut found: BTreeMap<(String, String), Vec<u8>> = BTreeMap::new();
    for number in 0..PACKETS {
        let mut wire = packet_v5(&mut random);
        if number % 4 != 0 {
            mutate(&mut random, &mut wire);
        }
        if wire[0] >> 4 == 10 {
            continue;
        }
        let Some(ours) = ours(&wire) else { continue };
        let theirs = theirs(&wire);
        let verdicts = ["packet", "more"];
        let both_refuse = ![&ours, &theirs]
            .iter()
            .any(|verdict| verdicts.contains(&verdict.as_str()));
        if ours != theirs && !both_refuse {
            let shortest = found.entry((ours, theirs)).or_insert_with(|| wire.clone());
            if wire.len() < shortest.len() {
                *shortest = wire;
            }
        }
    }
    let explained: BTreeSet<_> = EXPLAINED
        .iter()
        .map(|(ours, theirs, _)| ((*ours).to_owned(), (*theirs).to_owned()))
        .collect();
    assert_eq!(explained.len(), EXPLAINED.len(), "a row stands twice");
    let unexplained: Vec<_> = found
        .iter()
        .filter(|(pair, _)| !explained.contains(pair))
        .map(|((ours, theirs), wire)| format!("we: {ours}; they: {theirs}; {wire:02x?}"))
        .collect();
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let stale: Vec<_> = explained
        .iter()
        .filter(|pair| !found.contains_key(pair))
        .collect();
    assert!(stale.is_empty(), "no longer seen: {stale:?}");
}
