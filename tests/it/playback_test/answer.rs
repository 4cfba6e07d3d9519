//! Answers from the records.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use qproxy::metrics::{Counter, Family};
use qproxy::playback::{
    AnswerConfig, Answerer, ClientKey, Delay, MatchConfig, Metrics, Miss, Provenance, Repeat,
};
use qproxy::record::{Body, Outcome, Side, UpstreamFailure};

use super::memory::MemoryStore;
use super::recording::{Change as _, chunked, exchange, headers, store_of};
use super::servers::{Player, Service, text};

async fn player(store: Arc<MemoryStore>, config: AnswerConfig) -> (Player, Metrics) {
    let metrics = Metrics::default();
    let answerer = Answerer::new(store, config, metrics.clone()).unwrap();
    (Player::start(answerer).await, metrics)
}

async fn plain(store: Arc<MemoryStore>) -> Player {
    player(store, AnswerConfig::default()).await.0
}

fn count<L>(family: &Family<L, Counter>, value: &'static str) -> u64
where
    L: From<&'static str> + Clone + Eq + Hash,
{
    family.get_or_create(&value.into()).get()
}

fn matching(repeat: Repeat) -> AnswerConfig {
    AnswerConfig {
        matching: MatchConfig {
            repeat,
            ..MatchConfig::default()
        },
        ..AnswerConfig::default()
    }
}

fn empty() -> Full<Bytes> {
    Full::default()
}

#[tokio::test]
async fn answers_with_recorded_status_headers_and_body() {
    let recorded = exchange(1, "POST", "/items?b=2&a=1", "made")
        .status(201)
        .request_body("{}")
        .response_header("Location", "/items/7")
        .response_header("Set-Cookie", "a=1")
        .response_header("Set-Cookie", "b=2")
        .response_header("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
        .response_header("Connection", "close");
    let id = recorded.id.to_string();
    let (player, metrics) = player(store_of([recorded]), AnswerConfig::default()).await;
    let request = player.request("POST", "/items?a=1&b=%32");
    let answer = player.send(request.body(Full::from("{}")).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["location"], "/items/7");
    assert_eq!(answer.headers()["date"], "Mon, 01 Jan 2024 00:00:00 GMT");
    assert_eq!(answer.headers()["content-length"], "4");
    assert_eq!(answer.headers()["qproxy-record"], id.as_str());
    assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    assert!(!answer.headers().contains_key("connection"));
    assert_eq!(answer.body(), "made");
    assert_eq!(count(&metrics.answers, "hit"), 1);
}

#[tokio::test]
async fn hides_where_an_answer_came_from_if_told_to() {
    let config = AnswerConfig {
        provenance: Provenance::Hidden,
        ..AnswerConfig::default()
    };
    let (player, _) = player(store_of([exchange(1, "GET", "/", "x")]), config).await;
    let answer = player.get("/").await;
    assert!(!answer.headers().contains_key("qproxy-record"));
}

#[tokio::test]
async fn same_request_gets_its_answers_in_recorded_order() {
    for (repeat, expected) in [
        (Repeat::Last, "123333"),
        (Repeat::Loop, "123123"),
        (Repeat::Latest, "333333"),
    ] {
        let recorded = (1..=3).map(|n| exchange(n, "GET", "/next", &n.to_string()));
        let (player, _) = player(store_of(recorded), matching(repeat)).await;
        let mut answers = String::new();
        for _ in 0..6 {
            answers += &player.get_text("/next").await;
        }
        assert_eq!(answers, expected, "{repeat:?}");
    }
}

#[tokio::test]
async fn sessions_and_clients_have_sequences_of_their_own_and_can_start_again() {
    let recorded = (1..=3).map(|n| exchange(n, "GET", "/next", &n.to_string()));
    let config = AnswerConfig {
        matching: MatchConfig {
            client_key: ClientKey::Header(http::HeaderName::from_static("x-client")),
            ..MatchConfig::default()
        },
        ..AnswerConfig::default()
    };
    let answerer = Arc::new(Answerer::new(store_of(recorded), config, Metrics::default()).unwrap());
    let ask = async |session: &str, client: &str| {
        let request = http::Request::get("/next")
            .header("qproxy-session", session)
            .header("x-client", client);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let address = "127.0.0.1:1".parse().unwrap();
        let answer = answerer.answer(&parts, empty(), address).await;
        answer
            .response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    };
    assert_eq!(ask("a", "x").await, "1");
    assert_eq!(ask("a", "x").await, "2");
    assert_eq!(ask("b", "x").await, "1");
    assert_eq!(ask("a", "y").await, "1");
    assert_eq!(ask("a", "x").await, "3");
    answerer.restart();
    assert_eq!(ask("a", "x").await, "1");
}

#[tokio::test]
async fn a_recorded_failure_answers_only_where_nothing_better_was_recorded() {
    let failed = |seq, target| {
        exchange(seq, "GET", target, "bad gateway")
            .status(502)
            .with(|e| {
                e.outcome = Outcome::UpstreamFailed(UpstreamFailure::Connect, "refused".into())
            })
    };
    let without = exchange(6, "GET", "/never", "").with(|e| e.response = None);
    let store = store_of([
        failed(1, "/a"),
        exchange(2, "GET", "/a", "first"),
        failed(3, "/a"),
        exchange(4, "GET", "/a", "second"),
        failed(5, "/b"),
        without,
    ]);
    let player = plain(store).await;
    for expected in ["first", "second", "second"] {
        assert_eq!(player.get_text("/a").await, expected);
    }
    assert_eq!(player.get("/b").await.status(), StatusCode::BAD_GATEWAY);
    let never = player.get("/never").await;
    assert_eq!(never.status(), StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(never.body()).contains("recorded without a response"));
}

#[tokio::test]
async fn not_modified_answers_only_who_asks_conditionally() {
    let full = exchange(1, "GET", "/style.css", "body{}");
    let unchanged = exchange(2, "GET", "/style.css", "")
        .request_header("if-none-match", "\"1\"")
        .status(304);
    let player = plain(store_of([full, unchanged])).await;
    for _ in 0..3 {
        assert_eq!(player.get("/style.css").await.status(), StatusCode::OK);
    }
    for (tag, status) in [
        ("\"1\"", StatusCode::NOT_MODIFIED),
        ("\"2\"", StatusCode::OK),
    ] {
        let request = player
            .request("GET", "/style.css")
            .header("if-none-match", tag);
        let answer = player.send(request.body(empty()).unwrap()).await;
        assert_eq!(answer.status(), status, "{tag}");
    }
}

#[tokio::test]
async fn a_part_answers_only_its_own_range_and_a_bare_304_only_a_bare_request() {
    let part = exchange(1, "GET", "/video", "01")
        .request_header("range", "bytes=0-1")
        .status(206);
    let bare = exchange(2, "GET", "/status/304", "").status(304);
    let player = plain(store_of([part, bare])).await;
    let ask = |target: &str, name: &'static str, value: &str| {
        let request = player.request("GET", target).header(name, value);
        request.body(empty()).unwrap()
    };
    let own = player.send(ask("/video", "range", "bytes=0-1")).await;
    assert_eq!(own.status(), StatusCode::PARTIAL_CONTENT);
    for missed in [
        player.send(ask("/video", "range", "bytes=2-3")).await,
        player.get("/video").await,
    ] {
        assert_eq!(missed.status(), StatusCode::NOT_FOUND);
        let told = String::from_utf8_lossy(missed.body());
        assert!(told.contains("header: range"), "{told}");
    }
    let bare = player.get("/status/304").await;
    assert_eq!(bare.status(), StatusCode::NOT_MODIFIED);
    let conditional = ask("/status/304", "if-none-match", "\"1\"");
    let conditional = player.send(conditional).await;
    assert_eq!(conditional.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_coding_that_was_not_asked_for_is_a_second_choice() {
    let coded = |seq, target: &str| {
        exchange(seq, "GET", target, "coded")
            .request_header("accept-encoding", "gzip")
            .response_header("content-encoding", "gzip")
    };
    let store = store_of([
        coded(1, "/a"),
        exchange(2, "GET", "/a", "plain"),
        coded(3, "/only"),
    ]);
    let player = plain(store).await;
    assert_eq!(player.get_text("/a").await, "plain");
    assert_eq!(player.get_text("/only").await, "coded");
}

#[tokio::test]
async fn pieces_that_are_not_the_recorded_length_break_the_answer_off() {
    for bytes in [5, 15] {
        let store = store_of([]);
        let recorded = exchange(1, "GET", "/large", "");
        let id = recorded.id;
        let recorded = recorded.response(|r| {
            r.headers = headers(&[("content-length", "10")]);
            r.body = Body {
                bytes,
                ..chunked(&store, id, Side::Response, b"0123456789", 4, true)
            };
        });
        store.add(&super::recording::record(recorded));
        let (player, metrics) = player(store, AnswerConfig::default()).await;
        let request = player.request("GET", "/large").body(empty()).unwrap();
        let answer = player.open(request).await;
        assert!(answer.into_body().collect().await.is_err(), "{bytes}");
        assert_eq!(count(&metrics.answers_broken, "length"), 1, "{bytes}");
    }
}

#[tokio::test]
async fn head_and_no_content_have_no_body() {
    let head = exchange(1, "HEAD", "/file", "").response(|r| {
        r.headers = headers(&[("content-length", "12345")]);
    });
    let none = exchange(2, "DELETE", "/file", "").status(204);
    let player = plain(store_of([head, none])).await;
    let request = player.request("HEAD", "/file").body(empty()).unwrap();
    let answer = player.send(request).await;
    assert_eq!(answer.headers()["content-length"], "12345");
    let request = player.request("DELETE", "/file").body(empty()).unwrap();
    let answer = player.send(request).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(!answer.headers().contains_key("content-length"));
    assert!(answer.body().is_empty());
}

#[tokio::test]
async fn a_large_body_is_streamed_from_its_chunks() {
    let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let store = store_of([]);
    for (seq, length) in [(1, Some(content.len())), (2, None)] {
        let mut large = exchange(seq, "GET", &format!("/large{seq}"), "");
        let body = chunked(&store, large.id, Side::Response, &content, 60_000, true);
        large = large.response(|r| {
            r.body = body;
            r.headers = match length {
                Some(length) => headers(&[("content-length", &length.to_string())]),
                None => headers(&[("transfer-encoding", "chunked")]),
            };
        });
        store.add(&super::recording::record(large));
    }
    let player = plain(store).await;
    let declared = player.get("/large1").await;
    assert_eq!(declared.headers()["content-length"], "3000000");
    assert_eq!(declared.body(), &content);
    let open = player.get("/large2").await;
    assert!(!open.headers().contains_key("content-length"));
    assert_eq!(open.body(), &content);
}

#[tokio::test]
async fn a_missing_chunk_breaks_the_answer_off() {
    let store = store_of([]);
    let mut large = exchange(1, "GET", "/large", "");
    let body = chunked(
        &store,
        large.id,
        Side::Response,
        &[7; 200_000],
        60_000,
        false,
    );
    large = large.response(|r| (r.body, r.headers) = (body, headers(&[])));
    store.add(&super::recording::record(large));
    let (player, metrics) = player(store, AnswerConfig::default()).await;
    let request = player.request("GET", "/large").body(empty()).unwrap();
    let answer = player.open(request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(count(&metrics.answers_broken, "missing_chunk"), 1);
}

#[tokio::test]
async fn a_truncated_body_is_marked_and_broken_off_but_an_event_stream_just_ends() {
    let cut = |seq, target: &str, kind: &str| {
        exchange(seq, "GET", target, "").response(|r| {
            r.headers = headers(&[("content-type", kind)]);
            r.body = Body {
                truncated: true,
                bytes: 99,
                ..Body::inline(Bytes::from("data: 1\n\n"))
            };
        })
    };
    let store = store_of([
        cut(1, "/file", "text/plain"),
        cut(2, "/events", "text/event-stream; charset=utf-8"),
    ]);
    let (player, metrics) = player(store, AnswerConfig::default()).await;
    let request = player.request("GET", "/file").body(empty()).unwrap();
    let mut answer = player.open(request).await;
    assert_eq!(answer.headers()["qproxy-truncated"], "true");
    let first = answer.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
    assert!(answer.frame().await.unwrap().is_err());
    assert_eq!(count(&metrics.answers_broken, "truncated"), 1);
    let events = player.get("/events").await;
    assert_eq!(events.headers()["qproxy-truncated"], "true");
    assert_eq!(events.body(), "data: 1\n\n");
}

#[tokio::test]
async fn trailers_follow_the_body() {
    let recorded = exchange(1, "GET", "/t", "").response(|r| {
        r.headers = headers(&[("trailer", "x-sum")]);
        r.body = Body::inline(Bytes::from("abc"));
        r.trailers = headers(&[("x-sum", "6")]);
    });
    let player = plain(store_of([recorded])).await;
    let request = player.request("GET", "/t").header("te", "trailers");
    let answer = player.open(request.body(empty()).unwrap()).await;
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "6");
    assert_eq!(collected.to_bytes(), "abc");
}

#[tokio::test]
async fn a_miss_names_the_nearest_records_and_what_differs() {
    let store = store_of([
        exchange(1, "GET", "/items?page=2", "x"),
        exchange(2, "POST", "/items", "x").request_body("{}"),
        exchange(3, "GET", "/health", "x"),
    ]);
    let (player, metrics) = player(store, AnswerConfig::default()).await;
    let answer = player.get("/items?page=1").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let told: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(told["error"], "no recorded answer");
    assert_eq!(told["request"]["target"], "/items?page=1");
    assert_eq!(told["nearest"][0]["target"], "/items?page=2");
    assert_eq!(
        told["nearest"][0]["differs"][0],
        "query: page=1, recorded page=2"
    );
    assert_eq!(
        told["nearest"][1]["differs"][0],
        "method: GET, recorded POST"
    );
    assert_eq!(told["nearest"].as_array().unwrap().len(), 2);
    assert!(told["hint"].as_str().unwrap().contains("query parameters"));
    let request = player.request("POST", "/items").body(Full::from("[1]"));
    let answer = player.send(request.unwrap()).await;
    let told: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        told["nearest"][0]["differs"][0],
        "body: 3 bytes, recorded 2 bytes"
    );
    let head = player.request("HEAD", "/none").body(empty()).unwrap();
    assert_eq!(player.send(head).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(count(&metrics.answers, "miss"), 3);
}

#[tokio::test]
async fn an_empty_store_says_so() {
    let told = plain(store_of([])).await.get_text("/").await;
    assert!(told.contains("the store holds no record yet"), "{told}");
}

#[tokio::test]
async fn a_body_that_is_too_large_to_pass_on_is_still_matched() {
    let live = Service::start(async |_| text("live")).await;
    let config = AnswerConfig {
        miss: Miss::PassThrough(live.target()),
        max_passed_body: 10,
        ..AnswerConfig::default()
    };
    let mut recorded = exchange(1, "POST", "/", "kept");
    recorded.request.body = Body::inline("12345678901".into());
    let (player, metrics) = player(store_of([recorded]), config).await;
    let post = async |content: &'static str| {
        let request = player.request("POST", "/").body(Full::from(content));
        player.send(request.unwrap()).await
    };
    assert_eq!(post("12345678901").await.body(), "kept");
    assert_eq!(post("1234567890").await.body(), "live");
    let refused = post("another one").await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(count(&metrics.answers, "refused"), 1);
    assert_eq!(live.seen().len(), 1, "it was not passed on");
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let config = AnswerConfig {
        body_timeout: Duration::from_millis(20),
        ..AnswerConfig::default()
    };
    let answerer = Answerer::new(store_of([]), config, Metrics::default()).unwrap();
    let (parts, ()) = http::Request::post("/").body(()).unwrap().into_parts();
    let frames = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    let body = http_body_util::StreamBody::new(frames);
    let client = "127.0.0.1:1".parse().unwrap();
    let answer = answerer.answer(&parts, body, client).await;
    assert_eq!(answer.response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_long_as_long_as_it_comes() {
    let answerer =
        Answerer::new(store_of([]), AnswerConfig::default(), Metrics::default()).unwrap();
    let (parts, ()) = http::Request::post("/").body(()).unwrap().into_parts();
    let frames = futures_util::stream::unfold(0, async |sent| {
        tokio::time::sleep(AnswerConfig::default().body_timeout / 2).await;
        let frame = http_body::Frame::data(Bytes::from_static(b"part"));
        (sent < 10).then_some((Ok::<_, std::io::Error>(frame), sent + 1))
    });
    let body = http_body_util::StreamBody::new(Box::pin(frames));
    let client = "127.0.0.1:1".parse().unwrap();
    let answer = answerer.answer(&parts, body, client).await;
    assert_eq!(answer.response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_not_taken_for_a_miss() {
    let store = store_of([exchange(1, "GET", "/", "x")]);
    store.break_down();
    let (player, metrics) = player(store, AnswerConfig::default()).await;
    let answer = player.get("/").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(answer.body()).contains("store is closed"));
    assert_eq!(count(&metrics.answers, "failed"), 1);
}

#[tokio::test]
async fn a_miss_reaches_a_live_service_only_if_told_to() {
    let service = Service::start(async |seen| text(&format!("live {}", seen.target))).await;
    let config = AnswerConfig {
        miss: Miss::PassThrough(service.target()),
        ..AnswerConfig::default()
    };
    let store = store_of([exchange(1, "GET", "/known", "recorded")]);
    let (player, metrics) = player(store, config).await;
    assert_eq!(player.get_text("/known").await, "recorded");
    assert!(service.seen().is_empty());
    let request = player.request("POST", "/new?x=1").body(Full::from("body"));
    let answer = player.send(request.unwrap()).await;
    assert_eq!(answer.body(), "live /new?x=1");
    let seen = &service.seen()[0];
    assert_eq!(
        (seen.method.as_str(), &seen.body[..]),
        ("POST", &b"body"[..])
    );
    assert_eq!(seen.header("host"), service.address.to_string());
    assert_eq!(count(&metrics.answers, "pass_through"), 1);
    drop(service);
    let answer = player.get("/new").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn an_answer_waits_as_told_but_no_longer_than_the_limit() {
    for (delay, at_least) in [
        (Delay::Fixed(Duration::from_millis(40)), 40),
        (Delay::AsRecorded, 30),
        (Delay::Fixed(Duration::from_secs(3600)), 50),
    ] {
        let config = AnswerConfig {
            delay,
            max_delay: Duration::from_millis(50),
            ..AnswerConfig::default()
        };
        let slow = exchange(1, "GET", "/", "x").with(|e| e.timing.first_byte_us = Some(30_000));
        let (player, _) = player(store_of([slow]), config).await;
        let start = Instant::now();
        player.get("/").await;
        assert!(
            start.elapsed() >= Duration::from_millis(at_least),
            "{delay:?}"
        );
    }
}
