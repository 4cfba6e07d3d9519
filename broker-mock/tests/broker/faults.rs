//! Each fault of the script does what it says, and the transcript shows it.

use std::time::Duration;

use broker_mock::MockBroker;
use broker_mock::faults::{Direction, Event, Fault, Rule, Scope, Script, When};
use bytes::Bytes;
use qproxy_mqtt::codec::{Disconnect, Kind, Packet, QoS, ReasonCode};
use tokio::time::Instant;

use crate::client::{Client, ack, clean, durable, eventually, publish};

async fn mock(rules: impl Into<Vec<Rule>>) -> MockBroker {
    MockBroker::start(Script::of(rules)).await.unwrap()
}

/// Publishes `count` messages of QoS 1 and returns the ids of the acknowledgements that came before a ping's answer.
async fn acknowledged(client: &mut Client, count: u16) -> Vec<u16> {
    for number in 1..=count {
        client
            .send(&publish("t", "x", QoS::AtLeastOnce, number))
            .await;
    }
    client
        .ping()
        .await
        .into_iter()
        .map(|packet| match packet {
            Packet::PubAck(ack) => ack.id.get(),
            other => panic!("a PUBACK, not {other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn acknowledgements_are_lost_doubled_and_swapped() {
    for (fault, expected) in [
        (Fault::Lose, vec![1, 3]),
        (Fault::Duplicate, vec![1, 2, 2, 3]),
        (Fault::Swap, vec![1, 3, 2]),
    ] {
        let broker = mock([Rule::to_client(Kind::PubAck, When::Nth(2), fault.clone())]).await;
        let mut client = Client::clean(broker.local_addr(), "c").await;
        assert_eq!(acknowledged(&mut client, 3).await, expected, "{fault:?}");
    }
}

#[tokio::test]
async fn acknowledgements_are_delayed() {
    let time = Duration::from_millis(150);
    let broker = mock([Rule::to_client(
        Kind::PubAck,
        When::Nth(1),
        Fault::Delay(time),
    )])
    .await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    let start = Instant::now();
    assert_eq!(acknowledged(&mut client, 2).await, [2]);
    assert_eq!(client.next().await, Some(Packet::PubAck(ack(1))));
    assert!(start.elapsed() >= time);
}

#[tokio::test]
async fn the_connection_drops_before_or_after_a_packet_counts() {
    for (fault, delivered) in [(Fault::DropBefore, 1), (Fault::DropAfter, 2)] {
        let broker = mock([Rule::from_client(Kind::Publish, When::Nth(2), fault)]).await;
        let mut watcher = Client::clean(broker.local_addr(), "w").await;
        watcher.subscribe("t", QoS::AtMostOnce).await;
        let mut client = Client::clean(broker.local_addr(), "c").await;
        for number in 1..=3 {
            let packet = publish("t", "x", QoS::AtLeastOnce, number);
            // The third may meet a closed socket.
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut client.stream,
                &crate::client::bytes_of(&packet),
            )
            .await;
        }
        while client.next().await.is_some() {}
        assert_eq!(watcher.ping().await.len(), delivered);
        let mut again = Client::clean(broker.local_addr(), "c").await;
        again.ping().await;
        let closed = Event::Closed(broker_mock::CloseReason::Fault);
        eventually("the end is noted", || {
            broker
                .transcript()
                .iter()
                .any(|entry| entry.event == closed)
        })
        .await;
    }
}

#[tokio::test]
async fn the_connection_drops_behind_a_packet_to_the_client() {
    let broker = mock([Rule::to_client(
        Kind::PubRec,
        When::Nth(1),
        Fault::DropAfter,
    )])
    .await;
    let (mut client, _) = Client::join(broker.local_addr(), durable("c")).await;
    client.send(&publish("t", "x", QoS::ExactlyOnce, 7)).await;
    assert_eq!(client.next().await, Some(Packet::PubRec(ack(7))));
    assert_eq!(client.next().await, None);
    let (mut client, connack) = Client::join(broker.local_addr(), durable("c")).await;
    assert!(connack.session_present);
    client.send(&Packet::PubRel(ack(7))).await;
    assert_eq!(client.next().await, Some(Packet::PubComp(ack(7))));
}

#[tokio::test]
async fn a_packet_is_cut_at_a_byte() {
    let broker = mock([Rule::to_client(Kind::PingResp, When::Nth(1), Fault::Cut(1))]).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.send(&Packet::PingReq).await;
    assert_eq!(client.next().await, None);
    let cut = Event::SentRaw(Bytes::from_static(&[0xd0]));
    assert!(broker.transcript().iter().any(|entry| entry.event == cut));
}

#[tokio::test]
async fn connects_are_refused_with_any_code() {
    for code in [
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadCredentials,
        ReasonCode::NotAuthorized,
    ] {
        let broker = mock([Rule::from_client(
            Kind::Connect,
            When::Nth(1),
            Fault::Refuse(code),
        )])
        .await;
        let (mut refused, connack) = Client::join(broker.local_addr(), clean("c")).await;
        assert_eq!(connack.code, code);
        assert_eq!(refused.next().await, None);
        Client::clean(broker.local_addr(), "c").await;
    }
}

#[tokio::test]
async fn sessions_are_forgotten() {
    let rule = Rule::from_client(Kind::Connect, When::Nth(2), Fault::ForgetSessions);
    let broker = mock([rule]).await;
    for present in [false, false, true] {
        let (client, connack) = Client::join(broker.local_addr(), durable("c")).await;
        assert_eq!(connack.session_present, present);
        drop(client);
        eventually("it is offline", || broker.stats().clients == 0).await;
    }
    let (mut client, _) = Client::join(broker.local_addr(), durable("c")).await;
    broker.forget_sessions();
    assert_eq!(client.next().await, None);
    assert_eq!(broker.stats().sessions, 0);
}

#[tokio::test]
async fn malformed_bytes_are_sent() {
    let bytes = Bytes::from_static(&[0xff, 0x00]);
    let fault = Fault::Malformed(bytes.clone());
    let broker = mock([Rule::to_client(Kind::PingResp, When::Always, fault)]).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.send(&Packet::PingReq).await;
    let mut got = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut got)
        .await
        .unwrap();
    assert_eq!(got, [0xff, 0x00, 0xd0, 0x00]);
    broker.clear();
    assert!(broker.send_raw("c", bytes));
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut got[..2])
        .await
        .unwrap();
    assert_eq!(got[..2], [0xff, 0x00]);
    assert!(!broker.send_raw("nobody", Bytes::new()));
}

#[tokio::test]
async fn writes_are_split_and_reads_stall() {
    let stall = Duration::from_millis(150);
    let broker = mock([
        Rule::to_client(Kind::ConnAck, When::Always, Fault::SplitWrites(1)),
        Rule::from_client(Kind::Subscribe, When::Always, Fault::StallReads(stall)),
    ])
    .await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let start = Instant::now();
    client
        .send(&publish("t", vec![7; 3_000], QoS::AtMostOnce, 0))
        .await;
    assert_eq!(client.publish().await.payload, vec![7; 3_000]);
    assert!(start.elapsed() >= stall / 2, "nothing was read for a while");
}

#[tokio::test]
async fn rules_can_be_for_one_client_and_added_later() {
    let broker = mock([]).await;
    let rule = Rule::any(Direction::FromClient, When::Always, Fault::DropBefore);
    broker.add(rule.scope(Scope::Client("bad".into())));
    let mut good = Client::clean(broker.local_addr(), "good").await;
    good.ping().await;
    let mut bad = Client::open(broker.local_addr()).await;
    bad.send(&Packet::Connect(Box::new(clean("bad")))).await;
    assert_eq!(bad.next().await, None);
    broker.clear();
    Client::clean(broker.local_addr(), "bad").await;
    broker.disconnect_all();
    assert_eq!(good.next().await, None);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_faults() {
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let script = Script {
            seed,
            ..Script::of([Rule::to_client(
                Kind::PubAck,
                When::Chance(0.5),
                Fault::Lose,
            )])
        };
        let broker = MockBroker::start(script).await.unwrap();
        let mut client = Client::clean(broker.local_addr(), "c").await;
        runs.push(acknowledged(&mut client, 64).await);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn the_transcript_has_every_packet_in_order() {
    let broker = mock([]).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    client.send(&publish("t", "x", QoS::AtLeastOnce, 3)).await;
    client.ping().await;
    client
        .send(&Packet::Disconnect(Disconnect::default()))
        .await;
    while client.next().await.is_some() {}
    let transcript = broker.shutdown().await;
    let received: Vec<Kind> = transcript
        .iter()
        .filter_map(|entry| Some(entry.received()?.kind()))
        .collect();
    let sent: Vec<Kind> = transcript
        .iter()
        .filter_map(|entry| Some(entry.sent()?.kind()))
        .collect();
    assert_eq!(
        received,
        [
            Kind::Connect,
            Kind::Subscribe,
            Kind::Publish,
            Kind::PingReq,
            Kind::Disconnect
        ]
    );
    assert_eq!(
        sent,
        [
            Kind::ConnAck,
            Kind::SubAck,
            Kind::Publish,
            Kind::PubAck,
            Kind::PingResp
        ]
    );
    assert_eq!(transcript[0].event, Event::Accepted);
    let end = Event::Closed(broker_mock::CloseReason::Disconnected);
    assert_eq!(transcript.last().map(|entry| &entry.event), Some(&end));
}

#[tokio::test]
async fn malformed_bytes_of_a_client_are_noted() {
    let broker = mock([]).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.send_raw(b"\x82\x02\x00\x01").await;
    assert_eq!(client.next().await, None);
    let noted = broker
        .transcript()
        .into_iter()
        .any(|entry| matches!(entry.event, Event::Malformed(what) if what.contains("empty list")));
    assert!(noted);
}
