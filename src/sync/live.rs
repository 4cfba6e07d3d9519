//! Records as they are stored, for live replay and the dashboard.
//!
//! A listener hears what is committed, once. One that is too slow loses the oldest, with a count; it never
//! holds up the subscriber.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::metrics::Counter;
use crate::record::Record;

/// The feed; cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    sender: broadcast::Sender<Arc<Record>>,
    skipped: Counter,
}

impl Feed {
    /// A feed that keeps up to `capacity` records for a listener that lags.
    #[must_use]
    pub fn new(capacity: usize, skipped: Counter) -> Self {
        Self {
            sender: broadcast::channel(capacity.max(1)).0,
            skipped,
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener {
            receiver: self.sender.subscribe(),
            skipped: self.skipped.clone(),
        }
    }

    pub(super) fn has_listeners(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub(super) fn send(&self, record: Arc<Record>) {
        // An error says that the last listener has just left.
        let _ = self.sender.send(record);
    }
}

/// One who listens.
#[derive(Debug)]
pub struct Listener {
    receiver: broadcast::Receiver<Arc<Record>>,
    skipped: Counter,
}

/// What a listener hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A record that was just stored.
    Record(Arc<Record>),
    /// This many were missed, because the listener was too slow.
    Missed(u64),
}

impl Listener {
    /// The next record; `None` when the feed has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(record) => Some(Heard::Record(record)),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                self.skipped.inc_by(missed);
                Some(Heard::Missed(missed))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::exchange;
    use super::*;
    use crate::record::Item;

    fn record(seq: u64) -> Arc<Record> {
        let Item::Record(record) = exchange("rec", 1, seq) else {
            panic!("an exchange is a record");
        };
        Arc::new(record)
    }

    #[tokio::test]
    async fn a_slow_listener_misses_with_a_count_and_a_fast_one_nothing() {
        let feed = Feed::new(4, Counter::default());
        let (mut slow, mut fast) = (feed.listen(), feed.listen());
        for n in 1..=10 {
            feed.send(record(n));
            assert_eq!(fast.next().await, Some(Heard::Record(record(n))));
        }
        assert_eq!(slow.next().await, Some(Heard::Missed(6)));
        assert_eq!(slow.next().await, Some(Heard::Record(record(7))));
        assert_eq!(feed.skipped.get(), 6);
        drop(feed);
        while let Some(heard) = slow.next().await {
            assert!(matches!(heard, Heard::Record(_)));
        }
    }
}
