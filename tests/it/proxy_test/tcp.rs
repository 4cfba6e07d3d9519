//! The TCP proxy: byte for byte, close for close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qproxy::capture::Capture;
use qproxy::metrics::Registry;
use qproxy::proxy::{Metrics, Running, tcp};
use qproxy::record::{Direction, Outcome, UpstreamFailure};
use qproxy::service_discovery::{self, Balance, Pool};
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

/// A proxy that makes no copy, and so lets the kernel carry the bytes.
fn bare(pool: Arc<Pool>) -> (Running, Metrics) {
    let metrics = Metrics::default();
    let config = tcp::Config::new(local(), "db");
    let bound = tcp::bind(config, pool, Capture::disabled(), metrics.clone());
    (bound.unwrap().serve(), metrics)
}

/// What the metrics page says of a counter.
fn counted(metrics: &Metrics, name: &str) -> u64 {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let page = registry.text();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(&format!("qproxy_{name}_total ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_copy_the_kernel_carries_every_byte_and_both_closes() {
    let origin = Origin::start(|_, mut socket| async move {
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.write_all(b" bye").await;
        let _ = write.shutdown().await;
    })
    .await;
    let (running, metrics) = bare(origin.pool());
    let client = Peer::connect(running.local_addr()).await;
    let sent: Vec<u8> = (0..8_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let expected = [sent.as_slice(), b" bye"].concat();
    let (read, mut write) = client.socket.into_split();
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
    assert_eq!(counted(&metrics, "proxy_spliced_streams"), 1);
    assert_eq!(counted(&metrics, "proxy_bytes_in"), 8_000_000);
    assert_eq!(counted(&metrics, "proxy_bytes_out"), 8_000_004);
}

#[tokio::test]
async fn a_spliced_connection_is_silent_no_longer_than_it_may() {
    let origin = Origin::start(|_, socket| async move {
        Peer::over(socket).rest().await;
    })
    .await;
    let config = tcp::Config {
        idle_timeout: Duration::from_millis(200),
        ..tcp::Config::new(local(), "db")
    };
    let bound = tcp::bind(
        config,
        origin.pool(),
        Capture::disabled(),
        Metrics::default(),
    );
    let running = bound.unwrap().serve();
    let mut client = Peer::connect(running.local_addr()).await;
    client.send("hello").await;
    assert_eq!(client.rest().await, b"");
}

/// Reads a little, says why it has had enough, and closes with the rest unread, which resets the connection.
async fn has_enough() -> Origin {
    Origin::start(|_, mut socket| async move {
        let mut some = [0; 16];
        let _ = tokio::io::AsyncReadExt::read_exact(&mut socket, &mut some).await;
        let _ = socket.write_all(b"ERR too much").await;
    })
    .await
}

#[tokio::test]
async fn the_last_words_of_a_server_that_breaks_off_reach_the_client() {
    let origin = has_enough().await;
    let recorded = start(origin.pool(), |_| {});
    let (unrecorded, _) = bare(origin.pool());
    for address in [recorded.running.local_addr(), unrecorded.local_addr()] {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let flood =
            tokio::spawn(async move { while write.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let mut answer = Vec::new();
        // The connection may end by a reset, but after the words.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer).await;
        assert_eq!(answer, b"ERR too much");
        flood.abort();
    }
}

#[tokio::test]
async fn the_least_busy_downstream_is_next() {
    let named = |name: &'static str| {
        Origin::start(move |_, socket| async move {
            let mut peer = Peer::over(socket);
            peer.send(name).await;
            peer.rest().await;
        })
    };
    let (first, second) = (named("1").await, named("2").await);
    let endpoints = [first.address, second.address].map(|it| it.to_string().parse().unwrap());
    let config = service_discovery::Config {
        balance: Balance::LeastConnections,
        ..service_discovery::Config::default()
    };
    let metrics = service_discovery::Metrics::default();
    let pool = Pool::new(endpoints.to_vec(), &config, metrics, Instant::now()).unwrap();
    let proxy = start(Arc::new(pool), |_| {});
    let connect = async || {
        let mut peer = proxy.client().await;
        let mut name = [0];
        tokio::io::AsyncReadExt::read_exact(&mut peer.socket, &mut name)
            .await
            .unwrap();
        (name[0], peer)
    };
    let (one, kept) = connect().await;
    // While that one is there the other server is always the less busy.
    for ended in 1..=3 {
        let (other, peer) = connect().await;
        assert_ne!(other, one);
        drop(peer);
        let all = || (proxy.kept.streams().len() == ended).then_some(());
        origin::eventually("its end is recorded", all).await;
    }
    drop(kept);
}
