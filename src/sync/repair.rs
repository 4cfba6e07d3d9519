//! When to ask which recorder for what is missing.
//!
//! Pure: overdue gaps, answers and `now` in; requests and losses out. One request at a time per life, so that
//! filling in the past paces itself; a request that brings nothing is repeated with growing pauses. Nothing is
//! lost because a recorder is away: only its own word, or a very long time, ends the wait.
//!
//! What was asked for and did not come is passed by, so that it does not keep what is older waiting; it is asked
//! for again when all the rest had its turn.

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
    /// After how long a gap counts as lost, where its recorder has been silent for as long or was asked for it
    /// and did not bring it; time since this player first saw the gap.
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
    /// What was asked for in this round and did not come, with what lies between.
    passed: Option<SequenceRange>,
    /// When this round over the gaps began.
    began: Instant,
    /// When the last round began in which every gap had its turn.
    rounded: Option<Instant>,
    /// When the recorder last answered.
    heard: Option<Instant>,
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
        for gaps in overdue.chunk_by(|a, b| a.node == b.node && a.epoch == b.epoch) {
            let key = (gaps[0].node.clone(), gaps[0].epoch);
            let busy = self.asked() >= self.config.max_requests;
            if busy || !self.may_ask(&key, gaps, now) {
                continue;
            }
            let (node, epoch) = key.clone();
            let talk = self.talks.entry(key).or_insert_with(|| Talk::new(now));
            let range = newest_part(talk.next(gaps, now), self.config.max_range);
            talk.step = Step::Asked(range);
            requests.push(Request {
                node,
                body: ResendRequest {
                    epoch: epoch.0,
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
        talk.heard = Some(now);
        let gone = answer.gone.iter().filter_map(|gone| {
            let (first, last) = (
                gone.get().first.max(range.first),
                gone.get().last.min(range.last),
            );
            (first <= last).then_some(SequenceRange { first, last })
        });
        let gone: Vec<_> = gone.collect();
        if answer.sent == 0 && gone.is_empty() {
            talk.pass(range);
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

    /// Gaps that have been there for too long, and that waiting does not close: their recorder has been silent for
    /// as long, or every gap had its turn since they were seen. A gap that waits for its turn is not lost.
    pub(super) fn given_up<'a>(
        &self,
        overdue: &'a [Overdue],
        now: Instant,
    ) -> impl Iterator<Item = &'a Overdue> {
        let limit = self.config.give_up_after;
        overdue.iter().filter(move |gap| {
            let talk = self.talks.get(&(gap.node.clone(), gap.epoch));
            now.duration_since(gap.since) >= limit
                && talk.is_some_and(|talk| {
                    let silent = |heard| now.duration_since(heard) >= limit;
                    let had_turn = |began| began >= gap.since;
                    talk.heard.is_none_or(silent) || talk.rounded.is_some_and(had_turn)
                })
        })
    }

    fn asked(&self) -> usize {
        let asked = |talk: &&Talk| matches!(talk.step, Step::Asked(_));
        self.talks.values().filter(asked).count()
    }

    /// Whether the life may be asked; `gaps` are its own.
    fn may_ask(&mut self, key: &Key, gaps: &[Overdue], now: Instant) -> bool {
        let Some(talk) = self.talks.get_mut(key) else {
            return true;
        };
        match talk.step {
            Step::Asked(_) => false,
            Step::Pause(until) => now >= until,
            Step::Arriving(range, until) => {
                let open = gaps
                    .iter()
                    .any(|gap| gap.range.first <= range.last && range.first <= gap.range.last);
                if !open {
                    talk.fruitless = 0;
                    return true;
                }
                if now >= until {
                    talk.pass(range);
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

impl Talk {
    fn new(now: Instant) -> Self {
        Self {
            step: Step::Pause(now),
            fruitless: 0,
            passed: None,
            began: now,
            rounded: None,
            heard: None,
        }
    }

    /// What was asked for did not come: on with the rest.
    fn pass(&mut self, range: SequenceRange) {
        self.fruitless += 1;
        self.passed = Some(self.passed.map_or(range, |passed| SequenceRange {
            first: passed.first.min(range.first),
            last: passed.last.max(range.last),
        }));
    }

    /// The gap whose turn it is: what is newer than all that was passed by, then what is older, then all again.
    /// There is at least one of `gaps`.
    fn next(&mut self, gaps: &[Overdue], now: Instant) -> SequenceRange {
        if let Some(passed) = self.passed {
            let newer = gaps.iter().find_map(|gap| {
                let first = gap.range.first.max(passed.last.saturating_add(1));
                between(first, gap.range.last)
            });
            let older = || {
                gaps.iter().find_map(|gap| {
                    let last = gap.range.last.min(passed.first.saturating_sub(1));
                    between(gap.range.first, last)
                })
            };
            if let Some(range) = newer.or_else(older) {
                return range;
            }
            self.passed = None;
            self.rounded = Some(self.began);
            self.began = now;
        }
        gaps[0].range
    }
}

fn between(first: u64, last: u64) -> Option<SequenceRange> {
    (first <= last).then_some(SequenceRange { first, last })
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
    fn a_gap_that_never_closes_keeps_neither_older_nor_newer_ones_waiting() {
        let mut now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        let mut gaps = vec![gap(90, 99, now), gap(50, 59, now), gap(1, 5, now)];
        let mut turn = |gaps: &[Overdue]| {
            now += Duration::from_secs(60);
            let ranges = asked(&repair.plan(gaps, now));
            repair.answered(&key(), &answer(1, &[]), now);
            ranges
        };
        assert_eq!(turn(&gaps), [(90, 99)]);
        assert_eq!(turn(&gaps), [(50, 59)]);
        gaps.insert(0, gap(200, 210, gaps[0].since));
        assert_eq!(turn(&gaps), [(200, 210)]);
        gaps.remove(0);
        assert_eq!(turn(&gaps), [(1, 5)]);
        gaps.pop();
        assert_eq!(turn(&gaps), [(90, 99)]);
    }

    #[test]
    fn a_gap_that_waits_for_its_turn_is_not_given_up() {
        let mut now = Instant::now();
        let mut repair = Repair::new(RepairConfig::default());
        let gaps = [gap(90, 99, now), gap(1, 5, now)];
        repair.plan(&gaps, now);
        now += Duration::from_secs(24 * 3600);
        repair.answered(&key(), &answer(1, &[]), now);
        assert_eq!(repair.given_up(&gaps, now).count(), 0);
        for _ in 0..2 {
            now += Duration::from_secs(60);
            repair.plan(&gaps, now);
            repair.answered(&key(), &answer(1, &[]), now);
        }
        assert_eq!(repair.given_up(&gaps, now).count(), 2);
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
