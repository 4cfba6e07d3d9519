//! What of a stream may be anything: ranges of bytes, and what a pattern finds.
//!
//! What is ignored has the recorded length: the bytes behind it are looked for at the place where they stood.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use crate::record::Direction;

/// How much memory a compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// One thing that may be anything.
#[derive(Debug, Clone)]
pub struct IgnoreRule {
    from: Direction,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Places in all that the side says, from 0.
    Range(Range<u64>),
    /// What this finds in what the side said in one go.
    Pattern(Regex),
}

/// A pattern that is none, or too large a one.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is no usable pattern: {source}")]
pub struct InvalidPattern {
    pattern: String,
    source: regex::Error,
}

impl IgnoreRule {
    /// The bytes of one side at these places.
    #[must_use]
    pub const fn range(from: Direction, range: Range<u64>) -> Self {
        Self {
            from,
            what: What::Range(range),
        }
    }

    /// What this pattern finds in the recorded bytes of one side. It is matched on bytes: `.` is any but a line feed,
    /// and Unicode classes are asked for with `(?u)`.
    ///
    /// # Errors
    /// [`InvalidPattern`] where it is none.
    pub fn pattern(from: Direction, pattern: &str) -> Result<Self, InvalidPattern> {
        let regex = RegexBuilder::new(pattern)
            .unicode(false)
            .size_limit(PATTERN_BYTES)
            .build();
        let regex = regex.map_err(|source| InvalidPattern {
            pattern: pattern.to_owned(),
            source,
        })?;
        Ok(Self {
            from,
            what: What::Pattern(regex),
        })
    }
}

/// All that may be anything.
#[derive(Debug, Clone, Default)]
pub struct Ignore(Vec<IgnoreRule>);

impl From<Vec<IgnoreRule>> for Ignore {
    fn from(rules: Vec<IgnoreRule>) -> Self {
        Self(rules)
    }
}

impl Ignore {
    /// What of these bytes, which begin at `offset` of all that `from` says, may be anything.
    pub(super) fn ranges(&self, from: Direction, offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for rule in self.0.iter().filter(|rule| rule.from == from) {
            match &rule.what {
                What::Range(range) => {
                    let place = |at: u64| {
                        usize::try_from(at.saturating_sub(offset))
                            .map_or(bytes.len(), |at| at.min(bytes.len()))
                    };
                    found.push(place(range.start)..place(range.end));
                }
                What::Pattern(regex) => found.extend(regex.find_iter(bytes).map(|m| m.range())),
            }
        }
        found.retain(|range| !range.is_empty());
        found.sort_by_key(|range| range.start);
        found.dedup_by(|next, before| {
            let touches = next.start <= before.end;
            if touches {
                before.end = before.end.max(next.end);
            }
            touches
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Client, Server};

    fn found(ignore: &Ignore, from: Direction, offset: u64, bytes: &[u8]) -> Vec<(usize, usize)> {
        let ranges = ignore.ranges(from, offset, bytes).into_iter();
        ranges.map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn ranges_count_from_the_start_of_the_stream_and_patterns_in_each_piece() {
        let ignore = Ignore::from(vec![
            IgnoreRule::range(Client, 8..12),
            IgnoreRule::pattern(Client, "nonce=[0-9a-f]+").unwrap(),
            IgnoreRule::range(Server, 0..u64::MAX),
        ]);
        assert_eq!(found(&ignore, Client, 10, b"abcdef"), [(0, 2)]);
        assert!(ignore.ranges(Client, 12, b"abcdef").is_empty());
        assert!(ignore.ranges(Client, 0, b"abc").is_empty());
        assert_eq!(found(&ignore, Client, 100, b"x nonce=0f1 y"), [(2, 11)]);
        assert_eq!(found(&ignore, Server, 7, b"any"), [(0, 3)]);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let ignore = Ignore::from(vec![
            IgnoreRule::range(Client, 4..6),
            IgnoreRule::range(Client, 0..3),
            IgnoreRule::range(Client, 2..4),
            IgnoreRule::range(Client, 8..9),
        ]);
        assert_eq!(found(&ignore, Client, 0, &[0; 20]), [(0, 6), (8, 9)]);
    }

    #[test]
    fn a_pattern_looks_at_bytes_and_says_what_is_wrong_with_it() {
        let any = Ignore::from(vec![IgnoreRule::pattern(Client, r"\xff.").unwrap()]);
        assert_eq!(found(&any, Client, 0, b"\x00\xff\xfe"), [(1, 3)]);
        let said = IgnoreRule::pattern(Client, "(").unwrap_err().to_string();
        assert!(said.contains("`(`"), "{said}");
        assert!(IgnoreRule::pattern(Client, r"(?u)\pL{2000}").is_err());
    }
}
