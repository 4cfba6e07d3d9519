//! Answers and replays from the store on disk.

use std::sync::Arc;

use bytes::Bytes;
use qproxy::metrics::Registry;
use qproxy::playback::{
    AnswerConfig, Answerer, Discard, Metrics, Plan, ReplayConfig, Runs, Selection,
};
use qproxy::record::{
    Body, BodyChunk, Digest, Epoch, FingerprintRules, Item, NodeId, Origin, RequestView, Sequence,
    Side, wire,
};
use qproxy::store::{Arrival, Batch, Filter, Query, Store, embedded};

use super::recording::{Change as _, exchange, headers, record};
use super::servers::{Player, Service, text};

/// An item as the subscriber would hand it to the store.
fn arrival(item: &Item) -> Arrival {
    let mut bytes = Vec::new();
    wire::encode(item, &mut bytes);
    let message = Bytes::from(bytes);
    let decoded = wire::decode_all(&message).next().unwrap().unwrap();
    let fingerprint = match item {
        Item::Record(record) => record
            .as_exchange()
            .map(|e| FingerprintRules::default().fingerprint(&RequestView::from(&e.request))),
        _ => None,
    };
    Arrival {
        decoded,
        fingerprint,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_replays_what_lies_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = embedded::Config {
        max_age: None,
        // A listing hands out short and empty pages.
        scan_limit: 10,
        ..embedded::Config::new(folder.path())
    };
    let store = Arc::new(embedded::Embedded::open(config, Default::default()).unwrap());
    let content = vec![b'x'; 150_000];
    let large = exchange(400, "GET", "/large", "").response(|r| {
        r.headers = headers(&[("content-type", "text/plain")]);
        r.body = Body {
            inline: Bytes::new(),
            chunks: 3,
            bytes: content.len() as u64,
            truncated: false,
            digest: Digest::of(&content),
        };
    });
    let chunks = content.chunks(50_000).enumerate().map(|(index, bytes)| {
        Item::Chunk(BodyChunk {
            record: large.id,
            origin: Origin {
                node: NodeId::new("rec").unwrap(),
                epoch: Epoch(1),
                seq: Sequence(401 + index as u64),
            },
            side: Side::Response,
            index: u32::try_from(index).unwrap(),
            bytes: Bytes::copy_from_slice(bytes),
        })
    });
    let many = (1..=300).map(|n| match n % 60 {
        0 => exchange(n, "GET", "/rare", &format!("answer {n}")),
        _ => exchange(n, "GET", &format!("/often/{n}"), "ok"),
    });
    let records = many.chain([large.clone()]).map(|e| Item::Record(record(e)));
    let items: Vec<Item> = records.chain(chunks).collect();
    let batch = Batch {
        arrivals: items.iter().map(arrival).collect(),
        ..Batch::default()
    };
    assert_eq!(store.put(batch).await.unwrap().records, 301);

    let metrics = Metrics::default();
    metrics.register(&mut Registry::default());
    let answerer = Answerer::new(store.clone(), AnswerConfig::default(), metrics.clone()).unwrap();
    let player = Player::start(answerer).await;
    for n in [60, 120, 180, 240, 300, 300] {
        assert_eq!(player.get_text("/rare").await, format!("answer {n}"));
    }
    assert_eq!(player.get("/large").await.body(), &content);
    let told = player.get_text("/often/17?x=1").await;
    assert!(told.contains("query: x=1, recorded without"), "{told}");

    let service = Service::start(async |seen| match seen.target.as_str() {
        "/large" => text(&"x".repeat(150_000)),
        _ => text("answer 60"),
    })
    .await;
    let runs = Runs::new(
        store.clone(),
        ReplayConfig::default(),
        Arc::new(Discard),
        metrics,
    );
    let rare = Query {
        filter: Filter {
            path_prefix: Some("/rare".into()),
            ..Filter::default()
        },
        ..Query::default()
    };
    for (selection, same, different) in [
        (Selection::Window(rare), 1, 4),
        (Selection::Ids(vec![large.id]), 1, 0),
    ] {
        let run = runs.start(Plan::new(selection, service.target())).unwrap();
        let report = runs.wait(run).await.unwrap();
        let totals = report.totals;
        assert_eq!(
            (totals.same, totals.different),
            (same, different),
            "{}",
            report.to_text()
        );
    }
    store.close().await.unwrap();
}
