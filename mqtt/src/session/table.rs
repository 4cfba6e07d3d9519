//! What is open, by packet id.
//!
//! A packet id is the place of its entry, plus one, and free ids stand in a queue: taking one, giving it back and
//! finding its entry are one step each, an id is never 0 and never given out twice. Order lives in stamps, which are
//! sorted only when a connection is resumed.

use std::collections::VecDeque;

use crate::codec::PacketId;

#[derive(Debug)]
pub(super) struct Table<T> {
    entries: Vec<Option<Entry<T>>>,
    free: VecDeque<PacketId>,
    next_stamp: u64,
    /// Ids in use before free ones are used again: the longer one rests, the less a late answer can harm.
    spread: usize,
}

#[derive(Debug)]
struct Entry<T> {
    stamp: u64,
    state: T,
}

impl<T> Table<T> {
    pub(super) fn new(spread: usize) -> Self {
        Self {
            entries: Vec::new(),
            free: VecDeque::new(),
            next_stamp: 0,
            spread: spread.min(usize::from(u16::MAX)),
        }
    }

    /// Ids that are ever given out, from 1.
    pub(super) fn spread(&self) -> usize {
        self.spread
    }

    /// The longest-free id; a new one as long as the table is smaller than it wants to be. The caller sees to it that
    /// there is one, and puts an entry there.
    pub(super) fn allocate(&mut self) -> PacketId {
        if self.entries.len() < self.spread || self.free.is_empty() {
            self.entries.push(None);
            let id = u16::try_from(self.entries.len())
                .ok()
                .and_then(PacketId::new);
            return id.expect("the windows leave an id free");
        }
        self.free.pop_front().expect("seen not to be empty")
    }

    /// Takes this id, and makes the table as long as it has to be for that.
    pub(super) fn claim(&mut self, id: PacketId) {
        while self.entries.len() <= index(id) {
            self.entries.push(None);
            let new = u16::try_from(self.entries.len())
                .ok()
                .and_then(PacketId::new);
            self.free.extend(new);
        }
        self.free.retain(|free| *free != id);
    }

    /// Fills an allocated id, or changes its state; it is the youngest from now on.
    pub(super) fn put(&mut self, id: PacketId, state: T) {
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        self.entries[index(id)] = Some(Entry { stamp, state });
    }

    pub(super) fn get(&self, id: PacketId) -> Option<&T> {
        Some(&self.entries.get(index(id))?.as_ref()?.state)
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut T> {
        Some(&mut self.entries.get_mut(index(id))?.as_mut()?.state)
    }

    /// As `get_mut`; what is there is the youngest from now on.
    pub(super) fn renew(&mut self, id: PacketId) -> Option<&mut T> {
        let entry = self.entries.get_mut(index(id))?.as_mut()?;
        entry.stamp = self.next_stamp;
        self.next_stamp += 1;
        Some(&mut entry.state)
    }

    /// Takes the state out; the id stays taken, and is to be `put` or `release`d.
    pub(super) fn take(&mut self, id: PacketId) -> Option<T> {
        Some(self.entries.get_mut(index(id))?.take()?.state)
    }

    /// Gives an id back whose state was taken.
    pub(super) fn release(&mut self, id: PacketId) {
        self.free.push_back(id);
    }

    /// The ids of wanted entries, the oldest first.
    pub(super) fn in_order(&self, wanted: impl Fn(&T) -> bool) -> Vec<PacketId> {
        let mut stamped: Vec<(u64, PacketId)> = (1..=u16::MAX)
            .filter_map(PacketId::new)
            .zip(&self.entries)
            .filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
            .filter(|(_, entry)| wanted(&entry.state))
            .map(|(id, entry)| (entry.stamp, id))
            .collect();
        stamped.sort_unstable();
        stamped.into_iter().map(|(_, id)| id).collect()
    }
}

fn index(id: PacketId) -> usize {
    usize::from(id.get()) - 1
}
