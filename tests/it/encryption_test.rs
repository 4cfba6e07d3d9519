//! Recording under a key, over processes: what a raw subscriber, the spool and the stores hold shows nothing of the content, and
//! who has the key answers and replays as ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use crate::support::curl::{Answer, curl};
use crate::support::httpbin_requests::{replay, wait_for_records};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::until;

/// What must not be seen anywhere.
const MARK: &str = "zq7-secret-mark";
const KEY_ID: &str = "2026-11";

/// Answers each request with the mark in a field, and with what was sent and the mark as content.
fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&socket));
        }
    });
    url
}

fn serve(mut socket: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    body.extend_from_slice(MARK.as_bytes());
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Answer: {MARK}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).ok()?;
    socket.write_all(&body).ok()
}

/// Collects topic and payload of everything on a broker.
fn spy(port: u16) -> Arc<Mutex<Vec<u8>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut options = MqttOptions::new("spy", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("#", QoS::AtLeastOnce).unwrap();
    let (subscribed, ready) = std::sync::mpsc::channel();
    let kept = seen.clone();
    std::thread::spawn(move || {
        let _client = client;
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(subscribed.send(())),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let mut kept = kept.lock().unwrap();
                    kept.extend_from_slice(publish.topic.as_bytes());
                    kept.extend_from_slice(&publish.payload);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    });
    ready.recv().unwrap();
    seen
}

/// All files under a folder, one behind the other.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
    all
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|w| w == word.as_bytes())
}

fn assert_sealed(what: &str, bytes: &[u8]) {
    assert!(holds(bytes, KEY_ID), "{what} holds nothing that is sealed");
    assert!(!holds(bytes, MARK), "{what} shows the mark");
}

fn new_key() -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_qproxy"))
        .args(["key", "generate"])
        .output()
        .unwrap();
    String::from_utf8(made.stdout).unwrap()
}

struct Stage {
    folder: tempfile::TempDir,
    broker: Mosquitto,
    key: String,
    origin: String,
}

impl Stage {
    fn set() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            broker: Mosquitto::start_now(&Options::default()),
            key: new_key(),
            origin: origin(),
        }
    }

    fn node(&self, name: &str, mode: &str, http: &Value, store: &Value, key: Option<&str>) -> Node {
        let folder = self.folder.path().join(name);
        let mut config = json!({
            "mode": mode, "node": name, "http": http, "store": store,
            "peer": { "host": "127.0.0.1", "port": self.broker.port() },
            "api": { "port": 0 }
        });
        if let Some(key) = key {
            // Beside the folders that are searched.
            let path = self.folder.path().join(format!("{name}.key"));
            std::fs::write(&path, key).unwrap();
            config["encryption"] = json!({ "key_id": KEY_ID, "key_file": path });
        }
        Node::start(&folder, &config)
    }

    fn recorder(&self) -> Node {
        let http = json!({ "port": 0, "downstream": self.origin, "service": "shop" });
        let store = json!({ "path": "data" });
        self.node("rec", "Record", &http, &store, Some(&self.key))
    }

    fn player(&self, name: &str, store: &Value, key: Option<&str>) -> Node {
        self.node(name, "Playback", &json!({ "port": 0 }), store, key)
    }

    /// A small exchange and one whose bodies travel in pieces.
    fn ask_both(&self, base: &str) -> [Answer; 2] {
        let large = self.folder.path().join("large");
        std::fs::write(&large, MARK.repeat(20_000)).unwrap();
        let url = format!("{base}/{MARK}?token={MARK}");
        let header = format!("X-Secret: {MARK}");
        let file = format!("@{}", large.display());
        [MARK, &file].map(|data| curl(&url, &["--header", &header, "--data-binary", data]))
    }
}

/// The player has both and answers and replays them as they were.
fn assert_plays(stage: &Stage, player: &Node, recorded: &[Answer; 2]) {
    wait_for_records(player, 2);
    until("both are answered with all their pieces", || {
        let answered = stage.ask_both(player.url("answer"));
        let same = |(one, other): (&Answer, &Answer)| {
            (one.status, one.text()) == (other.status, other.text())
        };
        answered.iter().zip(recorded).all(same).then_some(())
    });
    let listed = player
        .api(&format!("/api/records?path=/{MARK}"), &[])
        .json();
    let listed = listed["records"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|record| record["sealed"].is_null()));
    let report = replay(player, &stage.origin);
    assert_eq!(report["totals"]["same"], json!(2), "{report}");
}

#[test]
fn nothing_of_the_content_is_seen_on_the_bus_or_on_a_disk_and_the_key_opens_it() {
    let stage = Stage::set();
    let seen = spy(stage.broker.port());
    let store = json!({ "path": "data" });
    let player = stage.player("player", &store, Some(&stage.key));
    let blind = stage.player("blind", &store, None);
    let wrong = stage.player("wrong", &store, Some(&new_key()));
    let recorder = stage.recorder();
    let recorded = stage.ask_both(recorder.url("record"));
    assert!(
        recorded
            .iter()
            .all(|answer| answer.status == 200 && holds(answer.text().as_bytes(), MARK))
    );

    assert_plays(&stage, &player, &recorded);
    for (node, reason, why) in [
        (&blind, "unknown_key", "key \"2026-11\" is not known here"),
        (&wrong, "refused", "does not open with key \"2026-11\""),
    ] {
        wait_for_records(node, 2);
        let listed = node.api("/api/records", &[]).json();
        let listed = listed["records"].as_array().unwrap();
        for record in listed {
            assert_eq!(
                (&record["sealed"], &record["target"]),
                (&json!(KEY_ID), &json!(""))
            );
            assert_eq!(
                (&record["method"], &record["status"]),
                (&json!("POST"), &json!(200))
            );
        }
        let id = listed[0]["id"].as_str().unwrap();
        let got = node.api(&format!("/api/records/{id}"), &[]);
        assert_eq!(
            (got.status, &got.json()["error"]["code"]),
            (409, &json!("sealed"))
        );
        assert!(
            got.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(why),
            "{}",
            got.text()
        );
        let [answer, _] = stage.ask_both(node.url("answer"));
        assert!(
            answer.status == 404 && answer.text().contains(KEY_ID),
            "{}",
            answer.text()
        );
        let report = replay(node, &stage.origin);
        assert_eq!(report["totals"]["skipped"], json!(2), "{report}");
        assert!(
            report["skips"][0]["reason"].as_str().unwrap().contains(why),
            "{report}"
        );
        let page = node.api("/metrics", &[]).text();
        let counted = format!("qproxy_sync_sealed_unreadable_total{{reason=\"{reason}\"}}");
        assert!(page.contains(&counted), "{page}");
        let delete = node.api(&format!("/api/records/{id}"), &["--request", "DELETE"]);
        assert_eq!(delete.status, 204);
    }

    assert_sealed("the bus", &seen.lock().unwrap());
    for name in ["rec", "player", "blind", "wrong"] {
        assert_sealed(name, &files(&stage.folder.path().join(name)));
    }
}

#[test]
fn redis_holds_only_what_is_sealed_and_the_key_opens_it() {
    let stage = Stage::set();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start(&["--rdbcompression", "no"]));
    let player = stage.player("player", &json!({ "redis": redis.url() }), Some(&stage.key));
    let recorder = stage.recorder();
    let recorded = stage.ask_both(recorder.url("record"));
    assert_plays(&stage, &player, &recorded);

    let keys: Vec<String> = runtime.block_on(redis.command(&["KEYS", "*"]));
    let mut all = Vec::new();
    for key in &keys {
        let dump: Vec<u8> = runtime.block_on(redis.command(&["DUMP", key]));
        all.extend_from_slice(key.as_bytes());
        all.extend(dump);
    }
    assert_sealed("Redis", &all);
}

#[test]
fn a_key_that_cannot_be_used_is_named_with_its_place_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.key");
    std::fs::write(&file, "c2hvcnQtc2VjcmV0").unwrap();
    let config = folder.path().join("config.json");
    let typed = json!({
        "mode": "Playback", "http": { "port": 0 }, "api": { "port": 0 },
        "peer": { "host": "127.0.0.1", "port": 9 },
        "encryption": { "key_id": KEY_ID, "key_file": file }
    });
    std::fs::write(&config, typed.to_string()).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_qproxy"))
        .env("CONFIG_PATH", &config)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(
        said.contains("encryption.key_file") && said.contains("bad.key"),
        "{said}"
    );
    assert!(!said.contains("c2hvcnQtc2VjcmV0"), "{said}");
}
