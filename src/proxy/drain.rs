//! One way to end: stop accepting, let what is in flight finish, and after the grace period close it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// While the stage is 0 the listener is open.
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;

/// What the tasks of a listener hear.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    stage: AtomicU8,
    draining: CancellationToken,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<T> {
    /// By itself.
    Done(T),
    /// The grace period was over.
    Closed,
}

impl Drain {
    /// Runs a task that the drain waits for.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }

    /// Resolves when no more connections are to be accepted.
    pub(super) async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Resolves when everything is to be dropped.
    pub(super) async fn closing(&self) {
        self.0.closing.cancelled().await;
    }

    /// Polls `connection` until it ends; calls it once with [`Step::Drain`] when the drain begins.
    ///
    /// Waiting for a token takes a lock at each poll, and a connection is polled several times per request;
    /// so the tokens are polled once, to leave the task's waker there, and an atomic tells the rest.
    pub(super) async fn watch<T>(
        &self,
        mut connection: impl FnMut(Step, &mut Context<'_>) -> Poll<T>,
    ) -> Ended<T> {
        let mut draining = pin!(self.0.draining.cancelled());
        let mut closing = pin!(self.0.closing.cancelled());
        let (mut listening, mut told) = (false, false);
        std::future::poll_fn(move |cx| {
            if !listening {
                listening = true;
                let _ = draining.as_mut().poll(cx);
                let _ = closing.as_mut().poll(cx);
            }
            let stage = self.0.stage.load(Ordering::Acquire);
            let step = if stage >= DRAINING && !told {
                told = true;
                Step::Drain
            } else {
                Step::Run
            };
            match connection(step, cx) {
                Poll::Ready(result) => Poll::Ready(Ended::Done(result)),
                Poll::Pending if stage == CLOSING => Poll::Ready(Ended::Closed),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// What a connection is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on.
    Run,
    /// Go on and end as soon as nothing is in flight.
    Drain,
}

/// A listener at work.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    drain: Drain,
    accept: JoinHandle<()>,
}

/// What a shutdown left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were closed in mid-exchange when the grace period was over.
    pub aborted: usize,
}

impl Running {
    pub(super) fn new(
        address: SocketAddr,
        drain: Drain,
        accept: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let accept = tokio::spawn(accept);
        Self {
            address,
            drain,
            accept,
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, waits up to `grace` for what is in flight, then closes the rest.
    pub async fn shutdown(self, grace: Duration) -> Drained {
        let signals = &self.drain.0;
        signals.stage.store(DRAINING, Ordering::Release);
        signals.draining.cancel();
        // The accept loop ends at once, and with it the listening socket.
        let _ = self.accept.await;
        signals.tasks.close();
        let drained = tokio::time::timeout(grace, signals.tasks.wait()).await;
        let aborted = match drained {
            Ok(()) => 0,
            Err(_) => signals.tasks.len(),
        };
        signals.stage.store(CLOSING, Ordering::Release);
        signals.closing.cancel();
        signals.tasks.wait().await;
        Drained { aborted }
    }
}
