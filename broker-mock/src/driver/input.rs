//! The read buffer of a connection: small while little comes, large when much does.

use bytes::BytesMut;

/// Most read at once.
const LARGEST: usize = 64 * 1024;
/// What an idle connection holds.
const SMALLEST: usize = 2 * 1024;
/// Reads in a row that would have fitted a smaller buffer before it is given up.
const PATIENCE: u32 = 32;

/// Bytes that were read and are no whole packet yet.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: BytesMut,
    chunk: usize,
    small_reads: u32,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            chunk: SMALLEST,
            small_reads: 0,
        }
    }
}

impl Input {
    /// Makes room for the next read.
    pub(super) fn prepare(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < self.chunk / 2 {
            self.bytes.reserve(self.chunk);
        }
    }

    /// Learns from a read of `count` bytes.
    pub(super) fn learn(&mut self, count: usize) {
        if count >= self.chunk / 2 {
            self.chunk = (self.chunk * 2).min(LARGEST);
            self.small_reads = 0;
        } else if self.chunk > SMALLEST && count < self.chunk / 8 {
            self.small_reads += 1;
        }
    }

    /// Gives the buffer up when it is empty and has been too large for a while.
    pub(super) fn relax(&mut self) {
        if self.small_reads >= PATIENCE && self.bytes.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_the_traffic_and_shrinks_after_it() {
        let mut input = Input::default();
        for _ in 0..10 {
            input.prepare();
            input.learn(input.bytes.capacity());
        }
        input.prepare();
        assert!(input.bytes.capacity() >= LARGEST / 2);
        for _ in 0..PATIENCE {
            input.learn(10);
            input.relax();
        }
        input.prepare();
        assert!(input.bytes.capacity() < LARGEST / 2);
    }
}
