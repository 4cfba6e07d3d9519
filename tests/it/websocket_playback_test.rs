//! Recorded WebSockets without their service: the same client gets the same messages from the player, one that says
//! something else is closed with the reason, and the recorded client's side is replayed against a service.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::certificates;
use crate::support::curl::curl;
use crate::support::httpbin::python;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::until;
use crate::websocket_test::{player, recorder, records, segments, service, standalone, talk, ws};

/// Runs Python with `url`, `connect`, `ConnectionClosed` and `say`; gives what it prints.
fn client(url: &str, script: &str) -> Process {
    let script = format!(
        "import sys, asyncio\n\
         from websockets.sync.client import connect as dial\n\
         from websockets.exceptions import ConnectionClosed, InvalidStatus\n\
         url = sys.argv[1]\n\
         def connect(path, **o): return dial(url + path, compression=None, max_size=64 << 20, **o)\n\
         def say(*words): print(*words, flush=True)\n\
         {script}"
    );
    Process::start(
        Command::new(python()).args(["-c", &script, url]),
        "python3-venv",
    )
}

/// Waits for a line of this text.
fn expect(client: &mut Process, text: &str) {
    client.expect_line(text, |line| (line == text).then_some(()));
}

/// How many clients' conversations ended like that.
fn answered(node: &Node, how: &str) -> u64 {
    let page = node.api("/metrics", &[]).text();
    let name = format!("qproxy_playback_websocket_answers_total{{outcome=\"{how}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Waits for so many streams, with all that was said in them.
fn await_streams(node: &Node, count: usize) {
    for stream in records(node, "protocol=ws", count) {
        segments(node, &stream);
    }
}

/// A node that recorded all that `ws_client.py` does with a service that is gone now, and what came of it there.
fn recorded(folder: &Path, mode: &[&str]) -> (Node, Vec<Value>) {
    let (mut service, port) = service(mode);
    let node = Node::start(folder, &standalone(&format!("http://127.0.0.1:{port}")));
    let live = talk(&ws(node.url("record")), mode);
    await_streams(&node, 7);
    service.kill();
    (node, live)
}

#[test]
fn the_same_client_gets_the_same_from_a_player_in_another_process_when_the_service_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, port) = service(&[]);
    let broker = Mosquitto::start_now(&Options::default());
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let mut recorder = Node::start(
        &folder.path().join("recorder"),
        &recorder(broker.port(), &format!("http://127.0.0.1:{port}")),
    );
    let live = talk(&ws(recorder.url("record")), &[]);
    assert_eq!(live.len(), 16);
    await_streams(&player, 7);
    service.kill();
    recorder.kill();
    assert_eq!(talk(&ws(player.url("answer")), &[]), live);
    // All of it again, by two at once.
    let url = ws(player.url("answer"));
    let both = [url.clone(), url].map(|url| std::thread::spawn(move || talk(&url, &[])));
    for client in both {
        assert_eq!(client.join().unwrap(), live);
    }
    until("21 were answered", || {
        (answered(&player, "completed") == 21).then_some(())
    });
}

#[test]
fn what_was_compressed_is_answered_to_clients_that_offer_compression_and_to_those_that_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (node, live) = recorded(folder.path(), &["deflate"]);
    assert_eq!(talk(&ws(node.url("answer")), &["deflate"]), live);
    assert_eq!(talk(&ws(node.url("answer")), &[]), live);
}

#[test]
fn a_client_that_says_something_else_is_closed_and_log_and_status_name_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let (mut node, _) = recorded(folder.path(), &[]);
    let stream = records(&node, "protocol=ws&path=/echo", 1)[0]["id"].clone();
    let stream = stream.as_str().unwrap();
    let script = "with connect('/echo?room=1', subprotocols=['chat.v2']) as c:\n\
        \x20   c.send('hello'); say('got', c.recv())\n\
        \x20   c.send(''); c.recv()\n\
        \x20   c.send('é and coffee')\n\
        \x20   try: c.recv()\n\
        \x20   except ConnectionClosed as e: say(e.rcvd.code, e.rcvd.reason)";
    let mut other = client(&ws(node.url("answer")), script);
    expect(&mut other, "got hello");
    expect(&mut other, "1008 no recorded message fits");
    let answers = until("the mismatch is told", || {
        let told = node.status()["ledger"]["websocket_answers"][0].clone();
        told.is_object().then_some(told)
    });
    let mismatch = &answers["mismatches"][0];
    assert_eq!(answers["service"], "chat");
    assert_eq!(mismatch["record"], stream);
    // "hello", nothing, and "é and " of the third.
    assert_eq!(mismatch["offset"], 5 + 7);
    let said = |key: &str| mismatch[key].as_str().unwrap();
    assert!(
        said("got").contains("[63 6f 66") && said("expected").contains("[e8 8c b6"),
        "{mismatch}"
    );
    node.process().expect_line("the warning", |line| {
        (line.contains("WARN") && line.contains(stream)).then_some(())
    });

    // Text where bytes were said is something else, too.
    let script = "with connect('/echo?room=1', subprotocols=['chat.v2']) as c:\n\
        \x20   c.send(b'hello')\n\
        \x20   try: c.recv()\n\
        \x20   except ConnectionClosed as e: say(e.rcvd.code)";
    expect(&mut client(&ws(node.url("answer")), script), "1008");
    assert_eq!(answered(&node, "mismatch"), 2);
}

#[test]
fn clients_that_vanish_or_break_the_protocol_or_a_limit_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, port) = service(&[]);
    let node = Node::start(
        folder.path(),
        &standalone(&format!("http://127.0.0.1:{port}")),
    );
    let hold = "c = connect('/hold'); say(c.recv())\n\
        try: c.recv()\n\
        except ConnectionClosed as e: say('ended', e.rcvd.code if e.rcvd else None)";
    let mut holding = client(&ws(node.url("record")), hold);
    expect(&mut holding, "holding");
    holding.kill();
    await_streams(&node, 1);
    service.kill();
    let url = ws(node.url("answer"));

    let open = "playback_websocket_answers_open";
    let mut vanishing: Vec<_> = (0..3).map(|_| client(&url, hold)).collect();
    for client in &mut vanishing {
        expect(client, "holding");
    }
    assert_eq!(node.metric(open), 3.0);
    vanishing.iter_mut().for_each(Process::kill);
    until("nobody is answered", || {
        (node.metric(open) == 0.0).then_some(())
    });

    let large = "c = connect('/hold'); c.recv(); c.send(b'x' * (17 << 20))\n\
        try: c.recv()\n\
        except ConnectionClosed as e: say('ended', e.rcvd.code)";
    expect(&mut client(&url, large), "ended 1009");

    let address = node.url("answer").strip_prefix("http://").unwrap();
    let mut raw = TcpStream::connect(address).unwrap();
    let handshake = "GET /hold HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.write_all(handshake.as_bytes()).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut got = Vec::new();
    raw.read_to_end(&mut got).unwrap();
    let head = String::from_utf8_lossy(&got);
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    // "holding", and a Close frame with 1002.
    assert!(got.ends_with(b"\x81\x07holding\x88\x02\x03\xea"), "{got:?}");
    drop(raw);
    until("nobody is answered", || {
        (node.metric(open) == 0.0).then_some(())
    });
    assert_eq!(answered(&node, "refused"), 2);
}

#[test]
fn a_player_that_stops_tells_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, port) = service(&[]);
    let mut node = Node::start(
        folder.path(),
        &standalone(&format!("http://127.0.0.1:{port}")),
    );
    let hold = "c = connect('/hold'); say(c.recv())\n\
        try: c.recv()\n\
        except ConnectionClosed as e: say('ended', e.rcvd.code, e.rcvd.reason)";
    let mut holding = client(&ws(node.url("record")), hold);
    expect(&mut holding, "holding");
    holding.kill();
    await_streams(&node, 1);
    let mut holding = client(&ws(node.url("answer")), hold);
    expect(&mut holding, "holding");
    assert_eq!(node.process().terminate(), Some(0));
    expect(&mut holding, "ended 1001 the player is shutting down");
}

#[test]
fn handshakes_that_cannot_be_answered_are_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, port) = service(&[]);
    let mut config = standalone(&format!("http://127.0.0.1:{port}"));
    config["capture"] = json!({ "max_stream_bytes": 100_000 });
    let node = Node::start(folder.path(), &config);
    talk(&ws(node.url("record")), &[]);
    await_streams(&node, 7);
    service.kill();
    let refused = |path: &str, options: &str| {
        let script = format!(
            "try: connect('{path}'{options})\n\
             except InvalidStatus as e: say('refused', e.response.status_code, e.response.body.decode().replace('\\n', ' '))"
        );
        client(&ws(node.url("answer")), &script).expect_line("a refusal", |line| {
            Some(line.strip_prefix("refused ")?.to_owned())
        })
    };
    let chat = ", subprotocols=['chat.v2']";
    let cut = refused("/echo?room=1", chat);
    assert!(
        cut.starts_with("502 ") && cut.contains("only a part of the stream was kept"),
        "{cut}"
    );
    let other = refused("/echo?room=1", ", subprotocols=['chat.v9']");
    assert!(
        other.starts_with("404 ") && other.contains("sec-websocket-protocol"),
        "{other}"
    );
    assert!(refused("/never", "").starts_with("404 "));
    // Without the upgrade it is another request.
    let plain = curl(&format!("{}/push", node.url("answer")), &[]);
    assert_eq!(plain.status, 404);
    assert!(plain.text().contains("header: upgrade"), "{}", plain.text());
}

/// Replays what `filter` selects against `port`; gives the report.
fn replay(node: &Node, port: u16, filter: &Value) -> Value {
    let target = format!("http://127.0.0.1:{port}");
    let request = json!({ "target": target, "filter": filter, "speed": "max" }).to_string();
    let arguments = ["-H", "content-type: application/json", "-d", &request];
    let started = node.api("/api/replays", &arguments).json();
    let id = started["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{started}"));
    until("the replay ends", || {
        let report = node.api(&format!("/api/replays/{id}"), &[]).json();
        (report["state"] != "running").then_some(report)
    })
}

#[test]
fn recorded_clients_are_replayed_against_the_same_service_and_a_changed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = recorded(folder.path(), &["deflate"]);
    let (_same, same) = service(&["deflate"]);
    let report = replay(&node, same, &json!({}));
    let totals = &report["totals"];
    // Seven conversations; the refused handshake, and the streams, are no requests of their own.
    assert_eq!(
        (&totals["same"], &totals["different"], &totals["failed"]),
        (&json!(7), &json!(0), &json!(0)),
        "{report:#}"
    );
    assert_eq!(totals["skipped"], 8, "{report:#}");

    let (_changed, changed) = service(&["changed"]);
    let report = replay(&node, changed, &json!({ "path": "/echo" }));
    assert_eq!(report["totals"]["different"], 1, "{report:#}");
    let group = &report["differences"][0];
    assert_eq!(
        (&group["part"], &group["path"]),
        (&json!("stream"), &json!("message *")),
        "{report:#}"
    );
    let example = &group["examples"][0];
    assert!(
        example["recorded"].as_str().unwrap().contains("hello"),
        "{example}"
    );
    assert!(
        example["replayed"].as_str().unwrap().contains("olleh"),
        "{example}"
    );

    let report = replay(&node, changed, &json!({ "path": "/push" }));
    assert_eq!(report["totals"]["different"], 1, "{report:#}");
    let example = &report["differences"][0]["examples"][0];
    assert!(
        example["recorded"].as_str().unwrap().contains("event 1"),
        "{example}"
    );
    assert_eq!(example["replayed"], "the server closes with 1012");
}

#[test]
fn a_target_that_refuses_the_handshake_differs_and_one_that_vanishes_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = recorded(folder.path(), &[]);
    let echo = json!({ "path": "/echo" });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |answer: &'static [u8]| {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            connection.write_all(answer).unwrap();
            String::from_utf8(asked).unwrap()
        })
    };
    let target = answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let report = replay(&node, port, &echo);
    assert_eq!(report["totals"]["different"], 1, "{report:#}");
    let asked = target.join().unwrap().to_ascii_lowercase();
    assert!(
        asked.starts_with("get /echo?room=1 http/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("qproxy-replay: ") && !asked.contains("extensions"),
        "{asked}"
    );

    let wrong =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: none\r\n\r\n";
    let target = answer(wrong);
    let report = replay(&node, port, &echo);
    assert_eq!(report["totals"]["failed"], 1, "{report:#}");
    assert!(
        report
            .to_string()
            .contains("Sec-WebSocket-Accept does not fit"),
        "{report:#}"
    );
    target.join().unwrap();

    let target = answer(b"");
    let report = replay(&node, port, &echo);
    assert_eq!(report["totals"]["failed"], 1, "{report:#}");
    target.join().unwrap();
}

#[test]
fn clients_are_answered_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates::make(folder.path(), "authority");
    let (mut service, port) = service(&[]);
    let mut config = standalone(&format!("http://127.0.0.1:{port}"));
    config["playback"]["http"]["tls"] =
        json!({ "tls_cert": &tls.certificate, "tls_key": &tls.key });
    let node = Node::start(&folder.path().join("node"), &config);
    let live = talk(&ws(node.url("record")), &[]);
    await_streams(&node, 7);
    service.kill();
    let address = node.url("answer").rsplit_once(':').unwrap().1;
    let ca = tls.ca.to_str().unwrap();
    let url = format!("wss://localhost:{address}");
    assert_eq!(talk(&url, &["deflate", ca]), live);
}
