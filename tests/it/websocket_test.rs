//! WebSocket with the Python library `websockets` on both ends: through the proxy as without it, over TLS and with
//! permessage-deflate, and every message on the player in another process as it was sent.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::certificates;
use crate::support::httpbin::{python, require};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::until;

pub fn peer(script: &str) -> Command {
    require("websockets");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");
    let mut command = Command::new(python());
    command.arg(Path::new(folder).join(script));
    command
}

/// The service, and where it listens.
pub fn service(arguments: &[&str]) -> (Process, u16) {
    let mut process = Process::start(peer("ws_service.py").args(arguments), "python3-venv");
    let port = process.expect_line("where it serves", |line| {
        line.strip_prefix("serving on ")?.trim().parse().ok()
    });
    (process, port)
}

/// What came of all that the client does.
pub fn talk(url: &str, arguments: &[&str]) -> Vec<Value> {
    let output = peer("ws_client.py")
        .arg(url)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What one text message is answered with.
pub fn say(url: &str, text: &str) -> String {
    let script = "import sys; from websockets.sync.client import connect as open\n\
                  with open(sys.argv[1], proxy=None) as w: w.send(sys.argv[2]); print(w.recv())";
    require("websockets");
    let mut command = Command::new(python());
    let output = command.args(["-c", script, url, text]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// The records of a node for which `wanted` holds, oldest first, once there are so many.
pub fn records(node: &Node, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/records?limit=1000&order=oldest&{query}");
    let listed = until("the records are there", || {
        let list = node.api(&path, &[]).json();
        let records = list["records"].as_array()?.clone();
        (records.len() >= count).then_some(records)
    });
    assert_eq!(listed.len(), count, "{listed:?}");
    let whole = |summary: &Value| {
        let id = summary["id"].as_str().unwrap();
        node.api(&format!("/api/records/{id}"), &[]).json()
    };
    listed.iter().map(whole).collect()
}

/// All segments of a stream, page by page, once they are there.
pub fn segments(node: &Node, stream: &Value) -> Vec<Value> {
    let href = stream["stream"]["href"].as_str().unwrap();
    let (mut all, mut batch) = (Vec::new(), Some(0));
    while let Some(from) = batch {
        let page = until("every batch is there", || {
            let page = node
                .api(&format!("{href}?batch={from}&limit=64"), &[])
                .json();
            page["missing"].as_array()?.is_empty().then_some(page)
        });
        all.extend(page["segments"].as_array().unwrap().iter().cloned());
        batch = page["next"].as_u64();
    }
    all
}

/// The texts of one side's text messages.
fn texts<'a>(segments: &'a [Value], from: &str) -> Vec<&'a str> {
    let of = |segment: &&Value| segment["from"] == from && segment["opcode"] == "text";
    let text = |segment: &'a Value| segment["text"].as_str().unwrap_or("no text");
    segments.iter().filter(of).map(text).collect()
}

pub fn recorder(broker: u16, downstream: &str) -> Value {
    json!({
        "mode": "Record", "node": "az1",
        "http": { "host": "127.0.0.1", "port": 0, "downstream": downstream, "service": "chat" },
        "peer": { "host": "127.0.0.1", "port": broker },
        "store": { "path": "spool" }, "api": { "host": "127.0.0.1", "port": 0 }
    })
}

pub fn player(broker: u16) -> Value {
    json!({
        "mode": "Playback", "node": "az2",
        "http": { "host": "127.0.0.1", "port": 0 },
        "peer": { "host": "127.0.0.1", "port": broker },
        "store": { "path": "data" }, "api": { "host": "127.0.0.1", "port": 0 }
    })
}

pub fn standalone(downstream: &str) -> Value {
    let free = json!({ "host": "127.0.0.1", "port": 0 });
    json!({
        "mode": "Standalone", "node": "one",
        "http": { "host": "127.0.0.1", "port": 0, "downstream": downstream, "service": "chat" },
        "playback": { "http": free },
        "broker": free, "api": free, "store": { "path": "data" }
    })
}

pub fn ws(url: &str) -> String {
    url.replacen("http", "ws", 1)
}

/// What the API shows of the conversations that the client had, in its order.
fn assert_told(node: &Node) {
    let streams = records(node, "protocol=ws", 7);
    let handshakes = records(node, "protocol=http&method=GET", 8);
    assert_eq!(
        handshakes
            .iter()
            .filter(|h| h["response"]["status"] == 403)
            .count(),
        1
    );
    for stream in &streams {
        let began = stream["stream"]["began_with"]["id"].as_str().unwrap();
        let handshake = handshakes
            .iter()
            .find(|handshake| handshake["id"] == began)
            .unwrap();
        assert_eq!(handshake["followed_by"]["id"], stream["id"]);
        assert_eq!(handshake["response"]["status"], 101);
        assert_eq!(
            handshake["request"]["target"],
            stream["stream"]["upgrade"]["target"]
        );
        assert_eq!(stream["outcome"]["kind"], "ok", "{stream}");
    }
    let upgrade = &streams[0]["stream"]["upgrade"];
    assert_eq!(upgrade["target"], "/echo?room=1");
    assert_eq!(
        (
            &upgrade["client"]["messages"],
            &upgrade["server"]["messages"]
        ),
        (&json!(7), &json!(7))
    );
    assert_eq!(
        upgrade["close"],
        json!({ "from": "client", "code": 4001, "reason": "enough" })
    );

    let all = segments(node, &streams[0]);
    let tea = "tea ".repeat(30000);
    let expected = ["hello", "", "é and 茶", &tea];
    assert_eq!(&texts(&all, "client")[..4], expected);
    assert_eq!(texts(&all, "client")[4..].concat(), "in three parts");
    let back = texts(&all, "server");
    assert_eq!(
        (&back[..4], back[4..].concat()),
        (&expected[..], "in three parts".to_owned())
    );
    assert!(
        all.iter()
            .any(|segment| segment["opcode"] == "ping" && segment["text"] == "there?")
    );
    assert!(all.iter().all(|segment| segment.get("note").is_none()));

    let all = segments(node, &streams[1]);
    let expected: Vec<_> = (0..1000)
        .map(|number| format!("message {number}"))
        .collect();
    assert_eq!(texts(&all, "client"), expected);
    let all = segments(node, &streams[2]);
    let expected: Vec<_> = (0..1000).map(|number| format!("event {number}")).collect();
    assert_eq!(texts(&all, "server"), expected);
    let closes: Vec<_> = streams[4..]
        .iter()
        .map(|stream| &stream["stream"]["upgrade"]["close"])
        .collect();
    let close = |code: u16, reason| json!({ "from": "server", "code": code, "reason": reason });
    assert_eq!(
        closes,
        [
            &close(1000, "done"),
            &close(1011, "broken"),
            &close(4999, "as we like")
        ]
    );
}

#[test]
fn messages_pass_as_without_the_proxy_and_are_listed_on_the_player_as_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, port) = service(&[]);
    let broker = Mosquitto::start_now(&Options::default());
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = Node::start(
        &folder.path().join("recorder"),
        &recorder(broker.port(), &format!("http://127.0.0.1:{port}")),
    );
    let direct = talk(&format!("ws://127.0.0.1:{port}"), &[]);
    assert_eq!(direct.len(), 16);
    assert_eq!(talk(&ws(recorder.url("record")), &[]), direct);
    assert_told(&player);
}

#[test]
fn compressed_messages_pass_untouched_and_are_shown_inflated() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, port) = service(&["deflate"]);
    let node = Node::start(
        folder.path(),
        &standalone(&format!("http://127.0.0.1:{port}")),
    );
    let direct = talk(&format!("ws://127.0.0.1:{port}"), &["deflate"]);
    assert_eq!(talk(&ws(node.url("record")), &["deflate"]), direct);
    assert_told(&node);
    let streams = records(&node, "protocol=ws&path=/echo", 1);
    assert!(streams[0]["stream"]["upgrade"]["deflate"]["client"]["bits"].as_u64() >= Some(8));
    let all = segments(&node, &streams[0]);
    let compressed = all.iter().filter(|segment| segment["compressed"] == true);
    assert!(compressed.count() >= 8);
    // 120,000 bytes of tea are few on the wire.
    assert!(streams[0]["stream"]["client_bytes"].as_u64() < Some(2 * 10_485_760));
}

#[test]
fn a_listener_and_an_upstream_with_tls_carry_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates::make(folder.path(), "authority");
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (certificate, key, ca) = (text(&tls.certificate), text(&tls.key), text(&tls.ca));
    let (_service, port) = service(&["deflate", &certificate, &key]);
    let mut config = standalone(&format!("https://localhost:{port}"));
    config["http"]["tls"] = json!({ "tls_cert": certificate, "tls_key": key });
    config["http"]["upstream_ca"] = json!(ca);
    let node = Node::start(&folder.path().join("node"), &config);
    let address = node.url("record").rsplit_once(':').unwrap().1;
    let direct = talk(&format!("wss://localhost:{port}"), &["deflate", &ca]);
    let through = talk(&format!("wss://localhost:{address}"), &["deflate", &ca]);
    assert_eq!(through, direct);
    assert_told(&node);
    let streams = records(&node, "protocol=ws&path=/push", 1);
    assert_eq!(streams[0]["tls"]["server_name"], "localhost");
}

#[test]
fn an_end_without_a_close_frame_is_recorded_as_whose_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, port) = service(&[]);
    let node = Node::start(
        folder.path(),
        &standalone(&format!("http://127.0.0.1:{port}")),
    );
    let hold = || {
        let script = "import sys; from websockets.sync.client import connect\n\
            c = connect(sys.argv[1], compression=None); print(c.recv(), flush=True)\n\
            try: c.recv()\nexcept Exception as e: print('ended', flush=True)";
        let url = format!("{}/hold", ws(node.url("record")));
        let mut client = Process::start(
            Command::new(python()).args(["-c", script, &url]),
            "python3-venv",
        );
        client.expect_line("that it holds", |line| (line == "holding").then_some(()));
        client
    };
    hold().kill();
    let streams = records(&node, "protocol=ws", 1);
    assert_eq!(streams[0]["outcome"]["kind"], "client_closed");
    let mut client = hold();
    service.kill();
    client.expect_line("that it ended", |line| (line == "ended").then_some(()));
    let streams = records(&node, "protocol=ws", 2);
    assert_eq!(
        streams[1]["outcome"]["kind"], "upstream_failed",
        "{}",
        streams[1]
    );
    assert_eq!(streams[1]["stream"]["upgrade"]["server"]["messages"], 1);
}

#[test]
fn what_is_beyond_the_limit_on_a_stream_passes_and_the_record_says_that_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, port) = service(&[]);
    let mut config = standalone(&format!("http://127.0.0.1:{port}"));
    config["capture"] = json!({ "max_stream_bytes": 100_000 });
    let node = Node::start(folder.path(), &config);
    let direct = talk(&format!("ws://127.0.0.1:{port}"), &[]);
    assert_eq!(talk(&ws(node.url("record")), &[]), direct);
    let streams = records(&node, "protocol=ws&path=/echo", 1);
    assert_eq!(streams[0]["stream"]["truncated"], true);
    assert_eq!(streams[0]["stream"]["upgrade"]["client"]["messages"], 7);
    let all = segments(&node, &streams[0]);
    let kept: usize = all
        .iter()
        .filter_map(|segment| segment["text"].as_str())
        .map(str::len)
        .sum();
    assert!(kept <= 100_000, "{kept}");
    // The message in which the limit fell has no end.
    assert_eq!(
        all.last().unwrap()["part"],
        "first",
        "{}",
        all.last().unwrap()["opcode"]
    );
}
