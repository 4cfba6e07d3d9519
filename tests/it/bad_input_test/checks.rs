//! What `config check` tells before a start does: the same, with the same words.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::stage::{node, qproxy, recorder, written};
use crate::support::certificates;

/// Fails unless start and check both refuse each of these with exit code 2 and its words, and say the same.
fn refused_alike<const N: usize>(cases: [(Value, [&str; 2]); N]) {
    for (config, words) in cases {
        let (_folder, path) = written(&config);
        let started = qproxy(&[], &path);
        started.expect(2, &words);
        let checked = qproxy(&["config", "check", path.to_str().unwrap()], &path);
        checked.expect(2, &words);
        // The start may have logged something before.
        assert!(
            started.err.ends_with(&checked.err),
            "{started:#?} {checked:#?}"
        );
    }
}

fn with(mut config: Value, section: &str, value: Value) -> Value {
    config[section] = value;
    config
}

fn recording(section: &str, value: Value) -> Value {
    with(recorder(9, "http://127.0.0.1:9"), section, value)
}

fn playing(section: &str, value: Value) -> Value {
    with(node("Playback", "player", None), section, value)
}

fn forwarding(section: &str, value: Value) -> Value {
    let api = json!({ "mode": "Forward", "api": { "port": 0 } });
    with(api, section, value)
}

#[test]
fn patterns_that_are_none_are_named() {
    let ignoring = |rules: Value| {
        let tcp = json!({ "port": 0, "service": "db", "ignore": rules });
        playing("playback", json!({ "tcp": tcp }))
    };
    let one = json!({ "pattern": "(" });
    let second = json!([{ "start": 0, "end": 4 }, { "pattern": "[z-a]" }]);
    refused_alike([
        (ignoring(one), ["playback.tcp.ignore.pattern", "`(`"]),
        (
            ignoring(second),
            ["playback.tcp.ignore[1].pattern", "`[z-a]`"],
        ),
    ]);
}

#[test]
fn keys_and_certificates_that_are_none_are_named_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificates::make(folder.path(), "Tests");
    let none = folder.path().join("none.pem");
    fs::write(&none, "neither certificate nor key").unwrap();
    let tls = |cert: &Path, key: &Path| json!({ "tls_cert": cert, "tls_key": key });
    let http = |key: &str, value| {
        let http = json!({ "port": 0, "downstream": "https://127.0.0.1:9" });
        forwarding("http", with(http, key, value))
    };
    let others = tls(&made.certificate, &folder.path().join("client.key"));
    let tcp = json!({ "port": 0, "downstream": "127.0.0.1:9", "tls": others });
    let plain = json!({ "port": 0, "downstream": "http://127.0.0.1:9" });
    let answer = json!({ "http": { "port": 0, "tls": tls(&none, &made.key) } });
    let answering = with(node("Standalone", "both", None), "http", plain);
    let answering = with(answering, "playback", answer);
    let talker = json!({ "port": 0, "service": "db", "tls": tls(&none, &made.key) });
    let broker = json!({ "port": 0, "tls": tls(&none, &none) });
    let peer = json!({ "host": "127.0.0.1", "port": 9, "tls": true });
    let peer = with(recording("peer", peer), "mqtt", json!({ "ca": none }));
    let key_file = json!({ "key_id": "k", "key_file": none });
    let key_env = json!({ "key_id": "k", "key_env": "QPROXY_NO_SUCH_KEY" });
    let file = "none.pem";
    refused_alike([
        (
            http("tls", tls(&made.certificate, &none)),
            ["http.tls.tls_key", file],
        ),
        (http("upstream_ca", json!(none)), ["http.upstream_ca", file]),
        (forwarding("tcp", tcp), ["tcp: ", "TLS"]),
        (answering, ["playback.http.tls.tls_cert", file]),
        (
            playing("playback", json!({ "tcp": talker })),
            ["playback.tcp.tls.tls_cert", file],
        ),
        (playing("broker", broker), ["broker: ", file]),
        (peer, ["mqtt.ca", file]),
        (
            recording("encryption", key_file),
            ["encryption.key_file", file],
        ),
        (
            recording("encryption", key_env),
            ["encryption.key_env", "QPROXY_NO_SUCH_KEY"],
        ),
    ]);
}

#[test]
fn targets_and_limits_that_cannot_be_are_named() {
    let auto = json!({ "auto": "http://192.0.2.1:9" });
    let upstream = json!({ "miss": "pass_through", "upstream": "https://a..b" });
    let many =
        json!({ "port": 0, "downstream": "http://127.0.0.1:9", "max_connections": 1_000_001 });
    let queue = recording("capture", json!({ "queue_bytes": "1MiB" }));
    let queue = with(queue, "sync", json!({ "max_message_bytes": "16MiB" }));
    refused_alike([
        (
            playing("playback", auto),
            ["192.0.2.1", "playback.allowed_targets"],
        ),
        (playing("playback", upstream), ["a..b", "no name"]),
        (forwarding("http", many), ["max_connections", "1000000"]),
        (queue, ["queue_bytes", "twice"]),
        (
            recording("mqtt", json!({ "proxy": "gopher://127.0.0.1:9" })),
            ["mqtt.proxy", "the scheme"],
        ),
    ]);
}

#[test]
fn a_redis_that_cannot_be_asked_as_configured_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificates::make(folder.path(), "Tests");
    let damaged = folder.path().join("damaged.pem");
    let pem = fs::read_to_string(&made.ca).unwrap().replace("MII", "###");
    fs::write(&damaged, pem).unwrap();
    let redis = |url: &str, key: &str, value| {
        let store = with(json!({ "redis": url }), key, value);
        playing("store", store)
    };
    let (plain, secure) = ("redis://127.0.0.1:9", "rediss://127.0.0.1:9");
    refused_alike([
        (
            redis(plain, "redis_prefix", "{a}".into()),
            ["store.redis", "`{a}`"],
        ),
        (
            redis(plain, "redis_ca", json!(made.ca)),
            ["store.redis", "rediss://"],
        ),
        (
            redis(secure, "redis_ca", json!(damaged)),
            ["store.redis", "certificate"],
        ),
        (
            redis(secure, "redis_ca", "none.pem".into()),
            ["store.redis_ca", "none.pem"],
        ),
        (
            redis("redis://", "redis_prefix", "a".into()),
            ["store.redis", "URL"],
        ),
    ]);
}
