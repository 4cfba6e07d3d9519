//! Capture from tee to outlet.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;

use http::{HeaderMap, Request, StatusCode};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

use super::*;
use crate::record::{
    Digest, Direction, Exchange, GapReason, Item, Outcome, Record, SegmentBatch, Side, Stream, wire,
};

/// An outlet in memory that can refuse and can be held up.
#[derive(Clone, Default)]
struct Memory {
    taken: Arc<Mutex<Vec<Encoded>>>,
    refuse: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    gate: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
}

impl Outlet for Memory {
    fn epoch(&self) -> Epoch {
        Epoch(7)
    }

    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError> {
        self.calls.fetch_add(1, SeqCst);
        if let Some(gate) = &self.gate {
            let _ = gate.lock().unwrap().recv();
        }
        if self.refuse.load(SeqCst) {
            return Err(OutletError("the disk is full".into()));
        }
        self.taken.lock().unwrap().extend_from_slice(batch);
        Ok(())
    }
}

impl Memory {
    /// Everything taken, after a check that the numbers go from 1 up by one.
    fn items(&self) -> Vec<Item> {
        let mut next = 1;
        let taken = self.taken.lock().unwrap();
        let decode = |encoded: &Encoded| {
            let item = wire::decode(&encoded.payload).unwrap();
            assert_eq!(encoded.seq.0, next, "{item:?}");
            assert_eq!(
                (item.origin().seq, item.span()),
                (encoded.seq, encoded.span)
            );
            assert_eq!(item.origin().epoch, Epoch(7));
            next += encoded.span;
            item
        };
        taken.iter().map(decode).collect()
    }

    fn exchanges(&self) -> Vec<Exchange> {
        let record = |item| match item {
            Item::Record(Record::Exchange(exchange)) => Some(*exchange),
            _ => None,
        };
        self.items().into_iter().filter_map(record).collect()
    }

    fn gaps(&self) -> Vec<(u64, GapReason)> {
        let gap = |item| match item {
            Item::Gap(gap) => Some((gap.count, gap.reason)),
            _ => None,
        };
        self.items().into_iter().filter_map(gap).collect()
    }

    fn chunks(&self, side: Side) -> Vec<u8> {
        let chunk = |item| match item {
            Item::Chunk(chunk) if chunk.side == side => Some(chunk),
            _ => None,
        };
        let mut chunks: Vec<_> = self.items().into_iter().filter_map(chunk).collect();
        chunks.sort_by_key(|chunk| chunk.index);
        let in_order = |(at, chunk): (usize, &crate::record::BodyChunk)| chunk.index as usize == at;
        assert!(chunks.iter().enumerate().all(in_order));
        chunks.into_iter().flat_map(|chunk| chunk.bytes).collect()
    }

    async fn called(&self, times: u64) {
        let enough = || self.calls.load(SeqCst) >= times;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !enough() && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert!(enough());
    }
}

fn config() -> Config {
    Config::new(NodeId::new("rec").unwrap())
}

fn start(config: Config, outlet: &Memory) -> Capture {
    Capture::start(config, Metrics::default(), Box::new(outlet.clone())).unwrap()
}

fn connection() -> Arc<Connection> {
    Arc::new(Connection {
        id: ConnectionId(3),
        service: "shop".into(),
        client: "127.0.0.1:9".into(),
        protocol: Protocol::Http1,
        tls: None,
    })
}

fn request(method: &str, target: &str) -> http::request::Parts {
    let request = Request::builder().method(method).uri(target);
    let request = request.header("host", "shop.test").header("x-a", "1");
    request.body(()).unwrap().into_parts().0
}

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), value.parse().unwrap())
    };
    pairs.iter().map(pair).collect()
}

/// One whole exchange with these bodies; whether it was copied.
fn exchange(capture: &Capture, sent: &[u8], answered: &[u8]) -> bool {
    let head = request("POST", "/items?page=2");
    let Some(tee) = capture.begin(&connection(), &head) else {
        return false;
    };
    let mut body = tee.request_body(&head.headers);
    for frame in sent.chunks(7000) {
        body.data(&Bytes::copy_from_slice(frame));
    }
    body.end();
    let upstream = "http://up:1".into();
    let headers = fields(&[("content-type", "application/json")]);
    let mut response = tee
        .respond(StatusCode::CREATED, &headers, Some(&upstream))
        .unwrap();
    for frame in answered.chunks(30_000) {
        response.data(&Bytes::copy_from_slice(frame));
    }
    response.end(Outcome::Ok);
    true
}

async fn finish(capture: &Capture) {
    assert!(capture.shutdown(Duration::from_secs(20)).await);
    let stats = capture.stats();
    assert_eq!(stats.waiting_bytes, 0, "all room is given back");
}

#[tokio::test]
async fn a_small_exchange_is_one_whole_record() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    assert!(exchange(&capture, b"{\"a\":1}", b"[]"));
    finish(&capture).await;
    let exchanges = outlet.exchanges();
    let [exchange] = &exchanges[..] else {
        panic!("{exchanges:?}")
    };
    assert_eq!(&*exchange.request.method, "POST");
    assert_eq!(&*exchange.request.target, "/items?page=2");
    assert_eq!(&*exchange.request.version, "HTTP/1.1");
    assert_eq!(exchange.request.host(), "shop.test");
    assert_eq!(exchange.request.body.inline, "{\"a\":1}");
    assert_eq!(exchange.request.body.digest, Digest::of(b"{\"a\":1}"));
    let response = exchange.response.as_ref().unwrap();
    assert_eq!(
        (response.status, &response.body.inline[..]),
        (201, &b"[]"[..])
    );
    assert_eq!(exchange.upstream.as_deref(), Some("http://up:1"));
    assert_eq!(
        (&exchange.outcome, exchange.connection),
        (&Outcome::Ok, ConnectionId(3))
    );
    let timing = exchange.timing;
    assert!(
        timing.request_end_us <= timing.first_byte_us
            && timing.first_byte_us <= Some(timing.end_us)
    );
    let subject = outlet.taken.lock().unwrap()[0].subject.clone();
    let [service, protocol, method, status] = ["shop", "http", "POST", "201"].map(Arc::from);
    assert_eq!(
        subject,
        Subject::Traffic {
            service,
            protocol,
            method,
            status
        }
    );
}

#[tokio::test]
async fn large_bodies_go_out_in_chunks_that_add_up() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    let sent: Vec<u8> = (0..200_000_u32).map(|n| (n / 7) as u8).collect();
    let answered: Vec<u8> = (0..300_001_u32).map(|n| (n / 3) as u8).collect();
    exchange(&capture, &sent, &answered);
    finish(&capture).await;
    assert!(outlet.chunks(Side::Request) == sent);
    assert!(outlet.chunks(Side::Response) == answered);
    let exchange = &outlet.exchanges()[0];
    let body = &exchange.response.as_ref().unwrap().body;
    assert_eq!(
        (body.chunks, body.bytes, body.truncated),
        (7, 300_001, false)
    );
    assert_eq!(body.digest, Digest::of(&answered));
    assert_eq!(exchange.request.body.digest, Digest::of(&sent));
    let longest = outlet
        .taken
        .lock()
        .unwrap()
        .iter()
        .map(|e| e.payload.len())
        .max();
    assert!(longest.unwrap() <= config().max_message_bytes);
}

#[tokio::test]
async fn caps_a_body_and_says_so() {
    let outlet = Memory::default();
    let mut config = config();
    config.settings.max_body_bytes = 100_000;
    let capture = start(config, &outlet);
    exchange(&capture, &[1; 10], &[2; 250_000]);
    finish(&capture).await;
    let body = outlet.exchanges().remove(0).response.unwrap().body;
    assert_eq!((body.bytes, body.truncated), (250_000, true));
    assert_eq!(body.digest, Digest::of(&[2; 250_000]));
    assert_eq!(outlet.chunks(Side::Response).len(), 100_000);
    assert_eq!(capture.stats().truncated, 1);
}

#[tokio::test]
async fn overload_leaves_a_gap_of_exactly_what_was_dropped() {
    let (open, gate) = mpsc::channel();
    let outlet = Memory {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Memory::default()
    };
    let mut config = config();
    config.queue_items = 5;
    let capture = start(config, &outlet);
    exchange(&capture, b"", b"first");
    // The worker now stands in the outlet, so what follows can only wait.
    outlet.called(1).await;
    for _ in 0..20 {
        exchange(&capture, b"", b"more");
    }
    drop(open);
    finish(&capture).await;
    assert_eq!(outlet.exchanges().len(), 6);
    assert_eq!(outlet.gaps(), [(15, GapReason::CaptureOverload)]);
    let stats = capture.stats();
    assert_eq!(
        (stats.sequence, stats.appended, stats.dropped),
        (21, 6, [15, 0, 0, 0])
    );
}

#[tokio::test]
async fn bytes_over_the_budget_are_refused_before_they_are_held() {
    let (open, gate) = mpsc::channel();
    let outlet = Memory {
        gate: Some(Arc::new(Mutex::new(gate))),
        ..Memory::default()
    };
    let mut config = config();
    config.queue_bytes = 200_000;
    let capture = start(config, &outlet);
    exchange(&capture, b"", b"first");
    outlet.called(1).await;
    let copied = (0..100)
        .filter(|_| exchange(&capture, &[], &[3; 10_000]))
        .count();
    assert!(capture.stats().waiting_bytes <= 200_000 + 1000);
    drop(open);
    finish(&capture).await;
    assert!((10..100).contains(&copied), "{copied}");
    assert_eq!(outlet.exchanges().len(), copied + 1);
    let dropped: u64 = outlet.gaps().iter().map(|(count, _)| count).sum();
    assert_eq!(dropped, 100 - copied as u64);
    // A body for which there was no room any more is cut, not lost without a word.
    for exchange in outlet.exchanges() {
        let body = exchange.response.unwrap().body;
        assert_eq!(body.truncated, (body.inline.len() as u64) < body.bytes);
    }
}

#[tokio::test]
async fn what_the_outlet_refuses_becomes_a_gap_before_the_next_batch() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    outlet.refuse.store(true, SeqCst);
    exchange(&capture, b"", b"lost");
    outlet.called(1).await;
    exchange(&capture, b"", b"lost too");
    outlet.called(2).await;
    outlet.refuse.store(false, SeqCst);
    exchange(&capture, b"", b"kept");
    finish(&capture).await;
    let kept = outlet.exchanges();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].origin.seq, Sequence(3));
    assert_eq!(outlet.gaps(), [(2, GapReason::SpoolWrite)]);
    assert_eq!(capture.stats().dropped, [0, 0, 2, 0]);
}

#[tokio::test]
async fn a_last_refused_batch_is_still_reported_at_shutdown() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    outlet.refuse.store(true, SeqCst);
    exchange(&capture, b"", b"lost");
    outlet.called(1).await;
    outlet.refuse.store(false, SeqCst);
    finish(&capture).await;
    assert_eq!(outlet.gaps(), [(1, GapReason::SpoolWrite)]);
}

#[tokio::test]
async fn a_record_over_the_limit_has_its_bodies_moved_out() {
    let outlet = Memory::default();
    let mut config = config();
    config.inline_bytes = 40_000;
    let capture = start(config, &outlet);
    let (sent, answered) = (vec![1; 39_000], vec![2; 39_000]);
    exchange(&capture, &sent, &answered);
    finish(&capture).await;
    let exchange = &outlet.exchanges()[0];
    let response = &exchange.response.as_ref().unwrap().body;
    assert_eq!((exchange.request.body.chunks, response.chunks), (1, 1));
    assert!(outlet.chunks(Side::Request) == sent && outlet.chunks(Side::Response) == answered);
    assert_eq!(response.digest, Digest::of(&answered));
    assert!(!response.truncated);
}

#[tokio::test]
async fn a_head_over_the_limit_becomes_a_gap() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    let mut head = request("GET", "/");
    let long = "x".repeat(61 << 10);
    head.headers.insert("x-long", long.parse().unwrap());
    drop(capture.begin(&connection(), &head));
    exchange(&capture, b"", b"small");
    finish(&capture).await;
    assert_eq!(outlet.gaps(), [(1, GapReason::Oversize)]);
    assert_eq!(outlet.exchanges().len(), 1);
    let stats = capture.stats();
    assert_eq!(
        stats.sequence,
        stats.appended + stats.dropped.iter().sum::<u64>()
    );
}

#[tokio::test]
async fn a_tee_that_is_dropped_says_who_broke_off() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    let head = request("POST", "/");
    let tee = capture.begin(&connection(), &head).unwrap();
    let mut body = tee.request_body(&head.headers);
    body.data(&Bytes::from_static(b"half"));
    drop(body);
    let mut response = tee
        .respond(StatusCode::OK, &HeaderMap::new(), None)
        .unwrap();
    response.data(&Bytes::from_static(b"part"));
    drop(response);
    drop(capture.begin(&connection(), &head).unwrap());
    finish(&capture).await;
    let [first, second] = &outlet.exchanges()[..] else {
        panic!()
    };
    assert_eq!(first.outcome, Outcome::ClientClosed);
    assert!(first.request.body.truncated);
    let response = first.response.as_ref().unwrap();
    assert!(response.body.truncated);
    assert_eq!(response.body.inline, "part");
    assert_eq!(
        (&second.response, &second.outcome),
        (&None, &Outcome::ClientClosed)
    );
}

#[tokio::test]
async fn pause_sample_rules_and_replays_are_left_out_and_counted() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    capture.pause();
    assert!(!exchange(&capture, b"", b""));
    capture.resume();
    capture.set_sample(0.25);
    let copied = (0..100).filter(|_| exchange(&capture, b"", b"")).count();
    assert_eq!(copied, 25);
    capture.set_sample(1.0);
    let mut replayed = request("GET", "/");
    replayed.headers.insert(REPLAY_HEADER, "1".parse().unwrap());
    assert!(capture.begin(&connection(), &replayed).is_none());
    let mut settings = Settings::clone(&capture.settings().unwrap());
    settings.exclude = vec![Rule {
        statuses: vec!["2xx".parse().unwrap()],
        ..Rule::default()
    }];
    capture.set_settings(settings);
    let head = request("GET", "/");
    let tee = capture.begin(&connection(), &head).unwrap();
    assert!(
        tee.respond(StatusCode::OK, &HeaderMap::new(), None)
            .is_none()
    );
    let tee = capture.begin(&connection(), &head).unwrap();
    assert!(
        tee.respond(StatusCode::NOT_FOUND, &HeaderMap::new(), None)
            .is_some()
    );
    finish(&capture).await;
    assert_eq!(outlet.exchanges().len(), 26);
    assert_eq!(capture.stats().skipped, 1 + 75 + 1 + 1);
}

#[tokio::test]
async fn no_piece_of_a_request_goes_out_after_the_rules_refused_its_exchange() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    let mut settings = Settings::clone(&capture.settings().unwrap());
    settings.exclude = vec![Rule {
        paths: vec!["/items".into()],
        hosts: vec!["up.test".into()],
        statuses: vec!["2xx".parse().unwrap()],
        ..Rule::default()
    }];
    capture.set_settings(settings);
    let head = request("POST", "http://up.test/items?page=2");
    let tee = capture.begin(&connection(), &head).unwrap();
    let mut body = tee.request_body(&head.headers);
    body.data(&Bytes::from(vec![1; 1000]));
    assert!(
        tee.respond(StatusCode::OK, &HeaderMap::new(), None)
            .is_none()
    );
    for _ in 0..50 {
        body.data(&Bytes::from(vec![2; 10_000]));
    }
    body.end();
    finish(&capture).await;
    assert!(outlet.items().is_empty());
    assert_eq!(capture.stats().skipped, 1);
}

#[tokio::test]
async fn secrets_are_masked_or_withheld_never_sent() {
    let outlet = Memory::default();
    let mut config = config();
    config.redact_buffer_bytes = 30_000;
    config.settings.redact_headers = vec!["x-a".into()];
    config.settings.redact_json = vec!["/password".into()];
    let capture = start(config, &outlet);
    let secret = format!(
        "{{\"password\":\"hunter2\",\"fill\":\"{}\"}}",
        "x".repeat(20_000)
    );
    exchange(&capture, b"", secret.as_bytes());
    let large = format!(
        "{{\"fill\":\"{}\",\"password\":\"hunter2\"}}",
        "x".repeat(100_000)
    );
    exchange(&capture, b"", large.as_bytes());
    finish(&capture).await;
    for encoded in outlet.taken.lock().unwrap().iter() {
        assert!(!encoded.payload.windows(7).any(|w| w == b"hunter2"));
    }
    let [masked, withheld] = &outlet.exchanges()[..] else {
        panic!()
    };
    let names: Vec<_> = masked.redactions.iter().map(|name| &**name).collect();
    assert_eq!(names, ["header:x-a", "json:/password"]);
    assert!(
        masked
            .request
            .headers
            .all("x-a")
            .all(|value| value == "***")
    );
    let body = &masked.response.as_ref().unwrap().body;
    assert!(!body.truncated);
    assert_eq!(body.inline.len(), secret.len() - 4);
    let body = &withheld.response.as_ref().unwrap().body;
    assert!(body.truncated && body.inline.is_empty() && body.chunks == 0);
    assert!(withheld.redactions.contains(&"body:response".into()));
}

fn streams(outlet: &Memory) -> (Vec<SegmentBatch>, Vec<Stream>) {
    let (mut batches, mut ends) = (Vec::new(), Vec::new());
    for item in outlet.items() {
        match item {
            Item::Segments(batch) => batches.push(batch),
            Item::Record(Record::Stream(stream)) => ends.push(*stream),
            other => panic!("{other:?}"),
        }
    }
    (batches, ends)
}

#[tokio::test]
async fn a_stream_keeps_order_direction_and_close() {
    let outlet = Memory::default();
    let capture = start(config(), &outlet);
    let mut tee = capture.begin_stream(&connection()).unwrap();
    let large = Bytes::from(vec![9; 150_000]);
    tee.segment(Direction::Client, &Bytes::from_static(b"ask"));
    tee.segment(Direction::Server, &large);
    tee.segment(Direction::Client, &Bytes::new());
    tee.end(Outcome::Ok, Some(&"db:1".into()));
    finish(&capture).await;
    let (batches, ends) = streams(&outlet);
    let [end] = &ends[..] else { panic!("{ends:?}") };
    assert_eq!((end.client_bytes, end.server_bytes), (3, 150_000));
    assert_eq!(
        (end.batches as usize, end.truncated),
        (batches.len(), false)
    );
    assert!(
        batches
            .iter()
            .enumerate()
            .all(|(at, batch)| batch.index as usize == at)
    );
    let segments: Vec<_> = batches
        .into_iter()
        .flat_map(|batch| batch.segments)
        .collect();
    assert_eq!(segments[0].bytes, "ask");
    assert_eq!(segments.last().unwrap().direction, Direction::Client);
    assert!(segments.last().unwrap().bytes.is_empty());
    let answer: Vec<u8> = segments
        .iter()
        .filter(|segment| segment.direction == Direction::Server)
        .flat_map(|segment| segment.bytes.to_vec())
        .collect();
    assert!(answer == large);
}

#[tokio::test]
async fn a_stream_over_its_limit_is_cut_and_says_so() {
    let outlet = Memory::default();
    let mut config = config();
    config.max_stream_bytes = 1000;
    let capture = start(config, &outlet);
    let mut tee = capture.begin_stream(&connection()).unwrap();
    for _ in 0..3 {
        tee.segment(Direction::Server, &Bytes::from(vec![1; 600]));
    }
    drop(tee);
    finish(&capture).await;
    let (batches, ends) = streams(&outlet);
    let kept: usize = batches
        .iter()
        .flat_map(|b| &b.segments)
        .map(|s| s.bytes.len())
        .sum();
    assert_eq!(
        (kept, ends[0].server_bytes, ends[0].truncated),
        (1000, 1800, true)
    );
    assert_eq!(ends[0].outcome.as_str(), "proxy_closed");
}

#[tokio::test]
async fn a_disabled_handle_copies_nothing() {
    let capture = Capture::disabled();
    assert!(!exchange(&capture, b"", b""));
    assert!(capture.begin_stream(&connection()).is_none());
    assert!(capture.shutdown(Duration::ZERO).await);
}

#[test]
fn refuses_limits_that_make_no_sense() {
    for change in [
        |c: &mut Config| c.max_message_bytes = 100,
        |c: &mut Config| c.chunk_bytes = 60 << 10,
        |c: &mut Config| c.inline_bytes = 50 << 10,
        |c: &mut Config| c.queue_bytes = 1000,
        |c: &mut Config| c.queue_items = 0,
        |c: &mut Config| c.linger = Duration::from_secs(2),
    ] {
        let mut config = config();
        change(&mut config);
        assert!(matches!(config.check(), Err(Error::Limit { .. })));
    }
    assert!(config().check().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn numbers_have_no_hole_whatever_is_dropped(
        steps in prop::collection::vec((0_usize..90_000, any::<bool>()), 1..40),
        queue_items in 1_usize..12,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let outlet = Memory::default();
        let mut config = config();
        config.queue_items = queue_items;
        config.queue_bytes = 150_000;
        let capture = start(config, &outlet);
        for (size, refuse) in &steps {
            outlet.refuse.store(*refuse, SeqCst);
            exchange(&capture, &vec![1; size / 3], &vec![2; *size]);
        }
        outlet.refuse.store(false, SeqCst);
        runtime.block_on(finish(&capture));
        // `items` checks the numbers one by one.
        let last = outlet.items().iter().map(|item| item.origin().seq.0 + item.span() - 1).max();
        let stats = capture.stats();
        assert_eq!(last, Some(stats.sequence));
        assert_eq!(stats.sequence, stats.appended + stats.dropped.iter().sum::<u64>());
    }
}
