//! gRPC with grpcio on both ends: through the proxy as without it, recorded call by call, and answered from the
//! records when the service is gone.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::httpbin::{python, require};
use crate::support::httpbin_requests::wait_for_records;
use crate::support::node::Node;
use crate::support::process::Process;

fn peer(script: &str) -> Command {
    require("grpc");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");
    let mut command = Command::new(python());
    command.arg(Path::new(folder).join(script));
    command
}

/// The service, and where it listens.
fn service() -> (Process, u16) {
    let mut process = Process::start(&mut peer("grpc_service.py"), "python3-venv");
    let port = process.expect_line("where it serves", |line| {
        line.strip_prefix("serving on ")?.trim().parse().ok()
    });
    (process, port)
}

/// What came of the calls, one JSON object each.
fn call(target: &str, methods: &[&str]) -> Vec<Value> {
    let target = target.trim_start_matches("http://");
    let output = peer("grpc_client.py")
        .arg(target)
        .args(methods)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn node(folder: &Path, downstream: &str) -> Node {
    let free = json!({ "host": "127.0.0.1", "port": 0 });
    let config = json!({
        "mode": "Standalone", "node": "one",
        "http": { "host": "127.0.0.1", "port": 0, "downstream": downstream, "service": "orders", "response_timeout": "3s" },
        "playback": { "http": free },
        "broker": free, "api": free, "store": { "path": "data" }
    });
    Node::start(folder, &config)
}

fn codes(calls: &[Value]) -> Vec<(&str, &str)> {
    calls
        .iter()
        .map(|call| {
            (
                call["method"].as_str().unwrap(),
                call["code"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn calls_of_every_kind_pass_are_recorded_and_are_answered_from_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let (mut service, port) = service();
    let node = node(folder.path(), &format!("h2c://127.0.0.1:{port}"));
    let direct = call(&format!("127.0.0.1:{port}"), &[]);
    assert_eq!(
        codes(&direct),
        [
            ("Unary", "OK"),
            ("ServerStream", "OK"),
            ("ClientStream", "OK"),
            ("Bidi", "OK"),
            ("Fail", "NOT_FOUND"),
            ("Unimplemented", "UNIMPLEMENTED"),
        ]
    );

    let through = call(node.url("record"), &[]);
    assert_eq!(through, direct);
    wait_for_records(&node, 6);

    let records = records(&node);
    assert_eq!(
        records.iter().map(told).collect::<Vec<_>>(),
        [
            ("Unary", 0, 1, 1),
            ("ServerStream", 0, 1, 40),
            ("ClientStream", 0, 3, 1),
            ("Bidi", 0, 3, 3),
            ("Fail", 5, 1, 0),
            ("Nothing", 12, 1, 0),
        ]
    );
    for record in &records {
        assert_eq!(record["protocol"], "grpc");
        assert_eq!(record["grpc"]["service"], "shop.v1.Orders");
    }
    assert_eq!(records[4]["grpc"]["message"], "no such order: 100% gone, é");
    let asked = records[2]["grpc"]["request"]["first"].as_array().unwrap();
    let places: Vec<_> = asked
        .iter()
        .map(|m| (m[0].as_u64(), m[1].as_u64()))
        .collect();
    assert_eq!(
        places,
        [
            (Some(0), Some(3)),
            (Some(8), Some(3)),
            (Some(16), Some(100_000))
        ]
    );

    service.kill();
    let answered = call(node.url("answer"), &[]);
    assert_eq!(answered, direct);

    let gone = call(node.url("record"), &["Unary", "Bidi"]);
    assert_eq!(
        codes(&gone),
        [("Unary", "UNAVAILABLE"), ("Bidi", "UNAVAILABLE")]
    );
    let unknown = call(node.url("answer"), &["Slow"]);
    assert_eq!(codes(&unknown), [("Slow", "NOT_FOUND")]);
}

#[test]
fn a_call_that_the_service_does_not_answer_in_time_ends_with_deadline_exceeded() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, port) = service();
    let node = node(folder.path(), &format!("h2c://127.0.0.1:{port}"));
    let late = call(node.url("record"), &["Slow"]);
    assert_eq!(codes(&late), [("Slow", "DEADLINE_EXCEEDED")]);
}

/// The records, oldest first.
fn records(node: &Node) -> Vec<Value> {
    let list = node.api("/api/records?limit=100", &[]).json();
    let mut records: Vec<Value> = list["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|summary| {
            let id = summary["id"].as_str().unwrap();
            node.api(&format!("/api/records/{id}"), &[]).json()
        })
        .collect();
    records.sort_by_key(|record| record["origin"]["seq"].as_u64());
    records
}

/// Method, status, and how many messages went either way.
fn told(record: &Value) -> (&str, u64, u64, u64) {
    let grpc = &record["grpc"];
    let count = |side: &str| grpc[side]["count"].as_u64().unwrap();
    (
        grpc["method"].as_str().unwrap(),
        grpc["status"].as_u64().unwrap(),
        count("request"),
        count("response"),
    )
}
