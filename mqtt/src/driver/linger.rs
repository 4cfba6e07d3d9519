//! Whether the driver lets everything else run once more before it sleeps.
//!
//! It pays where producers put in a lot meanwhile. They may share the driver's thread, and each message of a producer on
//! another one would wake it, which costs some ten times what the message does. Where they have nothing more it takes
//! time and a wake-up of another thread, so that it is tried less and less often.

/// Publishes that have to be found for it to have paid.
const ENOUGH: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// Batches until it is tried again.
    skip: u8,
    /// As many were skipped after the last time.
    skipped: u8,
    trial: Trial,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Trial {
    #[default]
    None,
    /// It has lingered, and has not looked yet at what there is.
    Pending,
}

impl Lingering {
    /// Whether to linger after this batch.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        due
    }

    /// Everything else had its turn.
    pub(super) fn lingered(&mut self) {
        self.trial = Trial::Pending;
    }

    /// So many publishes wait.
    pub(super) fn found(&mut self, publishes: usize) {
        if std::mem::take(&mut self.trial) == Trial::None {
            return;
        }
        self.skipped = if publishes >= ENOUGH {
            0
        } else {
            self.skipped.saturating_mul(2).saturating_add(1)
        };
        self.skip = self.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many batches are followed by lingering, which finds this each time.
    fn times(lingering: &mut Lingering, batches: usize, finds: usize) -> usize {
        let due = (0..batches).filter(|_| {
            let due = lingering.is_due();
            if due {
                lingering.lingered();
            }
            lingering.found(finds);
            due
        });
        due.count()
    }

    #[test]
    fn it_is_done_each_time_as_long_as_it_pays_and_seldom_where_it_does_not() {
        let mut lingering = Lingering::default();
        assert_eq!(times(&mut lingering, 100, ENOUGH), 100);
        // After 1, 3, 7 and so on, and then after each 255.
        assert_eq!(times(&mut lingering, 10_000, ENOUGH - 1), 46);
        // At most 255 batches later it has found out that it pays again.
        assert!(times(&mut lingering, 356, ENOUGH) >= 100);
        assert_eq!(times(&mut lingering, 100, ENOUGH), 100);
    }
}
