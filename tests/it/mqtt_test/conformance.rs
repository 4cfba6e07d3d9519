//! Statements of the specification that only show on the wire. `mqtt/CONFORMANCE.md` says which test proves which.

use std::time::Duration;

use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::{Ack, ConnAck, Kind, Packet, PacketId, Publish, ReasonCode, Text};
use qproxy::mqtt_client::error::{ConnectError, Disconnected, Error};
use qproxy::mqtt_client::message::QoS;

use super::{connected, event};
use crate::support::mqtt_peer::Peer;
use crate::support::{eventually, soon};

fn message(payload: &'static str, qos: QoS, id: u16, dup: bool) -> Packet {
    Packet::Publish(Publish {
        dup,
        qos,
        retain: false,
        topic: Text::from_static("t"),
        id: PacketId::new(id),
        payload: payload.into(),
        properties: None,
    })
}

fn ack(id: u16) -> Ack {
    Ack::from(PacketId::new(id).unwrap())
}

#[tokio::test]
async fn connect_goes_first_and_once_and_nothing_follows_disconnect() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(peer.config());
    let server = async {
        let mut connection = peer.accept_tcp().await;
        let mut kinds = Vec::new();
        while let Some(packet) = connection.try_next().await {
            kinds.push(packet.kind());
            match packet {
                Packet::Connect(_) => {
                    let connack = ConnAck {
                        session_present: false,
                        code: ReasonCode::Success,
                        properties: None,
                    };
                    connection.send(&Packet::ConnAck(connack)).await;
                }
                Packet::Publish(publish) => connection.puback(&publish).await,
                _ => {}
            }
        }
        kinds
    };
    let program = async {
        client.connect().await.unwrap();
        client.publish("a", "", QoS::AtLeastOnce).await.unwrap();
        client.disconnect().await.unwrap();
    };
    let (kinds, ()) = tokio::join!(server, program);
    assert_eq!(kinds, [Kind::Connect, Kind::Publish, Kind::Disconnect]);
}

#[tokio::test]
async fn a_first_packet_that_is_not_connack_fails_the_attempt() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(peer.config());
    let server = async {
        let mut connection = peer.accept_tcp().await;
        connection.next().await;
        connection.send(&Packet::PingResp).await;
        assert_eq!(connection.try_next().await, None, "the client closes");
    };
    let (result, ()) = tokio::join!(client.connect(), server);
    let Err(Error::Connect(ConnectError::NotConnAck)) = result else {
        panic!("{result:?}")
    };
}

#[tokio::test]
async fn whatever_breaks_the_protocol_closes_the_connection() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let mut events = client.events();
    let wrong: [&[u8]; 10] = [
        b"\x30\x03\0\x01\xff",    // ill-formed UTF-8
        b"\x30\x04\0\x02a\0",     // U+0000
        b"\x30\x03\0\x01#",       // a wildcard in a topic name
        b"\x36\x05\0\x01a\0\x01", // QoS 3
        b"\x32\x05\0\x01a\0\0",   // packet identifier 0
        b"\x60\x02\0\x01",        // flags of PUBREL
        b"\x90\x03\0\x01\x03",    // a reserved return code
        b"\xd0\xff\xff\xff\xff",  // a remaining length of five bytes
        b"\x20\x02\0\0",          // a second CONNACK
        b"\xc0\x00",              // PINGREQ from a server
    ];
    for bytes in wrong {
        connection.write(bytes).await;
        let ended = event(&mut events, |event| {
            matches!(event, Event::Disconnected { .. })
        })
        .await;
        let Event::Disconnected { reason } = ended else {
            unreachable!("just matched")
        };
        let blamed = matches!(
            reason,
            Disconnected::Malformed(_) | Disconnected::Violation(_)
        );
        assert!(blamed, "{bytes:02x?}: {reason:?}");
        assert_eq!(connection.try_next().await, None, "{bytes:02x?}");
        connection = peer.accept().await;
    }
    eventually("it is connected again", || async { client.is_connected() }).await;
}

#[tokio::test]
async fn a_byte_order_mark_stays_where_it_is() {
    let topic = "\u{feff}a/\u{feff}";
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let mut messages = client.messages();
    connection.message(topic, "", 0).await;
    let message = soon("the message", messages.recv()).await.unwrap();
    assert_eq!(message.topic, topic);
    client.publish(topic, "", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.topic, topic);
}

#[tokio::test]
async fn messages_that_nobody_takes_are_acknowledged_all_the_same() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    connection
        .send(&message("", QoS::AtLeastOnce, 3, false))
        .await;
    assert_eq!(connection.next().await, Packet::PubAck(ack(3)));
    connection
        .send(&message("", QoS::ExactlyOnce, 4, false))
        .await;
    assert_eq!(connection.next().await, Packet::PubRec(ack(4)));
    connection.send(&Packet::PubRel(ack(4))).await;
    assert_eq!(connection.next().await, Packet::PubComp(ack(4)));
    assert_eq!(client.stats().unclaimed, 2);
}

#[tokio::test]
async fn an_id_is_a_new_message_after_puback_but_a_repeat_before_pubrel() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let mut messages = client.messages();
    for dup in [false, true] {
        connection
            .send(&message("one", QoS::AtLeastOnce, 5, dup))
            .await;
        assert_eq!(connection.next().await, Packet::PubAck(ack(5)));
        let delivered = soon("the message", messages.recv()).await.unwrap();
        assert_eq!((&delivered.payload[..], delivered.dup), (&b"one"[..], dup));
    }
    for dup in [false, true, true] {
        connection
            .send(&message("two", QoS::ExactlyOnce, 5, dup))
            .await;
        assert_eq!(connection.next().await, Packet::PubRec(ack(5)));
    }
    connection.send(&Packet::PubRel(ack(5))).await;
    assert_eq!(connection.next().await, Packet::PubComp(ack(5)));
    connection
        .send(&message("three", QoS::ExactlyOnce, 5, false))
        .await;
    assert_eq!(connection.next().await, Packet::PubRec(ack(5)));
    for payload in ["two", "three"] {
        let delivered = soon("the message", messages.recv()).await.unwrap();
        assert_eq!(delivered.payload, payload);
    }
    assert!(messages.is_empty());
}

#[tokio::test]
async fn releases_follow_the_order_of_pubrec() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        drop(client.try_publish("a", "", QoS::ExactlyOnce).unwrap());
        let publish = connection.publish().await;
        assert!(!publish.dup);
        ids.push(Ack::from(publish.id.unwrap()));
    }
    for index in [2, 0, 1] {
        connection.send(&Packet::PubRec(ids[index].clone())).await;
    }
    for index in [2, 0, 1] {
        assert_eq!(connection.next().await, Packet::PubRel(ids[index].clone()));
    }
}

#[tokio::test]
async fn a_kept_session_outlives_disconnect_and_connect() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        clean_session: false,
        drain_timeout: Duration::from_millis(20),
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let token = client.try_publish("a", "kept", QoS::AtLeastOnce).unwrap();
    let first = connection.publish().await;
    let left = client.disconnect().await;
    assert!(
        matches!(left, Err(Error::Undelivered { left: 1, .. })),
        "{left:?}"
    );
    assert!(matches!(token.await, Err(Error::Stopped)));
    let (result, mut connection) = tokio::join!(client.connect(), peer.resume());
    result.unwrap();
    let again = connection.publish().await;
    assert_eq!(
        (again.id, again.dup, &again.payload[..]),
        (first.id, true, &b"kept"[..])
    );
    connection.puback(&again).await;
    eventually("it is done", || async { client.stats().in_flight == 0 }).await;
}
