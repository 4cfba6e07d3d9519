//! More requests at once than the upstream takes connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use qproxy::record::Outcome;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use super::Proxy;
use super::origin::{Origin, Peer, eventually, pool};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An origin that accepts a connection only while fewer than `most` are open, as servers with a pool of
/// threads do; those beyond stay in the system's queue, where they look connected.
async fn takes(most: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let (count, slots) = (Arc::clone(&served), Arc::new(Semaphore::new(most)));
    tokio::spawn(async move {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let _slot = slot;
                let mut peer = Peer::over(socket);
                while peer.head().await.is_some() {
                    count.fetch_add(1, SeqCst);
                    peer.send(OK).await;
                }
            });
        }
    });
    (url, served)
}

#[tokio::test]
async fn a_burst_is_served_by_the_few_connections_that_the_upstream_takes() {
    let (url, served) = takes(3).await;
    let proxy = Proxy::with(pool(&[&url]), |config| {
        config.max_upstream_connections = Some(3);
    });
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(proxy.client().await);
    }
    let asked = clients.iter_mut().map(|client| async move {
        for _ in 0..3 {
            assert_eq!(client.ask(GET).await.0.status(), 200);
        }
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(served.load(SeqCst), 600);
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_a_connection_gets_503() {
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    let origin = Origin::start(move |_, socket| {
        let told = Arc::clone(&told);
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                .await;
            told.notify_one();
            peer.rest().await;
        }
    })
    .await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.max_upstream_connections = Some(1);
        config.response_timeout = Duration::from_millis(300);
    });
    let mut first = proxy.client().await;
    first.send(GET).await;
    asked.notified().await;
    let (head, content) = proxy.client().await.ask(GET).await;
    assert_eq!(head.status(), 503);
    let json: serde_json::Value = serde_json::from_slice(&content.content).unwrap();
    assert_eq!(json["error"], "proxy_failed");
    assert!(
        json["detail"].as_str().unwrap().contains("became free"),
        "{json}"
    );
    assert_eq!(origin.connected(), 1);
    let exchange = proxy.kept.exchange().await;
    assert!(
        matches!(exchange.outcome, Outcome::ProxyClosed(_)),
        "{:?}",
        exchange.outcome
    );
    // Whoever holds the connection leaves, and the next one is served.
    drop(first);
    eventually("the first one's record", || {
        (proxy.kept.exchanges().len() == 2).then_some(())
    })
    .await;
    let mut next = proxy.client().await;
    next.send(GET).await;
    assert_eq!(next.head().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_tunnel_counts_until_it_ends() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let head = peer.head().await.unwrap();
        if head.value("upgrade").is_some() {
            peer.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            )
            .await;
        } else {
            peer.send(OK).await;
        }
        peer.rest().await;
    })
    .await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.max_upstream_connections = Some(1);
        config.response_timeout = Duration::from_millis(300);
    });
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    // The idle connection that this one leaves behind makes room for the tunnel.
    assert_eq!(proxy.client().await.ask(GET).await.0.status(), 200);
    let mut tunnel = proxy.client().await;
    assert_eq!(tunnel.ask(upgrade).await.0.status(), 101);
    assert_eq!(proxy.client().await.ask(GET).await.0.status(), 503);
    drop(tunnel);
    let mut client = proxy.client().await;
    let mut status = 503;
    while status == 503 {
        status = client.ask(GET).await.0.status();
    }
    assert_eq!(status, 200);
    assert_eq!(origin.connected(), 3);
}

#[tokio::test]
async fn an_upstream_without_room_is_passed_over_for_one_that_has_some() {
    let stuck =
        Origin::start(|_, socket| async move { drop(Peer::over(socket).rest().await) }).await;
    let (good, _) = takes(1).await;
    let proxy = Proxy::with(
        pool(&[&format!("http://{}", stuck.address), &good]),
        |config| {
            config.max_upstream_connections = Some(1);
        },
    );
    // Whichever is first in turn, one of these two is stuck.
    let (mut first, mut second) = (proxy.client().await, proxy.client().await);
    first.send(GET).await;
    second.send(GET).await;
    eventually("one connection is stuck", || {
        (stuck.connected() == 1).then_some(())
    })
    .await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.ask(GET).await.0.status(), 200);
    }
    assert_eq!(stuck.connected(), 1);
}
