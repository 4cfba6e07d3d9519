//! What a node does not start with, and what its API and listeners refuse.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use super::stage::{expect_stored, node, player, qproxy, recorder, refused, send, written};
use crate::support::curl::{Answer, curl};
use crate::support::free_port;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::Origin;

fn forward() -> Value {
    json!({ "mode": "Forward", "http": { "port": 0, "downstream": "http://127.0.0.1:9" }, "api": { "port": 0 } })
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let mut config = forward();
    config["http"]["prot"] = 1.into();
    let (_folder, path) = written(&config);
    let file = path.display().to_string();
    let words = [&file, "line ", "`http.prot`", "did you mean `port`?"];
    qproxy(&[], &path).expect(2, &words);
    let checked = qproxy(&["config", "check", &file], &path);
    checked.expect(2, &words);
    assert_eq!(checked.err.lines().count(), 1, "{checked:?}");
}

#[test]
fn config_check_says_in_one_line_that_a_file_is_good() {
    let (_folder, path) = written(&forward());
    let file = path.display().to_string();
    let checked = qproxy(&["config", "check", &file], &path);
    checked.expect(0, &[]);
    assert_eq!(checked.out.lines().count(), 1, "{checked:?}");
    assert!(
        checked
            .out
            .starts_with(&format!("{file}: good: mode Forward")),
        "{checked:?}"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_what_was_expected() {
    let mut config = forward();
    config["http"]["port"] = "8080".into();
    refused(&config).expect(
        2,
        &["`http.port`", "line ", "string \"8080\"", "from 0 to 65535"],
    );
}

#[test]
fn a_missing_mode_or_peer_is_said_with_what_could_stand_there() {
    let without_mode = json!({ "http": { "downstream": "http://127.0.0.1:9" } });
    refused(&without_mode).expect(2, &["`mode`", "Record, Playback, Standalone or Forward"]);
    let mut without_peer = forward();
    without_peer["mode"] = "Record".into();
    refused(&without_peer).expect(2, &["`peer`", "is missing", "`broker`"]);
}

#[test]
fn a_certificate_that_is_missing_or_none_is_named_by_key_and_file() {
    let mut config = forward();
    config["http"]["tls"] = json!({ "tls_cert": "no-such.pem", "tls_key": "key.pem" });
    let (folder, path) = written(&config);
    fs::write(folder.path().join("key.pem"), "key").unwrap();
    let words = ["`http.tls.tls_cert`", "no-such.pem", "No such file"];
    qproxy(&[], &path).expect(2, &words);
    qproxy(&["config", "check", path.to_str().unwrap()], &path).expect(2, &words);

    fs::write(folder.path().join("no-such.pem"), "not a certificate").unwrap();
    qproxy(&[], &path).expect(2, &["http.tls.tls_cert", "no-such.pem", "no certificate"]);
}

#[test]
fn a_taken_port_is_named_with_the_key_that_sets_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let with = |mode: &str, section: &str, value: Value| {
        let mut config = forward();
        config["mode"] = mode.into();
        if mode != "Forward" {
            config["broker"] = json!({ "port": 0 });
            config["playback"] = json!({ "http": { "port": 0 } });
        }
        config[section] = value;
        refused(&config)
    };
    let here = json!({ "port": port });
    let tcp = json!({ "port": port, "downstream": "127.0.0.1:9" });
    let http = json!({ "port": port, "downstream": "http://127.0.0.1:9" });
    let cases = [
        (with("Forward", "http", http), "`http.port`"),
        (with("Forward", "tcp", tcp), "`tcp.port`"),
        (with("Forward", "api", here.clone()), "`api.port`"),
        (with("Standalone", "broker", here.clone()), "`broker.port`"),
        (
            with("Standalone", "playback", json!({ "http": here })),
            "`playback.http.port`",
        ),
    ];
    for (said, key) in cases {
        said.expect(
            1,
            &[
                &listen,
                "Address already in use",
                "stop what uses that port",
                key,
            ],
        );
    }
}

#[test]
fn an_address_that_others_can_reach_needs_a_token() {
    let mut broker = node("Playback", "player", None);
    broker["broker"] = json!({ "host": "0.0.0.0", "port": 0 });
    let words = ["`broker.host`", "0.0.0.0", "`mqtt.app_id`", "`mqtt.token`"];
    refused(&broker).expect(2, &words);
    let mut api = forward();
    api["api"] = json!({ "host": "0.0.0.0", "port": 0 });
    refused(&api).expect(2, &["`api.host`", "0.0.0.0", "`api.token`"]);
}

#[test]
fn a_store_that_cannot_be_written_is_named_by_key_and_path() {
    let (folder, path) = written(&json!({}));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let under = file.join("data").display().to_string();
    let start = |mut config: Value| {
        config["store"]["path"] = under.as_str().into();
        fs::write(&path, config.to_string()).unwrap();
        qproxy(&[], &path)
    };
    let advice = "a directory that this user can write to";
    start(node("Playback", "player", None))
        .expect(1, &["store.path", &under, "Not a directory", advice]);
    start(recorder(9, "http://127.0.0.1:9"))
        .expect(1, &["spool.path", &under, "Not a directory", advice]);
}

#[test]
fn a_second_process_on_one_store_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let with_data = |mut config: Value| {
        config["store"]["path"] = data.as_str().into();
        config
    };
    let player_config = with_data(player(broker.port()));
    let recorder_config = with_data(recorder(broker.port(), &origin.url()));
    let first = Node::start(&folder.path().join("player"), &player_config);
    let recorder = Node::start(&folder.path().join("recorder"), &recorder_config);
    for (mut config, key) in [
        (player_config, "store.path"),
        (recorder_config, "spool.path"),
    ] {
        config["http"]["port"] = free_port().into();
        let words = [
            key,
            &data,
            "in use by another process",
            "choose another directory",
        ];
        refused(&config).expect(1, &words);
    }
    send(&recorder, 0..3);
    expect_stored(&first, 0..3);
}

#[test]
fn a_redis_that_does_not_answer_at_start_is_named_without_its_password() {
    let port = free_port();
    let mut config = node("Playback", "player", None);
    config["store"] = json!({ "redis": format!("redis://me:secret@127.0.0.1:{port}") });
    let folder = tempfile::tempdir().unwrap();
    let mut player = Node::start(folder.path(), &config);
    let health = player.api("/healthz", &[]);
    let said = format!("{}{}", health.text(), player.process().said());
    assert_eq!(health.status, 503, "{said}");
    for word in [&format!("127.0.0.1:{port}"), "Connection refused"] {
        assert!(health.text().contains(word), "{said}");
    }
    assert!(!said.contains("secret"), "{said}");
}

/// An error of the API: its status, code, parameter and message.
fn error(answer: &Answer) -> (u16, String, String, String) {
    let error = &answer.json()["error"];
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (
        answer.status,
        text("code"),
        text("parameter"),
        text("message"),
    )
}

#[test]
fn the_api_names_the_parameter_that_is_wrong_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let player = Node::start(folder.path(), &node("Playback", "player", None));
    let cases = [
        ("start=yesterday", "start", "2026-01-31T12:00:00Z"),
        ("start=2026-01-31T12:00:00", "start", "with an offset"),
        ("end=2026-13-01T00:00:00Z", "end", "ISO 8601"),
        (
            "start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z",
            "end",
            "later than `start`",
        ),
        ("limit=0", "limit", "from 1 to 1000"),
        ("limit=1001", "limit", "from 1 to 1000"),
        ("limit=ten", "limit", "`ten`"),
        ("limit=", "limit", "is empty"),
        ("limt=5", "limt", "limit"),
        ("cursor=x", "cursor", ""),
    ];
    for (query, parameter, word) in cases {
        let answer = player.api(&format!("/api/records?{query}"), &[]);
        let (status, code, named, message) = error(&answer);
        assert_eq!(
            (status, code.as_str()),
            (400, "invalid_parameter"),
            "{query}"
        );
        assert_eq!(named, parameter, "{query}: {message}");
        assert!(message.contains(word), "{query}: {message}");
    }
}

#[test]
fn deleting_what_is_not_there_says_so_and_deletes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = recorder(broker.port(), &origin.url());
    let recorder = Node::start(&folder.path().join("recorder"), &recorder);
    send(&recorder, 0..2);
    expect_stored(&player, 0..2);
    let delete =
        |id: &str| error(&player.api(&format!("/api/records/{id}"), &["--request", "DELETE"]));
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let (status, code, _, message) = delete(unknown);
    assert_eq!((status, code.as_str()), (404, "not_found"));
    assert!(message.contains(unknown), "{message}");
    let (status, code, parameter, message) = delete("42");
    assert_eq!(
        (status, code.as_str(), parameter.as_str()),
        (400, "invalid_parameter", "id")
    );
    assert!(
        message.contains("`42`") && message.contains("UUID"),
        "{message}"
    );
    let (status, code, ..) =
        error(&recorder.api(&format!("/api/records/{unknown}"), &["--request", "DELETE"]));
    assert_eq!((status, code.as_str()), (404, "no_store"));
    expect_stored(&player, 0..2);
}

#[test]
fn a_head_that_is_too_large_is_answered_with_431_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = recorder(broker.port(), &origin.url());
    let recorder = Node::start(&folder.path().join("recorder"), &recorder);
    let large = format!("x-large: {}", "a".repeat(100 << 10));
    for url in [
        recorder.url("record"),
        player.url("answer"),
        player.url("api"),
        recorder.url("api"),
    ] {
        let answer = curl(&format!("{url}/n/1"), &["--header", &large]);
        assert_eq!(answer.status, 431, "{url}");
    }
    send(&recorder, 2..4);
    expect_stored(&player, 2..4);
}
