//! One connection: reads, writes, and the way between its socket, its tap and the core.
//!
//! A single task does both directions, so no half outlives the other. Reading stops while the client leaves too much
//! unwritten; writing that makes no progress ends the connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use qproxy_mqtt::codec::{self, DecodeError, Packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tokio_util::io::poll_read_buf;
use tracing::debug;

use super::hub::{Hub, Outbox};
use super::input::Input;
use super::output::Output;
use super::tap::{Step, Tap};
use crate::core::{CloseReason, ConnectionId};

/// The most that is taken from a client before its CONNECT is through: will, user name and password included.
const MOST_BEFORE_CONNECT: usize = 256 * 1024;
/// How long to wait for a client to read why it is closed, before the socket goes.
const LINGER: Duration = Duration::from_millis(250);

/// Serves one connection to its end.
pub(crate) async fn serve<S, T>(hub: Arc<Hub>, id: ConnectionId, stream: S, mut tap: T)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    T: Tap,
{
    tap.accepted(hub.now());
    let outbox = hub.join(id);
    let mut link = Link {
        hub: &hub,
        id,
        outbox: &outbox,
        stream,
        tap,
        input: Input::default(),
        output: Output::default(),
        closing: None,
        stuck_since: None,
        unflushed: false,
        packets: Vec::new(),
        steps: Vec::new(),
        known: false,
    };
    let reason = link.run().await;
    link.tap.closed(hub.now(), &reason);
    debug!(connection = id.0, %reason, "closed");
    hub.leave(id, &reason);
    link.finish(&reason).await;
}

struct Link<'h, S, T> {
    hub: &'h Hub,
    id: ConnectionId,
    outbox: &'h Outbox,
    stream: S,
    tap: T,
    input: Input,
    output: Output,
    /// Why to close once the output is written; nothing is read from then on.
    closing: Option<CloseReason>,
    /// Since when the socket takes nothing.
    stuck_since: Option<Duration>,
    unflushed: bool,
    /// Scratch: decoded and on their way to the core.
    packets: Vec<Packet>,
    steps: Vec<Step>,
    /// A first packet was decoded.
    known: bool,
}

/// What happened while waiting.
#[derive(Default)]
struct Happened {
    written: Option<io::Result<usize>>,
    read: Option<io::Result<usize>>,
    flushed: Option<io::Result<()>>,
    woken: bool,
}

impl<S, T> Link<'_, S, T>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    T: Tap,
{
    async fn run(&mut self) -> CloseReason {
        loop {
            self.take_outbox();
            self.output.fill();
            if self.output.is_empty()
                && !self.unflushed
                && let Some(reason) = self.closing.take()
            {
                return reason;
            }
            let happened = self.wait().await;
            if let Some(result) = happened.written {
                match result {
                    Ok(count) if count > 0 => self.wrote(count),
                    _ => return self.closing.take().unwrap_or(CloseReason::Gone),
                }
            }
            if let Some(result) = happened.flushed {
                match result {
                    Ok(()) => self.unflushed = false,
                    Err(_) => return self.closing.take().unwrap_or(CloseReason::Gone),
                }
            }
            match happened.read {
                Some(Ok(count)) if count > 0 => self.receive(count),
                Some(_) => return CloseReason::Gone,
                None => {}
            }
            if happened.woken
                && let Some(reason) = self.on_time()
            {
                return reason;
            }
        }
    }

    /// Waits for the socket, the core or the time; reading and writing take turns within one wake-up, so
    /// that neither direction starves the other.
    async fn wait(&mut self) -> Happened {
        let now = self.hub.now();
        let may_read = self.may_read(now);
        if may_read {
            self.input.prepare();
        }
        let write_limit = self.tap.write_limit();
        let mut timer = pin!(self.deadline().map(|due| sleep(due.saturating_sub(now))));
        let mut filled = pin!(self.outbox.filled());
        let (stream, input, output) = (&mut self.stream, &mut self.input, &self.output);
        let (stuck, unflushed) = (&mut self.stuck_since, &mut self.unflushed);
        poll_fn(|context| {
            let mut happened = Happened::default();
            let bytes = output.bytes();
            if !bytes.is_empty() {
                let bytes = &bytes[..bytes.len().min(write_limit)];
                match Pin::new(&mut *stream).poll_write(context, bytes) {
                    Poll::Ready(result) => happened.written = Some(result),
                    // Told once: the first time the socket is full, so that the deadline is set.
                    Poll::Pending if stuck.is_none() => {
                        *stuck = Some(now);
                        happened.woken = true;
                    }
                    Poll::Pending => {}
                }
            } else if *unflushed
                && let Poll::Ready(result) = Pin::new(&mut *stream).poll_flush(context)
            {
                happened.flushed = Some(result);
            }
            if may_read
                && let Poll::Ready(result) =
                    poll_read_buf(Pin::new(&mut *stream), context, &mut input.bytes)
            {
                happened.read = Some(result);
            }
            happened.woken |= filled.as_mut().poll(context).is_ready();
            if let Some(timer) = timer.as_mut().as_pin_mut() {
                happened.woken |= timer.poll(context).is_ready();
            }
            let any = happened.written.is_some()
                || happened.flushed.is_some()
                || happened.read.is_some()
                || happened.woken;
            if any {
                Poll::Ready(happened)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn may_read(&self, now: Duration) -> bool {
        self.closing.is_none()
            && self.output.held() < 2 * self.hub.limits().outbox_bytes
            && !self.tap.stalled(now)
    }

    fn deadline(&self) -> Option<Duration> {
        let stuck = self.stuck_since.map(|since| since + self.patience());
        [stuck, self.tap.due()].into_iter().flatten().min()
    }

    /// How long the socket may take nothing.
    fn patience(&self) -> Duration {
        let limits = self.hub.limits();
        if self.closing.is_some() {
            limits.write_timeout.min(limits.shutdown_grace)
        } else {
            limits.write_timeout
        }
    }

    fn take_outbox(&mut self) {
        let pending = self.outbox.take();
        if !pending.packets.is_empty() {
            let now = self.hub.now();
            for packet in pending.packets {
                self.tap.sending(now, packet, &mut self.steps);
            }
            self.towards_client();
        }
        for bytes in pending.raw {
            self.output.raw(bytes);
        }
        if let Some(reason) = pending.close {
            self.closing.get_or_insert(reason);
        }
    }

    fn wrote(&mut self, count: usize) {
        self.stuck_since = None;
        self.unflushed = true;
        if let Some(weight) = self.output.advance(count) {
            let id = self.id;
            self.hub.with(|broker, _| broker.written(id, weight));
        }
    }

    fn receive(&mut self, count: usize) {
        self.input.learn(count);
        let error = self.decode().err();
        self.input.relax();
        let stopped = self.towards_core();
        if let Some(error) = error
            && stopped.is_none()
        {
            self.tap.malformed(self.hub.now(), &error);
            let id = self.id;
            self.hub
                .with(|broker, now| broker.malformed(id, error, now));
        }
    }

    /// Decodes all that is there, past the tap, into `steps`.
    fn decode(&mut self) -> Result<(), DecodeError> {
        let packet_bytes = self.hub.limits().packet_bytes;
        loop {
            let most = if self.known {
                packet_bytes
            } else {
                packet_bytes.min(MOST_BEFORE_CONNECT)
            };
            let frame = if T::FRAMES {
                first_frame(&self.input.bytes).to_vec()
            } else {
                Vec::new()
            };
            let Some(packet) = codec::decode(&mut self.input.bytes, most, codec::Version::V311)?
            else {
                return Ok(());
            };
            self.known = true;
            self.tap.received(self.hub, packet, &frame, &mut self.steps);
        }
    }

    /// Carries out steps towards the core; returns whether one of them closed the connection.
    fn towards_core(&mut self) -> Option<()> {
        let mut close = None;
        for step in self.steps.drain(..) {
            match step {
                Step::Forward(packet) => self.packets.push(packet),
                Step::Raw(bytes) => self.output.raw(bytes),
                Step::Close(reason) => {
                    close = Some(reason);
                    break;
                }
            }
        }
        if !self.packets.is_empty() {
            let (id, packets) = (self.id, &mut self.packets);
            self.hub.with(|broker, now| {
                for packet in packets.drain(..) {
                    broker.packet(id, packet, now);
                }
            });
        }
        close.map(|reason| {
            self.take_outbox();
            self.closing.get_or_insert(reason);
        })
    }

    fn towards_client(&mut self) {
        for step in self.steps.drain(..) {
            if self.closing.is_some() {
                continue;
            }
            match step {
                Step::Forward(packet) => self.output.packet(packet),
                Step::Raw(bytes) => self.output.raw(bytes),
                Step::Close(reason) => self.closing = Some(reason),
            }
        }
    }

    /// A deadline or a message: lets go what the tap held back, and gives up on a stuck socket.
    fn on_time(&mut self) -> Option<CloseReason> {
        let now = self.hub.now();
        if let Some(since) = self.stuck_since
            && now.saturating_sub(since) >= self.patience()
        {
            return Some(self.closing.take().unwrap_or(CloseReason::WriteTimeout));
        }
        if self.tap.due().is_some_and(|due| due <= now) {
            let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
            self.tap.release(now, &mut inbound, &mut outbound);
            self.steps = inbound;
            self.towards_core();
            self.steps = outbound;
            self.towards_client();
        }
        None
    }

    /// Closes the socket so that the last packet arrives: a close with unread bytes would reset it.
    async fn finish(mut self, reason: &CloseReason) {
        let unheard = CloseReason::Limit("connections");
        if matches!(reason, CloseReason::Gone | CloseReason::WriteTimeout) || *reason == unheard {
            return;
        }
        let linger = async {
            if self.stream.shutdown().await.is_ok() {
                let mut rest = [0; 1024];
                while matches!(self.stream.read(&mut rest).await, Ok(count) if count > 0) {}
            }
        };
        if timeout(LINGER, linger).await.is_err() {
            debug!(connection = self.id.0, "client did not close its side");
        }
    }
}

/// The bytes of the first packet, if it is there as a whole; by its remaining length (MQTT 3.1.1 section 2.2.3).
fn first_frame(bytes: &[u8]) -> &[u8] {
    let mut remaining = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes.get(..index + 2 + remaining).unwrap_or_default();
        }
    }
    &[]
}
