//! An MQTT server that does just what a test tells it to.

use bytes::{Bytes, BytesMut};
use qproxy::mqtt_client::client::MqttConfig;
use qproxy::mqtt_client::codec::{
    self, Ack, ConnAck, Connect, Packet, PacketId, Publish, QoS, ReasonCode, SubAck, Text,
    UnsubAck, Unsubscribe, Version,
};
use qproxy::mqtt_client::options::Backoff;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::soon;

pub(crate) struct Peer {
    listener: TcpListener,
}

pub(crate) struct PeerConnection {
    stream: TcpStream,
    /// What the client's CONNECT names.
    version: Version,
    received: BytesMut,
}

impl Peer {
    pub(crate) async fn bind() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    /// A configuration that leads here, with short pauses.
    pub(crate) fn config(&self) -> MqttConfig {
        let pause = Duration::from_millis(1);
        MqttConfig {
            client_id: "tested".to_string(),
            host: "127.0.0.1".to_string(),
            port: self.listener.local_addr().unwrap().port(),
            reconnect: Backoff {
                initial: pause,
                max: pause,
            },
            ..Default::default()
        }
    }

    /// The next TCP connection, before any packet.
    pub(crate) async fn accept_tcp(&self) -> PeerConnection {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        // Or small answers wait for the client's delayed acknowledgements.
        stream.set_nodelay(true).unwrap();
        PeerConnection {
            stream,
            version: Version::V311,
            received: BytesMut::new(),
        }
    }

    /// The next one that speaks MQTT: another test may still ask for what listened on this port before.
    async fn accept_mqtt(&self) -> PeerConnection {
        const CONNECT: u8 = 1 << 4;
        loop {
            let connection = self.accept_tcp().await;
            let mut first = [0];
            let peeked = soon("a packet", connection.stream.peek(&mut first)).await;
            if matches!(peeked, Ok(1)) && first == [CONNECT] {
                return connection;
            }
        }
    }

    /// The next connection, answered with `code`.
    pub(crate) async fn answer(
        &self,
        session_present: bool,
        code: ReasonCode,
    ) -> (PeerConnection, Connect) {
        let properties = None;
        self.answer_with(ConnAck {
            session_present,
            code,
            properties,
        })
        .await
    }

    /// The next connection, answered as it stands.
    pub(crate) async fn answer_with(&self, connack: ConnAck) -> (PeerConnection, Connect) {
        let mut connection = self.accept_mqtt().await;
        let Packet::Connect(connect) = connection.next().await else {
            panic!("not a CONNECT")
        };
        connection.version = connect.version;
        connection.send(&Packet::ConnAck(connack)).await;
        (connection, *connect)
    }

    pub(crate) async fn accept(&self) -> PeerConnection {
        self.answer(false, ReasonCode::Success).await.0
    }

    /// Accepts and says that the session is still there.
    pub(crate) async fn resume(&self) -> PeerConnection {
        self.answer(true, ReasonCode::Success).await.0
    }
}

impl PeerConnection {
    /// The next packet; `None` when the client has closed.
    pub(crate) async fn try_next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = codec::decode(&mut self.received, 64 << 20, self.version).unwrap()
            {
                return Some(packet);
            }
            let read = soon("a packet", self.stream.read_buf(&mut self.received)).await;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Packet {
        self.try_next().await.expect("the client is still there")
    }

    pub(crate) async fn publish(&mut self) -> Publish {
        match self.next().await {
            Packet::Publish(publish) => publish,
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: &Packet) {
        let mut buf = BytesMut::new();
        codec::encode(packet, self.version, &mut buf).unwrap();
        self.write(&buf).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn puback(&mut self, publish: &Publish) {
        self.send(&Packet::PubAck(Ack::from(publish.id.unwrap())))
            .await;
    }

    /// Takes a SUBSCRIBE and grants everything; returns the first filter.
    pub(crate) async fn grant(&mut self) -> Text {
        let Packet::Subscribe(subscribe) = self.next().await else {
            panic!("not a SUBSCRIBE")
        };
        let granted = |wanted: &codec::Subscription| ReasonCode::granted(wanted.qos);
        let codes = subscribe.filters.iter().map(granted).collect();
        self.send(&Packet::SubAck(SubAck {
            id: subscribe.id,
            codes,
            properties: None,
        }))
        .await;
        subscribe.filters[0].filter.clone()
    }

    /// Answers an UNSUBSCRIBE; MQTT 3.1.1 has no code for each filter.
    pub(crate) async fn unsuback(&mut self, unsubscribe: &Unsubscribe) {
        let codes = match self.version {
            Version::V311 => Vec::new(),
            Version::V5 => vec![ReasonCode::Success; unsubscribe.filters.len()],
        };
        self.send(&Packet::UnsubAck(UnsubAck {
            id: unsubscribe.id,
            codes,
            properties: None,
        }))
        .await;
    }

    /// Sends a message; QoS 0 where `id` is 0, else QoS 1.
    pub(crate) async fn message(&mut self, topic: &str, payload: impl Into<Bytes>, id: u16) {
        let id = PacketId::new(id);
        let qos = if id.is_some() {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        };
        let (topic, payload) = (Text::from(topic), payload.into());
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            id,
            payload,
            properties: None,
        };
        self.send(&Packet::Publish(publish)).await;
    }
}
