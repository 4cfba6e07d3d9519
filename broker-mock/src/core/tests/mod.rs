//! The core by itself: packets in, packets out, time by hand.

mod delivery;
mod limits;
mod random;
mod sessions;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use qproxy_mqtt::codec::{
    Ack, Connect, Packet, PacketId, Publish, QoS, ReasonCode, SubAck, Subscribe, Subscription,
    UnsubAck, Unsubscribe, Will,
};

use super::{Action, Broker, CloseReason, ConnectionId, weight};
use crate::{Config, Limits, Stats};

/// A broker with any number of clients, all in memory.
struct Bench {
    broker: Broker,
    now: Duration,
    inbox: HashMap<u64, Vec<Packet>>,
    closed: HashMap<u64, CloseReason>,
    /// Connections whose socket takes nothing.
    stuck: Vec<u64>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::configured(Config {
            limits,
            ..Config::default()
        })
    }

    fn configured(config: Config) -> Self {
        config.check().unwrap();
        Self {
            broker: Broker::new(&config),
            now: Duration::ZERO,
            inbox: HashMap::new(),
            closed: HashMap::new(),
            stuck: Vec::new(),
        }
    }

    fn open(&mut self, connection: u64) {
        self.broker.connected(ConnectionId(connection), self.now);
        self.settle();
    }

    fn send(&mut self, connection: u64, packet: Packet) {
        self.broker
            .packet(ConnectionId(connection), packet, self.now);
        self.settle();
    }

    fn cut(&mut self, connection: u64) {
        self.broker
            .disconnected(ConnectionId(connection), &CloseReason::Gone, self.now);
        self.settle();
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.broker.tick(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let actions: Vec<Action> = self.broker.drain().collect();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Send { connection, packet } => {
                        if !self.stuck.contains(&connection.0) {
                            self.broker.written(connection, weight(&packet));
                        }
                        self.inbox.entry(connection.0).or_default().push(packet);
                    }
                    Action::Close { connection, reason } => {
                        self.closed.insert(connection.0, reason);
                    }
                }
            }
        }
    }

    /// What the client got since the last time.
    fn take(&mut self, connection: u64) -> Vec<Packet> {
        self.inbox.remove(&connection).unwrap_or_default()
    }

    /// The messages among what the client got.
    fn messages(&mut self, connection: u64) -> Vec<Publish> {
        self.take(connection)
            .into_iter()
            .filter_map(|packet| match packet {
                Packet::Publish(publish) => Some(publish),
                _ => None,
            })
            .collect()
    }

    fn payloads(&mut self, connection: u64) -> Vec<String> {
        self.messages(connection).iter().map(text).collect()
    }

    /// Connects and takes the CONNACK; returns whether the session was there.
    fn join(&mut self, connection: u64, connect: Connect) -> bool {
        self.open(connection);
        self.send(connection, Packet::Connect(Box::new(connect)));
        let inbox = self.inbox.get_mut(&connection).expect("an answer");
        match inbox.remove(0) {
            Packet::ConnAck(ack) => {
                assert_eq!(ack.code.as_u8(), 0, "refused");
                ack.session_present
            }
            other => panic!("CONNACK comes first, not {other:?}"),
        }
    }

    fn subscribe(&mut self, connection: u64, filter: &str, qos: QoS) -> ReasonCode {
        self.send(connection, subscribe(&[(filter, qos)]));
        let inbox = self.inbox.get_mut(&connection).expect("an answer");
        let at = inbox
            .iter()
            .position(|packet| matches!(packet, Packet::SubAck(_)))
            .expect("a SUBACK");
        match inbox.remove(at) {
            Packet::SubAck(SubAck { codes, .. }) => codes[0],
            _ => unreachable!("its kind was looked at"),
        }
    }

    fn stats(&self) -> Stats {
        self.broker.stats()
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

fn ack(number: u16) -> Ack {
    Ack::from(id(number))
}

fn unsuback(number: u16) -> Packet {
    Packet::UnsubAck(UnsubAck::from(id(number)))
}

fn clean(client_id: &str) -> Connect {
    Connect {
        client_id: client_id.into(),
        clean_session: true,
        ..Connect::default()
    }
}

fn durable(client_id: &str) -> Connect {
    Connect {
        clean_session: false,
        ..clean(client_id)
    }
}

fn with_will(connect: Connect, topic: &str) -> Connect {
    let will = Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: None,
    };
    Connect {
        will: Some(will),
        ..connect
    }
}

fn publish(topic: &str, payload: &str, qos: QoS, number: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        id: (qos != QoS::AtMostOnce).then(|| id(number)),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: None,
    })
}

fn retained(topic: &str, payload: &str) -> Packet {
    match publish(topic, payload, QoS::AtMostOnce, 1) {
        Packet::Publish(publish) => Packet::Publish(Publish {
            retain: true,
            ..publish
        }),
        other => other,
    }
}

fn subscribe(filters: &[(&str, QoS)]) -> Packet {
    Packet::Subscribe(Subscribe {
        id: id(1),
        filters: filters
            .iter()
            .map(|&(filter, qos)| Subscription::new(filter, qos))
            .collect(),
        properties: None,
    })
}

fn unsubscribe(filter: &str) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        id: id(1),
        filters: vec![filter.into()],
        user_properties: Vec::new(),
    })
}

fn text(publish: &Publish) -> String {
    String::from_utf8(publish.payload.to_vec()).expect("tests send text")
}
