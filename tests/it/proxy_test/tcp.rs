//! The TCP proxy: byte for byte, close for close.

use std::sync::Arc;
use std::time::Duration;

use qproxy::proxy::{Metrics, Running, tcp};
use qproxy::record::{Direction, Outcome, UpstreamFailure};
use qproxy::service_discovery::Pool;
use tokio::io::AsyncWriteExt;

use super::local;
use super::origin::{self, Kept, Origin, PATIENCE, Peer, pool, refused};

struct Proxy {
    running: Running,
    kept: Kept,
}

fn start(pool: Arc<Pool>, change: impl FnOnce(&mut tcp::Config)) -> Proxy {
    let (capture, kept) = origin::capture();
    let mut config = tcp::Config::new(local(), "db");
    change(&mut config);
    let bound = tcp::bind(config, pool, capture, Metrics::default()).unwrap();
    Proxy {
        running: bound.serve(),
        kept,
    }
}

impl Proxy {
    async fn client(&self) -> Peer {
        Peer::connect(self.running.local_addr()).await
    }
}

/// Reads to the end, then answers with what it read and a farewell: needs the half-close.
async fn answers_at_the_end() -> Origin {
    Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let mut said = peer.rest().await;
        said.extend_from_slice(b" bye");
        peer.send_bytes(&said).await;
    })
    .await
}

#[tokio::test]
async fn half_closes_pass_and_the_record_keeps_the_order() {
    let origin = answers_at_the_end().await;
    let proxy = start(origin.pool(), |_| {});
    let mut client = proxy.client().await;
    client.send("hello").await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"hello bye");
    let stream = proxy.kept.stream().await;
    assert_eq!((stream.client_bytes, stream.server_bytes), (5, 9));
    assert_eq!((&stream.outcome, stream.truncated), (&Outcome::Ok, false));
    assert_eq!(
        stream.upstream.as_deref(),
        Some(&*origin.address.to_string())
    );
    let segments: Vec<_> = proxy
        .kept
        .segments()
        .into_iter()
        .map(|segment| (segment.direction, segment.bytes))
        .collect();
    let expected = [
        (Direction::Client, "hello"),
        (Direction::Client, ""),
        (Direction::Server, "hello bye"),
        (Direction::Server, ""),
    ];
    assert_eq!(
        segments,
        expected.map(|(direction, text)| (direction, text.into()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bytes_pass_both_ways_at_once_unchanged() {
    let origin = Origin::start(|_, mut socket| async move {
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await;
    let proxy = start(origin.pool(), |_| {});
    let client = proxy.client().await;
    let sent: Vec<u8> = (0..8_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (read, mut write) = client.socket.into_split();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let mut read = tokio::io::BufReader::new(read);
    let mut back = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut read, &mut back)
        .await
        .unwrap();
    assert!(back == expected);
    let _write = writer.await.unwrap();
    let stream = proxy.kept.stream().await;
    assert_eq!(
        (stream.client_bytes, stream.server_bytes),
        (8_000_000, 8_000_000)
    );
    if !stream.truncated {
        let recorded = proxy.kept.segments().into_iter();
        let client: Vec<u8> = recorded
            .filter(|segment| segment.direction == Direction::Client)
            .flat_map(|segment| segment.bytes)
            .collect();
        assert!(client == expected);
    }
}

#[tokio::test]
async fn the_next_downstream_takes_over_at_connect() {
    let good = answers_at_the_end().await;
    let pool = pool(&[&refused().await.to_string(), &good.address.to_string()]);
    let proxy = start(pool, |_| {});
    for _ in 0..4 {
        let mut client = proxy.client().await;
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b" bye");
    }
}

#[tokio::test]
async fn without_a_downstream_the_client_is_closed_and_the_record_says_why() {
    let proxy = start(pool(&[&refused().await.to_string()]), |_| {});
    let mut client = proxy.client().await;
    assert!(client.rest().await.is_empty());
    let stream = proxy.kept.stream().await;
    let Outcome::UpstreamFailed(failure, detail) = stream.outcome else {
        panic!()
    };
    assert_eq!(failure, UpstreamFailure::Connect);
    assert!(detail.contains("refused"), "{detail}");
    assert_eq!(stream.upstream, None);
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_the_idle_time() {
    let origin = answers_at_the_end().await;
    let proxy = start(origin.pool(), |config| {
        config.idle_timeout = Duration::from_millis(80)
    });
    let mut client = proxy.client().await;
    client.send("x").await;
    assert!(client.rest().await.is_empty());
    let Outcome::ProxyClosed(why) = proxy.kept.stream().await.outcome else {
        panic!()
    };
    assert!(why.contains("silent"), "{why}");
}

#[tokio::test]
async fn shutdown_closes_streams_after_the_grace_period_and_records_them() {
    let origin = answers_at_the_end().await;
    let proxy = start(origin.pool(), |_| {});
    let mut client = proxy.client().await;
    client.send("x").await;
    origin::eventually("the byte has passed", || proxy.kept.segments().pop()).await;
    let drained = proxy.running.shutdown(Duration::from_millis(20)).await;
    assert_eq!(drained.aborted, 1);
    let stream = proxy.kept.stream().await;
    assert_eq!(stream.outcome.as_str(), "proxy_closed");
    assert_eq!(stream.client_bytes, 1);
    let end = tokio::time::timeout(PATIENCE, client.rest()).await.unwrap();
    assert!(end.is_empty());
}
