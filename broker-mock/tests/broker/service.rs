//! The plain broker as clients see it: start, delivery, refusal, stop.

use std::net::SocketAddr;
use std::time::Duration;

use broker_mock::{Broker, Config, Error, Limits, RunningBroker};
use bytes::Bytes;
use qproxy_mqtt::codec::{Packet, QoS, ReasonCode, Will};
use tokio::time::{Instant, timeout};

use crate::client::{Client, PATIENCE, ack, bytes_of, clean, durable, publish, subscribe};

pub fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub async fn start(limits: Limits) -> RunningBroker {
    let config = Config {
        limits,
        ..Config::new(local())
    };
    Broker::bind(config).await.unwrap()
}

#[tokio::test]
async fn every_qos_goes_through() {
    let broker = start(Limits::default()).await;
    let mut subscriber = Client::clean(broker.local_addr(), "s").await;
    let mut publisher = Client::clean(broker.local_addr(), "p").await;
    subscriber.subscribe("#", QoS::ExactlyOnce).await;
    for (number, qos) in (1..).zip([QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]) {
        publisher.send(&publish("é/x", "hello", qos, number)).await;
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                assert_eq!(publisher.next().await, Some(Packet::PubAck(ack(number))))
            }
            QoS::ExactlyOnce => {
                assert_eq!(publisher.next().await, Some(Packet::PubRec(ack(number))));
                publisher.send(&Packet::PubRel(ack(number))).await;
                assert_eq!(publisher.next().await, Some(Packet::PubComp(ack(number))));
            }
        }
        let got = subscriber.publish().await;
        assert_eq!(
            (&got.topic[..], &got.payload[..], got.qos),
            ("é/x", &b"hello"[..], qos)
        );
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn bytes_may_come_one_by_one_or_all_at_once() {
    let broker = start(Limits::default()).await;
    let mut bytes = bytes_of(&Packet::Connect(Box::new(clean("c"))));
    bytes.extend_from_slice(&bytes_of(&subscribe("a", QoS::AtLeastOnce)));
    for number in 1..=3 {
        bytes.extend_from_slice(&bytes_of(&publish("a", "x", QoS::AtLeastOnce, number)));
    }
    bytes.extend_from_slice(&bytes_of(&Packet::PingReq));
    let mut at_once = Client::open(broker.local_addr()).await;
    at_once.send_raw(&bytes).await;
    let mut one_by_one = Client::open(broker.local_addr()).await;
    let whole = collect(&mut at_once).await;
    for byte in &bytes {
        one_by_one.send_raw(std::slice::from_ref(byte)).await;
    }
    let pieces = collect(&mut one_by_one).await;
    assert_eq!(whole.len(), 8, "{whole:?}");
    assert_eq!(whole.len(), pieces.len());
}

async fn collect(client: &mut Client) -> Vec<Packet> {
    let mut packets = Vec::new();
    loop {
        match client.next().await.expect("still connected") {
            Packet::PingResp => return packets,
            packet => packets.push(packet),
        }
    }
}

#[tokio::test]
async fn large_payloads_keep_their_bytes() {
    let broker = start(Limits {
        packet_bytes: 20 * 1024 * 1024,
        ..Limits::default()
    })
    .await;
    let payload: Bytes = (0..16 * 1024 * 1024_u32)
        .map(|at| (at % 251) as u8)
        .collect();
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client
        .send(&publish("a", payload.clone(), QoS::AtLeastOnce, 1))
        .await;
    let mut got = None;
    while got.is_none() {
        if let Some(Packet::Publish(publish)) = client.next().await {
            got = Some(publish.payload);
        }
    }
    assert!(got == Some(payload));
}

#[tokio::test]
async fn a_packet_over_the_limit_closes_before_its_bytes_arrive() {
    let broker = start(Limits::default()).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    client.send_raw(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(client.next().await, None);
    assert_eq!(broker.stats().counters.protocol_errors, 1);
}

#[tokio::test]
async fn a_durable_session_survives_its_connection() {
    let broker = start(Limits::default()).await;
    let (mut first, ack) = Client::join(broker.local_addr(), durable("s")).await;
    assert!(!ack.session_present);
    first.subscribe("t", QoS::AtLeastOnce).await;
    drop(first);
    let mut publisher = Client::clean(broker.local_addr(), "p").await;
    publisher
        .send(&publish("t", "1", QoS::AtLeastOnce, 1))
        .await;
    publisher.next().await;
    let (mut second, ack) = Client::join(broker.local_addr(), durable("s")).await;
    assert!(ack.session_present);
    assert_eq!(&second.publish().await.payload[..], b"1");
}

#[tokio::test]
async fn a_lost_connection_publishes_its_will() {
    let broker = start(Limits::default()).await;
    let mut watcher = Client::clean(broker.local_addr(), "w").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let connect = qproxy_mqtt::codec::Connect {
        will: Some(Will {
            topic: "will".into(),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: None,
        }),
        ..clean("c")
    };
    let (client, _) = Client::join(broker.local_addr(), connect).await;
    drop(client);
    assert_eq!(&watcher.publish().await.payload[..], b"gone");
}

#[tokio::test]
async fn a_refusal_arrives_even_with_packets_behind_the_connect() {
    let config = Config {
        token: Some("secret".into()),
        ..Config::new(local())
    };
    let broker = Broker::bind(config).await.unwrap();
    let mut client = Client::open(broker.local_addr()).await;
    let mut bytes = bytes_of(&Packet::Connect(Box::new(clean("c"))));
    for _ in 0..1_000 {
        bytes.extend_from_slice(&bytes_of(&publish("a", vec![0; 100], QoS::AtMostOnce, 0)));
    }
    client.send_raw(&bytes).await;
    match client.next().await {
        Some(Packet::ConnAck(ack)) => assert_eq!(ack.code, ReasonCode::NotAuthorized),
        other => panic!("a CONNACK, not {other:?}"),
    }
}

#[tokio::test]
async fn a_taken_port_and_an_open_door_are_refused() {
    let broker = start(Limits::default()).await;
    let taken = Broker::bind(Config::new(broker.local_addr()))
        .await
        .unwrap_err();
    assert!(matches!(taken, Error::Bind { address, .. } if address == broker.local_addr()));
    let open = Config::new(SocketAddr::from(([0, 0, 0, 0], 0)));
    assert!(matches!(
        Broker::bind(open).await,
        Err(Error::Exposed { .. })
    ));
}

#[tokio::test]
async fn shutdown_writes_what_is_there_and_frees_the_port() {
    let broker = start(Limits::default()).await;
    let address = broker.local_addr();
    let mut client = Client::clean(address, "c").await;
    client.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = Client::clean(address, "p").await;
    for number in 1..=100 {
        publisher
            .send(&publish("a", vec![0; 1_000], QoS::AtLeastOnce, number))
            .await;
    }
    for _ in 0..100 {
        publisher.next().await.unwrap();
    }
    broker.shutdown().await;
    for _ in 0..100 {
        client.publish().await;
    }
    assert_eq!(client.next().await, None);
    Broker::bind(Config::new(address)).await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_who_reads_nothing() {
    let limits = Limits {
        shutdown_grace: Duration::from_millis(200),
        ..Limits::default()
    };
    let broker = start(limits).await;
    let mut stuck = Client::clean(broker.local_addr(), "stuck").await;
    stuck.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = Client::clean(broker.local_addr(), "p").await;
    for _ in 0..200 {
        publisher
            .send(&publish("a", vec![0; 100_000], QoS::AtMostOnce, 0))
            .await;
    }
    publisher.ping().await;
    let start = Instant::now();
    timeout(PATIENCE, broker.shutdown()).await.expect("it ends");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn dropping_the_broker_stops_it() {
    let broker = start(Limits::default()).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    drop(broker);
    assert_eq!(client.next().await, None);
}
