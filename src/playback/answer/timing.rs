//! Gives recorded content in the steps in which it came, for `playback.delay: "as_recorded"`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::Instant;

use crate::playback::stored::BodyError;
use crate::record::Beat;

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

struct Paced {
    pieces: Pieces,
    /// What was read and is not due yet.
    rest: Bytes,
    /// How long after the one before each part is due, and its bytes.
    beats: VecDeque<(Duration, u64)>,
    due: Option<Instant>,
}

/// The pieces at the times of `pace`, which counts like `first_byte_us`, the time of the response's head; no
/// step takes longer than `longest`.
pub(super) fn paced(
    pieces: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    pace: &[Beat],
    first_byte_us: u64,
    longest: Duration,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    let mut before = first_byte_us;
    let beat = |beat: &Beat| {
        let gap = Duration::from_micros(beat.at_us.saturating_sub(before));
        before = before.max(beat.at_us);
        (gap.min(longest), beat.bytes)
    };
    let paced = Paced {
        pieces: Box::pin(pieces),
        rest: Bytes::new(),
        beats: pace.iter().map(beat).collect(),
        due: None,
    };
    stream::unfold(paced, |mut paced| async move {
        let given = paced.next().await?;
        Some((given, paced))
    })
}

impl Paced {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        while self.rest.is_empty() {
            match self.pieces.next().await? {
                Ok(piece) => self.rest = piece,
                Err(error) => return Some(Err(error)),
            }
        }
        let Some((gap, bytes)) = self.beats.front_mut() else {
            return Some(Ok(std::mem::take(&mut self.rest)));
        };
        let due = self.due.unwrap_or_else(Instant::now) + std::mem::take(gap);
        self.due = Some(due);
        tokio::time::sleep_until(due).await;
        let length = usize::try_from(*bytes).map_or(self.rest.len(), |n| n.min(self.rest.len()));
        *bytes -= length as u64;
        if *bytes == 0 {
            self.beats.pop_front();
        }
        Some(Ok(self.rest.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn given(
        pieces: &[&'static str],
        pace: &[(u64, u64)],
        longest: u64,
    ) -> Vec<(u64, String)> {
        let pieces: Vec<_> = pieces.iter().map(|text| Ok(Bytes::from(*text))).collect();
        let pace: Vec<_> = pace
            .iter()
            .map(|(at_us, bytes)| Beat {
                at_us: *at_us,
                bytes: *bytes,
            })
            .collect();
        let start = Instant::now();
        let longest = Duration::from_secs(longest);
        let mut stream = Box::pin(paced(stream::iter(pieces), &pace, 1_000_000, longest));
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            let at = (Instant::now() - start).as_secs();
            all.push((at, String::from_utf8(piece.unwrap().to_vec()).unwrap()));
        }
        all
    }

    fn said(all: &[(u64, &str)]) -> Vec<(u64, String)> {
        all.iter()
            .map(|(at, text)| (*at, (*text).to_owned()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn parts_come_when_they_came_however_they_were_kept() {
        let pace = [(3_000_000, 3), (5_000_000, 2), (9_000_000, 1)];
        let expected = said(&[(2, "abc"), (4, "de"), (8, "f")]);
        assert_eq!(given(&["abcdef"], &pace, 60).await, expected);
        let expected = said(&[(2, "ab"), (2, "c"), (4, "d"), (4, "e"), (8, "f")]);
        assert_eq!(given(&["ab", "cd", "", "ef"], &pace, 60).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn no_step_is_longer_than_the_longest_and_nothing_is_held_back_for_ever() {
        let pace = [(1_000_000, 1), (100_000_000, 1)];
        let expected = said(&[(0, "a"), (5, "b"), (5, "cd")]);
        assert_eq!(given(&["abcd"], &pace, 5).await, expected);
        // A clock that went back is no wait.
        let expected = said(&[(1, "a"), (1, "b")]);
        assert_eq!(given(&["ab"], &[(2_000_000, 1), (0, 1)], 5).await, expected);
    }
}
