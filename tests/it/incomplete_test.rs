//! Records of which a piece never arrives, or late: they are shown as such, and counted, until it does.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use qproxy::record::{
    Body, BodyChunk, ConnectionId, Digest, Epoch, Exchange, Flow, Headers, IdSource, Item, NodeId,
    Origin, Outcome, Protocol, Record, Request, Response, Sequence, Side, Timing, wire,
};
use serde_json::json;

use crate::support::curl::try_curl;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::{Node, binary};
use crate::support::until;

const PIECES: [&str; 3] = ["first ", "second ", "third"];

fn origin(seq: u64) -> Origin {
    Origin {
        node: NodeId::new("foreign").unwrap(),
        epoch: Epoch(1),
        seq: Sequence(seq),
    }
}

fn exchange() -> Exchange {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let started_us = i64::try_from(since.as_micros()).unwrap();
    let whole = PIECES.concat();
    Exchange {
        id: IdSource::default().next_id(started_us),
        origin: origin(1),
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: None,
        tls: None,
        timing: Timing {
            started_us,
            ..Timing::default()
        },
        request: Request {
            method: "GET".into(),
            target: "/large".into(),
            version: "HTTP/1.1".into(),
            headers: Headers::default(),
            body: Body::empty(),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status: 200,
            headers: Headers::default(),
            body: Body {
                chunks: 3,
                bytes: whole.len() as u64,
                digest: Digest::of(whole.as_bytes()),
                ..Body::empty()
            },
            trailers: Headers::default(),
            informational: Vec::new(),
        }),
        outcome: Outcome::Ok,
        stream: None,
        flow: Flow::default(),
        redactions: Vec::new(),
    }
}

/// Publishes an item as any MQTT client can.
fn publish(broker: &Mosquitto, topic: &str, item: &Item) {
    let mut payload = Vec::new();
    wire::encode(item, &mut payload);
    let mut command = Command::new("mosquitto_pub");
    command.args(["-p", &broker.port().to_string(), "-q", "1", "-t", topic]);
    let mut child = command.arg("-s").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&payload).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn record_that_lacks_a_piece_is_pending_then_incomplete_then_whole() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_now(&Options::default());
    let config = json!({
        "mode": "Playback", "node": "player", "http": { "port": 0 }, "api": { "port": 0 },
        "peer": { "host": "127.0.0.1", "port": broker.port() },
        "store": { "path": "data", "incomplete_after": "3s" },
    });
    let mut player = Node::start(folder.path(), &config);
    player.wait_until_subscribed();
    let exchange = exchange();
    let id = exchange.id;
    let chunk = |index: u32| {
        Item::Chunk(BodyChunk {
            record: id,
            origin: origin(2 + u64::from(index)),
            side: Side::Response,
            index,
            bytes: Bytes::from(PIECES[index as usize]),
        })
    };
    let body_topic = "qproxy/body/foreign/shop";
    publish(&broker, body_topic, &chunk(0));
    publish(&broker, body_topic, &chunk(2));
    let record = Item::Record(Record::Exchange(Box::new(exchange)));
    publish(&broker, "qproxy/traffic/foreign/shop/http/GET/200", &record);

    let shown = |player: &Node| {
        let record = player.api(&format!("/api/records/{id}"), &[]);
        let listed = player.api("/api/records", &[]).json()["records"][0]["completeness"].clone();
        let counts = player.status()["counts"].clone();
        let alone = (record.status == 200).then(|| record.json()["completeness"].clone());
        json!([alone, listed, counts["pending"], counts["incomplete"]])
    };
    let becomes = |player: &Node, expected: serde_json::Value| {
        until(&format!("it is {expected}"), || {
            (shown(player) == expected).then_some(())
        });
    };
    becomes(&player, json!(["pending", "pending", 1, 0]));
    becomes(&player, json!(["incomplete", "incomplete", 0, 1]));
    assert_eq!(player.metric("store_records_incomplete"), 1.0);
    let mut list = Command::new(binary());
    let listed = list.args(["records", "--api", player.url("api")]).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(listed.contains("200 incomplete"), "{listed}");
    // An answer goes as far as there is something, and then breaks off.
    let answered = try_curl(&format!("{}/large", player.url("answer")), &[]);
    assert!(answered.is_err(), "{answered:?}");

    // It is found again after a restart: late at once by the clock, watched anew.
    player.kill_and_restart();
    becomes(&player, json!(["incomplete", "incomplete", 0, 1]));
    publish(&broker, body_topic, &chunk(1));
    becomes(&player, json!(["complete", "complete", 0, 0]));
    let answer = player.api(&format!("/api/records/{id}/response/body"), &[]);
    assert_eq!(answer.text(), PIECES.concat());
}
