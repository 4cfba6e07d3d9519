//! When the parts of a response's content came, in steps of at least a millisecond.
//!
//! Server-sent events and long polls are played back with it. A content that comes as fast as it can has a
//! few steps at most, one that comes at once has none.

use crate::record::Beat;

/// Parts that come closer together are one.
const STEP_US: u64 = 1000;
/// How many parts are told apart; what comes later is added to the last one.
const MAX_BEATS: usize = 256;

/// The parts so far.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The last part, which may still grow.
    last: Option<Beat>,
    before: Vec<Beat>,
}

impl Pace {
    /// More content, which came so long after the exchange's start.
    pub(super) fn data(&mut self, bytes: usize, at_us: u64) {
        let bytes = bytes as u64;
        match &mut self.last {
            Some(last)
                if at_us.saturating_sub(last.at_us) < STEP_US
                    || self.before.len() + 1 >= MAX_BEATS =>
            {
                last.bytes += bytes;
            }
            last => self.before.extend(last.replace(Beat { at_us, bytes })),
        }
    }

    /// No more will come.
    pub(super) fn finish(mut self) -> Vec<Beat> {
        if !self.before.is_empty() {
            self.before.extend(self.last);
        }
        self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(parts: &[(usize, u64)]) -> Vec<(u64, u64)> {
        let mut pace = Pace::default();
        for (bytes, at_us) in parts {
            pace.data(*bytes, *at_us);
        }
        pace.finish().iter().map(|b| (b.at_us, b.bytes)).collect()
    }

    #[test]
    fn parts_are_told_apart_by_a_millisecond() {
        assert_eq!(pace(&[]), []);
        assert_eq!(pace(&[(10, 5), (20, 900)]), [], "it came at once");
        assert_eq!(
            pace(&[(1, 0), (2, 999), (3, 1000), (4, 5000), (5, 5001)]),
            [(0, 3), (1000, 3), (5000, 9)]
        );
    }

    #[test]
    fn what_comes_after_the_last_step_is_added_to_it() {
        let parts: Vec<_> = (0..1000).map(|n| (1, n * 2000)).collect();
        let beats = pace(&parts);
        assert_eq!(beats.len(), MAX_BEATS);
        assert_eq!(beats.iter().map(|(_, bytes)| bytes).sum::<u64>(), 1000);
    }
}
