//! A recorded WebSocket against the target: its handshake is sent, with a key of our own, then its client's messages, turn by
//! turn, and each message of the target is compared.
//!
//! It counts as one with the handshake's exchange: the stream behind that is not replayed a second time. No extension is
//! offered; what was compressed is sent, and compared, as it was said.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Response};
use tokio::time::{Instant, timeout};

use super::request::Prepared;
use super::stream::unfit;
use super::trial::{Context, Setback};
use super::{ReplayResult, Verdict};
use crate::playback::carry::Handed;
use crate::playback::diff::{self, Content, Difference, Part, Snapshot};
use crate::playback::link::{Duplex, SendError};
use crate::playback::pace::Speed;
use crate::playback::script::{Unfit, dump};
use crate::playback::web_socket::{Dialogue, Event, Heard, Kind, Lost, Peer, Said, fit};
use crate::record::{Close, Direction, Exchange, Headers, Outcome, Side, Stream, accept_key};
use crate::store::Pieces;

/// The largest message, of either side.
const MAX_MESSAGE: usize = 16 << 20;
/// How long a target has to close where it is recorded that it did.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// Fields of the handshake that differ by nature.
const OWN: [&str; 4] = [
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "connection",
    "upgrade",
];

impl Context {
    /// Takes a handshake and the conversation behind it to their end.
    pub(super) async fn attempt_web_socket(
        &self,
        ticket: u64,
        exchange: &Exchange,
        result: &mut ReplayResult,
    ) -> Result<(), Setback> {
        let stream = self.whole_stream(exchange).await.map_err(|why| match why {
            Unfit::Gone => Setback::Skipped(
                "the conversation behind it is not in the store: it goes on, or was deleted".into(),
            ),
            why => unfit(why),
        })?;
        // Before a permit is taken: whoever hands the value out may still need one.
        let wait = self.config().request_timeout;
        self.carry
            .ready(ticket, &exchange.request.headers, wait)
            .await;
        let _permit = self.permits.acquire().await.expect("is never closed");
        self.may_try()?;
        let (prepared, key) = self.handshake(exchange, result)?;
        let started = Instant::now();
        let answered = timeout(wait, self.connector.upgrade(prepared.build())).await;
        let answered = answered.unwrap_or(Err(SendError::Timeout));
        result.sent = prepared.sent.load(Ordering::Relaxed);
        self.note_reach(matches!(answered, Err(SendError::Connect { .. })));
        let (head, connection) = answered.map_err(Setback::Failed)?;
        let taken = started.elapsed();
        self.metrics.replay_duration.observe(taken.as_secs_f64());
        result.replayed_status = Some(head.status().as_u16());
        result.replayed_first_byte_us = Some(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
        self.compare_heads(ticket, exchange, &head, result);
        if let Some(connection) = connection {
            let accept = head.headers().get(SEC_WEBSOCKET_ACCEPT);
            if accept
                .is_none_or(|accept| accept.as_bytes() != accept_key(key.as_bytes()).as_bytes())
            {
                return Err(broken(
                    io::ErrorKind::InvalidData,
                    "the target's Sec-WebSocket-Accept does not fit the key",
                ));
            }
            let dialogue = Dialogue::new(stream, self.shelf.clone(), MAX_MESSAGE, self.patience);
            let walk = Walk {
                context: self,
                peer: Peer::client(connection, MAX_MESSAGE).await,
                result,
                started: Instant::now(),
            };
            walk.run(dialogue).await?;
        }
        result.verdict = match result.differences.is_empty() {
            true => Verdict::Same,
            false => Verdict::Different,
        };
        Ok(())
    }

    /// The stream behind a handshake: read before anything is sent, so that what cannot be read is skipped, not failed.
    async fn whole_stream(&self, exchange: &Exchange) -> Result<Arc<Stream>, Unfit> {
        let id = exchange.stream.ok_or(Unfit::Gone)?;
        let stream = self.shelf.stream(id).await?;
        fit(&stream)?;
        let missing = self
            .store
            .first_missing(id, Pieces::Segments, stream.batches);
        match missing.await? {
            Some(index) if self.patience.is_zero() => Err(Unfit::Missing { index }),
            _ => Ok(stream),
        }
    }

    /// The recorded handshake with a key of our own, and that key.
    fn handshake(
        &self,
        exchange: &Exchange,
        result: &mut ReplayResult,
    ) -> Result<(Prepared, HeaderValue), Setback> {
        let mut fields = exchange.request.headers.clone();
        result.carried = self.carry.apply(&mut fields);
        let body = self.stored(exchange, Side::Request, &exchange.request.body);
        let prepared = Prepared::new(exchange, &fields, body, &self.sending, self.run);
        let mut prepared = prepared.map_err(|reason| Setback::Skipped(reason.to_owned()))?;
        self.metrics.headers_dropped.inc_by(prepared.dropped);
        let key = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
        let key = HeaderValue::try_from(key).expect("Base64 is printable ASCII");
        let headers = &mut prepared.headers;
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, key.clone());
        Ok((prepared, key))
    }

    fn compare_heads(
        &self,
        ticket: u64,
        exchange: &Exchange,
        head: &Response<()>,
        result: &mut ReplayResult,
    ) {
        let recorded = exchange.response.as_ref().expect("unfit without one");
        let answered = Headers::from(head.headers());
        let handed = |headers| Handed {
            headers,
            content: &[],
        };
        self.carry
            .settle(ticket, handed(&recorded.headers), handed(&answered));
        let (old, new) = (comparable(&recorded.headers), comparable(&answered));
        let side = |status, headers| Snapshot {
            status,
            headers,
            content: Content::None,
        };
        let old = side(recorded.status, &old);
        let new = side(head.status().as_u16(), &new);
        let compared = diff::compare(&old, &new, &self.sending.diff);
        result.differences = compared.differences;
        result.more_differences = compared.more;
        result.notes = compared.notes;
    }
}

/// The fields of a handshake's answer, but for those that differ by nature.
fn comparable(headers: &Headers) -> Headers {
    let own = |name: &[u8]| {
        OWN.iter()
            .any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
    };
    let fields = headers.iter().filter(|(name, _)| !own(name));
    fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What ended a conversation before its recorded end.
enum Stop {
    /// The target did something else; that was noted.
    Differs,
    Setback(Setback),
}

impl From<Setback> for Stop {
    fn from(setback: Setback) -> Self {
        Self::Setback(setback)
    }
}

impl From<Lost> for Stop {
    fn from(lost: Lost) -> Self {
        let kind = match lost {
            Lost::Broken(_) => io::ErrorKind::BrokenPipe,
            Lost::TooLarge | Lost::Illegal(_) => io::ErrorKind::InvalidData,
        };
        Self::Setback(Setback::Failed(SendError::Cut(io::Error::new(kind, lost))))
    }
}

/// One conversation on its way.
struct Walk<'a> {
    context: &'a Context,
    peer: Peer<Box<dyn Duplex>>,
    result: &'a mut ReplayResult,
    started: Instant,
}

impl Walk<'_> {
    async fn run(mut self, mut dialogue: Dialogue) -> Result<(), Setback> {
        let close = match self.follow(&mut dialogue).await {
            Ok(close) => close,
            Err(Stop::Differs) => Some((Some(1000), "".into())),
            Err(Stop::Setback(setback)) => return Err(setback),
        };
        match &close {
            Some((code, reason)) => self.peer.part(Some((*code, reason))).await,
            None => self.peer.part(None).await,
        }
        Ok(())
    }

    /// Follows the conversation to its end; gives how we have to close then, where it is our turn to.
    async fn follow(
        &mut self,
        dialogue: &mut Dialogue,
    ) -> Result<Option<(Option<u16>, Arc<str>)>, Stop> {
        loop {
            let event = dialogue.next().await.map_err(|why| match unfit(why) {
                // Half of it has been sent by now.
                Setback::Skipped(reason) => Setback::Store(reason),
                other => other,
            })?;
            match event {
                Event::Said(said) if said.from == Direction::Client => self.say(&said).await?,
                Event::Said(said) => self.compare(&said).await?,
                Event::Closed { close, at_us } if close.from == Direction::Client => {
                    self.due(at_us).await?;
                    self.surplus(dialogue).await?;
                    return Ok(Some((close.code, close.reason)));
                }
                Event::Closed { close, .. } => {
                    self.expect_close(&close, dialogue).await?;
                    return Ok(None);
                }
                Event::End => {
                    self.surplus(dialogue).await?;
                    let stream = dialogue.stream();
                    if stream.outcome != Outcome::ClientClosed {
                        let why = "how the recorded connection broke off was not compared";
                        self.result.notes.push(why.to_owned());
                    }
                    return Ok(Some((Some(1000), "".into())));
                }
            }
        }
    }

    async fn say(&mut self, said: &Said) -> Result<(), Stop> {
        self.due(said.at_us).await?;
        let spoken = self.peer.say(said.kind, &said.bytes);
        match timeout(self.context.config().request_timeout, spoken).await {
            Err(_) => Err(Setback::Failed(SendError::Timeout).into()),
            Ok(Err(Lost::Broken(_))) if self.peer.has_left() => {
                let expected = shown(said.kind, &said.bytes, 0, said.offset);
                self.differs_in_close(&format!("the client says {expected}"))
                    .await
            }
            Ok(spoken) => Ok(spoken?),
        }
    }

    /// Waits until what the client did at this time is due.
    async fn due(&mut self, at_us: u64) -> Result<(), Stop> {
        if let Speed::Factor(factor) = self.context.speed {
            let after = Duration::from_micros(at_us).div_f64(factor.max(0.01));
            self.peer.rest(self.started + after).await?;
        }
        Ok(())
    }

    /// Hears a message, and compares it with the one that was recorded.
    async fn compare(&mut self, expected: &Said) -> Result<(), Stop> {
        let limit = self.context.config().request_timeout;
        let (kind, bytes) = match timeout(limit, self.peer.hear()).await {
            Err(_) => {
                self.message(expected, None);
                return Err(Setback::Failed(SendError::Timeout).into());
            }
            Ok(heard) => match heard? {
                Heard::Said(kind, bytes) => (kind, bytes),
                Heard::Closed(code) => {
                    self.message(expected, Some(&closes(code)));
                    return Err(Stop::Differs);
                }
                Heard::Gone => {
                    self.message(expected, None);
                    return Err(gone());
                }
            },
        };
        if (kind, &bytes) != (expected.kind, &expected.bytes) {
            let same = expected.bytes.iter().zip(&bytes);
            let at = same.take_while(|(old, new)| old == new).count();
            let path = format!("message {}", expected.number);
            let old = shown(expected.kind, &expected.bytes, at, expected.offset);
            let new = shown(kind, &bytes, at, expected.offset);
            self.add(&path, Some(&old), Some(&new));
        }
        Ok(())
    }

    /// The recorded server closed here.
    async fn expect_close(&mut self, close: &Close, dialogue: &Dialogue) -> Result<(), Stop> {
        let patience = CLOSE_PATIENCE.min(self.context.config().request_timeout);
        let deadline = Instant::now() + patience;
        let mut number = dialogue.messages(Direction::Server);
        let recorded = closes(close.code);
        loop {
            let new = match tokio::time::timeout_at(deadline, self.peer.hear()).await {
                Err(_) => "it stays open".to_owned(),
                Ok(heard) => match heard? {
                    Heard::Closed(code) if code == close.code => return Ok(()),
                    Heard::Closed(code) => closes(code),
                    Heard::Gone => "it is gone without a Close frame".to_owned(),
                    Heard::Said(kind, bytes) => {
                        self.unexpected(number, kind, &bytes, dialogue);
                        number += 1;
                        continue;
                    }
                },
            };
            self.add("close", Some(&recorded), Some(&new));
            return Ok(());
        }
    }

    /// What has been said by now was never recorded.
    async fn surplus(&mut self, dialogue: &Dialogue) -> Result<(), Stop> {
        self.peer.hear_now().await?;
        let mut number = dialogue.messages(Direction::Server);
        while let Some(heard) = self.peer.held() {
            match heard {
                Heard::Said(kind, bytes) => self.unexpected(number, kind, &bytes, dialogue),
                Heard::Closed(code) => {
                    self.add("close", Some("the client closes"), Some(&closes(code)));
                }
                Heard::Gone => return Err(gone()),
            }
            number += 1;
        }
        Ok(())
    }

    /// The target closed where the client was to say something.
    async fn differs_in_close(&mut self, recorded: &str) -> Result<(), Stop> {
        while let Some(heard) = self.peer.held() {
            if let Heard::Closed(code) = heard {
                self.add("close", Some(recorded), Some(&closes(code)));
                return Err(Stop::Differs);
            }
        }
        Err(gone())
    }

    fn unexpected(&mut self, number: u64, kind: Kind, bytes: &[u8], dialogue: &Dialogue) {
        let offset = dialogue.said(Direction::Server);
        let new = shown(kind, bytes, 0, offset);
        self.add(&format!("message {number}"), None, Some(&new));
    }

    fn message(&mut self, expected: &Said, new: Option<&str>) {
        let old = shown(expected.kind, &expected.bytes, 0, expected.offset);
        self.add(&format!("message {}", expected.number), Some(&old), new);
    }

    fn add(&mut self, path: &str, old: Option<&str>, new: Option<&str>) {
        let difference = Difference::new(Part::Stream, path, old, new);
        let most = self.context.sending.diff.max_differences;
        self.result.differs(difference, most);
    }
}

fn shown(kind: Kind, bytes: &[u8], at: usize, offset: u64) -> String {
    format!("{}: {}", kind.as_str(), dump(bytes, at, offset))
}

fn closes(code: Option<u16>) -> String {
    match code {
        Some(code) => format!("the server closes with {code}"),
        None => "the server closes without a code".to_owned(),
    }
}

fn gone() -> Stop {
    Stop::Setback(broken(
        io::ErrorKind::UnexpectedEof,
        "the target closed the connection before the recorded end",
    ))
}

fn broken(kind: io::ErrorKind, why: &'static str) -> Setback {
    Setback::Failed(SendError::Cut(io::Error::new(kind, why)))
}

/// Whether the exchange is a handshake behind which a WebSocket was recorded.
pub(super) fn is_web_socket(exchange: &Exchange) -> bool {
    let response = exchange.response.as_ref();
    let to = response.and_then(|response| response.headers.first("upgrade"));
    response.is_some_and(|response| response.status == 101)
        && to.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"))
        && exchange.stream.is_some()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_this_handshakes_own_is_not_compared() {
        let headers: Headers = [
            ("Sec-WebSocket-Accept", "x"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("CONNECTION", "upgrade"),
        ]
        .into_iter()
        .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
        .collect();
        let left = comparable(&headers);
        assert_eq!(
            (
                left.len(),
                left.first("sec-websocket-protocol").unwrap().as_ref()
            ),
            (1, &b"chat"[..])
        );
    }
}
