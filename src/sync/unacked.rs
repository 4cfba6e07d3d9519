//! Which spooled items the broker has acknowledged, in any order: only the unbroken front may be released.
//!
//! An item takes a slot when it is read from the spool. A message holds several slots, not always adjacent:
//! items are packed by topic. No clock, no socket.

use std::collections::VecDeque;

/// The place of an item among all that were read since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u64);

/// The slots that are not released yet, in the order of the spool.
#[derive(Debug)]
pub(super) struct Unacked<P> {
    base: u64,
    slots: VecDeque<(P, bool)>,
}

impl<P> Default for Unacked<P> {
    fn default() -> Self {
        Self {
            base: 0,
            slots: VecDeque::new(),
        }
    }
}

impl<P: Copy> Unacked<P> {
    /// Takes the next slot for the item at `position` of the spool.
    pub(super) fn push(&mut self, position: P) -> Slot {
        self.slots.push_back((position, false));
        Slot(self.base + self.slots.len() as u64 - 1)
    }

    /// Marks slots as done; a slot that was released before is ignored.
    pub(super) fn done(&mut self, slots: &[Slot]) {
        for slot in slots {
            let index = slot.0.checked_sub(self.base);
            let entry = index
                .and_then(|index| usize::try_from(index).ok())
                .and_then(|index| self.slots.get_mut(index));
            if let Some((_, done)) = entry {
                *done = true;
            }
        }
    }

    /// Releases the first slot, if it is done; call it until it says `None`.
    pub(super) fn release(&mut self) -> Option<P> {
        let (position, _) = self.slots.pop_front_if(|(_, done)| *done)?;
        self.base += 1;
        Some(position)
    }

    /// How many slots are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn releases_only_the_unbroken_front() {
        let mut unacked = Unacked::default();
        let slots: Vec<_> = (1..=4).map(|position| unacked.push(position)).collect();
        unacked.done(&slots[1..3]);
        assert_eq!(unacked.release(), None);
        unacked.done(&slots[..1]);
        let released: Vec<_> = std::iter::from_fn(|| unacked.release()).collect();
        assert_eq!(released, [1, 2, 3]);
        unacked.done(&slots[..3]);
        assert_eq!((unacked.release(), unacked.len()), (None, 1));
    }

    proptest! {
        #[test]
        fn any_order_of_acknowledgements_releases_all(order in Just((0..50_usize).collect::<Vec<_>>()).prop_shuffle()) {
            let mut unacked = Unacked::default();
            let slots: Vec<_> = (0..50_usize).map(|position| unacked.push(position)).collect();
            let mut done = [false; 50];
            let mut released = 0;
            for index in order {
                done[index] = true;
                unacked.done(&[slots[index]]);
                while let Some(position) = unacked.release() {
                    prop_assert!(done[position]);
                    prop_assert_eq!(position, released);
                    released += 1;
                }
                prop_assert_eq!(unacked.len(), 50 - released);
            }
            prop_assert_eq!(released, 50);
        }
    }
}
