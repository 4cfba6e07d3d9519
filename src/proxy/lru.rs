//! A map of limited size: what was used longest ago makes room for what is new.
//!
//! Sizes are some thousand entries and a new entry is rare, so that the oldest is looked for by looking at all.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// The map.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, (V, u64)>,
    most: usize,
    clock: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// A map of at most so many entries, and at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            most: most.max(1),
            clock: 0,
        }
    }

    /// The entry, which counts as used now.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    /// Sets an entry; gives the other one that had to go for it.
    pub(super) fn put(&mut self, key: K, value: V) -> Option<V> {
        self.clock += 1;
        let full = self.entries.len() >= self.most && !self.entries.contains_key(&key);
        let gone = full.then(|| self.remove_oldest()).flatten();
        self.entries.insert(key, (value, self.clock));
        gone
    }

    /// Keeps the entries that are wanted.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(&V) -> bool) {
        self.entries.retain(|_, (value, _)| wanted(value));
    }

    /// Every entry, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(value, _)| value)
    }

    fn remove_oldest(&mut self) -> Option<V> {
        let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used);
        let key = oldest.map(|(key, _)| key.clone())?;
        self.entries.remove(&key).map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut map = Lru::new(2);
        assert_eq!(map.put("a", 1), None);
        assert_eq!(map.put("b", 2), None);
        assert_eq!(map.get("a"), Some(&1));
        assert_eq!(map.put("a", 3), None, "an entry takes its own place");
        assert_eq!(map.put("c", 4), Some(2));
        assert_eq!(map.get("b"), None);
        assert_eq!(map.values().count(), 2);
        map.retain(|value| *value == 4);
        assert_eq!(map.values().copied().collect::<Vec<_>>(), [4]);
    }
}
