//! A playback node on a real Redis server: records are stored, listed, answered and deleted there, and whoever is
//! killed in the middle, nothing is missing in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::curl::curl;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::{Origin, Traffic, stored_numbers};
use crate::support::redis::RedisServer;
use crate::support::until;

const PAUSE: Duration = Duration::from_millis(2);

struct Stage {
    _folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    _broker: Mosquitto,
    _origin: Origin,
    redis: RedisServer,
    recorder: Node,
    player: Node,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // What it has acknowledged is on its disk.
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let redis = runtime.block_on(RedisServer::start(&durable));
        let (broker, origin) = (Mosquitto::start_now(&Options::default()), Origin::start());
        let node = |name: &str, mode: &str, http: Value, store: Value| {
            let config = json!({
                "mode": mode, "node": name, "http": http, "store": store,
                "peer": { "host": "127.0.0.1", "port": broker.port() },
                "api": { "port": 0 }
            });
            Node::start(&folder.path().join(name), &config)
        };
        let store = json!({ "redis": redis.url(), "redis_prefix": "test" });
        let player = node("az2", "Playback", json!({ "port": 0 }), store);
        let http = json!({ "port": 0, "downstream": origin.url() });
        let recorder = node("az1", "Record", http, json!({ "path": "data" }));
        Self {
            _folder: folder,
            runtime,
            _broker: broker,
            _origin: origin,
            redis,
            recorder,
            player,
        }
    }

    fn traffic(&self) -> Traffic {
        let address = self.recorder.url("record").trim_start_matches("http://");
        Traffic::start(address, 0, PAUSE)
    }

    /// Waits until the player is well, or is not.
    fn wait_for_health(&self, wanted: u16) {
        until(&format!("health is {wanted}"), || {
            (self.player.api("/healthz", &[]).status == wanted).then_some(())
        });
    }

    /// Waits until every one of `numbers` is stored, once.
    fn expect_stored(&self, numbers: &[u64]) {
        until("every number is stored", || {
            let stored = stored_numbers(&self.player);
            let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
            assert!(twice.is_empty(), "stored more than once: {twice:?}");
            numbers
                .iter()
                .all(|number| stored.contains_key(number))
                .then_some(())
        });
        let counts = &self.player.status()["counts"];
        assert_eq!(
            (&counts["missing"], &counts["lost"]),
            (&json!(0), &json!(0))
        );
    }

    fn answer(&self, number: u64) -> (u16, String) {
        let answer = curl(&format!("{}/n/{number}", self.player.url("answer")), &[]);
        (answer.status, answer.text())
    }
}

fn wait_for(traffic: &Traffic, count: u64) {
    let before = traffic.answered.load(Ordering::Relaxed);
    until("traffic flows", || {
        (traffic.answered.load(Ordering::Relaxed) >= before + count).then_some(())
    });
}

fn numbers(traffic: Traffic) -> Vec<u64> {
    traffic.finish().into_iter().map(|(n, _)| n).collect()
}

#[test]
fn records_are_stored_listed_answered_and_deleted() {
    let mut stage = Stage::set();
    let traffic = stage.traffic();
    wait_for(&traffic, 100);
    let numbers = numbers(traffic);
    stage.expect_stored(&numbers);
    assert_eq!(stage.answer(7), (200, "7".to_owned()));

    let found = stage.player.api("/api/records?path=/n/7&q=/n/7", &[]);
    let found = found.json();
    let seventh = found["records"].as_array().unwrap().iter();
    let seventh = seventh.filter(|record| record["target"] == "/n/7");
    let ids: Vec<_> = seventh.map(|r| r["id"].as_str().unwrap()).collect();
    let path = format!("/api/records/{}", ids[0]);
    assert_eq!((ids.len(), stage.player.api(&path, &[]).status), (1, 200));
    let delete = ["--request", "DELETE"];
    assert_eq!(stage.player.api(&path, &delete).status, 204);
    assert_eq!(stage.player.api(&path, &delete).status, 404);

    stage.player.kill_and_restart();
    assert_eq!(stage.player.api(&path, &[]).status, 404);
    assert_eq!(stage.answer(7).0, 404, "a deleted record does not answer");
    assert_eq!(stage.answer(8), (200, "8".to_owned()));
    assert_eq!(stored_numbers(&stage.player).len(), numbers.len() - 1);
}

#[test]
fn nothing_is_missing_after_player_and_redis_were_killed() {
    let mut stage = Stage::set();
    let traffic = stage.traffic();
    wait_for(&traffic, 300);
    stage.player.kill_and_restart();
    wait_for(&traffic, 300);
    stage.redis.kill();
    stage.wait_for_health(503);
    wait_for(&traffic, 300);
    stage.runtime.block_on(stage.redis.restart());
    stage.wait_for_health(200);
    wait_for(&traffic, 300);
    stage.expect_stored(&numbers(traffic));
}
