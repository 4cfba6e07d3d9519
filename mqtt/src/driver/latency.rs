//! How long the server takes to answer: the clock stands beside the session, which knows none.

use std::time::Instant;

use crate::codec::Packet;
use crate::queue::Published;

use super::{Driver, Shared};

/// What the session gives back with an acknowledgement: who waits for it, and since when.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(super) done: Published,
    since: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(done: Published, now: Instant) -> Self {
        let since = Some(now);
        Self { done, since }
    }

    /// The server has acknowledged it. What an earlier process sent, or a caller gave up, is not counted.
    pub(super) fn acknowledged(self, shared: &Shared, now: Instant) -> Published {
        if let Some(since) = self.since {
            let time = now.saturating_duration_since(since);
            shared.latencies.publish.record(time);
        }
        self.done
    }
}

impl Driver {
    /// To be called with each packet that came.
    pub(super) fn hear_pong(&mut self, packet: &Packet, now: Instant) {
        if let Packet::PingResp = packet
            && let Some(since) = self.pinged.take()
        {
            let time = now.saturating_duration_since(since);
            self.shared.latencies.ping.record(time);
        }
    }
}
