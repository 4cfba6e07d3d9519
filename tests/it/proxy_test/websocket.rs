//! WebSocket through the proxy, over HTTP/1.1 and HTTP/2 on either side: passed untouched, recorded as messages.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::ext::Protocol as Extension;
use hyper_util::rt::{TokioExecutor, TokioIo};
use qproxy::record::{Direction, Exchange, Opcode, Outcome, Part, Protocol, Segment, accept_key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Proxy;
use super::http2_support::{Http2, full, serve};
use super::origin::{Head, Kept, Origin, Peer, eventually, pool};

const ASK: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a server sends: text, and Close with 1000.
const HELLO: &[u8] = b"\x81\x05hello";
const CLOSE: &[u8] = b"\x88\x02\x03\xe8";

/// A frame as a client sends it, masked.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        first,
        0x80 | u8::try_from(payload.len()).unwrap(),
        1,
        2,
        3,
        4,
    ];
    frame.extend(
        payload
            .iter()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    frame
}

async fn accept(peer: &mut Peer, head: &Head, more: &str) {
    let accept = accept_key(head.value("sec-websocket-key").unwrap().as_bytes());
    peer.send(&format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    ))
    .await;
}

/// An origin that accepts, sends these bytes and closes when its client has.
async fn says(bytes: &'static [u8], more: &'static str) -> Origin {
    Origin::start(move |_, socket| async move {
        let mut peer = Peer::over(socket);
        while let Some(head) = peer.head().await {
            accept(&mut peer, &head, more).await;
            peer.send_bytes(bytes).await;
            peer.rest().await;
        }
    })
    .await
}

/// Direction, kind, part and bytes of what was kept.
fn told(segments: &[Segment]) -> Vec<(Direction, Option<(Opcode, Part)>, String)> {
    let one = |segment: &Segment| {
        let frame = segment.frame.map(|frame| (frame.opcode, frame.part));
        let text = String::from_utf8_lossy(&segment.bytes).into_owned();
        (segment.direction, frame, text)
    };
    segments.iter().map(one).collect()
}

fn of(direction: Direction, segments: &[Segment]) -> Vec<(Option<(Opcode, Part)>, String)> {
    let told = told(segments).into_iter();
    told.filter(|(from, ..)| *from == direction)
        .map(|(_, frame, text)| (frame, text))
        .collect()
}

async fn upgraded(kept: &Kept) -> Exchange {
    let exchange = kept.exchange().await;
    let stream = kept.stream().await;
    assert_eq!(exchange.stream, Some(stream.id));
    assert_eq!(stream.exchange, Some(exchange.id));
    exchange
}

const WHOLE_TEXT: Option<(Opcode, Part)> = Some((Opcode::Text, Part::Whole));
const WHOLE_CLOSE: Option<(Opcode, Part)> = Some((Opcode::Close, Part::Whole));

#[tokio::test]
async fn every_byte_passes_untouched_and_messages_are_kept_with_their_stream() {
    let proxy = Proxy::start(
        says(b"\x01\x03hel\x89\x01?\x80\x02lo\x88\x02\x03\xe8", "")
            .await
            .pool(),
    );
    let mut client = proxy.client().await;
    client.send(ASK).await;
    let head = client.head().await.unwrap();
    assert_eq!(
        head.value("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    client.send_bytes(&masked(0x81, b"hi")).await;
    client.send_bytes(&masked(0x88, b"\x03\xe9away")).await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(
        client.rest().await,
        b"\x01\x03hel\x89\x01?\x80\x02lo\x88\x02\x03\xe8"
    );

    let exchange = upgraded(&proxy.kept).await;
    assert_eq!(exchange.response.unwrap().status, 101);
    let stream = proxy.kept.stream().await;
    assert_eq!(
        (stream.protocol, stream.outcome),
        (Protocol::WebSocket, Outcome::Ok)
    );
    assert_eq!(
        (stream.client_bytes, stream.server_bytes),
        (8 + 12, 5 + 3 + 4 + 4)
    );
    let upgrade = stream.upgrade.unwrap();
    assert_eq!(
        (&*upgrade.host, &*upgrade.target),
        ("shop.test", "/chat?room=1")
    );
    assert_eq!((upgrade.client.messages, upgrade.server.messages), (1, 1));
    assert!(upgrade.close.is_some());
    let segments = proxy.kept.segments();
    assert_eq!(
        of(Direction::Server, &segments),
        [
            (Some((Opcode::Text, Part::First)), "hel".to_owned()),
            (Some((Opcode::Ping, Part::Whole)), "?".to_owned()),
            (Some((Opcode::Text, Part::Last)), "lo".to_owned()),
            (WHOLE_CLOSE, "\u{3}\u{fffd}".to_owned()),
            (None, String::new()),
        ]
    );
    assert_eq!(
        of(Direction::Client, &segments)[..2],
        [
            (WHOLE_TEXT, "hi".to_owned()),
            (WHOLE_CLOSE, "\u{3}\u{fffd}away".to_owned())
        ]
    );
}

#[tokio::test]
async fn what_is_no_websocket_passes_all_the_same_and_is_kept_as_it_came() {
    // A mask from a server, and a client without one.
    let proxy = Proxy::start(
        says(b"\x81\x05hello\x81\x81abcdX, and more", "")
            .await
            .pool(),
    );
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    client.send_bytes(b"\x81\x01xrest").await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"\x81\x05hello\x81\x81abcdX, and more");
    let stream = proxy.kept.stream().await;
    let upgrade = stream.upgrade.unwrap();
    assert!(upgrade.client.unframed.unwrap().contains("without a mask"));
    assert!(upgrade.server.unframed.unwrap().contains("with a mask"));
    let segments = proxy.kept.segments();
    let server = of(Direction::Server, &segments);
    assert_eq!(server[0], (WHOLE_TEXT, "hello".to_owned()));
    assert!(server[1..].iter().all(|(frame, _)| frame.is_none()));
    let raw: Vec<u8> = segments
        .iter()
        .filter(|segment| segment.direction == Direction::Client)
        .flat_map(|segment| segment.bytes.to_vec())
        .collect();
    assert_eq!(raw, b"\x81\x01xrest");
}

#[tokio::test]
async fn a_gigabyte_that_is_announced_and_does_not_come_is_an_unfinished_message() {
    let announced = b"\x82\x7f\x00\x00\x00\x00\x40\x00\x00\x00only this";
    let proxy = Proxy::start(says(announced, "").await.pool());
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.rest().await, announced);
    let stream = proxy.kept.stream().await;
    assert_eq!(stream.upgrade.unwrap().server.messages, 0);
    let segments = proxy.kept.segments();
    let first = (Some((Opcode::Binary, Part::First)), "only this".to_owned());
    assert!(of(Direction::Server, &segments).contains(&first));
}

#[tokio::test]
async fn who_leaves_without_a_close_frame_is_told() {
    let proxy = Proxy::start(says(HELLO, "").await.pool());
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    client.socket.shutdown().await.unwrap();
    client.rest().await;
    assert_eq!(proxy.kept.stream().await.outcome, Outcome::ClientClosed);

    let gone = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        let head = peer.head().await.unwrap();
        accept(&mut peer, &head, "").await;
        peer.send_bytes(b"\x81\x05hel").await;
    })
    .await;
    let proxy = Proxy::start(gone.pool());
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    assert_eq!(client.read_exactly(5).await, b"\x81\x05hel");
    assert_eq!(client.rest().await, b"");
    drop(client);
    let outcome = proxy.kept.stream().await.outcome;
    assert_eq!(outcome.as_str(), "upstream_failed", "{outcome:?}");
    let segments = proxy.kept.segments();
    assert_eq!(
        of(Direction::Server, &segments)[0],
        (Some((Opcode::Text, Part::First)), "hel".to_owned())
    );
}

#[tokio::test]
async fn silence_and_shutdown_end_a_tunnel_and_the_record_says_so() {
    let silent = says(HELLO, "").await;
    let proxy = Proxy::with(silent.pool(), |config| {
        config.tunnel_idle_timeout = Duration::from_millis(200);
    });
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    assert_eq!(client.rest().await, HELLO);
    let outcome = proxy.kept.stream().await.outcome;
    assert_eq!(outcome, Outcome::ProxyClosed("silent for 0.2 s".into()));

    let proxy = Proxy::start(silent.pool());
    let mut client = proxy.client().await;
    client.send(ASK).await;
    client.head().await.unwrap();
    assert_eq!(client.read_exactly(HELLO.len()).await, HELLO);
    let Proxy { running, kept, .. } = proxy;
    running.shutdown(Duration::from_secs(10)).await;
    let outcome = kept.stream().await.outcome;
    assert_eq!(
        outcome,
        Outcome::ProxyClosed("the proxy is shutting down".into())
    );
}

#[tokio::test]
async fn what_is_not_captured_passes_and_leaves_no_record() {
    let origin = says(HELLO, "").await;
    let proxy = Proxy::start(origin.pool());
    for pause in [true, false] {
        if pause {
            proxy.capture.pause();
        } else {
            proxy.capture.resume();
            proxy.capture.set_sample(0.0);
        }
        let mut client = proxy.client().await;
        client.send(ASK).await;
        client.head().await.unwrap();
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.rest().await, HELLO);
    }
    let Proxy {
        running,
        kept,
        capture,
    } = proxy;
    running.shutdown(Duration::from_secs(10)).await;
    assert!(capture.shutdown(Duration::from_secs(10)).await);
    assert!(kept.items().is_empty());
}

type Sender = hyper::client::conn::http2::SendRequest<http_body_util::Empty<Bytes>>;

/// A client of HTTP/2 that can shake hands for WebSocket.
async fn http2(proxy: &Proxy) -> Sender {
    let socket = TcpStream::connect(proxy.running.local_addr())
        .await
        .unwrap();
    let (sender, mut connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let (told, offered) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    // The library reads settings in a task of its own, which wakes nobody.
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    tokio::spawn(std::future::poll_fn(move |cx| {
        while told.is_some() && tick.poll_tick(cx).is_ready() {}
        let polled = std::pin::Pin::new(&mut connection).poll(cx);
        if connection.is_extended_connect_protocol_enabled()
            && let Some(told) = told.take()
        {
            let _ = told.send(());
        }
        polled
    }));
    super::origin::soon(offered).await.unwrap();
    sender
}

fn connect(path: &str) -> Request<http_body_util::Empty<Bytes>> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://shop.test{path}"))
        .version(Version::HTTP_2)
        .extension(Extension::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat.v2")
        .body(http_body_util::Empty::new())
        .unwrap()
}

/// Says hello over an extended CONNECT, hears [`HELLO`] and closes.
async fn converse(proxy: &Proxy) {
    let mut sender = http2(proxy).await;
    let answer = sender.send_request(connect("/chat?room=1")).await.unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    socket.write_all(&masked(0x81, b"hi")).await.unwrap();
    let mut heard = [0; HELLO.len() + CLOSE.len()];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [HELLO, CLOSE].concat()[..]);
    socket.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

/// The record is the same whichever way either side spoke.
async fn assert_conversed(proxy: &Proxy, protocol: Protocol) {
    let exchange = upgraded(&proxy.kept).await;
    assert_eq!(exchange.protocol, protocol);
    assert_eq!(&*exchange.request.method, "GET");
    assert_eq!(&*exchange.request.target, "/chat?room=1");
    assert_eq!(exchange.request.host(), "shop.test");
    assert_eq!(
        exchange.request.headers.first("upgrade").unwrap(),
        "websocket"
    );
    let response = exchange.response.unwrap();
    assert_eq!(response.status, 101);
    assert_eq!(response.headers.first("upgrade").unwrap(), "websocket");
    let stream = proxy.kept.stream().await;
    assert_eq!(
        (stream.protocol, stream.outcome),
        (Protocol::WebSocket, Outcome::Ok)
    );
    let upgrade = stream.upgrade.unwrap();
    assert_eq!((upgrade.client.messages, upgrade.server.messages), (1, 1));
    let segments = proxy.kept.segments();
    assert_eq!(
        of(Direction::Client, &segments)[0],
        (WHOLE_TEXT, "hi".to_owned())
    );
    assert_eq!(
        of(Direction::Server, &segments)[0],
        (WHOLE_TEXT, "hello".to_owned())
    );
}

/// An origin that takes an extended CONNECT, says hello and closes.
async fn http2_origin() -> Origin {
    Origin::start(|number, socket| async move {
        let answer = |_, mut request: Request<hyper::body::Incoming>| async move {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.uri().path_and_query().unwrap(), "/chat?room=1");
            assert_eq!(
                request.extensions().get::<Extension>().unwrap().as_str(),
                "websocket"
            );
            for name in ["upgrade", "connection", "sec-websocket-key"] {
                assert!(!request.headers().contains_key(name), "{name}");
            }
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgraded.await.unwrap());
                socket.write_all(HELLO).await.unwrap();
                socket.write_all(CLOSE).await.unwrap();
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest).await;
                let _ = socket.shutdown().await;
            });
            Response::new(full(""))
        };
        let service = hyper::service::service_fn(move |request| {
            let answer = answer(number, request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(socket), service)
            .await;
    })
    .await
}

#[tokio::test]
async fn an_extended_connect_reaches_an_http1_upstream_as_an_upgrade() {
    let proxy = Proxy::start(says(b"\x81\x05hello\x88\x02\x03\xe8", "").await.pool());
    converse(&proxy).await;
    assert_conversed(&proxy, Protocol::Http2).await;
}

#[tokio::test]
async fn an_extended_connect_reaches_an_http2_upstream_as_it_is() {
    let origin = http2_origin().await;
    let proxy = Proxy::start(pool(&[&format!("h2c://{}", origin.address)]));
    converse(&proxy).await;
    assert_conversed(&proxy, Protocol::Http2).await;
}

#[tokio::test]
async fn an_upgrade_reaches_an_http2_upstream_as_an_extended_connect() {
    let origin = http2_origin().await;
    let proxy = Proxy::start(pool(&[&format!("h2c://{}", origin.address)]));
    let mut client = proxy.client().await;
    client.send(ASK).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(
        head.value("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    client.send_bytes(&masked(0x81, b"hi")).await;
    client.send_bytes(&masked(0x88, b"\x03\xe8")).await;
    assert_eq!(client.read_exactly(11).await, [HELLO, CLOSE].concat());
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"");
    assert_conversed(&proxy, Protocol::Http1).await;
}

#[tokio::test]
async fn an_http2_upstream_without_websocket_is_refused_with_501() {
    let origin = Origin::start(|number, socket| async move {
        serve(number, socket, |_, _| async {
            Response::new(full("plain"))
        })
        .await;
    })
    .await;
    let proxy = Proxy::start(pool(&[&format!("h2c://{}", origin.address)]));
    let (head, content) = proxy.client().await.ask(ASK).await;
    assert_eq!(head.status(), 501);
    assert!(String::from_utf8_lossy(&content.content).contains("RFC 8441"));
    let mut sender = http2(&proxy).await;
    let answer = sender.send_request(connect("/chat")).await.unwrap();
    assert_eq!(answer.status(), 501);
}

#[tokio::test]
async fn an_upstream_that_does_not_shake_hands_is_told_apart_over_http2() {
    let wrong = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        while let Some(head) = peer.head().await {
            let answer = match head.text.split(' ').nth(1).unwrap() {
                "/wrong" => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
                "/plain" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain",
                _ => "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you",
            };
            peer.send(answer).await;
        }
    })
    .await;
    let proxy = Proxy::start(wrong.pool());
    let mut sender = http2(&proxy).await;
    for (path, status, text) in [
        ("/wrong", 502, "Sec-WebSocket-Accept"),
        ("/plain", 502, "plain request"),
        ("/no", 403, "not you"),
    ] {
        let answer = sender.send_request(connect(path)).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(
            String::from_utf8_lossy(&body).contains(text),
            "{path} {body:?}"
        );
    }
    let exchanges = eventually("three records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 3)
    });
    assert!(
        exchanges
            .await
            .iter()
            .all(|exchange| exchange.stream.is_none())
    );
}

#[tokio::test]
async fn a_plain_connect_over_http2_is_still_no_tunnel() {
    let proxy = Proxy::start(says(HELLO, "").await.pool());
    let client = Http2::connect(proxy.running.local_addr()).await;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("shop.test:443")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(client.ask(request).await.unwrap().status.as_u16(), 501);
}
