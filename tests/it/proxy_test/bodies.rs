//! Large and slow content: it passes at once and whole, whatever becomes of the copy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use qproxy::capture::{self, Capture, Encoded, Outlet, OutletError};
use qproxy::proxy::{Metrics, http};
use qproxy::record::{Digest, Digester, Epoch, Item, Outcome, Record, wire};
use tokio::io::AsyncReadExt;

use super::origin::{self, Origin, Peer, eventually};
use super::{Proxy, local};

const MEGABYTE: usize = 1 << 20;

/// Sends so many megabytes, each of them filled with its number.
async fn large(megabytes: usize) -> Origin {
    Origin::start(move |_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        let length = megabytes * MEGABYTE;
        peer.send(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
        for number in 0..megabytes {
            peer.send_bytes(&vec![number as u8; MEGABYTE]).await;
        }
    })
    .await
}

/// Reads a response of any size without keeping it: its length and digest.
async fn drink(client: &mut Peer) -> (u64, Digest) {
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let (mut buffer, mut head, mut bytes) = (vec![0; MEGABYTE], Vec::new(), 0);
    let (mut digester, mut in_body) = (Digester::default(), false);
    loop {
        let read = client.socket.read(&mut buffer).await.unwrap();
        if read == 0 {
            return (bytes, digester.finish());
        }
        let mut part = &buffer[..read];
        if !in_body {
            head.extend_from_slice(part);
            let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            in_body = true;
            part = &part[part.len() - (head.len() - at - 4)..];
        }
        digester.update(part);
        bytes += part.len() as u64;
    }
}

/// Looks at what comes and keeps nothing but the last record.
#[derive(Clone, Default)]
struct Sieve {
    chunk_bytes: Arc<AtomicU64>,
    record: Arc<Mutex<Option<Item>>>,
}

impl Outlet for Sieve {
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError> {
        for encoded in batch {
            match wire::decode(&encoded.payload).unwrap() {
                Item::Chunk(chunk) => {
                    self.chunk_bytes
                        .fetch_add(chunk.bytes.len() as u64, Ordering::SeqCst);
                }
                item @ Item::Record(_) => *self.record.lock().unwrap() = Some(item),
                _ => {}
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams_through_with_flat_memory() {
    let origin = large(200).await;
    let sieve = Sieve::default();
    let mut config = origin::capture_config();
    config.queue_bytes = 8 * MEGABYTE;
    let metrics = capture::Metrics::default();
    let capture = Capture::start(config, metrics, Box::new(sieve.clone())).unwrap();
    let bound = http::bind(
        http::Config::new(local(), "shop"),
        origin.pool(),
        capture.clone(),
        Metrics::default(),
    );
    let running = bound.unwrap().serve();
    let (stop, watched) = (Arc::new(AtomicBool::new(false)), capture.clone());
    let stopped = Arc::clone(&stop);
    let most = tokio::spawn(async move {
        let mut most = 0;
        while !stopped.load(Ordering::SeqCst) {
            most = most.max(watched.stats().waiting_bytes);
            tokio::task::yield_now().await;
        }
        most
    });
    let mut client = Peer::connect(running.local_addr()).await;
    let (bytes, digest) = drink(&mut client).await;
    stop.store(true, Ordering::SeqCst);
    assert_eq!(bytes, 200 * MEGABYTE as u64);
    let record = eventually("the record", || sieve.record.lock().unwrap().clone()).await;
    let Item::Record(Record::Exchange(exchange)) = record else {
        panic!()
    };
    let body = exchange.response.unwrap().body;
    assert_eq!(
        (body.bytes, body.digest, body.truncated),
        (bytes, digest, true)
    );
    let kept = sieve.chunk_bytes.load(Ordering::SeqCst);
    assert!(kept <= 64 * MEGABYTE as u64, "{kept} bytes kept");
    let most = most.await.unwrap();
    assert!(most <= 8 * MEGABYTE as u64 + 65_536, "{most} bytes waited");
}

/// Never takes anything until the gate is dropped.
struct Stuck(Mutex<mpsc::Receiver<()>>);

impl Outlet for Stuck {
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
    fn append(&mut self, _: &[Encoded]) -> Result<(), OutletError> {
        let _ = self.0.lock().unwrap().recv();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_passes_whole_while_capture_is_stuck() {
    let origin = Origin::echo().await;
    let (open, gate) = mpsc::channel();
    let mut config = origin::capture_config();
    config.queue_bytes = 200_000;
    let metrics = capture::Metrics::default();
    let capture = Capture::start(config, metrics, Box::new(Stuck(Mutex::new(gate)))).unwrap();
    let config = http::Config::new(local(), "shop");
    let bound = http::bind(config, origin.pool(), capture.clone(), Metrics::default());
    let running = bound.unwrap().serve();
    let mut client = Peer::connect(running.local_addr()).await;
    let body = "x".repeat(50_000);
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n{body}");
    for _ in 0..100 {
        let (head, content) = client.ask(&post).await;
        assert_eq!(head.status(), 200);
        assert!(content.whole && content.content == body.as_bytes());
    }
    assert!(capture.stats().waiting_bytes <= 210_000);
    drop(open);
    assert!(capture.shutdown(origin::PATIENCE).await);
    let stats = capture.stats();
    assert!(stats.dropped[0] > 0);
    assert_eq!(
        stats.sequence,
        stats.appended + stats.dropped.iter().sum::<u64>()
    );
}

#[tokio::test]
async fn the_first_byte_of_a_slow_stream_is_not_held_back() {
    let (next, wait) = tokio::sync::watch::channel(0_u32);
    let origin = Origin::start(move |_, socket| {
        let mut wait = wait.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for number in 1..=3 {
                peer.send(&format!("8\r\ndata: {number}\n\r\n")).await;
                let _ = wait.wait_for(|seen| *seen >= number).await;
            }
            peer.send("0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    for number in 1..=3 {
        // The origin sends the next event only after the client has this one.
        while !seen.contains(&format!("data: {number}")) {
            let read = tokio::time::timeout(origin::PATIENCE, client.socket.read(&mut buffer));
            let read = read.await.expect("the event passes at once").unwrap();
            seen += std::str::from_utf8(&buffer[..read]).unwrap();
        }
        next.send_replace(number);
    }
    let exchange = proxy.kept.exchange().await;
    assert_eq!(
        exchange.response.unwrap().body.inline,
        "data: 1\ndata: 2\ndata: 3\n"
    );
}

/// Sends as many events as it is told to, each when it is told to.
async fn events(told: tokio::sync::watch::Receiver<u32>, count: u32) -> Origin {
    Origin::start(move |_, socket| {
        let mut told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for number in 1..=count {
                let _ = told.wait_for(|told| *told >= number).await;
                peer.send(&format!("9\r\ndata: {number}\n\n\r\n")).await;
            }
            peer.send("0\r\n\r\n").await;
        }
    })
    .await
}

/// Reads until the content has so many events.
async fn until_event(client: &mut Peer, seen: &mut String, number: u32) {
    let mut buffer = [0; 1024];
    while !seen.contains(&format!("data: {number}\n")) {
        let read = tokio::time::timeout(origin::PATIENCE, client.socket.read(&mut buffer));
        let read = read.await.expect("the event passes at once").unwrap();
        assert!(read > 0, "the stream ended after {seen:?}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
}

#[tokio::test]
async fn the_record_of_an_event_stream_tells_when_each_event_came() {
    let (tell, told) = tokio::sync::watch::channel(0);
    let proxy = Proxy::start(events(told, 4).await.pool());
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut seen, step) = (String::new(), std::time::Duration::from_millis(5));
    for number in 1..=4 {
        // Time is what is recorded here.
        tokio::time::sleep(step).await;
        tell.send_replace(number);
        until_event(&mut client, &mut seen, number).await;
    }
    let exchange = proxy.kept.exchange().await;
    let pace = exchange.flow.pace;
    let bytes: Vec<_> = pace.iter().map(|beat| beat.bytes).collect();
    assert_eq!(bytes, [9, 9, 9, 9]);
    assert!(pace[0].at_us >= exchange.timing.first_byte_us.unwrap());
    assert!(
        pace.windows(2)
            .all(|two| two[1].at_us >= two[0].at_us + 1000),
        "{pace:?}"
    );
    assert!(pace[3].at_us <= exchange.timing.end_us);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_event_streams_flow_at_once() {
    let (tell, told) = tokio::sync::watch::channel(0);
    let proxy = Proxy::start(events(told, 3).await.pool());
    let address = proxy.running.local_addr();
    let (report, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let report = report.clone();
            tokio::spawn(async move {
                let mut client = Peer::connect(address).await;
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let mut seen = String::new();
                for number in 1..=3 {
                    until_event(&mut client, &mut seen, number).await;
                    let _ = report.send(number);
                }
            })
        })
        .collect();
    for number in 1..=3 {
        tell.send_replace(number);
        // Nobody is told of the next event before everybody has this one.
        for _ in 0..100 {
            assert_eq!(heard.recv().await, Some(number));
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let exchanges = eventually("a hundred records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 100)
    });
    for exchange in exchanges.await {
        let body = exchange.response.unwrap().body;
        assert_eq!(body.inline, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_waits_for_a_slow_upstream_instead_of_memory() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |_, socket| {
        let mut wait = wait.clone();
        async move {
            let mut peer = Peer::over(socket);
            let head = peer.head().await.unwrap();
            let _ = wait.wait_for(|go| *go).await;
            let length = peer.body(&head).await.content.len().to_string();
            peer.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}",
                length.len()
            ))
            .await;
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let length = 64 * MEGABYTE;
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let (mut read, mut write) = client.socket.into_split();
    let upload = tokio::spawn(async move {
        let part = vec![7; 64 << 10];
        for _ in 0..length / part.len() {
            tokio::io::AsyncWriteExt::write_all(&mut write, &part)
                .await
                .unwrap();
            counter.fetch_add(part.len() as u64, Ordering::SeqCst);
        }
        write
    });
    // It stops when the sockets' buffers are full, far from the end.
    let mut before = u64::MAX;
    let stalled = eventually("the upload stalls", || {
        let now = sent.load(Ordering::SeqCst);
        let stalled = now > 0 && now == before;
        before = now;
        stalled.then_some(now)
    });
    assert!(stalled.await < length as u64 / 2);
    go.send_replace(true);
    let _write = upload.await.unwrap();
    let mut answer = vec![0; 4096];
    let n = read.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..n]).ends_with(&length.to_string()));
    assert_eq!(proxy.kept.exchange().await.outcome, Outcome::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_an_early_answer() {
    let (told, mut received) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            while let Some(head) = peer.head().await {
                peer.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                    .await;
                let content = peer.body(&head).await;
                let _ = told.send((content.content.len(), content.whole));
            }
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let length = 5 * MEGABYTE;
    for _ in 0..2 {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.send(&head).await;
        // The answer is there before the first byte of content.
        assert_eq!(client.head().await.unwrap().status(), 202);
        client.send_bytes(&vec![7; length]).await;
        assert_eq!(received.recv().await, Some((length, true)));
    }
    let exchanges = eventually("two records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 2)
    });
    for exchange in exchanges.await {
        assert_eq!(exchange.outcome, Outcome::Ok);
        assert_eq!(exchange.request.body.bytes, length as u64);
    }
}

#[tokio::test]
async fn an_upload_that_rests_after_an_early_answer_is_given_up() {
    let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                .await;
            peer.rest().await;
            let _ = told.send(());
        }
    })
    .await;
    let short = std::time::Duration::from_millis(50);
    let proxy = Proxy::with(origin.pool(), |config| config.body_timeout = short);
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 202);
    gone.recv()
        .await
        .expect("the upstream connection is closed");
}
