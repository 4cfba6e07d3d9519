//! Whether a target that was down is tried again. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// Remembers that a target is down, and when it may be tried again.
#[derive(Debug)]
pub(in crate::playback) struct Circuit {
    retry_every: Duration,
    retry_at: Option<Instant>,
}

impl Circuit {
    pub(in crate::playback) const fn new(retry_every: Duration) -> Self {
        Self {
            retry_every,
            retry_at: None,
        }
    }

    /// Whether a request may be sent; while the target is down, one in each interval may.
    pub(super) fn may_try(&mut self, now: Instant) -> bool {
        match &mut self.retry_at {
            None => true,
            Some(retry_at) if now >= *retry_at => {
                *retry_at = now + self.retry_every;
                true
            }
            Some(_) => false,
        }
    }

    pub(super) fn refused(&mut self, now: Instant) {
        self.retry_at = Some(now + self.retry_every);
    }

    pub(super) const fn reached(&mut self) {
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_down_is_tried_once_in_each_interval() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut circuit = Circuit::new(second);
        assert!(circuit.may_try(start) && circuit.may_try(start));
        circuit.refused(start);
        assert!(!circuit.may_try(start + second / 2));
        assert!(circuit.may_try(start + second));
        assert!(!circuit.may_try(start + second), "one is on its way");
        assert!(circuit.may_try(start + second * 2));
        circuit.reached();
        assert!(circuit.may_try(start + second * 2));
    }
}
