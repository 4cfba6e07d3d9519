//! WebSockets to real servers, and handshakes that go wrong.

use std::time::Duration;

use qproxy::mqtt_client::client::MqttConfig;
use qproxy::mqtt_client::error::ConnectError;
use qproxy::mqtt_client::options::{Transport, WebSocketOptions};
use qproxy::mqtt_client::transport::WebSocketError;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{carries_messages, chain, refusal, to, trusting, websocket};
use crate::support::certificates;
use crate::support::nats::{Nats, Speaks};
use crate::support::soon;
use crate::support::tunnel::Tunnel;

#[tokio::test]
async fn messages_travel_in_a_websocket() {
    let server = Nats::start(Speaks::Plain);
    carries_messages(MqttConfig {
        transport: websocket("/mqtt"),
        ..to("127.0.0.1", server.websocket)
    })
    .await;
}

#[tokio::test]
async fn messages_travel_in_a_websocket_within_tls() {
    let server = Nats::start(Speaks::Tls);
    let files = server.tls.clone().unwrap();
    carries_messages(MqttConfig {
        transport: websocket("/mqtt"),
        tls: trusting(&files),
        ..to("localhost", server.websocket)
    })
    .await;
}

#[tokio::test]
async fn nginx_in_front_of_the_server_is_no_obstacle_and_its_refusals_are_explained() {
    let directory = TempDir::new().unwrap();
    let files = certificates::make(directory.path(), "ours");
    let server = Nats::start(Speaks::Plain);
    let front = Tunnel::nginx(&files, "/bus/in", server.websocket);
    let config = MqttConfig {
        tls: trusting(&files),
        ..to("localhost", front.port)
    };
    carries_messages(MqttConfig {
        transport: websocket("/bus/in"),
        ..config.clone()
    })
    .await;

    let elsewhere = MqttConfig {
        transport: websocket("/elsewhere"),
        ..config.clone()
    };
    let error = refusal(elsewhere).await;
    let expected = format!("localhost:{}/elsewhere answered HTTP 404", front.port);
    assert!(chain(&error).contains(&expected), "{error:?}");
    assert!(chain(&error).contains("is the path right?"), "{error:?}");
    drop(server);
    let error = refusal(MqttConfig {
        transport: websocket("/bus/in"),
        ..config
    })
    .await;
    assert!(chain(&error).contains("HTTP 502"), "{error:?}");
    assert!(!error.is_permanent(), "{error:?}");
}

/// One connection that is answered with these bytes, and kept open; gives what the client asked for.
async fn answered(answer: &'static [u8]) -> (ConnectError, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let headers = WebSocketOptions::default()
        .with_path("/mqtt?tenant=1")
        .unwrap()
        .with_header("Authorization", "Bearer hunter2")
        .unwrap();
    let config = MqttConfig {
        transport: Transport::WebSocket(headers),
        connect_timeout: Duration::from_millis(500),
        ..to("127.0.0.1", listener.local_addr().unwrap().port())
    };
    let serve = async {
        let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(answer).await.unwrap();
        (stream, String::from_utf8(request).unwrap())
    };
    let (error, (_stream, request)) = tokio::join!(refusal(config), serve);
    (error, request)
}

#[tokio::test]
async fn the_handshake_carries_path_subprotocol_and_headers() {
    let (_, request) = answered(b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert!(
        request.starts_with("GET /mqtt?tenant=1 HTTP/1.1\r\n"),
        "{request}"
    );
    let lines: Vec<String> = request.lines().map(str::to_ascii_lowercase).collect();
    for line in [
        "sec-websocket-protocol: mqtt",
        "sec-websocket-version: 13",
        "authorization: bearer hunter2",
        "upgrade: websocket",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line}: {request}");
    }
}

#[tokio::test]
async fn an_answer_that_opens_no_websocket_is_explained() {
    let cases: [(&[u8], &str, bool); 7] = [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "answered HTTP 200 instead",
            false,
        ),
        (b"HTTP/1.1 401 No\r\n\r\n", "is a header missing?", true),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n",
            "redirections are not followed",
            false,
        ),
        (b"HTTP/1.1 503 Later\r\n\r\n", "does not reach it", false),
        (
            b"\x20\x02\x00\x00 this is MQTT, not HTTP\r\n\r\n",
            "did not answer as a WebSocket",
            false,
        ),
        (
            b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
           Sec-WebSocket-Accept: bm90IGl0\r\n\r\n",
            "did not answer as a WebSocket",
            false,
        ),
        (
            b"HTTP/1.1 200 OK\r\n",
            "the WebSocket handshake took longer than 500ms",
            false,
        ),
    ];
    for (answer, expected, permanent) in cases {
        let (error, _) = answered(answer).await;
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("127.0.0.1:"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(error.is_permanent(), permanent, "{text}");
    }
}

#[tokio::test]
async fn a_websocket_that_is_not_for_mqtt_is_refused() {
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    for (chosen, expected) in [
        (Some("chat"), "another subprotocol"),
        (None, "no subprotocol"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = MqttConfig {
            transport: websocket("/mqtt"),
            ..to("127.0.0.1", listener.local_addr().unwrap().port())
        };
        #[allow(
            clippy::result_large_err,
            clippy::unnecessary_wraps,
            reason = "the shape that the library asks for"
        )]
        let choose = |_: &Request, mut response: Response| {
            if let Some(chosen) = chosen {
                let value = chosen.parse().unwrap();
                response
                    .headers_mut()
                    .insert("Sec-WebSocket-Protocol", value);
            }
            Ok(response)
        };
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_tungstenite::accept_hdr_async(stream, choose).await
        };
        let (error, _) = tokio::join!(refusal(config), serve);
        let ConnectError::WebSocket(refused @ WebSocketError::Subprotocol { .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(error.is_permanent());
    }
}
