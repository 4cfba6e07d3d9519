//! Runs against real services.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use qproxy::playback::report::{Overall, Report};
use qproxy::playback::{
    Discard, Error, HostHeader, KeepOrder, Metrics, Plan, ReplayConfig, ReplayResult, ResultSink,
    RunState, Runs, Selection, Speed, Target, Verdict,
};
use qproxy::record::{Body, ConnectionId, Exchange, Outcome, RecordId, Side, UpstreamFailure};
use qproxy::store::{Filter, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::memory::MemoryStore;
use super::recording::{Change as _, chunked, exchange, headers, record, store_of};
use super::servers::{Service, eventually, json, text};

fn all() -> Selection {
    Selection::Window(Query::default())
}

fn runs(store: Arc<MemoryStore>, config: ReplayConfig) -> Runs {
    Runs::new(store, config, Arc::new(Discard), Metrics::default())
}

async fn replay_with(store: Arc<MemoryStore>, plan: Plan, config: ReplayConfig) -> Arc<Report> {
    let runs = runs(store, config);
    let id = runs.start(plan).unwrap();
    runs.wait(id).await.unwrap()
}

async fn replay(store: Arc<MemoryStore>, plan: Plan) -> Arc<Report> {
    replay_with(store, plan, ReplayConfig::default()).await
}

/// A target at which nothing listens.
async fn nowhere() -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap()
}

#[derive(Default)]
struct Collect(Mutex<Vec<ReplayResult>>);

impl ResultSink for Collect {
    fn result(&self, result: &ReplayResult) {
        self.0.lock().push(result.clone());
    }

    fn finished(&self, _: &Report) {}
}

#[tokio::test]
async fn the_same_service_answers_the_same() {
    let service = Service::start(async |seen| match seen.method.as_str() {
        "POST" => text(&format!("got {} bytes", seen.body.len())),
        _ => text(&seen.target),
    })
    .await;
    let recorded = (1..=500).map(|n| match n % 2 {
        0 => exchange(
            n,
            "GET",
            &format!("/items/{n}?a=b"),
            &format!("/items/{n}?a=b"),
        ),
        _ => exchange(n, "POST", "/items", "got 5 bytes").request_body("12345"),
    });
    let report = replay(store_of(recorded), Plan::new(all(), service.target())).await;
    assert_eq!(report.totals.same, 500, "{}", report.to_text());
    assert_eq!(report.verdict, Overall::Same);
    assert_eq!(report.endpoints.len(), 2);
    assert_eq!(report.latency.replayed.count, 500);
    let seen = service.seen();
    assert_eq!(seen.len(), 500);
    let run = report.run.to_string();
    assert!(seen.iter().all(|s| s.header("qproxy-replay") == run));
    let host = service.address.to_string();
    assert!(seen.iter().all(|s| s.header("host") == host));
}

#[tokio::test]
async fn finds_what_differs_in_status_header_and_json() {
    let service = Service::start(async |seen| {
        let mut reply = json(r#"{"id":1,"price":12,"tags":["a","c"]}"#);
        reply
            .headers_mut()
            .insert("x-version", HeaderValue::from_static("2"));
        if seen.target == "/gone" {
            *reply.status_mut() = http::StatusCode::GONE;
        }
        reply
    })
    .await;
    let old = r#"{"id":1,"price":10,"tags":["a","b"]}"#;
    let recorded = (1..=3)
        .map(|n| exchange(n, "GET", &format!("/items/{n}"), "").json(old))
        .chain([exchange(4, "GET", "/gone", "").json(old)])
        .map(|e| e.response_header("x-version", "1"));
    let mut plan = Plan::new(all(), service.target());
    let store = store_of(recorded);
    let report = replay(store.clone(), plan.clone()).await;
    assert_eq!(report.verdict, Overall::Different);
    assert_eq!(report.totals.different, 4);
    let found = |endpoint: &str, path: &str| {
        let mut groups = report.differences.iter();
        let group = groups.find(|g| g.endpoint == endpoint && g.path == path);
        group.map_or(0, |g| g.count)
    };
    assert_eq!(found("GET /items/{id}", "/price"), 3);
    assert_eq!(found("GET /items/{id}", "/tags/*"), 3);
    assert_eq!(found("GET /items/{id}", "x-version"), 3);
    assert_eq!(found("GET /gone", ""), 1, "the status");
    assert_eq!(found("GET /items/{id}", "/id"), 0);
    let as_json = serde_json::to_value(&*report).unwrap();
    assert_eq!(as_json["verdict"], "different");
    assert_eq!(
        as_json["differences"][0]["examples"][0]["record"]
            .as_str()
            .unwrap()
            .len(),
        36
    );
    plan.sending.diff.ignore_headers.push("X-Version".into());
    plan.sending.diff.ignore_json = vec!["/price".into(), "/tags".into()];
    let report = replay(store, plan).await;
    assert_eq!((report.totals.same, report.totals.different), (3, 1));
}

#[tokio::test]
async fn keeps_the_order_of_each_connection_and_the_concurrency_limit() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, peak) = (now.clone(), most.clone());
    let service = Service::start(move |_| {
        let (now, most) = (count.clone(), peak.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            text("ok")
        }
    })
    .await;
    let recorded = (1..=400).map(|n| {
        let connection = n % 16;
        exchange(n, "GET", &format!("/{connection}/{n}"), "ok").on_connection(connection)
    });
    let mut plan = Plan::new(all(), service.target());
    plan.sending.concurrency = Some(4);
    let report = replay(store_of(recorded), plan).await;
    assert_eq!(report.totals.same, 400);
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert!(most.load(Ordering::SeqCst) > 1, "nothing went side by side");
    let seen = service.seen();
    for connection in 0..16 {
        let prefix = format!("/{connection}/");
        let of_lane: Vec<_> = seen
            .iter()
            .filter(|s| s.target.starts_with(&prefix))
            .collect();
        let numbers: Vec<u64> = of_lane
            .iter()
            .map(|s| s.target[prefix.len()..].parse().unwrap())
            .collect();
        assert!(numbers.is_sorted() && numbers.len() == 25, "{numbers:?}");
        assert!(
            of_lane
                .iter()
                .all(|s| s.connection == of_lane[0].connection)
        );
    }
}

#[tokio::test]
async fn more_connections_than_lanes_are_replayed_all_the_same() {
    let service = Service::start(async |_| text("ok")).await;
    let recorded = (1..=200).map(|n| exchange(n, "GET", "/", "ok").on_connection(n % 50));
    let config = ReplayConfig {
        max_lanes: 3,
        concurrency: 2,
        ..ReplayConfig::default()
    };
    let plan = Plan::new(all(), service.target());
    let report = replay_with(store_of(recorded), plan, config).await;
    assert_eq!(report.totals.same, 200);
}

#[tokio::test]
async fn a_client_can_keep_its_order_over_its_connections() {
    let service = Service::start(async |_| text("ok")).await;
    let recorded = (1..=50).map(|n| {
        exchange(n, "GET", &format!("/{n}"), "ok")
            .with(|e| e.client = format!("10.0.0.9:{n}").into())
    });
    let mut plan = Plan::new(all(), service.target());
    plan.sending.keep_order = KeepOrder::PerClient;
    replay(store_of(recorded), plan).await;
    let targets: Vec<_> = service.seen().iter().map(|s| s.target.clone()).collect();
    let expected: Vec<_> = (1..=50).map(|n| format!("/{n}")).collect();
    assert_eq!(targets, expected);
}

/// A login on one connection, its follow-ups on others, with a token and a cookie.
fn session() -> Vec<Exchange> {
    let login = exchange(1, "POST", "/login", "")
        .request_body("{}")
        .json(r#"{"user":"eve","access_token":"old-token"}"#)
        .response_header("set-cookie", "sid=old-cookie; HttpOnly");
    let by_token =
        exchange(2, "GET", "/me", "hello").request_header("Authorization", "Bearer old-token");
    let by_cookie =
        exchange(3, "GET", "/cart", "hello").request_header("Cookie", "lang=en; sid=old-cookie");
    vec![login, by_token, by_cookie]
}

#[tokio::test]
async fn a_follow_up_waits_for_its_login_and_carries_the_new_token() {
    let release = Arc::new(Notify::new());
    let waiting = Arc::new(AtomicUsize::new(0));
    let (gate, arrived) = (release.clone(), waiting.clone());
    let service = Service::start(move |seen| {
        let (gate, arrived) = (gate.clone(), arrived.clone());
        async move {
            if seen.target == "/login" {
                arrived.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                let mut reply = json(r#"{"user":"eve","access_token":"new-token"}"#);
                let cookie = HeaderValue::from_static("sid=new-cookie; HttpOnly");
                reply.headers_mut().append("set-cookie", cookie);
                return reply;
            }
            let token = seen.header("authorization") == "Bearer new-token";
            let cookie = seen.header("cookie") == "lang=en; sid=new-cookie";
            text(if token || cookie {
                "hello"
            } else {
                "who are you?"
            })
        }
    })
    .await;
    let runs = runs(store_of(session()), ReplayConfig::default());
    let run = runs.start(Plan::new(all(), service.target())).unwrap();
    eventually("the login arrives", || waiting.load(Ordering::SeqCst) == 1).await;
    assert!(service.seen().is_empty(), "a follow-up overtook its login");
    release.notify_one();
    let report = runs.wait(run).await.unwrap();
    assert_eq!(report.totals.same, 3, "{}", report.to_text());
    assert_eq!(report.totals.carried, 2);
    assert_eq!(service.seen()[0].target, "/login");
}

#[tokio::test]
async fn a_login_that_fails_holds_nobody_up() {
    let service = Service::start(async |seen| match seen.target.as_str() {
        "/login" => {
            let mut reply = text("no");
            *reply.status_mut() = http::StatusCode::UNAUTHORIZED;
            reply
        }
        _ => text("hello"),
    })
    .await;
    let start = Instant::now();
    let report = replay(store_of(session()), Plan::new(all(), service.target())).await;
    assert_eq!((report.totals.same, report.totals.different), (2, 1));
    assert!(start.elapsed() < ReplayConfig::default().request_timeout);
    let me = service
        .seen()
        .into_iter()
        .find(|s| s.target == "/me")
        .unwrap();
    assert_eq!(me.header("authorization"), "Bearer old-token");
}

#[tokio::test]
async fn an_answer_that_renews_the_cookie_of_its_own_request_is_not_waited_for() {
    let service = Service::start(async |_| {
        let mut reply = text("ok");
        let cookie = HeaderValue::from_static("sid=new");
        reply.headers_mut().append("set-cookie", cookie);
        reply
    })
    .await;
    let recorded = (1..=5).map(|n| {
        let one = exchange(n, "GET", &format!("/{n}"), "ok").on_connection(n % 2);
        one.request_header("Cookie", "sid=old")
            .response_header("Set-Cookie", "sid=old")
    });
    let start = Instant::now();
    let report = replay(store_of(recorded), Plan::new(all(), service.target())).await;
    assert_eq!(report.totals.same, 5, "{}", report.to_text());
    assert!(start.elapsed() < ReplayConfig::default().request_timeout);
    let seen = service.seen();
    assert_eq!(seen[0].header("cookie"), "sid=old");
    assert_eq!(seen[4].header("cookie"), "sid=new");
}

#[tokio::test]
async fn a_window_ends_with_what_it_held_at_the_start() {
    let store = store_of([exchange(1, "GET", "/", "ok")]);
    let (growing, next) = (store.clone(), Arc::new(AtomicUsize::new(2)));
    // Each request makes one more record.
    let service = Service::start(move |_| {
        let n = u64::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap();
        growing.add(&record(exchange(n, "GET", "/", "ok")));
        async { text("ok") }
    })
    .await;
    let mut plan = Plan::new(all(), service.target());
    plan.rounds = 2;
    let report = replay(store, plan).await;
    assert_eq!(report.totals.same, 1 + 2);
}

#[tokio::test]
async fn headers_are_rewritten_as_told() {
    let service = Service::start(async |_| text("ok")).await;
    let recorded = exchange(1, "GET", "/", "ok")
        .request_header("X-Secret", "s")
        .request_header("X-Env", "prod")
        .request_header("Expect", "100-continue")
        .request_header("Connection", "keep-alive, X-Hop")
        .request_header("X-Hop", "1");
    let mut plan = Plan::new(all(), service.target());
    plan.sending.host = HostHeader::Recorded;
    plan.sending.remove_headers = vec![HeaderName::from_static("x-secret")];
    let staging = HeaderValue::from_static("staging");
    plan.sending.set_headers = vec![(HeaderName::from_static("x-env"), staging)];
    replay(store_of([recorded]), plan).await;
    let seen = &service.seen()[0];
    assert_eq!(seen.header("host"), "shop.test");
    assert_eq!(seen.header("x-env"), "staging");
    for name in ["x-secret", "expect", "connection", "x-hop"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_allowed_is_refused_before_anything_is_sent() {
    let runs = runs(store_of([]), ReplayConfig::default());
    let plan = Plan::new(all(), "http://prod.test:80".parse().unwrap());
    let refusal = runs.start(plan).unwrap_err();
    assert!(matches!(refusal, Error::Refused { .. }));
    assert!(
        refusal.to_string().contains("playback.allowed_targets"),
        "{refusal}"
    );
    assert!(runs.list().is_empty());
}

#[tokio::test]
async fn plans_out_of_range_are_refused() {
    let runs = runs(store_of([]), ReplayConfig::default());
    let plan = || Plan::new(all(), "http://localhost:1".parse().unwrap());
    let mut bad = [plan(), plan(), plan(), plan()];
    bad[0].speed = Speed::Factor(0.0);
    bad[1].rounds = 0;
    bad[2].sending.concurrency = Some(0);
    bad[3].selection = Selection::Ids(vec![RecordId::from_u128(1); 10_001]);
    for plan in bad {
        assert!(matches!(
            runs.start(plan).unwrap_err(),
            Error::Setting { .. }
        ));
    }
}

#[tokio::test]
async fn requests_to_a_target_that_is_down_fail_and_a_run_gives_up() {
    let recorded = |count| store_of((1..=count).map(|n| exchange(n, "GET", "/", "ok")));
    let target = nowhere().await;
    let report = replay(recorded(3), Plan::new(all(), target.clone())).await;
    assert_eq!((report.totals.failed, report.totals.sent), (3, 0));
    assert_eq!(report.state, RunState::Finished);
    assert!(report.failures[0].reason.contains("could not connect"));
    let config = ReplayConfig {
        give_up_after: 10,
        concurrency: 1,
        ..ReplayConfig::default()
    };
    let report = replay_with(recorded(500), Plan::new(all(), target), config).await;
    assert!(
        matches!(&report.state, RunState::Failed(reason) if reason.contains("cannot be reached"))
    );
    assert!(report.totals.records < 100, "{}", report.totals.records);
    assert_eq!(report.verdict.exit_code(), 2);
}

#[tokio::test]
async fn a_service_that_never_answers_runs_into_the_time_limit() {
    let service = Service::start(async |_| std::future::pending().await).await;
    let config = ReplayConfig {
        request_timeout: Duration::from_millis(30),
        ..ReplayConfig::default()
    };
    let plan = Plan::new(all(), service.target());
    let report = replay_with(store_of([exchange(1, "POST", "/", "ok")]), plan, config).await;
    assert_eq!((report.totals.failed, report.totals.sent), (1, 1));
    assert_eq!(&*report.failures[0].reason, "no answer in time");
}

#[tokio::test]
async fn a_run_can_be_cancelled_while_requests_are_on_their_way() {
    let service = Service::start(async |_| std::future::pending().await).await;
    let recorded = (1..=1000).map(|n| exchange(n, "GET", "/", "ok"));
    let runs = runs(store_of(recorded), ReplayConfig::default());
    let run = runs.start(Plan::new(all(), service.target())).unwrap();
    assert_eq!(runs.status(run).unwrap().state, RunState::Running);
    assert!(runs.cancel(run));
    let report = runs.wait(run).await.unwrap();
    assert_eq!(report.state, RunState::Cancelled);
    assert_eq!(report.verdict, Overall::Failed);
    assert!(!runs.cancel(run), "it has ended");
    assert_eq!(runs.status(run).unwrap().state, RunState::Cancelled);
    runs.shutdown().await;
}

#[tokio::test]
async fn runs_under_way_and_remembered_are_bounded() {
    let service = Service::start(async |_| std::future::pending().await).await;
    let config = ReplayConfig {
        max_running: 2,
        history: 3,
        ..ReplayConfig::default()
    };
    let runs = runs(store_of([exchange(1, "GET", "/", "ok")]), config);
    let plan = Plan::new(all(), service.target());
    let first = runs.start(plan.clone()).unwrap();
    runs.start(plan.clone()).unwrap();
    assert!(matches!(
        runs.start(plan.clone()),
        Err(Error::Busy { running: 2 })
    ));
    runs.cancel(first);
    runs.wait(first).await.unwrap();
    for _ in 0..5 {
        let id = runs.start(plan.clone()).unwrap();
        runs.cancel(id);
        runs.wait(id).await.unwrap();
    }
    assert_eq!(runs.list().len(), 3);
    assert!(runs.report(first).is_none(), "forgotten");
    runs.shutdown().await;
    assert!(
        runs.list()
            .iter()
            .all(|run| run.state == RunState::Cancelled)
    );
}

#[tokio::test]
async fn bodies_of_any_size_are_sent_and_compared() {
    let content: Vec<u8> = (0..2_500_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let echo = Service::start(async |seen| {
        http::Response::new(http_body_util::Full::new(seen.body.clone()))
    })
    .await;
    let store = store_of([]);
    let upload = |seq, size: usize, whole, length: Option<&str>| {
        let content = &content[..size];
        let mut e = exchange(seq, "PUT", "/echo", "");
        e.request.body = chunked(&store, e.id, Side::Request, content, 60_000, whole);
        if let Some(length) = length {
            e = e.request_header("Content-Length", length);
        }
        let body = chunked(&store, e.id, Side::Response, content, 60_000, true);
        let e = e.response(|r| (r.body, r.headers) = (body, headers(&[])));
        store.add(&record(e));
    };
    upload(1, 2_500_000, true, Some("2500000"));
    upload(2, 150_000, true, None);
    upload(3, 150_000, false, Some("150000"));
    let cut = exchange(4, "PUT", "/echo", "").with(|e| e.request.body.truncated = true);
    store.add(&record(cut));
    let report = replay(store, Plan::new(all(), echo.target())).await;
    assert_eq!(report.totals.same, 2, "{}", report.to_text());
    assert_eq!(report.totals.skipped, 2);
    let reasons: Vec<_> = report.skips.iter().map(|s| s.reason.to_string()).collect();
    assert!(reasons.iter().any(|r| r.contains("chunk 2")), "{reasons:?}");
    assert!(
        reasons.iter().any(|r| r.contains("only a part")),
        "{reasons:?}"
    );
    let seen = echo.seen();
    assert!(
        seen.iter()
            .any(|s| s.header("content-length") == "2500000" && s.body == content)
    );
    assert!(
        seen.iter()
            .any(|s| s.header("transfer-encoding") == "chunked")
    );
}

#[tokio::test]
async fn what_cannot_be_replayed_is_skipped_with_its_reason() {
    let service = Service::start(async |_| text("ok")).await;
    let store = store_of([
        exchange(1, "GET", "/", "").with(|e| e.response = None),
        exchange(2, "GET", "/", "").with(|e| {
            e.outcome = Outcome::UpstreamFailed(UpstreamFailure::Connect, "refused".into());
        }),
        exchange(3, "GET", "/ws", "").status(101),
        exchange(4, "GET", "/", "").request_header("qproxy-replay", "some-run"),
        exchange(5, "CONNECT", "shop:443", ""),
        exchange(6, "GET", "/a b", ""),
        exchange(7, "GET", "/ok", "ok"),
    ]);
    let gone = Selection::Ids(vec![RecordId::from_u128(99)]);
    let report = replay(store.clone(), Plan::new(all(), service.target())).await;
    assert_eq!(
        (report.totals.skipped, report.totals.same),
        (6, 1),
        "{}",
        report.to_text()
    );
    assert_eq!(report.skips.len(), 6);
    assert_eq!(service.seen().len(), 1);
    let report = replay(store, Plan::new(gone, service.target())).await;
    assert_eq!(&*report.skips[0].reason, "it is no longer in the store");
    assert_eq!(report.verdict, Overall::Nothing);
}

/// A service that answers the first request of each connection and closes after the second, unanswered.
async fn flaky(requests: Arc<Mutex<Vec<String>>>) -> (Target, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answered in [true, false] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let line = String::from_utf8_lossy(&head);
                let line = line.lines().next().unwrap_or_default().to_owned();
                if line.is_empty() {
                    break;
                }
                requests.lock().push(line);
                if answered {
                    let reply = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(reply).await.unwrap();
                }
            }
        }
    });
    (target.parse().unwrap(), task)
}

#[tokio::test]
async fn only_an_idempotent_request_is_sent_again_after_a_kept_connection_broke() {
    for (method, expected_lines, failed) in [("GET", 3, 0), ("POST", 2, 1)] {
        let lines = Arc::default();
        let (target, task) = flaky(Arc::clone(&lines)).await;
        let recorded =
            (1..=2).map(|n| exchange(n, method, &format!("/{n}"), "ok").on_connection(1));
        let report = replay(store_of(recorded), Plan::new(all(), target)).await;
        assert_eq!(
            report.totals.failed,
            failed,
            "{method}: {}",
            report.to_text()
        );
        assert_eq!(
            lines.lock().len(),
            expected_lines,
            "{method}: {:?}",
            lines.lock()
        );
        task.abort();
    }
}

#[tokio::test]
async fn selects_by_window_filter_and_ids() {
    let service = Service::start(async |_| text("ok")).await;
    let exchanges: Vec<_> = (1..=450)
        .map(|n| exchange(n, "GET", if n % 2 == 0 { "/even" } else { "/odd" }, "ok"))
        .collect();
    let ids = vec![exchanges[9].id, exchanges[3].id];
    let (start, end) = (
        exchanges[100].timing.started_us,
        exchanges[440].timing.started_us,
    );
    let store = store_of(exchanges);
    let window = Selection::Window(Query {
        start_us: Some(start),
        end_us: Some(end),
        filter: Filter {
            path_prefix: Some("/even".into()),
            ..Filter::default()
        },
        limit: 1,
        ..Query::default()
    });
    let mut plan = Plan::new(window, service.target());
    let report = replay(store.clone(), plan.clone()).await;
    assert_eq!(report.totals.same, 170);
    plan.rounds = 3;
    plan.max_records = Some(7);
    assert_eq!(replay(store.clone(), plan).await.totals.same, 21);
    let plan = Plan::new(Selection::Ids(ids), service.target());
    assert_eq!(replay(store, plan).await.totals.same, 2);
}

#[tokio::test]
async fn keeps_the_pace() {
    let service = Service::start(async |_| text("ok")).await;
    // Ten milliseconds apart.
    let store = store_of((1..=6).map(|n| exchange(n, "GET", "/", "ok")));
    for (speed, at_least) in [(Speed::Factor(0.5), 100), (Speed::Rate(100.0), 50)] {
        let mut plan = Plan::new(all(), service.target());
        plan.speed = speed;
        let start = Instant::now();
        let report = replay(store.clone(), plan).await;
        assert_eq!(report.totals.same, 6);
        assert!(
            start.elapsed() >= Duration::from_millis(at_least),
            "{speed:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_whose_end_was_not_recorded_is_read_no_further_than_that() {
    let service = Service::start(async |_| text("data: 1\n\ndata: 2\n\n")).await;
    let recorded = exchange(1, "GET", "/events", "")
        .with(|e| e.outcome = Outcome::ClientClosed)
        .response(|r| {
            r.headers = headers(&[("content-type", "text/plain"), ("content-length", "18")]);
            r.body = Body {
                truncated: true,
                ..Body::inline(Bytes::from("data: 1\n\n"))
            };
        });
    let report = replay(store_of([recorded]), Plan::new(all(), service.target())).await;
    assert_eq!(report.totals.same, 1);
    assert!(report.notes[0].reason.contains("only a part"));
}

#[tokio::test]
async fn the_sink_hears_of_every_record() {
    let service = Service::start(async |_| text("new")).await;
    let recorded: Vec<_> = (1..=20)
        .map(|n| exchange(n, "GET", "/", "old").with(|e| e.connection = ConnectionId(n % 3)))
        .collect();
    let sink = Arc::new(Collect::default());
    let runs = Runs::new(
        store_of(recorded.clone()),
        ReplayConfig::default(),
        sink.clone(),
        Metrics::default(),
    );
    let run = runs.start(Plan::new(all(), service.target())).unwrap();
    runs.wait(run).await.unwrap();
    let results = sink.0.lock();
    let mut ids: Vec<_> = results.iter().map(|r| r.record).collect();
    ids.sort();
    assert_eq!(ids, recorded.iter().map(|e| e.id).collect::<Vec<_>>());
    assert!(
        results
            .iter()
            .all(|r| r.verdict == Verdict::Different && r.run == run)
    );
    let shown = serde_json::to_value(&results[0]).unwrap();
    assert_eq!(shown["verdict"], "different");
    assert_eq!(shown["differences"][0]["path"], "line 1");
}

#[tokio::test]
async fn a_store_that_fails_fails_the_run() {
    let store = store_of([exchange(1, "GET", "/", "ok")]);
    store.break_down();
    let report = replay(store, Plan::new(all(), nowhere().await)).await;
    assert!(matches!(&report.state, RunState::Failed(_)));
    assert_eq!(report.verdict, Overall::Failed);
}

#[tokio::test]
async fn an_https_target_is_reached_with_the_given_trust_and_no_other() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let der = certified.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let reply =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(reply).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der).unwrap();
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let plan = || {
        let target = format!("https://localhost:{port}").parse().unwrap();
        Plan::new(all(), target)
    };
    let store = store_of([exchange(1, "GET", "/", "ok")]);
    let config = ReplayConfig {
        tls: Some(Arc::new(trusting)),
        ..ReplayConfig::default()
    };
    let report = replay_with(store.clone(), plan(), config).await;
    assert_eq!(report.totals.same, 1, "{}", report.to_text());
    let report = replay(store, plan()).await;
    assert_eq!(
        (report.totals.failed, report.totals.sent),
        (1, 0),
        "{}",
        report.to_text()
    );
    task.abort();
}
