//! How the driver is told that there is something to do: one waits, many tell.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Kept until it is seen. Cheaper than what can have several that wait: it is looked at in each turn of a connection.
#[derive(Debug, Default)]
pub(super) struct Signal {
    given: AtomicBool,
    waiting: AtomicWaker,
}

impl Signal {
    pub(super) fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.waiting.wake();
    }

    /// Whether it was given; whoever asked last hears of it otherwise.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        self.waiting.register(context.waker());
        // It may have been given before there was anybody to be woken.
        if self.take() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    pub(super) async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Whether it was given, and not seen yet.
    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        // Most looks find nothing: they leave the memory to the other side.
        self.is_given() && self.given.swap(false, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Waker;
    use std::thread;

    use super::*;

    #[test]
    fn it_is_kept_until_it_is_seen_and_seen_once() {
        let signal = Signal::default();
        let mut context = Context::from_waker(Waker::noop());
        assert!(signal.poll(&mut context).is_pending());
        signal.give();
        signal.give();
        assert!(signal.is_given());
        assert!(signal.poll(&mut context).is_ready());
        assert!(signal.poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn whatever_was_put_in_before_it_is_seen_after_it() {
        const ROUNDS: u32 = 100_000;
        let (signal, put_in) = (Arc::new(Signal::default()), Arc::new(AtomicU32::new(0)));
        let (giver, counter) = (signal.clone(), put_in.clone());
        let giving = thread::spawn(move || {
            for _ in 0..ROUNDS {
                counter.fetch_add(1, Ordering::Relaxed);
                giver.give();
            }
        });
        // It would wait for ever if one were missed.
        while put_in.load(Ordering::Relaxed) < ROUNDS {
            signal.wait().await;
        }
        giving.join().unwrap();
    }
}
