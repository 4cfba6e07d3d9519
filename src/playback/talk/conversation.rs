//! One client, answered from the candidates until one of both closes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::candidates::{Candidates, Lost, Spoken, Torn, Turn};
use super::mismatch::Mismatch;
use super::{Talker, Visitor};
use crate::playback::Delay;
use crate::playback::script::{Step, Unfit};
use crate::playback::wire::Wire;

/// How a conversation ended.
pub(super) enum Ending {
    /// As recorded.
    Completed,
    /// The client left before the recorded end.
    Left,
    /// The client said nothing, or took nothing, for too long.
    Idle,
    /// The client said what no stream has.
    Mismatch(Box<Mismatch>),
    /// There is no stream to answer from; so many cannot be used.
    Nothing { unfit: usize },
    /// A stream broke off in the store.
    Unreadable(Unfit),
    /// The connection broke.
    Broken(io::Error),
}

impl Ending {
    /// The name used in metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Left => "left",
            Self::Idle => "idle",
            Self::Mismatch(_) => "mismatch",
            Self::Nothing { .. } => "no_record",
            Self::Unreadable(_) => "failed",
            Self::Broken(_) => "broken",
        }
    }
}

pub(super) struct Conversation<'a, S> {
    talker: &'a Talker,
    wire: Wire<S>,
    candidates: Candidates,
    visitor: Visitor,
    spoken: Spoken,
    heard: u64,
    /// The client's close was followed.
    over: bool,
    /// The server's close was.
    closed: bool,
    /// When the last step was done.
    done_at: Instant,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    pub(super) fn new(talker: &'a Talker, connection: S, candidates: Candidates) -> Self {
        Self {
            talker,
            wire: Wire::new(connection),
            visitor: candidates.visitor(),
            candidates,
            spoken: Spoken::default(),
            heard: 0,
            over: false,
            closed: false,
            done_at: Instant::now(),
        }
    }

    /// Goes on until one of both closes; what is due reaches the client in any case.
    pub(super) async fn hold(mut self, client: SocketAddr) -> Ending {
        let ending = loop {
            if let Some(ending) = self.turn(client).await {
                break ending;
            }
        };
        if self.heard == 0
            && !matches!(ending, Ending::Completed)
            && let Some(leader) = self.candidates.leader()
        {
            // A client that only looked in, or a probe, uses no stream up.
            self.talker.seats.release(self.visitor, leader);
        }
        if !matches!(ending, Ending::Broken(_)) {
            self.wire.part().await;
        }
        ending
    }

    async fn turn(&mut self, client: SocketAddr) -> Option<Ending> {
        match self.candidates.turn() {
            Turn::Server => self.speak().await.err(),
            Turn::Open => {
                let settle = self.talker.config.settle;
                if let Ok(Err(error)) = timeout(settle, self.wire.hear()).await {
                    return Some(Ending::Broken(error));
                }
                self.candidates
                    .decide(self.wire.held(), self.wire.is_over() && !self.over);
                None
            }
            Turn::Client if self.candidates.are_through() && (self.over || self.closed) => {
                Some(Ending::Completed)
            }
            Turn::Client if self.over => Some(Ending::Left),
            Turn::Client => {
                match timeout(self.talker.config.idle_timeout, self.wire.hear()).await {
                    Err(_) => Some(Ending::Idle),
                    Ok(Err(error)) => Some(Ending::Broken(error)),
                    Ok(Ok(())) => self.listen(client).await.err(),
                }
            }
        }
    }

    /// The client has said something, or closed.
    async fn listen(&mut self, client: SocketAddr) -> Result<(), Ending> {
        self.done_at = Instant::now();
        if self.wire.is_over() {
            self.over = true;
            return match self.candidates.hear_close().await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Ending::Left),
                Err(torn) => Err(torn.into()),
            };
        }
        match self.candidates.hear(self.wire.held()).await {
            Ok(count) => {
                self.heard += count as u64;
                self.wire.take(count);
                Ok(())
            }
            Err(Lost::Torn(torn)) => Err(torn.into()),
            Err(Lost::Strayed(strayed)) => {
                let config = &self.talker.config;
                let got = self.wire.held();
                let (service, disclosure) = (&config.service, config.disclosure);
                let mismatch = Mismatch::new(client, service, &strayed, got, disclosure);
                Err(Ending::Mismatch(Box::new(mismatch)))
            }
        }
    }

    /// Says what the leader has the server say now.
    async fn speak(&mut self) -> Result<(), Ending> {
        let config = &self.talker.config;
        let leader = self.candidates.lead(&self.spoken, &self.talker.seats);
        let leader = leader.expect("there is one while the server speaks");
        let mut first = true;
        while leader.speaks() {
            let gap = leader
                .step
                .at_us()
                .unwrap_or(0)
                .saturating_sub(leader.before_us);
            let wait = match config.delay {
                Delay::AsRecorded => Duration::from_micros(gap),
                Delay::Fixed(delay) if first => delay,
                Delay::None | Delay::Fixed(_) => Duration::ZERO,
            };
            if !wait.is_zero() {
                let until = self.done_at + wait.min(config.max_delay);
                self.wire.rest(until).await.map_err(Ending::Broken)?;
            }
            let done = async {
                match &leader.step {
                    Step::Said(piece) => {
                        self.spoken.add(&piece.bytes);
                        self.wire.say(&piece.bytes).await
                    }
                    _ => {
                        self.closed = true;
                        self.wire.close().await
                    }
                }
            };
            match timeout(config.idle_timeout, done).await {
                Err(_) => return Err(Ending::Idle),
                Ok(done) => done.map_err(Ending::Broken)?,
            }
            (self.done_at, first) = (Instant::now(), false);
            leader.advance().await.map_err(Ending::Unreadable)?;
        }
        Ok(self.candidates.pass_over().await?)
    }
}

impl From<Torn> for Ending {
    fn from(torn: Torn) -> Self {
        tracing::warn!(record = %torn.record, "the stream that a client follows breaks off");
        Self::Unreadable(torn.why)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::playback::script::tests::script;
    use crate::playback::talk::candidates::Candidate;
    use crate::playback::talk::{Config, Metrics};
    use crate::store;
    use crate::store::embedded::Embedded;

    /// A client of these streams, and how its conversation ends.
    async fn client(
        config: Config,
        streams: &[&str],
    ) -> (DuplexStream, tokio::task::JoinHandle<&'static str>) {
        let folder = tempfile::tempdir().unwrap();
        let limits = store::embedded::Config::new(folder.path().to_owned());
        let store = Arc::new(Embedded::open(limits, store::Metrics::default()).unwrap());
        let talker = Talker::new(store, config, Metrics::default());
        let mut alive = Vec::new();
        for (at, text) in streams.iter().enumerate() {
            let script = script(at as u128 + 1, text);
            alive.push(Candidate::new(script).await.unwrap());
        }
        let candidates = Candidates::new(alive, Visitor::test());
        let (ours, theirs) = duplex(1024);
        let held = tokio::spawn(async move {
            let _folder = folder;
            let client = SocketAddr::from(([10, 0, 0, 1], 5));
            let conversation = Conversation::new(&talker, ours, candidates);
            conversation.hold(client).await.as_str()
        });
        (theirs, held)
    }

    async fn heard(client: &mut DuplexStream, count: usize) -> String {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_says_comes_when_it_came() {
        for (delay, at) in [
            (Delay::None, [0, 0]),
            (Delay::AsRecorded, [1, 3]),
            (Delay::Fixed(Duration::from_millis(7)), [7, 7]),
        ] {
            let mut config = Config::new("svc");
            config.delay = delay;
            // A word each millisecond; `-` is one of the client's.
            let (mut client, held) = client(config, &["c:a s:one c:- s:two c. s."]).await;
            let start = Instant::now();
            client.write_all(b"a").await.unwrap();
            assert_eq!(heard(&mut client, 3).await, "one");
            let first = start.elapsed().as_millis();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let start = Instant::now();
            client.write_all(b"-").await.unwrap();
            assert_eq!(heard(&mut client, 3).await, "two");
            let second = start.elapsed().as_millis();
            client.shutdown().await.unwrap();
            assert_eq!(held.await.unwrap(), "completed");
            let steps = [first, second];
            let expected = if delay == Delay::AsRecorded {
                [1, 1]
            } else {
                at
            };
            assert_eq!(steps, expected, "{delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_another_one_goes_on_with_is_answered_after_a_moment() {
        let streams = ["c:ab s:short c. s.", "c:abc s:long c. s."];
        let (mut one, held) = client(Config::new("svc"), &streams).await;
        one.write_all(b"ab").await.unwrap();
        assert_eq!(heard(&mut one, 5).await, "short");
        one.shutdown().await.unwrap();
        assert_eq!(held.await.unwrap(), "completed");

        let (mut other, held) = client(Config::new("svc"), &streams).await;
        other.write_all(b"ab").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        other.write_all(b"c").await.unwrap();
        assert_eq!(heard(&mut other, 4).await, "long");
        drop(other);
        held.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn every_end_has_its_name() {
        let with = |say: &'static [u8], close: bool| async move {
            let mut config = Config::new("svc");
            config.idle_timeout = Duration::from_secs(5);
            let (mut client, held) = client(config, &["c:ask s:answer c. s."]).await;
            client.write_all(say).await.unwrap();
            if close {
                client.shutdown().await.unwrap();
            }
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            (held.await.unwrap(), String::from_utf8(told).unwrap())
        };
        let ended = |how: &'static str, told: &str| (how, told.to_owned());
        assert_eq!(with(b"ask", true).await, ended("completed", "answer"));
        assert_eq!(with(b"as", true).await, ended("left", ""));
        assert_eq!(with(b"as", false).await, ended("idle", ""));
        assert_eq!(with(b"asK", false).await, ended("mismatch", ""));
        // What is due is said before the connection is closed.
        assert_eq!(with(b"ask more", false).await, ended("mismatch", "answer"));
        assert_eq!(with(b"", true).await, ended("left", ""));
    }

    #[tokio::test]
    async fn a_client_may_say_all_before_it_listens() {
        let streams = ["c:one s:1 c:two s:2 c:three s:3 c. s."];
        let (mut client, held) = client(Config::new("svc"), &streams).await;
        client.write_all(b"onetwothree").await.unwrap();
        client.shutdown().await.unwrap();
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        assert_eq!((told.as_str(), held.await.unwrap()), ("123", "completed"));
    }
}
