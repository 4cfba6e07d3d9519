//! Where a test looks at and meddles with what passes; the plain broker has a tap that does nothing.

use std::time::Duration;

use bytes::Bytes;
use qproxy_mqtt::codec::{DecodeError, Packet};

use super::Hub;
use crate::core::{CloseReason, ConnectionId};

/// What is to be done with a packet that passes.
#[derive(Debug)]
pub(crate) enum Step {
    /// Let it on: to the core, or to the client.
    Forward(Packet),
    /// Write these bytes to the client.
    Raw(Bytes),
    /// Close, after what was written before.
    Close(CloseReason),
}

/// A tap on one connection. Times count from the broker's start.
pub(crate) trait Tap: Send + 'static {
    /// Whether [`Tap::received`] wants the bytes of each packet.
    const FRAMES: bool;

    /// The connection was accepted.
    fn accepted(&mut self, now: Duration);
    /// A packet came from the client.
    fn received(&mut self, hub: &Hub, packet: Packet, frame: &[u8], steps: &mut Vec<Step>);
    /// A packet goes to the client.
    fn sending(&mut self, now: Duration, packet: Packet, steps: &mut Vec<Step>);
    /// The client sent bytes that are no packet.
    fn malformed(&mut self, now: Duration, error: &DecodeError);
    /// The connection has ended.
    fn closed(&mut self, now: Duration, reason: &CloseReason);
    /// When [`Tap::release`] wants to be called.
    fn due(&self) -> Option<Duration>;
    /// Lets go what was held back until `now`: towards the core, and towards the client.
    fn release(&mut self, now: Duration, inbound: &mut Vec<Step>, outbound: &mut Vec<Step>);
    /// Whether nothing is to be read for now.
    fn stalled(&self, now: Duration) -> bool;
    /// The most bytes for one write.
    fn write_limit(&self) -> usize;
}

/// Makes the tap of each new connection.
pub(crate) trait MakeTap: Send + 'static {
    /// What it makes.
    type Tap: Tap;
    /// For one connection.
    fn make(&mut self, connection: ConnectionId) -> Self::Tap;
}

/// The tap of the plain broker: everything passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

impl MakeTap for Plain {
    type Tap = Self;

    fn make(&mut self, _: ConnectionId) -> Self {
        Self
    }
}

impl Tap for Plain {
    const FRAMES: bool = false;

    fn accepted(&mut self, _: Duration) {}

    fn received(&mut self, _: &Hub, packet: Packet, _: &[u8], steps: &mut Vec<Step>) {
        steps.push(Step::Forward(packet));
    }

    fn sending(&mut self, _: Duration, packet: Packet, steps: &mut Vec<Step>) {
        steps.push(Step::Forward(packet));
    }

    fn malformed(&mut self, _: Duration, _: &DecodeError) {}

    fn closed(&mut self, _: Duration, _: &CloseReason) {}

    fn due(&self) -> Option<Duration> {
        None
    }

    fn release(&mut self, _: Duration, _: &mut Vec<Step>, _: &mut Vec<Step>) {}

    fn stalled(&self, _: Duration) -> bool {
        false
    }

    fn write_limit(&self) -> usize {
        usize::MAX
    }
}
