//! TCP over separate processes: what clients and servers say passes unchanged, is shown byte for byte, answers clients
//! when the server is gone, and is replayed against another one.

mod answer;
mod psql;
mod replay;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::until;

struct Stage {
    folder: tempfile::TempDir,
    broker: Mosquitto,
    player: Node,
}

impl Stage {
    fn set() -> Self {
        Self::with_playback(&json!({}))
    }

    /// The player with this as its `playback`.
    fn with_playback(playback: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start_now(&Options::default());
        let config = json!({
            "mode": "Playback", "node": "az2", "http": { "port": 0 }, "playback": playback,
            "peer": { "host": "127.0.0.1", "port": broker.port() },
            "api": { "port": 0 }
        });
        let player = Node::start(&folder.path().join("az2"), &config);
        Self {
            folder,
            broker,
            player,
        }
    }

    /// A recorder in front of the service at `port`.
    fn recorder(&self, service: &str, port: u16) -> Node {
        let config = json!({
            "mode": "Record", "node": "az1",
            "tcp": { "port": 0, "downstream": format!("127.0.0.1:{port}"), "service": service },
            "capture": { "queue_bytes": "128MiB" },
            "peer": { "host": "127.0.0.1", "port": self.broker.port() },
            "api": { "port": 0 }
        });
        Node::start(&self.folder.path().join(service), &config)
    }

    /// Waits for `count` streams; gives their ids, oldest first.
    fn streams(&self, count: usize) -> Vec<String> {
        until("the streams are listed", || {
            let path = "/api/records?protocol=tcp&order=oldest";
            let page = self.player.api(path, &[]).json();
            let listed = page["records"].as_array().unwrap();
            let ids = listed.iter().map(|r| r["id"].as_str().unwrap().to_owned());
            (listed.len() >= count).then(|| ids.collect())
        })
    }

    /// What each side said in a stream, put together from its segments, in pages of `limit` batches.
    fn said(&self, id: &str, limit: u32) -> (Vec<u8>, Vec<u8>) {
        let record = self.player.api(&format!("/api/records/{id}"), &[]).json();
        let href = record["stream"]["href"].as_str().unwrap().to_owned();
        assert_eq!(record["stream"]["truncated"], false, "{record:#}");
        let (mut client, mut server) = (Vec::new(), Vec::new());
        let mut next = json!(0);
        while let Some(batch) = next.as_u64() {
            let page = until("the segments have arrived", || {
                let path = format!("{href}?batch={batch}&limit={limit}");
                let page = self.player.api(&path, &[]).json();
                page["missing"]
                    .as_array()
                    .unwrap()
                    .is_empty()
                    .then_some(page)
            });
            for segment in page["segments"].as_array().unwrap() {
                let side = match segment["from"].as_str().unwrap() {
                    "client" => &mut client,
                    _ => &mut server,
                };
                side.extend(bytes_of(segment));
            }
            next = page["next"].clone();
        }
        assert_eq!(record["stream"]["client_bytes"], client.len());
        assert_eq!(record["stream"]["server_bytes"], server.len());
        (client, server)
    }
}

fn bytes_of(segment: &Value) -> Vec<u8> {
    match (segment["text"].as_str(), segment["base64"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(coded)) => STANDARD.decode(coded).unwrap(),
        _ => panic!("text or base64: {segment}"),
    }
}

/// A command as Redis clients send it (RESP).
fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut sent = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        sent.extend(format!("${}\r\n", word.len()).into_bytes());
        sent.extend_from_slice(word);
        sent.extend_from_slice(b"\r\n");
    }
    sent
}

/// What `redis-cli` says; it has to succeed.
fn redis_cli(port: &str, words: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", port]).args(words);
    let output = command.output().expect("redis-cli comes with redis-tools");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn port_of(address: &str) -> String {
    address.rsplit(':').next().unwrap().to_owned()
}

#[test]
fn redis_cli_works_through_the_proxy_and_is_recorded_byte_for_byte() {
    let stage = Stage::set();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start(&[]));
    let recorder = stage.recorder("redis", redis.port());
    let port = port_of(recorder.url("tcp"));
    let redis_cli = |words: &[&str]| redis_cli(&port, words);
    assert_eq!(redis_cli(&["SET", "tea", "grün"]), "OK\n");
    assert_eq!(redis_cli(&["GET", "tea"]), "grün\n");
    let kept: String = runtime.block_on(redis.command(&["GET", "tea"]));
    assert_eq!(kept, "grün", "it is in the server behind the proxy");

    let ids = stage.streams(2);
    let tea = "grün".as_bytes();
    let set = (resp(&[b"SET", b"tea", tea]), b"+OK\r\n".to_vec());
    assert_eq!(stage.said(&ids[0], 8), set);
    let get = (
        resp(&[b"GET", b"tea"]),
        "$5\r\ngrün\r\n".as_bytes().to_vec(),
    );
    assert_eq!(stage.said(&ids[1], 8), get);
}

/// Bytes of every value that do not repeat soon.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn a_long_stream_with_a_half_close_is_recorded_byte_for_byte() {
    let (asked, answered) = (noise(300_000, 1), noise(700_000, 2));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reply = answered.clone();
    // Answers only once it has heard that the client has no more to say.
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).unwrap();
        socket.write_all(&reply).unwrap();
        heard
    });
    let stage = Stage::set();
    let recorder = stage.recorder("plain", port);

    let mut client = TcpStream::connect(recorder.url("tcp")).unwrap();
    client.write_all(&asked).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == answered, "the client got something else");
    assert!(
        server.join().unwrap() == asked,
        "the server got something else"
    );

    let ids = stage.streams(1);
    for limit in [1, 64] {
        let (from_client, from_server) = stage.said(&ids[0], limit);
        assert!(from_client == asked, "the record has another question");
        assert!(from_server == answered, "the record has another answer");
    }
}
