//! Adds results up while a replay runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::latency::Latency;
use super::{
    DifferenceGroup, Endpoint, Example, Latencies, Overall, ReasonGroup, Report, Totals, endpoint,
};
use crate::playback::diff::{Difference, Part};
use crate::playback::{ReplayResult, RunId, RunState, Verdict};
use crate::record::RecordId;

/// How many groups of a kind are kept apart.
const MAX_GROUPS: usize = 1000;
/// How many examples of a group are kept.
const EXAMPLES: usize = 5;
/// The name of the group of all that is over the limit.
const OTHERS: &str = "(others)";

/// The results of one replay so far.
#[derive(Debug)]
pub(in crate::playback) struct Collector {
    run: RunId,
    target: String,
    started: Timestamp,
    totals: Totals,
    recorded: Latency,
    replayed: Latency,
    endpoints: BTreeMap<String, Endpoint>,
    differences: BTreeMap<(String, Part, String), DifferenceGroup>,
    failures: Reasons,
    skips: Reasons,
    notes: Reasons,
}

type Reasons = BTreeMap<Arc<str>, ReasonGroup>;

impl Collector {
    pub(in crate::playback) fn new(run: RunId, target: String, started: Timestamp) -> Self {
        Self {
            run,
            target,
            started,
            totals: Totals::default(),
            recorded: Latency::default(),
            replayed: Latency::default(),
            endpoints: BTreeMap::new(),
            differences: BTreeMap::new(),
            failures: Reasons::new(),
            skips: Reasons::new(),
            notes: Reasons::new(),
        }
    }

    pub(in crate::playback) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(in crate::playback) const fn started(&self) -> Timestamp {
        self.started
    }

    /// Adds one result.
    pub(in crate::playback) fn add(&mut self, result: &ReplayResult) {
        self.count(result);
        let reasons = match result.verdict {
            Verdict::Skipped => &mut self.skips,
            _ => &mut self.failures,
        };
        if let Some(reason) = &result.reason {
            add_reason(reasons, reason, result.record);
        }
        for note in &result.notes {
            add_reason(&mut self.notes, note, result.record);
        }
        if let (Some(recorded), Some(replayed)) =
            (result.recorded_first_byte_us, result.replayed_first_byte_us)
        {
            self.recorded.add(recorded);
            self.replayed.add(replayed);
        }
        let name = endpoint(&result.method, &result.path);
        for difference in &result.differences {
            self.add_difference(&name, difference, result.record);
        }
        self.add_endpoint(name, result.verdict);
    }

    fn count(&mut self, result: &ReplayResult) {
        let totals = &mut self.totals;
        totals.records += 1;
        totals.sent += u64::from(result.sent);
        totals.carried += result.carried;
        *match result.verdict {
            Verdict::Same => &mut totals.same,
            Verdict::Different => &mut totals.different,
            Verdict::Failed => &mut totals.failed,
            Verdict::Skipped => &mut totals.skipped,
            Verdict::AnsweredFromRecord => &mut totals.answered_from_record,
        } += 1;
    }

    fn add_endpoint(&mut self, name: String, verdict: Verdict) {
        let known = self.endpoints.contains_key(&name) || self.endpoints.len() < MAX_GROUPS;
        let name = if known { name } else { OTHERS.to_owned() };
        let group = self.endpoints.entry(name.clone()).or_insert(Endpoint {
            endpoint: name,
            same: 0,
            different: 0,
            failed: 0,
            skipped: 0,
            answered_from_record: 0,
        });
        *match verdict {
            Verdict::Same => &mut group.same,
            Verdict::Different => &mut group.different,
            Verdict::Failed => &mut group.failed,
            Verdict::Skipped => &mut group.skipped,
            Verdict::AnsweredFromRecord => &mut group.answered_from_record,
        } += 1;
    }

    fn add_difference(&mut self, name: &str, difference: &Difference, record: RecordId) {
        let mut key = (name.to_owned(), difference.part, difference.group());
        if !self.differences.contains_key(&key) && self.differences.len() >= MAX_GROUPS {
            key = (OTHERS.to_owned(), difference.part, OTHERS.to_owned());
        }
        let group = self
            .differences
            .entry(key)
            .or_insert_with_key(|(endpoint, part, path)| DifferenceGroup {
                endpoint: endpoint.clone(),
                part: *part,
                path: path.clone(),
                count: 0,
                examples: Vec::new(),
            });
        group.count += 1;
        if group.examples.len() < EXAMPLES {
            group.examples.push(Example {
                record,
                recorded: difference.recorded.clone(),
                replayed: difference.replayed.clone(),
            });
        }
    }

    /// The report as things stand.
    pub(in crate::playback) fn report(
        &self,
        state: RunState,
        finished: Option<Timestamp>,
    ) -> Report {
        let mut differences: Vec<_> = self.differences.values().cloned().collect();
        differences.sort_by_key(|group| std::cmp::Reverse(group.count));
        Report {
            run: self.run,
            target: self.target.clone(),
            verdict: overall(&self.totals, &state),
            state,
            started: self.started.to_string(),
            finished: finished.map(|at| at.to_string()),
            totals: self.totals,
            latency: Latencies {
                recorded: self.recorded.percentiles(),
                replayed: self.replayed.percentiles(),
            },
            endpoints: self.endpoints.values().cloned().collect(),
            differences,
            failures: by_count(&self.failures),
            skips: by_count(&self.skips),
            notes: by_count(&self.notes),
        }
    }
}

fn overall(totals: &Totals, state: &RunState) -> Overall {
    let ended_badly = matches!(state, RunState::Failed(_) | RunState::Cancelled);
    if ended_badly || totals.failed > 0 {
        Overall::Failed
    } else if totals.different > 0 {
        Overall::Different
    } else if totals.same > 0 {
        Overall::Same
    } else {
        Overall::Nothing
    }
}

fn add_reason(reasons: &mut Reasons, reason: &str, record: RecordId) {
    let known = reasons.contains_key(reason) || reasons.len() < MAX_GROUPS;
    let reason: Arc<str> = if known { reason } else { OTHERS }.into();
    let group = reasons.entry(reason.clone()).or_insert(ReasonGroup {
        reason,
        count: 0,
        examples: Vec::new(),
    });
    group.count += 1;
    if group.examples.len() < EXAMPLES {
        group.examples.push(record);
    }
}

fn by_count(reasons: &Reasons) -> Vec<ReasonGroup> {
    let mut groups: Vec<_> = reasons.values().cloned().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::playback::diff::Change;

    pub(in crate::playback::report) fn result(verdict: Verdict, path: &str) -> ReplayResult {
        ReplayResult {
            run: RunId::new(),
            record: RecordId::from_u128(7),
            verdict,
            method: "GET".into(),
            path: path.into(),
            sent: true,
            carried: 0,
            recorded_status: Some(200),
            replayed_status: Some(500),
            recorded_first_byte_us: Some(1000),
            replayed_first_byte_us: Some(2000),
            differences: Vec::new(),
            more_differences: 0,
            notes: Vec::new(),
            reason: None,
            answer: None,
        }
    }

    pub(in crate::playback::report) fn different(path: &str, at: &str) -> ReplayResult {
        let difference = Difference {
            part: Part::Body,
            path: at.to_owned(),
            change: Change::Changed,
            recorded: Some("1".into()),
            replayed: Some("2".into()),
        };
        ReplayResult {
            differences: vec![difference],
            ..result(Verdict::Different, path)
        }
    }

    pub(in crate::playback::report) fn collector() -> Collector {
        Collector::new(RunId::new(), "http://a:1".into(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn groups_by_endpoint_and_path_and_the_counts_add_up() {
        let mut collector = collector();
        for n in 0..20 {
            collector.add(&different(&format!("/items/{n}"), &format!("/list/{n}/at")));
        }
        collector.add(&result(Verdict::Same, "/other"));
        let report = collector.report(RunState::Finished, None);
        let group = &report.differences[0];
        assert_eq!(group.endpoint, "GET /items/{id}");
        assert_eq!((group.path.as_str(), group.count), ("/list/*/at", 20));
        assert_eq!(group.examples.len(), EXAMPLES);
        assert_eq!(report.endpoints.len(), 2);
        assert_eq!(report.totals.records, 21);
        assert_eq!(report.verdict, Overall::Different);
        assert_eq!(report.latency.replayed.count, 21);
    }

    #[test]
    fn groups_are_bounded() {
        let mut collector = collector();
        for n in 0..3000 {
            let mut failed = different(&format!("/a{n}"), &format!("/b{n}"));
            failed.verdict = Verdict::Failed;
            failed.reason = Some(format!("reason {n}"));
            failed.notes = vec![format!("note {n}")];
            collector.add(&failed);
        }
        let report = collector.report(RunState::Finished, None);
        assert_eq!(report.endpoints.len(), MAX_GROUPS + 1);
        assert_eq!(report.differences.len(), MAX_GROUPS + 1);
        assert_eq!(report.failures.len(), MAX_GROUPS + 1);
        assert_eq!(report.notes[0].count, 2000, "{OTHERS}");
        assert_eq!(report.verdict.exit_code(), 2);
    }

    #[test]
    fn verdict_is_the_worst_that_happened() {
        let verdict = |verdicts: &[Verdict], state| {
            let mut collector = collector();
            for verdict in verdicts {
                collector.add(&result(*verdict, "/"));
            }
            collector.report(state, None).verdict
        };
        use Verdict::{Different, Failed, Same, Skipped};
        assert_eq!(verdict(&[Same, Skipped], RunState::Finished), Overall::Same);
        assert_eq!(
            verdict(&[Same, Different], RunState::Finished),
            Overall::Different
        );
        assert_eq!(
            verdict(&[Different, Failed], RunState::Finished),
            Overall::Failed
        );
        assert_eq!(verdict(&[Skipped], RunState::Finished), Overall::Nothing);
        assert_eq!(verdict(&[Same], RunState::Cancelled), Overall::Failed);
    }
}
