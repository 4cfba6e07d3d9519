//! The contract on the embedded store, and what only it does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
        let files = fs::read_dir(self.0.path()).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        assert!(paths.any(|path| spoil(&path, marker)));
    }
}

/// Changes one byte where a file holds the marker first; tells whether it does.
fn spoil(path: &Path, marker: &str) -> bool {
    let bytes = fs::read(path).unwrap();
    let marker = marker.as_bytes();
    let at = bytes.windows(marker.len()).position(|w| w == marker);
    if let Some(at) = at {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_at(b"X", at as u64).unwrap();
    }
    at.is_some()
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
async fn a_record_that_cannot_be_read_is_listed_and_named_and_the_rest_is_read() {
    let directory = Directory::new();
    let config = Config {
        // Each put goes to a file of its own, and those before it are sealed.
        rotate_after: Duration::ZERO,
        ..directory.config()
    };
    let open = || Embedded::open(config.clone(), Metrics::default()).unwrap();
    let store = open();
    let source = Source::new();
    let mut records: Vec<_> = (1..=5).map(|seq| source.exchange(seq, 0)).collect();
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    let next = records.pop().unwrap();
    for damaged in [0, 2] {
        records[damaged].service = format!("the damaged one is number {damaged}").into();
    }
    for records in [records, vec![next]] {
        let batch = contract::batch(records.into_iter().map(contract::exchange));
        store.put(batch).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    for damaged in [2, 0] {
        // The first place that holds the name is the meta in the segment, which stands before the payload.
        let path = directory.0.path().join("0000000000000001.seg");
        spoil(&path, &format!("the damaged one is number {damaged}"));
    }
    let store = open();
    for (order, forward) in [(Order::OldestFirst, true), (Order::NewestFirst, false)] {
        let query = Query {
            order,
            ..Query::default()
        };
        let mut listed = contract::ids(&store, &query).await;
        if !forward {
            listed.reverse();
        }
        assert_eq!(listed, ids);
    }
    for (at, id) in ids.iter().enumerate() {
        match store.get(*id).await {
            Ok(record) => assert_eq!(record.unwrap().id(), *id),
            Err(Error::Corrupt { key, .. }) => {
                assert!([0, 2].contains(&at));
                assert_eq!(key, id.to_string());
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_backup_is_a_store_of_its_own() {
    let directory = Directory::new();
    let config = Config {
        path: directory.0.path().join("store"),
        ..directory.config()
    };
    let copy = directory.0.path().join("copy");
    let store = Embedded::open(config.clone(), Metrics::default()).unwrap();
    let source = Source::new();
    let records: Vec<_> = (1..=5).map(|seq| source.exchange(seq, 0)).collect();
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    let mut batch = contract::batch(records.into_iter().map(contract::exchange));
    batch.settled = vec![source.settled(5, &[])];
    let settled = batch.settled.clone();
    store.put(batch).await.unwrap();
    assert_eq!(store.backup(copy.clone()).await.unwrap().segments, 1);
    assert!(store.delete(ids[0]).await.unwrap());
    let error = store.backup(copy.clone()).await.unwrap_err();
    let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(text.contains("copy is not empty"), "{text}");
    let restored = Config {
        path: copy,
        ..config
    };
    let restored = Embedded::open(restored, Metrics::default()).unwrap();
    let oldest = Query {
        order: Order::OldestFirst,
        ..Query::default()
    };
    assert_eq!(contract::ids(&restored, &oldest).await, ids);
    assert_eq!(restored.settled().await.unwrap(), settled);
    restored.close().await.unwrap();
    let error = restored.backup(directory.0.path().join("2")).await;
    assert!(matches!(error, Err(Error::Closed)));
}

#[tokio::test]
async fn an_index_that_was_made_again_is_counted() {
    let directory = Directory::new();
    let config = Config {
        rotate_after: Duration::ZERO,
        ..directory.config()
    };
    let metrics = Metrics::default();
    let open = || Embedded::open(config.clone(), metrics.clone()).unwrap();
    let store = open();
    let source = Source::new();
    for seq in 1..=3 {
        let one = contract::exchange(source.exchange(seq, 0));
        store.put(contract::batch([one])).await.unwrap();
    }
    let listed = contract::ids(&store, &Query::default()).await;
    drop(store);
    fs::remove_file(directory.0.path().join("0000000000000001.idx")).unwrap();
    let store = open();
    assert_eq!(metrics.reindexed.get(), 1);
    assert_eq!(contract::ids(&store, &Query::default()).await, listed);
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
