//! Answers TCP clients from recorded streams: what the server said, when the client has said what came before it.
//!
//! ```text
//! client --> candidates (recorded streams that begin as the client does) --> leader --> client
//! ```
//!
//! Nothing here connects to a service. A client that says what no stream has is told nothing more: its connection is
//! closed in order, and [`Mismatch`] tells what was expected.

mod candidates;
mod conversation;
mod mismatch;
mod seats;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::script::{Ignore, Script, Shelf, Unfit};
use super::{Delay, Metrics, Repeat};
use crate::record::{Direction, Fingerprint, Outcome, Protocol, RecordId};
use crate::store::{self, Store};
use candidates::{Candidate, Candidates};
use conversation::{Conversation, Ending};
pub use mismatch::{Disclosure, Mismatch};
use seats::{Seats, Visitor};

/// How many streams are read at the same time.
const READ_AHEAD: usize = 16;
/// How many mismatches are remembered.
const REMEMBERED: usize = 10;

/// How clients are answered.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose recorded streams answer.
    pub service: Arc<str>,
    /// What of the client's bytes may be anything.
    pub ignore: Ignore,
    /// How long what the server says waits.
    pub delay: Delay,
    /// The longest wait, whatever was recorded.
    pub max_delay: Duration,
    /// Which of several equal streams is next.
    pub repeat: Repeat,
    /// How long a client may say nothing, or take nothing of what it is told.
    pub idle_timeout: Duration,
    /// Where some streams go on and in others the server speaks: how long it is waited for what the client does.
    pub settle: Duration,
    /// How many streams of the service take part: the first in source order.
    pub max_candidates: usize,
    /// How much of the candidates may be held for one client; those that begin beyond it take no part.
    pub candidate_bytes: usize,
    /// How much of the streams is kept in memory, for all clients together.
    pub shelf_bytes: usize,
    /// Whether what was said is shown where it does not fit.
    pub disclosure: Disclosure,
}

impl Config {
    /// Answers from the streams of `service`, all else by default.
    #[must_use]
    pub fn new(service: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            ignore: Ignore::default(),
            delay: Delay::default(),
            max_delay: Duration::from_secs(60),
            repeat: Repeat::default(),
            idle_timeout: Duration::from_secs(3600),
            settle: Duration::from_millis(20),
            max_candidates: 1000,
            candidate_bytes: 8 << 20,
            shelf_bytes: 8 << 20,
            disclosure: Disclosure::default(),
        }
    }
}

/// Answers the clients of one service.
pub struct Talker {
    config: Config,
    ignore: Arc<Ignore>,
    shelf: Arc<Shelf>,
    seats: Seats,
    /// The newest last.
    mismatches: Mutex<VecDeque<Mismatch>>,
    metrics: Metrics,
}

/// How a service's clients fare.
#[derive(Debug, Clone, Serialize)]
pub struct TalkStatus {
    /// The service.
    pub service: Arc<str>,
    /// The last clients that said what no stream has, the newest last.
    pub mismatches: Vec<Mismatch>,
}

impl Talker {
    /// Answers from the streams in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, config: Config, metrics: Metrics) -> Self {
        Self {
            ignore: Arc::new(config.ignore.clone()),
            shelf: Arc::new(Shelf::new(store, config.shelf_bytes)),
            seats: Seats::new(config.repeat),
            config,
            mismatches: Mutex::default(),
            metrics,
        }
    }

    /// How its clients fare.
    #[must_use]
    pub fn status(&self) -> TalkStatus {
        TalkStatus {
            service: self.config.service.clone(),
            mismatches: self.mismatches.lock().iter().cloned().collect(),
        }
    }

    /// Answers one client until one of both closes.
    pub async fn talk<S>(&self, connection: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        self.metrics.talks_open.inc();
        let _open = Open(&self.metrics);
        let service = &*self.config.service;
        let ending = match self.candidates(Visitor::from(client)).await {
            Ok((candidates, unfit)) if candidates.is_empty() => Ending::Nothing { unfit },
            Ok((candidates, _)) => {
                let conversation = Conversation::new(self, connection, candidates);
                conversation.hold(client).await
            }
            Err(error) => Ending::Unreadable(Unfit::Store(error)),
        };
        Metrics::count(&self.metrics.talks, ending.as_str());
        match ending {
            Ending::Mismatch(mismatch) => {
                mismatch.log();
                let mut last = self.mismatches.lock();
                if last.len() >= REMEMBERED {
                    last.pop_front();
                }
                last.push_back(*mismatch);
            }
            Ending::Nothing { unfit } => tracing::warn!(
                %client,
                service,
                unfit,
                "no recorded stream of this service can answer: closed"
            ),
            Ending::Unreadable(why) => {
                let error = &why as &dyn std::error::Error;
                tracing::error!(%client, service, error, "the recorded streams cannot be read: closed");
            }
            Ending::Broken(error) => tracing::debug!(%client, service, %error, "client gone"),
            other => tracing::debug!(%client, service, ended = other.as_str(), "client answered"),
        }
    }

    /// The streams that can answer, in the order in which they began, and how many there are that cannot.
    async fn candidates(&self, visitor: Visitor) -> Result<(Candidates, usize), store::Error> {
        let print = Fingerprint::of_streams(Protocol::Tcp, &self.config.service);
        let limit = self.config.max_candidates;
        let store = self.shelf.store();
        let mut ids = match self.config.repeat {
            Repeat::Latest => store.newest(print, limit).await?,
            Repeat::Last | Repeat::Loop => store.lookup(print, limit).await?,
        };
        ids.sort_unstable();
        let newest_first = self.config.repeat == Repeat::Latest;
        if newest_first {
            // Those that there is no room for are to be the oldest.
            ids.reverse();
        }
        let mut reading =
            stream::iter(ids.into_iter().map(|id| self.candidate(id))).buffered(READ_AHEAD);
        let (mut fit, mut unfit, mut held) = (Vec::new(), 0, 0);
        while let Some(read) = reading.next().await {
            if held > self.config.candidate_bytes {
                self.metrics.talks_crowded.inc();
                break;
            }
            match read {
                Ok(candidate) => {
                    held += candidate.held();
                    fit.push(candidate);
                }
                Err(Unfit::Store(error)) if !matches!(error, store::Error::Sealed { .. }) => {
                    return Err(error);
                }
                Err(why) => {
                    tracing::debug!(service = &*self.config.service, %why, "a stream cannot answer");
                    unfit += 1;
                }
            }
        }
        drop(reading);
        if newest_first {
            fit.reverse();
        }
        Ok((Candidates::new(fit, visitor), unfit))
    }

    async fn candidate(&self, id: RecordId) -> Result<Candidate, Unfit> {
        let stream = self.shelf.stream(id).await?;
        if let (Outcome::UpstreamFailed(..), 0) = (&stream.outcome, stream.server_bytes) {
            // The service was there, took the connection, and broke it without a word.
            return Err(Unfit::NoService);
        }
        let (ignore, shelf) = (self.ignore.clone(), self.shelf.clone());
        let script = Script::new(stream, Direction::Client, ignore, shelf, Duration::ZERO)?;
        Candidate::new(script).await
    }
}

/// Counts an open connection for as long as it lives.
struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.talks_open.dec();
    }
}

impl std::fmt::Debug for Talker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talker")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use bytes::Bytes;

    use super::*;
    use crate::playback::script::tests::{batch, stream as summary};
    use crate::record::{Item, Record, Sequence, Stream, wire};
    use crate::store::embedded::Embedded;
    use crate::store::{Arrival, Batch};

    const LENGTH: usize = 50_000;

    fn arrival(item: &Item) -> Arrival {
        let mut bytes = Vec::new();
        wire::encode(item, &mut bytes);
        let fingerprint = match item {
            Item::Record(Record::Stream(stream)) => {
                Some(Fingerprint::of_streams(stream.protocol, &stream.service))
            }
            _ => None,
        };
        Arrival {
            decoded: wire::decode_one(&Bytes::from(bytes)).unwrap(),
            fingerprint,
        }
    }

    /// A store with so many streams of one long question each, changed like that.
    async fn store(
        folder: &std::path::Path,
        count: u64,
        change: impl Fn(u64, &mut Stream),
    ) -> Arc<dyn Store> {
        let limits = store::embedded::Config::new(folder.to_owned());
        let store = Embedded::open(limits, store::Metrics::default()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let start = RecordId::floor_at(i64::try_from(now.as_micros()).unwrap()).as_u128();
        let mut arrivals = Vec::new();
        for at in 0..count {
            let question = Bytes::from(vec![b'x'; LENGTH]);
            let mut said = batch(0, vec![(Direction::Client, 0, question)]);
            let mut stream = summary(start + u128::from(at), std::slice::from_ref(&said));
            said.record = stream.id;
            said.origin.seq = Sequence(at * 2 + 1);
            stream.origin.seq = Sequence(at * 2 + 2);
            change(at, &mut stream);
            arrivals.push(arrival(&Item::Segments(said)));
            arrivals.push(arrival(&Item::Record(Record::Stream(Box::new(stream)))));
        }
        let batch = Batch {
            arrivals,
            ..Batch::default()
        };
        store.put(batch).await.unwrap();
        Arc::new(store)
    }

    async fn candidates(store: &Arc<dyn Store>, config: Config) -> (Vec<u128>, usize, u64) {
        let metrics = Metrics::default();
        let talker = Talker::new(store.clone(), config, metrics.clone());
        let (candidates, unfit) = talker.candidates(Visitor::test()).await.unwrap();
        (candidates.ids(), unfit, metrics.talks_crowded.get())
    }

    #[tokio::test]
    async fn no_more_is_held_of_candidates_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), 20, |_, _| ()).await;
        let (ids, _, crowded) = candidates(&store, Config::new("svc")).await;
        assert_eq!((ids.len(), crowded), (20, 0));
        let mut config = Config::new("svc");
        config.candidate_bytes = LENGTH * 8;
        let (first, _, crowded) = candidates(&store, config.clone()).await;
        assert_eq!((first.as_slice(), crowded), (&ids[..first.len()], 1));
        assert!((3..=9).contains(&first.len()), "{first:?}");
        config.repeat = Repeat::Latest;
        let (newest, _, crowded) = candidates(&store, config).await;
        assert_eq!((newest.as_slice(), crowded), (&ids[20 - newest.len()..], 1));
        let mut config = Config::new("svc");
        config.max_candidates = 7;
        assert_eq!(candidates(&store, config).await.0, ids[..7]);
    }

    #[tokio::test]
    async fn streams_that_are_not_whole_or_never_had_a_service_do_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), 5, |at, stream| match at {
            0 => stream.truncated = true,
            1 => stream.upstream = None,
            2 => stream.client_bytes += 1,
            3 => stream.service = "other".into(),
            _ => {}
        })
        .await;
        let (ids, unfit, _) = candidates(&store, Config::new("svc")).await;
        // What is inconsistent shows when it is read to its end.
        assert_eq!((ids.len(), unfit), (2, 2));
    }
}
