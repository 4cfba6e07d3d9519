//! HTTP/2 connections to an upstream: many exchanges share one, up to a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::super::super::drain::Drain;
use super::super::super::stream::Stream;
use super::super::Config;
use super::super::loan::Lent;

/// The connections to one endpoint.
#[derive(Default)]
pub(super) struct SharedConnections {
    all: Mutex<Vec<Shared>>,
}

struct Shared {
    sender: http2::SendRequest<Lent>,
    load: Arc<Load>,
}

/// How many exchanges a connection carries.
struct Load {
    streams: AtomicUsize,
    /// Ours or the upstream's (RFC 9113 section 5.1.2), whichever is smaller.
    limit: AtomicUsize,
    /// The upstream has said that it takes no more.
    retired: AtomicBool,
    /// When a seat was last given back.
    rested: Mutex<Instant>,
    empty: Notify,
    /// Whether the upstream has said that it takes extended CONNECT (RFC 8441 section 3).
    extended_connect: watch::Sender<bool>,
    /// The driver's: the library reads settings in a task of its own, which wakes nobody.
    look: AtomicWaker,
    opened: Instant,
}

/// How long after it was opened a connection is given to say so: it does with its first frame, or never.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(1);

/// How often is looked whether it has.
const SETTINGS_TICK: Duration = Duration::from_millis(5);

/// A place for one exchange on a shared connection.
pub(in super::super) struct Seat {
    sender: http2::SendRequest<Lent>,
    load: Arc<Load>,
}

/// How connections are set up.
pub(super) struct Settings {
    http: http2::Builder<Tasks>,
    drain: Drain,
    max_streams: usize,
}

/// Runs what hyper wants to be run, until everything is closed.
#[derive(Clone)]
pub(super) struct Tasks(Drain);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let drain = self.0.clone();
        self.0.spawn(async move {
            tokio::select! {
                () = task => {}
                () = drain.closing() => {}
            }
        });
    }
}

impl Settings {
    pub(super) fn new(config: &Config, drain: Drain) -> Self {
        let mut http = http2::Builder::new(Tasks(drain.clone()));
        let head = u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX);
        http.timer(TokioTimer::new())
            .max_header_list_size(head)
            .initial_stream_window_size(config.stream_window)
            .initial_connection_window_size(config.connection_window)
            .initial_max_send_streams(config.max_upstream_streams)
            .keep_alive_interval(config.ping_after)
            .keep_alive_timeout(config.ping_timeout);
        Self {
            http,
            drain,
            max_streams: config.max_upstream_streams,
        }
    }

    async fn open(&self, stream: Stream) -> hyper::Result<Shared> {
        let (sender, mut driver) = self.http.handshake(TokioIo::new(stream)).await?;
        let load = Arc::new(Load {
            streams: AtomicUsize::new(0),
            limit: AtomicUsize::new(self.max_streams),
            retired: AtomicBool::new(false),
            rested: Mutex::new(Instant::now()),
            empty: Notify::new(),
            extended_connect: watch::Sender::new(false),
            look: AtomicWaker::new(),
            opened: Instant::now(),
        });
        let (watched, most) = (Arc::clone(&load), self.max_streams);
        let mut told = false;
        let driven = std::future::poll_fn(move |cx| {
            let polled = std::pin::Pin::new(&mut driver).poll(cx);
            let theirs = driver.current_max_send_streams();
            watched.limit.store(theirs.min(most), Relaxed);
            if !told {
                watched.look.register(cx.waker());
                told = driver.is_extended_connect_protocol_enabled();
                watched.extended_connect.send_replace(told);
            }
            polled
        });
        let (drain, rest) = (self.drain.clone(), Arc::clone(&load));
        self.drain.spawn(async move {
            tokio::select! {
                ended = driven => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "upstream connection ended");
                    }
                }
                () = async { drain.draining().await; rest.until_empty().await } => {}
                () = drain.closing() => {}
            }
            rest.retired.store(true, Relaxed);
        });
        Ok(Shared { sender, load })
    }
}

impl SharedConnections {
    /// A seat on a connection that has room; what has ended is forgotten on the way.
    pub(super) fn seat(&self) -> Option<Seat> {
        let mut all = self.all.lock();
        all.retain(Shared::is_open);
        all.iter().find_map(Shared::seat)
    }

    /// Makes a connection of a stream, and takes the first seat on it.
    pub(super) async fn add(&self, stream: Stream, settings: &Settings) -> hyper::Result<Seat> {
        let shared = settings.open(stream).await?;
        let seat = shared.first_seat();
        self.all.lock().push(shared);
        Ok(seat)
    }

    /// Whether there is no connection.
    pub(super) fn is_empty(&self) -> bool {
        self.all.lock().is_empty()
    }

    /// Lets go of what has carried nothing for so long.
    pub(super) fn sweep(&self, idle: Duration) {
        self.all.lock().retain(|shared| {
            let empty = shared.load.streams.load(Relaxed) == 0;
            let rested = shared.load.rested.lock().elapsed();
            shared.is_open() && !(empty && rested > idle)
        });
    }
}

impl Shared {
    fn is_open(&self) -> bool {
        self.sender.is_ready() && !self.load.retired.load(Relaxed)
    }

    fn seat(&self) -> Option<Seat> {
        let limit = self.load.limit.load(Relaxed);
        let taken = self.load.streams.fetch_add(1, Relaxed);
        let seat = self.seated();
        // A seat that is dropped gives its place back.
        (taken < limit).then_some(seat)
    }

    fn first_seat(&self) -> Seat {
        self.load.streams.fetch_add(1, Relaxed);
        self.seated()
    }

    fn seated(&self) -> Seat {
        Seat {
            sender: self.sender.clone(),
            load: Arc::clone(&self.load),
        }
    }
}

impl Load {
    async fn until_empty(&self) {
        loop {
            let emptied = self.empty.notified();
            if self.streams.load(Relaxed) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// What sending came to.
pub(in super::super) struct Returned {
    pub(in super::super) error: hyper::Error,
    /// The upstream has not looked at the request (RFC 9113 section 8.7).
    pub(in super::super) unprocessed: bool,
}

impl Seat {
    /// Whether a stream can be a tunnel for WebSocket; known once the upstream's settings are there.
    pub(in super::super) async fn takes_extended_connect(&self) -> bool {
        let mut said = self.load.extended_connect.subscribe();
        let looking = async {
            loop {
                self.load.look.wake();
                let said = said.wait_for(|takes| *takes);
                if tokio::time::timeout(SETTINGS_TICK, said).await.is_ok() {
                    return;
                }
            }
        };
        let deadline = self.load.opened + SETTINGS_PATIENCE;
        let _ = tokio::time::timeout_at(deadline.into(), looking).await;
        *self.load.extended_connect.borrow()
    }

    /// Sends a request and waits for the response's head.
    pub(in super::super) async fn send(
        &mut self,
        request: Request<Lent>,
    ) -> Result<Response<Incoming>, Returned> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut refused| {
                let unsent = refused.take_message().is_some();
                let error = refused.into_error();
                let cause = std::error::Error::source(&error)
                    .and_then(|source| source.downcast_ref::<h2::Error>());
                // h2 fails with a peer's GOAWAY those streams alone whose number is over the peer's last.
                let gone = cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote());
                let refused = cause.is_some_and(|cause| {
                    cause.is_reset()
                        && cause.is_remote()
                        && cause.reason() == Some(h2::Reason::REFUSED_STREAM)
                });
                if gone || unsent || refused {
                    // What is on it goes on; the next exchange goes elsewhere.
                    self.load.retired.store(true, Relaxed);
                }
                Returned {
                    error,
                    unprocessed: unsent || gone || refused,
                }
            })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.load.streams.fetch_sub(1, Relaxed) == 1 {
            *self.load.rested.lock() = Instant::now();
            self.load.empty.notify_waiters();
        }
    }
}
