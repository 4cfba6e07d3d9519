//! What MQTT 5 adds, with clients of both versions.

mod delivery;
mod limits;
mod properties;
mod sessions;

use super::*;
use qproxy_mqtt::codec::{
    ConnAckProperties, ConnectProperties, Disconnect, PublishProperties, SubscribeProperties,
    SubscriptionId, Version, WillProperties,
};

fn connect(client_id: &str, properties: ConnectProperties) -> Connect {
    Connect {
        version: Version::V5,
        client_id: client_id.into(),
        properties: Some(Box::new(properties)),
        ..Connect::default()
    }
}

/// A client whose session ends with its connection.
fn plain(client_id: &str) -> Connect {
    connect(client_id, ConnectProperties::default())
}

fn expiring(client_id: &str, seconds: u32) -> Connect {
    connect(
        client_id,
        ConnectProperties {
            session_expiry: Some(seconds),
            ..ConnectProperties::default()
        },
    )
}

fn with(packet: Packet, properties: PublishProperties) -> Packet {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish {
            properties: Some(Box::new(properties)),
            ..publish
        }),
        other => other,
    }
}

fn subscription(filter: &str, qos: QoS) -> Subscription {
    Subscription::new(filter, qos)
}

/// Sends a SUBSCRIBE for one filter and takes its code.
fn subscribe_as(
    bench: &mut Bench,
    connection: u64,
    wanted: Subscription,
    number: Option<u32>,
) -> ReasonCode {
    let subscribe = Subscribe {
        id: id(1),
        filters: vec![wanted],
        properties: Some(Box::new(SubscribeProperties {
            subscription_id: number.and_then(SubscriptionId::new),
            ..SubscribeProperties::default()
        })),
    };
    bench.send(connection, Packet::Subscribe(subscribe));
    let inbox = bench.inbox.get_mut(&connection).expect("an answer");
    let at = inbox
        .iter()
        .position(|packet| matches!(packet, Packet::SubAck(_)))
        .expect("a SUBACK");
    match inbox.remove(at) {
        Packet::SubAck(suback) => suback.codes[0],
        _ => unreachable!("its kind was looked at"),
    }
}

fn announced(ack: &ConnAck) -> ConnAckProperties {
    *ack.properties.clone().expect("MQTT 5 has properties")
}

/// The reason of the DISCONNECT that came last.
fn farewell(bench: &mut Bench, connection: u64) -> Option<ReasonCode> {
    match bench.take(connection).pop() {
        Some(Packet::Disconnect(disconnect)) => Some(disconnect.reason),
        _ => None,
    }
}

/// The reasons of the acknowledgements among what came.
fn reasons(bench: &mut Bench, connection: u64) -> Vec<ReasonCode> {
    bench
        .take(connection)
        .into_iter()
        .filter_map(|packet| match packet {
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => Some(ack.reason),
            _ => None,
        })
        .collect()
}

fn properties(publish: &Publish) -> PublishProperties {
    publish.properties.as_deref().cloned().unwrap_or_default()
}
