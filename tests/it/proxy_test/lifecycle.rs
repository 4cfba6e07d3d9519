//! Binding, limits on clients, responders, and how a proxy ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use qproxy::capture::Capture;
use qproxy::metrics::Registry;
use qproxy::proxy::{Drained, Error, Metrics, http};
use qproxy::record::ConnectionId;
use tokio::net::TcpStream;

use super::origin::{Origin, PATIENCE, Peer, eventually};
use super::{Proxy, local};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_taken_port_is_named() {
    let origin = Origin::echo().await;
    let config = http::Config::new(origin.address, "shop");
    let metrics = Metrics::default();
    let error = http::bind(config, origin.pool(), Capture::disabled(), metrics).unwrap_err();
    assert!(
        error
            .chain()
            .starts_with(&format!("listen on {}: ", origin.address))
    );
    let Error::Bind { source, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_named() {
    let origin = Origin::echo().await;
    let mut config = http::Config::new(local(), "shop");
    config.max_head_bytes = 10;
    let metrics = Metrics::default();
    let error = http::bind(config, origin.pool(), Capture::disabled(), metrics).unwrap_err();
    assert!(error.to_string().contains("`max_head_bytes`"), "{error}");
}

#[tokio::test]
async fn clients_over_the_limit_wait_until_one_has_gone() {
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.max_connections = 1
    });
    let mut first = proxy.client().await;
    assert_eq!(first.ask(GET).await.0.status(), 200);
    let mut second = proxy.client().await;
    second.send(GET).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.socket.readable());
    assert!(early.await.is_err(), "the second client is not served yet");
    drop(first);
    assert_eq!(second.head().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_head_that_trickles_in_too_slowly_is_cut() {
    let short = Duration::from_millis(50);
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.head_timeout = short
    });
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost:").await;
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"));
}

/// An origin that answers when told to.
async fn on_command() -> (
    Origin,
    tokio::sync::watch::Sender<u8>,
    tokio::sync::watch::Receiver<u8>,
) {
    let (command, told) = tokio::sync::watch::channel(0_u8);
    let (asked, heard) = tokio::sync::watch::channel(0_u8);
    let origin = Origin::start(move |_, socket| {
        let (mut told, asked) = (told.clone(), asked.clone());
        async move {
            let mut peer = Peer::over(socket);
            peer.head().await;
            asked.send_replace(1);
            let _ = told.wait_for(|told| *told == 1).await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            peer.rest().await;
        }
    })
    .await;
    (origin, command, heard)
}

#[tokio::test]
async fn a_drain_lets_what_is_in_flight_finish_and_takes_nothing_new() {
    let (origin, answer, mut asked) = on_command().await;
    let proxy = Proxy::start(origin.pool());
    let address = proxy.running.local_addr();
    let mut client = proxy.client().await;
    client.send(GET).await;
    asked.wait_for(|asked| *asked == 1).await.unwrap();
    let draining = tokio::spawn(proxy.running.shutdown(PATIENCE));
    eventually("new clients are refused", || {
        std::net::TcpStream::connect(address).is_err().then_some(())
    })
    .await;
    answer.send_replace(1);
    let head = client.head().await.unwrap();
    assert_eq!(
        (head.status(), head.value("connection")),
        (200, Some("close"))
    );
    assert!(client.body(&head).await.whole);
    assert_eq!(draining.await.unwrap(), Drained { aborted: 0 });
}

#[tokio::test]
async fn idle_clients_do_not_hold_up_a_drain() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut client = proxy.client().await;
    client.ask(GET).await;
    let silent = proxy.client().await;
    assert_eq!(
        proxy.running.shutdown(PATIENCE).await,
        Drained { aborted: 0 }
    );
    assert!(client.rest().await.is_empty());
    drop(silent);
}

#[tokio::test]
async fn after_the_grace_period_the_rest_is_closed_and_counted() {
    let (origin, _answer, mut asked) = on_command().await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    client.send(GET).await;
    asked.wait_for(|asked| *asked == 1).await.unwrap();
    let drained = proxy.running.shutdown(Duration::from_millis(20)).await;
    assert_eq!(drained, Drained { aborted: 1 });
    assert!(client.rest().await.is_empty());
    assert_eq!(proxy.kept.exchange().await.response, None);
}

struct Echo;

impl http::Responder for Echo {
    fn respond(
        &self,
        request: hyper::Request<Incoming>,
        client: SocketAddr,
        connection: ConnectionId,
    ) -> http::BoxFuture<http::Answer> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("{path} {} {}", String::from_utf8_lossy(&body), client.ip());
            assert!(connection.0 > 0);
            let body = Full::from(text).map_err(|never| match never {});
            http::Answer::Response(hyper::Response::new(body.boxed_unsync()))
        })
    }
}

#[tokio::test]
async fn a_responder_answers_in_place_of_an_upstream() {
    let config = http::Config::new(local(), "shop");
    let metrics = Metrics::default();
    let bound = http::bind_responder(config, Arc::new(Echo), metrics.clone()).unwrap();
    let running = bound.serve();
    let mut client = Peer::connect(running.local_addr()).await;
    let (head, body) = client
        .ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(head.status(), 200);
    assert_eq!(body.content, b"/x hi 127.0.0.1");
    drop(client);
    assert_eq!(running.shutdown(PATIENCE).await.aborted, 0);
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let page = registry.text();
    for line in [
        "qproxy_proxy_requests_total{status_class=\"2xx\"} 1",
        "qproxy_proxy_connections_total 1",
        "qproxy_proxy_open_connections 0",
        "qproxy_proxy_requests_in_flight 0",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[tokio::test]
async fn many_clients_at_once_each_get_their_own_answers() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let address = proxy.running.local_addr();
    let clients = (0..40).map(|number| {
        tokio::spawn(async move {
            let mut client = Peer::over(TcpStream::connect(address).await.unwrap());
            for round in 0..10 {
                let body = format!("{number}-{round}");
                let length = body.len();
                let post =
                    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
                assert_eq!(client.ask(&post).await.1.content, body.as_bytes());
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let exchanges = eventually("400 records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 400)
    });
    for exchange in exchanges.await {
        assert_eq!(
            exchange.request.body.inline,
            exchange.response.unwrap().body.inline
        );
    }
}
