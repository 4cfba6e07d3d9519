//! The newest messages in memory, so that a reader that keeps up never touches the disk. Pure.

use std::collections::VecDeque;

use super::message::Message;
use crate::segment::Position;

/// What a message costs in memory beside its payload.
const OVERHEAD_BYTES: usize = 256;

#[derive(Debug)]
struct Held {
    at: Position,
    end: Position,
    message: Message,
}

impl Held {
    fn cost(&self) -> usize {
        self.message.payload.len() + OVERHEAD_BYTES
    }
}

/// Everything that was appended from its first message on.
#[derive(Debug)]
pub(super) struct Tail {
    held: VecDeque<Held>,
    bytes: usize,
    max_bytes: usize,
}

impl Tail {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self {
            held: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds the message that was appended next, from `at` to `end`, and lets go of the oldest over the limit.
    pub(super) fn push(&mut self, at: Position, end: Position, message: Message) {
        let held = Held { at, end, message };
        self.bytes += held.cost();
        self.held.push_back(held);
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.held.pop_front() else {
                break;
            };
            self.bytes -= oldest.cost();
        }
    }

    /// Messages from a place on, about `max_bytes` of them and at least one, and the place behind them;
    /// `None` where the place lies before what is held.
    pub(super) fn from(
        &self,
        place: Position,
        max_bytes: usize,
    ) -> Option<(Vec<Message>, Position)> {
        if place < self.held.front()?.at {
            return None;
        }
        let start = self.held.partition_point(|held| held.at < place);
        let (mut messages, mut next, mut bytes) = (Vec::new(), place, 0);
        for held in self.held.range(start..) {
            bytes += held.message.payload.len();
            if bytes > max_bytes && !messages.is_empty() {
                break;
            }
            messages.push(held.message.clone());
            next = held.end;
        }
        Some((messages, next))
    }
}
