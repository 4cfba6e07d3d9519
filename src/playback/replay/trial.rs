//! One record: carry over, send, read the answer, compare, tell.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::circuit::Circuit;
use super::reply::Reply;
use super::request::{Prepared, unfit};
use super::web_socket::is_web_socket;
use super::{Config, ReplayResult, ResultSink, RunId, RunState, Sending, StandIn, Verdict};
use crate::playback::carry::{Carry, Handed};
use crate::playback::diff::{self, Content, Part, Snapshot};
use crate::playback::link::{Connector, Lane, SendError};
use crate::playback::pace::Speed;
use crate::playback::report::{Collector, Report, Totals};
use crate::playback::script::{Ignore, Shelf};
use crate::playback::stored::Stored;
use crate::playback::{BodyError, Error, Metrics, described};
use crate::record::{Body, Exchange, RecordId, Response as Recorded, Side};
use crate::store::Store;

/// How much of streams that were read lately is kept.
const SHELF_BYTES: usize = 1 << 20;

/// What all requests of one replay share.
pub(in crate::playback) struct Context {
    pub(in crate::playback) run: RunId,
    pub(super) store: Arc<dyn Store>,
    pub(super) sending: Sending,
    pub(super) carry: Carry,
    /// Heard by the feed and by every lane.
    pub(in crate::playback) cancel: CancellationToken,
    /// How fast a stream's own turns follow each other.
    pub(super) speed: Speed,
    pub(super) shelf: Arc<Shelf>,
    pub(super) ignore_bytes: Arc<Ignore>,
    pub(super) connector: Arc<Connector>,
    pub(super) permits: Semaphore,
    config: Config,
    circuit: Option<Mutex<Circuit>>,
    /// How long to wait for a chunk that has not arrived.
    pub(super) patience: Duration,
    progress: Mutex<Collected>,
    sink: Arc<dyn ResultSink>,
    pub(super) metrics: Metrics,
}

struct Collected {
    results: Collector,
    refused_in_a_row: u64,
}

/// Why a record was not compared.
pub(super) enum Setback {
    Skipped(String),
    /// The target is known to be down.
    Down,
    Failed(SendError),
    Store(String),
    Cancelled,
}

impl Context {
    /// Checks the target and what `sending` asks for.
    pub(in crate::playback) fn new(
        store: Arc<dyn Store>,
        config: &Config,
        sending: Sending,
        sink: Arc<dyn ResultSink>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let connector = config.way_to(&sending.target)?;
        let run = RunId::new();
        let results = Collector::new(run, sending.target.to_string(), Timestamp::now());
        Ok(Self {
            run,
            speed: Speed::Max,
            shelf: Arc::new(Shelf::new(store.clone(), SHELF_BYTES)),
            ignore_bytes: Arc::new(sending.ignore_bytes.clone()),
            store,
            permits: Semaphore::new(config.concurrency_of(&sending)?),
            carry: Carry::new(sending.carry.clone()),
            cancel: CancellationToken::new(),
            connector: Arc::new(connector),
            config: config.clone(),
            circuit: None,
            patience: Duration::ZERO,
            progress: Mutex::new(Collected {
                results,
                refused_in_a_row: 0,
            }),
            sending,
            sink,
            metrics,
        })
    }

    /// For records that have just arrived: their chunks may still be on the way, and a target that is down
    /// does not make them fail.
    pub(in crate::playback) fn live(mut self, circuit: Circuit, patience: Duration) -> Self {
        self.circuit = Some(Mutex::new(circuit));
        self.patience = patience;
        self
    }

    /// For a run with a pace of its own.
    pub(super) const fn paced(mut self, speed: Speed) -> Self {
        self.speed = speed;
        self
    }

    pub(in crate::playback) fn lane(&self) -> Lane {
        Lane::new(self.connector.clone())
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(in crate::playback) fn totals(&self) -> Totals {
        self.progress.lock().results.totals()
    }

    pub(super) fn started(&self) -> Timestamp {
        self.progress.lock().results.started()
    }

    pub(in crate::playback) fn report(&self, state: RunState, ended: Option<Timestamp>) -> Report {
        self.progress.lock().results.report(state, ended)
    }

    pub(super) fn finished(&self, report: &Report) {
        self.sink.finished(report);
    }

    /// Whether so many connections failed in a row that going on makes no sense.
    pub(super) fn is_hopeless(&self) -> bool {
        self.circuit.is_none() && self.progress.lock().refused_in_a_row >= self.config.give_up_after
    }

    /// Announces what the recorded answer hands out, so that later requests wait for it.
    pub(super) fn expect(&self, ticket: u64, exchange: &Exchange) {
        if unfit(exchange).is_none()
            && let Some(recorded) = &exchange.response
        {
            self.carry.expect(ticket, handed_inline(recorded));
        }
    }

    /// Takes one record to its end.
    pub(super) async fn perform(&self, ticket: u64, lane: &mut Lane, exchange: &Exchange) {
        let mut result = ReplayResult::pending(self.run, exchange);
        let attempt = self.attempt(ticket, lane, exchange, &mut result);
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            () = self.cancel.cancelled() => Err(Setback::Cancelled),
        };
        if let Err(setback) = outcome {
            lane.reset();
            if let Some(recorded) = &exchange.response {
                self.carry.abandon(ticket, handed_inline(recorded));
            }
            let (verdict, reason) = self.judge(setback);
            result.verdict = verdict;
            result.reason = Some(reason);
            if verdict == Verdict::AnsweredFromRecord {
                let recorded = exchange.response.as_ref();
                result.answer = recorded.map(StandIn::of).map(Box::new);
            }
        }
        self.conclude(&result);
    }

    /// What a setback comes to.
    pub(super) fn judge(&self, setback: Setback) -> (Verdict, String) {
        match setback {
            Setback::Skipped(reason) => (Verdict::Skipped, reason),
            Setback::Down => (Verdict::AnsweredFromRecord, "the target is down".to_owned()),
            Setback::Failed(error) if self.stands_in(&error) => {
                (Verdict::AnsweredFromRecord, described(&error))
            }
            Setback::Failed(error) => (Verdict::Failed, described(&error)),
            Setback::Store(reason) => (Verdict::Failed, reason),
            Setback::Cancelled => (Verdict::Failed, "cancelled".to_owned()),
        }
    }

    /// A record that cannot be read.
    pub(super) fn skip(&self, record: RecordId, reason: &str) {
        self.conclude(&ReplayResult::skipped(self.run, record, reason));
    }

    pub(super) fn conclude(&self, result: &ReplayResult) {
        let verdict = result.verdict.as_str();
        Metrics::count(&self.metrics.replayed, verdict);
        self.metrics.carried.inc_by(result.carried);
        self.progress.lock().results.add(result);
        self.sink.result(result);
    }

    /// Whether the record answers in place of a target that cannot be reached.
    fn stands_in(&self, error: &SendError) -> bool {
        self.circuit.is_some() && matches!(error, SendError::Connect { .. })
    }

    async fn attempt(
        &self,
        ticket: u64,
        lane: &mut Lane,
        exchange: &Exchange,
        result: &mut ReplayResult,
    ) -> Result<(), Setback> {
        if let Some(reason) = unfit(exchange) {
            return Err(Setback::Skipped(reason.to_owned()));
        }
        if !self.sending.target.scheme().is_http() {
            let why =
                "it is an HTTP exchange, and the target takes bytes: give it as http://host:port";
            return Err(Setback::Skipped(why.to_owned()));
        }
        if is_web_socket(exchange) {
            return self.attempt_web_socket(ticket, exchange, result).await;
        }
        let recorded = exchange.response.as_ref().expect("unfit without one");
        // Before a permit is taken: whoever hands the value out may still need one.
        let wait = self.config.request_timeout;
        let used = &exchange.request.headers;
        self.carry.ready(ticket, used, wait).await;
        let _permit = self.permits.acquire().await.expect("is never closed");
        self.may_try()?;
        let mut fields = exchange.request.headers.clone();
        result.carried = self.carry.apply(&mut fields);
        let body = self.stored(exchange, Side::Request, &exchange.request.body);
        let prepared = Prepared::new(exchange, &fields, body, &self.sending, self.run)
            .map_err(|reason| Setback::Skipped(reason.to_owned()))?;
        self.metrics.headers_dropped.inc_by(prepared.dropped);
        let answer = tokio::time::timeout(
            self.config.request_timeout,
            self.exchange(lane, &prepared, recorded, result),
        )
        .await
        .unwrap_or(Err(SendError::Timeout));
        result.sent = prepared.sent.load(Ordering::Relaxed);
        self.note_reach(matches!(answer, Err(SendError::Connect { .. })));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let broken = prepared.broken.lock().take();
                return Err(broken.map_or(Setback::Failed(error), Setback::Skipped));
            }
        };
        let compared = self
            .compare(ticket, exchange, recorded, &answer, result)
            .await;
        compared.map_err(|error| Setback::Store(described(&error)))
    }

    /// Whether the target may be tried now; one that is down is from time to time.
    pub(super) fn may_try(&self) -> Result<(), Setback> {
        match &self.circuit {
            Some(circuit) if !circuit.lock().may_try(Instant::now()) => Err(Setback::Down),
            _ => Ok(()),
        }
    }

    /// Remembers whether the target can be reached.
    pub(super) fn note_reach(&self, refused: bool) {
        if let Some(circuit) = &self.circuit {
            let mut circuit = circuit.lock();
            if refused {
                circuit.refused(Instant::now());
            } else {
                circuit.reached();
            }
        }
        let mut progress = self.progress.lock();
        progress.refused_in_a_row = if refused {
            progress.refused_in_a_row + 1
        } else {
            0
        };
    }

    async fn exchange(
        &self,
        lane: &mut Lane,
        prepared: &Prepared,
        recorded: &Recorded,
        result: &mut ReplayResult,
    ) -> Result<Reply, SendError> {
        let started = Instant::now();
        let response = lane.send(|| prepared.build()).await?;
        let taken = started.elapsed();
        self.metrics.replay_duration.observe(taken.as_secs_f64());
        result.replayed_status = Some(response.status().as_u16());
        result.replayed_first_byte_us = Some(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
        // Of an answer whose end was not recorded, no more is read than was recorded: it may have none.
        let enough = recorded.body.truncated.then_some(recorded.body.bytes);
        let answer = Reply::read(response, self.config.max_compared_body, enough).await?;
        if !answer.ended {
            lane.reset();
        }
        Ok(answer)
    }

    async fn compare(
        &self,
        ticket: u64,
        exchange: &Exchange,
        recorded: &Recorded,
        answer: &Reply,
        result: &mut ReplayResult,
    ) -> Result<(), BodyError> {
        let head = &*exchange.request.method == "HEAD";
        let (old, new) = if head {
            (Content::None, Content::None)
        } else {
            self.contents(exchange, recorded, answer).await?
        };
        let learned = self.carry.settle(
            ticket,
            Handed {
                headers: &recorded.headers,
                content: match &old {
                    Content::Whole(bytes) => bytes,
                    _ => &recorded.body.inline,
                },
            },
            Handed {
                headers: &answer.headers,
                content: answer.kept.as_deref().unwrap_or_default(),
            },
        );
        let side = |status, headers, content| Snapshot {
            status,
            headers,
            content,
        };
        let old = side(recorded.status, &recorded.headers, old);
        let new = side(answer.status, &answer.headers, new);
        let mut comparison = diff::compare(&old, &new, &self.sending.diff);
        // A token that was carried over differs by nature.
        let explained = |d: &diff::Difference| {
            d.part == Part::Body && d.change == diff::Change::Changed && learned.contains(&d.path)
        };
        comparison.differences.retain(|d| !explained(d));
        result.verdict = if comparison.is_same() {
            Verdict::Same
        } else {
            Verdict::Different
        };
        result.differences = comparison.differences;
        result.more_differences = comparison.more;
        result.notes = comparison.notes;
        Ok(())
    }

    /// Both contents, as far as they have to be known.
    async fn contents(
        &self,
        exchange: &Exchange,
        recorded: &Recorded,
        answer: &Reply,
    ) -> Result<(Content, Content), BodyError> {
        let body = &recorded.body;
        let new = match &answer.kept {
            Some(kept) => Content::Whole(kept.clone()),
            None => answer.summary(),
        };
        if body.truncated {
            return Ok((Content::Unknown, new));
        }
        let old = Content::Digest {
            digest: body.digest,
            bytes: body.bytes,
        };
        if answer.kept.is_none() || body.bytes > self.config.max_compared_body {
            return Ok((old, answer.summary()));
        }
        if old == answer.summary() {
            return Ok((new.clone(), new));
        }
        let stored = self.stored(exchange, Side::Response, body);
        let old = stored.read(self.config.max_compared_body).await?;
        Ok((old.map_or(Content::Unknown, Content::Whole), new))
    }

    pub(super) fn stored(&self, exchange: &Exchange, side: Side, body: &Body) -> Stored {
        Stored {
            store: self.store.clone(),
            record: exchange.id,
            side,
            body: body.clone(),
            patience: self.patience,
        }
    }
}

/// What a lane's connection says of a recorded answer that stands in its record.
fn handed_inline(recorded: &Recorded) -> Handed<'_> {
    Handed {
        headers: &recorded.headers,
        content: &recorded.body.inline,
    }
}
