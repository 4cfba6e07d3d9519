//! Everything that goes wrong, many times at once: what is left of it afterwards is nothing, and each exchange has
//! one record that says how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use qproxy::capture::Capture;
use qproxy::metrics::Registry;
use qproxy::proxy::{Metrics, Running, http as http_proxy};
use qproxy::record::{Exchange, Outcome, UpstreamFailure};
use tokio::runtime::Runtime;

use super::http2_support::Http2;
use super::local;
use super::origin::{self, Kept, Origin, Peer, eventually};

/// How often each fault happens.
const TIMES: usize = 8;

/// An origin that fails as the path says.
async fn failing() -> Origin {
    Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        while let Some(head) = peer.head().await {
            let path = head.text.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.as_str() {
                "/ok" => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await;
                }
                "/closes" => return,
                "/garbage" => {
                    peer.send("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
                    return;
                }
                "/breaks-off" => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                        .await;
                    return;
                }
                "/stalls" => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                        .await;
                    peer.rest().await;
                }
                "/uploads" => {
                    // Tells the client that it is heard.
                    peer.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
                    peer.rest().await;
                }
                "/hangs" | "/chunks" | "/too-long" => drop(peer.rest().await),
                "/events" => {
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
                    peer.send(head).await;
                    peer.rest().await;
                }
                other => panic!("{other}"),
            }
        }
    })
    .await
}

/// A proxy whose tasks are alone on a runtime, so that they can be counted.
struct Stage {
    runtime: Runtime,
    proxy: Running,
    capture: Capture,
    kept: Kept,
    metrics: Metrics,
}

impl Stage {
    fn start(origin: &Origin) -> Self {
        let runtime = Runtime::new().unwrap();
        let (capture, kept) = origin::capture();
        let metrics = Metrics::default();
        let mut config = http_proxy::Config::new(local(), "shop");
        // Long enough for a busy machine, so that only what is meant to time out does.
        config.response_timeout = Duration::from_secs(3);
        config.body_timeout = Duration::from_secs(3);
        config.head_timeout = Duration::from_secs(3);
        config.max_request_bytes = Some(50);
        let (copy, counts) = (capture.clone(), metrics.clone());
        let proxy = {
            let _here = runtime.enter();
            let bound = http_proxy::bind(config, origin.pool(), copy, counts).unwrap();
            bound.serve()
        };
        Self {
            runtime,
            proxy,
            capture,
            kept,
            metrics,
        }
    }

    fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    fn gauge(&self, name: &str) -> u64 {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let page = registry.text();
        let label = format!("qproxy_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&label));
        value.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
    }

    async fn client(&self) -> Peer {
        Peer::connect(self.proxy.local_addr()).await
    }

    /// Asks for a path and reads what comes, up to the end of the connection or of the response.
    async fn get(&self, path: &str) {
        let mut client = self.client().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(&request).await;
        if let Some(head) = client.head().await {
            client.body(&head).await;
        }
    }

    /// Sends a request and leaves when a first response has come.
    async fn begins_and_leaves(&self, text: &str) {
        let mut client = self.client().await;
        client.send(text).await;
        client.head().await.expect("a first response");
    }

    /// Sends bytes that end in no exchange, and waits for the proxy to close.
    async fn nonsense(&self, bytes: &[u8]) {
        let mut client = self.client().await;
        client.send_bytes(bytes).await;
        client.rest().await;
    }

    async fn resets_over_http2(&self) {
        let client = Http2::connect(self.proxy.local_addr()).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let get = Request::get("http://a/events").body(()).unwrap();
        let (response, _) = send.send_request(get, true).unwrap();
        let _begun = response.await.unwrap();
        client.connection.abort();
    }

    async fn one_of_each(&self) {
        let post = |path: &str, rest: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{rest}")
        };
        let upload = "POST /uploads HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nhalf";
        let chunks = post("/chunks", "zz\r\n");
        let long = post(
            "/too-long",
            &format!("3c\r\n{}\r\n0\r\n\r\n", "x".repeat(60)),
        );
        let events = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0xff; 64]].concat();
        tokio::join!(
            self.get("/ok"),
            self.get("/closes"),
            self.get("/garbage"),
            self.get("/breaks-off"),
            self.get("/stalls"),
            self.get("/hangs"),
            self.begins_and_leaves(events),
            self.begins_and_leaves(upload),
            self.nonsense(chunks.as_bytes()),
            self.nonsense(long.as_bytes()),
            self.nonsense(b"GET / HTTP/1.1\r\nHo"),
            self.nonsense(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client hello"),
            self.nonsense(b"\0\0\0\0 nothing at all \r\n\r\n"),
            self.nonsense(&preface),
            self.resets_over_http2(),
        );
    }
}

/// How an exchange ended, in a word.
fn ending(exchange: &Exchange) -> &'static str {
    match &exchange.outcome {
        Outcome::Ok => "ok",
        Outcome::ClientClosed => "client closed",
        Outcome::ClientError(_) => "client error",
        Outcome::UpstreamFailed(UpstreamFailure::Reset, _) => "upstream reset",
        Outcome::UpstreamFailed(UpstreamFailure::Protocol, _) => "upstream protocol",
        Outcome::UpstreamFailed(UpstreamFailure::Timeout, _) => "upstream timeout",
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_faults_leaves_no_task_no_connection_and_one_record_of_each_exchange() {
    let origin = failing().await;
    let stage = Stage::start(&origin);
    stage.get("/ok").await;
    let at_rest = eventually("the first client is done with", || {
        (stage.gauge("proxy_open_connections") == 0).then(|| stage.tasks())
    });
    let at_rest = at_rest.await;
    let storm = (0..TIMES).map(|_| stage.one_of_each());
    futures_util::future::join_all(storm).await;

    // The process lives, and serves.
    stage.get("/ok").await;
    let mut left = Vec::new();
    eventually("nothing is left", || {
        left = vec![
            stage.gauge("proxy_open_connections"),
            stage.gauge("proxy_requests_in_flight"),
            stage.capture.stats().waiting_bytes as u64,
            stage.tasks().saturating_sub(at_rest) as u64,
        ];
        left.iter().all(|count| *count == 0).then_some(())
    })
    .await;

    let expected = [
        ("/breaks-off", "upstream reset", TIMES),
        ("/chunks", "client error", TIMES),
        ("/closes", "upstream reset", TIMES),
        ("/events", "client closed", 2 * TIMES),
        ("/garbage", "upstream protocol", TIMES),
        ("/hangs", "upstream timeout", TIMES),
        ("/ok", "ok", TIMES + 2),
        ("/stalls", "upstream timeout", TIMES),
        ("/too-long", "client error", TIMES),
        ("/uploads", "client closed", TIMES),
    ];
    let exchanges = eventually("every exchange is recorded", || {
        let all = expected.iter().map(|(.., times)| times).sum::<usize>();
        Some(stage.kept.exchanges()).filter(|exchanges| exchanges.len() >= all)
    });
    let mut endings = BTreeMap::new();
    for exchange in exchanges.await {
        let target = exchange.request.target.to_string();
        *endings.entry((target, ending(&exchange))).or_insert(0) += 1;
    }
    let expected = expected.map(|(target, ending, times)| ((target.to_owned(), ending), times));
    assert_eq!(endings, BTreeMap::from(expected));
    stage.runtime.shutdown_background();
}
