//! One connection: the session between the queue of the program and the socket.
//!
//! Each turn decodes what was read, takes what the program has put in, and then writes and reads once, so that many
//! packets share a system call. Reading and writing never wait for each other.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, Sleep};

use crate::codec::{self, Packet, Publish, QoS, ReasonCode};
use crate::error::{Disconnected, Error, ServerReason};
use crate::inbox::{Delivery, Place};
use crate::message::{Message, Receipt};
use crate::options::whole_seconds;
use crate::queue::{Answer, Batch, Control, Idle, Queued, Quiet, Room};
use crate::session::{self, Closing, Continuity, Failure};

use super::coalesce::Coalescing;
use super::connect::Connection;
use super::latency::Waiting;
use super::turn::{Socket, receivers_first};
use super::{Driver, Event, Leave, keep};

/// Bytes encoded ahead of the socket: enough for one system call to be worth it, little enough for a ping not to
/// wait behind.
const OUTBOX_BYTES: usize = 256 << 10;
/// How often the timer looks again while there is nothing to be due.
const IDLE: Duration = Duration::from_secs(3600);

impl Driver {
    /// Serves a connection to its end.
    pub(super) async fn serve(&mut self, connection: Connection) -> Disconnected {
        let Connection { terms, .. } = &connection;
        let now = Instant::now().into_std();
        self.pinged = None;
        match self.session.connected(terms, now) {
            Ok(resumed) => self.report_resumed(terms.session_present, resumed),
            Err(violation) => return violation.into(),
        }
        let coalescing = self.shared.config.coalescing;
        let mut socket = Socket::new(connection, coalescing, Instant::now());
        let ended = match self.turns(&mut socket).await {
            Ok(()) => Disconnected::Requested,
            Err(reason) => reason,
        };
        // Saved first, for whatever waits in the outbox leaves with it.
        if let Some(reason) = self.last_word(&ended)
            && self.save_session().is_ok()
        {
            self.say_goodbye(&mut socket, reason).await;
        }
        ended
    }

    fn report_resumed(&mut self, session_present: bool, resumed: session::Resumed) {
        let counters = &self.shared.counters;
        counters.republished.add(resumed.republished as u64);
        let was_connected = std::mem::replace(&mut self.was_connected, true);
        let session::Resumed {
            republished,
            failed,
            resubscribed,
        } = resumed;
        let anew = self.shared.config.continuity() == Continuity::EachAnew;
        if session_present || !was_connected || (anew && republished + failed == 0) {
            return;
        }
        counters.sessions_lost.add(1);
        self.emit(Event::SessionLost {
            republished,
            failed,
            resubscribed,
        });
    }

    /// Returns when the program has left; an error when the connection has ended.
    async fn turns(&mut self, socket: &mut Socket) -> Result<(), Disconnected> {
        let shared = self.shared.clone();
        let one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        // Something may have come along with CONNACK.
        let mut has_come = true;
        self.quiet = Quiet::No;
        let mut now = Instant::now();
        loop {
            if has_come || self.parked.is_some() {
                self.decode(socket, now.into_std())?;
                let delivered = std::mem::take(&mut self.delivered);
                if delivered && one_thread {
                    receivers_first().await;
                }
                now = Instant::now();
            }
            self.take_commands(now.into_std());
            // What the server's terms forbid has failed by now.
            self.hand_on(now.into_std());
            self.save_session()?;
            if self.is_leaving() && (self.is_drained() || now >= self.drain_deadline()) {
                return Ok(());
            }
            self.tick(&mut socket.coalescing, timer.as_mut(), now)?;
            let in_flight = self.session.open() as u64;
            shared.counters.in_flight.set(in_flight);
            let turn = self.turn(socket, timer.as_mut()).await?;
            now = Instant::now();
            if turn.told {
                self.quiet = Quiet::No;
            }
            has_come = turn.read.is_some();
            if let Some(count) = turn.read {
                self.has_read(socket, count, now.into_std())?;
            }
            if turn.yielded {
                self.idle = Idle::Sleeps;
                self.lingering.lingered();
            }
            if turn.written > 0 {
                self.has_written(turn.written, now.into_std());
            }
        }
    }

    /// Decodes until nothing is left or a receiver is full, and hands everything on.
    fn decode(&mut self, socket: &mut Socket, now: std::time::Instant) -> Result<(), Disconnected> {
        // What the resumed session reported before anything came.
        self.hand_on(now);
        let decoded = self.decode_packets(socket, now);
        self.hand_on(now);
        self.shared.counters.ignored.set(self.session.ignored());
        self.shared
            .counters
            .downgraded
            .set(self.session.downgraded());
        decoded
    }

    fn decode_packets(
        &mut self,
        socket: &mut Socket,
        now: std::time::Instant,
    ) -> Result<(), Disconnected> {
        let received = &mut socket.received;
        let mut packets = 0;
        let limit = self.shared.config.max_packet_size;
        let version = self.shared.config.protocol;
        while self.unpark(now) {
            let Some(packet) = codec::decode(received, limit, version)? else {
                break;
            };
            packets += 1;
            if let Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) = packet {
                // They come by the hundred, and what follows from them can wait for the last one.
                self.session.receive(packet, now)?;
                continue;
            }
            self.hear_pong(&packet, now);
            self.session.receive(packet, now)?;
            self.save_received()?;
            self.hand_on(now);
        }
        socket.coalescing.decoded(packets);
        Ok(())
    }

    /// Tries the parked message again; whether there is none any more. The second try comes after asking to be
    /// woken, as its receiver may have moved in between.
    fn unpark(&mut self, now: std::time::Instant) -> bool {
        if self.parked.is_none() {
            return true;
        }
        self.redeliver();
        if self.parked.is_none() {
            self.parked_since = None;
            return true;
        }
        self.shared.inbox.pause();
        self.redeliver();
        if self.parked.is_some() {
            self.shared.counters.pauses.add(1);
            self.session.reading_paused(now);
            self.parked_since.get_or_insert_with(Instant::now);
        } else {
            self.parked_since = None;
        }
        self.parked.is_none()
    }

    fn hand_on(&mut self, now: std::time::Instant) {
        if !self.session.has_events() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        self.session.take_events(&mut events);
        let mut acknowledged = 0;
        for event in events.drain(..) {
            match event {
                session::Event::Published(waiting, reason) => {
                    acknowledged += 1;
                    let done = waiting.acknowledged(&self.shared, now);
                    match reason {
                        ReasonCode::Success => self.succeeded.extend(done),
                        _ => self.finish(done, Ok(reason)),
                    }
                }
                session::Event::PublishFailed(waiting, failure) => {
                    self.shared.counters.refused.add(1);
                    self.finish(waiting.done, Err(failure.into()));
                }
                session::Event::Subscribed(done, codes, text)
                | session::Event::Unsubscribed(done, codes, text) => {
                    let _ = done.map(|done| done.send(Ok(Answer { codes, text })));
                }
                session::Event::ControlFailed(done, failure) => {
                    let _ = done.map(|done| done.send(Err(failure.into())));
                }
                session::Event::Message(publish, id) => self.message(publish, id),
                session::Event::RenewalRefused(filter, reason) => {
                    tracing::warn!(%filter, ?reason, "subscription not renewed");
                    self.emit(Event::RenewalRefused {
                        filter: filter.into(),
                    });
                }
            }
        }
        self.events = events;
        if acknowledged > 0 {
            self.shared.counters.acknowledged.add(acknowledged);
            self.shared.queue.outcomes().succeed(&mut self.succeeded);
        }
    }

    fn message(&mut self, publish: Publish, id: Option<session::AckId>) {
        self.shared.counters.received.add(1);
        if self.shared.queries.is_reply(&publish.topic) {
            if let Some(id) = id {
                self.session.settle(id, session::Settled::Acknowledged);
            }
            self.shared.queries.reply(publish, &self.shared.counters);
            return;
        }
        let receipt = id.map(|id| Receipt::new(Arc::clone(&self.shared.queue), id));
        self.deliver(Message::new(publish, receipt));
    }

    fn redeliver(&mut self) {
        if let Some(message) = self.parked.take() {
            self.deliver(message);
        }
    }

    fn deliver(&mut self, message: Message) {
        match self.shared.inbox.deliver(message, Place::Bounded) {
            Delivery::Queued => self.delivered = true,
            Delivery::Unclaimed => self.shared.counters.unclaimed.add(1),
            Delivery::Full(message) => self.parked = Some(message),
        }
    }

    fn take_commands(&mut self, now: std::time::Instant) {
        if self.quiet == Quiet::UntilTold && !self.shared.queue.has_told() {
            return;
        }
        keep::save_arrivals(&self.shared);
        loop {
            let waiting = self.session.outbox().len();
            let room = Room {
                window: self.session.window_free(),
                bytes: OUTBOX_BYTES.saturating_sub(waiting),
                controls: self.session.controls_free(),
            };
            if self.idle != Idle::LooksAgain {
                self.idle = if waiting > 0 {
                    Idle::Writes
                } else {
                    Idle::Sleeps
                };
            }
            self.quiet = self.shared.queue.take(room, &mut self.batch, self.idle);
            self.lingering.found(self.batch.publishes.len());
            if self.batch.is_empty() {
                return;
            }
            let mut batch = std::mem::take(&mut self.batch);
            // The outcome of QoS 0 is that it is written: those who wait for it go on as soon as they can run.
            let mut publishes = batch.publishes.iter();
            if self.idle != Idle::LooksAgain
                && publishes.any(|it| it.publish.qos == QoS::AtMostOnce)
                && self.lingering.is_due()
            {
                self.idle = Idle::LooksAgain;
            }
            self.apply(&mut batch, now);
            self.batch = batch;
        }
    }

    fn apply(&mut self, batch: &mut Batch, now: std::time::Instant) {
        for (id, settled) in batch.settled.drain(..) {
            self.session.settle(id, settled);
        }
        for control in batch.controls.drain(..) {
            match control {
                Control::Subscribe(filters, id, answered) => {
                    self.session.subscribe(filters, id, answered);
                }
                Control::Unsubscribe(filters, answered) => {
                    self.session.unsubscribe(filters, answered);
                }
            }
        }
        self.shared
            .counters
            .published
            .add(batch.publishes.len() as u64);
        for mut queued in batch.publishes.drain(..) {
            let number = queued.number();
            let in_time = queued.expires.is_none() || self.in_time(&mut queued, now);
            let Queued { publish, done, .. } = queued;
            if !in_time {
                self.finish(done, Err(Error::Expired));
                self.note_sent(number);
                continue;
            }
            let waiting = Waiting::new(done, now);
            if let Some(waiting) = self.session.publish(publish, waiting, now) {
                self.unwritten
                    .push_back((self.session.outbox().queued(), waiting.done));
            }
            self.note_sent(number);
        }
    }

    /// What has expired in the queue goes no further; what has not is told what is left of its time.
    fn in_time(&self, queued: &mut Queued, now: std::time::Instant) -> bool {
        let Some(expires) = queued.expires else {
            return true;
        };
        if queued.is_expired(now) {
            self.shared.queue.count_expired();
            return false;
        }
        if let Some(properties) = &mut queued.publish.properties {
            properties.message_expiry = Some(whole_seconds(expires - now));
        }
        true
    }

    pub(super) fn is_leaving(&self) -> bool {
        *self.leave.borrow() != Leave::Stay
    }

    /// Looks after keep alive and sets the timer. It is only set to an earlier time: a later one costs less to find
    /// out when it fires.
    fn tick(
        &mut self,
        coalescing: &mut Coalescing,
        mut timer: Pin<&mut Sleep>,
        now: Instant,
    ) -> Result<(), Disconnected> {
        // The timer is set to the earliest time there was. Only these can set an earlier one.
        let moves = self.drain_until.is_some()
            || self.parked_since.is_some()
            || self.session.is_releasing()
            || coalescing.deadline().is_some();
        if !moves && now < timer.deadline() {
            return Ok(());
        }
        let queued = self.session.outbox().queued();
        self.session.tick(now.into_std())?;
        if self.session.outbox().queued() > queued {
            self.pinged = Some(now.into_std());
        }
        let stall = self.fail_stalled(now);
        let keep_alive = self
            .session
            .deadline()
            .map_or(now + IDLE, Instant::from_std);
        coalescing.release(now.into_std());
        let held = coalescing.deadline().map(Instant::from_std);
        let next = [self.drain_until, stall, held]
            .into_iter()
            .flatten()
            .fold(keep_alive, Instant::min);
        if timer.is_elapsed() || next < timer.deadline() {
            timer.as_mut().reset(next);
        }
        Ok(())
    }
}

impl From<Closing> for Disconnected {
    fn from(closing: Closing) -> Self {
        match closing {
            Closing::Violation(violation) => Self::Violation(violation),
            Closing::Server(said) => Self::Server(ServerReason::from(&said)),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(said) => Self::PublishRefused(said),
            Failure::Forbidden(forbidden) => Self::Forbidden(forbidden),
            Failure::SessionLost => Self::SessionLost,
        }
    }
}
