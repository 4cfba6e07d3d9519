//! How many messages pass; printed, not asserted, for the machine decides it.

use std::time::Instant;

use broker_mock::Limits;
use bytes::BytesMut;
use qproxy_mqtt::codec::{self, Ack, Packet, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, PATIENCE, publish};
use crate::service::start;

const MESSAGES: usize = 40_000;
const WINDOW: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prints_messages_per_second() {
    for (qos, size) in [
        (QoS::AtMostOnce, 64),
        (QoS::AtLeastOnce, 64),
        (QoS::AtLeastOnce, 1024),
        (QoS::AtLeastOnce, 16 * 1024),
    ] {
        // The publisher does not wait for the subscriber: room for all of it.
        let limits = Limits {
            queued_messages: MESSAGES,
            queued_bytes: 256 * 1024 * 1024,
            total_queued_bytes: 256 * 1024 * 1024,
            ..Limits::default()
        };
        let broker = start(limits).await;
        let mut subscriber = Client::clean(broker.local_addr(), "s").await;
        subscriber.subscribe("bench/#", qos).await;
        let publisher = Client::clean(broker.local_addr(), "p").await;
        let count = if size > 4096 { MESSAGES / 8 } else { MESSAGES };
        let begin = Instant::now();
        let sending = tokio::spawn(send(publisher.stream, qos, size, count));
        let received = timeout(PATIENCE, receive(subscriber.stream, count))
            .await
            .expect("nothing is lost within the limits");
        sending.await.unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        assert_eq!(broker.stats().counters.dropped(), 0);
        println!(
            "THROUGHPUT QoS {} {size} B: {:.0} messages/s",
            qos.as_u8(),
            received as f64 / seconds
        );
        broker.shutdown().await;
    }
}

/// Keeps at most `WINDOW` unacknowledged; QoS 0 is paced by a ping after each window.
async fn send(mut stream: TcpStream, qos: QoS, size: usize, count: usize) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut sent = 0;
    while sent < count {
        let batch = WINDOW.min(count - sent);
        for number in 1..=batch {
            let number = u16::try_from(number).unwrap();
            let packet = publish("bench/topic", vec![b'x'; size], qos, number);
            codec::encode(&packet, codec::Version::V311, &mut output).unwrap();
        }
        codec::encode(&Packet::PingReq, codec::Version::V311, &mut output).unwrap();
        stream.write_all_buf(&mut output).await.unwrap();
        sent += batch;
        loop {
            match codec::decode(&mut input, usize::MAX, codec::Version::V311).unwrap() {
                Some(Packet::PingResp) => break,
                Some(_) => {}
                None => assert!(stream.read_buf(&mut input).await.unwrap() > 0),
            }
        }
    }
}

async fn receive(mut stream: TcpStream, count: usize) -> usize {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut received = 0;
    while received < count {
        assert!(stream.read_buf(&mut input).await.unwrap() > 0);
        while let Some(packet) =
            codec::decode(&mut input, usize::MAX, codec::Version::V311).unwrap()
        {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            received += 1;
            if let Some(id) = publish.id {
                codec::encode(
                    &Packet::PubAck(Ack::from(id)),
                    codec::Version::V311,
                    &mut output,
                )
                .unwrap();
            }
        }
        stream.write_all_buf(&mut output).await.unwrap();
    }
    received
}
