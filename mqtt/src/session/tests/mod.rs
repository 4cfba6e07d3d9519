//! The session without a socket and without a clock: what it sends, what it reports, and what survives any fault.

mod flows;
mod exchanges;
mod terms;
mod past;
mod simulation;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{AckMode, Config, Continuity, Event, OnSessionLost, Outbox, Session, Terms};
use crate::codec::{self, Packet, Publish, QoS, Text, Version};

type Tested = Session<Option<u32>, Option<u32>>;

fn config(version: Version, window: u16) -> Config {
    Config {
        version,
        window,
        window_exactly_once: window.div_ceil(2),
        continuity: Continuity::Resumed,
        keep_alive: Duration::from_secs(60),
        ack_mode: AckMode::Auto,
        receive_maximum: u16::MAX,
        topic_alias_maximum: 10,
        on_session_lost: OnSessionLost::Republish,
    }
}

/// A session of MQTT 3.1.1 that a server never has to be asked anew for.
fn session(window: u16, ack_mode: AckMode) -> Tested {
    Session::new(&Config {
        ack_mode,
        ..config(Version::V311, window)
    })
}

fn message(number: u32, qos: QoS) -> Publish {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    let topic = Text::from_static("a/topic");
    Publish {
        qos,
        topic,
        payload,
        ..Publish::default()
    }
}

fn number(publish: &Publish) -> u32 {
    u32::from_be_bytes(publish.payload[..].try_into().unwrap())
}

/// Connects, with a server that has the session or not.
fn connect(session: &mut Tested, session_present: bool) -> super::Resumed {
    let terms = Terms::plain(session_present);
    session.connected(&terms, Instant::now()).unwrap()
}

/// Publishes what the window has room for.
fn publish(session: &mut Tested, publish: Publish, token: u32) {
    assert!(session.window_free().take(publish.qos), "no room");
    let back = session.publish(publish, Some(token), Instant::now());
    assert!(back.is_none());
}

/// Everything in the outbox, decoded.
fn sent(session: &mut Tested) -> Vec<Packet> {
    let version = session.version;
    let mut bytes = take_bytes(session.outbox(), usize::MAX);
    let mut packets = Vec::new();
    while let Some(packet) = codec::decode(&mut bytes, 1 << 20, version).unwrap() {
        packets.push(packet);
    }
    assert!(bytes.is_empty());
    packets
}

fn take_bytes(outbox: &mut Outbox, count: usize) -> BytesMut {
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let used = outbox.slices(&mut slices);
    let mut bytes = BytesMut::new();
    for slice in &slices[..used] {
        let part = slice.len().min(count - bytes.len());
        bytes.extend_from_slice(&slice[..part]);
    }
    outbox.advance(bytes.len());
    bytes
}

fn events(session: &mut Tested) -> Vec<Event<Option<u32>, Option<u32>>> {
    let mut events = Vec::new();
    session.take_events(&mut events);
    events
}
