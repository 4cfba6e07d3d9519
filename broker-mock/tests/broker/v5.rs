//! MQTT 5 over real sockets: versions side by side, reasons before a close, and each fault of a script.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use broker_mock::faults::{Event, Fault, Rule, Script, When};
use broker_mock::{Broker, Config, Limits, MockBroker};
use bytes::Bytes;
use qproxy_mqtt::codec::{
    Ack, ConnAckProperties, Connect, ConnectProperties, Kind, Packet, Publish, PublishProperties,
    QoS, ReasonCode, Version,
};

use crate::client::{Client, clean, eventually, id, publish};
use crate::service::{local, start};

fn fifth(client_id: &str, properties: ConnectProperties) -> Connect {
    Connect {
        version: Version::V5,
        properties: Some(Box::new(properties)),
        ..clean(client_id)
    }
}

async fn join(broker: &MockBroker, client_id: &str) -> Client {
    let connect = fifth(client_id, ConnectProperties::default());
    let (client, ack) = Client::join(broker.local_addr(), connect).await;
    assert_eq!(ack.code, ReasonCode::Success);
    client
}

async fn mock(rules: impl Into<Vec<Rule>>) -> MockBroker {
    MockBroker::start(Script::of(rules)).await.unwrap()
}

/// The reason of the DISCONNECT that is the last packet.
async fn farewell(client: &mut Client) -> Option<ReasonCode> {
    let mut last = None;
    while let Some(packet) = client.next().await {
        last = Some(packet);
    }
    match last {
        Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
        _ => None,
    }
}

fn aliased(topic: &str, alias: u16) -> Packet {
    match publish(topic, "x", QoS::AtMostOnce, 0) {
        Packet::Publish(publish) => Packet::Publish(Publish {
            properties: Some(Box::new(PublishProperties {
                topic_alias: NonZeroU16::new(alias),
                ..PublishProperties::default()
            })),
            ..publish
        }),
        other => other,
    }
}

#[tokio::test]
async fn both_versions_meet_on_one_broker() {
    let broker = start(Limits::default()).await;
    let mut old = Client::clean(broker.local_addr(), "old").await;
    let wants = ConnectProperties {
        topic_alias_max: Some(5),
        ..ConnectProperties::default()
    };
    let (mut new, ack) = Client::join(broker.local_addr(), fifth("new", wants)).await;
    let said = ack.properties.expect("MQTT 5 tells its limits");
    assert_eq!(said.max_packet_size, NonZeroU32::new(1024 * 1024));
    old.subscribe("shop/#", QoS::AtLeastOnce).await;
    new.subscribe("shop/#", QoS::AtLeastOnce).await;
    new.send(&aliased("shop/é", 1)).await;
    new.send(&aliased("", 1)).await;
    for _ in 0..2 {
        assert_eq!(old.publish().await.topic, *"shop/é");
    }
    let (first, second) = (new.publish().await, new.publish().await);
    assert_eq!(first.topic, *"shop/é");
    assert_eq!(second.topic, *"", "the alias stands for it");
    assert_eq!(broker.stats().counters.connects_v5, 1);
}

#[tokio::test]
async fn other_versions_are_refused_in_words_that_they_know() {
    let broker = start(Limits::default()).await;
    for (level, answer) in [
        (3, &[0x20, 2, 0, 1][..]),
        (6, &[0x20, 3, 0, 0x84, 0]),
        (200, &[0x20, 3, 0, 0x84, 0]),
    ] {
        let mut client = Client::open(broker.local_addr()).await;
        let connect = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 0];
        client.send_raw(&connect).await;
        let mut got = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut got)
            .await
            .unwrap();
        assert_eq!(got, answer, "level {level}");
    }
}

#[tokio::test]
async fn malformed_and_too_large_packets_have_their_reasons() {
    let broker = start(Limits {
        packet_bytes: 1_000,
        ..Limits::default()
    })
    .await;
    for (bytes, reason) in [
        (&[0x30, 0xff, 0x7f][..], ReasonCode::PacketTooLarge),
        (&[0xff, 0x00], ReasonCode::MalformedPacket),
        (&[0x30, 4, 0, 2, b'a', 0], ReasonCode::MalformedPacket),
        (&[0xf0, 0x00], ReasonCode::ProtocolError),
    ] {
        let connect = fifth("c", ConnectProperties::default());
        let (mut client, _) = Client::join(broker.local_addr(), connect).await;
        client.send_raw(bytes).await;
        assert_eq!(farewell(&mut client).await, Some(reason), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_takeover_and_the_end_of_the_broker_are_told() {
    let broker = start(Limits::default()).await;
    let connect = || fifth("c", ConnectProperties::default());
    let (mut first, _) = Client::join(broker.local_addr(), connect()).await;
    let (mut second, _) = Client::join(broker.local_addr(), connect()).await;
    assert_eq!(
        farewell(&mut first).await,
        Some(ReasonCode::SessionTakenOver)
    );
    broker.shutdown().await;
    assert_eq!(
        farewell(&mut second).await,
        Some(ReasonCode::ServerShuttingDown)
    );
}

#[tokio::test]
async fn a_refused_client_learns_why() {
    let config = Config {
        token: Some("secret".into()),
        ..Config::new(local())
    };
    let broker = Broker::bind(config).await.unwrap();
    let (mut client, ack) = Client::join(
        broker.local_addr(),
        fifth("c", ConnectProperties::default()),
    )
    .await;
    assert_eq!(ack.code, ReasonCode::NotAuthorized);
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn connects_are_refused_with_any_code_of_mqtt_5() {
    for &code in ReasonCode::ALL {
        if !code.is_error() || !code.allowed_in(Kind::ConnAck) {
            continue;
        }
        let rule = Rule::from_client(Kind::Connect, When::Nth(1), Fault::Refuse(code));
        let broker = mock([rule]).await;
        let connect = fifth("c", ConnectProperties::default());
        let (mut client, ack) = Client::join(broker.local_addr(), connect).await;
        assert_eq!(ack.code, code);
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn a_script_disconnects_with_any_reason() {
    for &code in ReasonCode::ALL {
        if !code.is_error() || !code.allowed_in(Kind::Disconnect) {
            continue;
        }
        let rule = Rule::from_client(Kind::PingReq, When::Nth(1), Fault::Disconnect(code));
        let broker = mock([rule]).await;
        let mut client = join(&broker, "c").await;
        client.send(&Packet::PingReq).await;
        assert_eq!(farewell(&mut client).await, Some(code));
    }
    let broker = mock([]).await;
    let mut new = join(&broker, "new").await;
    let mut old = Client::clean(broker.local_addr(), "old").await;
    assert!(broker.disconnect("new", ReasonCode::ServerBusy));
    assert!(broker.disconnect("old", ReasonCode::ServerBusy));
    assert!(!broker.disconnect("nobody", ReasonCode::ServerBusy));
    assert_eq!(farewell(&mut new).await, Some(ReasonCode::ServerBusy));
    assert_eq!(old.next().await, None, "3.1.1 has no such packet");
}

#[tokio::test]
async fn acknowledgements_are_lost_doubled_swapped_and_falsified() {
    for (fault, expected) in [
        (Fault::Lose, vec![1, 3]),
        (Fault::Duplicate, vec![1, 2, 2, 3]),
        (Fault::Swap, vec![1, 3, 2]),
        (Fault::Reason(ReasonCode::QuotaExceeded), vec![1, 2, 3]),
    ] {
        let broker = mock([Rule::to_client(Kind::PubAck, When::Nth(2), fault.clone())]).await;
        let mut client = join(&broker, "c").await;
        for number in 1..=3 {
            let packet = publish("t", "x", QoS::AtLeastOnce, number);
            client.send(&packet).await;
        }
        let acks: Vec<Ack> = client
            .ping()
            .await
            .into_iter()
            .map(|packet| match packet {
                Packet::PubAck(ack) => ack,
                other => panic!("a PUBACK, not {other:?}"),
            })
            .collect();
        let ids: Vec<u16> = acks.iter().map(|ack| ack.id.get()).collect();
        assert_eq!(ids, expected, "{fault:?}");
        let refused = acks.iter().filter(|ack| ack.reason.is_error()).count();
        assert_eq!(refused, usize::from(matches!(fault, Fault::Reason(_))));
    }
}

#[tokio::test]
async fn acknowledgements_carry_reasons_that_have_no_place_in_them() {
    let fault = Fault::Reason(ReasonCode::ServerMoved);
    let broker = mock([Rule::to_client(Kind::PubAck, When::Nth(1), fault)]).await;
    let mut client = join(&broker, "c").await;
    client.send(&publish("t", "x", QoS::AtLeastOnce, 7)).await;
    let mut got = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut got)
        .await
        .unwrap();
    assert_eq!(got, [0x40, 3, 0, 7, 0x9d]);
}

#[tokio::test]
async fn acknowledgements_are_delayed_behind_later_packets() {
    let delay = Fault::Delay(Duration::from_millis(50));
    let broker = mock([Rule::to_client(Kind::PubRec, When::Nth(1), delay)]).await;
    let mut client = join(&broker, "c").await;
    client.send(&publish("t", "x", QoS::ExactlyOnce, 7)).await;
    assert_eq!(client.ping().await, []);
    match client.next().await {
        Some(Packet::PubRec(ack)) => assert_eq!(ack.id, id(7)),
        other => panic!("a PUBREC, not {other:?}"),
    }
}

#[tokio::test]
async fn announced_limits_are_changed() {
    let said = ConnAckProperties {
        receive_max: NonZeroU16::new(2),
        max_packet_size: NonZeroU32::new(500),
        topic_alias_max: Some(0),
        max_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        server_keep_alive: Some(9),
        ..ConnAckProperties::default()
    };
    let fault = Fault::Announce(Box::new(said.clone()));
    let broker = mock([Rule::to_client(Kind::ConnAck, When::Always, fault)]).await;
    let connect = fifth("", ConnectProperties::default());
    let (_client, ack) = Client::join(broker.local_addr(), connect).await;
    let got = *ack.properties.expect("limits");
    assert!(got.assigned_client_id.is_some(), "the rest stays");
    let expected = ConnAckProperties {
        assigned_client_id: got.assigned_client_id.clone(),
        ..said
    };
    assert_eq!(got, expected);
    Client::clean(broker.local_addr(), "old").await;
}

#[tokio::test]
async fn no_fault_leaves_an_alias_behind_that_its_receiver_does_not_know() {
    let broker = mock([
        Rule::to_client(Kind::Publish, When::Nth(1), Fault::Lose),
        Rule::from_client(Kind::Publish, When::Nth(1), Fault::Lose),
    ])
    .await;
    let wants = ConnectProperties {
        topic_alias_max: Some(5),
        ..ConnectProperties::default()
    };
    let (mut client, _) = Client::join(broker.local_addr(), fifth("c", wants)).await;
    client.subscribe("#", QoS::AtMostOnce).await;
    client.send(&aliased("long/topic", 1)).await;
    for _ in 0..3 {
        client.send(&aliased("", 1)).await;
    }
    for _ in 0..2 {
        assert_eq!(client.publish().await.topic, *"long/topic");
    }
    assert_eq!(client.ping().await, []);
    let as_sent = broker.transcript().into_iter().filter(|entry| {
        matches!(entry.received(), Some(Packet::Publish(publish)) if publish.topic.is_empty())
    });
    assert_eq!(as_sent.count(), 3, "the transcript has what was sent");
}

#[tokio::test]
async fn the_transcript_shows_packets_of_mqtt_5() {
    let broker = mock([]).await;
    let mut client = join(&broker, "c").await;
    let malformed = Bytes::from_static(&[0x40, 3, 0, 1, 0xfe]);
    assert!(broker.send_raw("c", malformed.clone()));
    eventually("the bytes are there", || broker.stats().clients == 1).await;
    client.send(&aliased("topic", 1)).await;
    client.send_raw(&[0xe0, 2, 0x04, 0]).await;
    let mut got = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut got)
        .await
        .unwrap();
    assert_eq!(got, malformed);
    let transcript = broker.shutdown().await;
    let seen: Vec<&Packet> = transcript
        .iter()
        .filter_map(|entry| entry.received())
        .collect();
    assert!(matches!(seen[0], Packet::Connect(connect) if connect.version == Version::V5));
    assert_eq!(seen[1], &aliased("topic", 1));
    assert!(matches!(seen[2], Packet::Disconnect(d) if d.reason == ReasonCode::DisconnectWithWill));
    let end = Event::Closed(broker_mock::CloseReason::Left(
        ReasonCode::DisconnectWithWill,
    ));
    assert_eq!(transcript.last().map(|entry| &entry.event), Some(&end));
}
