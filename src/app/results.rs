//! What comes of replayed records, published on `{root}/replay/{run}/{verdict}`.

use std::sync::OnceLock;

use bytes::Bytes;
use qproxy_mqtt::client::PublishOptions;
use qproxy_mqtt::{MqttClient, QoS};
use serde::Serialize;

use crate::metrics::Counter;
use crate::playback::report::Report;
use crate::playback::{ReplayResult, ResultSink};

/// Publishes results where there is a connection; a result that finds no room is counted, not waited for.
#[derive(Debug)]
pub(super) struct Results {
    root: String,
    client: OnceLock<MqttClient>,
    unpublished: Counter,
}

impl Results {
    pub(super) fn new(root: &str, unpublished: Counter) -> Self {
        Self {
            root: root.to_owned(),
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
        let Ok(payload) = serde_json::to_vec(message) else {
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
