//! Where the messages of a gRPC body begin and end, told from their prefixes as the bytes pass.
//!
//! Pure, and blind to the content: five bytes of each message are looked at, the rest is counted.

use crate::record::{Message, Messages};

/// One byte of flags and four of length.
const PREFIX: usize = 5;

/// The messages so far.
#[derive(Debug, Default)]
pub(super) struct Framer {
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    known: usize,
    /// What is missing of the message.
    missing: u64,
    /// Where the next byte stands in the content.
    at: u64,
    /// Where the message began.
    began: u64,
    messages: Messages,
}

impl Framer {
    /// The next bytes, which came so long after the exchange's start.
    pub(super) fn data(&mut self, mut bytes: &[u8], at_us: u64) {
        while !bytes.is_empty() {
            if self.known < PREFIX {
                if self.known == 0 {
                    self.began = self.at;
                }
                self.prefix[self.known] = bytes[0];
                self.known += 1;
                self.at += 1;
                bytes = &bytes[1..];
                if self.known == PREFIX {
                    self.missing = u64::from(self.length());
                    self.end(at_us);
                }
                continue;
            }
            let taken = usize::try_from(self.missing).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.missing -= taken as u64;
            self.at += taken as u64;
            bytes = &bytes[taken..];
            self.end(at_us);
        }
    }

    /// No more will come.
    pub(super) fn finish(mut self) -> Messages {
        self.messages.broken = self.known > 0;
        self.messages
    }

    const fn length(&self) -> u32 {
        let [_, a, b, c, d] = self.prefix;
        u32::from_be_bytes([a, b, c, d])
    }

    fn end(&mut self, at_us: u64) {
        if self.missing > 0 {
            return;
        }
        self.known = 0;
        self.messages.count += 1;
        if self.messages.first.len() < Messages::LISTED {
            self.messages.first.push(Message {
                offset: self.began,
                bytes: self.length(),
                compressed: self.prefix[0] & 1 == 1,
                at_us,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(messages: &[(u8, &[u8])]) -> Vec<u8> {
        let mut content = Vec::new();
        for (flags, message) in messages {
            content.push(*flags);
            content.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            content.extend_from_slice(message);
        }
        content
    }

    #[test]
    fn messages_are_found_whatever_the_frames() {
        let content = content(&[(0, b"hello"), (1, b""), (0, &[0; 300])]);
        for frame in 1..=content.len() {
            let mut framer = Framer::default();
            for (at, part) in content.chunks(frame).enumerate() {
                framer.data(part, at as u64);
            }
            let found = framer.finish();
            assert_eq!((found.count, found.broken), (3, false), "{frame}");
            let places: Vec<_> = found
                .first
                .iter()
                .map(|m| (m.offset, m.bytes, m.compressed))
                .collect();
            assert_eq!(places, [(0, 5, false), (10, 0, true), (15, 300, false)]);
            let last = (content.len() - 1) / frame;
            assert_eq!(found.first[2].at_us, last as u64);
        }
    }

    #[test]
    fn a_content_that_ends_within_a_message_says_so() {
        let content = content(&[(0, b"hello"), (0, b"world")]);
        for end in 11..content.len() {
            let mut framer = Framer::default();
            framer.data(&content[..end], 0);
            let found = framer.finish();
            assert_eq!((found.count, found.broken), (1, true), "{end}");
        }
    }

    #[test]
    fn only_the_first_messages_are_listed_and_all_are_counted() {
        let mut framer = Framer::default();
        for _ in 0..1000 {
            framer.data(&content(&[(0, b"x")]), 0);
        }
        let found = framer.finish();
        assert_eq!((found.count, found.first.len()), (1000, Messages::LISTED));
    }
}
