//! A client that sends exactly what a test tells it to.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use qproxy_mqtt::codec::{
    self, Ack, ConnAck, Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a busy machine; no test waits for it unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client {
    pub stream: TcpStream,
    input: BytesMut,
}

impl Client {
    /// A connection without a CONNECT.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    pub async fn join(address: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        let mut client = Self::open(address).await;
        client.send(&Packet::Connect(Box::new(connect))).await;
        match client.next().await {
            Some(Packet::ConnAck(ack)) => (client, ack),
            other => panic!("CONNACK comes first, not {other:?}"),
        }
    }

    /// A clean session that was accepted.
    pub async fn clean(address: SocketAddr, client_id: &str) -> Self {
        let (client, ack) = Self::join(address, clean(client_id)).await;
        assert_eq!(ack.code.as_u8(), 0);
        client
    }

    pub async fn send(&mut self, packet: &Packet) {
        self.send_raw(&bytes_of(packet)).await;
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .expect("the broker reads")
            .unwrap();
    }

    /// The next packet; `None` when the broker has closed.
    pub async fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) =
                codec::decode(&mut self.input, usize::MAX, codec::Version::V311).unwrap()
            {
                return Some(packet);
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input))
                .await
                .expect("something arrives");
            if !matches!(read, Ok(count) if count > 0) {
                return None;
            }
        }
    }

    pub async fn publish(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("a PUBLISH, not {other:?}"),
        }
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send(&subscribe(filter, qos)).await;
        match self.next().await {
            Some(Packet::SubAck(_)) => {}
            other => panic!("a SUBACK, not {other:?}"),
        }
    }

    /// Proves that the connection still works, and takes everything that came before the answer.
    pub async fn ping(&mut self) -> Vec<Packet> {
        self.send(&Packet::PingReq).await;
        let mut before = Vec::new();
        loop {
            match self.next().await.expect("still connected") {
                Packet::PingResp => return before,
                packet => before.push(packet),
            }
        }
    }
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub fn ack(number: u16) -> Ack {
    Ack::from(id(number))
}

pub fn clean(client_id: &str) -> Connect {
    Connect {
        client_id: client_id.into(),
        clean_session: true,
        ..Connect::default()
    }
}

pub fn durable(client_id: &str) -> Connect {
    Connect {
        clean_session: false,
        ..clean(client_id)
    }
}

pub fn publish(topic: &str, payload: impl Into<Bytes>, qos: QoS, number: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        id: (qos != QoS::AtMostOnce).then(|| id(number)),
        payload: payload.into(),
        properties: None,
    })
}

pub fn subscribe(filter: &str, qos: QoS) -> Packet {
    Packet::Subscribe(Subscribe {
        id: id(1),
        filters: vec![Subscription::new(filter, qos)],
        properties: None,
    })
}

pub fn bytes_of(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(packet, codec::Version::V311, &mut bytes).unwrap();
    bytes
}

/// Polls until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
