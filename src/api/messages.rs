//! The segments of a stream as they are shown: pieces of a WebSocket message put together, and inflated.
//!
//! For display alone: what is stored stays as it was on the wire. Work and room are bounded, since a few bytes can
//! inflate to gigabytes; past the bounds a message is shown as it was, with the reason.

use super::dto;
use crate::record::{
    Deflate, Direction, Frame, Inflater, NotInflated, Part, Segment, SegmentBatch, Stream,
};

/// How much is put together into one entry, in bytes.
const MAX_JOINED: usize = 1 << 20;
/// How much one page inflates, what it has to inflate before it included, in bytes.
const MAX_INFLATED: usize = 32 << 20;
/// How many batches before a page are read for what its messages refer to.
pub(super) const MAX_BEFORE: u32 = 256;

/// Reads the batches of one stream in order.
pub(super) struct Reader {
    client: Side,
    server: Side,
    /// What may still be inflated.
    room: usize,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Side {
    inflater: Option<Inflater>,
    /// The entry that the next piece of the message goes to.
    open: Option<usize>,
}

struct Entry {
    direction: Direction,
    offset_us: u64,
    bytes: Vec<u8>,
    frame: Option<Frame>,
    missing: u64,
    note: Option<NotInflated>,
}

impl Reader {
    pub(super) fn new(stream: &Stream) -> Self {
        let deflate = stream.upgrade.as_ref().and_then(|upgrade| upgrade.deflate);
        let side = |window: fn(Deflate) -> _| Side {
            inflater: deflate.map(|deflate| Inflater::new(window(deflate))),
            open: None,
        };
        Self {
            client: side(|deflate| deflate.client),
            server: side(|deflate| deflate.server),
            room: MAX_INFLATED,
            entries: Vec::new(),
        }
    }

    /// Whether what stands before a page changes how it is shown.
    pub(super) const fn looks_back(&self) -> bool {
        self.client.inflater.is_some()
    }

    /// A batch, or several, is not there.
    pub(super) fn skip(&mut self) {
        for side in [&mut self.client, &mut self.server] {
            side.open = None;
            if let Some(inflater) = &mut side.inflater {
                inflater.skip();
            }
        }
    }

    /// What has been read so far stands before the page and is not shown.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        (self.client.open, self.server.open) = (None, None);
    }

    pub(super) fn read(&mut self, batch: &SegmentBatch) {
        for segment in &batch.segments {
            self.segment(segment);
        }
    }

    /// What there is to show.
    pub(super) fn finish(self) -> Vec<dto::Segment> {
        self.entries.into_iter().map(shown).collect()
    }

    fn segment(&mut self, segment: &Segment) {
        let side = match segment.direction {
            Direction::Client => &mut self.client,
            Direction::Server => &mut self.server,
        };
        if segment.missing > 0 {
            side.open = None;
            if let Some(inflater) = &mut side.inflater {
                inflater.skip();
            }
        }
        let (bytes, note) = side.inflated(segment, &mut self.room);
        let data = segment.frame.filter(|frame| !frame.opcode.is_control());
        let open = side.open.take();
        let goes_on = data.is_some_and(|frame| !frame.part.begins());
        let joined = open.filter(|at| {
            let entry = &self.entries[*at];
            goes_on && entry.note == note && entry.bytes.len() + bytes.len() <= MAX_JOINED
        });
        let at = match (joined, data) {
            (Some(at), Some(frame)) => {
                let entry = &mut self.entries[at];
                entry.bytes.extend_from_slice(&bytes);
                entry.offset_us = segment.offset_us;
                if let Some(known) = &mut entry.frame {
                    known.part = Part::of(known.part.begins(), frame.part.ends());
                }
                at
            }
            _ => {
                self.entries.push(Entry {
                    direction: segment.direction,
                    offset_us: segment.offset_us,
                    bytes,
                    frame: segment.frame,
                    missing: segment.missing,
                    note,
                });
                self.entries.len() - 1
            }
        };
        match data {
            Some(frame) => side.open = (!frame.part.ends()).then_some(at),
            // A control frame stands between the pieces of a message.
            None => side.open = open,
        }
    }
}

impl Side {
    /// A segment's bytes as they are shown, and why they are not inflated where they should be.
    fn inflated(&mut self, segment: &Segment, room: &mut usize) -> (Vec<u8>, Option<NotInflated>) {
        let bytes = segment.bytes.to_vec();
        let Some(frame) = segment.frame.filter(|frame| frame.compressed) else {
            return (bytes, None);
        };
        let Some(inflater) = &mut self.inflater else {
            return (bytes, Some(NotInflated::Missing));
        };
        if frame.part.begins() {
            inflater.begin();
        }
        let mut out = Vec::new();
        match inflater.piece(&bytes, frame.part.ends(), &mut out, *room) {
            Ok(()) => {
                *room -= out.len();
                (out, None)
            }
            Err(why) => {
                *room = room.saturating_sub(out.len());
                (bytes, Some(why))
            }
        }
    }
}

fn shown(entry: Entry) -> dto::Segment {
    let (text, base64) = dto::text_or_base64(&entry.bytes);
    dto::Segment {
        from: dto::sender(entry.direction).to_owned(),
        offset_us: entry.offset_us,
        opcode: entry.frame.map(|frame| frame.opcode.as_str().to_owned()),
        part: entry
            .frame
            .filter(|frame| frame.part != Part::Whole)
            .map(|frame| frame.part.as_str().to_owned()),
        compressed: entry.frame.is_some_and(|frame| frame.compressed),
        missing: entry.missing,
        note: entry.note.map(|why| format!("shown as it was sent: {why}")),
        text,
        base64,
    }
}

#[cfg(test)]
mod tests;
