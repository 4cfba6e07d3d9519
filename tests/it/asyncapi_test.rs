//! What goes over the bus is what `docs/asyncapi.json` says: a subscriber that knows nothing but that document holds
//! every message against it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::curl::curl;
use crate::support::httpbin::{Httpbin, python, require};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::until;
use crate::websocket_test;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asyncapi.json");

fn reader(port: u16) -> Process {
    for module in ["paho.mqtt", "msgpack", "jsonschema"] {
        require(module);
    }
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/peers/asyncapi_subscriber.py"
    );
    let mut command = Command::new(python());
    command.args([script, &port.to_string(), DOCUMENT, "600"]);
    let mut reader = Process::start(&mut command, "python3");
    reader.expect_line("`subscribed`", |line| (line == "subscribed").then_some(()));
    reader
}

/// Reads on until each of `wanted` was there, and everything was as the document has it.
fn read_until(reader: &mut Process, wanted: &[(&str, &str)]) {
    let mut missing: BTreeSet<(String, String)> = wanted
        .iter()
        .map(|(channel, kind)| ((*channel).to_owned(), (*kind).to_owned()))
        .collect();
    while !missing.is_empty() {
        let what = format!("one of {missing:?}");
        let seen: Value = reader.expect_line(&what, |line| serde_json::from_str(line).ok());
        assert_eq!(seen["problem"], Value::Null, "{seen:#}");
        let text = |key: &str| seen[key].as_str().unwrap().to_owned();
        missing.remove(&(text("channel"), text("kind")));
    }
}

/// A TCP service that gives back one message and closes.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut heard = [0; 5];
            let _ = socket
                .read_exact(&mut heard)
                .and_then(|()| socket.write_all(&heard));
        }
    });
    port
}

fn nodes(folder: &Path, broker: u16, upstream: &str, more: &Value) -> (Node, Node) {
    let peer = json!({ "host": "127.0.0.1", "port": broker });
    let mut recorder = json!({
        "mode": "Record", "node": "az1", "peer": peer, "api": { "port": 0 },
        "http": { "port": 0, "downstream": upstream, "service": "a/shop" },
        "tcp": { "port": 0, "downstream": format!("127.0.0.1:{}", echo()) },
    });
    let mut player = json!({
        "mode": "Playback", "node": "az2", "peer": peer, "api": { "port": 0 },
        "http": { "port": 0 },
    });
    for (key, value) in more.as_object().unwrap() {
        recorder[key] = value.clone();
        player[key] = value.clone();
    }
    let player = Node::start(&folder.join("player"), &player);
    (player, Node::start(&folder.join("recorder"), &recorder))
}

fn traffic(recorder: &Node) {
    let url = recorder.url("record");
    curl(
        &format!("{url}/get?x=1"),
        &["-H", "X-Two: 1", "-H", "X-Two: 2"],
    );
    curl(&format!("{url}/bytes/70000?seed=7"), &[]);
    let mut socket = TcpStream::connect(recorder.url("tcp")).unwrap();
    socket.write_all(b"hello").unwrap();
    socket.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn everything_on_the_bus_is_as_the_asyncapi_document_says() {
    let (folder, broker) = (
        tempfile::tempdir().unwrap(),
        Mosquitto::start_now(&Options::default()),
    );
    let mut reader = reader(broker.port());
    let origin = Httpbin::start(0);
    let (player, recorder) = nodes(folder.path(), broker.port(), &origin.url(), &json!({}));
    traffic(&recorder);
    until("all records are stored", || {
        (player.status()["counts"]["records"] == 3).then_some(())
    });
    let run = json!({ "target": origin.url() }).to_string();
    let arguments = [
        "-X",
        "POST",
        "-H",
        "content-type: application/json",
        "-d",
        &run,
    ];
    let started = player.api("/api/replays", &arguments);
    assert!(started.status < 300, "{}", started.text());
    read_until(
        &mut reader,
        &[
            ("traffic", "exchange"),
            ("traffic", "stream"),
            ("body", "chunk"),
            ("segment", "segments"),
            ("presence", "presence"),
            ("head", "head"),
            ("ack", "ack"),
            ("replay", "result"),
            ("replay", "report"),
        ],
    );
}

#[test]
fn websocket_messages_are_as_the_asyncapi_document_says() {
    let (folder, broker) = (
        tempfile::tempdir().unwrap(),
        Mosquitto::start_now(&Options::default()),
    );
    let mut reader = reader(broker.port());
    let (_service, port) = websocket_test::service(&["deflate"]);
    let upstream = format!("http://127.0.0.1:{port}");
    let (_player, recorder) = nodes(folder.path(), broker.port(), &upstream, &json!({}));
    websocket_test::talk(
        &recorder.url("record").replacen("http", "ws", 1),
        &["deflate"],
    );
    // Seven conversations, and the last of them ended behind all that they said.
    for _ in 0..7 {
        read_until(&mut reader, &[("traffic", "stream")]);
    }
}

#[test]
fn what_is_sealed_is_as_the_asyncapi_document_says() {
    let (folder, broker) = (
        tempfile::tempdir().unwrap(),
        Mosquitto::start_now(&Options::default()),
    );
    let made = Command::new(env!("CARGO_BIN_EXE_qproxy"))
        .args(["key", "generate"])
        .output()
        .unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, made.stdout).unwrap();
    let mut reader = reader(broker.port());
    let origin = Httpbin::start(0);
    let sealed = json!({ "encryption": { "key_id": "k1", "key_file": key } });
    let (_player, recorder) = nodes(folder.path(), broker.port(), &origin.url(), &sealed);
    traffic(&recorder);
    read_until(
        &mut reader,
        &[
            ("traffic", "sealed"),
            ("body", "sealed"),
            ("segment", "sealed"),
        ],
    );
}
