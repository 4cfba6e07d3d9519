//! What comes of replayed records, published on `{root}/replay/{run}/{verdict}`.

use std::sync::OnceLock;

use bytes::Bytes;
use qproxy_mqtt::client::PublishOptions;
use qproxy_mqtt::{MqttClient, QoS};
use serde::Serialize;

use crate::metrics::Counter;
use crate::playback::report::Report;
use crate::playback::{ReplayResult, ResultSink};
use crate::record::Keyring;

/// What of a record a result on the bus may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// All that came of it.
    Shown,
    /// Only what its topic would: where records are sealed, their paths, fields and bodies are not sent around in the open.
    Withheld,
}

impl Content {
    /// What a node with these keys may tell.
    pub(super) fn under(keys: &Keyring) -> Self {
        match keys.writing() {
            Some(_) => Self::Withheld,
            None => Self::Shown,
        }
    }
}

/// What stays where content is withheld: of a result, and of a report.
const OUTSIDE: [&str; 16] = [
    "run",
    "record",
    "verdict",
    "method",
    "sent",
    "carried",
    "recorded_status",
    "replayed_status",
    "recorded_first_byte_us",
    "replayed_first_byte_us",
    "more_differences",
    "state",
    "started",
    "finished",
    "totals",
    "latency",
];

/// Publishes results where there is a connection; a result that finds no room is counted, not waited for.
#[derive(Debug)]
pub(super) struct Results {
    root: String,
    content: Content,
    client: OnceLock<MqttClient>,
    unpublished: Counter,
}

impl Results {
    pub(super) fn new(root: &str, content: Content, unpublished: Counter) -> Self {
        Self {
            root: root.to_owned(),
            content,
            client: OnceLock::new(),
            unpublished,
        }
    }

    /// From now on results go over this connection.
    pub(super) fn connect(&self, client: MqttClient) {
        // A second connection is never made: the node has one for results.
        let _ = self.client.set(client);
    }

    fn publish(&self, run: &str, verdict: &str, message: &impl Serialize) {
        let Some(client) = self.client.get() else {
            return;
        };
        let payload = match self.content {
            Content::Shown => serde_json::to_vec(message),
            Content::Withheld => outside(message),
        };
        let Ok(payload) = payload else {
            return;
        };
        let topic = format!("{}/replay/{run}/{verdict}", self.root);
        let options = PublishOptions::from(QoS::AtLeastOnce);
        if client
            .try_publish(topic, Bytes::from(payload), options)
            .is_err()
        {
            self.unpublished.inc();
        }
    }
}

fn outside(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut message = serde_json::to_value(message)?;
    if let Some(keys) = message.as_object_mut() {
        keys.retain(|key, _| OUTSIDE.contains(&key.as_str()));
    }
    serde_json::to_vec(&message)
}

impl ResultSink for Results {
    fn result(&self, result: &ReplayResult) {
        let verdict = serde_json::to_value(result.verdict).unwrap_or_default();
        let verdict = verdict.as_str().unwrap_or("other");
        self.publish(&result.run.to_string(), verdict, result);
    }

    fn finished(&self, report: &Report) {
        self.publish(&report.run.to_string(), "report", report);
    }
}
