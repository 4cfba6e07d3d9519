//! The program waits for an answer that stands behind messages which only the program can take away.
//!
//! A full receiver stops the reader, so an acknowledgement behind the unread messages is not seen. A program that
//! waits for it in its receiving loop would wait for ever. After `stall_timeout` those calls fail instead; what they
//! stand for stays under way.

use tokio::time::Instant;
use tracing::warn;

use crate::error::Error;

use super::Driver;

impl Driver {
    /// Fails what waits once the same message has stood parked for too long; returns when to look again.
    pub(super) fn fail_stalled(&mut self, now: Instant) -> Option<Instant> {
        let timeout = self.shared.config.stall_timeout;
        let since = self.parked_since.filter(|_| !timeout.is_zero())?;
        if now < since + timeout {
            return Some(since + timeout);
        }
        self.parked_since = Some(now);
        let (published, answered) = self.session.take_tokens();
        let waiting = published.iter().filter(|it| it.done.is_some()).count()
            + answered.iter().filter(|token| token.is_some()).count();
        for waiting in published {
            self.finish(waiting.done, Err(Error::Stalled(timeout)));
        }
        for done in answered.into_iter().flatten() {
            // Whoever subscribed is gone: nobody wants to know.
            let _ = done.send(Err(Error::Stalled(timeout)));
        }
        let queued = self.shared.queue.stall();
        if waiting + queued > 0 {
            self.shared.counters.stalls.add(1);
            warn!(
                waiting,
                queued,
                ?timeout,
                "received messages are not taken; calls behind them fail"
            );
        }
        Some(now + timeout)
    }
}
