//! What is recorded and what is not, as the configuration and other nodes say: one process, everything inside.

use bytes::Bytes;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::message::QoS;
use serde_json::{Value, json};

use crate::support::curl::curl;
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::until;

struct Stage {
    folder: tempfile::TempDir,
    node: Node,
    _origin: Origin,
}

fn stage(capture: &Value) -> Stage {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let config = json!({
        "mode": "Standalone", "node": "one",
        "http": { "port": 0, "downstream": origin.url(), "service": "numbers" },
        "playback": { "http": { "port": 0 } },
        "broker": { "port": 0 }, "api": { "port": 0 }, "store": { "path": "data" },
        "capture": capture,
    });
    let node = Node::start(folder.path(), &config);
    Stage {
        folder,
        node,
        _origin: origin,
    }
}

impl Stage {
    fn ask(&self, path: &str, arguments: &[&str]) {
        let answer = curl(&format!("{}{path}", self.node.url("record")), arguments);
        assert_eq!(answer.status, 200, "{path}");
    }

    /// The targets of what is stored, oldest first, once `last` is among them.
    fn targets_up_to(&self, last: &str) -> Vec<String> {
        until(&format!("{last} is stored"), || {
            let page = self.node.api("/api/records?order=oldest", &[]).json();
            let records = page["records"].as_array().unwrap().iter();
            let targets: Vec<String> = records
                .map(|record| record["target"].as_str().unwrap().to_owned())
                .collect();
            targets
                .iter()
                .any(|target| target == last)
                .then_some(targets)
        })
    }

    fn only_record(&self, target: &str) -> Value {
        self.targets_up_to(target);
        let page = self
            .node
            .api(&format!("/api/records?q={target}"), &[])
            .json();
        let id = page["records"][0]["id"].as_str().unwrap();
        self.node.api(&format!("/api/records/{id}"), &[]).json()
    }
}

#[test]
fn excluded_paths_and_replayed_requests_pass_and_are_not_recorded() {
    let stage = stage(&json!({ "exclude": [{ "paths": ["/health"] }] }));
    stage.ask("/n/1", &[]);
    stage.ask("/health", &[]);
    stage.ask("/n/2", &["--header", "qproxy-replay: some-run"]);
    stage.ask("/n/3", &[]);
    assert_eq!(stage.targets_up_to("/n/3"), ["/n/1", "/n/3"]);
}

#[test]
fn only_what_is_included_is_recorded() {
    let stage = stage(&json!({ "include": [{ "methods": ["GET"], "paths": ["/n/*"] }] }));
    stage.ask("/other", &[]);
    stage.ask("/n/1", &["--request", "PUT"]);
    stage.ask("/n/2", &[]);
    assert_eq!(stage.targets_up_to("/n/2"), ["/n/2"]);
}

#[test]
fn secrets_are_masked_before_they_leave_the_recorder_and_the_record_says_so() {
    let stage = stage(&json!({
        "redact": { "headers": ["Authorization"], "json": ["/password"] },
    }));
    let json = "content-type: application/json";
    let body = r#"{"user":"ada","password":"hunter2"}"#;
    stage.ask(
        "/n/1",
        &[
            "--header",
            "authorization: Bearer hunter2",
            "--header",
            json,
            "--data",
            body,
        ],
    );
    let record = stage.only_record("/n/1");
    assert!(!record.to_string().contains("hunter2"), "{record:#}");
    assert!(
        record["request"]["body"]["text"]
            .as_str()
            .unwrap()
            .contains("ada"),
        "{record:#}"
    );
    let redactions: Vec<_> = record["redactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_str().unwrap())
        .collect();
    assert_eq!(redactions, ["header:authorization", "json:/password"]);
    // Nor does the disk of the recorder or the player see it.
    let kept = stage.folder.path().join("data");
    for entry in walk(&kept) {
        let bytes = std::fs::read(&entry).unwrap();
        let found = bytes.windows(7).any(|window| window == b"hunter2");
        assert!(!found, "{}", entry.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

#[test]
fn a_body_over_the_cap_passes_whole_and_is_kept_in_part() {
    let stage = stage(&json!({ "max_body_bytes": 1000 }));
    let body = "x".repeat(5000);
    stage.ask("/n/1", &["--data", &body]);
    let record = stage.only_record("/n/1");
    let kept = &record["request"]["body"];
    assert_eq!(
        (kept["bytes"].as_u64(), kept["truncated"].as_bool()),
        (Some(5000), Some(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recording_is_paused_and_resumed_from_afar_while_traffic_goes_on() {
    let stage = stage(&json!({}));
    stage.node.wait_until_subscribed();
    let (host, port) = stage.node.url("broker").rsplit_once(':').unwrap();
    let client = MqttClient::new(MqttConfig {
        client_id: "operator".into(),
        host: host.into(),
        port: port.parse().unwrap(),
        ..MqttConfig::default()
    });
    client.connect().await.unwrap();
    let call = async |command: &str| {
        let topic = format!("qproxy/node/one/{command}");
        let answer = client.query(topic, Bytes::new()).await.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()
    };
    stage.ask("/n/1", &[]);
    assert_eq!(call("pause").await["done"], "pause");
    stage.ask("/n/2", &[]);
    assert_eq!(call("resume").await["done"], "resume");
    stage.ask("/n/3", &[]);
    assert_eq!(stage.targets_up_to("/n/3"), ["/n/1", "/n/3"]);
    assert_eq!(call("status").await["mode"], "Standalone");

    // The same by a retained message, which a recorder that starts later finds too.
    let off = json!({ "enabled": false }).to_string();
    client
        .publish("qproxy/config/one", off, QoS::AtLeastOnce)
        .await
        .unwrap();
    until("recording is off", || {
        let skipped = || {
            stage.node.status()["ledger"]["recorder"]["skipped"]
                .as_u64()
                .unwrap()
        };
        let before = skipped();
        stage.ask("/n/4", &[]);
        (skipped() > before).then_some(())
    });
    client.disconnect().await.unwrap();
}

#[test]
fn a_node_that_only_forwards_records_nothing_and_says_whom_to_ask() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let config = json!({
        "mode": "Forward", "http": { "port": 0, "downstream": origin.url() }, "api": { "port": 0 },
    });
    let node = Node::start(folder.path(), &config);
    assert_eq!(
        curl(&format!("{}/n/1", node.url("forward")), &[]).text(),
        "1"
    );
    let records = node.api("/api/records", &[]);
    assert_eq!(records.status, 404);
    assert!(
        records.text().contains("playback node"),
        "{}",
        records.text()
    );
    assert_eq!(node.api("/healthz", &[]).status, 200);
    assert!(
        !folder.path().join("data").exists(),
        "a forwarding node keeps nothing"
    );
}
