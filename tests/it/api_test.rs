//! The API over real HTTP, on a store in memory: each route, each kind of refusal, and what keeps recorded
//! content from acting as the dashboard.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use qproxy::api::{
    self, Config, Events, Metrics, Pace, Parts, ReplayRefused, ReplayRequest, Replays, Running,
    Sections, StatusSource, dto,
};
use qproxy::metrics::Registry;
use qproxy::record::{
    Body, ConnectionId, Coverage, Digest, Direction, Epoch, Exchange, Fingerprint, Headers,
    IdSource, Item, NodeId, Origin, Outcome, Protocol, Record, RecordId, Request, Response,
    Segment, SegmentBatch, Sequence, Side, Stream, Timing,
};
use qproxy::store::{
    self, Batch, Cursor, Expired, Order, Page, Query, Receipt, Settled, Stats, Store, Summary,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const START_US: i64 = 1_767_268_800_000_000; // 2026-01-01T12:00:00Z

#[derive(Default)]
struct Memory {
    records: Mutex<BTreeMap<u128, Record>>,
    chunks: HashMap<(Side, u32), Bytes>,
    batches: HashMap<u32, SegmentBatch>,
    broken: bool,
}

#[async_trait]
impl Store for Memory {
    async fn put(&self, batch: Batch) -> Result<Receipt, store::Error> {
        let mut receipt = Receipt::default();
        for arrival in batch.arrivals {
            if let Item::Record(record) = arrival.decoded.item {
                self.records
                    .lock()
                    .unwrap()
                    .insert(record.id().as_u128(), record);
                receipt.records += 1;
            }
        }
        Ok(receipt)
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, store::Error> {
        Ok(self.records.lock().unwrap().get(&id.as_u128()).cloned())
    }

    async fn delete(&self, id: RecordId) -> Result<bool, store::Error> {
        Ok(self.records.lock().unwrap().remove(&id.as_u128()).is_some())
    }

    async fn list(&self, query: &Query) -> Result<Page, store::Error> {
        if self.broken {
            return Err(store::Error::Full("no room".to_owned()));
        }
        let records = self.records.lock().unwrap();
        let mut all: Vec<Summary> = records.values().map(Summary::from).collect();
        if query.order == Order::NewestFirst {
            all.reverse();
        }
        let after = query
            .cursor
            .and_then(|cursor| all.iter().position(|s| s.id == cursor.id()));
        let wanted = all
            .into_iter()
            .skip(after.map_or(0, |at| at + 1))
            .filter(|summary| {
                query
                    .start_us
                    .is_none_or(|start| summary.started_us >= start)
                    && query.end_us.is_none_or(|end| summary.started_us < end)
                    && query.filter.matches(summary)
            });
        let mut items: Vec<Summary> = wanted.take(query.limit + 1).collect();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next = items
            .last()
            .filter(|_| more)
            .map(|last| Cursor::after(last.id));
        Ok(Page { items, next })
    }

    async fn lookup(&self, _: Fingerprint, _: usize) -> Result<Vec<RecordId>, store::Error> {
        Ok(Vec::new())
    }

    async fn newest(&self, _: Fingerprint, _: usize) -> Result<Vec<RecordId>, store::Error> {
        Ok(Vec::new())
    }

    async fn chunk(
        &self,
        _: RecordId,
        side: Side,
        index: u32,
    ) -> Result<Option<Bytes>, store::Error> {
        Ok(self.chunks.get(&(side, index)).cloned())
    }

    async fn segments(
        &self,
        _: RecordId,
        index: u32,
    ) -> Result<Option<SegmentBatch>, store::Error> {
        Ok(self.batches.get(&index).cloned())
    }

    async fn settled(&self) -> Result<Vec<Settled>, store::Error> {
        let node = NodeId::new("az1").unwrap();
        Ok(vec![Settled {
            node,
            epoch: Epoch(1),
            coverage: Coverage::default(),
        }])
    }

    async fn expire(&self, _: i64) -> Result<Expired, store::Error> {
        Ok(Expired::default())
    }

    async fn stats(&self) -> Result<Stats, store::Error> {
        let records = self.records.lock().unwrap().len() as u64;
        Ok(Stats {
            records,
            bytes: 7,
            oldest_us: Some(START_US),
        })
    }

    async fn close(&self) -> Result<(), store::Error> {
        Ok(())
    }
}

struct Node {
    name: NodeId,
    reasons: Vec<String>,
}

#[async_trait]
impl StatusSource for Node {
    fn node(&self) -> &NodeId {
        &self.name
    }

    fn mode(&self) -> &str {
        "Record"
    }

    async fn sections(&self) -> Sections {
        let counts = dto::Counts {
            recorded: 5,
            lost: 1,
            ..dto::Counts::default()
        };
        Sections {
            counts,
            ledger: json!({"recorder": {"epoch": 1}}),
            ..Sections::default()
        }
    }

    async fn health(&self) -> Vec<String> {
        self.reasons.clone()
    }
}

#[derive(Default)]
struct Runs(Mutex<Vec<ReplayRequest>>);

#[async_trait]
impl Replays for Runs {
    async fn start(&self, request: ReplayRequest) -> Result<String, ReplayRefused> {
        if request.target.host_str() != Some("127.0.0.1") {
            return Err(ReplayRefused::TargetNotAllowed(request.target.to_string()));
        }
        let mut runs = self.0.lock().unwrap();
        if runs.len() == 2 {
            return Err(ReplayRefused::TooMany(2));
        }
        runs.push(request);
        Ok(format!("run-{}", runs.len()))
    }

    async fn list(&self) -> Vec<Value> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|run| json!({"target": run.target.as_str()}))
            .collect()
    }

    async fn report(&self, id: &str) -> Option<Value> {
        (id == "run-1").then(|| json!({"id": id, "state": "finished"}))
    }

    async fn cancel(&self, id: &str) -> bool {
        id == "run-1"
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

struct TestApi {
    running: Running,
    events: Events,
    runs: Arc<Runs>,
}

async fn start(store: Option<Memory>, config: Config, reasons: &[&str]) -> TestApi {
    let events = Events::default();
    let runs = Arc::new(Runs::default());
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let parts = Parts {
        replays: store
            .is_some()
            .then(|| Arc::clone(&runs) as Arc<dyn Replays>),
        store: store.map(|store| Arc::new(store) as Arc<dyn Store>),
        backups: None,
        status: Arc::new(Node {
            name: NodeId::new("az1").unwrap(),
            reasons: reasons.iter().map(ToString::to_string).collect(),
        }),
        events: events.clone(),
        registry: Arc::new(registry),
        metrics,
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let running = api::serve(Config { listen, ..config }, parts)
        .await
        .unwrap();
    TestApi {
        running,
        events,
        runs,
    }
}

async fn with(records: Vec<Record>) -> TestApi {
    let store = Memory::default();
    let records = records
        .into_iter()
        .map(|record| (record.id().as_u128(), record));
    store.records.lock().unwrap().extend(records);
    start(Some(store), Config::default(), &[]).await
}

impl TestApi {
    async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let socket = TcpStream::connect(self.running.local_addr()).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = HttpRequest::builder().method(method).uri(path);
        if !fields.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.running.local_addr().to_string());
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let response = self.connect().await.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let fields = [("content-type", "application/json")];
        self.send(Method::POST, path, &fields, &body.to_string())
            .await
    }

    /// Opens an event stream and waits until it watches.
    async fn watch(&self, path: &str) -> hyper::body::Incoming {
        let host = self.running.local_addr().to_string();
        let request = HttpRequest::get(path)
            .header("host", host)
            .body(Full::default())
            .unwrap();
        let response = self.connect().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        assert!(next_text(&mut body).await.unwrap().contains("watching"));
        body
    }
}

async fn next_text(body: &mut hyper::body::Incoming) -> Option<String> {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame())
        .await
        .expect("an event");
    let bytes = frame?.ok()?.into_data().ok()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
    fields
        .iter()
        .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
        .collect()
}

fn origin(seq: u64) -> Origin {
    Origin {
        node: NodeId::new("az1").unwrap(),
        epoch: Epoch(1),
        seq: Sequence(seq),
    }
}

fn exchange(seq: u64, target: &str, status: u16) -> Exchange {
    let started_us = START_US + i64::try_from(seq).unwrap() * 1_000_000;
    Exchange {
        id: IdSource::default().next_id(started_us),
        origin: origin(seq),
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: Some("http://127.0.0.1:1".into()),
        tls: None,
        timing: Timing {
            started_us,
            end_us: 1500,
            ..Timing::default()
        },
        request: Request {
            method: "GET".into(),
            target: target.into(),
            version: "HTTP/1.1".into(),
            headers: headers(&[("Host", "shop.local"), ("X-Twice", "1"), ("x-twice", "2")]),
            body: Body::empty(),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status,
            headers: headers(&[("Content-Type", "text/html")]),
            body: Body::inline(Bytes::from_static(b"<script>alert(1)</script>")),
            trailers: Headers::default(),
            informational: Vec::new(),
        }),
        outcome: Outcome::Ok,
        flow: qproxy::record::Flow::default(),
        redactions: Vec::new(),
    }
}

fn record(exchange: Exchange) -> Record {
    Record::Exchange(Box::new(exchange))
}

fn ids(answer: &Answer) -> Vec<String> {
    let listing: dto::Listing = serde_json::from_slice(&answer.body).unwrap();
    listing
        .records
        .into_iter()
        .map(|record| record.id)
        .collect()
}

#[tokio::test]
async fn lists_by_time_and_pages_with_a_cursor() {
    let exchanges: Vec<_> = (1..=5).map(|n| exchange(n, "/items", 200)).collect();
    let expected: Vec<_> = exchanges.iter().map(|e| e.id.to_string()).collect();
    let api = with(exchanges.into_iter().map(record).collect()).await;

    let newest = api.get("/api/records").await;
    assert_eq!(newest.status, 200);
    assert_eq!(
        ids(&newest),
        expected.iter().rev().cloned().collect::<Vec<_>>()
    );
    assert_eq!(newest.json()["next"], Value::Null);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api
            .get(&format!("/api/records?order=oldest&limit=2{cursor}"))
            .await;
        seen.extend(ids(&page));
        let Some(next) = page.json()["next"].as_str().map(str::to_owned) else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, expected);

    let window = "/api/records?start=2026-01-01T12:00:02Z&end=2026-01-01T20:00:04%2B08:00";
    assert_eq!(
        ids(&api.get(window).await),
        [expected[2].clone(), expected[1].clone()]
    );
}

#[tokio::test]
async fn filters_reach_the_store() {
    let mut post = exchange(2, "/cart?x=1", 503);
    post.request.method = "POST".into();
    let wanted = post.id.to_string();
    let api = with(vec![record(exchange(1, "/items", 200)), record(post)]).await;
    for filter in [
        "method=POST",
        "status=5xx",
        "status=503",
        "path=/cart",
        "q=x%3D1",
    ] {
        assert_eq!(
            ids(&api.get(&format!("/api/records?{filter}")).await),
            std::slice::from_ref(&wanted),
            "{filter}"
        );
    }
    let all = "node=az1&service=shop&protocol=http&host=SHOP.local&outcome=ok";
    assert_eq!(ids(&api.get(&format!("/api/records?{all}")).await).len(), 2);
}

#[tokio::test]
async fn each_bad_parameter_is_answered_400_with_its_name() {
    let api = with(Vec::new()).await;
    let cases = [
        ("/api/records?limit=0", "limit"),
        ("/api/records?limit=1001", "limit"),
        ("/api/records?start=2026-01-01T12:00:00", "start"),
        ("/api/records?end=never", "end"),
        (
            "/api/records?start=2026-01-01T12:00:00Z&end=2026-01-01T11:00:00Z",
            "end",
        ),
        ("/api/records?status=abc", "status"),
        ("/api/records?order=sideways", "order"),
        ("/api/records?cursor=1", "cursor"),
        ("/api/records?protocol=gopher", "protocol"),
        ("/api/records?outcome=meh", "outcome"),
        ("/api/records?node=a%20b", "node"),
        ("/api/records?offset=3", "offset"),
        ("/api/records/17", "id"),
        ("/api/records/17/segments?batch=-1", "batch"),
        ("/api/records/17/response/body", "id"),
        ("/api/events?limit=3", "limit"),
        ("/api/status?verbose=1", "verbose"),
    ];
    for (path, name) in cases {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        let error = &answer.json()["error"];
        assert_eq!(error["parameter"], name, "{path}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let said = api
        .get("/api/records?start=2026-01-01T12:00:00")
        .await
        .json();
    assert!(
        said["error"]["message"]
            .as_str()
            .unwrap()
            .contains("with an offset"),
        "{said}"
    );
}

#[tokio::test]
async fn shows_a_record_with_its_headers_in_order() {
    let exchange = exchange(1, "/items?a=1", 200);
    let id = exchange.id;
    let api = with(vec![record(exchange)]).await;
    let answer = api.get(&format!("/api/records/{id}")).await;
    let shown: dto::Record = serde_json::from_slice(&answer.body).unwrap();
    let request = shown.request.unwrap();
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/items?a=1")
    );
    let names: Vec<_> = request
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["Host", "X-Twice", "x-twice"]);
    let body = shown.response.unwrap().body;
    assert_eq!(body.text.as_deref(), Some("<script>alert(1)</script>"));
    let digest = *Digest::of(b"<script>alert(1)</script>").as_be_bytes();
    assert_eq!(body.digest, format!("{:032x}", u128::from_be_bytes(digest)));
    assert_eq!(
        shown.timing.started.as_deref(),
        Some("2026-01-01T12:00:01.000000Z")
    );
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[tokio::test]
async fn recorded_content_cannot_act_as_the_dashboard() {
    let exchange = exchange(1, "/", 200);
    let id = exchange.id;
    let api = with(vec![record(exchange)]).await;
    let answer = api.get(&format!("/api/records/{id}/response/body")).await;
    assert_eq!(answer.body, "<script>alert(1)</script>");
    assert_eq!(answer.header("content-type"), "text/html");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(
        answer.header("content-security-policy"),
        "sandbox; default-src 'none'"
    );
    assert_eq!(
        answer.header("content-disposition"),
        format!("attachment; filename=\"{id}-response\"")
    );
    let empty = api.get(&format!("/api/records/{id}/request/body")).await;
    assert_eq!((empty.status, empty.body.len()), (StatusCode::OK, 0));
    assert_eq!(empty.header("content-type"), "application/octet-stream");
}

fn chunked(chunks: u32, bytes: u64, truncated: bool) -> Exchange {
    let mut exchange = exchange(1, "/large", 200);
    let response = exchange.response.as_mut().unwrap();
    response.headers = headers(&[("content-type", "image/png"), ("content-encoding", "gzip")]);
    response.body = Body {
        chunks,
        bytes,
        truncated,
        ..Body::empty()
    };
    exchange
}

async fn with_chunks(exchange: Exchange, present: &[u32]) -> TestApi {
    let store = Memory {
        records: Mutex::new([(exchange.id.as_u128(), record(exchange))].into()),
        chunks: present
            .iter()
            .map(|index| {
                (
                    (Side::Response, *index),
                    Bytes::from(format!("chunk{index}")),
                )
            })
            .collect(),
        ..Memory::default()
    };
    start(Some(store), Config::default(), &[]).await
}

#[tokio::test]
async fn a_large_body_is_streamed_from_its_chunks() {
    let exchange = chunked(3, 18, false);
    let id = exchange.id;
    let api = with_chunks(exchange, &[0, 1, 2]).await;
    let answer = api.get(&format!("/api/records/{id}/response/body")).await;
    assert_eq!(answer.body, "chunk0chunk1chunk2");
    assert_eq!(
        (
            answer.header("content-length"),
            answer.header("content-encoding")
        ),
        ("18", "gzip")
    );
    let shown = api.get(&format!("/api/records/{id}")).await.json();
    assert_eq!(shown["response"]["body"]["chunks"], 3);
    assert_eq!(shown["completeness"], "complete");
    assert_eq!(shown["response"]["body"].get("text"), None);
}

#[tokio::test]
async fn a_truncated_body_says_so_and_is_not_called_coded() {
    let exchange = chunked(1, 1 << 40, true);
    let id = exchange.id;
    let api = with_chunks(exchange, &[0]).await;
    let answer = api.get(&format!("/api/records/{id}/response/body")).await;
    assert_eq!(
        (answer.body.as_ref(), answer.header("qproxy-truncated")),
        (&b"chunk0"[..], "true")
    );
    assert_eq!(answer.header("content-encoding"), "");
}

#[tokio::test]
async fn a_missing_chunk_is_never_passed_over_in_silence() {
    let exchange = chunked(3, 18, false);
    let path = format!("/api/records/{}/response/body", exchange.id);
    let api = with_chunks(exchange.clone(), &[1, 2]).await;
    let answer = api.get(&path).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("incomplete_body"))
    );

    let shown = api
        .get(&format!("/api/records/{}", exchange.id))
        .await
        .json();
    assert_eq!(shown["completeness"], "incomplete");
    let listed = api.get("/api/records").await.json();
    assert_eq!(listed["records"][0]["completeness"], "incomplete");
    let api = with_chunks(exchange, &[0, 2]).await;
    let host = api.running.local_addr().to_string();
    let request = HttpRequest::get(path)
        .header("host", host)
        .body(Full::default())
        .unwrap();
    // The head may or may not be out when the second piece turns out to be missing.
    let whole = match api.connect().await.send_request(request).await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole, "the answer must break off");
}

#[tokio::test]
async fn a_stream_is_shown_with_its_segments_in_pages() {
    let id = IdSource::default().next_id(START_US);
    let stream = Stream {
        id,
        origin: origin(9),
        service: "db".into(),
        protocol: Protocol::Tcp,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: Some("db:1".into()),
        tls: None,
        timing: Timing {
            started_us: START_US,
            ..Timing::default()
        },
        client_bytes: 2,
        server_bytes: 1,
        batches: 3,
        truncated: false,
        outcome: Outcome::Ok,
    };
    let batch = |index, direction, bytes: &'static [u8]| {
        let segment = Segment {
            direction,
            offset_us: 5,
            bytes: Bytes::from_static(bytes),
        };
        (
            index,
            SegmentBatch {
                record: id,
                origin: origin(1),
                index,
                segments: vec![segment],
            },
        )
    };
    let store = Memory {
        records: Mutex::new([(id.as_u128(), Record::Stream(Box::new(stream)))].into()),
        batches: [
            batch(0, Direction::Client, b"hi"),
            batch(2, Direction::Server, b"\xff"),
        ]
        .into(),
        ..Memory::default()
    };
    let api = start(Some(store), Config::default(), &[]).await;
    let shown = api.get(&format!("/api/records/{id}")).await.json();
    assert_eq!(shown["stream"]["batches"], 3);
    assert_eq!(shown.get("request"), None);
    let first = api
        .get(&format!("/api/records/{id}/segments?limit=2"))
        .await
        .json();
    assert_eq!(
        first["segments"],
        json!([{"from": "client", "offset_us": 5, "text": "hi"}])
    );
    assert_eq!(
        (&first["missing"], &first["next"]),
        (&json!([1]), &json!(2))
    );
    let rest = api
        .get(&format!("/api/records/{id}/segments?batch=2"))
        .await
        .json();
    assert_eq!(
        rest["segments"],
        json!([{"from": "server", "offset_us": 5, "base64": "/w=="}])
    );
    assert_eq!(rest["next"], Value::Null);
    assert_eq!(
        api.get(&format!("/api/records/{id}/response/body"))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn deletes_once() {
    let exchange = exchange(1, "/", 200);
    let path = format!("/api/records/{}", exchange.id);
    let api = with(vec![record(exchange)]).await;
    let delete = async |path: &str| api.send(Method::DELETE, path, &[], "").await;
    let done = delete(&path).await;
    assert_eq!((done.status, done.body.len()), (StatusCode::NO_CONTENT, 0));
    let again = delete(&path).await;
    assert_eq!(
        (again.status, again.json()["error"]["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
    assert_eq!(delete("/api/records/nonsense").await.status, 400);
    assert_eq!(api.get(&path).await.status, 404);
}

#[tokio::test]
async fn status_tells_mode_counts_and_resources() {
    let api = with(vec![record(exchange(1, "/", 200))]).await;
    let status = api.get("/api/status").await.json();
    assert_eq!(
        (&status["node"], &status["mode"]),
        (&json!("az1"), &json!("Record"))
    );
    assert_eq!(
        (&status["counts"]["recorded"], &status["counts"]["records"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(
        (
            &status["counts"]["lost"],
            &status["ledger"]["recorder"]["epoch"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["store"]["oldest"], "2026-01-01T12:00:00.000000Z");
    assert!(
        status["resources"]["rss_bytes"].as_u64().unwrap() > 0,
        "{status}"
    );
    assert!(status["started"].as_str().unwrap().ends_with('Z') && status["uptime_s"].is_u64());
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let api = with(Vec::new()).await;
    api.get("/api/records").await;
    api.get("/nothing/here").await;
    let page = api.get("/metrics").await;
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert_eq!(page.header("content-type"), qproxy::metrics::CONTENT_TYPE);
    for line in [
        "qproxy_api_requests_total{route=\"/api/records\",status=\"200\"} 1",
        "qproxy_api_requests_total{route=\"other\",status=\"404\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let resident = text
        .lines()
        .find_map(|l| l.strip_prefix("qproxy_process_resident_bytes "))
        .unwrap();
    assert!(resident.parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn healthz_tells_why_not() {
    let well = start(None, Config::default(), &[])
        .await
        .get("/healthz")
        .await;
    assert_eq!(
        (well.status, well.json()),
        (StatusCode::OK, json!({"status": "ok", "reasons": []}))
    );
    let ill = start(None, Config::default(), &["the store is full"])
        .await
        .get("/healthz")
        .await;
    assert_eq!(ill.status, 503);
    assert_eq!(ill.json()["reasons"], json!(["the store is full"]));
}

#[tokio::test]
async fn a_node_without_a_store_says_whom_to_ask() {
    let api = start(None, Config::default(), &[]).await;
    let id = RecordId::from_u128(1);
    for path in [
        "/api/records".to_owned(),
        format!("/api/records/{id}"),
        "/api/events".to_owned(),
        "/api/replays".to_owned(),
    ] {
        let answer = api.get(&path).await;
        assert_eq!(answer.status, 404, "{path}");
        let message = answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("playback node") && message.contains("az1"),
            "{message}"
        );
    }
    assert_eq!(api.get("/api/status").await.json()["store"], Value::Null);
}

#[tokio::test]
async fn a_store_that_fails_is_a_503_with_its_words() {
    let store = Memory {
        broken: true,
        ..Memory::default()
    };
    let api = start(Some(store), Config::default(), &[]).await;
    let answer = api.get("/api/records").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no room")
    );
}

#[tokio::test]
async fn a_token_opens_everything_but_health_and_page() {
    let config = Config {
        token: Some("s3cret".into()),
        ..Config::default()
    };
    let api = start(Some(Memory::default()), config, &[]).await;
    let routes = [
        "/api/records",
        "/api/status",
        "/metrics",
        "/api/events",
        "/api/replays",
        "/api/nothing",
        "/x",
    ];
    for path in routes {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            answer.header("www-authenticate").starts_with("Bearer"),
            "{path}"
        );
        let wrong = api
            .send(Method::GET, path, &[("authorization", "Bearer s3creT")], "")
            .await;
        assert_eq!(wrong.status, 401, "{path}");
    }
    for path in ["/healthz", "/", "/app.js"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    let right = [("authorization", "Bearer s3cret"), ("host", "any.name")];
    assert_eq!(
        api.send(Method::GET, "/api/records", &right, "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn without_a_token_a_foreign_name_or_page_is_turned_away() {
    let config = Config {
        allowed_hosts: vec!["proxy.internal".to_owned()],
        ..Config::default()
    };
    let api = start(Some(Memory::default()), config, &[]).await;
    for path in ["/api/records", "/metrics", "/"] {
        let answer = api
            .send(Method::GET, path, &[("host", "evil.example")], "")
            .await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str()),
            (StatusCode::FORBIDDEN, Some("unknown_host"))
        );
        let known = [("host", "proxy.internal:80")];
        assert_eq!(api.send(Method::GET, path, &known, "").await.status, 200);
    }
    let id = RecordId::from_u128(1);
    let foreign = [("origin", "http://evil.example")];
    let answer = api
        .send(Method::DELETE, &format!("/api/records/{id}"), &foreign, "")
        .await;
    assert_eq!(answer.json()["error"]["code"], "foreign_origin");
}

#[tokio::test]
async fn a_public_address_without_a_token_is_not_opened() {
    let parts = |api: &TestApi| Parts {
        store: None,
        backups: None,
        status: Arc::new(Node {
            name: NodeId::new("a").unwrap(),
            reasons: Vec::new(),
        }),
        replays: None,
        events: api.events.clone(),
        registry: Arc::default(),
        metrics: Metrics::default(),
    };
    let api = start(None, Config::default(), &[]).await;
    let public = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    let error = api::serve(public, parts(&api))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("0.0.0.0:0") && error.contains("api.token"),
        "{error}"
    );
    let taken = Config {
        listen: api.running.local_addr(),
        ..Config::default()
    };
    let error = api::serve(taken, parts(&api))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&api.running.local_addr().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn replays_are_started_watched_and_cancelled() {
    let api = with(Vec::new()).await;
    let form = json!({"target": "http://127.0.0.1:9000", "speed": "max", "concurrency": 4, "filter": {"service": "shop"}});
    let started = api.post("/api/replays", &form).await;
    assert_eq!(
        (started.status, started.json()),
        (StatusCode::ACCEPTED, json!({"id": "run-1"}))
    );
    assert_eq!(started.header("location"), "/api/replays/run-1");
    {
        let runs = api.runs.0.lock().unwrap();
        assert_eq!((runs[0].pace, runs[0].concurrency), (Pace::Max, 4));
        assert_eq!(runs[0].filter.service.as_deref(), Some("shop"));
    }
    assert_eq!(
        api.get("/api/replays").await.json()["replays"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        api.get("/api/replays/run-1").await.json()["state"],
        "finished"
    );
    assert_eq!(api.get("/api/replays/run-7").await.status, 404);
    let cancel = async |path: &str| api.send(Method::DELETE, path, &[], "").await.status;
    assert_eq!(
        (
            cancel("/api/replays/run-1").await,
            cancel("/api/replays/run-7").await
        ),
        (StatusCode::NO_CONTENT, StatusCode::NOT_FOUND)
    );

    let elsewhere = api
        .post("/api/replays", &json!({"target": "http://192.0.2.1"}))
        .await;
    assert_eq!(
        (
            elsewhere.status,
            elsewhere.json()["error"]["parameter"].as_str()
        ),
        (StatusCode::FORBIDDEN, Some("target"))
    );
    assert_eq!(api.post("/api/replays", &form).await.status, 202);
    assert_eq!(api.post("/api/replays", &form).await.status, 409);
    let bad = api
        .post(
            "/api/replays",
            &json!({"target": "http://127.0.0.1", "concurrency": 0}),
        )
        .await;
    assert_eq!(
        (bad.status, bad.json()["error"]["parameter"].as_str()),
        (StatusCode::BAD_REQUEST, Some("concurrency"))
    );
}

#[tokio::test]
async fn content_must_be_json_and_not_too_large() {
    let config = Config {
        max_body_bytes: 64,
        ..Config::default()
    };
    let api = start(Some(Memory::default()), config, &[]).await;
    let form = r#"{"target": "http://127.0.0.1"}"#;
    let plain = [("content-type", "text/plain")];
    let answer = api.send(Method::POST, "/api/replays", &plain, form).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_content"))
    );
    let long = api
        .post("/api/replays", &json!({"target": "x".repeat(100)}))
        .await;
    assert_eq!(
        (long.status, long.json()["error"]["code"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large"))
    );
}

#[tokio::test]
async fn what_is_not_there_and_not_possible_is_told_in_json() {
    let api = with(Vec::new()).await;
    let nothing = api.get("/api/nothing").await;
    assert_eq!(
        (nothing.status, nothing.json()["error"]["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("no_route"))
    );
    let put = api.send(Method::PUT, "/api/records", &[], "").await;
    assert_eq!(
        (put.status, put.json()["error"]["code"].as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"))
    );
    assert!(put.header("allow").contains("GET"), "{:?}", put.headers);
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let api = with(Vec::new()).await;
    let long = "x".repeat(64 << 10);
    assert_eq!(
        api.send(Method::GET, "/healthz", &[("x-long", &long)], "")
            .await
            .status,
        431
    );
}

#[tokio::test]
async fn a_stored_record_is_announced_to_those_who_want_it() {
    let api = start(Some(Memory::default()), Config::default(), &[]).await;
    let mut failures = api.watch("/api/events?status=5xx").await;
    for exchange in [exchange(1, "/fine", 200), exchange(2, "/broken", 503)] {
        api.events.publish(Summary::from(&record(exchange)));
    }
    let event = next_text(&mut failures).await.unwrap();
    assert!(
        event.contains("event: records\n") && event.contains("/broken"),
        "{event}"
    );
    assert!(!event.contains("/fine"), "{event}");
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_how_many_it_missed() {
    let api = start(Some(Memory::default()), Config::default(), &[]).await;
    let mut stream = api.watch("/api/events").await;
    let summary = Summary::from(&record(exchange(1, "/", 200)));
    // The test's own task never yields here, so the server cannot take any of them.
    (0..3000).for_each(|_| api.events.publish(summary.clone()));
    let event = next_text(&mut stream).await.unwrap();
    assert!(
        event.contains("event: skipped\n") && event.contains("1976"),
        "{event}"
    );
    assert!(
        next_text(&mut stream)
            .await
            .unwrap()
            .contains("event: records\n")
    );
}

#[tokio::test]
async fn event_streams_have_a_limit_and_end_at_shutdown() {
    let config = Config {
        max_event_streams: 1,
        ..Config::default()
    };
    let api = start(Some(Memory::default()), config, &[]).await;
    let mut stream = api.watch("/api/events").await;
    let second = api.get("/api/events").await;
    assert_eq!(
        (second.status, second.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, "5")
    );
    api.running.shutdown().await;
    while let Some(text) = next_text(&mut stream).await {
        assert!(!text.contains("event:"), "{text}");
    }
}

#[tokio::test]
async fn the_page_allows_only_its_own_files() {
    let api = with(Vec::new()).await;
    let page = api.get("/").await;
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let tag = page.header("etag").to_owned();
    let again = api
        .send(Method::GET, "/", &[("if-none-match", &tag)], "")
        .await;
    assert_eq!(
        (again.status, again.body.len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(
        !html.contains("<style") && !html.contains("onclick") && !html.contains("style="),
        "{html}"
    );
    for name in ["/app.js", "/style.css"] {
        assert!(html.contains(name.trim_start_matches('/')));
        assert_eq!(api.get(name).await.status, 200, "{name}");
    }
}
