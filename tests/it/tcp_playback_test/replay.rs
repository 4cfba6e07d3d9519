//! Recorded streams replayed against another server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::{Stage, port_of, redis_cli};
use crate::support::free_port;
use crate::support::process::Process;
use crate::support::redis::RedisServer;
use crate::support::until;

/// Starts a replay; gives its id.
fn start(stage: &Stage, request: &Value) -> String {
    let text = request.to_string();
    let arguments = ["-H", "content-type: application/json", "-d", &text];
    let started = stage.player.api("/api/replays", &arguments).json();
    let id = started["id"].as_str();
    id.unwrap_or_else(|| panic!("{started}")).to_owned()
}

/// Its report, once it has ended.
fn report_of(stage: &Stage, id: &str) -> Value {
    until("the replay ends", || {
        let report = stage.player.api(&format!("/api/replays/{id}"), &[]).json();
        (report["state"] != "running").then_some(report)
    })
}

fn replay(stage: &Stage, request: &Value) -> Value {
    report_of(stage, &start(stage, request))
}

fn count(report: &Value, verdict: &str) -> u64 {
    report["totals"][verdict].as_u64().unwrap()
}

#[test]
fn redis_streams_are_replayed_against_another_redis_and_the_differences_are_shown() {
    let stage = Stage::set();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (old, new) =
        runtime.block_on(async { (RedisServer::start(&[]).await, RedisServer::start(&[]).await) });
    let recorder = stage.recorder("redis", old.port());
    let live = port_of(recorder.url("tcp"));
    runtime.block_on(old.command::<()>(&["SET", "tea", "grün"]));
    runtime.block_on(new.command::<()>(&["SET", "tea", "weiß"]));
    redis_cli(&live, &["SET", "cake", "apple"]);
    redis_cli(&live, &["GET", "tea"]);
    redis_cli(&live, &["ECHO", "cake"]);
    stage.streams(3);

    let target = format!("tcp://127.0.0.1:{}", new.port());
    let request = json!({ "target": target, "concurrency": 1, "speed": "max" });
    let report = replay(&stage, &request);
    assert_eq!(
        (count(&report, "same"), count(&report, "different")),
        (2, 1),
        "{report:#}"
    );
    let kept: String = runtime.block_on(new.command(&["GET", "cake"]));
    assert_eq!(kept, "apple", "it was sent there");
    let group = &report["differences"][0];
    assert_eq!(
        (&group["endpoint"], &group["part"]),
        (&json!("TCP redis"), &json!("stream"))
    );
    assert_eq!(group["path"], "byte *");
    // `$5\r\n`, then the values.
    let (old_hex, new_hex) = (
        &group["examples"][0]["recorded"],
        &group["examples"][0]["replayed"],
    );
    assert!(
        old_hex
            .as_str()
            .unwrap()
            .contains("24 35 0d 0a[67 72 c3 bc"),
        "{group:#}"
    );
    assert!(
        new_hex.as_str().unwrap().contains("[77 65 69 c3"),
        "{group:#}"
    );
    assert_eq!(report["latency"]["replayed"]["count"], 3, "{report:#}");

    let mut ignoring = request.clone();
    ignoring["ignore_bytes"] = json!([r"\$5\r\n.{5}"]);
    let report = replay(&stage, &ignoring);
    assert_eq!(count(&report, "same"), 3, "{report:#}");

    // An HTTP target gets streams only where they are asked for.
    let mut http = request.clone();
    http["target"] = format!("http://127.0.0.1:{}", new.port()).into();
    let report = replay(&stage, &http);
    assert_eq!(count(&report, "skipped"), 3, "{report:#}");
    http["filter"] = json!({ "service": "redis" });
    let report = replay(&stage, &http);
    assert_eq!(
        (count(&report, "same"), count(&report, "different")),
        (2, 1),
        "{report:#}"
    );

    let refused = json!({ "target": "tcp://192.0.2.1:6379" });
    let refused = stage.player.api(
        "/api/replays",
        &[
            "-H",
            "content-type: application/json",
            "-d",
            &refused.to_string(),
        ],
    );
    assert!(
        refused.text().contains("playback.allowed_targets"),
        "{}",
        refused.text()
    );
}

/// Says a line for each line, until the client closes.
fn echo(mut socket: TcpStream) {
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        socket.write_all(&bytes[..count]).unwrap();
    }
}

#[test]
fn a_target_that_is_down_or_dies_in_the_middle_is_a_failure_with_its_reason() {
    let stage = Stage::set();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(echo));
    let recorder = stage.recorder("echo", port);
    let mut client = TcpStream::connect(recorder.url("tcp")).unwrap();
    for line in [b"one\n", b"two\n"] {
        client.write_all(line).unwrap();
        let mut heard = [0; 4];
        client.read_exact(&mut heard).unwrap();
    }
    drop(client);
    stage.streams(1);

    let to = |port: u16| json!({ "target": format!("tcp://127.0.0.1:{port}"), "speed": "max" });
    let report = replay(&stage, &to(port));
    assert_eq!(count(&report, "same"), 1, "{report:#}");
    let report = replay(&stage, &to(free_port()));
    assert_eq!(count(&report, "failed"), 1, "{report:#}");
    let why = report["failures"][0]["reason"].as_str().unwrap();
    assert!(why.contains("could not connect"), "{why}");

    // Answers the first line, hears the second one, and says half of it.
    let script = "\
import socket, time
server = socket.create_server(('127.0.0.1', 0))
print('port', server.getsockname()[1], flush=True)
client, _ = server.accept()
client.sendall(client.recv(4))
client.sendall(client.recv(4)[:2])
print('half', flush=True)
time.sleep(3600)";
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    let mut target = Process::start(&mut command, "python3");
    let port = target.expect_line("its port", |line| {
        line.strip_prefix("port ")
            .map(|port| port.parse::<u16>().unwrap())
    });
    let id = start(&stage, &to(port));
    target.expect_line("that half is said", |line| (line == "half").then_some(()));
    target.kill();
    let report = report_of(&stage, &id);
    assert_eq!(count(&report, "failed"), 1, "{report:#}");
    let why = report["failures"][0]["reason"].as_str().unwrap();
    assert!(why.contains("the connection broke"), "{why}");
    let shown = &report["differences"][0]["examples"][0]["recorded"];
    assert!(
        shown.as_str().unwrap().contains("74 77[6f 0a"),
        "{report:#}"
    );
}

#[test]
fn streams_are_replayed_as_they_arrive() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (old, new) =
        runtime.block_on(async { (RedisServer::start(&[]).await, RedisServer::start(&[]).await) });
    let auto = format!("tcp://127.0.0.1:{}", new.port());
    let stage = Stage::with_playback(&json!({ "auto": auto }));
    let recorder = stage.recorder("redis", old.port());
    redis_cli(&port_of(recorder.url("tcp")), &["SET", "tea", "black"]);
    until("the copy has it, too", || {
        let kept: Option<String> = runtime.block_on(new.command(&["GET", "tea"]));
        kept.filter(|kept| kept == "black")
    });
    until("it is counted", || {
        let live = stage.player.status()["ledger"]["live_replay"].clone();
        (live["same"] == 1).then_some(())
    });
}
