//! What a client that leaves takes along for its next connect, and what it owes until then.

use std::time::Duration;

use bytes::Bytes;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::{Ack, Disconnect, Packet, PacketId, Publish};
use qproxy::mqtt_client::message::{QoS, Text};
use qproxy::mqtt_client::session::AckMode;

use super::connected;
use crate::support::mqtt_peer::Peer;
use crate::support::soon;

fn ack(id: u16) -> Ack {
    Ack::from(PacketId::new(id).unwrap())
}

#[tokio::test]
async fn what_is_acknowledged_reaches_the_program_though_its_receiver_was_full() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        inbound_messages: 1,
        ..peer.config()
    });
    let mut messages = client.messages();
    let (result, mut connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    for id in [1, 2] {
        connection.message("a", id.to_string(), id).await;
        assert_eq!(connection.next().await, Packet::PubAck(ack(id)));
    }
    client.disconnect().await.unwrap();
    // Nothing was taken yet, so that the next one finds not even the place of the one before.
    let (result, mut connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    connection.message("a", "3", 3).await;
    assert_eq!(connection.next().await, Packet::PubAck(ack(3)));
    client.disconnect().await.unwrap();
    for expected in ["1", "2"] {
        let message = messages.try_recv().expect("it was acknowledged");
        assert_eq!(message.payload, expected);
    }
    let (result, _connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    let third = soon("the third message", messages.recv()).await.unwrap();
    assert_eq!(third.payload, "3");
}

#[tokio::test]
async fn what_the_program_acknowledges_during_an_outage_is_settled_though_it_leaves() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        ack_mode: AckMode::Manual,
        clean_session: false,
        // Longer than any test waits: nothing here is worth waiting for.
        drain_timeout: Duration::from_secs(3600),
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let mut messages = client.messages();
    let publish = |dup| {
        Packet::Publish(Publish {
            dup,
            qos: QoS::ExactlyOnce,
            topic: Text::from_static("t"),
            id: PacketId::new(7),
            payload: Bytes::from_static(b"once"),
            ..Publish::default()
        })
    };
    connection.send(&publish(false)).await;
    let message = soon("the message", messages.recv()).await.unwrap();
    drop(connection);
    // Taken, and never answered.
    let outage = peer.accept_tcp().await;
    message.ack();
    soon("disconnect", client.disconnect()).await.unwrap();
    drop(outage);

    let (result, mut connection) = tokio::join!(client.connect(), peer.resume());
    result.unwrap();
    connection.send(&publish(true)).await;
    assert_eq!(connection.next().await, Packet::PubRec(ack(7)));
    connection.send(&Packet::PubRel(ack(7))).await;
    assert_eq!(connection.next().await, Packet::PubComp(ack(7)));
    assert!(messages.try_recv().is_none(), "it was delivered before");
    // Acknowledgements leave in order: none would, behind one that is stuck.
    connection.message("t", "next", 8).await;
    let next = soon("the next message", messages.recv()).await.unwrap();
    next.ack();
    assert_eq!(connection.next().await, Packet::PubAck(ack(8)));
}

#[tokio::test]
async fn the_last_bytes_are_not_lost_to_a_server_that_is_still_talking() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let leaving = tokio::spawn(async move { client.disconnect().await });
    assert_eq!(
        connection.next().await,
        Packet::Disconnect(Disconnect::default())
    );
    assert_eq!(connection.try_next().await, None);
    // More than sockets hold: a closed one answers with a reset, which takes along what the server has not read.
    let talk = vec![0; 1 << 20];
    for _ in 0..16 {
        connection.write(&talk).await;
    }
    drop(connection);
    soon("disconnect", leaving).await.unwrap().unwrap();
}
