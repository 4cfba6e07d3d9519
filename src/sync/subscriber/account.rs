//! What the subscriber does between messages: look for gaps, ask, acknowledge, show.

use std::collections::HashMap;

use qproxy_mqtt::QoS;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::record::{Epoch, NodeId, SequenceRange};

use super::super::notice::{self, Ack, ResendAnswer};
use super::super::repair::{Key, Request};
use super::super::status::LifeStatus;
use super::super::topics::Topic;
use crate::store::{self, Batch};

use super::super::error::chain;
use super::driver::{Commit, Running, with};

impl Running<'_> {
    /// Looks for gaps, asks for them, acknowledges what moved, shows the state.
    pub(super) async fn tick(&mut self, shutdown: &CancellationToken) {
        let now = Instant::now();
        if self.accounts {
            self.look_into_the_store().await;
            let overdue = self
                .ledger
                .overdue(self.subscriber.config.repair.gap_delay, now);
            let hopeless: Vec<_> = self.repair.given_up(&overdue, now).cloned().collect();
            for gap in hopeless {
                self.lose(&(gap.node, gap.epoch), gap.range);
            }
            for request in self.repair.plan(&overdue, now) {
                self.ask(request);
            }
            self.write_losses(shutdown).await;
            self.acknowledge(now);
        }
        self.show();
    }

    /// Takes over what others of the group have settled, or what is left after the store was away.
    async fn look_into_the_store(&mut self) {
        if self.subscriber.config.scope.group.is_none() && !self.store_was_away {
            return;
        }
        match self.subscriber.store.settled().await {
            Ok(stored) if self.store_was_away => {
                self.ledger.reload(stored);
                self.store_was_away = false;
            }
            Ok(stored) => self.ledger.merge(stored),
            Err(error) => self.subscriber.refused(&error),
        }
    }

    pub(super) fn ask(&self, request: Request) {
        let topic = self.subscriber.topics.command(&request.node, "resend");
        let control = self.subscriber.control.clone();
        tracing::debug!(node = %request.node, ?request.body, "asking for what is missing");
        self.asked.push(Box::pin(async move {
            let key = (request.node, Epoch(request.body.epoch));
            let answer = match control.query(topic, notice::write(&request.body)).await {
                Ok(answer) => notice::read(&answer).map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            (key, answer)
        }));
    }

    pub(super) fn answered(&mut self, key: &Key, answer: Result<ResendAnswer, String>) {
        let asked = &self.subscriber.metrics.resends_asked;
        match answer {
            Ok(answer) => {
                asked.get_or_create(&"answered".into()).inc();
                for range in self.repair.answered(key, &answer, Instant::now()) {
                    self.lose(key, range);
                }
            }
            Err(error) => {
                asked.get_or_create(&"failed".into()).inc();
                tracing::debug!(node = %key.0, error, "recorder did not send again");
                self.repair.failed(key, Instant::now());
            }
        }
    }

    pub(super) fn lose(&mut self, key: &Key, range: SequenceRange) {
        let lost = self.ledger.told_lost(&key.0, key.1, range);
        if lost > 0 {
            self.subscriber.metrics.lost.inc_by(lost);
            self.lost_written = false;
            tracing::error!(node = %key.0, epoch = key.1.0, first = range.first, last = range.last, lost, "lost");
        }
    }

    /// Settles the places of a message that is refused for its size: asked for again it would come as large again.
    pub(super) fn lose_places(&mut self, message: &qproxy_mqtt::Message) {
        self.subscriber.metrics.too_large.inc();
        let Some(Topic::Items(node)) = self.subscriber.topics.parse(&message.topic) else {
            return;
        };
        if !self.accounts {
            return;
        }
        let places = self.intake.places(&node, &message.payload).into_iter();
        let lost: u64 = places
            .map(|(epoch, range)| self.ledger.told_lost(&node, epoch, range))
            .sum();
        self.count_lost(lost);
        tracing::error!(%node, lost, "lost: the message is too large");
    }

    /// Refuses messages that no store takes: what they brought is lost.
    pub(super) fn give_up(
        &mut self,
        batch: Batch,
        messages: &[qproxy_mqtt::Message],
        error: &store::Error,
    ) {
        let why = chain(error);
        for message in messages {
            self.subscriber.metrics.too_large.inc();
            self.quarantine(message, &why);
        }
        let lost = self.ledger.refused(batch.news);
        self.count_lost(lost);
        tracing::error!(
            lost,
            error = why,
            "lost: the store takes no batch this large"
        );
    }

    fn count_lost(&mut self, lost: u64) {
        if lost > 0 {
            self.subscriber.metrics.lost.inc_by(lost);
            self.lost_written = false;
        }
    }

    /// Losses, and what a limit made us forget, are committed by themselves: nothing may arrive for a long time.
    pub(super) async fn write_losses(&mut self, shutdown: &CancellationToken) {
        if self.lost_written && !self.ledger.has_forgotten() {
            return;
        }
        let batch = with(self.ledger.take_changed(), Vec::new());
        self.lost_written = self.commit(batch, &[], shutdown).await == Commit::Done;
    }

    /// Tells each recorder what is committed, where that moved or enough time has passed.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        self.since_ack = 0;
        if !self.accounts {
            return;
        }
        let idle = now >= self.idle_ack_due;
        if idle {
            self.idle_ack_due = now + self.subscriber.config.ack_idle;
        }
        let delay = self.subscriber.config.repair.gap_delay;
        let mut newest: HashMap<&NodeId, Epoch> = HashMap::new();
        for (node, epoch, _) in self.ledger.lives() {
            newest.insert(node, epoch);
        }
        for (node, epoch, life) in self.ledger.lives() {
            let gaps: Vec<_> = life.old_gaps(delay, now).collect();
            let missing_count = gaps.iter().map(|range| range.count()).sum();
            let state = (
                life.coverage.watermark(),
                life.coverage.highest(),
                missing_count,
            );
            let key = (node.clone(), epoch);
            let moved = self.told.get(&key) != Some(&state);
            let due = moved || idle && newest.get(node) == Some(&epoch);
            if !due {
                continue;
            }
            let ack = Ack {
                epoch: epoch.0,
                watermark: state.0,
                highest: state.1,
                missing_count,
                missing: gaps
                    .into_iter()
                    .take(Ack::MAX_RANGES)
                    .map(Into::into)
                    .collect(),
            };
            let topic = self.subscriber.topics.ack(node, &self.subscriber.player);
            let sent =
                self.subscriber
                    .control
                    .try_publish(topic, notice::write(&ack), QoS::AtMostOnce);
            if sent.is_ok() {
                self.told.insert(key, state);
            }
        }
        let known: std::collections::HashSet<Key> = self
            .ledger
            .lives()
            .map(|(node, epoch, _)| (node.clone(), epoch))
            .collect();
        self.told.retain(|key, _| known.contains(key));
    }

    pub(super) fn show(&self) {
        let lives = self.ledger.lives().map(|(node, epoch, life)| {
            let coverage = &life.coverage;
            let (highest, missing) = (life.highest(), life.missing());
            LifeStatus {
                node: node.to_string(),
                epoch: epoch.0,
                watermark: coverage.watermark(),
                highest,
                missing,
                dropped: coverage.dropped(),
                lost: coverage.lost(),
                stored: highest
                    .saturating_sub(missing)
                    .saturating_sub(coverage.dropped())
                    .saturating_sub(coverage.lost()),
            }
        });
        let recorders: Vec<_> = lives.collect();
        let missing: u64 = recorders.iter().map(|life| life.missing).sum();
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        self.subscriber.metrics.missing.set(missing);
        let mut status = self.subscriber.handle.status.lock();
        status.connected = self.client.is_connected();
        status.recorders = recorders;
    }
}
