//! One connection: the session between the queue of the program and the socket.
//!
//! Each turn decodes what was read, takes what the program has put in, and then writes and reads once, so that many
//! packets share a system call. Reading and writing never wait for each other.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use crate::codec;
use crate::error::Disconnected;
use crate::inbox::Delivery;
use crate::message::{Message, Receipt};
use crate::queue::{Batch, Control, Room};
use crate::session;

use super::connect::{Connection, Transport};
use super::{Driver, Event, finish};

/// Bytes encoded ahead of the socket: enough for one system call to be worth it, little enough for a ping not to
/// wait behind.
const OUTBOX_BYTES: usize = 256 << 10;
/// Room for one read, in bytes: at rest, and where reads come back full.
const READ_BYTES: std::ops::RangeInclusive<usize> = 8 << 10..=256 << 10;
/// Pieces in one vectored write.
const WRITE_PIECES: usize = 64;
/// How long the last bytes may take to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the timer looks again while there is nothing to be due.
const IDLE: Duration = Duration::from_secs(3600);

struct Socket {
    reader: ReadHalf<Transport>,
    writer: WriteHalf<Transport>,
    received: BytesMut,
    read_size: usize,
    needs_flush: bool,
}

impl Driver {
    /// Serves a connection to its end.
    pub(super) async fn serve(&mut self, connection: Connection) -> Disconnected {
        let now = Instant::now().into_std();
        let resumed = self.session.connected(connection.session_present, now);
        self.report_resumed(connection.session_present, resumed);
        let (reader, writer) = tokio::io::split(connection.stream);
        let received = connection.received;
        let mut socket = Socket {
            reader,
            writer,
            received,
            read_size: *READ_BYTES.start(),
            needs_flush: false,
        };
        let ended = match self.turns(&mut socket).await {
            Ok(()) => Disconnected::Requested,
            Err(reason) => reason,
        };
        if let Disconnected::Requested = ended {
            self.say_goodbye(&mut socket).await;
        }
        ended
    }

    fn report_resumed(&mut self, session_present: bool, resumed: session::Resumed) {
        let counters = &self.shared.counters;
        counters.republished.add(resumed.republished as u64);
        let was_connected = std::mem::replace(&mut self.was_connected, true);
        let expected = self.shared.config.clean_session && resumed.republished == 0;
        if session_present || !was_connected || expected {
            return;
        }
        counters.sessions_lost.add(1);
        let session::Resumed {
            republished,
            resubscribed,
        } = resumed;
        self.emit(Event::SessionLost {
            republished,
            resubscribed,
        });
    }

    /// Returns when the program has left; an error when the connection has ended.
    async fn turns(&mut self, socket: &mut Socket) -> Result<(), Disconnected> {
        let shared = self.shared.clone();
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            self.decode(&mut socket.received)?;
            self.take_commands();
            if self.is_leaving() && (self.is_drained() || Instant::now() >= self.drain_deadline()) {
                return Ok(());
            }
            self.tick(timer.as_mut())?;
            let in_flight = self.session.open() as u64;
            shared.counters.in_flight.set(in_flight);
            let mut work = pin!(shared.queue.work());
            let turn = self.turn(socket, work.as_mut(), timer.as_mut()).await?;
            if turn.written > 0 {
                self.wrote(turn.written);
            }
        }
    }

    /// Decodes until nothing is left or a receiver is full, and hands everything on.
    fn decode(&mut self, received: &mut BytesMut) -> Result<(), Disconnected> {
        // What the resumed session reported before anything came.
        self.hand_on();
        let now = Instant::now().into_std();
        let limit = self.shared.config.max_packet_size;
        while self.unpark(now) {
            let Some(packet) = codec::decode(received, limit, codec::Version::V311)? else {
                break;
            };
            self.session.receive(packet, now)?;
            self.hand_on();
        }
        self.shared.counters.ignored.set(self.session.ignored());
        Ok(())
    }

    /// Tries the parked message again; whether there is none any more. The second try comes after asking to be
    /// woken, as its receiver may have moved in between.
    fn unpark(&mut self, now: std::time::Instant) -> bool {
        let Some(message) = self.parked.take() else {
            return true;
        };
        self.deliver(message);
        let Some(message) = self.parked.take() else {
            self.parked_since = None;
            return true;
        };
        self.shared.inbox.pause();
        self.deliver(message);
        if self.parked.is_some() {
            self.shared.counters.pauses.add(1);
            self.session.reading_paused(now);
            self.parked_since.get_or_insert_with(Instant::now);
        } else {
            self.parked_since = None;
        }
        self.parked.is_none()
    }

    fn hand_on(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.session.take_events(&mut events);
        for event in events.drain(..) {
            match event {
                session::Event::Published(done) => {
                    self.shared.counters.acknowledged.add(1);
                    finish(done, Ok(()));
                }
                session::Event::Subscribed(done, codes) => {
                    let _ = done.map(|done| done.send(Ok(codes)));
                }
                session::Event::Unsubscribed(done) => {
                    let _ = done.map(|done| done.send(Ok(Vec::new())));
                }
                session::Event::Message(publish, id) => self.message(publish, id),
                session::Event::RenewalRefused(filter) => {
                    tracing::warn!(%filter, "subscription not renewed");
                    self.emit(Event::RenewalRefused {
                        filter: filter.into(),
                    });
                }
            }
        }
        self.events = events;
    }

    fn message(&mut self, publish: codec::Publish, id: Option<session::AckId>) {
        self.shared.counters.received.add(1);
        if self.shared.queries.is_reply(&publish.topic) {
            if let Some(id) = id {
                self.session.settle(id, session::Settled::Acknowledged);
            }
            self.shared
                .queries
                .reply(&publish.topic, publish.payload, &self.shared.counters);
            return;
        }
        let receipt = id.map(|id| Receipt::new(Arc::clone(&self.shared.queue), id));
        let codec::Publish {
            dup,
            qos,
            retain,
            topic,
            payload,
            ..
        } = publish;
        self.deliver(Message {
            topic,
            payload,
            qos,
            retain,
            dup,
            receipt,
        });
    }

    fn deliver(&mut self, message: Message) {
        match self.shared.inbox.deliver(message) {
            Delivery::Queued => {}
            Delivery::Unclaimed => self.shared.counters.unclaimed.add(1),
            Delivery::Full(message) => self.parked = Some(message),
        }
    }

    fn take_commands(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        loop {
            let bytes = OUTBOX_BYTES.saturating_sub(self.session.outbox().len());
            let window = self.session.window_free();
            let controls = self.session.controls_free();
            let room = Room {
                window,
                bytes,
                controls,
            };
            self.shared.queue.take(room, &mut batch);
            if batch.publishes.is_empty() && batch.controls.is_empty() && batch.settled.is_empty() {
                break;
            }
            self.apply(&mut batch);
        }
        self.batch = batch;
    }

    fn apply(&mut self, batch: &mut Batch) {
        for (id, settled) in batch.settled.drain(..) {
            self.session.settle(id, settled);
        }
        for control in batch.controls.drain(..) {
            match control {
                Control::Subscribe(filters, answered) => self.session.subscribe(filters, answered),
                Control::Unsubscribe(filters, answered) => {
                    self.session.unsubscribe(filters, answered);
                }
            }
        }
        self.shared
            .counters
            .published
            .add(batch.publishes.len() as u64);
        for queued in batch.publishes.drain(..) {
            if let Some(done) = self.session.publish(queued.publish, queued.done) {
                self.unwritten
                    .push_back((self.session.outbox().queued(), done));
            }
        }
    }

    fn is_leaving(&self) -> bool {
        *self.leave.borrow()
    }

    /// Looks after keep alive and sets the timer. It is only set to an earlier time: a later one costs less to find
    /// out when it fires.
    fn tick(&mut self, mut timer: Pin<&mut Sleep>) -> Result<(), Disconnected> {
        let now = Instant::now();
        self.session.tick(now.into_std())?;
        let stall = self.fail_stalled(now);
        let keep_alive = self
            .session
            .deadline()
            .map_or(now + IDLE, Instant::from_std);
        let next = [self.drain_until, stall]
            .into_iter()
            .flatten()
            .fold(keep_alive, Instant::min);
        if timer.is_elapsed() || next < timer.deadline() {
            timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// Writes and reads once, or waits until there is something to do.
    async fn turn(
        &mut self,
        socket: &mut Socket,
        mut work: Pin<&mut impl Future<Output = ()>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<Turn, Disconnected> {
        let Socket {
            reader,
            writer,
            received,
            read_size,
            needs_flush,
        } = socket;
        let reading = self.parked.is_none();
        if reading && received.capacity() - received.len() < *read_size / 2 {
            received.reserve(*read_size);
        }
        let room = received.capacity() - received.len();
        let mut read = pin!(reader.read_buf(received));
        let outbox = self.session.outbox();
        let turn = poll_fn(|context| {
            let mut turn = Turn::default();
            if !outbox.is_empty()
                && let Poll::Ready(result) = write_once(outbox, writer, context)
            {
                turn.written = result?;
                *needs_flush = true;
                turn.progress = true;
            } else if outbox.is_empty()
                && *needs_flush
                && let Poll::Ready(result) = Pin::new(&mut *writer).poll_flush(context)
            {
                result?;
                *needs_flush = false;
            }
            if reading && let Poll::Ready(result) = read.as_mut().poll(context) {
                turn.read = Some(result?);
                turn.progress = true;
            }
            turn.progress |= work.as_mut().poll(context).is_ready();
            turn.progress |= timer.as_mut().poll(context).is_ready();
            if turn.progress {
                Poll::Ready(Ok(turn))
            } else {
                Poll::Pending
            }
        })
        .await
        .map_err(|error: io::Error| Disconnected::Io(Arc::new(error)))?;
        match turn.read {
            Some(0) => return Err(Disconnected::Closed),
            Some(count) => {
                self.shared.counters.bytes_in.add(count as u64);
                let next = if count == room {
                    *read_size * 2
                } else {
                    *read_size / 2
                };
                *read_size = next.clamp(*READ_BYTES.start(), *READ_BYTES.end());
            }
            None => {}
        }
        Ok(turn)
    }

    fn wrote(&mut self, count: usize) {
        self.shared.counters.bytes_out.add(count as u64);
        self.session.wrote(Instant::now().into_std());
        let written = self.session.outbox().written();
        while let Some((mark, _)) = self.unwritten.front()
            && *mark <= written
        {
            let done = self.unwritten.pop_front().and_then(|(_, done)| done);
            finish(done, Ok(()));
        }
    }

    /// DISCONNECT after whatever is still in the outbox; the server then publishes no will (3.14).
    async fn say_goodbye(&mut self, socket: &mut Socket) {
        let outbox = self.session.outbox();
        outbox.push_disconnect();
        let goodbye = async {
            while !outbox.is_empty() {
                poll_fn(|context| write_once(outbox, &mut socket.writer, context)).await?;
            }
            socket.writer.flush().await?;
            socket.writer.shutdown().await
        };
        let said = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
        debug!(in_order = matches!(said, Ok(Ok(()))), "said goodbye");
    }
}

/// What happened in one turn.
#[derive(Debug, Default)]
struct Turn {
    written: usize,
    read: Option<usize>,
    progress: bool,
}

fn write_once(
    outbox: &mut session::Outbox,
    writer: &mut WriteHalf<Transport>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
    let used = outbox.slices(&mut slices);
    let result = Pin::new(writer).poll_write_vectored(context, &slices[..used]);
    match result {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        Poll::Ready(Ok(count)) => {
            outbox.advance(count);
            Poll::Ready(Ok(count))
        }
        other => other,
    }
}
