//! The tap that carries out a script on one connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use qproxy_mqtt::codec::{self, ConnAck, DecodeError, Packet, ReasonCode};

use super::script::{Direction, Fault, Place, Random};
use super::transcript::Event;
use super::{Shared, lock, second_opinion};
use crate::core::{CloseReason, ConnectionId};
use crate::driver::{Hub, Step, Tap};

/// Notes and meddles with what passes on one connection.
#[derive(Debug)]
pub(super) struct FaultTap {
    shared: Arc<Shared>,
    connection: u64,
    client: Option<String>,
    random: Random,
    delayed: Vec<(Duration, Direction, Packet)>,
    /// Waits for the next packet of its direction.
    swapped: [Option<Packet>; 2],
    stalled_until: Option<Duration>,
    write_limit: usize,
}

impl FaultTap {
    pub(super) fn new(shared: Arc<Shared>, connection: ConnectionId) -> Self {
        Self {
            random: Random::new(shared.seed, connection.0),
            shared,
            connection: connection.0,
            client: None,
            delayed: Vec::new(),
            swapped: [None, None],
            stalled_until: None,
            write_limit: usize::MAX,
        }
    }

    fn note(&self, now: Duration, event: Event) {
        lock(&self.shared.record).note(now, self.connection, event);
    }

    fn judge(&mut self, direction: Direction, packet: &Packet) -> Option<Fault> {
        let place = Place {
            connection: self.connection,
            client: self.client.as_deref(),
            direction,
        };
        lock(&self.shared.rules).judge(&place, packet, &mut self.random)
    }

    /// Lets a packet on, and behind it the one that waited for it.
    fn forward(
        &mut self,
        now: Duration,
        direction: Direction,
        packet: Packet,
        steps: &mut Vec<Step>,
    ) {
        let behind = self.swapped[direction as usize].take();
        for packet in std::iter::once(packet).chain(behind) {
            if direction == Direction::ToClient {
                self.note(now, Event::Sent(packet.clone()));
            }
            steps.push(Step::Forward(packet));
        }
    }

    fn raw(&self, now: Duration, bytes: Bytes, steps: &mut Vec<Step>) {
        self.note(now, Event::SentRaw(bytes.clone()));
        steps.push(Step::Raw(bytes));
    }

    fn apply(
        &mut self,
        (now, direction): (Duration, Direction),
        fault: Fault,
        packet: Packet,
        steps: &mut Vec<Step>,
    ) {
        self.note(now, Event::Faulted(direction, fault.clone()));
        match fault {
            Fault::Lose => {}
            Fault::DropBefore => steps.push(Step::Close(CloseReason::Fault)),
            Fault::DropAfter => {
                self.forward(now, direction, packet, steps);
                steps.push(Step::Close(CloseReason::Fault));
            }
            Fault::Cut(count) => {
                let start = first_bytes(&packet, count);
                self.raw(now, start, steps);
                steps.push(Step::Close(CloseReason::Fault));
            }
            Fault::Duplicate => {
                self.forward(now, direction, packet.clone(), steps);
                self.forward(now, direction, packet, steps);
            }
            Fault::Delay(time) => self.delayed.push((now + time, direction, packet)),
            Fault::Swap => {
                if let Some(before) = self.swapped[direction as usize].replace(packet) {
                    steps.push(Step::Forward(before));
                }
            }
            Fault::Malformed(bytes) => {
                self.raw(now, bytes, steps);
                self.forward(now, direction, packet, steps);
            }
            Fault::Refuse(code) => {
                self.raw(now, refusal(code), steps);
                steps.push(Step::Close(CloseReason::Refused(code)));
            }
            // The caller has done what concerns the core.
            Fault::ForgetSessions => self.forward(now, direction, packet, steps),
            Fault::StallReads(time) => {
                self.stalled_until = Some(now + time);
                self.forward(now, direction, packet, steps);
            }
            Fault::SplitWrites(count) => {
                self.write_limit = count.max(1);
                self.forward(now, direction, packet, steps);
            }
        }
    }
}

impl Tap for FaultTap {
    const FRAMES: bool = true;

    fn accepted(&mut self, now: Duration) {
        self.note(now, Event::Accepted);
    }

    fn received(&mut self, hub: &Hub, packet: Packet, frame: &[u8], steps: &mut Vec<Step>) {
        let now = hub.now();
        if let Packet::Connect(connect) = &packet {
            self.client = Some(connect.client_id.to_string());
        }
        self.note(now, Event::Received(packet.clone()));
        if self.shared.second_opinion
            && let Err(other) = second_opinion::compare(&packet, frame)
        {
            self.note(now, Event::Disagreement(other));
            steps.push(Step::Close(CloseReason::Protocol(
                "mqttbytes sees another packet",
            )));
            return;
        }
        let direction = Direction::FromClient;
        match self.judge(direction, &packet) {
            None => self.forward(now, direction, packet, steps),
            Some(fault) => {
                if fault == Fault::ForgetSessions {
                    hub.with(|broker, _| broker.forget_offline_sessions());
                }
                self.apply((now, direction), fault, packet, steps);
            }
        }
    }

    fn sending(&mut self, now: Duration, packet: Packet, steps: &mut Vec<Step>) {
        let direction = Direction::ToClient;
        match self.judge(direction, &packet) {
            None => self.forward(now, direction, packet, steps),
            Some(fault) => self.apply((now, direction), fault, packet, steps),
        }
    }

    fn malformed(&mut self, now: Duration, error: &DecodeError) {
        self.note(now, Event::Malformed(error.to_string()));
    }

    fn closed(&mut self, now: Duration, reason: &CloseReason) {
        self.note(now, Event::Closed(reason.clone()));
    }

    fn due(&self) -> Option<Duration> {
        let delayed = self.delayed.iter().map(|(due, ..)| *due);
        delayed.chain(self.stalled_until).min()
    }

    fn release(&mut self, now: Duration, inbound: &mut Vec<Step>, outbound: &mut Vec<Step>) {
        self.stalled_until = self.stalled_until.filter(|until| *until > now);
        let (due, later) = std::mem::take(&mut self.delayed)
            .into_iter()
            .partition::<Vec<_>, _>(|(due, ..)| *due <= now);
        self.delayed = later;
        for (_, direction, packet) in due {
            let steps = match direction {
                Direction::FromClient => &mut *inbound,
                Direction::ToClient => &mut *outbound,
            };
            self.forward(now, direction, packet, steps);
        }
    }

    fn stalled(&self, now: Duration) -> bool {
        self.stalled_until.is_some_and(|until| until > now)
    }

    fn write_limit(&self) -> usize {
        self.write_limit
    }
}

fn first_bytes(packet: &Packet, count: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    codec::encode(packet, codec::Version::V311, &mut bytes)
        .expect("the broker sends only packets that can be encoded");
    bytes.truncate(count);
    bytes.freeze()
}

fn refusal(code: ReasonCode) -> Bytes {
    let session_present = false;
    let connack = Packet::ConnAck(ConnAck {
        session_present,
        code,
        properties: None,
    });
    first_bytes(&connack, usize::MAX)
}
