//! A recorded stream as messages: put together from their pieces, and inflated.
//!
//! A message stands where its last piece passed. One that never ended says nothing: nobody could have read it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::playback::script::{Source, Unfit};
use crate::record::{
    Close, Deflate, Direction, Frame, Inflater, NotInflated, Opcode, Protocol, Segment, Stream,
};

/// Which of the two kinds of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::playback) enum Kind {
    Text,
    Binary,
}

impl Kind {
    pub(in crate::playback) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::playback) struct Said {
    pub(in crate::playback) from: Direction,
    pub(in crate::playback) kind: Kind,
    pub(in crate::playback) bytes: Bytes,
    /// From the stream's start, microseconds.
    pub(in crate::playback) at_us: u64,
    /// Its place among its side's messages, from 0.
    pub(in crate::playback) number: u64,
    /// Where its bytes stand among those of its side's messages, from 0.
    pub(in crate::playback) offset: u64,
}

/// What happens next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::playback) enum Event {
    Said(Said),
    /// A Close frame.
    Closed {
        close: Close,
        at_us: u64,
    },
    /// Nothing any more: the connection was gone.
    End,
}

/// Whether a stream can be played back as WebSocket, as far as its record tells.
pub(in crate::playback) fn fit(stream: &Stream) -> Result<(), Unfit> {
    if stream.truncated {
        return Err(Unfit::Truncated);
    }
    let framed = stream.upgrade.as_ref().is_some_and(|upgrade| {
        upgrade.client.unframed.is_none() && upgrade.server.unframed.is_none()
    });
    if stream.protocol != Protocol::WebSocket || !framed {
        return Err(Unfit::Unframed);
    }
    Ok(())
}

/// Reads a stream's messages, batch by batch.
pub(in crate::playback) struct Dialogue {
    stream: Arc<Stream>,
    source: Arc<dyn Source>,
    /// How long to wait for a batch that has not arrived.
    patience: Duration,
    max_message: usize,
    supplied: u32,
    queue: VecDeque<Segment>,
    client: Side,
    server: Side,
}

#[derive(Default)]
struct Side {
    inflater: Option<Inflater>,
    open: Option<(Kind, Vec<u8>)>,
    messages: u64,
    bytes: u64,
}

impl Dialogue {
    pub(in crate::playback) fn new(
        stream: Arc<Stream>,
        source: Arc<dyn Source>,
        max_message: usize,
        patience: Duration,
    ) -> Self {
        let deflate = stream.upgrade.as_ref().and_then(|upgrade| upgrade.deflate);
        let side = |window: fn(Deflate) -> _| Side {
            inflater: deflate.map(|deflate| Inflater::new(window(deflate))),
            ..Side::default()
        };
        Self {
            client: side(|deflate| deflate.client),
            server: side(|deflate| deflate.server),
            stream,
            source,
            patience,
            max_message,
            supplied: 0,
            queue: VecDeque::new(),
        }
    }

    pub(in crate::playback) const fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// How many bytes there were in a side's messages so far.
    pub(in crate::playback) const fn said(&self, by: Direction) -> u64 {
        match by {
            Direction::Client => self.client.bytes,
            Direction::Server => self.server.bytes,
        }
    }

    /// How many messages of a side there were so far.
    pub(in crate::playback) const fn messages(&self, by: Direction) -> u64 {
        match by {
            Direction::Client => self.client.messages,
            Direction::Server => self.server.messages,
        }
    }

    /// What happens next.
    pub(in crate::playback) async fn next(&mut self) -> Result<Event, Unfit> {
        loop {
            if let Some(segment) = self.queue.pop_front() {
                if let Some(event) = self.take(&segment)? {
                    return Ok(event);
                }
            } else if self.supplied < self.stream.batches {
                let batch = self
                    .source
                    .batch(self.stream.id, self.supplied, self.patience);
                let batch = batch.await?;
                self.supplied += 1;
                self.queue.extend(batch.segments.iter().cloned());
            } else {
                return self.end();
            }
        }
    }

    fn take(&mut self, segment: &Segment) -> Result<Option<Event>, Unfit> {
        if segment.missing > 0 {
            return Err(Unfit::Truncated);
        }
        let Some(frame) = segment.frame else {
            // Empty where that side closed the connection, which its Close frame has told before.
            return match segment.bytes.is_empty() {
                true => Ok(None),
                false => Err(Unfit::Unframed),
            };
        };
        let kind = match frame.opcode {
            Opcode::Ping | Opcode::Pong => return Ok(None),
            Opcode::Close => return Ok(Some(closed(segment))),
            Opcode::Text => Kind::Text,
            Opcode::Binary => Kind::Binary,
        };
        let side = match segment.direction {
            Direction::Client => &mut self.client,
            Direction::Server => &mut self.server,
        };
        let whole = side.piece(kind, frame, &segment.bytes, self.max_message)?;
        Ok(whole.map(|bytes| {
            let said = Said {
                from: segment.direction,
                kind,
                at_us: segment.offset_us,
                number: side.messages,
                offset: side.bytes,
                bytes,
            };
            side.messages += 1;
            side.bytes += said.bytes.len() as u64;
            Event::Said(said)
        }))
    }

    fn end(&self) -> Result<Event, Unfit> {
        let told = self.stream.upgrade.as_ref();
        let told = told.map(|upgrade| (upgrade.client.messages, upgrade.server.messages));
        match told == Some((self.client.messages, self.server.messages)) {
            true => Ok(Event::End),
            false => Err(Unfit::Inconsistent),
        }
    }
}

impl Side {
    /// Takes a piece; gives the message that ends with it.
    fn piece(
        &mut self,
        kind: Kind,
        frame: Frame,
        bytes: &Bytes,
        max: usize,
    ) -> Result<Option<Bytes>, Unfit> {
        let begins = frame.part.begins();
        let mut message = match (self.open.take(), begins) {
            (None, true) => Vec::new(),
            (Some((begun, message)), false) if begun == kind => message,
            _ => return Err(Unfit::Inconsistent),
        };
        let room = max.saturating_sub(message.len());
        if frame.compressed {
            let inflater = self.inflater.as_mut().ok_or(Unfit::Inconsistent)?;
            if begins {
                inflater.begin();
            }
            let inflated = inflater.piece(bytes, frame.part.ends(), &mut message, room);
            inflated.map_err(|why| match why {
                NotInflated::TooLarge => Unfit::TooLarge { limit: max },
                why => Unfit::NotInflated(why),
            })?;
        } else if bytes.len() > room {
            return Err(Unfit::TooLarge { limit: max });
        } else if begins && frame.part.ends() {
            return Ok(Some(bytes.clone()));
        } else {
            message.extend_from_slice(bytes);
        }
        if frame.part.ends() {
            return Ok(Some(Bytes::from(message)));
        }
        self.open = Some((kind, message));
        Ok(None)
    }
}

/// The payload of a Close frame: a code and a reason, or nothing (RFC 6455 section 5.5.1).
fn closed(segment: &Segment) -> Event {
    let (code, reason) = match segment.bytes.split_first_chunk::<2>() {
        Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
        None => (None, &[][..]),
    };
    Event::Closed {
        close: Close {
            from: segment.direction,
            code,
            reason: String::from_utf8_lossy(reason).into(),
        },
        at_us: segment.offset_us,
    }
}

#[cfg(test)]
pub(super) mod tests;
