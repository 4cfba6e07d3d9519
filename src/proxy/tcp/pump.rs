//! Both directions of one connection, in one task: no lock, no split, each waits only for its own sockets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::super::Metrics;
use super::super::stream::Socket;
use super::copy::Copy;
use super::splice::{Splice, Unable};
use crate::capture::StreamTee;
use crate::record::{Direction, Outcome, UpstreamFailure};

/// How long the other direction may still take once a receiver has broken off: what it had said before is on
/// its way, and often tells why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A socket failed: whose, in doing what, and how.
pub(super) struct Broken {
    pub(super) whose: Direction,
    pub(super) doing: Doing,
    pub(super) error: io::Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Writing,
}

/// What passes is seen here first; the splicing lane can tell its length only.
pub(super) trait Watch {
    fn saw(&mut self, direction: Direction, bytes: &Bytes);
    fn passed(&mut self, direction: Direction, count: usize);
}

/// One direction.
enum Lane {
    Copy(Copy),
    Splice(Splice),
}

/// Carries bytes both ways until both sides have closed, one breaks off, or nothing moves for `idle`.
pub(in super::super) async fn run(
    client: &mut impl Socket,
    server: &mut impl Socket,
    tee: Option<&mut StreamTee>,
    idle: Duration,
    metrics: &Metrics,
) -> Outcome {
    let bare = client.plain().is_some() && server.plain().is_some();
    // Without a copy to make, and without TLS, the bytes need not come up from the kernel.
    let unseen = !tee.as_deref().is_some_and(StreamTee::keeps_bytes);
    let pipes = (unseen && bare).then(|| {
        let pair = (
            Splice::new(Direction::Client),
            Splice::new(Direction::Server),
        );
        (pair.0.ok(), pair.1.ok())
    });
    let (mut up, mut down) = match pipes {
        Some((Some(up), Some(down))) => {
            metrics.spliced.inc();
            (Lane::Splice(up), Lane::Splice(down))
        }
        _ => {
            let copy = |direction| Lane::Copy(Copy::new(direction));
            (copy(Direction::Client), copy(Direction::Server))
        }
    };
    let (mut up_done, mut down_done) = (false, false);
    let mut broken = None;
    let mut timer = Timer::new(idle);
    let mut watcher = Watcher {
        tee,
        metrics,
        moved: Instant::now(),
    };
    std::future::poll_fn(|cx| {
        for (lane, done, from_client) in [
            (&mut up, &mut up_done, true),
            (&mut down, &mut down_done, false),
        ] {
            if *done {
                continue;
            }
            let polled = if from_client {
                lane.poll(cx, client, server, &mut watcher)
            } else {
                lane.poll(cx, server, client, &mut watcher)
            };
            match polled {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => *done = true,
                Poll::Ready(Err(failure)) if failure.doing == Doing::Writing => {
                    *done = true;
                    broken.get_or_insert(failure);
                    timer.shorten(LAST_WORDS);
                    watcher.moved = Instant::now();
                }
                Poll::Ready(Err(failure)) => {
                    return Poll::Ready(broken.take().unwrap_or(failure).outcome());
                }
            }
        }
        let ended = |broken: &mut Option<Broken>| broken.take().map(Broken::outcome);
        if up_done && down_done {
            return Poll::Ready(ended(&mut broken).unwrap_or(Outcome::Ok));
        }
        timer
            .poll(watcher.moved, cx)
            .map(|silence| ended(&mut broken).unwrap_or(silence))
    })
    .await
}

impl Lane {
    /// Ready when the sender has closed and the receiver has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Socket,
        to: &mut impl Socket,
        watch: &mut impl Watch,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self {
                Self::Copy(copy) => return copy.poll(cx, from, to, watch),
                Self::Splice(splice) => match splice.poll(cx, from, to, watch) {
                    Ok(polled) => return polled,
                    Err(Unable) => *self = Self::Copy(Copy::new(splice.direction())),
                },
            }
        }
    }
}

struct Watcher<'a> {
    tee: Option<&'a mut StreamTee>,
    metrics: &'a Metrics,
    moved: Instant,
}

impl Watch for Watcher<'_> {
    fn saw(&mut self, direction: Direction, bytes: &Bytes) {
        self.count(direction, bytes.len());
        if let Some(tee) = &mut self.tee {
            tee.segment(direction, bytes);
        }
    }

    fn passed(&mut self, direction: Direction, count: usize) {
        self.count(direction, count);
        if let Some(tee) = &self.tee {
            tee.passed(direction, count);
        }
    }
}

impl Watcher<'_> {
    fn count(&mut self, direction: Direction, count: usize) {
        self.moved = Instant::now();
        let counter = match direction {
            Direction::Client => &self.metrics.bytes_in,
            Direction::Server => &self.metrics.bytes_out,
        };
        counter.inc_by(count as u64);
    }
}

/// Ends what is silent for too long.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    idle: Duration,
}

impl Timer {
    fn new(idle: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(idle));
        Self { sleep, idle }
    }

    fn shorten(&mut self, idle: Duration) {
        self.idle = self.idle.min(idle);
        self.sleep.as_mut().reset(Instant::now() + self.idle);
    }

    fn poll(&mut self, moved: Instant, cx: &mut Context<'_>) -> Poll<Outcome> {
        // It is moved on when it fires, not with each byte.
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = moved + self.idle;
            if deadline <= Instant::now() {
                let why: Arc<str> = format!("silent for {} s", self.idle.as_secs_f64()).into();
                return Poll::Ready(Outcome::ProxyClosed(why));
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// Who reads what this side sends.
pub(super) const fn receiver(sender: Direction) -> Direction {
    match sender {
        Direction::Client => Direction::Server,
        Direction::Server => Direction::Client,
    }
}

impl Broken {
    fn outcome(self) -> Outcome {
        match self.whose {
            Direction::Client => Outcome::ClientClosed,
            Direction::Server => {
                Outcome::UpstreamFailed(UpstreamFailure::Reset, self.error.to_string().into())
            }
        }
    }
}
