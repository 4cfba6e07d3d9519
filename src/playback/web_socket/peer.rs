//! One WebSocket connection on which both sides may speak at any time: messages that come while we speak, or wait, are held,
//! up to a limit; pings are answered in between.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, error::CapacityError};

use super::Kind;

/// How much is held that was said before its turn; past it the peer has to wait.
const HELD_BYTES: usize = 256 << 10;
/// What a held message takes beside its bytes.
const MESSAGE_BYTES: usize = 64;
/// How long a peer has to close after we have, before the connection is dropped.
const FAREWELL: Duration = Duration::from_secs(2);
/// How much is let pass at once of what comes after that.
const PASSED_BYTES: usize = 16 << 10;
/// The longest reason of a Close frame (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::playback) enum Heard {
    Said(Kind, Bytes),
    /// It sent a Close frame, with this code.
    Closed(Option<u16>),
    /// It closed the connection without one.
    Gone,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(in crate::playback) enum Lost {
    /// A message beyond the limit.
    #[error("a message is too large")]
    TooLarge,
    /// What came is no WebSocket, or text that is not UTF-8.
    #[error("the peer breaks the protocol: {0}")]
    Illegal(#[source] Box<Error>),
    /// The connection broke, or is closed.
    #[error("the connection broke: {0}")]
    Broken(#[source] Box<Error>),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            Error::Utf8(_) | Error::Capacity(_) => Self::Illegal(Box::new(error)),
            Error::Protocol(ref broken) if !is_end(broken) => Self::Illegal(Box::new(error)),
            other => Self::Broken(Box::new(other)),
        }
    }
}

impl Lost {
    /// The code to close with; `None` where nothing more can be said.
    pub(in crate::playback) const fn code(&self) -> Option<u16> {
        match self {
            Self::TooLarge => Some(1009),
            Self::Illegal(error) => match **error {
                Error::Utf8(_) => Some(1007),
                _ => Some(1002),
            },
            Self::Broken(_) => None,
        }
    }
}

/// What the crate calls an error of the protocol, and is an end without a Close frame, or after one.
const fn is_end(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError as Broken;
    matches!(
        error,
        Broken::ResetWithoutClosingHandshake
            | Broken::SendAfterClosing
            | Broken::ReceivedAfterClosing
    )
}

/// A connection and what was heard of it before its turn.
pub(in crate::playback) struct Peer<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    ears: Ears<S>,
}

struct Ears<S> {
    stream: SplitStream<WebSocketStream<S>>,
    held: VecDeque<Heard>,
    held_bytes: usize,
    /// Nothing more will be heard.
    over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// The server's side of a connection behind its handshake.
    pub(in crate::playback) async fn server(io: S, max_message: usize) -> Self {
        let limits = Some(limits(max_message));
        Self::of(WebSocketStream::from_raw_socket(io, Role::Server, limits).await)
    }

    /// The client's side.
    pub(in crate::playback) async fn client(io: S, max_message: usize) -> Self {
        let limits = Some(limits(max_message));
        Self::of(WebSocketStream::from_raw_socket(io, Role::Client, limits).await)
    }

    fn of(stream: WebSocketStream<S>) -> Self {
        let (sink, stream) = stream.split();
        Self {
            sink,
            ears: Ears {
                stream,
                held: VecDeque::new(),
                held_bytes: 0,
                over: false,
            },
        }
    }

    /// The next that the peer did, pings and pongs aside.
    pub(in crate::playback) async fn hear(&mut self) -> Result<Heard, Lost> {
        match self.held() {
            Some(heard) => Ok(heard),
            None => self.ears.listen().await,
        }
    }

    /// The next that the peer did, as far as it is known already.
    pub(in crate::playback) fn held(&mut self) -> Option<Heard> {
        let heard = self.ears.held.pop_front()?;
        self.ears.held_bytes -= weight(&heard);
        Some(heard)
    }

    /// Whether the peer is known to have closed.
    pub(in crate::playback) fn has_left(&self) -> bool {
        self.ears.over
    }

    /// Says something, and holds what comes meanwhile.
    pub(in crate::playback) async fn say(&mut self, kind: Kind, bytes: &Bytes) -> Result<(), Lost> {
        let message = match kind {
            Kind::Binary => Message::Binary(bytes.clone()),
            Kind::Text => {
                let text = Utf8Bytes::try_from(bytes.clone());
                Message::Text(text.map_err(|error| Error::Utf8(error.to_string()))?)
            }
        };
        let Self { sink, ears } = self;
        ears.during(sink.send(message)).await?.map_err(Lost::from)
    }

    /// Waits until then, and holds what comes meanwhile.
    pub(in crate::playback) async fn rest(&mut self, until: Instant) -> Result<(), Lost> {
        self.ears.during(tokio::time::sleep_until(until)).await
    }

    /// Holds what has come already, without waiting.
    pub(in crate::playback) async fn hear_now(&mut self) -> Result<(), Lost> {
        while !self.ears.over && self.ears.held_bytes < HELD_BYTES {
            let heard = tokio::select! {
                biased;
                heard = self.ears.listen() => heard?,
                () = std::future::ready(()) => break,
            };
            self.ears.hold(heard);
        }
        Ok(())
    }

    /// Ends the connection without a Close frame, and lets the peer take what it was told: closing with bytes unread would
    /// reset it, and that would be lost.
    pub(in crate::playback) async fn cut(self) {
        let whole = self.sink.reunite(self.ears.stream);
        let mut whole = whole.expect("both are halves of one connection");
        let farewell = async {
            let mut passed = vec![0; PASSED_BYTES];
            let io = whole.get_mut();
            if io.shutdown().await.is_ok() {
                while io.read(&mut passed).await.is_ok_and(|count| count > 0) {}
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }

    /// Closes a connection on which nothing more can be understood.
    pub(in crate::playback) async fn refuse(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::default(),
        };
        let said = timeout(FAREWELL, self.sink.send(Message::Close(Some(frame)))).await;
        if matches!(said, Ok(Ok(()))) {
            self.cut().await;
        }
    }

    /// Closes, as it is told to or in answer to the peer, and lets the peer take what it was told.
    pub(in crate::playback) async fn part(mut self, close: Option<(Option<u16>, &str)>) {
        let farewell = async {
            if let Some((code, reason)) = close {
                let frame = code.map(|code| CloseFrame {
                    code: code.into(),
                    reason: shortened(reason).into(),
                });
                if self.sink.send(Message::Close(frame)).await.is_err() {
                    return;
                }
            }
            while let Some(Ok(_)) = self.ears.stream.next().await {}
        };
        // Whoever does not close in time loses the connection.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ears<S> {
    async fn listen(&mut self) -> Result<Heard, Lost> {
        loop {
            let heard = match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Heard::Said(Kind::Text, text.into()),
                Some(Ok(Message::Binary(bytes))) => Heard::Said(Kind::Binary, bytes),
                Some(Ok(Message::Close(frame))) => {
                    Heard::Closed(frame.map(|frame| frame.code.into()))
                }
                // Only written, never read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => match Lost::from(error) {
                    Lost::Broken(_) => Heard::Gone,
                    lost => return Err(lost),
                },
                None => Heard::Gone,
            };
            self.over = !matches!(heard, Heard::Said(..));
            return Ok(heard);
        }
    }

    /// Does something, and holds what comes meanwhile.
    async fn during<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, Lost> {
        let mut doing = std::pin::pin!(doing);
        loop {
            let may_hold = !self.over && self.held_bytes < HELD_BYTES;
            tokio::select! {
                biased;
                done = &mut doing => return Ok(done),
                heard = self.listen(), if may_hold => {
                    let heard = heard?;
                    self.hold(heard);
                }
            }
        }
    }

    fn hold(&mut self, heard: Heard) {
        self.held_bytes += weight(&heard);
        self.held.push_back(heard);
    }
}

fn weight(heard: &Heard) -> usize {
    MESSAGE_BYTES
        + match heard {
            Heard::Said(_, bytes) => bytes.len(),
            Heard::Closed(_) | Heard::Gone => 0,
        }
}

fn limits(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
}

/// As much of a reason as fits.
fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn pair(room: usize) -> (Peer<tokio::io::DuplexStream>, Peer<tokio::io::DuplexStream>) {
        let (ours, theirs) = duplex(room);
        (
            Peer::server(ours, 1 << 20).await,
            Peer::client(theirs, 8 << 20).await,
        )
    }

    #[tokio::test]
    async fn both_may_speak_at_once_and_nothing_deadlocks() {
        let (mut ours, mut theirs) = pair(64).await;
        let message = Bytes::from(vec![7; 100_000]);
        let same = message.clone();
        let peer = tokio::spawn(async move {
            for _ in 0..2 {
                theirs.say(Kind::Binary, &same).await.unwrap();
            }
            assert_eq!(
                theirs.hear().await.unwrap(),
                Heard::Said(Kind::Binary, same)
            );
            theirs
        });
        ours.say(Kind::Binary, &message).await.unwrap();
        for _ in 0..2 {
            let heard = ours.hear().await.unwrap();
            assert_eq!(heard, Heard::Said(Kind::Binary, message.clone()));
        }
        let theirs = peer.await.unwrap();
        drop(theirs);
        assert_eq!(ours.hear().await.unwrap(), Heard::Gone);
        assert!(ours.has_left());
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_and_what_is_no_frame_are_told_apart() {
        let (mut ours, mut theirs) = pair(8 << 20).await;
        theirs
            .say(Kind::Binary, &Bytes::from(vec![0; (1 << 20) + 1]))
            .await
            .unwrap();
        let lost = ours.hear().await.unwrap_err();
        assert_eq!(
            (lost.code(), lost.to_string().as_str()),
            (Some(1009), "a message is too large")
        );
        let (ours, mut theirs) = duplex(100);
        let mut ours = Peer::server(ours, 100).await;
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(ours.hear().await.unwrap_err().code(), Some(1002));
    }

    #[tokio::test]
    async fn no_more_is_held_than_the_limit() {
        let (mut ours, mut theirs) = pair(4 << 20).await;
        for _ in 0..20 {
            let message = Bytes::from(vec![0; 100_000]);
            theirs.say(Kind::Binary, &message).await.unwrap();
        }
        ours.hear_now().await.unwrap();
        assert_eq!(ours.ears.held.len(), 3);
        for _ in 0..20 {
            assert!(matches!(ours.hear().await.unwrap(), Heard::Said(..)));
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "é".repeat(100);
        assert_eq!(shortened(&long).len(), 122);
        assert_eq!(shortened("short"), "short");
    }
}
