//! Upstreams and clients that fail: what the other side sees, and what the record says.

use std::time::Duration;

use qproxy::record::{Outcome, UpstreamFailure};

use super::Proxy;
use super::origin::{Content, Head, Origin, Peer, eventually, pool, refused};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn failure(outcome: &Outcome) -> UpstreamFailure {
    match outcome {
        Outcome::UpstreamFailed(failure, _) => *failure,
        other => panic!("{other:?}"),
    }
}

/// The answer says in JSON what failed, and the record says the same.
async fn expect(proxy: &Proxy, answer: (Head, Content), status: u16, kind: UpstreamFailure) {
    let (head, content) = answer;
    assert_eq!(head.status(), status, "{head:?}");
    assert_eq!(head.value("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&content.content).unwrap();
    assert_eq!(json["error"], "upstream_failed");
    assert_eq!(json["failure"], kind.as_str());
    assert!(
        json["upstream"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:"),
        "{json}"
    );
    let exchange = proxy.kept.exchange().await;
    assert_eq!(failure(&exchange.outcome), kind);
    assert!(exchange.upstream.is_some());
    let response = exchange.response.unwrap();
    assert_eq!(response.status, status);
    assert_eq!(response.body.inline, content.content);
    assert!(!response.body.truncated);
}

async fn first_answer(raw: &'static str) -> (Proxy, (Head, Content)) {
    let origin = Origin::start(move |_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send(raw).await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let answer = proxy.client().await.ask(GET).await;
    (proxy, answer)
}

#[tokio::test]
async fn no_upstream_gives_502() {
    let proxy = Proxy::start(pool(&[&format!("http://{}", refused().await)]));
    let answer = proxy.client().await.ask(GET).await;
    expect(&proxy, answer, 502, UpstreamFailure::Connect).await;
}

#[tokio::test]
async fn garbage_from_the_upstream_gives_502() {
    let (proxy, answer) = first_answer("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    expect(&proxy, answer, 502, UpstreamFailure::Protocol).await;
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_gives_502() {
    let (proxy, answer) = first_answer("").await;
    expect(&proxy, answer, 502, UpstreamFailure::Reset).await;
}

#[tokio::test]
async fn an_upstream_that_never_answers_gives_504_and_is_let_go() {
    let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.rest().await;
            let _ = told.send(());
        }
    })
    .await;
    let short = Duration::from_millis(50);
    let proxy = Proxy::with(origin.pool(), |config| config.response_timeout = short);
    let answer = proxy.client().await.ask(GET).await;
    expect(&proxy, answer, 504, UpstreamFailure::Timeout).await;
    gone.recv()
        .await
        .expect("the upstream connection is closed");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_seen_by_the_client_as_broken_off() {
    for (raw, framing) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            "length",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "chunks",
        ),
    ] {
        let (proxy, (head, content)) = first_answer(raw).await;
        assert_eq!(head.status(), 200);
        assert!(!content.whole, "{framing}");
        let exchange = proxy.kept.exchange().await;
        assert_eq!(
            failure(&exchange.outcome),
            UpstreamFailure::Reset,
            "{framing}"
        );
        let body = exchange.response.unwrap().body;
        assert!(body.truncated);
        assert_eq!(body.inline, "half");
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_within_its_content_is_given_up() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await;
        peer.rest().await;
    })
    .await;
    let short = Duration::from_millis(50);
    let proxy = Proxy::with(origin.pool(), |config| config.body_timeout = short);
    let (_, content) = proxy.client().await.ask(GET).await;
    assert!(!content.whole);
    assert_eq!(
        failure(&proxy.kept.exchange().await.outcome),
        UpstreamFailure::Timeout
    );
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            let _ = told.send("asked");
            peer.rest().await;
            let _ = told.send("gone");
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send(GET).await;
    assert_eq!(heard.recv().await, Some("asked"));
    drop(client);
    assert_eq!(heard.recv().await, Some("gone"));
    let exchange = proxy.kept.exchange().await;
    assert_eq!(
        (exchange.outcome, exchange.response),
        (Outcome::ClientClosed, None)
    );
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_download_is_recorded_so() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await;
        let part = vec![1; 1 << 16];
        while tokio::io::AsyncWriteExt::write_all(&mut peer.socket, &part)
            .await
            .is_ok()
        {}
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send(GET).await;
    client.head().await.unwrap();
    drop(client);
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.outcome, Outcome::ClientClosed);
    assert!(exchange.response.unwrap().body.truncated);
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_loses_its_connection() {
    let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                .await;
            let part = vec![1; 1 << 16];
            while tokio::io::AsyncWriteExt::write_all(&mut peer.socket, &part)
                .await
                .is_ok()
            {}
            let _ = told.send(());
        }
    })
    .await;
    let short = Duration::from_millis(200);
    let proxy = Proxy::with(origin.pool(), |config| config.write_timeout = short);
    let mut client = proxy.client().await;
    client.send(GET).await;
    client.head().await.unwrap();
    gone.recv().await.expect("the upstream is let go");
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.outcome, Outcome::ClientClosed);
    drop(client);
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_upload_is_recorded_so() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    // The copy shows that the half has passed before the client goes.
    eventually("the request is in flight", || {
        (proxy.capture.stats().waiting_bytes > 0).then_some(())
    })
    .await;
    drop(client);
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.outcome, Outcome::ClientClosed);
    assert!(exchange.request.body.truncated);
}

#[tokio::test]
async fn a_client_that_stalls_in_mid_upload_gets_408_and_the_blame() {
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.response_timeout = Duration::from_millis(50);
    });
    let mut client = proxy.client().await;
    let (head, content) = client
        .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    assert_eq!(
        (head.status(), head.value("connection")),
        (408, Some("close"))
    );
    let json: serde_json::Value = serde_json::from_slice(&content.content).unwrap();
    assert_eq!(json["failure"], serde_json::Value::Null);
    let exchange = proxy.kept.exchange().await;
    assert!(matches!(exchange.outcome, Outcome::ClientError(_)));
    assert!(exchange.request.body.truncated);
}

#[tokio::test]
async fn malformed_chunks_end_the_request() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    for bad in ["zz\r\n", "5\r\nhello!", "-1\r\n", "ffffffffffffffffff\r\n"] {
        let mut client = proxy.client().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}{bad}\r\n0\r\n\r\n")).await;
        let answer = client.rest().await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400"),
            "{bad:?}: {text}"
        );
    }
}

/// Serves one request per connection and closes at the second, as if it had been idle for too long.
async fn closes_at_the_second_request() -> Origin {
    Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let head = peer.head().await.unwrap();
        peer.body(&head).await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        peer.head().await;
    })
    .await
}

#[tokio::test]
async fn a_stale_connection_is_retried_where_the_request_can_be_repeated() {
    let origin = closes_at_the_second_request().await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let (head, content) = client
            .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Case: 1\r\n\r\n")
            .await;
        assert_eq!((head.status(), &content.content[..]), (200, &b"ok"[..]));
    }
    assert!(origin.connected() >= 3);
    let exchanges = eventually("three records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 3)
    });
    assert!(
        exchanges
            .await
            .iter()
            .all(|exchange| exchange.outcome == Outcome::Ok)
    );
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let origin = closes_at_the_second_request().await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(client.ask(post).await.0.status(), 200);
    assert_eq!(client.ask(post).await.0.status(), 502);
    assert_eq!(origin.connected(), 1);
}

#[tokio::test]
async fn another_upstream_takes_over_for_one_that_refuses() {
    let good = Origin::echo().await;
    let dead = refused().await;
    let pool = pool(&[
        &format!("http://{dead}"),
        &format!("http://{}", good.address),
    ]);
    let proxy = Proxy::start(pool);
    let mut client = proxy.client().await;
    for _ in 0..6 {
        assert_eq!(client.ask(GET).await.0.status(), 200);
    }
}

#[tokio::test]
async fn an_early_answer_to_a_long_upload_reaches_the_client() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .await;
        peer.rest().await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let (head, content) = client
        .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst")
        .await;
    assert_eq!((head.status(), &content.content[..]), (413, &b"big"[..]));
    drop(client);
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.response.unwrap().status, 413);
    assert!(exchange.request.body.truncated);
}

#[tokio::test]
async fn an_event_stream_may_rest_for_longer_than_other_content() {
    let more = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = std::sync::Arc::clone(&more);
    let origin = Origin::start(move |_, socket| {
        let more = std::sync::Arc::clone(&told);
        async move {
            let mut peer = Peer::over(socket);
            let head = peer.head().await.unwrap();
            let kind = if head.text.starts_with("GET /events ") {
                "Text/Event-Stream; charset=utf-8"
            } else {
                "text/plain"
            };
            let start = "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
            peer.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{start}"
            ))
            .await;
            if kind == "text/plain" {
                peer.rest().await;
            }
            more.notified().await;
            peer.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let short = Duration::from_millis(50);
    let proxy = Proxy::with(origin.pool(), |config| config.body_timeout = short);
    let mut events = proxy.client().await;
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = events.head().await.unwrap();
    // Others that rest are given up meanwhile, one after the other.
    for _ in 0..4 {
        assert!(!proxy.client().await.ask(GET).await.1.whole);
    }
    more.notify_one();
    let content = events.body(&head).await;
    assert!(content.whole);
    assert_eq!(content.content, b"data: 1\n\ndata: 2\n\n");
}
