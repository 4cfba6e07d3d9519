//! The main job with nothing mocked: recorder, broker and player as separate processes, a real origin, curl.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::curl::{curl, try_curl};
use crate::support::free_port;
use crate::support::httpbin::{Httpbin, python, require};
use crate::support::httpbin_requests::{
    REQUESTS, assert_answered_as_recorded, assert_replayed_as_recorded, authority, record_all,
    wait_for_records,
};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::process::Process;

fn recorder(broker_port: u16, upstream: &str) -> Value {
    json!({
        "mode": "Record", "node": "az1",
        "http": { "host": "127.0.0.1", "port": free_port(), "downstream": upstream, "service": "httpbin" },
        "peer": { "host": "127.0.0.1", "port": broker_port },
        "store": { "path": "spool" },
        "api": { "host": "127.0.0.1", "port": 0 }
    })
}

fn player(broker_port: u16) -> Value {
    json!({
        "mode": "Playback", "node": "az2",
        "http": { "host": "127.0.0.1", "port": 0 },
        "peer": { "host": "127.0.0.1", "port": broker_port },
        "store": { "path": "data" },
        "api": { "host": "127.0.0.1", "port": 0 }
    })
}

#[test]
fn records_answers_and_replays_every_endpoint_of_httpbin_across_processes() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_now(&Options::default());
    let mut origin = Httpbin::start(0);
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = Node::start(
        &folder.path().join("recorder"),
        &recorder(broker.port(), &origin.url()),
    );

    let recorded = record_all(recorder.url("record"));
    wait_for_records(&player, REQUESTS.len() as u64);
    origin.stop();
    let direct = try_curl(&origin.url(), &[]);
    assert!(direct.is_err(), "the origin still answers: {direct:?}");

    assert_answered_as_recorded(
        &recorded,
        player.url("answer"),
        authority(recorder.url("record")),
    );

    let copy = Httpbin::start(0);
    assert_replayed_as_recorded(&player, &copy.url());
}

#[test]
fn a_recorder_reaches_the_broker_inside_the_player_over_tls() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let mut playing = player(0);
    playing.as_object_mut().unwrap().remove("peer");
    playing["broker"] = json!({ "port": 0, "tls": { "tls_cert": certificate, "tls_key": key } });
    let player = Node::start(&folder.path().join("player"), &playing);
    let (_, port) = player.url("broker").rsplit_once(':').unwrap();
    let mut recording = recorder(0, &origin.url());
    recording["peer"] =
        json!({ "host": "localhost", "port": port.parse::<u16>().unwrap(), "tls": true });
    recording["mqtt"] = json!({ "ca": certificate });
    let recorder = Node::start(&folder.path().join("recorder"), &recording);
    assert_eq!(curl(recorder.url("record"), &[]).status, 200);
    wait_for_records(&player, 1);
}

/// In both versions: what the one node captured, the other answers.
#[test]
fn nodes_that_speak_mqtt_5_meet_on_any_broker_and_with_nodes_that_do_not() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let mosquitto = Mosquitto::start_now(&Options::default());
    let mut playing = player(mosquitto.port());
    playing["mqtt"] = json!({ "protocol": "5.0" });
    let player = Node::start(&folder.path().join("player"), &playing);
    for (number, protocol) in (1..).zip(["5.0", "3.1.1"]) {
        let mut recording = recorder(mosquitto.port(), &origin.url());
        recording["node"] = json!(format!("rec-{number}"));
        recording["mqtt"] = json!({ "protocol": protocol });
        let recorder = Node::start(
            &folder.path().join(format!("recorder-{number}")),
            &recording,
        );
        assert_eq!(curl(recorder.url("record"), &[]).status, 200);
        wait_for_records(&player, number);
    }
}

#[test]
fn a_subscriber_that_is_not_ours_reads_the_traffic_topics() {
    require("paho.mqtt");
    require("msgpack");
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_now(&Options::default());
    let origin = Httpbin::start(0);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/subscriber.py");
    let port = broker.port().to_string();
    let mut command = Command::new(python());
    command.args([script, &port, "qproxy/+/az1/+/#", "120"]);
    let mut subscriber = Process::start(&mut command, "python3");
    subscriber.expect_line("`subscribed`", |line| (line == "subscribed").then_some(()));
    let recorder = Node::start(
        &folder.path().join("recorder"),
        &recorder(broker.port(), &origin.url()),
    );

    let path = "/response-headers?X-Two=2&X-Two=3";
    curl(&format!("{}{path}", recorder.url("record")), &[]);
    curl(
        &format!("{}/bytes/70000?seed=7", recorder.url("record")),
        &[],
    );

    let (mut exchange, mut chunks) = (None, 0);
    while exchange.is_none() || chunks < 2 {
        let read: Value = subscriber.expect_line("an item", |line| serde_json::from_str(line).ok());
        let (topic, item) = (read["topic"].as_str().unwrap(), &read["item"]);
        match item["kind"].as_str().unwrap() {
            "exchange" if item["request"]["target"] == path => {
                assert_eq!(topic, "qproxy/traffic/az1/httpbin/http/GET/200");
                exchange = Some(item.clone());
            }
            "exchange" => {}
            "chunk" => {
                assert_eq!(topic, "qproxy/body/az1/httpbin");
                chunks += 1;
            }
            other => panic!("{other}: {read:#}"),
        }
    }
    let exchange = exchange.unwrap();
    assert_eq!(exchange["v"], 1);
    assert_eq!(exchange["origin"]["node"], "az1");
    assert_eq!(exchange["response"]["status"], 200);
    let fields = exchange["response"]["headers"].as_array().unwrap();
    let twice: Vec<_> = fields
        .iter()
        .filter(|f| f[0].as_str().unwrap().eq_ignore_ascii_case("x-two"))
        .collect();
    assert_eq!(twice.len(), 2, "{fields:?}");
    let body: Value =
        serde_json::from_str(exchange["response"]["body"]["inline"].as_str().unwrap()).unwrap();
    assert_eq!(body["X-Two"], json!(["2", "3"]));
}
