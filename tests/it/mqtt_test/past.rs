//! A process dies in the midst of QoS 2 and leaves packet ids at the server; the next one has the same client id, the
//! server's session, and no memory of it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use qproxy::mqtt_client::Version;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::{self, Connect, Packet, PacketId, Publish};
use qproxy::mqtt_client::message::QoS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::soon;

/// Ids of the earlier process, as a client gives them out: from 1.
const LEFT: u16 = 20;

/// Publishes until the server has said PUBREC to all, and dies.
async fn earlier_process(port: u16, version: Version, payload: &'static str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut bytes = BytesMut::new();
    let connect = Connect {
        client_id: "lasting".into(),
        clean_session: false,
        version,
        keep_alive: 60,
        properties: (version == Version::V5).then(|| {
            Box::new(codec::ConnectProperties {
                session_expiry: Some(600),
                ..Default::default()
            })
        }),
        will: None,
        username: None,
        password: None,
    };
    codec::encode(&Packet::Connect(Box::new(connect)), version, &mut bytes).unwrap();
    for id in 1..=LEFT {
        let publish = Publish {
            qos: QoS::ExactlyOnce,
            topic: "t".into(),
            id: PacketId::new(id),
            payload: payload.into(),
            ..Publish::default()
        };
        codec::encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
    }
    stream.write_all(&bytes).await.unwrap();
    bytes.clear();
    let mut recorded = 0;
    while recorded < LEFT {
        while let Some(packet) = codec::decode(&mut bytes, 1 << 20, version).unwrap() {
            recorded += u16::from(matches!(packet, Packet::PubRec(_)));
        }
        if recorded < LEFT {
            let read = soon("PUBREC", stream.read_buf(&mut bytes)).await.unwrap();
            assert!(read > 0, "the server hung up");
        }
    }
}

async fn nothing_is_lost_or_doubled(
    port: u16,
    version: Version,
    old: &'static str,
    new: &'static str,
) {
    let config = |id: &str| MqttConfig {
        client_id: id.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        protocol: version,
        ..MqttConfig::default()
    };
    let receiver = MqttClient::new(config("receiver"));
    let mut messages = receiver.messages();
    receiver.connect().await.unwrap();
    receiver.subscribe("t", QoS::ExactlyOnce).await.unwrap();
    earlier_process(port, version, old).await;

    let next = MqttClient::new(MqttConfig {
        clean_session: false,
        session_expiry: (version == Version::V5).then(|| std::time::Duration::from_secs(600)),
        ..config("lasting")
    });
    next.connect().await.unwrap();
    let mut tokens = Vec::new();
    for _ in 0..LEFT {
        let publish = next.publish_deferred("t", new, QoS::ExactlyOnce).await;
        tokens.push(publish.unwrap());
    }
    for token in tokens {
        soon("PUBCOMP", token).await.unwrap();
    }
    next.publish("t", "end", QoS::ExactlyOnce).await.unwrap();
    assert_eq!(next.stats().ignored, 0);
    let mut arrived = BTreeMap::<Bytes, u16>::new();
    loop {
        let message = soon("a message", messages.recv()).await.unwrap();
        if message.payload == "end" {
            break;
        }
        *arrived.entry(message.payload.clone()).or_default() += 1;
    }
    let mut expected = BTreeMap::new();
    for payload in [old, new] {
        *expected.entry(Bytes::from(payload)).or_default() += LEFT;
    }
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn mosquitto_gets_what_two_processes_publish_under_the_same_ids() {
    // It takes a repeat for one only where the payload is the same.
    for (version, new) in [
        (Version::V311, "on"),
        (Version::V5, "on"),
        (Version::V311, "off"),
    ] {
        let broker = Mosquitto::start(Options::default()).await;
        nothing_is_lost_or_doubled(broker.port(), version, "on", new).await;
    }
}

#[tokio::test]
async fn the_embedded_broker_gets_what_two_processes_publish_under_the_same_ids() {
    for version in [Version::V311, Version::V5] {
        let any_port = "127.0.0.1:0".parse().unwrap();
        let broker = broker_mock::Broker::bind(broker_mock::Config::new(any_port))
            .await
            .unwrap();
        let port = broker.local_addr().port();
        nothing_is_lost_or_doubled(port, version, "on", "off").await;
        broker.shutdown().await;
    }
}
