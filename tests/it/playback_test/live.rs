//! Replaying records as they arrive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qproxy::playback::{Discard, Error, Live, LiveConfig, Metrics, ReplayConfig, Sending, Target};
use qproxy::record::{Exchange, Record, Side};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::memory::MemoryStore;
use super::recording::{Change as _, chunked, exchange, record, store_of};
use super::servers::{Service, eventually, text};

fn live(
    store: Arc<MemoryStore>,
    target: Target,
    change: impl FnOnce(&mut LiveConfig),
) -> (Live, Metrics) {
    let mut config = LiveConfig::new(Sending::to(target));
    change(&mut config);
    let metrics = Metrics::default();
    let replay = ReplayConfig::default();
    let live = Live::start(store, config, &replay, Arc::new(Discard), metrics.clone()).unwrap();
    (live, metrics)
}

fn arrival(exchange: Exchange) -> Arc<Record> {
    Arc::new(record(exchange))
}

fn dropped(metrics: &Metrics, reason: &'static str) -> u64 {
    metrics.live_dropped.get_or_create(&reason.into()).get()
}

#[tokio::test]
async fn arrivals_are_replayed_in_the_order_of_their_connection() {
    let service =
        Service::start(async |seen| text(if seen.target == "/7" { "new" } else { "ok" })).await;
    let (live, metrics) = live(store_of([]), service.target(), |_| {});
    for n in 1..=50 {
        let one = arrival(exchange(n, "GET", &format!("/{n}"), "ok").on_connection(1));
        live.offer(one.clone());
        live.offer(one);
    }
    eventually("all are done", || live.totals().records == 50).await;
    assert_eq!((live.totals().same, live.totals().different), (49, 1));
    assert_eq!(dropped(&metrics, "duplicate"), 50);
    let targets: Vec<_> = service.seen().iter().map(|s| s.target.clone()).collect();
    let expected: Vec<_> = (1..=50).map(|n| format!("/{n}")).collect();
    assert_eq!(targets, expected);
    assert_eq!(
        service.seen()[0].header("qproxy-replay"),
        live.run().to_string()
    );
    assert_eq!(live.report().differences[0].path, "line *");
    live.stop().await;
}

#[tokio::test]
async fn a_target_that_is_down_is_answered_for_from_the_record_until_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = format!("http://{address}").parse().unwrap();
    let (live, _) = live(store_of([]), target, |config| {
        config.retry_every = Duration::from_millis(20);
    });
    for n in 1..=10 {
        live.offer(arrival(exchange(n, "GET", "/", "ok")));
    }
    eventually("all are answered for", || {
        live.totals().answered_from_record == 10
    })
    .await;
    assert_eq!((live.totals().failed, live.totals().sent), (0, 0));
    let listener = TcpListener::bind(address).await.unwrap();
    let service = Service::on(listener, async |_| text("ok"));
    let mut next = 11;
    eventually("the target is found again", || {
        live.offer(arrival(exchange(next, "GET", "/", "ok")));
        next += 1;
        live.totals().same > 0
    })
    .await;
    assert!(!service.seen().is_empty());
    live.stop().await;
}

#[tokio::test]
async fn a_full_queue_drops_the_copy_and_counts_it() {
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let service = Service::start(move |_| {
        let gate = closed.clone();
        async move {
            let _open = gate.acquire().await.unwrap();
            text("ok")
        }
    })
    .await;
    let (live, metrics) = live(store_of([]), service.target(), |config| {
        config.queue = 5;
        config.sending.concurrency = Some(1);
    });
    for n in 1..=100 {
        live.offer(arrival(exchange(n, "GET", "/", "ok").on_connection(1)));
    }
    let lost = dropped(&metrics, "queue_full");
    assert!(lost >= 100 - (5 + 4 + 1), "{lost}");
    gate.add_permits(1);
    eventually("the rest is done", || live.totals().same == 100 - lost).await;
    live.stop().await;
}

#[tokio::test]
async fn waits_for_chunks_that_arrive_after_their_record() {
    let service = Service::start(async |seen| text(&seen.body.len().to_string())).await;
    let store = store_of([]);
    let mut large = exchange(1, "PUT", "/", "150000");
    let content = vec![7; 150_000];
    large.request.body = chunked(&store, large.id, Side::Request, &content, 60_000, false);
    let id = large.id;
    let (live, _) = live(store.clone(), service.target(), |_| {});
    live.offer(arrival(large));
    eventually("the chunk is missed", || store.absent() > 0).await;
    store.add_chunk(id, Side::Request, 2, Bytes::from(vec![7; 30_000]));
    eventually("it is done", || live.totals().same == 1).await;
    live.stop().await;
}

#[tokio::test]
async fn stops_while_requests_are_on_their_way() {
    let service = Service::start(async |_| std::future::pending().await).await;
    let (live, _) = live(store_of([]), service.target(), |_| {});
    for n in 1..=10 {
        live.offer(arrival(exchange(n, "GET", "/", "ok")));
    }
    tokio::time::timeout(Duration::from_secs(10), live.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn refuses_a_target_that_is_not_allowed() {
    let config = LiveConfig::new(Sending::to("http://prod.test".parse().unwrap()));
    let (replay, sink) = (ReplayConfig::default(), Arc::new(Discard));
    let refused = Live::start(store_of([]), config, &replay, sink, Metrics::default());
    assert!(matches!(refused, Err(Error::Refused { .. })));
}
