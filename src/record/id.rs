//! Names of things: records, nodes, and the place of an item in its recorder's sequence.
//!
//! A record is named by a UUIDv7 that is strictly increasing within one process; an *item* (record, body
//! chunk, segment batch, gap) is placed by its [`Origin`], from which completeness is proved.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use uuid::Uuid;

/// The identity of one recorded exchange or stream, a UUIDv7 (RFC 9562 section 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(Uuid);

impl RecordId {
    /// Wraps a UUID that came from outside.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as the 128-bit number whose order is the id's order.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The inverse of [`RecordId::as_u128`].
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(Uuid::from_u128(value))
    }

    /// The 16 bytes of the UUID, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id from 16 bytes, most significant first; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The smallest id that a record made at `micros` (microseconds since the Unix epoch) can have.
    ///
    /// Ids hold whole milliseconds, so this is the bound for the millisecond that `micros` lies in.
    #[must_use]
    pub fn floor_at(micros: i64) -> Self {
        let millis = u128::try_from(micros.max(0) / 1000).unwrap_or(0);
        Self(Uuid::from_u128(millis << 80))
    }

    /// The wall time in the id, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.as_u128() >> 80).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RecordId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Makes strictly increasing [`RecordId`]s without a lock; share one per process.
///
/// A 64-bit counter whose upper 48 bits are milliseconds stands in the id as time and as its first random
/// bits (RFC 9562 section 6.2, method 1); the rest is random.
#[derive(Debug)]
pub struct IdSource {
    last: AtomicU64,
    salt: u64,
}

impl Default for IdSource {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            salt: Uuid::new_v4().as_u64_pair().0,
        }
    }
}

impl IdSource {
    /// The next id, for a record that started at `micros` (microseconds since the Unix epoch).
    #[must_use]
    pub fn next_id(&self, micros: i64) -> RecordId {
        let millis = u64::try_from(micros).unwrap_or(0) / 1000;
        let earliest = millis << 16;
        let next = |last: u64| earliest.max(last + 1);
        let before = self
            .last
            .fetch_update(Relaxed, Relaxed, |last| Some(next(last)))
            .unwrap_or_else(|last| last);
        let ticks = next(before);
        let time = u128::from(ticks >> 16) << 80;
        let upper = u128::from((ticks >> 4) & 0xfff) << 64;
        let lower = u128::from(ticks & 0xf) << 58;
        let random = u128::from(mix(self.salt ^ ticks) >> 6);
        let version_and_variant = (0x7 << 76) | (0b10 << 62);
        RecordId::from_u128(time | version_and_variant | upper | lower | random)
    }
}

/// Spreads a counter over all 64 bits (SplitMix64's finalizer).
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The name of a QProxy node: 1 to 64 of `A-Z a-z 0-9 _ -`, so that it can stand in a topic as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

/// A node name with a character or a length that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no node name: use 1 to 64 of A-Z a-z 0-9 _ -")]
pub struct InvalidNode(String);

impl NodeId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidNode`] where the name is empty, over 64 bytes, or has another character.
    pub fn new(name: &str) -> Result<Self, InvalidNode> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidNode(name.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = InvalidNode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// One life of a recorder: new at each start, larger than every one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The place of an item within its epoch; counts up by one over all items, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// One client connection within an epoch; exchanges that share it keep their order in replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Where an item comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The recorder.
    pub node: NodeId,
    /// Which of its lives.
    pub epoch: Epoch,
    /// The item's place in it.
    pub seq: Sequence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_strictly_within_one_microsecond() {
        let source = IdSource::default();
        let ids: Vec<_> = (0..10_000)
            .map(|_| source.next_id(1_700_000_000_000_000))
            .collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn ids_are_version_7_and_differ_between_sources() {
        let micros = 1_700_000_000_000_000;
        let (one, other) = (IdSource::default(), IdSource::default());
        let id = one.next_id(micros);
        let uuid = Uuid::from_u128(id.as_u128());
        assert_eq!(
            (uuid.get_version_num(), uuid.get_variant()),
            (7, uuid::Variant::RFC4122)
        );
        assert_ne!(id, other.next_id(micros));
    }

    #[test]
    fn floor_bounds_ids_of_its_millisecond() {
        let id = IdSource::default().next_id(1_700_000_000_123_456);
        assert!(RecordId::floor_at(1_700_000_000_123_000) <= id);
        assert!(id < RecordId::floor_at(1_700_000_000_124_000));
        assert_eq!(id.unix_millis(), 1_700_000_000_123);
    }

    #[test]
    fn node_name_must_fit_a_topic_level() {
        assert!(NodeId::new("az1-rec_2").is_ok());
        for bad in ["", "a/b", "a+b", "é", "a b", &"x".repeat(65)] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
        }
    }
}
