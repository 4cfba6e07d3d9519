//! The main job with nothing mocked: recorder, broker and player as separate processes, a real origin, curl.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::curl::{Answer, curl, try_curl};
use crate::support::httpbin::{Httpbin, python, require};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::{free_port, until};

/// Every kind of request that httpbin answers the same way twice: path, and curl's arguments.
const REQUESTS: &[(&str, &[&str])] = &[
    ("/", &[]),
    ("/get?b=2&a=1", &[]),
    ("/json", &["--head"]),
    ("/post", &["--data", "name=tea&cups=2"]),
    (
        "/post",
        &[
            "--header",
            "content-type: application/json",
            "--data",
            "{\"a\": [1, 2, 3]}",
        ],
    ),
    ("/put", &["--request", "PUT", "--data", "x"]),
    ("/patch", &["--request", "PATCH", "--data", "x"]),
    ("/delete", &["--request", "DELETE"]),
    ("/anything/with/path?q=%2F", &["--header", "x-seen: yes"]),
    ("/headers", &[]),
    ("/ip", &[]),
    ("/user-agent", &[]),
    ("/status/201", &[]),
    ("/status/204", &[]),
    ("/status/304", &[]),
    ("/status/404", &[]),
    ("/status/418", &[]),
    ("/status/503", &[]),
    ("/gzip", &[]),
    ("/deflate", &[]),
    ("/brotli", &[]),
    ("/encoding/utf8", &[]),
    ("/html", &[]),
    ("/json", &[]),
    ("/xml", &[]),
    ("/robots.txt", &[]),
    ("/deny", &[]),
    ("/cache", &[]),
    ("/cache/60", &[]),
    ("/etag/abc", &["--header", "if-none-match: abc"]),
    ("/response-headers?X-One=1&X-Two=2&X-Two=3", &[]),
    ("/redirect/2", &[]),
    ("/redirect-to?url=%2Fget&status_code=307", &[]),
    ("/absolute-redirect/1", &[]),
    ("/stream/5", &[]),
    ("/stream-bytes/5000?seed=1&chunk_size=100", &[]),
    ("/bytes/70000?seed=7", &[]),
    ("/range/100000?chunk_size=1000", &[]),
    ("/range/1024", &["--range", "10-20"]),
    ("/drip?duration=0.2&numbytes=5&delay=0", &[]),
    ("/delay/0.2", &[]),
    ("/links/5/0", &[]),
    ("/image/png", &[]),
    ("/image/jpeg", &[]),
    ("/image/webp", &[]),
    ("/image/svg", &[]),
    ("/base64/cVByb3h5", &[]),
    ("/cookies", &["--header", "cookie: a=1"]),
    ("/cookies/set?flavour=mint", &[]),
    ("/basic-auth/u/p", &["--user", "u:p"]),
    ("/basic-auth/u/p", &["--user", "u:wrong"]),
    ("/bearer", &["--header", "authorization: Bearer t"]),
    ("/forms/post", &[]),
];

/// What waitress or httpbin makes anew for each response.
const CHANGING: &[&str] = &["date", "last-modified", "qproxy-record"];

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

fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let hop = [
        "connection",
        "transfer-encoding",
        "content-length",
        "keep-alive",
    ];
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| !CHANGING.contains(&name.as_str()) && !hop.contains(&name.as_str()));
    headers.sort();
    (answer.status, headers, answer.body.clone())
}

/// Waits until the player has stored `count` records.
fn wait_for_records(player: &Node, count: u64) {
    until(&format!("{count} records stored"), || {
        let status = player.status();
        (status["counts"]["records"].as_u64()? >= count).then_some(())
    });
}

fn record_all(base: &str) -> Vec<Answer> {
    REQUESTS
        .iter()
        .map(|(path, arguments)| curl(&format!("{base}{path}"), arguments))
        .collect()
}

fn assert_answered_as_recorded(recorded: &[Answer], answer_url: &str, host: &str) {
    let host = format!("host: {host}");
    for ((path, arguments), recorded) in REQUESTS.iter().zip(recorded) {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--header", host.as_str()]);
        let answered = curl(&format!("{answer_url}{path}"), &arguments);
        assert_eq!(
            comparable(&answered),
            comparable(recorded),
            "{path} {arguments:?}"
        );
    }
}

fn authority(url: &str) -> &str {
    url.split("://").nth(1).unwrap()
}

/// Replays all that `node` has against `target`; gives the finished report.
fn replay(node: &Node, target: &str) -> Value {
    // What httpbin tells of the request or makes anew: the marker of a replay, and the present time.
    let request = json!({
        "target": target, "concurrency": 1, "speed": "max", "keep_host": true,
        "ignore_headers": ["last-modified", "etag"],
        "ignore_json": ["/headers/Qproxy-Replay"],
    });
    let request = request.to_string();
    let json = [
        "--header",
        "content-type: application/json",
        "--data",
        request.as_str(),
    ];
    let started = node.api("/api/replays", &json);
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    until("the replay ends", || {
        let report = node.api(&format!("/api/replays/{id}"), &[]).json();
        (report["state"] != "running").then_some(report)
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
    let report = replay(&player, &copy.url());
    assert_eq!(report["totals"]["sent"], REQUESTS.len(), "{report:#}");
    assert_eq!(report["totals"]["failed"], 0, "{report:#}");
    // One endpoint echoes the marker header of the replay on lines of its own, which no pointer reaches.
    let differences = report["differences"].as_array().unwrap();
    let endpoints: Vec<_> = differences
        .iter()
        .map(|d| d["endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(endpoints, ["GET /stream/{id}"], "{report:#}");
    assert_eq!(report["totals"]["same"], REQUESTS.len() - 1, "{report:#}");
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
