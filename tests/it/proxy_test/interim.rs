//! Interim responses: 100 when the upstream wants the content, early hints at once, all of them recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Proxy;
use super::http2_support::Http2;
use super::origin::{Origin, PATIENCE, Peer, pool};

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Gives early hints, waits to be told, and answers.
async fn hinting() -> (Origin, tokio::sync::watch::Sender<bool>) {
    let (tell, told) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |_, socket| {
        let mut told = told.clone();
        async move {
            let mut peer = Peer::over(socket);
            while peer.head().await.is_some() {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: close\r\n\r\n")
                    .await;
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n").await;
                let _ = told.wait_for(|told| *told).await;
                peer.send(OK).await;
            }
        }
    })
    .await;
    (origin, tell)
}

#[tokio::test]
async fn early_hints_pass_before_the_answer_and_are_recorded() {
    let (origin, tell) = hinting().await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    for _ in 0..2 {
        tell.send_replace(false);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
            // The origin answers only after the client has seen the hints.
            let head = client.head().await.unwrap();
            assert_eq!((head.status(), head.value("link")), (103, Some(link)));
            assert_eq!(head.value("connection"), None);
        }
        tell.send_replace(true);
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(client.body(&head).await.content, b"ok");
    }
    let response = proxy.kept.exchange().await.response.unwrap();
    let hints: Vec<_> = response
        .informational
        .iter()
        .map(|(status, fields)| (*status, fields.first("link").cloned().unwrap()))
        .collect();
    assert_eq!(
        hints,
        [
            (103, "</a.css>; rel=preload".into()),
            (103, "</b.css>; rel=preload".into())
        ]
    );
}

#[tokio::test]
async fn clients_that_know_no_interim_responses_get_none() {
    let (origin, tell) = hinting().await;
    tell.send_replace(true);
    let proxy = Proxy::start(origin.pool());
    let mut old = proxy.client().await;
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(old.head().await.unwrap().status(), 200);
    let new = Http2::connect(proxy.running.local_addr()).await;
    assert_eq!(new.get("http://a/").await.body, b"ok");
}

#[tokio::test]
async fn the_content_is_asked_for_when_the_upstream_wants_it() {
    let (tell, told) = tokio::sync::watch::channel(false);
    let (asked, mut was_asked) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |_, socket| {
        let (mut told, asked) = (told.clone(), asked.clone());
        async move {
            let mut peer = Peer::over(socket);
            let head = peer.head().await.unwrap();
            assert_eq!(head.value("expect"), Some("100-continue"));
            asked.send_replace(true);
            let _ = told.wait_for(|told| *told).await;
            peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(peer.body(&head).await.content, b"hello");
            peer.send(OK).await;
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send(EXPECTING).await;
    was_asked.wait_for(|asked| *asked).await.unwrap();
    tell.send_replace(true);
    assert_eq!(client.head().await.unwrap().status(), 100);
    let (head, body) = client.ask("hello").await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"ok"[..]));
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.request.body.inline, "hello");
    assert_eq!(exchange.response.unwrap().informational[0].0, 100);
}

#[tokio::test]
async fn a_refusal_comes_without_the_content_being_asked_for() {
    let bytes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&bytes);
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let (count, told) = (Arc::clone(&count), told.clone());
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            peer.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
                .await;
            count.store(peer.rest().await.len(), Ordering::SeqCst);
            let _ = told.send(());
        }
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let (head, body) = client.ask(EXPECTING).await;
    assert_eq!((head.status(), &body.content[..]), (417, &b"no"[..]));
    let ended = tokio::time::timeout(PATIENCE, ended.recv()).await;
    ended.expect("the upstream is let go").unwrap();
    assert_eq!(bytes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_upstream_that_says_nothing_gets_the_content_after_a_while() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let head = peer.head().await.unwrap();
        assert_eq!(peer.body(&head).await.content, b"hello");
        peer.send(OK).await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send(EXPECTING).await;
    assert_eq!(client.head().await.unwrap().status(), 100);
    assert_eq!(client.ask("hello").await.0.status(), 200);
}

#[tokio::test]
async fn hints_of_an_http2_upstream_do_no_harm_to_its_answer() {
    let origin = Origin::start(|_, socket| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            for status in [102, 103, 103] {
                let interim = http::Response::builder().status(status).body(()).unwrap();
                respond.send_informational(interim).unwrap();
            }
            let mut content = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            content.send_data("ok".into(), true).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(pool(&[&format!("h2c://{}", origin.address)]));
    let mut client = proxy.client().await;
    let (head, content) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((head.status(), &content.content[..]), (200, &b"ok"[..]));
    let response = proxy.kept.exchange().await.response.unwrap();
    assert_eq!(response.informational, [], "the library tells of none");
}
