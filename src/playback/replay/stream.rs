//! One recorded stream against the target: its client's side is sent, turn by turn, and what the target says is compared.
//!
//! What the client said waits for the answers that were recorded before it, and for its recorded time where the pace asks
//! for that. Where an answer differs the rest of it is let pass, until the target is silent, and the stream goes on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::trial::{Context, Setback};
use super::{ReplayResult, Streams, Verdict};
use crate::playback::described;
use crate::playback::diff::{Difference, Part};
use crate::playback::link::{Duplex, SendError};
use crate::playback::pace::Speed;
use crate::playback::script::{Piece, Script, Step, Unfit, dump};
use crate::playback::wire::Wire;
use crate::record::{Direction, Stream};

/// How long a target whose answer differs has to be silent before its answer counts as over.
const SILENCE: Duration = Duration::from_millis(200);
/// How long a target has to close where it is recorded that it did.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

impl Context {
    /// Takes one stream to its end.
    pub(super) async fn perform_stream(&self, stream: &Stream) {
        let mut result = ReplayResult::of_stream(self.run, stream);
        let outcome = tokio::select! {
            outcome = self.attempt_stream(stream, &mut result) => outcome,
            () = self.cancel.cancelled() => Err(Setback::Cancelled),
        };
        match outcome {
            Ok(()) if result.differences.is_empty() => result.verdict = Verdict::Same,
            Ok(()) => result.verdict = Verdict::Different,
            Err(setback) => {
                let (verdict, reason) = self.judge(setback);
                (result.verdict, result.reason) = (verdict, Some(reason));
            }
        }
        self.conclude(&result);
    }

    async fn attempt_stream(
        &self,
        stream: &Stream,
        result: &mut ReplayResult,
    ) -> Result<(), Setback> {
        if stream.exchange.is_some() {
            return Err(unfit(Unfit::Upgraded));
        }
        if self.sending.streams == Streams::Skipped {
            let why =
                "it is a TCP stream: ask for its service, for protocol tcp, or for a tcp:// target";
            return Err(Setback::Skipped(why.to_owned()));
        }
        let script = Script::new(
            Arc::new(stream.clone()),
            Direction::Server,
            self.ignore_bytes.clone(),
            self.shelf.clone(),
            self.patience,
        );
        let mut script = script.map_err(unfit)?;
        // Before anything is sent: a stream of which nothing can be read is skipped, not failed.
        let step = script.next().await.map_err(unfit)?;
        let _permit = self.permits.acquire().await.expect("is never closed");
        self.may_try()?;
        let connected = self.connector.raw().await;
        self.note_reach(matches!(connected, Err(SendError::Connect { .. })));
        let connection = connected.map_err(Setback::Failed)?;
        result.sent = true;
        let walk = Walk {
            context: self,
            wire: Wire::new(connection),
            result,
            started: Instant::now(),
            spoke: (Instant::now(), 0),
            letting_pass: false,
            closed: false,
        };
        walk.run(script, step).await
    }
}

pub(super) fn unfit(why: Unfit) -> Setback {
    match why {
        Unfit::Store(crate::store::Error::Sealed { source, .. }) => {
            Setback::Skipped(format!("it is sealed: {source}"))
        }
        Unfit::Store(_) => Setback::Store(described(&why)),
        _ => Setback::Skipped(why.to_string()),
    }
}

/// One stream on its way.
struct Walk<'a> {
    context: &'a Context,
    wire: Wire<Box<dyn Duplex>>,
    result: &'a mut ReplayResult,
    started: Instant,
    /// When the client last said something, now and as recorded.
    spoke: (Instant, u64),
    /// The rest of the answer was heard: it differs.
    letting_pass: bool,
    /// The target has closed, as it did then.
    closed: bool,
}

impl Walk<'_> {
    async fn run(mut self, mut script: Script, mut step: Step) -> Result<(), Setback> {
        loop {
            match &step {
                Step::Said(piece) if piece.from == Direction::Client => self.say(piece).await?,
                Step::Said(piece) => self.compare(piece).await?,
                Step::Closed { by, at_us } if *by == Direction::Client => {
                    self.due(*at_us).await?;
                    self.wire.close().await.map_err(broken)?;
                }
                Step::Closed { .. } => self.expect_close(&script).await?,
                Step::End => break,
            }
            step = script.next().await.map_err(|why| match unfit(why) {
                // Half of it has been sent by now.
                Setback::Skipped(reason) => Setback::Store(reason),
                other => other,
            })?;
        }
        self.wire.hear_now().await.map_err(broken)?;
        self.surplus(&script);
        Ok(())
    }

    async fn say(&mut self, piece: &Piece) -> Result<(), Setback> {
        self.letting_pass = false;
        self.due(piece.at_us).await?;
        if self.wire.is_over() && !self.closed {
            return Err(gone());
        }
        let said = self.wire.say(&piece.bytes);
        match timeout(self.context.config().request_timeout, said).await {
            Err(_) => return Err(Setback::Failed(SendError::Timeout)),
            Ok(said) => said.map_err(broken)?,
        }
        self.spoke = (Instant::now(), piece.last_us);
        Ok(())
    }

    /// Waits until what the client did at this time is due.
    async fn due(&mut self, at_us: u64) -> Result<(), Setback> {
        let until = match self.context.speed {
            Speed::Factor(factor) => {
                self.started + Duration::from_micros(at_us).div_f64(factor.max(0.01))
            }
            Speed::Max | Speed::Rate(_) => Instant::now(),
        };
        // Also where it need not wait: a target that has closed is noticed.
        self.wire.rest(until).await.map_err(broken)
    }

    /// Hears as much as was recorded, and compares it.
    async fn compare(&mut self, piece: &Piece) -> Result<(), Setback> {
        if self.letting_pass {
            return Ok(());
        }
        let mut done = 0;
        while done < piece.bytes.len() {
            let heard = timeout(self.context.config().request_timeout, self.wire.hear()).await;
            let heard = match heard {
                Err(_) => Err(Setback::Failed(SendError::Timeout)),
                Ok(Err(error)) => Err(broken(error)),
                Ok(Ok(())) if self.wire.is_over() => Err(gone()),
                Ok(Ok(())) => Ok(()),
            };
            if let Err(setback) = heard {
                self.differs(piece, done, None);
                return Err(setback);
            }
            self.first_byte(piece);
            let held = self.wire.held();
            let count = held.len().min(piece.bytes.len() - done);
            if let Some(at) = piece.difference(done, &held[..count]) {
                let got = dump(held, at - done, piece.offset + done as u64);
                self.differs(piece, at, Some(got));
                return self.let_pass().await;
            }
            self.wire.take(count);
            done += count;
        }
        Ok(())
    }

    fn first_byte(&mut self, piece: &Piece) {
        if self.result.replayed_first_byte_us.is_none() {
            let taken = self.spoke.0.elapsed();
            let metrics = &self.context.metrics;
            metrics.replay_duration.observe(taken.as_secs_f64());
            let micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
            self.result.replayed_first_byte_us = Some(micros);
            self.result.recorded_first_byte_us = Some(piece.at_us.saturating_sub(self.spoke.1));
        }
    }

    /// Hears the rest of an answer that differs.
    async fn let_pass(&mut self) -> Result<(), Setback> {
        self.letting_pass = true;
        let silence = async {
            loop {
                self.wire.take(self.wire.held().len());
                match timeout(SILENCE, self.wire.hear()).await {
                    Err(_) => return Ok(()),
                    Ok(Ok(())) if self.wire.is_over() => return Ok(()),
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(broken(error)),
                }
            }
        };
        // A target that never falls silent has its turn taken away.
        match timeout(self.context.config().request_timeout, silence).await {
            Ok(passed) => passed,
            Err(_) => Ok(()),
        }
    }

    async fn expect_close(&mut self, script: &Script) -> Result<(), Setback> {
        self.closed = true;
        let patience = CLOSE_PATIENCE.min(self.context.config().request_timeout);
        let deadline = Instant::now() + patience;
        loop {
            match tokio::time::timeout_at(deadline, self.wire.hear()).await {
                Err(_) => {
                    let (old, new) = (Some("the server closes"), Some("it stays open"));
                    self.add(Difference::new(Part::Stream, "close", old, new));
                    return Ok(());
                }
                // A reset is a close, too.
                Ok(Err(_)) => return Ok(()),
                Ok(Ok(())) if self.wire.is_over() => return Ok(()),
                Ok(Ok(())) => self.surplus(script),
            }
        }
    }

    /// What is held now was never recorded.
    fn surplus(&mut self, script: &Script) {
        let held = self.wire.held();
        if !held.is_empty() && !self.letting_pass {
            let offset = script.said(Direction::Server);
            let got = dump(held, 0, offset);
            let path = format!("byte {offset}");
            self.add(Difference::new(Part::Stream, &path, None, Some(&got)));
            self.letting_pass = true;
        }
        self.wire.take(self.wire.held().len());
    }

    fn differs(&mut self, piece: &Piece, at: usize, got: Option<String>) {
        let path = format!("byte {}", piece.offset + at as u64);
        let recorded = dump(&piece.bytes, at, piece.offset);
        let (old, new) = (Some(recorded.as_str()), got.as_deref());
        self.add(Difference::new(Part::Stream, &path, old, new));
    }

    fn add(&mut self, difference: Difference) {
        let most = self.context.sending.diff.max_differences;
        self.result.differs(difference, most);
    }
}

fn broken(error: io::Error) -> Setback {
    Setback::Failed(SendError::Cut(error))
}

fn gone() -> Setback {
    let why = "the target closed the connection before the recorded end";
    Setback::Failed(SendError::Cut(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        why,
    )))
}
