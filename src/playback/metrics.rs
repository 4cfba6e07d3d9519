//! What playback counts.

use std::hash::Hash;

use crate::metrics::{Counter, Family, Gauge, Histogram, Registry, duration_histogram, label};

/// Counters of answers, replays and the live feed.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Answers given: `hit`, `miss`, `pass_through`, `refused` (the request could not be taken), `failed`.
    pub answers: Family<label::Outcome, Counter>,
    /// From the request's head to the answer's head, seconds, without the delay that was asked for.
    pub answer_duration: Histogram,
    /// Answers broken off: `missing_chunk`, `truncated`, `length`, `store`, `upstream`.
    pub answers_broken: Family<label::Reason, Counter>,
    /// Recorded header fields that HTTP has no form for, left out of an answer or a replayed request.
    pub headers_dropped: Counter,
    /// TCP clients answered, by how that ended: `completed`, `left` (before the recorded end), `idle`, `mismatch`,
    /// `no_record`, `failed` (the records cannot be read), `broken` (the connection did).
    pub talks: Family<label::Outcome, Counter>,
    /// TCP clients that are answered now.
    pub talks_open: Gauge,
    /// TCP clients for which not every stream could be a candidate, for want of room.
    pub talks_crowded: Counter,
    /// WebSocket clients answered, by how that ended: `completed`, `left` (before the recorded end), `idle`, `mismatch`,
    /// `refused` (they broke the protocol or the limit), `failed` (the records cannot be read), `broken` (the connection
    /// did), `stopped` (this node does).
    pub conversations: Family<label::Outcome, Counter>,
    /// WebSocket clients that are answered now.
    pub conversations_open: Gauge,
    /// Sequence positions that were forgotten to stay within the limit.
    pub positions_evicted: Counter,
    /// Runs ended: `finished`, `cancelled`, `failed`.
    pub runs: Family<label::Outcome, Counter>,
    /// Runs under way.
    pub runs_active: Gauge,
    /// Replayed requests: `same`, `different`, `failed`, `skipped`, `answered_from_record`.
    pub replayed: Family<label::Verdict, Counter>,
    /// From sending a replayed request to its response's head, seconds.
    pub replay_duration: Histogram,
    /// Values (tokens, cookies) carried over into replayed requests.
    pub carried: Counter,
    /// Records not replayed live: `queue_full`, `duplicate`.
    pub live_dropped: Family<label::Reason, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            answers: Family::default(),
            answer_duration: duration_histogram(),
            answers_broken: Family::default(),
            headers_dropped: Counter::default(),
            talks: Family::default(),
            talks_open: Gauge::default(),
            talks_crowded: Counter::default(),
            conversations: Family::default(),
            conversations_open: Gauge::default(),
            positions_evicted: Counter::default(),
            runs: Family::default(),
            runs_active: Gauge::default(),
            replayed: Family::default(),
            replay_duration: duration_histogram(),
            carried: Counter::default(),
            live_dropped: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts every counter on the metrics page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(
            "playback_answers",
            "Answers by how they came about.",
            &self.answers,
        );
        registry.add(
            "playback_answers_broken",
            "Answers that were broken off.",
            &self.answers_broken,
        );
        registry.add(
            "playback_tcp_answers",
            "TCP clients answered, by how that ended.",
            &self.talks,
        );
        registry.add(
            "playback_websocket_answers",
            "WebSocket clients answered, by how that ended.",
            &self.conversations,
        );
        registry.add("playback_runs", "Replay runs ended.", &self.runs);
        registry.add(
            "playback_replayed",
            "Replayed requests by verdict.",
            &self.replayed,
        );
        registry.add(
            "playback_live_dropped",
            "Arriving records not replayed live.",
            &self.live_dropped,
        );
        registry.add(
            "playback_answer_duration_seconds",
            "From a request's head to its answer's head.",
            &self.answer_duration,
        );
        registry.add(
            "playback_replay_duration_seconds",
            "From a replayed request to its response's head.",
            &self.replay_duration,
        );
        registry.add(
            "playback_headers_dropped",
            "Recorded header fields that HTTP has no form for.",
            &self.headers_dropped,
        );
        registry.add(
            "playback_tcp_answers_open",
            "TCP clients that are answered now.",
            &self.talks_open,
        );
        registry.add(
            "playback_tcp_answers_crowded",
            "TCP clients for which not every recorded stream could be a candidate, for want of room.",
            &self.talks_crowded,
        );
        registry.add(
            "playback_websocket_answers_open",
            "WebSocket clients that are answered now.",
            &self.conversations_open,
        );
        registry.add(
            "playback_positions_evicted",
            "Sequence positions forgotten to stay within the limit.",
            &self.positions_evicted,
        );
        registry.add(
            "playback_runs_active",
            "Replay runs under way.",
            &self.runs_active,
        );
        registry.add(
            "playback_carried",
            "Values carried over into replayed requests.",
            &self.carried,
        );
    }

    pub(super) fn count<L>(family: &Family<L, Counter>, value: &'static str)
    where
        L: From<&'static str> + Clone + Eq + Hash,
    {
        family.get_or_create(&value.into()).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_stands_on_the_page() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        Metrics::count(&metrics.answers, "hit");
        let page = registry.text();
        assert!(page.contains("qproxy_playback_answers_total{outcome=\"hit\"} 1"));
        assert!(page.contains("qproxy_playback_replay_duration_seconds"));
    }
}
