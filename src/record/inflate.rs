//! Messages that `permessage-deflate` compressed, inflated one after the other (RFC 7692 section 7.2.2).
//!
//! Raw DEFLATE has no checksum: with a wrong history it gives wrong text and no error. So an inflater that has missed
//! something says so from then on, rather than guess.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Context, Window};

/// What a sender takes off the end of each message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Inflates the messages of one direction.
pub struct Inflater {
    stream: Decompress,
    context: Context,
    broken: Option<NotInflated>,
}

/// Why a message cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotInflated {
    /// What it refers to is not there.
    #[error("it refers to a message before it that was not kept, or not looked at")]
    Missing,
    /// It is no DEFLATE, or ends its stream.
    #[error("it is not what permessage-deflate makes")]
    Malformed,
    /// It is larger than the room that is left for it.
    #[error("it is too large to be inflated here")]
    TooLarge,
}

impl Inflater {
    /// For a side that compresses like that. A decoder with the largest window reads all smaller ones.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self {
            stream: Decompress::new(false),
            context: window.context,
            broken: None,
        }
    }

    /// Something of this direction is not there: the message that it belongs to cannot be inflated, and no other that may
    /// refer to it.
    pub fn skip(&mut self) {
        self.broken = Some(NotInflated::Missing);
    }

    /// A message begins: it can be read whatever came before, where each stands for itself.
    pub fn begin(&mut self) {
        if self.context == Context::Fresh {
            self.stream.reset(false);
            self.broken = None;
        }
    }

    /// Inflates the next piece of a message into `out`, at most `room` bytes; `ends` with the last one.
    ///
    /// # Errors
    /// [`NotInflated`], and again for what comes after it that may refer to it.
    pub fn piece(
        &mut self,
        bytes: &[u8],
        ends: bool,
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<(), NotInflated> {
        if let Some(broken) = self.broken {
            return Err(match broken {
                NotInflated::TooLarge | NotInflated::Malformed => NotInflated::Missing,
                NotInflated::Missing => broken,
            });
        }
        let most = out.len().saturating_add(room);
        let tail: &[u8] = if ends { &TAIL } else { &[] };
        let inflated = self
            .feed(bytes, out, most)
            .and_then(|()| self.feed(tail, out, most));
        self.broken = inflated.err();
        inflated
    }

    fn feed(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<(), NotInflated> {
        let mut buffer = [0; 8192];
        loop {
            let (taken, given) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(bytes, &mut buffer, FlushDecompress::Sync);
            let status = status.map_err(|_| NotInflated::Malformed)?;
            let count = |total: u64, before: u64| usize::try_from(total - before).unwrap_or(0);
            let taken = count(self.stream.total_in(), taken);
            let given = count(self.stream.total_out(), given);
            bytes = &bytes[taken..];
            if out.len() + given > most {
                return Err(NotInflated::TooLarge);
            }
            out.extend_from_slice(&buffer[..given]);
            match status {
                Status::StreamEnd => return Err(NotInflated::Malformed),
                _ if given < buffer.len() && (bytes.is_empty() || taken == 0) => return Ok(()),
                _ => {}
            }
        }
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater")
            .field("context", &self.context)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    /// Messages as a sender with this context compresses them.
    fn deflated(context: Context, messages: &[&str]) -> Vec<Vec<u8>> {
        let mut stream = Compress::new(Compression::default(), false);
        let one = |message: &&str| {
            if context == Context::Fresh {
                stream.reset();
            }
            let mut out = Vec::with_capacity(message.len() + 100);
            let flush = FlushCompress::Sync;
            stream
                .compress_vec(message.as_bytes(), &mut out, flush)
                .unwrap();
            out.truncate(out.len() - TAIL.len());
            out
        };
        messages.iter().map(one).collect()
    }

    fn window(context: Context) -> Window {
        Window { bits: 15, context }
    }

    fn message(inflater: &mut Inflater, bytes: &[u8], part: usize) -> Result<String, NotInflated> {
        let mut out = Vec::new();
        inflater.begin();
        let parts = bytes.chunks(part).count();
        for (at, bytes) in bytes.chunks(part).enumerate() {
            inflater.piece(bytes, at + 1 == parts, &mut out, 1 << 20)?;
        }
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn messages_are_inflated_with_and_without_context_in_any_pieces() {
        let long = "green tea ".repeat(10_000);
        let messages = ["green tea", "green tea and more green tea", &long, "x"];
        for context in [Context::Kept, Context::Fresh] {
            let deflated = deflated(context, &messages);
            for part in [1, 3, 1000] {
                let mut inflater = Inflater::new(window(context));
                for (bytes, expected) in deflated.iter().zip(messages) {
                    assert_eq!(message(&mut inflater, bytes, part).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn what_may_refer_to_something_missed_is_not_guessed() {
        let messages = ["green tea", "green tea and more green tea", "green tea"];
        let bytes = deflated(Context::Kept, &messages);
        let mut inflater = Inflater::new(window(Context::Kept));
        assert!(message(&mut inflater, &bytes[0], 100).is_ok());
        inflater.skip();
        assert_eq!(
            message(&mut inflater, &bytes[2], 100),
            Err(NotInflated::Missing)
        );
        let bytes = deflated(Context::Fresh, &messages);
        let mut inflater = Inflater::new(window(Context::Fresh));
        inflater.skip();
        assert_eq!(message(&mut inflater, &bytes[2], 100).unwrap(), messages[2]);
    }

    #[test]
    fn output_is_bounded_and_garbage_is_refused() {
        let bomb = "0".repeat(3 << 20);
        let bytes = deflated(Context::Fresh, &[&bomb]);
        let mut inflater = Inflater::new(window(Context::Fresh));
        assert_eq!(
            message(&mut inflater, &bytes[0], 1 << 20),
            Err(NotInflated::TooLarge)
        );
        assert_eq!(
            message(&mut inflater, &[0xff; 50], 10),
            Err(NotInflated::Malformed)
        );
        // A last block (BFINAL) ends the stream, after which there is no context to go on with.
        assert_eq!(
            message(&mut inflater, &[3, 0], 10),
            Err(NotInflated::Malformed)
        );
    }
}
