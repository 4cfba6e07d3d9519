//! One client of WebSocket, answered from a recorded stream until one of both closes.
//!
//! What the recorded server said goes out when the client has said what came before it. A client that says something
//! else is followed into another recorded conversation that was the same so far, where there is one; else it is told
//! nothing more: it is closed with 1008.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::others::Followed;
use super::{Conversations, Dialogue, Event, Heard, Kind, Lost, Others, Peer, Said};
use crate::playback::script::{Unfit, dump};
use crate::playback::{Delay, Disclosure, Metrics, Mismatch, described};
use crate::record::{Direction, Outcome, Stream};

/// How a conversation ended.
enum Ending {
    /// As recorded: the server closes like that.
    Closed(Option<u16>, Arc<str>),
    /// As recorded: the client closed.
    Completed,
    /// As recorded: the connection was gone, without a Close frame of the server.
    Cut,
    /// The client left before the recorded end.
    Left,
    /// The client said nothing, or took nothing, for too long.
    Idle,
    /// The client said what was not recorded.
    Mismatch(Box<Mismatch>),
    /// The recorded messages cannot be read.
    Unreadable(Unfit),
    /// The connection broke, or the client broke the protocol or the limit.
    Lost(Lost),
    /// This node stops.
    Stopped,
}

impl From<Lost> for Ending {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Unfit> for Ending {
    fn from(why: Unfit) -> Self {
        Self::Unreadable(why)
    }
}

impl Ending {
    /// The name used in metrics.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed(..) | Self::Completed | Self::Cut => "completed",
            Self::Left => "left",
            Self::Idle => "idle",
            Self::Mismatch(_) => "mismatch",
            Self::Unreadable(_) => "failed",
            Self::Lost(Lost::Broken(_)) => "broken",
            Self::Lost(_) => "refused",
            Self::Stopped => "stopped",
        }
    }

    /// The Close frame that the client is sent; `None` where it gets none from here.
    fn farewell(&self) -> Option<(Option<u16>, &str)> {
        match self {
            Self::Closed(code, reason) => Some((*code, reason)),
            Self::Idle => Some((Some(1001), "nothing was said for too long")),
            Self::Mismatch(_) => Some((Some(1008), "no recorded message fits")),
            Self::Unreadable(_) => Some((Some(1011), "the recorded messages cannot be read")),
            Self::Stopped => Some((Some(1001), "the player is shutting down")),
            Self::Completed | Self::Cut | Self::Left | Self::Lost(_) => None,
        }
    }
}

/// What follows a handshake that was answered from the records.
pub struct Conversation {
    shared: Arc<Conversations>,
    dialogue: Dialogue,
    others: Others,
    followed: Followed,
    client: SocketAddr,
    /// When the last step was done, now and as recorded.
    done: (Instant, u64),
    /// Who had it, as far as it was somebody.
    last: Option<Direction>,
}

impl Conversation {
    pub(in crate::playback) fn new(
        shared: Arc<Conversations>,
        stream: Arc<Stream>,
        others: Others,
        client: SocketAddr,
    ) -> Self {
        Self {
            dialogue: shared.dialogue(stream),
            shared,
            others,
            followed: Followed::new(),
            client,
            done: (Instant::now(), 0),
            last: None,
        }
    }

    /// Speaks with the client until one of both closes, or `stopped` resolves.
    pub async fn hold<S>(mut self, connection: S, stopped: impl Future<Output = ()> + Send)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let metrics = self.shared.metrics.clone();
        metrics.conversations_open.inc();
        let _open = Open(&metrics);
        let mut peer = Peer::server(connection, self.shared.config.max_message).await;
        self.done.0 = Instant::now();
        let ending = tokio::select! {
            followed = self.follow(&mut peer) => followed.unwrap_or_else(|ending| ending),
            () = stopped => Ending::Stopped,
        };
        Metrics::count(&metrics.conversations, ending.as_str());
        match (&ending, ending.farewell()) {
            (Ending::Cut, _) => peer.cut().await,
            (Ending::Lost(lost), _) => match lost.code() {
                Some(code) => peer.refuse(code).await,
                None => drop(peer),
            },
            (_, farewell) => peer.part(farewell).await,
        }
        self.tell(ending);
    }

    fn tell(&self, ending: Ending) {
        let (client, stream) = (self.client, self.dialogue.stream());
        let (record, service) = (stream.id, &*stream.service);
        match ending {
            Ending::Mismatch(mismatch) => self.shared.remember(*mismatch),
            Ending::Unreadable(why) => {
                let error = described(&why);
                tracing::error!(%client, service, %record, error, "the recorded messages cannot be read: closed");
            }
            Ending::Lost(error) => {
                tracing::debug!(%client, service, %record, %error, "WebSocket client lost");
            }
            other => {
                let ended = other.as_str();
                tracing::debug!(%client, service, %record, ended, "WebSocket client answered");
            }
        }
    }

    /// Follows the recorded stream; an error, too, is how it ended.
    async fn follow<S>(&mut self, peer: &mut Peer<S>) -> Result<Ending, Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match self.dialogue.next().await? {
                Event::Said(said) if said.from == Direction::Server => {
                    self.wait(peer, said.at_us).await?;
                    self.speak(peer, &said).await?;
                }
                Event::Said(expected) => self.listen(peer, &expected).await?,
                Event::Closed { close, at_us } if close.from == Direction::Server => {
                    self.wait(peer, at_us).await?;
                    return Ok(Ending::Closed(close.code, close.reason));
                }
                Event::End if !self.client_left() => return Ok(Ending::Cut),
                Event::Closed { .. } | Event::End => {
                    if let Some(ending) = self.await_close(peer).await? {
                        return Ok(ending);
                    }
                }
            }
        }
    }

    /// Whether it was the client that was gone when the recorded connection was.
    fn client_left(&self) -> bool {
        self.dialogue.stream().outcome == Outcome::ClientClosed
    }

    /// Waits as long as is asked for before the server does what it did at this time.
    async fn wait<S>(&mut self, peer: &mut Peer<S>, at_us: u64) -> Result<(), Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let wait = match self.shared.delay {
            Delay::AsRecorded => Duration::from_micros(at_us.saturating_sub(self.done.1)),
            Delay::Fixed(delay) if self.last != Some(Direction::Server) => delay,
            Delay::None | Delay::Fixed(_) => Duration::ZERO,
        };
        if !wait.is_zero() {
            let until = self.done.0 + wait.min(self.shared.max_delay);
            peer.rest(until).await?;
        }
        self.did(Direction::Server, at_us);
        Ok(())
    }

    fn did(&mut self, by: Direction, at_us: u64) {
        self.done = (Instant::now(), at_us);
        self.last = Some(by);
    }

    async fn speak<S>(&mut self, peer: &mut Peer<S>, said: &Said) -> Result<(), Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let idle = self.shared.config.idle_timeout;
        self.followed.add(said);
        let spoken = timeout(idle, peer.say(said.kind, &said.bytes)).await;
        self.did(Direction::Server, said.at_us);
        match spoken {
            Err(_) => Err(Ending::Idle),
            // One that has left can be told nothing.
            Ok(Err(Lost::Broken(_))) if peer.has_left() => Err(Ending::Left),
            Ok(spoken) => Ok(spoken?),
        }
    }

    /// Hears the message that is expected.
    async fn listen<S>(&mut self, peer: &mut Peer<S>, expected: &Said) -> Result<(), Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (kind, bytes) = match self.heard(peer).await? {
            Heard::Said(kind, bytes) => (kind, bytes),
            Heard::Closed(_) | Heard::Gone => return Err(Ending::Left),
        };
        if (kind, &bytes) == (expected.kind, &expected.bytes) {
            self.followed.add(expected);
            self.did(Direction::Client, expected.at_us);
            return Ok(());
        }
        if self.goes_on_elsewhere(kind, &bytes).await {
            return Ok(());
        }
        let same = expected.bytes.iter().zip(&bytes);
        let at = same.take_while(|(old, new)| old == new).count();
        let show = |kind: Kind, bytes: &[u8]| match self.shared.config.disclosure {
            Disclosure::Shown => format!("{}: {}", kind.as_str(), dump(bytes, at, expected.offset)),
            Disclosure::Withheld => "(withheld)".to_owned(),
        };
        let offset = expected.offset + at as u64;
        let expected = show(expected.kind, &expected.bytes);
        Err(self.mismatch(offset, expected, show(kind, &bytes)))
    }

    /// Whether the client is followed into another conversation.
    async fn goes_on_elsewhere(&mut self, kind: Kind, bytes: &Bytes) -> bool {
        let message = (kind, bytes);
        let found = self.others.find(&self.shared, &self.followed, message);
        let Some((dialogue, said)) = found.await else {
            return false;
        };
        self.dialogue = dialogue;
        self.followed.add(&said);
        self.did(Direction::Client, said.at_us);
        true
    }

    /// The recorded client closed here: this one has nothing more to say either, or goes on as another one did.
    async fn await_close<S>(&mut self, peer: &mut Peer<S>) -> Result<Option<Ending>, Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.heard(peer).await? {
            Heard::Closed(_) | Heard::Gone => Ok(Some(Ending::Completed)),
            Heard::Said(kind, bytes) => {
                if self.goes_on_elsewhere(kind, &bytes).await {
                    return Ok(None);
                }
                let offset = self.dialogue.said(Direction::Client);
                let got = match self.shared.config.disclosure {
                    Disclosure::Shown => format!("{}: {}", kind.as_str(), dump(&bytes, 0, offset)),
                    Disclosure::Withheld => "(withheld)".to_owned(),
                };
                Err(self.mismatch(offset, "the client closes".to_owned(), got))
            }
        }
    }

    async fn heard<S>(&self, peer: &mut Peer<S>) -> Result<Heard, Ending>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match timeout(self.shared.config.idle_timeout, peer.hear()).await {
            Err(_) => Err(Ending::Idle),
            Ok(heard) => Ok(heard?),
        }
    }

    fn mismatch(&self, offset: u64, expected: String, got: String) -> Ending {
        let stream = self.dialogue.stream();
        Ending::Mismatch(Box::new(Mismatch {
            at: Timestamp::now().to_string(),
            client: self.client.to_string(),
            service: stream.service.clone(),
            record: stream.id,
            offset,
            expected,
            got,
        }))
    }
}

/// Counts an open conversation for as long as it lives.
struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.conversations_open.dec();
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("stream", &self.dialogue.stream().id)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
