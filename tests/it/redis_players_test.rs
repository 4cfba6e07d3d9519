//! Players on a real Redis that is shared, away, full, forgetful or behind TLS: nothing is missing, nothing twice.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::{Origin, Traffic, stored_numbers};
use crate::support::redis::RedisServer;
use crate::support::until;

const PAUSE: Duration = Duration::from_millis(2);

struct Stage {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    broker: Mosquitto,
    redis: RedisServer,
    recorder: Node,
    _origin: Origin,
}

impl Stage {
    fn set(redis: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let redis = runtime.block_on(RedisServer::start(redis));
        let (broker, origin) = (Mosquitto::start_now(&Options::default()), Origin::start());
        let recorder = json!({
            "mode": "Record", "node": "recorder",
            "http": { "port": 0, "downstream": origin.url() },
            "peer": { "host": "127.0.0.1", "port": broker.port() },
            "api": { "port": 0 }
        });
        let recorder = Node::start(&folder.path().join("recorder"), &recorder);
        Self {
            folder,
            runtime,
            broker,
            redis,
            recorder,
            _origin: origin,
        }
    }

    fn player(&self, name: &str, more: &Value) -> Node {
        let mut config = json!({
            "mode": "Playback", "node": name, "http": { "port": 0 },
            "peer": { "host": "127.0.0.1", "port": self.broker.port() },
            "store": { "redis": self.redis.url() },
            "api": { "port": 0 }
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        Node::start(&self.folder.path().join(name), &config)
    }

    fn traffic(&self, first: u64) -> Traffic {
        let address = self.recorder.url("record").trim_start_matches("http://");
        Traffic::start(address, first, PAUSE)
    }

    fn redis(&self, words: &[&str]) {
        self.runtime.block_on(self.redis.command::<()>(words));
    }

    /// Waits until this player's status says that all that was captured is stored, and that Redis has just these.
    fn expect_all(&self, player: &Node, numbers: &BTreeSet<u64>) {
        until("the player has settled everything", || {
            let recorder = self.recorder.status()["ledger"]["recorder"].clone();
            let status = player.status();
            let life = status["ledger"]["player"]["recorders"].get(0)?.clone();
            assert_eq!((&life["lost"], &life["dropped"]), (&json!(0), &json!(0)));
            (life["stored"] == recorder["captured"] && life["missing"] == 0).then_some(())
        });
        let stored = stored_numbers(player);
        let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "stored more than once: {twice:?}");
        assert_eq!(BTreeSet::from_iter(stored.into_keys()), *numbers);
    }
}

fn wait_for(traffic: &Traffic, count: u64) {
    let before = traffic.answered.load(Ordering::Relaxed);
    until("traffic flows", || {
        (traffic.answered.load(Ordering::Relaxed) >= before + count).then_some(())
    });
}

fn numbers(traffic: Traffic) -> BTreeSet<u64> {
    assert_eq!(traffic.failed.load(Ordering::Relaxed), 0);
    traffic.finish().into_iter().map(|(n, _)| n).collect()
}

fn wait_for_health(player: &Node, wanted: u16, word: &str) {
    until(&format!("health is {wanted} and says `{word}`"), || {
        let answer = player.api("/healthz", &[]);
        (answer.status == wanted && answer.text().contains(word)).then_some(())
    });
}

/// Items that a player has taken from the broker.
fn taken(player: &Node) -> f64 {
    player.metric("sync_received_messages_total")
}

/// Waits until the player knows that something is not there any more.
fn wait_until_it_asks_again(player: &Node) {
    let answered = r#"qproxy_sync_resends_asked_total{outcome="answered"} "#;
    until("it asks for what is missing", || {
        let page = player.api("/metrics", &[]).text();
        page.lines()
            .any(|line| line.starts_with(answered))
            .then_some(())
    });
}

#[test]
fn players_of_a_group_share_the_work_and_cover_for_one_that_is_killed() {
    let stage = Stage::set(&[]);
    let group = json!({ "sync": { "group": "zone2" } });
    let (mut one, two) = (stage.player("one", &group), stage.player("two", &group));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 500);
    let shares = [taken(&one), taken(&two)];
    assert!(shares.iter().all(|share| *share > 50.0), "{shares:?}");
    one.kill();
    wait_for(&traffic, 500);
    let numbers = numbers(traffic);
    stage.expect_all(&two, &numbers);
    // Who comes back sees what was settled without it.
    one.kill_and_restart();
    stage.expect_all(&one, &numbers);
}

#[test]
fn players_that_each_take_everything_agree_on_one_redis() {
    let stage = Stage::set(&[]);
    let nothing = json!({});
    let (mut one, two) = (stage.player("one", &nothing), stage.player("two", &nothing));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    one.kill_and_restart();
    wait_for(&traffic, 300);
    let numbers = numbers(traffic);
    for player in [&one, &two] {
        stage.expect_all(player, &numbers);
    }
}

#[test]
fn a_player_starts_while_redis_is_away_and_says_what_it_waits_for() {
    let mut stage = Stage::set(&[]);
    stage.redis.kill();
    let player = stage.player("player", &json!({}));
    let address = format!("127.0.0.1:{}", stage.redis.port());
    wait_for_health(&player, 503, &address);
    assert_eq!(player.api("/api/records", &[]).status, 503);
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    stage.runtime.block_on(stage.redis.restart());
    wait_for_health(&player, 200, "");
    wait_for(&traffic, 100);
    stage.expect_all(&player, &numbers(traffic));
}

#[test]
fn a_full_redis_holds_the_records_back_and_loses_none() {
    let stage = Stage::set(&["--maxmemory-policy", "noeviction"]);
    let player = stage.player("player", &json!({}));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 200);
    stage.redis(&["CONFIG", "SET", "maxmemory", "1"]);
    wait_for_health(&player, 503, "full");
    wait_for(&traffic, 300);
    let before = taken(&player);
    wait_for(&traffic, 300);
    // Without an acknowledgement the broker hands out no more than its window.
    let held_back = taken(&player) - before;
    assert!(held_back < 100.0, "{held_back} messages were taken");
    stage.redis(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_for_health(&player, 200, "");
    stage.expect_all(&player, &numbers(traffic));
}

#[test]
fn what_redis_forgot_is_asked_for_again() {
    // It keeps nothing on a disk.
    let mut stage = Stage::set(&[]);
    let player = stage.player("player", &json!({}));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    stage.redis.kill();
    wait_for_health(&player, 503, "");
    stage.runtime.block_on(stage.redis.restart());
    wait_for_health(&player, 200, "");
    wait_for(&traffic, 100);
    wait_until_it_asks_again(&player);
    stage.expect_all(&player, &numbers(traffic));
}

#[test]
fn what_redis_forgot_without_being_away_is_asked_for_again() {
    let stage = Stage::set(&[]);
    let player = stage.player("player", &json!({}));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    stage.redis(&["FLUSHALL"]);
    wait_for(&traffic, 100);
    wait_until_it_asks_again(&player);
    stage.expect_all(&player, &numbers(traffic));
}

#[test]
fn over_nine_tenths_of_what_redis_may_use_the_oldest_go_counted() {
    let stage = Stage::set(&[]);
    let retention = json!({ "retention": { "max_bytes": "4MiB" } });
    let player = stage.player("player", &retention);
    let address = stage.recorder.url("record").trim_start_matches("http://");
    let traffic = Traffic::start_padded(address, 0, Duration::ZERO, 10 << 10);
    wait_for(&traffic, 600);
    let last = numbers(traffic).last().copied().unwrap();
    until("the oldest went, and were counted", || {
        let page = player.api("/metrics", &[]).text();
        let name = r#"qproxy_store_expired_total{reason="bytes"} "#;
        let expired = page.lines().find_map(|line| line.strip_prefix(name))?;
        let expired: f64 = expired.parse().unwrap();
        let stored = stored_numbers(&player);
        let all = expired as usize + stored.len() == last as usize + 1;
        (expired > 0.0 && all && stored.contains_key(&last)).then_some(())
    });
}

#[test]
fn redis_behind_tls_takes_an_acl_user_and_refuses_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let options = [
        ["--tls-port", "BUS_PORT"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    let stage = Stage::set(&options.concat());
    let acl = [
        "ACL", "SETUSER", "player", "on", ">secret", "~shop:*", "+@all",
    ];
    stage.redis(&acl);
    let store = |password: &str| {
        let port = stage.redis.bus_port();
        let url = format!("rediss://player:{password}@localhost:{port}");
        let store = json!({ "redis": url, "redis_prefix": "shop", "redis_ca": certificate });
        json!({ "store": store })
    };
    let player = stage.player("player", &store("secret"));
    let traffic = stage.traffic(0);
    wait_for(&traffic, 100);
    stage.expect_all(&player, &numbers(traffic));

    let config = stage.folder.path().join("refused.json");
    let mut refused = json!({ "mode": "Playback", "node": "refused", "api": { "port": 0 } });
    refused["store"] = store("wrong")["store"].clone();
    std::fs::write(&config, refused.to_string()).unwrap();
    let mut node = Node::spawn(&config);
    assert_eq!(node.process().exit_code(), Some(1));
    let said = node.process().said();
    assert!(
        said.contains("store.redis") && said.contains("correct user and password"),
        "{said}"
    );
    assert!(!said.contains("rediss://"), "{said}");
}
