//! The contract on the embedded store, and what only it does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Config, Embedded};
use crate::record::{Coverage, Epoch, NodeId, RecordId};
use crate::store::contract::{self, Bench, Retention, Source, contract};
use crate::store::{Batch, Error, Metrics, Order, Query, Settled, Store};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> Config {
        Config {
            segment_bytes: 1 << 20,
            ..Config::new(self.0.path())
        }
    }
}

#[async_trait]
impl Bench for Directory {
    async fn open(&self, retention: Retention) -> Arc<dyn Store> {
        let config = Config {
            max_age: retention.max_age,
            max_bytes: retention.max_bytes,
            ..self.config()
        };
        Arc::new(Embedded::open(config, Metrics::default()).unwrap())
    }

    async fn spoil(&self, _id: RecordId, marker: &str) {
        for file in fs::read_dir(self.0.path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let marker = marker.as_bytes();
            let Some(at) = bytes.windows(marker.len()).position(|w| w == marker) else {
                continue;
            };
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_at(b"X", at as u64).unwrap();
            return;
        }
        panic!("nothing holds the marker");
    }
}

contract!(async { Directory::new() });

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = Directory::new();
    let store = Embedded::open(directory.config(), Metrics::default()).unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.stats().await, Err(Error::Closed)));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_in_use_is_named() {
    let directory = Directory::new();
    let _store = Embedded::open(directory.config(), Metrics::default()).unwrap();
    let error = Embedded::open(directory.config(), Metrics::default()).unwrap_err();
    let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("in use by another process"), "{text}");
}

#[tokio::test]
async fn one_listing_looks_at_a_bounded_number_of_records() {
    let directory = Directory::new();
    let config = Config {
        scan_limit: 40,
        ..directory.config()
    };
    let store = Embedded::open(config, Metrics::default()).unwrap();
    contract::pages_are_bounded(&store, 40).await;
}

#[tokio::test]
async fn what_age_hides_stays_hidden_and_uncounted_after_a_restart() {
    let directory = Directory::new();
    let config = directory.config();
    let forever = Config {
        max_age: None,
        ..config.clone()
    };
    let store = Embedded::open(forever, Metrics::default()).unwrap();
    let source = Source::new();
    let day = 86_400_000_000;
    let records = [source.exchange(1, -2 * day), source.exchange(2, 0)];
    let ids = records.clone().map(|record| record.id);
    let mut batch = contract::batch(records.map(contract::exchange));
    contract::settle(&mut batch, vec![source.settled(2, &[])]);
    let settled = batch.settled.clone();
    store.put(batch).await.unwrap();
    assert_eq!(store.stats().await.unwrap().records, 2);
    store.close().await.unwrap();
    let store = Embedded::open(config, Metrics::default()).unwrap();
    assert_eq!(contract::ids(&store, &Query::default()).await, ids[1..]);
    assert_eq!(store.get(ids[0]).await.unwrap(), None);
    assert!(!store.delete(ids[0]).await.unwrap());
    assert_eq!(store.stats().await.unwrap().records, 1);
    assert_eq!(store.settled().await.unwrap(), settled);
}

#[tokio::test]
async fn a_listing_goes_on_behind_a_head_that_cannot_be_read() {
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let directory = Directory::new();
        let store = Embedded::open(directory.config(), Metrics::default()).unwrap();
        let source = Source::new();
        let mut records: Vec<_> = (1..=5).map(|seq| source.exchange(seq, 0)).collect();
        let mut expected: Vec<_> = records.iter().map(|record| record.id).collect();
        for damaged in [0, 2, 4] {
            records[damaged].service = format!("the damaged one is number {damaged}").into();
        }
        store
            .put(contract::batch(records.into_iter().map(contract::exchange)))
            .await
            .unwrap();
        for damaged in [4, 2, 0] {
            // The first place that holds the name is the meta, which stands before the payload.
            let id = expected.remove(damaged);
            directory
                .spoil(id, &format!("the damaged one is number {damaged}"))
                .await;
        }
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let query = Query {
            order,
            ..Query::default()
        };
        assert_eq!(contract::ids(&store, &query).await, expected);
    }
}

#[tokio::test]
async fn a_damaged_coverage_is_skipped_and_the_rest_is_read() {
    let directory = Directory::new();
    let metrics = Metrics::default();
    let store = Embedded::open(directory.config(), metrics.clone()).unwrap();
    let settled = ["rec-damaged", "rec-whole"].map(|node| Settled {
        node: NodeId::new(node).unwrap(),
        epoch: Epoch(1),
        coverage: Coverage::restore(7, &[], 0, 0),
    });
    let batch = Batch {
        arrivals: Vec::new(),
        settled: settled.to_vec(),
        ..Batch::default()
    };
    store.put(batch).await.unwrap();
    directory.spoil(RecordId::from_u128(0), "rec-damaged").await;
    assert_eq!(store.settled().await.unwrap(), settled[1..]);
    assert_eq!(metrics.unreadable.get(), 1);
}
