//! What no client may achieve: a broker that hangs, grows, or stops to serve the others.

use std::time::Duration;

use broker_mock::{Limits, RunningBroker};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use qproxy_mqtt::codec::{Disconnect, Packet, QoS};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::client::{Client, ack, bytes_of, clean, durable, eventually, publish, subscribe};
use crate::service::start;

/// A message still goes from one client to another, and nobody else is left.
async fn still_serves(broker: &RunningBroker) {
    let mut client = Client::clean(broker.local_addr(), "healthy").await;
    client.subscribe("healthy/#", QoS::AtLeastOnce).await;
    client
        .send(&publish("healthy/é", "1", QoS::AtLeastOnce, 1))
        .await;
    assert_eq!(
        client.ping().await.len(),
        2,
        "the message and its acknowledgement"
    );
    eventually("the others are gone", || broker.stats().connections == 1).await;
}

fn packets() -> impl Strategy<Value = Packet> {
    let text = "[a-cé+#/$]{0,6}";
    prop_oneof![
        (0..3_u8)
            .prop_map(|name| Packet::Connect(Box::new(clean(["a", "b", ""][usize::from(name)])))),
        any::<bool>().prop_map(|_| Packet::Connect(Box::new(durable("a")))),
        ("[a-cé/]{1,6}", 0..300_usize, 1..9_u16).prop_map(|(topic, size, number)| publish(
            &topic,
            vec![b'x'; size],
            QoS::AtLeastOnce,
            number
        )),
        ("[a-cé/]{1,6}", 0..300_usize, 1..9_u16).prop_map(|(topic, size, number)| publish(
            &topic,
            vec![b'x'; size],
            QoS::ExactlyOnce,
            number
        )),
        text.prop_filter_map("a filter", |filter| {
            qproxy_mqtt::topic::validate_filter(&filter).ok()?;
            Some(subscribe(&filter, QoS::ExactlyOnce))
        }),
        (1..9_u16).prop_map(|number| Packet::PubAck(ack(number))),
        (1..9_u16).prop_map(|number| Packet::PubRec(ack(number))),
        (1..9_u16).prop_map(|number| Packet::PubRel(ack(number))),
        Just(Packet::PingReq),
        Just(Packet::Disconnect(Disconnect::default())),
    ]
}

/// Mostly sound packets after a CONNECT, with some bytes changed and the end cut off.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        any::<bool>(),
        vec(packets(), 0..12),
        changes,
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(connects, packets, changes, noise)| {
            let mut bytes = BytesMut::new();
            if connects {
                bytes.extend_from_slice(&bytes_of(&Packet::Connect(Box::new(clean("a")))));
            }
            for packet in &packets {
                bytes.extend_from_slice(&bytes_of(packet));
            }
            bytes.extend_from_slice(&noise);
            let mut bytes = bytes.to_vec();
            for (index, value) in changes {
                if !bytes.is_empty() {
                    let at = index.index(bytes.len());
                    bytes[at] = value;
                }
            }
            bytes
        })
}

#[tokio::test]
async fn no_bytes_wedge_it() {
    let broker = start(Limits::default()).await;
    let mut watcher = Client::clean(broker.local_addr(), "watcher").await;
    watcher.subscribe("#", QoS::AtMostOnce).await;
    let mut runner = TestRunner::new(Config::default());
    for _ in 0..600 {
        let bytes = streams().new_tree(&mut runner).unwrap().current();
        let mut client = Client::open(broker.local_addr()).await;
        // The broker may close half-way through: that is its right.
        let _ = client.stream.write_all(&bytes).await;
        let _ = client.stream.shutdown().await;
    }
    watcher.ping().await;
    drop(watcher);
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_wildcard_subscriber_gets_multi_byte_topics() {
    let broker = start(Limits::default()).await;
    let mut client = Client::clean(broker.local_addr(), "c").await;
    for filter in ["#", "+/x", "é/#", "+/+"] {
        client.subscribe(filter, QoS::AtMostOnce).await;
    }
    client.send(&publish("é/x", "1", QoS::AtMostOnce, 0)).await;
    assert_eq!(
        client.ping().await.len(),
        1,
        "overlapping filters give one copy"
    );
    drop(client);
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_a_bounded_queue_and_delays_nobody() {
    let limits = Limits {
        packet_bytes: 100_000,
        queued_bytes: 2_000_000,
        ..Limits::default()
    };
    let broker = start(limits).await;
    let mut stopped = Client::clean(broker.local_addr(), "stopped").await;
    stopped.subscribe("a", QoS::AtMostOnce).await;
    let mut reader = Client::clean(broker.local_addr(), "reader").await;
    reader.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = Client::clean(broker.local_addr(), "publisher").await;
    for _ in 0..1_000 {
        publisher
            .send(&publish("a", vec![0; 50_000], QoS::AtMostOnce, 0))
            .await;
        reader.publish().await;
    }
    let stats = broker.stats();
    assert!(stats.counters.dropped_queue_full > 0, "{stats:?}");
    assert!(stats.queued_bytes <= 2_000_000, "{stats:?}");
    drop((stopped, reader, publisher));
    still_serves(&broker).await;
}

#[tokio::test]
async fn who_takes_no_answers_is_not_read_from() {
    let broker = start(Limits::default()).await;
    let mut greedy = Client::clean(broker.local_addr(), "greedy").await;
    let pings: Vec<u8> = [0xc0, 0].repeat(512 * 1024);
    let flood = async {
        for _ in 0..64 {
            greedy.stream.write_all(&pings).await.unwrap();
        }
    };
    timeout(Duration::from_secs(2), flood)
        .await
        .expect_err("64 MiB of questions are not taken in while no answer is read");
    let mut other = Client::clean(broker.local_addr(), "other").await;
    other.ping().await;
    drop((greedy, other));
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_closed() {
    let limits = Limits {
        write_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let broker = start(limits).await;
    let mut stuck = Client::clean(broker.local_addr(), "stuck").await;
    stuck.subscribe("a", QoS::AtMostOnce).await;
    let mut publisher = Client::clean(broker.local_addr(), "publisher").await;
    for _ in 0..300 {
        publisher
            .send(&publish("a", vec![0; 100_000], QoS::AtMostOnce, 0))
            .await;
    }
    eventually("the stuck one is closed", || {
        broker.stats().counters.write_timeouts == 1
    })
    .await;
    publisher.ping().await;
}

#[tokio::test]
async fn half_open_sockets_are_closed() {
    let limits = Limits {
        connect_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let broker = start(limits).await;
    let mut silent = Client::open(broker.local_addr()).await;
    let mut half = Client::open(broker.local_addr()).await;
    half.send_raw(&bytes_of(&Packet::Connect(Box::new(clean("half"))))[..7])
        .await;
    assert_eq!(silent.next().await, None);
    assert_eq!(half.next().await, None);
    assert_eq!(broker.stats().counters.connect_timeouts, 2);
    still_serves(&broker).await;
}

#[tokio::test]
async fn connections_come_and_go_by_the_thousand() {
    let broker = start(Limits::default()).await;
    for round in 0..30 {
        let mut clients = Vec::new();
        for number in 0..100 {
            let mut client = Client::open(broker.local_addr()).await;
            match number % 4 {
                0 => {}
                1 => client.send_raw(b"\x10\x00garbage").await,
                2 => client.send(&Packet::Connect(Box::new(clean("same")))).await,
                _ => {
                    let name = format!("{round}-{number}");
                    client.send(&Packet::Connect(Box::new(clean(&name)))).await;
                }
            }
            clients.push(client);
        }
    }
    still_serves(&broker).await;
    assert!(broker.stats().counters.connections_accepted > 2_000);
    assert_eq!(broker.stats().sessions, 1);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let broker = start(limits).await;
    let first = Client::clean(broker.local_addr(), "a").await;
    let second = Client::clean(broker.local_addr(), "b").await;
    let mut third = Client::open(broker.local_addr()).await;
    assert_eq!(third.next().await, None);
    drop((first, second));
    eventually("there is room", || broker.stats().connections == 0).await;
    still_serves(&broker).await;
}

#[tokio::test]
async fn a_second_connect_and_a_packet_before_it_close() {
    let broker = start(Limits::default()).await;
    let mut twice = Client::clean(broker.local_addr(), "twice").await;
    twice.send(&Packet::Connect(Box::new(clean("twice")))).await;
    assert_eq!(twice.next().await, None);
    let mut early = Client::open(broker.local_addr()).await;
    early.send(&publish("a", "", QoS::AtMostOnce, 0)).await;
    assert_eq!(early.next().await, None);
    assert_eq!(broker.stats().counters.protocol_errors, 2);
    still_serves(&broker).await;
}
