//! Nothing is lost silently: processes are killed with `kill -9` and the broker goes away under traffic, and in
//! the end the numbers add up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::{Origin, Traffic};
use crate::support::{free_port, until};

/// What a recorder may hold in memory when it is killed: exchanges younger than this are not yet on its disk.
const UNSPOOLED: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(2);

struct Stage {
    folder: tempfile::TempDir,
    broker: Mosquitto,
    origin: Origin,
    recorder: Node,
    player: Node,
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (broker, origin) = (Mosquitto::start_now(&Options::default()), Origin::start());
        let node = |name: &str, mode: &str, http: Value| {
            let config = json!({
                "mode": mode, "node": name, "http": http,
                "peer": { "host": "127.0.0.1", "port": broker.port() },
                "store": { "path": "data" },
                "api": { "host": "127.0.0.1", "port": free_port() },
            });
            Node::start(&folder.path().join(name), &config)
        };
        let player = node(
            "player",
            "Playback",
            json!({ "host": "127.0.0.1", "port": free_port() }),
        );
        let recorder = node(
            "recorder",
            "Record",
            json!({ "host": "127.0.0.1", "port": free_port(), "downstream": origin.url() }),
        );
        Self {
            broker,
            origin,
            recorder,
            player,
            folder,
        }
    }

    fn traffic(&self, first: u64) -> Traffic {
        let address = self
            .recorder
            .url("record")
            .trim_start_matches("http://")
            .to_owned();
        Traffic::start(&address, first, PAUSE)
    }

    /// How often each number is stored.
    fn stored(&self) -> HashMap<u64, u32> {
        let mut stored = HashMap::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .player
                .api(&format!("/api/records?limit=1000{cursor}"), &[])
                .json();
            for record in page["records"].as_array().unwrap() {
                let number = record["target"].as_str().unwrap().trim_start_matches("/n/");
                *stored.entry(number.parse().unwrap()).or_default() += 1;
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return stored,
            }
        }
    }

    /// Waits until every one of `numbers` is stored; none may be there twice.
    fn expect_stored(&self, numbers: &[u64]) {
        until("the recorder's spool is empty", || {
            let status = self.recorder.status();
            (status["ledger"]["recorder"]["unsent"].as_u64()? == 0).then_some(())
        });
        let deadline = Instant::now() + crate::support::PATIENCE;
        loop {
            let stored = self.stored();
            let missing: Vec<_> = numbers.iter().filter(|n| !stored.contains_key(n)).collect();
            let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
            assert!(twice.is_empty(), "stored more than once: {twice:?}");
            if missing.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {} are missing, e.g. {:?}\nrecorder: {:#}\nplayer: {:#}",
                missing.len(),
                numbers.len(),
                &missing[..missing.len().min(10)],
                self.recorder.status(),
                self.player.status(),
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn wait_for(traffic: &Traffic, count: u64) {
    let before = traffic.answered.load(std::sync::atomic::Ordering::Relaxed);
    until("traffic flows", || {
        (traffic.answered.load(std::sync::atomic::Ordering::Relaxed) >= before + count)
            .then_some(())
    });
}

fn numbers(answered: &[(u64, Instant)]) -> Vec<u64> {
    answered.iter().map(|(number, _)| *number).collect()
}

#[test]
fn nothing_is_missing_after_the_player_is_killed() {
    let mut stage = Stage::set();
    let traffic = stage.traffic(0);
    for _ in 0..2 {
        wait_for(&traffic, 300);
        stage.player.kill_and_restart();
    }
    wait_for(&traffic, 300);
    let answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
}

#[test]
fn nothing_is_missing_after_the_broker_is_killed_and_forgets() {
    let mut stage = Stage::set();
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    stage.broker.kill();
    wait_for(&traffic, 300);
    stage.broker.launch_now();
    wait_for(&traffic, 300);
    let answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
}

#[test]
fn what_was_on_the_recorders_disk_is_not_lost_when_it_is_killed() {
    let mut stage = Stage::set();
    stage.broker.kill(); // So that all of it is on the disk alone.
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    std::thread::sleep(UNSPOOLED);
    let killed = Instant::now();
    stage.recorder.kill_and_restart();
    wait_for(&traffic, 100);
    stage.broker.launch_now();
    wait_for(&traffic, 100);
    let answered = traffic.finish();
    let safe: Vec<u64> = answered
        .iter()
        .filter(|(_, at)| *at + UNSPOOLED < killed || *at > killed)
        .map(|(number, _)| *number)
        .collect();
    assert!(safe.len() > 400, "{} of {}", safe.len(), answered.len());
    stage.expect_stored(&safe);
}

#[test]
fn traffic_does_not_notice_that_there_is_no_broker_and_drops_are_counted() {
    let mut stage = Stage::set();
    stage.broker.kill();
    let before = stage
        .origin
        .answered
        .load(std::sync::atomic::Ordering::Relaxed);
    let traffic = stage.traffic(0);
    wait_for(&traffic, 500);
    let answered = traffic.finish();
    let seen = stage
        .origin
        .answered
        .load(std::sync::atomic::Ordering::Relaxed)
        - before;
    assert_eq!(
        seen,
        answered.len() as u64,
        "a request failed while the broker was away"
    );
    until("everything captured is in the spool", || {
        let status = stage.recorder.status();
        (status["ledger"]["recorder"]["unsent"].as_u64()? == seen).then_some(())
    });
}

#[test]
fn a_player_that_lost_its_store_is_filled_in_from_the_spool_earlier_lives_included() {
    let mut stage = Stage::set();
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    let mut answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
    stage.recorder.kill_and_restart();
    let traffic = stage.traffic(1_000_000);
    wait_for(&traffic, 100);
    answered.extend(traffic.finish());
    stage.expect_stored(&numbers(&answered));
    stage.player.kill();
    std::fs::remove_dir_all(stage.folder.path().join("player/data")).unwrap();
    stage.player.kill_and_restart();
    stage.expect_stored(&numbers(&answered));
}
