//! When to ask which recorder for what is missing.
//!
//! Pure: overdue gaps, answers and `now` in; requests and losses out. One request at a time per life, so that
//! filling in the past paces itself; a request that brings nothing is repeated with growing pauses. Nothing is
//! lost because a recorder is away: only its own word, or a very long time, ends the wait.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Epoch, NodeId, SequenceRange};

use super::ledger::Overdue;
use super::notice::{ResendAnswer, ResendRequest};

/// How gaps are repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairConfig {
    /// A gap younger than this may still close by itself.
    pub gap_delay: Duration,
    /// After how long a gap that nobody answers for counts as lost; time since this player first saw it.
    pub give_up_after: Duration,
    /// How many numbers are asked for at once.
    pub max_range: u64,
    /// How long what was asked for may take to arrive, and the first pause after a failure.
    pub first_pause: Duration,
    /// Pauses grow up to this.
    pub longest_pause: Duration,
    /// Requests on their way at once, over all recorders.
    pub max_requests: usize,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            gap_delay: Duration::from_secs(2),
            give_up_after: Duration::from_secs(24 * 3600),
            max_range: 1000,
            first_pause: Duration::from_secs(2),
            longest_pause: Duration::from_secs(60),
            max_requests: 8,
        }
    }
}

/// A life of a recorder.
pub(super) type Key = (NodeId, Epoch);

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) node: NodeId,
    pub(super) body: ResendRequest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The recorder has not answered yet.
    Asked(SequenceRange),
    /// It sends; what it sends should be here by then.
    Arriving(SequenceRange, Instant),
    /// It did not answer, or nothing came: not before then.
    Pause(Instant),
}

#[derive(Debug)]
struct Talk {
    step: Step,
    fruitless: u32,
}

/// The talks with all recorders.
#[derive(Debug)]
pub(super) struct Repair {
    config: RepairConfig,
    talks: HashMap<Key, Talk>,
}

impl Repair {
    pub(super) fn new(config: RepairConfig) -> Self {
        Self {
            config,
            talks: HashMap::new(),
        }
    }

    /// What to ask for now. `overdue` is newest first within each life.
    pub(super) fn plan(&mut self, overdue: &[Overdue], now: Instant) -> Vec<Request> {
        self.forget_settled(overdue);
        let mut requests = Vec::new();
        for gap in overdue {
            let asked = self.asked() >= self.config.max_requests;
            let key = (gap.node.clone(), gap.epoch);
            if asked || !self.may_ask(&key, overdue, now) {
                continue;
            }
            let range = newest_part(gap.range, self.config.max_range);
            let talk = self.talks.entry(key).or_insert(Talk {
                step: Step::Asked(range),
                fruitless: 0,
            });
            talk.step = Step::Asked(range);
            requests.push(Request {
                node: gap.node.clone(),
                body: ResendRequest {
                    epoch: gap.epoch.0,
                    first: range.first,
                    last: range.last,
                },
            });
        }
        requests
    }

    /// A recorder answered: the ranges that are lost.
    pub(super) fn answered(
        &mut self,
        key: &Key,
        answer: &ResendAnswer,
        now: Instant,
    ) -> Vec<SequenceRange> {
        let pause = self.pause(key);
        let Some(talk) = self.talks.get_mut(key) else {
            return Vec::new();
        };
        let Step::Asked(range) = talk.step else {
            return Vec::new();
        };
        let gone = answer.gone.iter().filter_map(|gone| {
            let (first, last) = (
                gone.get().first.max(range.first),
                gone.get().last.min(range.last),
            );
            (first <= last).then_some(SequenceRange { first, last })
        });
        let gone: Vec<_> = gone.collect();
        if answer.sent == 0 && gone.is_empty() {
            talk.fruitless += 1;
            talk.step = Step::Pause(now + pause);
        } else {
            talk.step = Step::Arriving(range, now + pause);
        }
        gone
    }

    /// A request was not answered.
    pub(super) fn failed(&mut self, key: &Key, now: Instant) {
        let pause = self.pause(key);
        if let Some(talk) = self.talks.get_mut(key) {
            talk.fruitless += 1;
            talk.step = Step::Pause(now + pause);
        }
    }

    /// Gaps that have been there for too long.
    pub(super) fn given_up<'a>(
        &self,
        overdue: &'a [Overdue],
        now: Instant,
    ) -> impl Iterator<Item = &'a Overdue> {
        let limit = self.config.give_up_after;
        overdue
            .iter()
            .filter(move |gap| now.duration_since(gap.since) >= limit)
    }

    fn asked(&self) -> usize {
        let asked = |talk: &&Talk| matches!(talk.step, Step::Asked(_));
        self.talks.values().filter(asked).count()
    }

    fn may_ask(&mut self, key: &Key, overdue: &[Overdue], now: Instant) -> bool {
        let Some(talk) = self.talks.get_mut(key) else {
            return true;
        };
        match talk.step {
            Step::Asked(_) => false,
            Step::Pause(until) => now >= until,
            Step::Arriving(range, until) => {
                let mut of_life = overdue
                    .iter()
                    .filter(|gap| gap.node == key.0 && gap.epoch == key.1);
                let open = of_life
                    .any(|gap| gap.range.first <= range.last && range.first <= gap.range.last);
                if !open {
                    talk.fruitless = 0;
                    return true;
                }
                if now >= until {
                    talk.fruitless += 1;
                    return true;
                }
                false
            }
        }
    }

    /// A life without overdue gaps needs no talk, unless an answer is still to come.
    fn forget_settled(&mut self, overdue: &[Overdue]) {
        self.talks.retain(|(node, epoch), talk| {
            matches!(talk.step, Step::Asked(_))
                || overdue
                    .iter()
                    .any(|gap| gap.node == *node && gap.epoch == *epoch)
        });
    }

    fn pause(&self, key: &Key) -> Duration {
        let fruitless = self.talks.get(key).map_or(0, |talk| talk.fruitless);
        let factor = 2_u32.saturating_pow(fruitless.min(16));
        self.config
            .first_pause
            .saturating_mul(factor)
            .min(self.config.longest_pause)
    }
}

fn newest_part(range: SequenceRange, most: u64) -> SequenceRange {
    let surplus = range.count().saturating_sub(most.max(1));
    SequenceRange {
        first: range.first + surplus,
        last: range.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn key() -> Key {
        (node("rec"), Epoch(1))
    }

    fn gap(first: u64, last: u64, since: Instant) -> Overdue {
        Overdue {
            node: node("rec"),
            epoch: Epoch(1),
            range: SequenceRange { first, last },
            since,
        }
    }

    fn answer(sent: u64, gone: &[(u64, u64)]) -> ResendAnswer {
        let gone = gone
            .iter()
            .map(|&(first, last)| SequenceRange { first, last }.into());
        ResendAnswer {
            sent,
            gone: gone.collect(),
            up_to: 0,
        }
    }

    fn asked(requests: &[Request]) -> Vec<(u64, u64)> {
        requests
            .iter()
            .map(|r| (r.body.first, r.body.last))
            .collect()
    }

    #[test]
    fn a_long_past_is_fetched_piece_by_piece_as_it_arrives() {
        let now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        assert_eq!(
            asked(&repair.plan(&[gap(1, 2500, now)], now)),
            [(1501, 2500)]
        );
        assert!(repair.plan(&[gap(1, 2500, now)], now).is_empty());
        assert!(repair.answered(&key(), &answer(1000, &[]), now).is_empty());
        assert!(repair.plan(&[gap(1, 2000, now)], now).is_empty());
        assert_eq!(
            asked(&repair.plan(&[gap(1, 1500, now)], now)),
            [(501, 1500)]
        );
    }

    #[test]
    fn pauses_grow_while_nothing_comes_and_nothing_is_lost_by_that() {
        let mut now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        let gaps = [gap(1, 5, now)];
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(asked(&repair.plan(&gaps, now)), [(1, 5)], "{pause}");
            repair.failed(&key(), now);
            now += Duration::from_secs(pause - 1);
            assert!(repair.plan(&gaps, now).is_empty(), "{pause}");
            now += Duration::from_secs(1);
        }
        assert_eq!(repair.given_up(&gaps, now).count(), 0);
        now += Duration::from_secs(24 * 3600);
        assert_eq!(repair.given_up(&gaps, now).count(), 1);
    }

    #[test]
    fn only_what_was_asked_for_can_be_lost() {
        let now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        assert!(
            repair
                .answered(&key(), &answer(0, &[(1, 9)]), now)
                .is_empty()
        );
        repair.plan(&[gap(10, 20, now)], now);
        let lost = repair.answered(&key(), &answer(0, &[(1, 12), (19, 500), (30, 40)]), now);
        let lost: Vec<_> = lost.iter().map(|r| (r.first, r.last)).collect();
        assert_eq!(lost, [(10, 12), (19, 20)]);
    }

    #[test]
    fn what_was_sent_again_but_did_not_arrive_is_asked_for_again() {
        let mut now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        let gaps = [gap(1, 5, now)];
        repair.plan(&gaps, now);
        repair.answered(&key(), &answer(5, &[]), now);
        assert!(repair.plan(&gaps, now).is_empty());
        now += Duration::from_secs(2);
        assert_eq!(asked(&repair.plan(&gaps, now)), [(1, 5)]);
    }

    #[test]
    fn requests_at_once_are_limited_and_settled_talks_forgotten() {
        let now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        let gaps: Vec<_> = (0..20)
            .map(|n| Overdue {
                node: node(&format!("n{n}")),
                ..gap(1, 1, now)
            })
            .collect();
        assert_eq!(repair.plan(&gaps, now).len(), 8);
        for gap in &gaps {
            repair.failed(&(gap.node.clone(), gap.epoch), now);
        }
        repair.plan(&[], now);
        assert!(repair.talks.is_empty());
    }
}
