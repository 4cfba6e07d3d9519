//! A map that forgets what was not used for longest, in constant time: two generations of entries.
//!
//! What is used moves to the young generation. When that is full, or an idle time has passed, the old
//! generation is dropped and the young one takes its place; so an entry lives at least as long as half the
//! limit has room, and at most two idle times after its last use.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Generations<K, V> {
    half: usize,
    idle: Duration,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    turned: Option<Instant>,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// At most `limit` entries, each kept for at least `idle` after its last use while there is room.
    pub(super) fn new(limit: usize, idle: Duration) -> Self {
        Self {
            half: (limit / 2).max(1),
            idle,
            young: HashMap::new(),
            old: HashMap::new(),
            turned: None,
        }
    }

    /// The value of `key`, which counts as a use.
    pub(super) fn touch(&mut self, key: K, now: Instant) -> Option<V>
    where
        K: Copy,
        V: Copy,
    {
        self.turn_if_idle(now);
        if let Some(value) = self.old.remove(&key) {
            self.put(key, value, now);
        }
        self.young.get(&key).copied()
    }

    /// Sets the value of `key`; tells how many entries were forgotten for want of room.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) -> usize {
        self.turn_if_idle(now);
        self.old.remove(&key);
        let mut forgotten = 0;
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            forgotten = self.turn(now);
        }
        self.young.insert(key, value);
        forgotten
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    fn turn_if_idle(&mut self, now: Instant) {
        let turned = *self.turned.get_or_insert(now);
        if now.saturating_duration_since(turned) >= self.idle {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Instant) -> usize {
        self.turned = Some(now);
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young)).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn stays_within_its_limit_and_keeps_what_is_used() {
        let now = Instant::now();
        let mut map = Generations::new(100, IDLE);
        map.put(0, 0, now);
        let mut forgotten = 0;
        for key in 1..10_000 {
            forgotten += map.put(key, key, now);
            assert_eq!(map.touch(0, now), Some(0), "used all the time");
            assert!(map.young.len() + map.old.len() <= 100);
        }
        assert!(forgotten > 9_000);
        assert_eq!(map.touch(9_999, now), Some(9_999));
        assert_eq!(map.touch(1, now), None);
    }

    #[test]
    fn forgets_what_was_idle_for_two_turns() {
        let start = Instant::now();
        let mut map = Generations::new(100, IDLE);
        map.put(1, 1, start);
        assert_eq!(map.touch(1, start + IDLE), Some(1));
        assert_eq!(map.touch(2, start + IDLE * 2), None);
        assert_eq!(map.touch(2, start + IDLE * 3), None);
        assert_eq!(map.touch(1, start + IDLE * 3), None);
    }
}
