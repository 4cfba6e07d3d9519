//! Which of several equal streams a client gets: in the order in which they were recorded, each once, and then as
//! `repeat` says. A stream counts as taken from the moment that a client is answered from it, so that two at once get two.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::playback::generations::Generations;
pub(super) use crate::playback::matcher::Repeat;
use crate::record::RecordId;

/// How many streams are remembered as taken, over all clients.
const REMEMBERED: usize = 100_000;
/// How long they are.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// Who has a sequence of its own: each IP address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Visitor(IpAddr);

impl From<SocketAddr> for Visitor {
    fn from(client: SocketAddr) -> Self {
        Self(client.ip().to_canonical())
    }
}

#[cfg(test)]
impl Visitor {
    pub(super) fn test() -> Self {
        Self(IpAddr::from([10, 0, 0, 1]))
    }
}

/// How often each client was answered from each stream.
#[derive(Debug)]
pub(super) struct Seats {
    repeat: Repeat,
    taken: Mutex<Generations<(Visitor, RecordId), u32>>,
}

impl Seats {
    pub(super) fn new(repeat: Repeat) -> Self {
        Self {
            repeat,
            taken: Mutex::new(Generations::new(REMEMBERED, REMEMBERED_FOR)),
        }
    }

    /// Gives `old` back and takes one of `eligible`, which stand in the order in which they were recorded.
    pub(super) fn change(
        &self,
        visitor: Visitor,
        old: Option<RecordId>,
        eligible: &[RecordId],
    ) -> Option<RecordId> {
        let now = Instant::now();
        let mut taken = self.taken.lock();
        if let Some(old) = old {
            let uses = taken.touch((visitor, old), now).unwrap_or(0);
            taken.put((visitor, old), uses.saturating_sub(1), now);
        }
        let last = *eligible.last()?;
        let mut uses = |id: RecordId| taken.touch((visitor, id), now).unwrap_or(0);
        let chosen = match self.repeat {
            Repeat::Latest => last,
            Repeat::Last => eligible
                .iter()
                .copied()
                .find(|id| uses(*id) == 0)
                .unwrap_or(last),
            Repeat::Loop => eligible.iter().copied().min_by_key(|id| uses(*id))?,
        };
        let uses = uses(chosen);
        taken.put((visitor, chosen), uses.saturating_add(1), now);
        Some(chosen)
    }

    /// Gives one back that was not used after all.
    pub(super) fn release(&self, visitor: Visitor, id: RecordId) {
        self.change(visitor, Some(id), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(repeat: Repeat) -> Vec<u128> {
        let seats = Seats::new(repeat);
        let ids: Vec<_> = (1..=3).map(RecordId::from_u128).collect();
        let next = || seats.change(Visitor::test(), None, &ids).unwrap().as_u128();
        (0..5).map(|_| next()).collect()
    }

    #[test]
    fn equal_streams_are_given_in_their_order_and_then_as_repeat_says() {
        assert_eq!(given(Repeat::Last), [1, 2, 3, 3, 3]);
        assert_eq!(given(Repeat::Loop), [1, 2, 3, 1, 2]);
        assert_eq!(given(Repeat::Latest), [3, 3, 3, 3, 3]);
    }

    #[test]
    fn what_is_given_back_is_free_again_and_each_client_has_its_own_order() {
        let seats = Seats::new(Repeat::Last);
        let ids: Vec<_> = (1..=3).map(RecordId::from_u128).collect();
        let (one, other) = (Visitor::test(), Visitor(IpAddr::from([10, 0, 0, 2])));
        let take = |who, old| seats.change(who, old, &ids);
        assert_eq!(take(one, None), Some(ids[0]));
        assert_eq!(take(other, None), Some(ids[0]));
        assert_eq!(seats.change(one, Some(ids[0]), &ids[1..]), Some(ids[1]));
        assert_eq!(take(one, None), Some(ids[0]));
        seats.release(one, ids[0]);
        assert_eq!(take(one, None), Some(ids[0]));
        assert_eq!(take(one, None), Some(ids[2]));
    }
}
