//! Live replay over separate processes: what arrives is sent to a local target, and where the target is down the
//! record answers in its place. The results are read with a client that is not ours.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::curl::curl;
use crate::support::httpbin::Httpbin;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::until;

/// `mosquitto_sub`, subscribed to the results.
fn subscribe(broker: &Mosquitto) -> Process {
    let port = broker.port().to_string();
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-v"]);
    // The player's retained presence comes at once, and says that the subscription stands.
    command.args(["-t", "qproxy/replay/#", "-t", "qproxy/node/az2"]);
    let mut process = Process::start(&mut command, "mosquitto-clients");
    process.expect_line("that it is subscribed", |line| {
        line.starts_with("qproxy/node/az2 ").then_some(())
    });
    process
}

/// The next result: run and verdict as the topic has them, and the message.
fn next_result(subscriber: &mut Process) -> (String, String, Value) {
    subscriber.expect_line("a result", |line| {
        let (topic, payload) = line.strip_prefix("qproxy/replay/")?.split_once(' ')?;
        let (run, verdict) = topic.split_once('/')?;
        let message = serde_json::from_str(payload).unwrap();
        Some((run.to_owned(), verdict.to_owned(), message))
    })
}

#[test]
fn arrivals_are_replayed_and_the_record_answers_while_the_target_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_now(&Options::default());
    let (origin, mut target) = (Httpbin::start(0), Httpbin::start(0));
    let node = |name: &str, mode: &str, http: Value, playback: Value| {
        let config = json!({
            "mode": mode, "node": name, "http": http, "playback": playback,
            "peer": { "host": "127.0.0.1", "port": broker.port() },
            "store": { "path": "data" },
            "api": { "port": 0 }
        });
        Node::start(&folder.path().join(name), &config)
    };
    let player = node(
        "az2",
        "Playback",
        json!({ "port": 0 }),
        json!({ "auto": target.url() }),
    );
    let http = json!({ "port": 0, "downstream": origin.url() });
    let recorder = node("az1", "Record", http, json!({}));
    let mut results = subscribe(&broker);
    let ask = |path: &str| curl(&format!("{}{path}", recorder.url("record")), &[]);

    ask("/json");
    let (run, verdict, result) = next_result(&mut results);
    assert_eq!(verdict, "same", "{result:#}");
    assert_eq!(
        (&result["path"], &result["replayed_status"]),
        (&json!("/json"), &json!(200))
    );
    assert!(result.get("answer").is_none(), "{result:#}");

    let port = target.port;
    target.stop();
    let text = ask("/robots.txt");
    let image = ask("/image/png");
    for recorded in [&text, &image] {
        let (same_run, verdict, result) = next_result(&mut results);
        assert_eq!((same_run, &*verdict), (run.clone(), "answered_from_record"));
        assert_eq!(result["sent"], false, "{result:#}");
        let answer = &result["answer"];
        assert_eq!(answer["status"], recorded.status);
        assert_eq!(answer["bytes"], recorded.body.len());
        let headers = answer["headers"].as_array().unwrap();
        let media_type = recorded.headers.iter().find(|(n, _)| n == "content-type");
        let media_type = media_type.unwrap().1.as_str();
        let found = headers.iter().any(|h| {
            h[0].as_str().unwrap().eq_ignore_ascii_case("content-type") && h[1] == media_type
        });
        assert!(found, "{result:#}");
        // The record itself has the rest, under the id that the result names.
        let id = result["record"].as_str().unwrap();
        let kept = player.api(&format!("/api/records/{id}/response/body"), &[]);
        assert_eq!(kept.body, recorded.body);
        if media_type.starts_with("text/") {
            assert_eq!(answer["text"], text.text());
        }
    }

    let _back = Httpbin::start(port);
    until("the target is tried again and answers", || {
        ask("/json");
        let (same_run, verdict, result) = next_result(&mut results);
        assert_eq!(same_run, run);
        match verdict.as_str() {
            "same" => Some(()),
            "answered_from_record" => None,
            other => panic!("{other}: {result:#}"),
        }
    });
    let totals = &player.status()["ledger"]["live_replay"];
    let count = |key: &str| totals[key].as_u64().unwrap();
    assert_eq!(count("failed") + count("different"), 0, "{totals:#}");
    assert_eq!(
        count("records"),
        count("same") + count("answered_from_record"),
        "{totals:#}"
    );
}
