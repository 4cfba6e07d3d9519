//! Packets that come fast share a read, and none of them is left lying.

use std::time::{Duration, Instant};

use qproxy::mqtt_client::client::{Messages, MqttConfig};

use super::connected;
use crate::support::mqtt_peer::{Peer, PeerConnection};
use crate::support::soon;

const MESSAGES: u32 = 5000;

/// One message each 100 us, each in a packet of its own; what the clock has left behind comes at once.
async fn stream(connection: &mut PeerConnection) {
    let started = Instant::now();
    for number in 0..MESSAGES {
        while started.elapsed() < Duration::from_micros(100) * number {
            std::hint::spin_loop();
        }
        connection.message("stream", number.to_string(), 0).await;
    }
}

async fn all_of_the_stream(messages: &mut Messages) {
    for number in 0..MESSAGES {
        let message = soon("the next of the stream", messages.recv()).await;
        assert_eq!(message.unwrap().payload, number.to_string());
    }
}

/// How many reads the stream takes. What comes alone afterwards comes at once.
async fn reads(coalescing: Duration, peer: &Peer) -> u64 {
    let config = MqttConfig {
        coalescing,
        ..peer.config()
    };
    let (client, mut connection) = connected(peer, config).await;
    let mut messages = client.messages();
    let sending = tokio::spawn(async move {
        stream(&mut connection).await;
        connection
    });
    all_of_the_stream(&mut messages).await;
    let reads = client.stats().reads;
    let mut connection = sending.await.unwrap();
    for alone in 0..3 {
        connection.message("alone", "", 0).await;
        let message = soon("a message that comes alone", messages.recv()).await;
        assert_eq!(message.unwrap().topic, "alone", "{alone}");
    }
    reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_fast_stream_shares_reads_and_its_last_message_comes_by_itself() {
    let peer = Peer::bind().await;
    let mut all = Vec::new();
    // On a busy machine a stream is torn into pieces, which are short for that.
    while all.len() < 20 {
        all.push(reads(MqttConfig::default().coalescing, &peer).await);
        if all.iter().any(|&reads| reads < u64::from(MESSAGES / 2)) {
            return;
        }
    }
    panic!("{MESSAGES} messages took so many reads: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_stream_comes_whole_also_where_nothing_is_to_wait() {
    let peer = Peer::bind().await;
    reads(Duration::ZERO, &peer).await;
}
