//! What every backend must do: one suite, run on each of them by `contract!`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Arrival, Batch, Cursor, Error, Filter, News, Order, Pieces, Query, Receipt, Settled,
    StatusFilter, Store, Summary,
};
use crate::record::{
    Body, BodyChunk, ConnectionId, Coverage, Direction, Epoch, Exchange, Fingerprint, Gap,
    GapReason, Headers, IdSource, Item, NodeId, Origin, Outcome, Protocol, Record, RecordId,
    Request, Response, Segment, SegmentBatch, Sequence, SequenceRange, Side, Stream, Timing,
    UpstreamFailure, wire,
};

/// How a store under test keeps its records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retention {
    pub(super) max_age: Option<Duration>,
    pub(super) max_bytes: Option<u64>,
}

/// One backend with a place of its own for the data.
#[async_trait]
pub(super) trait Bench: Send + Sync {
    /// Opens the store; a second call, after the first store was closed, finds what the first one kept.
    async fn open(&self, retention: Retention) -> Arc<dyn Store>;

    /// Makes the stored form of a record unreadable; `marker` stands in its body and nowhere else.
    async fn spoil(&self, id: RecordId, marker: &str);
}

/// Makes one test of each case, on the bench that the expression makes.
macro_rules! contract {
    ($bench:expr) => {
        $crate::store::contract::contract! { $bench =>
            keeps_every_kind_of_item
            duplicates_change_nothing_and_are_told
            coverage_grows_with_the_batch
            a_restart_keeps_everything
            lists_a_time_window_both_ways
            each_filter_picks_its_records
            pages_show_every_survivor_once
            delete_takes_all_of_a_record_for_good
            lookups_come_in_source_order
            newest_come_first_whoever_recorded_them
            pieces_may_come_in_any_order
            the_first_missing_piece_is_named_without_looking_further
            old_records_expire
            the_oldest_make_room
            stats_tell_what_is_there
            an_unreadable_record_is_named_and_breaks_nothing_else
            empty_questions_have_empty_answers
            writers_at_once_store_each_item_once
            texts_of_any_length_are_kept
            agrees_with_a_model
        }
    };
    ($bench:expr => $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let bench = $bench.await;
                $crate::store::contract::$case(&bench).await;
            }
        )*
    };
}
pub(super) use contract;

/// Makes records of one recorder.
pub(super) struct Source {
    node: NodeId,
    epoch: Epoch,
    ids: IdSource,
    pub(super) now_us: i64,
}

impl Source {
    pub(super) fn new() -> Self {
        Self::named("az1", 7)
    }

    pub(super) fn named(node: &str, epoch: u64) -> Self {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        Self {
            node: NodeId::new(node).unwrap(),
            epoch: Epoch(epoch),
            ids: IdSource::default(),
            now_us: i64::try_from(since.as_micros()).unwrap(),
        }
    }

    fn origin(&self, seq: u64) -> Origin {
        Origin {
            node: self.node.clone(),
            epoch: self.epoch,
            seq: Sequence(seq),
        }
    }

    /// An exchange that started so many microseconds from now.
    pub(super) fn exchange(&self, seq: u64, offset_us: i64) -> Exchange {
        let started_us = self.now_us + offset_us;
        let headers = [(Bytes::from("Host"), Bytes::from("shop.example"))];
        Exchange {
            id: self.ids.next_id(started_us),
            origin: self.origin(seq),
            service: "shop".into(),
            protocol: Protocol::Http1,
            connection: ConnectionId(4),
            client: "127.0.0.1:5".into(),
            upstream: Some("http://u:1".into()),
            tls: None,
            timing: Timing {
                started_us,
                end_us: 3,
                ..Timing::default()
            },
            request: Request {
                method: "GET".into(),
                target: format!("/items/{seq}?page=1").into(),
                version: "HTTP/1.1".into(),
                headers: headers.into_iter().collect(),
                body: Body::empty(),
                trailers: Headers::default(),
            },
            response: Some(Response {
                status: 200,
                headers: Headers::default(),
                body: Body::inline(Bytes::from_static(b"\0hello\xff")),
                trailers: Headers::default(),
                informational: Vec::new(),
            }),
            outcome: Outcome::Ok,
            flow: crate::record::Flow::default(),
            stream: None,
            redactions: Vec::new(),
        }
    }

    fn stream(&self, seq: u64) -> Stream {
        Stream {
            id: self.ids.next_id(self.now_us),
            origin: self.origin(seq),
            service: "db".into(),
            protocol: Protocol::Tcp,
            connection: ConnectionId(9),
            client: "127.0.0.1:6".into(),
            upstream: Some("db.example:5432".into()),
            tls: None,
            timing: Timing {
                started_us: self.now_us,
                ..Timing::default()
            },
            client_bytes: 3,
            server_bytes: 4,
            batches: 2,
            truncated: false,
            application: None,
            outcome: Outcome::ClientClosed,
            exchange: None,
            upgrade: None,
        }
    }

    pub(super) fn chunk(&self, record: RecordId, seq: u64, side: Side, index: u32) -> Item {
        let bytes = Bytes::from(format!("{side:?} {index}").repeat(100));
        Item::Chunk(BodyChunk {
            record,
            origin: self.origin(seq),
            side,
            index,
            bytes,
        })
    }

    fn segments(&self, record: RecordId, seq: u64, index: u32) -> SegmentBatch {
        let segment = Segment {
            direction: Direction::Server,
            offset_us: u64::from(index),
            bytes: Bytes::from(format!("segment {index}")),
            frame: None,
            missing: 0,
        };
        SegmentBatch {
            record,
            origin: self.origin(seq),
            index,
            segments: vec![segment],
        }
    }

    pub(super) fn settled(&self, watermark: u64, above: &[SequenceRange]) -> Settled {
        Settled {
            node: self.node.clone(),
            epoch: self.epoch,
            coverage: Coverage::restore(watermark, above, 1, 0),
        }
    }
}

pub(super) fn exchange(exchange: Exchange) -> Item {
    Item::Record(Record::Exchange(Box::new(exchange)))
}

fn arrival(item: &Item, fingerprint: Option<u128>) -> Arrival {
    let mut bytes = Vec::new();
    wire::encode(item, &mut bytes);
    let message = Bytes::from(bytes);
    let decoded = wire::decode_all(&message).next().unwrap().unwrap();
    Arrival {
        decoded,
        fingerprint: fingerprint.map(Fingerprint),
    }
}

pub(super) fn batch(items: impl IntoIterator<Item = Item>) -> Batch {
    Batch {
        arrivals: items.into_iter().map(|item| arrival(&item, None)).collect(),
        ..Batch::default()
    }
}

/// Lets a batch settle these, all of it news; of each life the first number was dropped.
pub(super) fn settle(batch: &mut Batch, settled: Vec<Settled>) {
    let news = settled.iter().map(|settled| {
        let mut news = News::of(settled.node.clone(), settled.epoch);
        for range in settled.coverage.ranges() {
            news.arrived.observe(range);
        }
        news.dropped.observe(SequenceRange { first: 1, last: 1 });
        news
    });
    batch.news = news.collect();
    batch.settled = settled;
}

pub(super) fn receipt(records: u64, pieces: u64, duplicates: u64) -> Receipt {
    Receipt {
        records,
        pieces,
        duplicates,
        behind: false,
    }
}

pub(super) async fn ids(store: &dyn Store, query: &Query) -> Vec<RecordId> {
    let page = store.list(query).await.unwrap();
    page.items.into_iter().map(|summary| summary.id).collect()
}

pub(super) async fn the_first_missing_piece_is_named_without_looking_further(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let (one, two) = (source.exchange(1, 0), source.stream(2));
    let first_missing = async |id, of, count| store.first_missing(id, of, count).await.unwrap();
    let (response, segments) = (Pieces::Body(Side::Response), Pieces::Segments);
    assert_eq!(first_missing(one.id, response, 0).await, None);
    assert_eq!(first_missing(one.id, response, 2).await, Some(0));
    let chunk = |index: u32| source.chunk(one.id, 10 + u64::from(index), Side::Response, index);
    let some = (0..600).filter(|index| *index != 513).map(chunk);
    let segment = Item::Segments(source.segments(two.id, 3, 0));
    store.put(batch(some.chain([segment]))).await.unwrap();
    assert_eq!(first_missing(one.id, response, 513).await, None);
    assert_eq!(first_missing(one.id, response, 600).await, Some(513));
    // Whatever a record claims.
    assert_eq!(first_missing(one.id, response, u32::MAX).await, Some(513));
    store.put(batch([chunk(513)])).await.unwrap();
    assert_eq!(first_missing(one.id, response, 600).await, None);
    assert_eq!(first_missing(one.id, response, u32::MAX).await, Some(600));
    let request = Pieces::Body(Side::Request);
    assert_eq!(first_missing(one.id, request, 1).await, Some(0));
    assert_eq!(first_missing(two.id, segments, 1).await, None);
    assert_eq!(first_missing(two.id, segments, 2).await, Some(1));
    store.put(batch([exchange(one.clone())])).await.unwrap();
    store.delete(one.id).await.unwrap();
    assert_eq!(first_missing(one.id, response, 600).await, Some(0));
}

pub(super) async fn keeps_every_kind_of_item(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let (one, two) = (source.exchange(1, 0), source.stream(2));
    let records = [
        Record::Exchange(Box::new(one.clone())),
        Record::Stream(Box::new(two.clone())),
    ];
    let segments = source.segments(two.id, 5, 0);
    let gap = Gap {
        origin: source.origin(6),
        count: 3,
        reason: GapReason::Oversize,
    };
    let chunks = [Side::Request, Side::Response].map(|side| source.chunk(one.id, 3, side, 0));
    let mut items: Vec<_> = records.iter().cloned().map(Item::Record).collect();
    items.extend(chunks.clone());
    items.extend([Item::Segments(segments.clone()), Item::Gap(gap)]);
    assert_eq!(store.put(batch(items)).await.unwrap(), receipt(2, 3, 0));
    for record in &records {
        assert_eq!(store.get(record.id()).await.unwrap().as_ref(), Some(record));
    }
    for item in &chunks {
        let Item::Chunk(chunk) = item else {
            unreachable!()
        };
        let kept = store.chunk(one.id, chunk.side, 0).await.unwrap();
        assert_eq!(kept.as_ref(), Some(&chunk.bytes));
    }
    assert_eq!(store.segments(two.id, 0).await.unwrap(), Some(segments));
    let listed = store.list(&Query::default()).await.unwrap().items;
    let expected: Vec<_> = records.iter().rev().map(Summary::from).collect();
    assert_eq!(listed, expected);
}

pub(super) async fn duplicates_change_nothing_and_are_told(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let first = source.exchange(1, 0);
    let second = Exchange {
        service: "other".into(),
        ..first.clone()
    };
    let chunk = source.chunk(first.id, 2, Side::Request, 0);
    let one = batch([
        exchange(first.clone()),
        chunk.clone(),
        exchange(first.clone()),
    ]);
    assert_eq!(store.put(one.clone()).await.unwrap(), receipt(1, 1, 1));
    assert_eq!(store.put(one).await.unwrap(), receipt(0, 0, 3));
    assert_eq!(
        store.put(batch([exchange(second)])).await.unwrap(),
        receipt(0, 0, 1)
    );
    let id = first.id;
    let kept = store.get(id).await.unwrap();
    assert_eq!(kept, Some(Record::Exchange(Box::new(first))));
    assert_eq!(ids(&*store, &Query::default()).await, [id]);
}

pub(super) async fn coverage_grows_with_the_batch(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let (one, two) = (Source::named("az1", 1), Source::named("az1", u64::MAX));
    assert_eq!(store.settled().await.unwrap(), []);
    let early = SequenceRange { first: 5, last: 9 };
    let mut first = batch([exchange(one.exchange(1, 0))]);
    settle(
        &mut first,
        vec![one.settled(1, &[early]), two.settled(3, &[])],
    );
    store.put(first).await.unwrap();
    let mut only_coverage = Batch::default();
    settle(&mut only_coverage, vec![one.settled(9, &[])]);
    assert_eq!(store.put(only_coverage).await.unwrap(), Receipt::default());
    let mut settled = store.settled().await.unwrap();
    settled.sort_by_key(|settled| settled.epoch);
    assert_eq!(settled, [one.settled(9, &[]), two.settled(3, &[])]);
    let forgets = Batch {
        forgotten: vec![(two.node.clone(), two.epoch)],
        ..Batch::default()
    };
    store.put(forgets.clone()).await.unwrap();
    assert_eq!(store.settled().await.unwrap(), [one.settled(9, &[])]);
    store.put(forgets).await.unwrap();
}

pub(super) async fn a_restart_keeps_everything(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let kept = source.exchange(1, 0);
    let gone = source.exchange(2, 1);
    let chunk = source.chunk(kept.id, 3, Side::Response, 1);
    let mut all = batch([exchange(kept.clone()), exchange(gone.clone()), chunk]);
    all.arrivals[0].fingerprint = Some(Fingerprint(5));
    settle(&mut all, vec![source.settled(3, &[])]);
    store.put(all.clone()).await.unwrap();
    store.delete(gone.id).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = bench.open(Retention::default()).await;
    let id = kept.id;
    assert_eq!(ids(&*store, &Query::default()).await, [id]);
    let record = store.get(id).await.unwrap();
    assert_eq!(record, Some(Record::Exchange(Box::new(kept))));
    assert_eq!(store.lookup(Fingerprint(5), 9).await.unwrap(), [id]);
    assert!(store.chunk(id, Side::Response, 1).await.unwrap().is_some());
    assert_eq!(store.settled().await.unwrap(), all.settled);
    assert_eq!(store.get(gone.id).await.unwrap(), None);
    assert_eq!(store.put(all).await.unwrap().records, 0);
}

pub(super) async fn lists_a_time_window_both_ways(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    // Over three hours, so that hourly indexes are crossed; two start within one millisecond.
    let minute = 60_000_000;
    let offsets = [-170 * minute, -90 * minute, -90 * minute + 1, -1, 0];
    let all: Vec<_> = (1..)
        .zip(offsets)
        .map(|(seq, at)| source.exchange(seq, at))
        .collect();
    let expected: Vec<_> = all.iter().map(|e| e.id).collect();
    let shuffled = [3, 0, 4, 1, 2].map(|at| exchange(all[at].clone()));
    store.put(batch(shuffled)).await.unwrap();
    let oldest = Query {
        order: Order::OldestFirst,
        ..Query::default()
    };
    assert_eq!(ids(&*store, &oldest).await, expected);
    let newest: Vec<_> = expected.iter().rev().copied().collect();
    assert_eq!(ids(&*store, &Query::default()).await, newest);
    let window = Query {
        start_us: Some(source.now_us - 90 * minute + 1),
        end_us: Some(source.now_us),
        ..oldest.clone()
    };
    assert_eq!(
        ids(&*store, &window).await,
        expected[2..4],
        "start counts, end does not"
    );
    let window = Query {
        order: Order::NewestFirst,
        ..window
    };
    assert_eq!(ids(&*store, &window).await, [expected[3], expected[2]]);
    let two = Query { limit: 2, ..oldest };
    let page = store.list(&two).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.next, Some(Cursor::after(expected[1])));
    let nothing = Query {
        start_us: Some(9),
        end_us: Some(9),
        ..Query::default()
    };
    assert_eq!(ids(&*store, &nothing).await, []);
}

pub(super) async fn each_filter_picks_its_records(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let plain = source.exchange(1, 0);
    let mut odd = Source {
        node: NodeId::new("az2").unwrap(),
        ..Source::new()
    }
    .exchange(2, 1000);
    odd.service = "bank".into();
    odd.protocol = Protocol::Grpc;
    odd.request.method = "POST".into();
    odd.request.target = "/pay/now".into();
    odd.request.headers = Headers::from_iter([(Bytes::from("host"), Bytes::from("Bank:8"))]);
    odd.outcome = Outcome::UpstreamFailed(UpstreamFailure::Reset, "gone".into());
    odd.response.as_mut().unwrap().status = 503;
    let (plain_id, odd_id) = (plain.id, odd.id);
    store
        .put(batch([exchange(plain), exchange(odd)]))
        .await
        .unwrap();
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        Filter {
            node: text("az2"),
            ..Filter::default()
        },
        Filter {
            service: text("bank"),
            ..Filter::default()
        },
        Filter {
            protocol: text("grpc"),
            ..Filter::default()
        },
        Filter {
            method: text("POST"),
            ..Filter::default()
        },
        Filter {
            status: Some(StatusFilter::Exactly(503)),
            ..Filter::default()
        },
        Filter {
            status: Some(StatusFilter::Class(5)),
            ..Filter::default()
        },
        Filter {
            host: text("bank:8"),
            ..Filter::default()
        },
        Filter {
            path_prefix: text("/pay"),
            ..Filter::default()
        },
        Filter {
            text: text("ay/no"),
            ..Filter::default()
        },
        Filter {
            outcome: text("upstream_failed"),
            ..Filter::default()
        },
    ];
    for filter in filters {
        let query = Query {
            filter,
            ..Query::default()
        };
        assert_eq!(ids(&*store, &query).await, [odd_id], "{:?}", query.filter);
    }
    let filter = Filter {
        service: text("bank"),
        method: text("GET"),
        ..Filter::default()
    };
    assert_eq!(
        ids(
            &*store,
            &Query {
                filter,
                ..Query::default()
            }
        )
        .await,
        []
    );
    assert_eq!(ids(&*store, &Query::default()).await, [odd_id, plain_id]);
}

pub(super) async fn pages_show_every_survivor_once(bench: &dyn Bench) {
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let max_age = Some(Duration::from_hours(24));
        let store = bench
            .open(Retention {
                max_age,
                max_bytes: None,
            })
            .await;
        let source = Source::new();
        let minute = 60_000_000;
        // A thousand records over the last seventeen hours.
        let all: Vec<_> = (1..=1000)
            .map(|seq| source.exchange(seq, -minute * (1001 - i64::try_from(seq).unwrap())))
            .collect();
        let original: Vec<_> = all.iter().map(|e| e.id).collect();
        store
            .put(batch(all.into_iter().map(exchange)))
            .await
            .unwrap();
        let mut query = Query {
            limit: 37,
            order,
            ..Query::default()
        };
        let mut seen: BTreeMap<RecordId, u32> = BTreeMap::new();
        let mut removed = BTreeSet::new();
        for round in 0.. {
            assert!(round < 100, "the listing does not end");
            let page = store.list(&query).await.unwrap();
            page.items
                .iter()
                .for_each(|item| *seen.entry(item.id).or_default() += 1);
            query.cursor = page.next;
            if page.next.is_none() {
                break;
            }
            // Someone deletes, also the record that the cursor names; newcomers arrive on both ends.
            let victims = [page.next.unwrap().id(), original[(round * 53) % 1000]];
            for victim in victims {
                if store.delete(victim).await.unwrap() {
                    removed.insert(victim);
                }
            }
            let seq = 2000 + u64::try_from(round).unwrap();
            let old = source.exchange(seq, -minute * 1003);
            store
                .put(batch([exchange(old), exchange(source.exchange(seq, 0))]))
                .await
                .unwrap();
            if round == 8 {
                // Eight hours on, the records of the first hour are a day old.
                store
                    .expire(source.now_us + minute * (1440 - 941))
                    .await
                    .unwrap();
                removed.extend(&original[..59]);
            }
        }
        for id in original.iter().filter(|id| !removed.contains(id)) {
            assert_eq!(seen.get(id), Some(&1), "{order:?} {id}");
        }
        assert!(seen.values().all(|times| *times == 1));
        store.close().await.unwrap();
    }
}

pub(super) async fn delete_takes_all_of_a_record_for_good(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let mut one = source.exchange(1, 0);
    one.request.body = Body {
        chunks: 2,
        ..Body::empty()
    };
    one.response.as_mut().unwrap().body = Body {
        chunks: 1,
        ..Body::empty()
    };
    let (two, other) = (source.stream(2), source.exchange(3, 0));
    let (id, stream, other_id) = (one.id, two.id, other.id);
    let items = [
        exchange(one),
        Item::Record(Record::Stream(Box::new(two))),
        exchange(other),
        source.chunk(id, 4, Side::Request, 0),
        source.chunk(id, 5, Side::Request, 1),
        source.chunk(id, 6, Side::Response, 0),
        source.chunk(other_id, 7, Side::Request, 0),
        Item::Segments(source.segments(stream, 8, 0)),
        Item::Segments(source.segments(stream, 9, 1)),
    ];
    let mut all = batch(items);
    all.arrivals[0].fingerprint = Some(Fingerprint(1));
    all.arrivals[2].fingerprint = Some(Fingerprint(1));
    store.put(all.clone()).await.unwrap();
    for doomed in [id, stream] {
        assert!(store.delete(doomed).await.unwrap());
        assert!(!store.delete(doomed).await.unwrap());
    }
    // What was deleted does not come back by redelivery.
    store.put(all).await.unwrap();
    for doomed in [id, stream] {
        assert_eq!(store.get(doomed).await.unwrap(), None);
    }
    assert_eq!(ids(&*store, &Query::default()).await, [other_id]);
    assert_eq!(store.lookup(Fingerprint(1), 9).await.unwrap(), [other_id]);
    for index in 0..2 {
        assert_eq!(store.chunk(id, Side::Request, index).await.unwrap(), None);
        assert_eq!(store.chunk(id, Side::Response, index).await.unwrap(), None);
        assert_eq!(store.segments(stream, index).await.unwrap(), None);
    }
    assert!(
        store
            .chunk(other_id, Side::Request, 0)
            .await
            .unwrap()
            .is_some()
    );
}

pub(super) async fn newest_come_first_whoever_recorded_them(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let sources = ["az1", "az1-", "az2", "b"].map(|node| Source::named(node, 1));
    let print = Fingerprint(u128::MAX);
    let mut ids = Vec::new();
    for at in 0..600_u64 {
        let source = &sources[usize::try_from(at * 7 % 4).unwrap()];
        let one = source.exchange(at + 1, i64::try_from(at).unwrap() * 1000 - 3_600_000);
        ids.push(one.id);
        let mut one = batch([exchange(one)]);
        one.arrivals[0].fingerprint = Some(print);
        store.put(one).await.unwrap();
    }
    let mut other = batch([exchange(sources[0].exchange(1000, 0))]);
    other.arrivals[0].fingerprint = Some(Fingerprint(2));
    store.put(other).await.unwrap();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    for limit in [0, 1, 2, 7, 599, 600, 601, 10_000] {
        let found = store.newest(print, limit).await.unwrap();
        assert_eq!(found, ids[..limit.min(600)], "{limit}");
    }
    for deleted in [0, 1, 5] {
        store.delete(ids[deleted]).await.unwrap();
    }
    let left = [ids[2], ids[3], ids[4], ids[6]];
    assert_eq!(store.newest(print, 4).await.unwrap(), left);
    assert_eq!(store.newest(Fingerprint(3), 9).await.unwrap(), []);
}

pub(super) async fn lookups_come_in_source_order(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let sources = [
        Source::named("az1", 1),
        Source::named("az1", 2),
        Source::named("az2", 1),
    ];
    let mut expected = Vec::new();
    let mut items = Vec::new();
    for source in &sources {
        for seq in [3, 20, 100] {
            // The wall clock runs backwards: the sequence is what counts.
            let one = source.exchange(seq, -i64::try_from(seq).unwrap() * 1000);
            expected.push(one.id);
            items.push(one);
        }
    }
    for at in [4, 0, 8, 2, 6, 1, 7, 3, 5] {
        let mut one = batch([exchange(items[at].clone())]);
        one.arrivals[0].fingerprint = Some(Fingerprint(u128::MAX));
        store.put(one).await.unwrap();
    }
    let mut other = batch([exchange(sources[0].exchange(1, 0))]);
    other.arrivals[0].fingerprint = Some(Fingerprint(2));
    store.put(other).await.unwrap();
    let print = Fingerprint(u128::MAX);
    assert_eq!(store.lookup(print, 100).await.unwrap(), expected);
    assert_eq!(store.lookup(print, 4).await.unwrap(), expected[..4]);
    store.delete(expected[0]).await.unwrap();
    assert_eq!(store.lookup(print, 2).await.unwrap(), expected[1..3]);
    assert_eq!(store.lookup(Fingerprint(3), 9).await.unwrap(), []);
}

pub(super) async fn pieces_may_come_in_any_order(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let (mut one, two) = (source.exchange(9, 0), source.stream(10));
    one.request.body = Body {
        chunks: 3,
        ..Body::empty()
    };
    for index in [2, 0, 1] {
        let chunk = source.chunk(one.id, 1 + u64::from(index), Side::Request, index);
        let segments = Item::Segments(source.segments(two.id, 5, index));
        let put = store.put(batch([chunk, segments])).await.unwrap();
        assert_eq!(put, receipt(0, 2, 0));
    }
    assert_eq!(
        ids(&*store, &Query::default()).await,
        [],
        "a piece is no record"
    );
    let (first, second) = (one.id, two.id);
    store
        .put(batch([
            exchange(one),
            Item::Record(Record::Stream(Box::new(two))),
        ]))
        .await
        .unwrap();
    for index in 0..3 {
        let chunk = store
            .chunk(first, Side::Request, index)
            .await
            .unwrap()
            .unwrap();
        assert!(chunk.starts_with(format!("Request {index}").as_bytes()));
        let segments = store.segments(second, index).await.unwrap();
        assert_eq!(segments, Some(source.segments(second, 5, index)));
        assert_eq!(
            store.chunk(first, Side::Response, index).await.unwrap(),
            None
        );
        assert_eq!(store.segments(first, index).await.unwrap(), None);
    }
    assert_eq!(store.chunk(first, Side::Request, 3).await.unwrap(), None);
}

pub(super) async fn old_records_expire(bench: &dyn Bench) {
    let max_age = Some(Duration::from_hours(2));
    let store = bench
        .open(Retention {
            max_age,
            max_bytes: None,
        })
        .await;
    let source = Source::new();
    let minute = 60_000_000;
    let old = source.exchange(1, -119 * minute);
    let new = source.exchange(2, -10 * minute);
    let (old_id, new_id) = (old.id, new.id);
    let orphan = RecordId::from_u128(old_id.as_u128() ^ 1);
    let pieces = [old_id, orphan].map(|id| source.chunk(id, 3, Side::Request, 0));
    let mut all = batch([exchange(old), exchange(new)].into_iter().chain(pieces));
    all.arrivals[0].fingerprint = Some(Fingerprint(1));
    all.arrivals[1].fingerprint = Some(Fingerprint(1));
    settle(&mut all, vec![source.settled(3, &[])]);
    store.put(all.clone()).await.unwrap();
    assert_eq!(store.expire(source.now_us).await.unwrap().records, 0);
    assert_eq!(ids(&*store, &Query::default()).await, [new_id, old_id]);
    let expired = store.expire(source.now_us + 5 * minute).await.unwrap();
    assert_eq!(expired.records, 1);
    assert_eq!(ids(&*store, &Query::default()).await, [new_id]);
    assert_eq!(store.lookup(Fingerprint(1), 9).await.unwrap(), [new_id]);
    assert_eq!(store.get(old_id).await.unwrap(), None);
    for id in [old_id, orphan] {
        assert_eq!(store.chunk(id, Side::Request, 0).await.unwrap(), None);
    }
    assert_eq!(store.stats().await.unwrap().records, 1);
    let expired = store.expire(source.now_us + 300 * minute).await.unwrap();
    assert_eq!(expired.records, 1);
    assert!(expired.bytes > 0);
    assert_eq!(ids(&*store, &Query::default()).await, []);
    assert_eq!(
        store.settled().await.unwrap(),
        all.settled,
        "coverage outlives what it covers"
    );
}

pub(super) async fn the_oldest_make_room(bench: &dyn Bench) {
    let max_bytes = Some(16 << 20);
    let store = bench
        .open(Retention {
            max_age: None,
            max_bytes,
        })
        .await;
    let source = Source::new();
    let mut all = Vec::new();
    for seq in 1..=400 {
        let mut one = source.exchange(
            seq,
            i64::try_from(seq).unwrap() * 20_000_000 - 9_000_000_000,
        );
        one.request.body = Body::inline(Bytes::from(vec![b'x'; 60_000]));
        all.push(one.id);
        let mut one = batch([exchange(one)]);
        settle(&mut one, vec![source.settled(seq, &[])]);
        store.put(one).await.unwrap();
    }
    let expired = store.expire(source.now_us).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert!(stats.bytes <= 16 << 20, "{stats:?}");
    assert_eq!(stats.records + expired.records, 400);
    assert!(
        stats.records >= 40 && expired.records >= 100,
        "{stats:?} {expired:?}"
    );
    assert!(expired.bytes >= expired.records * 60_000, "{expired:?}");
    let kept = usize::try_from(stats.records).unwrap();
    let oldest = Query {
        order: Order::OldestFirst,
        limit: 1000,
        ..Query::default()
    };
    assert_eq!(
        ids(&*store, &oldest).await,
        all[400 - kept..],
        "the newest stay"
    );
    assert_eq!(store.get(all[0]).await.unwrap(), None);
    assert_eq!(store.settled().await.unwrap(), [source.settled(400, &[])]);
    // What a server takes for itself wavers around the limit: one step more, if any.
    let again = store.expire(source.now_us).await.unwrap().records;
    assert!(again <= 64, "{again}");
}

pub(super) async fn stats_tell_what_is_there(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let empty = store.stats().await.unwrap();
    assert_eq!((empty.records, empty.oldest_us), (0, None));
    let (old, new) = (source.exchange(1, -7_200_000_000), source.exchange(2, 0));
    let (old_id, old_us, new_us) = (old.id, old.timing.started_us, new.timing.started_us);
    let chunk = source.chunk(new.id, 3, Side::Request, 0);
    store
        .put(batch([exchange(new), exchange(old), chunk]))
        .await
        .unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.records, stats.oldest_us), (2, Some(old_us)));
    assert!(stats.bytes > 0);
    store.delete(old_id).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.records, stats.oldest_us), (1, Some(new_us)));
}

pub(super) async fn an_unreadable_record_is_named_and_breaks_nothing_else(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let mut one = source.exchange(1, 0);
    one.request.body = Body::inline(Bytes::from_static(b"the marker of what is spoilt"));
    let other = source.exchange(2, 1);
    let (id, other_id) = (one.id, other.id);
    store
        .put(batch([exchange(one), exchange(other)]))
        .await
        .unwrap();
    bench.spoil(id, "the marker of what is spoilt").await;
    match store.get(id).await {
        Err(Error::Corrupt { key, .. }) => assert!(key.contains(&id.to_string()), "{key}"),
        other => panic!("{other:?}"),
    }
    assert!(store.get(other_id).await.unwrap().is_some());
    assert_eq!(ids(&*store, &Query::default()).await, [other_id, id]);
    assert!(
        store.delete(id).await.unwrap(),
        "what cannot be read can be deleted"
    );
    assert_eq!(ids(&*store, &Query::default()).await, [other_id]);
}

pub(super) async fn empty_questions_have_empty_answers(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    assert_eq!(
        store.put(Batch::default()).await.unwrap(),
        Receipt::default()
    );
    assert_eq!(store.get(RecordId::from_u128(1)).await.unwrap(), None);
    assert!(!store.delete(RecordId::from_u128(1)).await.unwrap());
    assert_eq!(
        store.expire(source.now_us).await.unwrap(),
        super::Expired::default()
    );
    let page = store.list(&Query::default()).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    let one = source.exchange(1, 0);
    let id = one.id;
    store.put(batch([exchange(one)])).await.unwrap();
    assert_eq!(store.lookup(Fingerprint(0), 9).await.unwrap(), []);
    for (order, cursor) in [
        (Order::NewestFirst, RecordId::from_u128(0)),
        (Order::OldestFirst, RecordId::from_u128(u128::MAX)),
    ] {
        let cursor = Some(Cursor::after(cursor));
        let query = Query {
            order,
            cursor,
            ..Query::default()
        };
        assert_eq!(
            ids(&*store, &query).await,
            [],
            "nothing lies behind the end"
        );
    }
    let none = Query {
        limit: 0,
        ..Query::default()
    };
    assert_eq!(ids(&*store, &none).await, []);
    assert_eq!(ids(&*store, &Query::default()).await, [id]);
}

pub(super) async fn writers_at_once_store_each_item_once(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let batches: Vec<_> = (0..10)
        .map(|round| {
            let one = |seq| exchange(source.exchange(seq, 0));
            let items = (round * 20 + 1..=round * 20 + 20).map(one);
            batch(items)
        })
        .collect();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, batches) = (Arc::clone(&store), batches.clone());
            tokio::spawn(async move {
                let mut sum = receipt(0, 0, 0);
                for batch in batches {
                    let one = store.put(batch).await.unwrap();
                    sum.records += one.records;
                    sum.duplicates += one.duplicates;
                }
                sum
            })
        })
        .collect();
    let mut sum = receipt(0, 0, 0);
    for writer in writers {
        let one = writer.await.unwrap();
        sum.records += one.records;
        sum.duplicates += one.duplicates;
    }
    assert_eq!(sum, receipt(200, 0, 600));
    assert_eq!(store.stats().await.unwrap().records, 200);
}

pub(super) async fn texts_of_any_length_are_kept(bench: &dyn Bench) {
    let store = bench.open(Retention::default()).await;
    let source = Source::new();
    let mut one = source.exchange(1, 0);
    let long = "ü".repeat(100_000);
    one.service = long.as_str().into();
    one.request.method = long.as_str().into();
    one.request.target = format!("/{long}").into();
    one.request.headers = Headers::from_iter([("host".into(), long.clone().into())]);
    let record = Record::Exchange(Box::new(one.clone()));
    store.put(batch([exchange(one)])).await.unwrap();
    assert_eq!(store.get(record.id()).await.unwrap(), Some(record));
    let listed = store.list(&Query::default()).await.unwrap().items;
    let texts = [
        &listed[0].service,
        &listed[0].method,
        &listed[0].host,
        &listed[0].target,
    ];
    for text in texts {
        assert!(
            (500..=Summary::TEXT_BYTES).contains(&text.len()),
            "{}",
            text.len()
        );
    }
}

/// What a store should hold, in memory.
#[derive(Default)]
struct Model {
    live: BTreeMap<RecordId, (Exchange, u128)>,
    deleted: BTreeSet<RecordId>,
}

impl Model {
    fn list(&self, query: &Query) -> (Vec<RecordId>, bool) {
        let wanted = |(id, (exchange, _)): &(&RecordId, &(Exchange, u128))| {
            let summary = Summary::from(&Record::Exchange(Box::new(exchange.clone())));
            let started = exchange.timing.started_us;
            let behind = query.cursor.is_none_or(|cursor| match query.order {
                Order::NewestFirst => **id < cursor.id(),
                Order::OldestFirst => **id > cursor.id(),
            });
            behind
                && query.start_us.is_none_or(|start| start <= started)
                && query.end_us.is_none_or(|end| started < end)
                && query.filter.matches(&summary)
        };
        let mut ids: Vec<_> = self.live.iter().filter(wanted).map(|(id, _)| *id).collect();
        if query.order == Order::NewestFirst {
            ids.reverse();
        }
        let more = ids.len() > query.limit;
        ids.truncate(query.limit);
        (ids, more)
    }

    fn lookup(&self, print: u128, limit: usize) -> Vec<RecordId> {
        let with = self.live.values().filter(|(_, one)| *one == print);
        let mut found: Vec<_> = with.map(|(e, _)| (e.origin.seq, e.id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).take(limit).collect()
    }
}

pub(super) async fn agrees_with_a_model(bench: &dyn Bench) {
    let mut store = bench.open(Retention::default()).await;
    let source = Source::new();
    let mut model = Model::default();
    let hour = 3_600_000_000;
    // Always the same dice, so that a failure can be had again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut dice = move |sides: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % sides
    };
    let mut seconds_ago: Vec<_> = (0..150)
        .map(|_| i64::try_from(dice(5 * 3600)).unwrap())
        .collect();
    seconds_ago.sort_unstable();
    // Oldest first, as a recorder gives out ids; places in the sequence are given out at the end, in any order.
    let all: Vec<_> = (0..150)
        .zip(seconds_ago.into_iter().rev())
        .map(|(at, ago)| {
            let mut one = source.exchange(1 + at * 37 % 150, -ago * 1_000_000);
            one.service = ["shop", "bank"][usize::try_from(dice(2)).unwrap()].into();
            (one, u128::from(2 + dice(4)))
        })
        .collect();
    let pick = |at: u64| &all[usize::try_from(at).unwrap()];
    for round in 0..600 {
        let (one, print) = pick(dice(150)).clone();
        let id = one.id;
        match dice(8) {
            0..=2 => {
                let mut batch = batch([exchange(one.clone())]);
                batch.arrivals[0].fingerprint = Some(Fingerprint(print));
                let new = !model.live.contains_key(&id) && !model.deleted.contains(&id);
                let expected = receipt(u64::from(new), 0, u64::from(!new));
                assert_eq!(store.put(batch).await.unwrap(), expected, "round {round}");
                if new {
                    model.live.insert(id, (one, print));
                }
            }
            3 if dice(3) == 0 => {
                let there = model.live.remove(&id).is_some();
                assert_eq!(store.delete(id).await.unwrap(), there, "round {round}");
                if there {
                    model.deleted.insert(id);
                }
            }
            3 | 4 => {
                let kept = store.get(id).await.unwrap();
                let expected = model.live.get(&id).map(|(e, _)| e.clone());
                assert_eq!(kept, expected.map(|e| Record::Exchange(Box::new(e))));
            }
            5 => {
                let limit = usize::try_from(dice(9)).unwrap();
                let found = store.lookup(Fingerprint(print), limit).await.unwrap();
                assert_eq!(found, model.lookup(print, limit), "round {round}");
                let found = store.newest(Fingerprint(print), limit).await.unwrap();
                // The model gives out places at random, so that only the one order or the other can hold.
                let all = model.lookup(print, usize::MAX);
                assert_eq!(found.len(), all.len().min(limit), "round {round}");
                assert!(found.is_sorted_by(|a, b| a > b), "round {round}");
                assert!(found.iter().all(|id| all.contains(id)), "round {round}");
            }
            _ => {
                let mut moment = || {
                    let ago = i64::try_from(dice(6)).unwrap() * hour;
                    (dice(2) == 0).then_some(source.now_us - ago)
                };
                let query = Query {
                    start_us: moment(),
                    end_us: moment(),
                    filter: Filter {
                        service: [None, Some("shop".to_owned())][usize::try_from(dice(2)).unwrap()]
                            .clone(),
                        ..Filter::default()
                    },
                    order: [Order::NewestFirst, Order::OldestFirst]
                        [usize::try_from(dice(2)).unwrap()],
                    cursor: (dice(2) == 0).then_some(Cursor::after(id)),
                    limit: 1 + usize::try_from(dice(40)).unwrap(),
                };
                let page = store.list(&query).await.unwrap();
                let listed: Vec<_> = page.items.iter().map(|item| item.id).collect();
                let expected = model.list(&query);
                assert_eq!(
                    (listed, page.next.is_some()),
                    expected,
                    "round {round} {query:?}"
                );
            }
        }
        if round % 200 == 199 {
            store.close().await.unwrap();
            drop(store);
            store = bench.open(Retention::default()).await;
        }
    }
}

/// With a store that looks at so many records at most for one page.
pub(super) async fn pages_are_bounded(store: &dyn Store, scan_limit: usize) {
    let source = Source::new();
    let total = scan_limit * 3;
    let all = (1..=total).map(|seq| {
        let mut one = source.exchange(seq as u64, 0);
        if seq == 1 {
            one.service = "rare".into();
        }
        exchange(one)
    });
    store.put(batch(all)).await.unwrap();
    let rare = Filter {
        service: Some("rare".to_owned()),
        ..Filter::default()
    };
    let mut query = Query {
        filter: rare,
        limit: 1,
        ..Query::default()
    };
    let page = store.list(&query).await.unwrap();
    assert_eq!(page.items, [], "the rare one is the oldest");
    let mut found = 0;
    query.cursor = page.next;
    for _ in 0..total {
        assert!(query.cursor.is_some(), "the listing ended before its end");
        let page = store.list(&query).await.unwrap();
        found += page.items.len();
        query.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!((found, query.cursor), (1, None));
}
