//! Frames as a test cuts them.

use std::time::Duration;

use bytes::BytesMut;
use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::{self, ConnAck, Packet, Publish, QoS, ReasonCode, Version};
use qproxy::mqtt_client::error::Disconnected;
use qproxy::mqtt_client::options::Backoff;
use qproxy::mqtt_client::transport::WebSocketError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::{to, websocket};
use crate::support::soon;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

struct Server {
    listener: TcpListener,
}

impl Server {
    async fn bind() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn config(&self) -> MqttConfig {
        let pause = Duration::from_millis(1);
        MqttConfig {
            transport: websocket("/mqtt"),
            max_packet_size: 100_000,
            reconnect: Backoff {
                initial: pause,
                max: pause,
            },
            ..to("127.0.0.1", self.listener.local_addr().unwrap().port())
        }
    }

    /// The next connection after its handshake, with CONNECT read and nothing answered.
    async fn accept(&self) -> Frames {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        #[allow(
            clippy::result_large_err,
            clippy::unnecessary_wraps,
            reason = "the shape that the library asks for"
        )]
        let choose = |_: &Request, mut response: Response| {
            let mqtt = "mqtt".parse().unwrap();
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", mqtt);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(stream, choose).await;
        let mut frames = Frames(socket.unwrap().into_inner());
        let (first, connect) = frames.read().await;
        assert_eq!(first, FINAL | BINARY);
        assert_eq!(connect[0], 0x10, "CONNECT");
        frames
    }

    async fn accepted(&self) -> Frames {
        let mut frames = self.accept().await;
        frames.write(FINAL | BINARY, &connack()).await;
        frames
    }
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut buf = BytesMut::new();
    codec::encode(packet, Version::V311, &mut buf).unwrap();
    buf.to_vec()
}

fn connack() -> Vec<u8> {
    bytes_of(&Packet::ConnAck(ConnAck {
        session_present: false,
        code: ReasonCode::Success,
        properties: None,
    }))
}

fn publish(payload: &'static str) -> Vec<u8> {
    bytes_of(&Packet::Publish(Publish {
        topic: "t".into(),
        payload: payload.into(),
        ..Publish::default()
    }))
}

/// Bare frames on a stream whose handshake is done.
struct Frames(TcpStream);

impl Frames {
    fn header(first: u8, length: u64) -> Vec<u8> {
        let mut header = vec![first];
        match length {
            0..=125 => header.push(u8::try_from(length).unwrap()),
            126..=0xffff => {
                header.push(126);
                header.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                header.push(127);
                header.extend(length.to_be_bytes());
            }
        }
        header
    }

    async fn write(&mut self, first: u8, payload: &[u8]) {
        let mut frame = Self::header(first, payload.len() as u64);
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn write_byte_by_byte(&mut self, first: u8, payload: &[u8]) {
        let mut frame = Self::header(first, payload.len() as u64);
        frame.extend(payload);
        for byte in frame {
            self.0.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    /// The first byte of the client's next frame, and its payload.
    async fn read(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        soon("a frame", self.0.read_exact(&mut head)).await.unwrap();
        assert_eq!(head[1] & 0x80, 0x80, "a client masks");
        let length = match head[1] & 0x7f {
            126 => u64::from(self.0.read_u16().await.unwrap()),
            127 => self.0.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        self.0.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.unwrap();
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        (head[0], payload)
    }
}

#[tokio::test]
async fn frames_come_byte_by_byte_and_cut_packets_anywhere() {
    let server = Server::bind().await;
    let client = MqttClient::new(server.config());
    let mut messages = client.messages();
    let serve = async {
        let mut frames = server.accept().await;
        // A message of three frames with a ping between them, each byte alone.
        let connack = connack();
        frames.write_byte_by_byte(BINARY, &connack[..1]).await;
        frames.write_byte_by_byte(FINAL | PING, b"there?").await;
        frames
            .write_byte_by_byte(CONTINUATION, &connack[1..3])
            .await;
        frames
            .write_byte_by_byte(FINAL | CONTINUATION, &connack[3..])
            .await;
        frames
    };
    let (connected, mut frames) = tokio::join!(client.connect(), serve);
    connected.unwrap();
    assert_eq!(frames.read().await, (FINAL | PONG, b"there?".to_vec()));

    // Two packets and the start of a third in one message, its rest in two more, and an empty one in between.
    let third = publish("three");
    let many = [&publish("one")[..], &publish("two"), &third[..4]].concat();
    frames.write(FINAL | BINARY, &many).await;
    frames.write(FINAL | BINARY, &third[4..6]).await;
    frames.write(FINAL | BINARY, b"").await;
    frames.write(FINAL | BINARY, &third[6..]).await;
    for expected in ["one", "two", "three"] {
        let message = soon("a message", messages.recv()).await.unwrap();
        assert_eq!(message.payload, expected);
    }
}

#[tokio::test]
async fn a_batch_of_packets_leaves_in_one_frame_and_a_large_one_in_several() {
    let server = Server::bind().await;
    let client = MqttClient::new(server.config());
    let (connected, mut frames) = tokio::join!(client.connect(), server.accepted());
    connected.unwrap();
    let large = client.publish("t", vec![7; 90_000], QoS::AtMostOnce);
    let (sent, read) = tokio::join!(large, async {
        let (first, mut payload) = frames.read().await;
        assert_eq!(first, FINAL | BINARY);
        assert_eq!(payload.len(), 64 << 10);
        let (_, rest) = frames.read().await;
        payload.extend(rest);
        payload
    });
    sent.unwrap();
    let mut buf = BytesMut::from(&read[..]);
    let Some(Packet::Publish(publish)) = codec::decode(&mut buf, 100_000, Version::V311).unwrap()
    else {
        panic!("not a PUBLISH")
    };
    assert!(publish.payload == vec![7; 90_000] && buf.is_empty());
}

/// How the client's connection ends after `misbehave`, and that it comes back.
async fn ends_with(first: u8, header: Option<u64>, payload: &[u8]) -> Disconnected {
    let server = Server::bind().await;
    let client = MqttClient::new(server.config());
    let mut events = client.events();
    let (connected, mut frames) = tokio::join!(client.connect(), server.accepted());
    connected.unwrap();
    match header {
        None => frames.write(first, payload).await,
        Some(length) => frames
            .0
            .write_all(&Frames::header(first, length))
            .await
            .unwrap(),
    }
    let reason = loop {
        if let Event::Disconnected { reason } = soon("the end", events.recv()).await.unwrap() {
            break reason;
        }
    };
    let _again = server.accepted().await;
    reason
}

#[tokio::test]
async fn mqtt_in_a_text_message_ends_the_connection() {
    let reason = ends_with(FINAL | TEXT, None, b"text").await;
    let expected = matches!(reason, Disconnected::WebSocket(WebSocketError::Text));
    assert!(expected, "{reason:?}");
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection_before_its_bytes_come() {
    let reason = ends_with(FINAL | BINARY, Some(1 << 40), b"").await;
    let Disconnected::WebSocket(WebSocketError::TooLarge { limit, .. }) = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(limit, 100_000);
}

#[tokio::test]
async fn fragments_over_the_limit_end_the_connection_too() {
    let server = Server::bind().await;
    let client = MqttClient::new(server.config());
    let mut events = client.events();
    let (connected, mut frames) = tokio::join!(client.connect(), server.accepted());
    connected.unwrap();
    frames.write(BINARY, &[0x30; 60_000]).await;
    frames.write(CONTINUATION, &[0x30; 60_000]).await;
    let reason = loop {
        if let Event::Disconnected { reason } = soon("the end", events.recv()).await.unwrap() {
            break reason;
        }
    };
    let expected = matches!(
        reason,
        Disconnected::WebSocket(WebSocketError::TooLarge { .. })
    );
    assert!(expected, "{reason:?}");
}

#[tokio::test]
async fn frames_that_are_not_legal_end_the_connection() {
    let reason = ends_with(FINAL | 0x70 | BINARY, None, b"reserved bits").await;
    let expected = matches!(reason, Disconnected::WebSocket(WebSocketError::Protocol(_)));
    assert!(expected, "{reason:?}");
}

#[tokio::test]
async fn a_close_frame_is_the_end_with_its_reason_where_it_gives_one() {
    let normal = ends_with(FINAL | CLOSE, None, &1000_u16.to_be_bytes()).await;
    assert!(matches!(normal, Disconnected::Closed), "{normal:?}");
    let bare = ends_with(FINAL | CLOSE, None, b"").await;
    assert!(matches!(bare, Disconnected::Closed), "{bare:?}");
    let policy = [&1008_u16.to_be_bytes()[..], b"too chatty"].concat();
    let reason = ends_with(FINAL | CLOSE, None, &policy).await;
    let Disconnected::WebSocket(WebSocketError::Closed { code, reason }) = reason else {
        panic!("{reason:?}")
    };
    assert_eq!((code, &*reason), (1008, "too chatty"));
}

#[tokio::test]
async fn disconnect_ends_the_websocket_in_order() {
    let server = Server::bind().await;
    let client = MqttClient::new(server.config());
    let (connected, mut frames) = tokio::join!(client.connect(), server.accepted());
    connected.unwrap();
    let (left, ()) = tokio::join!(client.disconnect(), async {
        assert_eq!(frames.read().await, (FINAL | BINARY, vec![0xe0, 0]));
        assert_eq!(frames.read().await.0, FINAL | CLOSE);
    });
    left.unwrap();
}
