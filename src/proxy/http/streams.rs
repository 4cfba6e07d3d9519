//! The streams of a client's HTTP/2 connection: each has a task, and none may rest for ever.
//!
//! A client may give a stream no window and keep everything behind it waiting, which costs no socket write
//! that could time out. So each response's body tells whether it was the client or we who had the last word,
//! and a stream whose client takes nothing is reset.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::drain::Drain;
use super::BoxError;
use super::body::Reply;
use crate::metrics::Counter;

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(Arc<Shared>);

struct Shared {
    drain: Drain,
    stall: Duration,
    stalled: Counter,
    open: AtomicUsize,
    begun: AtomicU64,
}

tokio::task_local! {
    /// The watch of the stream whose task runs.
    static WATCH: Watch;
}

/// Who is to act next on one stream's response.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Turns>);

#[derive(Default)]
struct Turns {
    /// Grows with each frame that was asked for.
    asked: AtomicU64,
    /// What `asked` was when a frame was given, plus 1; 0 while we still owe one.
    given: AtomicU64,
}

/// A response's content that tells its [`Watch`].
pub(super) struct Watched {
    reply: Reply,
    watch: Watch,
}

impl Streams {
    pub(super) fn new(drain: Drain, stall: Duration, stalled: Counter) -> Self {
        Self(Arc::new(Shared {
            drain,
            stall,
            stalled,
            open: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
        }))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let shared = Arc::clone(&self.0);
        let watch = Watch::default();
        shared.open.fetch_add(1, Relaxed);
        shared.begun.fetch_add(1, Relaxed);
        let open = Open(Arc::clone(&shared));
        self.0.drain.spawn(async move {
            let _open = open;
            tokio::select! {
                biased;
                () = WATCH.scope(watch.clone(), stream) => {}
                // A stream's task that is dropped resets it.
                () = watch.rests(shared.stall) => {
                    shared.stalled.inc();
                }
            }
        });
    }
}

/// Counts a stream until its task ends.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Watch {
    /// That of the stream in whose task this is called; what becomes of a tunnel is not for it to say.
    pub(super) fn current() -> Self {
        WATCH.try_with(Self::clone).unwrap_or_default()
    }

    pub(super) fn over(self, reply: Reply) -> Watched {
        // The head is given; from here on it is the client that takes.
        self.0.given.store(u64::MAX, Relaxed);
        Watched { reply, watch: self }
    }

    /// Resolves when the client has taken nothing of what is there for it for so long.
    async fn rests(&self, limit: Duration) {
        let mut before = 0;
        loop {
            tokio::time::sleep(limit).await;
            let given = self.0.given.load(Relaxed);
            if given != 0 && given == before {
                return;
            }
            before = given;
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let turns = &this.watch.0;
        let asked = turns.asked.fetch_add(1, Relaxed) + 1;
        let polled = Pin::new(&mut this.reply).poll_frame(cx);
        let given = if polled.is_ready() { asked } else { 0 };
        turns.given.store(given, Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

/// For how long a connection may have no stream: what `head_timeout` is to HTTP/1.1.
pub(super) struct Patience {
    ticks: Interval,
    begun: u64,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Waiting,
    /// It was told to go (GOAWAY).
    Over,
    /// It did not go.
    Lost,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        let mut ticks = interval(limit);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        Self {
            ticks,
            begun: 0,
            state: State::Waiting,
        }
    }

    /// Whether it has just come to an end: no stream was open for the whole time.
    pub(super) fn is_over(&mut self, streams: &Streams, cx: &mut Context<'_>) -> bool {
        let mut over = false;
        while self.ticks.poll_tick(cx).is_ready() {
            let begun = streams.0.begun.load(Relaxed);
            let idle = streams.0.open.load(Relaxed) == 0 && begun == self.begun;
            self.begun = begun;
            if idle {
                over = self.state == State::Waiting;
                self.state = if over { State::Over } else { State::Lost };
            }
        }
        over
    }

    /// Whether the connection is to be dropped.
    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }
}
