//! Topic names and topic filters: what is legal, and which filter matches which name (section 4.7).
//!
//! Pure text; the codec calls it for what arrives, the session for what is about to be sent. Levels are compared
//! byte by byte: MQTT knows no case folding and no normalisation.

/// The longest topic or filter that fits its two-byte length prefix, in bytes (section 1.5.3).
///
/// ```
/// use qproxy_mqtt::topic::{MAX_TOPIC_BYTES, TopicError, validate_topic};
///
/// let longest = "a".repeat(MAX_TOPIC_BYTES);
/// assert_eq!(validate_topic(&longest), Ok(()));
/// assert_eq!(
///     validate_topic(&format!("{longest}a")),
///     Err(TopicError::TooLong(MAX_TOPIC_BYTES + 1))
/// );
/// ```
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// Why a topic name or filter is not legal.
///
/// ```
/// use qproxy_mqtt::topic::{TopicError, validate_topic};
///
/// let error = validate_topic("").unwrap_err();
/// assert_eq!(error, TopicError::Empty);
/// assert_eq!(error.to_string(), "topic is empty [MQTT-4.7.3-1]");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Names and filters have at least one character.
    #[error("topic is empty [MQTT-4.7.3-1]")]
    Empty,
    /// Longer than a length prefix can say.
    #[error("topic of {0} bytes is over 65,535 [MQTT-4.7.3-3]")]
    TooLong(usize),
    /// The null character is nowhere allowed.
    #[error("topic has a null character [MQTT-4.7.3-2]")]
    Null,
    /// `+` or `#` in the name a message is published to.
    #[error("topic name has a wildcard [MQTT-3.3.2-2]")]
    Wildcard,
    /// `#` that is not the whole last level.
    #[error("'#' must be the whole last level of a filter [MQTT-4.7.1-2]")]
    MultiLevel,
    /// `$share/` without a group and a filter behind it.
    #[error(
        "a shared filter is $share/, a group without wildcards, a slash and a filter [MQTT-4.8.2-1] [MQTT-4.8.2-2]"
    )]
    Share,
    /// `+` that is not a whole level.
    #[error("'+' must be a whole level of a filter [MQTT-4.7.1-3]")]
    SingleLevel,
}

/// Checks the name of a topic that a message is published to.
///
/// ```
/// use qproxy_mqtt::topic::{TopicError, validate_topic};
///
/// assert_eq!(validate_topic("lamp/1"), Ok(()));
/// assert_eq!(validate_topic("lamp/+"), Err(TopicError::Wildcard));
/// ```
///
/// # Errors
/// Says which rule of section 4.7 the name breaks.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    validate_name(topic.as_bytes())
}

/// [`validate_topic`] for what is known to be UTF-8.
pub(crate) fn validate_name(topic: &[u8]) -> Result<(), TopicError> {
    // All of it, without a way out in between: the compiler looks at many bytes at once then.
    let is_bad = |byte: &u8| matches!(byte, 0 | b'+' | b'#');
    let bad = topic.iter().fold(false, |bad, byte| bad | is_bad(byte));
    if !bad && (1..=MAX_TOPIC_BYTES).contains(&topic.len()) {
        return Ok(());
    }
    validate_common(topic)?;
    Err(TopicError::Wildcard)
}

/// Checks a filter that is subscribed to.
///
/// ```
/// use qproxy_mqtt::topic::{TopicError, validate_filter};
///
/// assert_eq!(validate_filter("lamp/+/state"), Ok(()));
/// assert_eq!(validate_filter("lamp/#/state"), Err(TopicError::MultiLevel));
/// ```
///
/// # Errors
/// Says which rule of section 4.7 the filter breaks.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_common(filter.as_bytes())?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevel);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevel);
        }
    }
    Ok(())
}

/// Checks the form of a shared filter, `$share/{group}/{filter}` (MQTT 5.0 section 4.8.2); others are fine.
///
/// 3.1.1 knows no shared subscriptions, so this is not part of [`validate_filter`], which has to be asked too.
///
/// ```
/// use qproxy_mqtt::topic::validate_share;
///
/// assert!(validate_share("$share/workers/jobs/#").is_ok());
/// assert!(validate_share("$share/workers").is_err());
/// ```
///
/// # Errors
/// The group is empty or has a wildcard, or there is no filter behind it.
pub fn validate_share(filter: &str) -> Result<(), TopicError> {
    let Some(rest) = filter.strip_prefix(SHARE) else {
        return Ok(());
    };
    match rest.split_once('/') {
        Some((group, filter))
            if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() =>
        {
            Ok(())
        }
        _ => Err(TopicError::Share),
    }
}

/// Whether a filter is a shared one.
///
/// ```
/// use qproxy_mqtt::topic::is_shared;
///
/// assert!(is_shared("$share/workers/jobs/#"));
/// assert!(!is_shared("jobs/#"));
/// ```
#[must_use]
pub fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARE)
}

/// The filter that topics are matched against: of a shared one, what stands behind its group.
///
/// ```
/// use qproxy_mqtt::topic::unshared;
///
/// assert_eq!(unshared("$share/workers/jobs/#"), "jobs/#");
/// assert_eq!(unshared("jobs/#"), "jobs/#");
/// ```
#[must_use]
pub fn unshared(filter: &str) -> &str {
    let shared = filter.strip_prefix(SHARE);
    let behind = shared.and_then(|rest| rest.split_once('/'));
    match behind {
        Some((_, behind)) if !behind.is_empty() => behind,
        _ => filter,
    }
}

const SHARE: &str = "$share/";

fn validate_common(text: &[u8]) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong(text.len()));
    }
    if text.contains(&0) {
        return Err(TopicError::Null);
    }
    Ok(())
}

/// Whether a message published to `topic` belongs to a subscription to `filter`.
///
/// Both are taken to be valid. A topic that begins with `$` is not matched by a filter that begins with a wildcard
/// [MQTT-4.7.2-1]; `a/#` matches `a` itself (section 4.7.1.2).
///
/// ```
/// use qproxy_mqtt::topic::matches;
///
/// assert!(matches("lamp/+", "lamp/1"));
/// assert!(matches("lamp/#", "lamp"));
/// assert!(!matches("#", "$SYS/uptime"));
/// ```
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    matches_name(filter.as_bytes(), topic.as_bytes())
}

/// [`matches`] for what is known to be UTF-8.
pub(crate) fn matches_name(mut filter: &[u8], mut topic: &[u8]) -> bool {
    // A topic has no wildcards: no other way to match is left out.
    if filter == topic {
        return true;
    }
    if topic.starts_with(b"$") && matches!(filter, [b'+' | b'#', ..]) {
        return false;
    }
    loop {
        match (filter, topic) {
            // In a valid filter they stand at the start of a level.
            ([b'#', ..], _) | ([], []) | (b"/#", []) => return true,
            ([b'+', behind @ ..], _) => {
                let level = topic.iter().position(|&byte| byte == b'/');
                topic = &topic[level.unwrap_or(topic.len())..];
                filter = behind;
            }
            ([wanted, behind @ ..], [byte, rest @ ..]) if wanted == byte => {
                (filter, topic) = (behind, rest);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_section_4_7() {
        for good in ["a", "/", "a//b", "é/😀", "$SYS/x", " ", "a/b/"] {
            assert_eq!(validate_topic(good), Ok(()), "{good}");
        }
        assert_eq!(validate_topic(""), Err(TopicError::Empty));
        assert_eq!(validate_topic("a/\0"), Err(TopicError::Null));
        assert_eq!(validate_topic("a/+"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic("a#"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic(&"x".repeat(65_535)), Ok(()));
        assert_eq!(
            validate_topic(&"x".repeat(65_536)),
            Err(TopicError::TooLong(65_536))
        );
    }

    #[test]
    fn filters_allow_wildcards_only_as_whole_levels() {
        for good in ["#", "+", "a/#", "+/+/#", "/+", "a//b", "$SYS/#", "é/+"] {
            assert_eq!(validate_filter(good), Ok(()), "{good}");
        }
        for bad in ["a#", "#/a", "a/#/b", "##", "a/b#"] {
            assert_eq!(validate_filter(bad), Err(TopicError::MultiLevel), "{bad}");
        }
        for bad in ["a+", "+a/b", "a/++", "é+"] {
            assert_eq!(validate_filter(bad), Err(TopicError::SingleLevel), "{bad}");
        }
        assert_eq!(validate_filter(""), Err(TopicError::Empty));
    }

    #[test]
    fn a_shared_filter_matches_as_what_stands_behind_its_group() {
        for (filter, matched) in [
            ("$share/g/a/#", "a/#"),
            ("$share/g//a", "/a"),
            ("$share/g/#", "#"),
            ("$share/g", "$share/g"),
            ("$share/g/", "$share/g/"),
            ("a/$share/g", "a/$share/g"),
            ("$SYS/#", "$SYS/#"),
        ] {
            assert_eq!(unshared(filter), matched, "{filter}");
        }
    }

    /// The words of section 4.7, level by level.
    fn matches_by_level(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let filter: Vec<_> = filter.split('/').collect();
        let topic: Vec<_> = topic.split('/').collect();
        let (filter, tail) = match filter.split_last() {
            Some((&"#", levels)) => (levels, usize::MAX),
            _ => (&filter[..], 0),
        };
        let pairs = filter.iter().zip(&topic);
        let same = pairs
            .filter(|(wanted, level)| **wanted == "+" || wanted == level)
            .count();
        same == filter.len() && topic.len() - same <= tail
    }

    #[test]
    fn matching_is_the_same_as_level_by_level_for_all_short_names_and_filters() {
        let mut texts = vec![String::new()];
        let mut longest = texts.clone();
        for _ in 0..4 {
            let longer = longest.iter().flat_map(|text| {
                ["a", "b", "/", "+", "#", "$"]
                    .into_iter()
                    .map(move |next| format!("{text}{next}"))
            });
            longest = longer.collect();
            texts.extend_from_slice(&longest);
        }
        let topics: Vec<_> = texts
            .iter()
            .filter(|it| validate_topic(it).is_ok())
            .collect();
        let filters: Vec<_> = texts
            .iter()
            .filter(|it| validate_filter(it).is_ok())
            .collect();
        let mut matched = 0;
        for filter in &filters {
            for topic in &topics {
                let expected = matches_by_level(filter, topic);
                assert_eq!(matches(filter, topic), expected, "{filter} and {topic}");
                matched += usize::from(expected);
            }
        }
        assert!(matched > topics.len(), "{matched}");
    }

    #[test]
    fn matching_follows_the_examples_of_the_specification() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            ("sport/#", "sport"),
            ("#", "a/b/c"),
            ("+", "finance"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("sport/+", "sport/"),
            ("sport/+/player1", "sport/tennis/player1"),
            ("$SYS/#", "$SYS/x"),
            ("$SYS/+", "$SYS/x"),
            ("é/+", "é/😀"),
            ("#", "é/x"),
            ("+/x", "é/x"),
        ] {
            assert!(matches(filter, topic), "{filter} should match {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a", "A"),
            ("a/b", "a/b/"),
            ("a/b/", "a/b"),
            ("é", "e\u{301}"),
        ] {
            assert!(!matches(filter, topic), "{filter} should not match {topic}");
        }
    }
}
