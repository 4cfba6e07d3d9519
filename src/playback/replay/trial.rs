//! One record: carry over, send, read the answer, compare, tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::request::{Prepared, unfit};
use super::{Config, ReplayResult, ResultSink, RunId, RunState, Sending, Verdict};
use crate::metrics::Reason;
use crate::playback::carry::{Carry, Handed};
use crate::playback::diff::{self, Content, Part, Snapshot};
use crate::playback::link::{Connector, Lane, SendError};
use crate::playback::report::{Collector, Report, Totals};
use crate::playback::stored::Stored;
use crate::playback::{Error, Metrics};
use crate::record::{Digest, Digester, Exchange, Headers, RecordId, Response as Recorded, Side};
use crate::store::Store;

/// What all requests of one replay share.
pub(in crate::playback) struct Context {
    pub(in crate::playback) run: RunId,
    pub(super) store: Arc<dyn Store>,
    pub(super) sending: Sending,
    pub(super) carry: Carry,
    /// Heard by the feed and by every lane.
    pub(in crate::playback) cancel: CancellationToken,
    connector: Arc<Connector>,
    permits: Semaphore,
    config: Config,
    circuit: Option<Mutex<Circuit>>,
    /// How long to wait for a chunk that has not arrived.
    patience: Duration,
    progress: Mutex<Collected>,
    sink: Arc<dyn ResultSink>,
    metrics: Metrics,
}

struct Collected {
    results: Collector,
    refused_in_a_row: u64,
}

/// Whether a target that was down is tried again. Pure: the caller brings the time.
#[derive(Debug)]
pub(in crate::playback) struct Circuit {
    retry_every: Duration,
    retry_at: Option<Instant>,
}

impl Circuit {
    pub(in crate::playback) const fn new(retry_every: Duration) -> Self {
        Self {
            retry_every,
            retry_at: None,
        }
    }

    /// Whether a request may be sent; while the target is down, one in each interval may.
    fn may_try(&mut self, now: Instant) -> bool {
        match &mut self.retry_at {
            None => true,
            Some(retry_at) if now >= *retry_at => {
                *retry_at = now + self.retry_every;
                true
            }
            Some(_) => false,
        }
    }

    fn refused(&mut self, now: Instant) {
        self.retry_at = Some(now + self.retry_every);
    }

    const fn reached(&mut self) {
        self.retry_at = None;
    }
}

/// Why a record was not compared.
enum Setback {
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
        config.allowed_targets.check(&sending.target)?;
        let connector = Connector::new(
            sending.target.clone(),
            config.tls.clone(),
            config.connect_timeout,
        )?;
        let run = RunId::new();
        let results = Collector::new(run, sending.target.to_string(), Timestamp::now());
        Ok(Self {
            run,
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
    pub(super) fn expect(&self, exchange: &Exchange) {
        if unfit(exchange).is_none()
            && let Some(recorded) = &exchange.response
        {
            self.carry.expect(handed_inline(recorded));
        }
    }

    /// Takes one record to its end.
    pub(super) async fn perform(&self, lane: &mut Lane, exchange: &Exchange) {
        let mut result = ReplayResult::pending(self.run, exchange);
        let attempt = self.attempt(lane, exchange, &mut result);
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            () = self.cancel.cancelled() => Err(Setback::Cancelled),
        };
        if let Err(setback) = outcome {
            lane.reset();
            if let Some(recorded) = &exchange.response {
                self.carry.abandon(handed_inline(recorded));
            }
            let (verdict, reason) = match setback {
                Setback::Skipped(reason) => (Verdict::Skipped, reason),
                Setback::Down => (Verdict::AnsweredFromRecord, "the target is down".to_owned()),
                Setback::Failed(error) if self.stands_in(&error) => {
                    (Verdict::AnsweredFromRecord, described(&error))
                }
                Setback::Failed(error) => (Verdict::Failed, described(&error)),
                Setback::Store(reason) => (Verdict::Failed, reason),
                Setback::Cancelled => (Verdict::Failed, "cancelled".to_owned()),
            };
            result.verdict = verdict;
            result.reason = Some(reason);
        }
        self.conclude(&result);
    }

    /// A record that cannot be read.
    pub(super) fn skip(&self, record: RecordId, reason: &str) {
        self.conclude(&ReplayResult::skipped(self.run, record, reason));
    }

    fn conclude(&self, result: &ReplayResult) {
        let reason = result.verdict.as_str();
        self.metrics
            .replayed
            .get_or_create(&Reason { reason })
            .inc();
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
        lane: &mut Lane,
        exchange: &Exchange,
        result: &mut ReplayResult,
    ) -> Result<(), Setback> {
        if let Some(reason) = unfit(exchange) {
            return Err(Setback::Skipped(reason.to_owned()));
        }
        let recorded = exchange.response.as_ref().expect("unfit without one");
        // Before a permit is taken: whoever hands the value out may still need one.
        let wait = self.config.request_timeout;
        self.carry.ready(&exchange.request.headers, wait).await;
        let _permit = self.permits.acquire().await.expect("is never closed");
        if let Some(circuit) = &self.circuit
            && !circuit.lock().may_try(Instant::now())
        {
            return Err(Setback::Down);
        }
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
        self.note_reach(&answer);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let broken = prepared.broken.lock().take();
                return Err(broken.map_or(Setback::Failed(error), Setback::Skipped));
            }
        };
        let compared = self.compare(exchange, recorded, &answer, result).await;
        compared.map_err(|error| Setback::Store(described(&error)))
    }

    /// Remembers whether the target can be reached.
    fn note_reach(&self, answer: &Result<Answer, SendError>) {
        let refused = matches!(answer, Err(SendError::Connect { .. }));
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
    ) -> Result<Answer, SendError> {
        let started = Instant::now();
        let sent = lane.send(|| prepared.build()).await;
        result.sent = !matches!(sent, Err(SendError::Connect { .. }));
        let response = sent?;
        let taken = started.elapsed();
        self.metrics.replay_duration.observe(taken.as_secs_f64());
        result.replayed_status = Some(response.status().as_u16());
        result.replayed_first_byte_us = Some(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
        // Of an answer whose end was not recorded, no more is read than was recorded: it may have none.
        let enough = recorded.body.truncated.then_some(recorded.body.bytes);
        let answer = Answer::read(response, self.config.max_compared_body, enough).await?;
        if !answer.ended {
            lane.reset();
        }
        Ok(answer)
    }

    async fn compare(
        &self,
        exchange: &Exchange,
        recorded: &Recorded,
        answer: &Answer,
        result: &mut ReplayResult,
    ) -> Result<(), crate::playback::BodyError> {
        let head = &*exchange.request.method == "HEAD";
        let (old, new) = if head {
            (Content::None, Content::None)
        } else {
            self.contents(exchange, recorded, answer).await?
        };
        let learned = self.carry.settle(
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
        answer: &Answer,
    ) -> Result<(Content, Content), crate::playback::BodyError> {
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

    fn stored(&self, exchange: &Exchange, side: Side, body: &crate::record::Body) -> Stored {
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

/// An error with its chain, for a report.
fn described(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What the target answered.
struct Answer {
    status: u16,
    headers: Headers,
    /// All of the content, where it is small enough to be looked into.
    kept: Option<Bytes>,
    digest: Digest,
    bytes: u64,
    /// Whether it was read to its end.
    ended: bool,
}

impl Answer {
    async fn read(
        response: Response<Incoming>,
        limit: u64,
        enough: Option<u64>,
    ) -> Result<Self, SendError> {
        let status = response.status().as_u16();
        let headers = Headers::from(response.headers());
        let mut body = response.into_body();
        let (mut digester, mut kept, mut bytes) = (Digester::default(), BytesMut::new(), 0);
        let mut ended = true;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(SendError::Broken)?.into_data() else {
                continue;
            };
            bytes += data.len() as u64;
            digester.update(&data);
            if bytes <= limit {
                kept.extend_from_slice(&data);
            } else {
                kept = BytesMut::new();
            }
            if enough.is_some_and(|enough| bytes >= enough) {
                ended = false;
                break;
            }
        }
        Ok(Self {
            status,
            headers,
            kept: (bytes <= limit).then(|| kept.freeze()),
            digest: digester.finish(),
            bytes,
            ended,
        })
    }

    const fn summary(&self) -> Content {
        Content::Digest {
            digest: self.digest,
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_down_is_tried_once_in_each_interval() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut circuit = Circuit::new(second);
        assert!(circuit.may_try(start) && circuit.may_try(start));
        circuit.refused(start);
        assert!(!circuit.may_try(start + second / 2));
        assert!(circuit.may_try(start + second));
        assert!(!circuit.may_try(start + second), "one is on its way");
        assert!(circuit.may_try(start + second * 2));
        circuit.reached();
        assert!(circuit.may_try(start + second * 2));
    }
}
