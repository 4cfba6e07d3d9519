//! The frames that pass in one direction of a WebSocket connection (RFC 6455 section 5), read from a copy of the
//! bytes, however they are cut.
//!
//! It answers nobody and closes nothing: what is no WebSocket is given as it came, from the frame on that was
//! not understood, and so is everything behind it. Lengths are believed only as far as bytes come: a frame that
//! announces a gigabyte takes no room.

use bytes::Bytes;

use crate::record::{Direction, Frame, Opcode, Part};

/// How much of an unfinished piece is held back for more, in bytes: as much as the proxy reads of a quiet connection at once.
const HELD: usize = 8 << 10;
/// The longest head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;
/// The longest payload of a control frame (RFC 6455 section 5.5).
const MAX_CONTROL: u64 = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASK: u8 = 0x80;

/// A message or a piece of one, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    pub(super) frame: Option<Frame>,
}

/// Whether `permessage-deflate` was agreed on, which gives RSV1 its meaning (RFC 7692 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    On,
    Off,
}

/// Reads one direction.
#[derive(Debug)]
pub(super) struct Frames {
    sender: Direction,
    compression: Compression,
    /// The largest piece, in bytes.
    piece: usize,
    state: State,
    /// The text or binary message that has begun.
    message: Option<Message>,
    /// Text and binary messages that came whole.
    messages: u64,
    /// Bytes that were heads and masks.
    heads: u64,
    unframed: Option<&'static str>,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; MAX_HEAD], have: usize },
    Payload(Payload),
    Raw,
}

/// A frame whose payload is on its way.
#[derive(Debug)]
struct Payload {
    opcode: Opcode,
    compressed: bool,
    last: Last,
    mask: Option<[u8; 4]>,
    /// How much of it has come.
    have: u64,
    length: u64,
    held: Vec<u8>,
    begins: bool,
}

/// Whether a frame ends its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    opcode: Opcode,
    compressed: bool,
}

impl State {
    const fn head() -> Self {
        Self::Head {
            bytes: [0; MAX_HEAD],
            have: 0,
        }
    }
}

impl Frames {
    /// Of what `sender` sends; pieces have at most `piece` bytes.
    pub(super) fn new(sender: Direction, compression: Compression, piece: usize) -> Self {
        Self {
            sender,
            compression,
            piece: piece.max(1),
            state: State::head(),
            message: None,
            messages: 0,
            heads: 0,
            unframed: None,
        }
    }

    /// Text and binary messages that came whole.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Why bytes are given as they came; `None` as long as none were.
    pub(super) const fn unframed(&self) -> Option<&'static str> {
        self.unframed
    }

    /// Bytes of heads and masks, which no piece has.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn heads(&self) -> u64 {
        self.heads
    }

    /// Takes the next bytes.
    pub(super) fn read(&mut self, mut rest: &[u8], give: &mut impl FnMut(Piece)) {
        while !rest.is_empty() {
            match &mut self.state {
                State::Raw => return self.raw(rest, give),
                State::Head { bytes, have } => {
                    bytes[*have] = rest[0];
                    *have += 1;
                    rest = &rest[1..];
                    let (head, length) = (*bytes, *have);
                    self.head(&head[..length], give);
                }
                State::Payload(payload) => {
                    let taken = payload.take(rest, self.piece);
                    rest = &rest[taken..];
                    if payload.have == payload.length {
                        self.end_frame(give);
                    } else if payload.held.len() >= self.piece
                        || (rest.is_empty() && payload.held.len() >= HELD)
                    {
                        give(payload.piece(Last::No));
                    }
                }
            }
        }
    }

    /// Nothing more comes: gives what is held, as far as it came.
    pub(super) fn finish(&mut self, give: &mut impl FnMut(Piece)) {
        match std::mem::replace(&mut self.state, State::Raw) {
            State::Head { bytes, have } if have > 0 => {
                self.unframed
                    .get_or_insert("it broke off in the head of a frame");
                self.raw(&bytes[..have], give);
            }
            State::Payload(mut payload) if payload.begins || !payload.held.is_empty() => {
                give(payload.piece(Last::No));
            }
            State::Head { .. } | State::Payload(_) | State::Raw => {}
        }
    }

    fn raw(&self, bytes: &[u8], give: &mut impl FnMut(Piece)) {
        for bytes in bytes.chunks(self.piece) {
            give(Piece {
                bytes: Bytes::copy_from_slice(bytes),
                frame: None,
            });
        }
    }

    /// Looks at a head as far as it has come.
    fn head(&mut self, head: &[u8], give: &mut impl FnMut(Piece)) {
        match self.begin(head) {
            Ok(None) => {}
            Ok(Some(payload)) => {
                self.heads += head.len() as u64;
                let empty = payload.length == 0;
                self.state = State::Payload(payload);
                if empty {
                    self.end_frame(give);
                }
            }
            Err(why) => {
                self.unframed = Some(why);
                self.state = State::Raw;
                self.raw(head, give);
            }
        }
    }

    /// The frame that a head begins; `None` while there is more to come of the head.
    fn begin(&self, head: &[u8]) -> Result<Option<Payload>, &'static str> {
        let &[first, ref rest @ ..] = head else {
            return Ok(None);
        };
        let (opcode, compressed) = self.opcode(first)?;
        let last = match first & FIN {
            0 => Last::No,
            _ => Last::Yes,
        };
        if opcode.is_control() && last == Last::No {
            return Err("a control frame in fragments (RFC 6455 section 5.5)");
        }
        let &[second, ref rest @ ..] = rest else {
            return Ok(None);
        };
        match (self.sender, second & MASK) {
            (Direction::Client, 0) => {
                return Err("a client's frame without a mask (RFC 6455 section 5.1)");
            }
            (Direction::Server, MASK) => {
                return Err("a server's frame with a mask (RFC 6455 section 5.1)");
            }
            _ => {}
        }
        let extended = match second & !MASK {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, rest)) = rest.split_at_checked(extended) else {
            return Ok(None);
        };
        let length = match extended {
            0 => u64::from(second & !MASK),
            _ => length.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 {
            return Err("a length of more than 63 bits (RFC 6455 section 5.2)");
        }
        if opcode.is_control() && length > MAX_CONTROL {
            return Err("a control frame of more than 125 bytes (RFC 6455 section 5.5)");
        }
        let mask = match (second & MASK, rest.first_chunk::<4>()) {
            (0, _) => None,
            (_, Some(mask)) => Some(*mask),
            (_, None) => return Ok(None),
        };
        Ok(Some(Payload {
            opcode,
            compressed,
            last,
            mask,
            have: 0,
            length,
            held: Vec::new(),
            begins: opcode.is_control() || self.message.is_none(),
        }))
    }

    /// The kind of the message that a frame with this first byte belongs to, and whether that is compressed.
    fn opcode(&self, first: u8) -> Result<(Opcode, bool), &'static str> {
        let compressed = first & RSV1 != 0;
        if first & 0x30 != 0 || (compressed && self.compression == Compression::Off) {
            return Err(
                "a reserved bit that no extension was agreed on for (RFC 6455 section 5.2)",
            );
        }
        let opcode = match (first & 0x0f, self.message) {
            (0, Some(_)) if compressed => {
                return Err("a continuation with RSV1 (RFC 7692 section 6.1)");
            }
            (0, Some(message)) => return Ok((message.opcode, message.compressed)),
            (0, None) => return Err("a continuation of no message (RFC 6455 section 5.4)"),
            (1 | 2, Some(_)) => {
                return Err("a message within another (RFC 6455 section 5.4)");
            }
            (1, None) => Opcode::Text,
            (2, None) => Opcode::Binary,
            (8, _) => Opcode::Close,
            (9, _) => Opcode::Ping,
            (10, _) => Opcode::Pong,
            _ => return Err("a reserved opcode (RFC 6455 section 5.2)"),
        };
        if compressed && opcode.is_control() {
            return Err("a control frame with RSV1 (RFC 7692 section 6.1)");
        }
        Ok((opcode, compressed))
    }

    /// All of a frame has come.
    fn end_frame(&mut self, give: &mut impl FnMut(Piece)) {
        let State::Payload(mut payload) = std::mem::replace(&mut self.state, State::head()) else {
            return;
        };
        give(payload.piece(payload.last));
        if payload.opcode.is_control() {
            return;
        }
        self.message = match payload.last {
            Last::No => Some(Message {
                opcode: payload.opcode,
                compressed: payload.compressed,
            }),
            Last::Yes => {
                self.messages += 1;
                None
            }
        };
    }
}

impl Payload {
    /// Takes what belongs to the frame, up to a whole piece; tells how much that was.
    fn take(&mut self, bytes: &[u8], piece: usize) -> usize {
        let left = usize::try_from(self.length - self.have).unwrap_or(usize::MAX);
        let count = bytes.len().min(left).min(piece - self.held.len());
        let start = self.held.len();
        self.held.extend_from_slice(&bytes[..count]);
        if let Some(mut mask) = self.mask {
            // The remainder of 4 is at most 3.
            mask.rotate_left((self.have % 4) as usize);
            for group in self.held[start..].chunks_mut(4) {
                group
                    .iter_mut()
                    .zip(mask)
                    .for_each(|(byte, mask)| *byte ^= mask);
            }
        }
        self.have += count as u64;
        count
    }

    /// What is held, as a piece.
    fn piece(&mut self, last: Last) -> Piece {
        let begins = std::mem::replace(&mut self.begins, false);
        Piece {
            bytes: std::mem::take(&mut self.held).into(),
            frame: Some(Frame {
                opcode: self.opcode,
                part: Part::of(begins, last == Last::Yes),
                compressed: self.compressed,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
