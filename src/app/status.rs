//! How the parts of the node fare, gathered for the API and for RPC.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::lag::Lag;
use super::unfinished::Unfinished;
use crate::api::dto::Counts;
use crate::api::{Sections, StatusSource};
use crate::capture::Capture;
use crate::config::Mode;
use crate::record::{GapReason, NodeId};
use crate::spool::{self, Spool};
use crate::store::Store;
use crate::sync::{self, Control, LiveSettings, PublisherHandle, StationHandle, SubscriberHandle};

/// The parts of a running node that can be asked.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) recorder: Option<(Capture, Spool, PublisherHandle)>,
    pub(super) player: Option<(Arc<dyn Store>, SubscriberHandle)>,
    pub(super) station: Option<StationHandle>,
    pub(super) live: Option<Arc<crate::playback::Live>>,
    pub(super) talkers: Vec<Arc<crate::playback::Talker>>,
    pub(super) answerer: Option<Arc<crate::playback::Answerer>>,
    pub(super) lag: Lag,
    pub(super) unfinished: Unfinished,
    pub(super) behind_capture: BehindCapture,
}

/// The counters of what was captured and given up later.
#[derive(Default)]
pub(super) struct BehindCapture {
    pub(super) spool: spool::Metrics,
    pub(super) sync: sync::Metrics,
}

impl BehindCapture {
    /// By reason, all that was dropped on the way from capture to the broker.
    fn dropped(&self, captured: [u64; GapReason::ALL.len()]) -> BTreeMap<&'static str, u64> {
        let by_reason = GapReason::ALL.into_iter().zip(captured);
        let with_later = by_reason.map(|(why, count)| {
            let reason = why.as_str();
            let spool = self.spool.dropped.get_or_create(&reason.into()).get();
            let sync = match why {
                GapReason::Oversize => self.sync.oversize_items.get(),
                _ => 0,
            };
            (reason, count + spool + sync)
        });
        with_later.collect()
    }
}

/// The node as others see it.
pub(super) struct NodeStatus {
    node: NodeId,
    mode: Mode,
    broker: String,
    parts: Parts,
    /// Parts that ended by themselves and did not work since, and why.
    failures: Mutex<BTreeMap<&'static str, String>>,
}

impl NodeStatus {
    pub(super) fn new(node: NodeId, mode: Mode, broker: String, parts: Parts) -> Self {
        Self {
            node,
            mode,
            broker,
            parts,
            failures: Mutex::default(),
        }
    }

    /// A part of the node ended by itself.
    pub(super) fn failed(&self, part: &'static str, why: &str) {
        tracing::error!(part, why, "a part of the node has ended");
        self.failures.lock().insert(part, why.to_owned());
    }

    /// Why parts ended, except for those that have a connection again.
    fn ended<'a>(
        &self,
        parts: impl Iterator<Item = &'a (&'static str, Option<bool>)>,
    ) -> Vec<String> {
        let mut failures = self.failures.lock();
        for (part, connected) in parts {
            if *connected == Some(true) {
                failures.remove(part);
            }
        }
        let told = failures.iter();
        told.map(|(part, why)| format!("{part}: {why}; it is started again"))
            .collect()
    }

    fn ledger(&self) -> Value {
        let mut ledger = json!({});
        if let Some((capture, spool, publisher)) = &self.parts.recorder {
            let (captured, spooled, published) =
                (capture.stats(), spool.stats(), publisher.status());
            let dropped = self.parts.behind_capture.dropped(captured.dropped);
            let mut recorder = serde_json::to_value(&published).unwrap_or_default();
            recorder["captured"] = captured.sequence.into();
            recorder["records"] = captured.records.into();
            recorder["spooled"] = captured.appended.into();
            recorder["waiting_bytes"] = captured.waiting_bytes.into();
            recorder["truncated"] = captured.truncated.into();
            recorder["skipped"] = captured.skipped.into();
            recorder["dropped"] = json!(dropped);
            recorder["unsent"] = spooled.unsent.into();
            recorder["highest"] = spooled.highest.0.into();
            recorder["spool_bytes"] = spooled.bytes.into();
            ledger["recorder"] = recorder;
        }
        if let Some((_, subscriber)) = &self.parts.player {
            ledger["player"] = serde_json::to_value(subscriber.status()).unwrap_or_default();
        }
        if let Some(live) = &self.parts.live {
            ledger["live_replay"] = serde_json::to_value(live.totals()).unwrap_or_default();
        }
        if !self.parts.talkers.is_empty() {
            let talkers = self.parts.talkers.iter();
            let answers: Vec<_> = talkers.map(|talker| talker.status()).collect();
            ledger["tcp_answers"] = serde_json::to_value(answers).unwrap_or_default();
        }
        if let Some(answerer) = &self.parts.answerer {
            let answers = serde_json::to_value(answerer.web_sockets());
            ledger["websocket_answers"] = answers.unwrap_or_default();
        }
        ledger
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        if let Some((capture, spool, publisher)) = &self.parts.recorder {
            let captured = capture.stats();
            counts.recorded = captured.records;
            counts.spooled = spool.stats().unsent;
            counts.published = publisher.status().acknowledged;
            let dropped = self.parts.behind_capture.dropped(captured.dropped);
            counts.dropped = dropped.values().sum();
        }
        let lacking = self.parts.unfinished.lacking();
        (counts.pending, counts.incomplete) = (lacking.pending, lacking.incomplete);
        if let Some((_, subscriber)) = &self.parts.player {
            for life in subscriber.status().recorders {
                counts.missing += life.missing;
                counts.lost += life.lost;
                // What the recorder of this very node dropped is counted above.
                if self.parts.recorder.is_none() {
                    counts.dropped += life.dropped;
                }
            }
        }
        counts
    }

    fn broker(&self) -> Value {
        let Some(station) = &self.parts.station else {
            return Value::Null;
        };
        let nodes = serde_json::to_value(station.nodes()).unwrap_or_default();
        json!({ "address": self.broker, "connected": station.is_connected(), "nodes": nodes })
    }
}

#[async_trait]
impl StatusSource for NodeStatus {
    fn node(&self) -> &NodeId {
        &self.node
    }

    fn mode(&self) -> &str {
        self.mode.as_str()
    }

    async fn sections(&self) -> Sections {
        let spool = self.parts.recorder.as_ref().map(|(_, spool, _)| spool);
        Sections {
            counts: self.counts(),
            lag: self.parts.lag.seconds(spool),
            ledger: self.ledger(),
            broker: self.broker(),
        }
    }

    async fn health(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(station) = &self.parts.station
            && !station.is_connected()
        {
            let unknown = || format!("no connection to the MQTT server {}", self.broker);
            reasons.push(station.trouble().unwrap_or_else(unknown));
        }
        // Traffic has connections of its own, which can fail while the first one holds.
        let recorder = self.parts.recorder.as_ref();
        let player = self.parts.player.as_ref();
        let connected = [
            ("publisher", recorder.map(|(_, _, p)| p.status().connected)),
            ("subscriber", player.map(|(_, s)| s.status().connected)),
        ];
        let control = self.parts.station.as_ref();
        let control = ("control", control.map(StationHandle::is_connected));
        reasons.extend(self.ended(connected.iter().chain([&control])));
        for (part, connected) in connected {
            if connected == Some(false) {
                let server = &self.broker;
                reasons.push(format!("{part}: no connection to the MQTT server {server}"));
            }
        }
        if let Some((store, subscriber)) = &self.parts.player {
            if let Err(error) = store.stats().await {
                reasons.push(error.to_string());
            }
            reasons.extend(
                subscriber
                    .status()
                    .blocked
                    .map(|why| format!("nothing is stored: {why}")),
            );
        }
        reasons
    }
}

/// What other nodes may ask this one for.
pub(super) struct Remote {
    pub(super) status: Arc<NodeStatus>,
    pub(super) capture: Capture,
}

impl Control for Remote {
    fn status(&self) -> Value {
        json!({
            "node": self.status.node.as_str(),
            "mode": self.status.mode.as_str(),
            "ledger": self.status.ledger(),
        })
    }

    fn pause(&self) {
        tracing::info!("recording is paused by RPC");
        self.capture.pause();
    }

    fn resume(&self) {
        tracing::info!("recording is resumed by RPC");
        self.capture.resume();
    }

    fn apply(&self, settings: LiveSettings) {
        tracing::info!(?settings, "live settings");
        match settings.enabled {
            Some(true) => self.capture.resume(),
            Some(false) => self.capture.pause(),
            None => {}
        }
        if let Some(sample) = settings.sample {
            self.capture.set_sample(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_behind_capture_counts_as_dropped() {
        let behind = BehindCapture::default();
        let reason = GapReason::SpoolLimit.as_str();
        behind
            .spool
            .dropped
            .get_or_create(&reason.into())
            .inc_by(30);
        behind.sync.oversize_items.inc_by(5);
        let dropped = behind.dropped([1, 2, 3, 4]);
        assert_eq!(dropped["capture_overload"], 1);
        assert_eq!(dropped["oversize"], 7);
        assert_eq!(dropped["spool_write"], 3);
        assert_eq!(dropped["spool_limit"], 34);
    }
}
