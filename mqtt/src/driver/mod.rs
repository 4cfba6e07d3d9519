//! The task behind a client: keeps a connection, and the session alive over connections.
//!
//! One task owns the session and the socket, so that nothing in them is shared. `mod.rs` is its life (attempts,
//! pauses, the end), `serve.rs` one connection, `turn.rs` its reads and writes, `coalesce.rs` when to be woken for them,
//! `goodbye.rs` its end by us, `connect.rs` and `transport/` the way to one.

mod event;
mod connect;
mod handshake;
mod serve;
mod turn;
mod coalesce;
mod goodbye;
mod stall;
pub(crate) mod keep;
mod linger;
mod latency;
mod write;
mod tls;
mod transport;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span, warn};

use crate::client::query::Queries;
use crate::codec::{ReasonCode, Version};
use crate::error::{ConnectError, Disconnected, Error};
use crate::inbox::{Delivery, Inbox, Place};
use crate::message::Message;
use crate::options::MqttConfig;
use crate::outcomes::{Number, Outcome};
use crate::persistence::Change;
use crate::queue::{Answered, Batch, Control, Idle, LastWord, Published, Queue, Quiet};
use crate::random;
use crate::session::{self, Session, Terms};
use crate::stats::{Counters, Recorders};

pub use event::Event;

use handshake::Opening;
use latency::Waiting;
use linger::Lingering;

/// The session as the driver uses it.
pub(crate) type ClientSession = Session<Waiting, Answered>;

/// What the handles and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: MqttConfig,
    pub(crate) queue: Arc<Queue>,
    pub(crate) inbox: Inbox,
    pub(crate) queries: Queries,
    pub(crate) counters: Counters,
    pub(crate) latencies: Recorders,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) connected: AtomicBool,
    /// The number of the next publish that is saved.
    pub(crate) next_number: AtomicU64,
    /// Of the latest connection.
    pub(crate) terms: Mutex<Option<Terms>>,
    /// Whether the driver is to drain and leave.
    pub(crate) leave: watch::Sender<Leave>,
}

/// What the program wants of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Stay,
    Go(Farewell),
}

/// How `disconnect` leaves.
///
/// ```
/// use qproxy_mqtt::client::Farewell;
///
/// assert_eq!(Farewell::default(), Farewell::InOrder);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Farewell {
    /// In order: the server forgets the will.
    #[default]
    InOrder,
    /// The server publishes the will. MQTT 5.0 has a reason code for it; in 3.1.1 the connection just ends.
    WithWill,
}

impl Shared {
    fn set_terms(&self, terms: &Terms) {
        let mut latest = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = Some(terms.clone());
    }
}

/// How the driver ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) left: Left,
    pub(crate) result: Result<(), Error>,
}

/// What a driver leaves behind, to be taken up by the next `connect`.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) session: ClientSession,
    /// A message whose receiver has no place left at all. It may be acknowledged already.
    pub(crate) parked: Option<Message>,
    /// Changes of the session that the store has refused so far.
    pub(crate) unsaved: Vec<Change>,
}

impl Left {
    /// Behind a session that no driver had yet.
    pub(crate) fn nothing(session: ClientSession) -> Self {
        Self {
            session,
            parked: None,
            unsaved: Vec::new(),
        }
    }
}

/// The first attempt's outcome; without it the first attempt is like any other.
pub(crate) type First = Option<oneshot::Sender<Result<(), Error>>>;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    session: ClientSession,
    leave: watch::Receiver<Leave>,
    /// When to stop draining, once the program wants to leave.
    drain_until: Option<Instant>,
    /// Kept for their memory.
    batch: Batch,
    events: Vec<session::Event<Waiting, Answered>>,
    succeeded: Vec<Number>,
    /// QoS 0 publishes with the mark in the outbox at which they are written.
    unwritten: VecDeque<(u64, Published)>,
    /// A message whose receiver is full. While there is one, nothing is read.
    parked: Option<Message>,
    /// Since when the same message has been parked.
    parked_since: Option<Instant>,
    /// Whether a receiver has been handed something that it can take.
    delivered: bool,
    attempt: u32,
    /// The server to try, counted over all attempts; it stays where it is as long as that server serves.
    server: usize,
    /// Servers tried in vain since the last pause.
    tried: usize,
    /// Connections in a row that ended at once as if another client had taken the session over.
    short_connections: u32,
    was_connected: bool,
    /// Changes of the session that are not saved yet.
    unsaved: Vec<Change>,
    /// When the ping went out that has no answer yet.
    pinged: Option<std::time::Instant>,
    /// Kept for its memory.
    changes: Vec<session::SessionChange>,
    /// Whether it looks into the queue once more before it sleeps.
    idle: Idle,
    /// What the last look into the queue has found.
    quiet: Quiet,
    lingering: Lingering,
    /// Said when the driver is gone, in whatever way; also by one that never ran.
    _last_word: LastWord,
}

/// How a connection, or a pause, ended.
enum Next {
    Retry,
    Leave(Result<(), Error>),
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, left: Left) -> Self {
        let last_word = LastWord(Arc::clone(&shared.queue));
        Self {
            leave: shared.leave.subscribe(),
            shared,
            session: left.session,
            drain_until: None,
            batch: Batch::default(),
            events: Vec::new(),
            succeeded: Vec::new(),
            unwritten: VecDeque::new(),
            parked: left.parked,
            parked_since: None,
            delivered: false,
            attempt: 0,
            server: 0,
            tried: 0,
            short_connections: 0,
            was_connected: false,
            unsaved: left.unsaved,
            pinged: None,
            changes: Vec::new(),
            idle: Idle::Sleeps,
            quiet: Quiet::No,
            lingering: Lingering::default(),
            _last_word: last_word,
        }
    }

    /// Boxed, for a task makes room for what comes of it each time that it runs.
    pub(crate) async fn run(mut self, mut first: First) -> Box<Ended> {
        let result = loop {
            match self.connect_and_serve(&mut first).await {
                Next::Retry => {}
                Next::Leave(result) => break result,
            }
        };
        Box::new(self.end(result))
    }

    async fn connect_and_serve(&mut self, first: &mut First) -> Next {
        let shared = self.shared.clone();
        if let Err(reason) = self.save_session() {
            self.emit(Event::Disconnected { reason });
            return self.pause().await;
        }
        let server = shared.config.server(self.server);
        let opening = Opening::new(&shared.config, &self.session);
        let (host, port) = server;
        let to = format!("{host}:{port}");
        let attempt = info_span!("attempt", server = to);
        let opening = connect::open(&shared.config, server, &opening).instrument(attempt.clone());
        let opened = tokio::select! {
            opened = opening => opened,
            left = self.give_up_draining() => return Next::Leave(left),
            never = keep::keep_saving(&shared) => match never {},
        };
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                attempt.in_scope(|| debug!(reason = %Chain(&error), "failed"));
                return self.attempt_failed(error, first).await;
            }
        };
        shared.counters.connections.add(1);
        shared.connected.store(true, Ordering::Relaxed);
        let since = Instant::now();
        self.tried = 0;
        let session_present = connection.terms.session_present;
        attempt.in_scope(|| debug!(session_present, "connected"));
        shared.set_terms(&connection.terms);
        self.emit(Event::Connected { session_present });
        if let Some(first) = first.take() {
            // The caller may have gone away; the client stays connected for other handles.
            let _ = first.send(Ok(()));
        }
        let span = info_span!("connection", server = to);
        let ended = self.serve(connection).instrument(span).await;
        shared.connected.store(false, Ordering::Relaxed);
        self.session.connection_lost();
        self.fail_unwritten();
        self.emit(Event::Disconnected {
            reason: ended.clone(),
        });
        if let Disconnected::Requested = ended {
            return Next::Leave(self.undelivered());
        }
        debug!(reason = %Chain(&ended), "disconnected");
        let lasted = since.elapsed();
        if let Some(error) = self.taken_over(&ended, lasted) {
            return Next::Leave(Err(error));
        }
        if self.sends_away(&ended, lasted) {
            self.server = self.server.wrapping_add(1);
        }
        self.pause().await
    }

    async fn attempt_failed(&mut self, error: ConnectError, first: &mut First) -> Next {
        self.shared.counters.failed_attempts.add(1);
        self.server = self.server.wrapping_add(1);
        self.tried += 1;
        if self.tried < self.shared.config.server_count() {
            debug!(reason = %Chain(&error), "could not connect, the next server is tried");
            self.emit(Event::ConnectFailed { reason: error });
            return Next::Retry;
        }
        self.tried = 0;
        if let Some(first) = first.take() {
            // Before the caller hears of it, lest its next attempt takes this driver for a working one.
            self.shared.queue.close();
            let _ = first.send(Err(Error::Connect(error.clone())));
            return Next::Leave(Err(Error::Connect(error)));
        }
        // The program hears of it and knows whether somebody has to be told again.
        debug!(reason = %Chain(&error), "could not connect");
        self.emit(Event::ConnectFailed { reason: error });
        self.pause().await
    }

    /// Counts connections that ended as if another client had the id. A server of 5.0 says so; one of 3.1.1 just closes,
    /// and right after accepting that is what it most likely means.
    fn taken_over(&mut self, ended: &Disconnected, lasted: Duration) -> Option<Error> {
        let takeover = self.shared.config.takeover;
        let closed = match self.shared.config.protocol {
            Version::V311 => matches!(ended, Disconnected::Closed | Disconnected::Io(_)),
            Version::V5 => matches!(
                ended,
                Disconnected::Server(said) if said.reason == ReasonCode::SessionTakenOver
            ),
        };
        if lasted > takeover.within {
            self.attempt = 0;
        }
        if !closed || lasted > takeover.within {
            self.short_connections = 0;
            return None;
        }
        self.short_connections += 1;
        let reached = takeover.connections != 0 && self.short_connections >= takeover.connections;
        reached.then_some(Error::TakenOver(self.short_connections))
    }

    /// Whether the next server is the better one to try: this one says so, or accepts and does not serve.
    fn sends_away(&self, ended: &Disconnected, lasted: Duration) -> bool {
        match ended {
            // Not the server's doing.
            Disconnected::NotSaved(_) => false,
            Disconnected::Server(said) => match said.reason {
                ReasonCode::ServerShuttingDown
                | ReasonCode::UseAnotherServer
                | ReasonCode::ServerMoved => true,
                ReasonCode::SessionTakenOver => false,
                _ => lasted <= self.shared.config.takeover.within,
            },
            _ => lasted <= self.shared.config.takeover.within,
        }
    }

    async fn pause(&mut self) -> Next {
        let delay = self
            .shared
            .config
            .reconnect
            .pause(self.attempt, random::bits());
        self.attempt = self.attempt.saturating_add(1);
        self.shared.queue.expire(Instant::now().into_std());
        self.emit(Event::Reconnecting {
            attempt: self.attempt,
            delay,
        });
        debug!(attempt = self.attempt, ?delay, "next attempt after a pause");
        let shared = self.shared.clone();
        tokio::select! {
            () = tokio::time::sleep(delay) => Next::Retry,
            left = self.give_up_draining() => Next::Leave(left),
            never = keep::keep_saving(&shared) => match never {},
        }
    }

    /// Without a connection: returns when the program wants to leave and there is nothing to wait for any more.
    async fn give_up_draining(&mut self) -> Result<(), Error> {
        let leaving = |leave: &Leave| *leave != Leave::Stay;
        if self.leave.wait_for(leaving).await.is_err() {
            return Err(Error::Stopped);
        }
        let until = self.drain_deadline();
        self.settle();
        if self.is_drained() {
            return Ok(());
        }
        tokio::time::sleep_until(until).await;
        self.undelivered()
    }

    /// Without a connection: what the program has settled is no more than noted, so that a repeat of it is answered at
    /// once and not delivered.
    fn settle(&mut self) {
        for (id, settled) in self.shared.queue.take_settled() {
            self.session.settle(id, settled);
        }
    }

    fn drain_deadline(&mut self) -> Instant {
        let limit = self.shared.config.drain_timeout;
        *self
            .drain_until
            .get_or_insert_with(|| Instant::now() + limit)
    }

    fn is_drained(&self) -> bool {
        self.shared.queue.is_empty() && self.session.open() == 0 && self.unwritten.is_empty()
    }

    fn undelivered(&self) -> Result<(), Error> {
        let left = self.shared.queue.len() + self.session.open();
        if left == 0 {
            return Ok(());
        }
        Err(Error::Undelivered {
            left,
            timeout: self.shared.config.drain_timeout,
        })
    }

    fn finish(&self, done: Published, outcome: Outcome) {
        self.shared.queue.outcomes().finish(done, outcome);
    }

    fn emit(&self, event: Event) {
        // Nobody listens: that is fine.
        let _ = self.shared.events.send(event);
    }

    fn fail_unwritten(&mut self) {
        let outcomes = self.shared.queue.outcomes();
        for (_, done) in self.unwritten.drain(..) {
            outcomes.finish(done, Err(Error::ConnectionLost));
        }
    }

    /// Tells everybody who waits, and hands over what a later `connect` goes on with.
    fn end(mut self, result: Result<(), Error>) -> Ended {
        self.shared.queue.close();
        self.settle();
        // What cannot be saved now is the next driver's to save. In the next process it is done again: a repeat, which
        // the server can tell.
        let _ = self.save_session();
        let _ = keep::save_withdrawals(&self.shared);
        let reason = match &result {
            Err(error @ (Error::TakenOver(_) | Error::Connect(_))) => {
                warn!(reason = %Chain(error), "stopped");
                self.emit(Event::Stopped {
                    reason: error.clone(),
                });
                error.clone()
            }
            _ => Error::Stopped,
        };
        self.fail_unwritten();
        let (published, answered) = self.session.abandon();
        let in_flight = self.session.open() as u64;
        self.shared.counters.in_flight.set(in_flight);
        let left = self.shared.queue.clear();
        let queued = left.publishes.into_iter().map(|queued| queued.done);
        let published = published.into_iter().map(|waiting| waiting.done);
        for done in published.chain(queued) {
            self.finish(done, Err(reason.clone()));
        }
        let controls = left.controls.into_iter().map(|control| match control {
            Control::Subscribe(.., answered) | Control::Unsubscribe(_, answered) => answered,
        });
        for done in answered.into_iter().chain(controls).flatten() {
            let _ = done.send(Err(reason.clone()));
        }
        let left = Left {
            parked: self.hand_over_parked(),
            session: self.session,
            unsaved: self.unsaved,
        };
        Ended { left, result }
    }

    /// In automatic mode its acknowledgement is out: nobody would send it again.
    fn hand_over_parked(&mut self) -> Option<Message> {
        match self.shared.inbox.deliver(self.parked.take()?, Place::Last) {
            Delivery::Queued => None,
            Delivery::Unclaimed => {
                self.shared.counters.unclaimed.add(1);
                None
            }
            Delivery::Full(message) => Some(message),
        }
    }
}

/// An error with all its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
