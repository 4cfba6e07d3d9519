//! What the fuzz targets do with their bytes. The same functions run in the normal tests, over seeded bytes.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use qproxy_mqtt::codec::{
    self, Ack, DecodeError, Packet, PacketId, Publish, QoS, ReasonCode, Subscription, Text,
    UnsubAck, Version,
};
use qproxy_mqtt::session::{
    AckId, AckMode, Config, Continuity, Event, OnSessionLost, Session, Settled, Terms,
};
use qproxy_mqtt::topic;

const LIMIT: usize = 1 << 16;

fn decode_all(
    version: Version,
    pieces: impl Iterator<Item = impl AsRef<[u8]>>,
) -> (Vec<Packet>, Option<DecodeError>) {
    let mut buf = BytesMut::new();
    let mut packets = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece.as_ref());
        loop {
            let before = buf.len();
            match codec::decode(&mut buf, LIMIT, version) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => {
                    assert_eq!(buf.len(), before, "a part was consumed");
                    break;
                }
                Err(error) => return (packets, Some(error)),
            }
            assert!(buf.len() < before, "nothing was consumed");
        }
    }
    (packets, None)
}

/// Any bytes, whole and in pieces, give the same packets in either version; what is accepted can be written again and
/// stays the same.
pub(super) fn decode(data: &[u8]) {
    for version in [Version::V311, Version::V5] {
        let whole = decode_all(version, std::iter::once(data));
        let chunk = data.first().map_or(1, |&first| usize::from(first % 16) + 1);
        let in_pieces = decode_all(version, data.chunks(chunk));
        assert_eq!(in_pieces, whole, "pieces of {chunk}");
        for packet in whole.0 {
            let mut wire = BytesMut::new();
            codec::encode(&packet, version, &mut wire).expect("what was decoded can be encoded");
            assert_eq!(codec::encoded_len(&packet, version), Ok(wire.len()));
            let again = codec::decode(&mut wire, LIMIT + 4, version);
            assert_eq!(again, Ok(Some(packet)));
            assert!(wire.is_empty());
        }
    }
}

/// Matching never panics, and a legal topic name matches itself, `#`, and nothing that is not a legal filter's.
pub(super) fn topics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (filter, name) = text.split_once('\n').unwrap_or((&text, &text));
    let matched = topic::matches(filter, name);
    if topic::validate_topic(name).is_ok() {
        topic::validate_filter(name).expect("a topic name is a filter");
        assert!(topic::matches(name, name), "{name:?} matches itself");
        assert_eq!(topic::matches("#", name), !name.starts_with('$'));
        assert_eq!(
            topic::matches("#", name),
            topic::matches("+/#", name),
            "{name:?}"
        );
    }
    let literal = !filter.contains(['+', '#']);
    if literal && topic::validate_filter(filter).is_ok() {
        assert_eq!(matched, filter == name, "{filter:?} {name:?}");
    }
}

/// A session under a script made of the bytes: whatever the server sends and whenever the connection breaks, ids are
/// not used twice, windows hold, tokens come back once, and only legal packets leave.
pub(super) fn session(data: &[u8]) {
    let mut script = data.iter().copied();
    let Some(first) = script.next() else { return };
    let mut tested = Tested::new(first);
    while let (Some(operation), argument) = (script.next(), script.next().unwrap_or(0)) {
        if !tested.step(operation, argument) {
            return;
        }
    }
}

struct Tested {
    session: Session<Option<u32>, Option<u32>>,
    config: Config,
    now: Instant,
    connected: bool,
    /// How many the server takes at once on this connection.
    receive_maximum: usize,
    /// Ids of PUBLISH and controls that went out and have no final answer.
    published: u32,
    outstanding: BTreeSet<u32>,
    held: Vec<AckId>,
}

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn message(qos: QoS, id: Option<PacketId>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Text::from_static("topic"),
        id,
        payload: Bytes::from_static(b"p"),
        properties: None,
    }
}

impl Tested {
    fn new(seed: u8) -> Self {
        let config = Config {
            window: u16::from(seed % 5) + 1,
            window_exactly_once: u16::from(seed % 3) + 1,
            version: if seed & 0x20 == 0 {
                Version::V311
            } else {
                Version::V5
            },
            continuity: if seed & 0x40 == 0 {
                Continuity::Resumed
            } else {
                Continuity::EachAnew
            },
            receive_maximum: 20,
            topic_alias_maximum: 2,
            on_session_lost: if seed & 0x10 == 0 {
                OnSessionLost::Republish
            } else {
                OnSessionLost::Fail
            },
            keep_alive: Duration::from_secs(10),
            ack_mode: if seed & 0x80 == 0 {
                AckMode::Auto
            } else {
                AckMode::Manual
            },
        };
        Self {
            session: Session::new(&config),
            config,
            now: Instant::now(),
            connected: false,
            receive_maximum: usize::from(u16::MAX),
            published: 0,
            outstanding: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    /// Whether the session goes on.
    fn step(&mut self, operation: u8, argument: u8) -> bool {
        let qos = QOS[usize::from(argument % 3)];
        // Small ids, so that many hit something.
        let id = PacketId::new(u16::from(argument % 40) + 1).expect("1 to 40");
        match operation % 12 {
            0 if !self.connected => {
                self.connect(argument);
            }
            1 if self.connected && argument < 64 => {
                self.session.connection_lost();
                self.connected = false;
            }
            2 | 3 if self.connected => self.publish(qos),
            4 if self.connected && self.session.controls_free() > 0 => {
                let filter = Text::from_static("f");
                let subscription = Subscription::new(filter, qos);
                self.session.subscribe(vec![subscription], None, None);
            }
            5 if self.connected && self.session.controls_free() > 0 => {
                self.session.unsubscribe(vec![Text::from_static("f")], None);
            }
            6..=8 if self.connected => {
                let reason = self.reason(argument);
                return self.receive(answer(operation, argument, id, reason));
            }
            9 if self.connected => {
                let id = (qos != QoS::AtMostOnce).then_some(id);
                return self.receive(Packet::Publish(message(qos, id)));
            }
            10 if !self.held.is_empty() => {
                let held = self
                    .held
                    .swap_remove(usize::from(argument) % self.held.len());
                let settled = if argument & 1 == 0 {
                    Settled::Acknowledged
                } else {
                    Settled::Dropped
                };
                self.session.settle(held, settled);
            }
            11 if self.connected => {
                self.now += Duration::from_secs(u64::from(argument % 12));
                if self.session.tick(self.now).is_err() {
                    self.session.connection_lost();
                    self.connected = false;
                }
            }
            _ => {}
        }
        self.check();
        true
    }

    fn connect(&mut self, argument: u8) {
        let mut terms = Terms::plain(argument & 1 == 0);
        if self.config.version == Version::V5 {
            terms.receive_maximum = u16::from(argument >> 2 & 7) + 1;
            terms.topic_alias_maximum = u16::from(argument >> 5);
        }
        self.connected = self.session.connected(&terms, self.now).is_ok();
        // Terms that break the protocol are not taken.
        if self.connected {
            self.receive_maximum = terms.receive_maximum.into();
        }
    }

    fn publish(&mut self, qos: QoS) {
        if !self.session.window_free().take(qos) {
            return;
        }
        let token = self.published;
        self.published += 1;
        let publish = message(qos, None);
        match self.session.publish(publish, Some(token), self.now) {
            Some(back) => assert_eq!((back, qos), (Some(token), QoS::AtMostOnce)),
            None => assert!(self.outstanding.insert(token)),
        }
    }

    /// In MQTT 5.0 some answers say no.
    fn reason(&self, argument: u8) -> ReasonCode {
        if self.config.version == Version::V5 && argument.is_multiple_of(5) {
            ReasonCode::UnspecifiedError
        } else {
            ReasonCode::Success
        }
    }

    fn receive(&mut self, packet: Packet) -> bool {
        let taken = self.session.receive(packet, self.now).is_ok();
        self.check();
        taken
    }

    fn check(&mut self) {
        let mut events = Vec::new();
        self.session.take_events(&mut events);
        for event in events {
            match event {
                Event::Published(token, _) | Event::PublishFailed(token, _) => {
                    let token = token.expect("every publish has a token");
                    assert!(self.outstanding.remove(&token), "{token} completed twice");
                }
                Event::Message(_, id) => self.held.extend(id),
                _ => {}
            }
        }
        let window = usize::from(self.config.window);
        assert!(self.outstanding.len() <= window, "the window is exceeded");
        let free = self.session.window_free().acknowledged;
        let open = match self.session.is_releasing() {
            true => 0,
            false => window.min(self.receive_maximum),
        };
        assert_eq!(free, open.saturating_sub(self.outstanding.len()));
        self.check_outbox();
    }

    /// What goes out decodes, and nothing goes out without a connection.
    fn check_outbox(&mut self) {
        let mut wire = BytesMut::new();
        while !self.session.outbox().is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let used = self.session.outbox().slices(&mut slices);
            let count: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            slices[..used]
                .iter()
                .for_each(|slice| wire.extend_from_slice(slice));
            self.session.outbox().advance(count);
        }
        assert!(
            self.connected || wire.is_empty(),
            "written without a connection"
        );
        let mut ids = BTreeSet::new();
        while !wire.is_empty() {
            let packet = codec::decode(&mut wire, LIMIT, self.config.version)
                .expect("we write legal packets");
            let packet = packet.expect("we write whole packets");
            if let Packet::Publish(Publish { id: Some(id), .. }) = packet {
                assert!(ids.insert(id), "{id} is used twice");
            }
        }
    }
}

fn answer(operation: u8, argument: u8, id: PacketId, reason: ReasonCode) -> Packet {
    let ack = Ack::from(id);
    match (operation % 12, argument >> 6) {
        (6, _) => Packet::PubAck(Ack::new(id, reason)),
        (7, 0 | 1) => Packet::PubRec(Ack::new(id, reason)),
        (7, _) => Packet::PubComp(ack),
        (_, 0) => Packet::PubRel(ack),
        (_, 1) => Packet::UnsubAck(UnsubAck::from(ack.id)),
        (_, 2) => Packet::SubAck(codec::SubAck {
            id,
            codes: vec![codec::ReasonCode::UnspecifiedError],
            properties: None,
        }),
        _ => Packet::PingResp,
    }
}
