//! Topic filters as text: the `$share/{group}/` prefix, and the limits.

use std::sync::Arc;

use crate::Limits;

/// A filter, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter<'f> {
    /// Every subscriber gets every message.
    Plain(&'f str),
    /// One subscriber of the group gets each message; `filter` is what stands behind the group's name.
    Shared {
        /// What stands behind the group's name.
        filter: &'f str,
    },
}

impl<'f> Filter<'f> {
    /// Takes `$share/{group}/{filter}` apart; `None` where it is malformed (MQTT 5 section 4.8.2, which
    /// brokers apply to 3.1.1 clients as well).
    pub(super) fn parse(text: &'f str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("$share/") else {
            return Some(Self::Plain(text));
        };
        let (group, filter) = rest.split_once('/')?;
        let sound = !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty();
        sound.then_some(Self::Shared { filter })
    }
}

/// Whether a topic name or filter is within the limits on length and levels.
pub(super) fn within(limits: &Limits, text: &str) -> bool {
    let levels = text.bytes().filter(|&byte| byte == b'/').count() + 1;
    text.len() <= limits.topic_bytes && levels <= limits.topic_levels
}

/// What every topic that matches `filter` begins with.
pub(super) fn literal_prefix(filter: &str) -> &str {
    let end = filter.find(['+', '#']).unwrap_or(filter.len());
    // `a/#` matches `a` too, so the separator is not part of the prefix.
    filter[..end].strip_suffix('/').unwrap_or(&filter[..end])
}

/// The key of a shared group: its whole filter.
pub(super) type GroupKey = Arc<str>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_shared_filters_apart() {
        assert_eq!(Filter::parse("a/+"), Some(Filter::Plain("a/+")));
        assert_eq!(
            Filter::parse("$share/g/a/#"),
            Some(Filter::Shared { filter: "a/#" })
        );
        for malformed in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
        ] {
            assert_eq!(Filter::parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn length_and_levels_are_limited() {
        let limits = Limits {
            topic_bytes: 5,
            topic_levels: 2,
            ..Limits::default()
        };
        assert!(within(&limits, "ab/cd"));
        assert!(!within(&limits, "ab/cde"));
        assert!(!within(&limits, "a/b/c"));
    }

    #[test]
    fn prefix_leaves_out_the_level_before_a_hash() {
        assert_eq!(literal_prefix("a/b/#"), "a/b");
        assert_eq!(literal_prefix("a/b"), "a/b");
        assert_eq!(literal_prefix("+/b"), "");
        assert_eq!(literal_prefix("/+"), "");
    }
}
