//! Heads, connections and methods.

use std::time::Duration;

use qproxy::record::{Digest, Outcome};

use super::Proxy;
use super::origin::{Origin, Peer, pool};

const HELLO: &str = "HTTP/1.1 200 OK\r\nX-OriGin: a\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\nhello";

#[tokio::test]
async fn passes_heads_with_their_case_and_order_and_records_both_sides() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let request =
        "GET /a%20b?x=1&x=2 HTTP/1.1\r\nHost: shop.test\r\nX-CuStom: 1\r\naccept: */*\r\n\r\n";
    let (head, body) = client.ask(request).await;
    assert_eq!(body.content, b"hello");
    assert_eq!(head.text, HELLO.split("\r\n\r\n").next().unwrap());
    assert_eq!(seen.lock().unwrap()[0], request.trim_end());
    let exchange = proxy.kept.exchange().await;
    assert_eq!(&*exchange.request.target, "/a%20b?x=1&x=2");
    assert_eq!(exchange.request.host(), "shop.test");
    assert_eq!(
        &*exchange.client,
        client.socket.local_addr().unwrap().to_string()
    );
    assert_eq!(
        exchange.upstream.as_deref(),
        Some(&*format!("http://{}", origin.address))
    );
    let response = exchange.response.unwrap();
    assert_eq!(
        (response.status, &response.body.inline[..]),
        (200, &b"hello"[..])
    );
    assert_eq!(response.headers.all("set-cookie").count(), 2);
    assert_eq!(exchange.outcome, Outcome::Ok);
}

#[tokio::test]
async fn keeps_connections_on_both_sides() {
    let (origin, _) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..50 {
        let (head, _) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(head.status(), 200);
    }
    let mut other = proxy.client().await;
    other.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(origin.connected(), 1);
}

#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut client = proxy.client().await;
    let post =
        |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{body}");
    client.send(&(post("1") + &post("2") + &post("3"))).await;
    for expected in [b"1", b"2", b"3"] {
        let head = client.head().await.unwrap();
        assert_eq!(client.body(&head).await.content, expected);
    }
}

#[tokio::test]
async fn passes_content_however_it_is_framed() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut client = proxy.client().await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let (_, body) = client.ask(chunked).await;
    assert_eq!(body.content, b"hello world");
    let (_, body) = client
        .ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(body.content, b"abc");
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.request.body.digest, Digest::of(b"hello world"));
}

#[tokio::test]
async fn says_continue_to_a_client_that_waits_for_it() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 100);
    let (head, body) = client.ask("ok").await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"ok"[..]));
}

#[tokio::test]
async fn passes_trailers_and_records_them() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (origin, seen) = Origin::fixed(answer).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n";
    let (_, body) = client.ask(request).await;
    assert_eq!(
        (&body.content[..], &*body.trailers.to_lowercase()),
        (&b"ok"[..], "x-sum: 7")
    );
    assert!(
        seen.lock().unwrap()[0]
            .to_lowercase()
            .contains("te: trailers")
    );
    let response = proxy.kept.exchange().await.response.unwrap();
    assert_eq!(response.trailers.first("x-sum").unwrap(), "7");
}

#[tokio::test]
async fn responses_without_content_end_with_their_head() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    ] {
        let (origin, _) = Origin::fixed(answer).await;
        let proxy = Proxy::start(origin.pool());
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client
                .send(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let head = client.head().await.unwrap();
            assert_eq!(head.text, answer.trim_end());
        }
        assert_eq!(origin.connected(), 1);
    }
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_whole() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let (_, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(body.whole);
        assert_eq!(body.content, b"until the end");
    }
    assert_eq!(proxy.kept.exchange().await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n";
    let (origin, seen) = Origin::fixed(answer).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine\r\nX-Mine: 1\r\nProxy-Connection: x\r\n\r\n";
    let (head, _) = client.ask(request).await;
    assert!(head.value("x-hop").is_none() && head.value("keep-alive").is_none());
    assert_eq!(head.value("x-end"), Some("2"));
    assert_eq!(seen.lock().unwrap()[0], "GET / HTTP/1.1\r\nHost: a");
}

#[tokio::test]
async fn old_clients_are_served_and_closed() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(client.rest().await, b"hello");
    let expected = format!("GET / HTTP/1.1\r\nhost: {}", origin.address);
    assert_eq!(seen.lock().unwrap()[0], expected);
}

#[tokio::test]
async fn absolute_targets_are_served_and_connect_is_not() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let (head, _) = client
        .ask("GET http://other:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(head.status(), 200);
    assert_eq!(
        seen.lock().unwrap()[0],
        "GET /x?y HTTP/1.1\r\nHost: other:81"
    );
    let (head, body) = client
        .ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
        .await;
    assert_eq!(head.status(), 501);
    assert!(String::from_utf8_lossy(&body.content).contains("CONNECT"));
}

#[tokio::test]
async fn a_path_prefix_and_a_host_of_the_upstream_are_used() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let pool = pool(&[&format!("http://{}/base", origin.address)]);
    let proxy = Proxy::with(pool, |config| {
        config.host = super::http_proxy::Host::Upstream
    });
    proxy
        .client()
        .await
        .ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let expected = format!("GET /base/x HTTP/1.1\r\nHost: {}", origin.address);
    assert_eq!(seen.lock().unwrap()[0], expected);
}

#[tokio::test]
async fn smuggling_and_broken_heads_get_400_and_never_reach_the_upstream() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    for bad in [
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: 1\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = proxy.client().await;
        client.send(bad).await;
        let head = client
            .head()
            .await
            .unwrap_or_else(|| panic!("no answer to {bad:?}"));
        assert_eq!(head.status(), 400, "{bad:?}");
        client.rest().await;
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn chunks_from_the_upstream_override_a_length_beside_them() {
    let (origin, _) = Origin::fixed(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    )
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..2 {
        let (head, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(head.value("content-length"), None);
        assert!(body.whole);
        assert_eq!(body.content, b"hello world");
    }
}

#[tokio::test]
async fn heads_with_many_fields_pass() {
    let many = |name: &str| -> String { (0..150).map(|n| format!("{name}: n{n}=v\r\n")).collect() };
    let answer = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        many("Set-Cookie")
    );
    let (origin, seen) = Origin::fixed(answer.leak()).await;
    let proxy = Proxy::start(origin.pool());
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", many("X-Many"));
    let (head, _) = proxy.client().await.ask(&request).await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.text.matches("Set-Cookie: ").count(), 150);
    assert_eq!(seen.lock().unwrap()[0].matches("X-Many: ").count(), 150);
}

#[tokio::test]
async fn an_oversize_head_gets_431() {
    let (origin, _) = Origin::fixed(HELLO).await;
    let proxy = Proxy::with(origin.pool(), |config| config.max_head_bytes = 8192);
    let mut client = proxy.client().await;
    let long = "x".repeat(10_000);
    client
        .send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"))
        .await;
    assert_eq!(client.head().await.unwrap().status(), 431);
}

#[tokio::test]
async fn upgrades_pass_as_bytes_after_a_recorded_101() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let head = peer.head().await.unwrap();
        assert_eq!(head.value("upgrade"), Some("chat"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nfirst ").await;
        let said = peer.rest().await;
        peer.send_bytes(&said).await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: chat\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status(), head.value("upgrade")), (101, Some("chat")));
    client.send("hello").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.socket)
        .await
        .unwrap();
    assert_eq!(client.rest().await, b"first hello");
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.response.unwrap().status, 101);
    assert_eq!(exchange.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_tunnel_may_rest_for_longer_than_a_response() {
    let length = 32 << 20;
    let origin = Origin::start(move |_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
        )
        .await;
        peer.send_bytes(&vec![1; length]).await;
    })
    .await;
    let limit = Duration::from_millis(20);
    let proxy = Proxy::with(origin.pool(), |config| config.write_timeout = limit);
    let mut client = proxy.client().await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    // Time is what is tested here: the buffers are full, and the limit passes many times over.
    tokio::time::sleep(limit * 10).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.socket)
        .await
        .unwrap();
    assert_eq!(client.rest().await.len(), length);
}

#[tokio::test]
async fn an_offer_of_h2c_is_plain_http_on_kept_connections() {
    let (origin, seen) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let (head, body) = client
            .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
            .await;
        assert_eq!((head.status(), &body.content[..]), (200, &b"hello"[..]));
    }
    assert_eq!(origin.connected(), 1);
    let seen = seen.lock().unwrap();
    assert!(
        seen.iter()
            .all(|head| !head.to_lowercase().contains("upgrade"))
    );
    assert!(seen.iter().all(|head| !head.contains("HTTP2")));
}

#[tokio::test]
async fn a_refused_upgrade_is_a_plain_exchange() {
    let (origin, _) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let (head, body) = client
        .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        .await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"hello"[..]));
}

#[tokio::test]
async fn replayed_requests_pass_and_are_not_recorded_again() {
    let (origin, _) = Origin::fixed(HELLO).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let (head, _) = client
        .ask("GET /replayed HTTP/1.1\r\nHost: a\r\nQProxy-Replay: run-1\r\n\r\n")
        .await;
    assert_eq!(head.status(), 200);
    client.ask("GET /real HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(&*proxy.kept.exchange().await.request.target, "/real");
}
