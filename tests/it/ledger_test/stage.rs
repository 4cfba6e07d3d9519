//! Recorder, Mosquitto and player as processes, numbered requests through them, and the books to check in the end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::{Origin, Traffic, stored_numbers};
use crate::support::relay::Relay;
use crate::support::{PATIENCE, free_port, until};

pub(super) const PAUSE: Duration = Duration::from_millis(2);
/// So that several clients never use the same number.
pub(super) const STRIDE: u64 = 1_000_000;

pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    pub(super) broker: Mosquitto,
    pub(super) origin: Origin,
    pub(super) recorder: Node,
    pub(super) player: Node,
    /// Between the recorder and the broker.
    pub(super) sending: Relay,
    /// Between the broker and the player.
    pub(super) receiving: Relay,
}

impl Stage {
    pub(super) fn set() -> Self {
        Self::with(&Options::default(), &json!({}))
    }

    /// A stage with other settings of the broker, and more in the configuration of the recorder.
    pub(super) fn with(broker: &Options, recorder: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (broker, origin) = (Mosquitto::start_now(broker), Origin::start());
        let (sending, receiving) = (Relay::to(broker.port()), Relay::to(broker.port()));
        let node = |name: &str, mode: &str, peer: &Relay, http: Value, more: &Value| {
            let mut config = json!({
                "mode": mode, "node": name, "http": http,
                "peer": { "host": "127.0.0.1", "port": peer.port() },
                // Short, so that a link that falls silent is noticed while a test waits.
                "mqtt": { "keep_alive": "2s" },
                "store": { "path": "data" },
                "api": { "host": "127.0.0.1", "port": free_port() },
            });
            for (key, value) in more.as_object().unwrap() {
                config[key] = value.clone();
            }
            Node::start(&folder.path().join(name), &config)
        };
        let listen = json!({ "host": "127.0.0.1", "port": free_port() });
        let player = node("player", "Playback", &receiving, listen, &json!({}));
        let mut listen = json!({ "host": "127.0.0.1", "port": free_port() });
        listen["downstream"] = origin.url().into();
        let recorder = node("recorder", "Record", &sending, listen, recorder);
        Self {
            folder,
            broker,
            origin,
            recorder,
            player,
            sending,
            receiving,
        }
    }

    pub(super) fn traffic(&self, first: u64) -> Traffic {
        Traffic::start(&self.address(), first, PAUSE)
    }

    pub(super) fn address(&self) -> String {
        let url = self.recorder.url("record");
        url.trim_start_matches("http://").to_owned()
    }

    /// How many requests the service behind the recorder has answered.
    pub(super) fn served(&self) -> u64 {
        self.origin.answered.load(Ordering::Relaxed)
    }

    /// Waits until every one of `numbers` is stored; none may be there twice.
    pub(super) fn expect_stored(&self, numbers: &[u64]) {
        until("the recorder's spool is empty", || {
            let status = self.recorder.status();
            (status["ledger"]["recorder"]["unsent"].as_u64()? == 0).then_some(())
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stored = self.stored();
            let missing: Vec<_> = numbers.iter().filter(|n| !stored.contains(n)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {} are missing, e.g. {:?}\n{}",
                missing.len(),
                numbers.len(),
                &missing[..missing.len().min(10)],
                self.describe(),
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The numbers in the player's store; none may be there twice.
    pub(super) fn stored(&self) -> BTreeSet<u64> {
        let stored = stored_numbers(&self.player);
        let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "stored more than once: {twice:?}");
        stored.into_keys().collect()
    }

    /// Waits until both sides agree: all that the recorder's present life captured is stored or reported as
    /// dropped, the player says so too, and its store holds just that. Gives what was dropped.
    pub(super) fn expect_balance(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let books = Books::of(&self.recorder, &self.player);
            if books.balance() {
                let stored = self.stored().len() as u64;
                assert_eq!(stored, books.stored, "{books:?}\n{}", self.describe());
                return books.dropped;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "{books:?}\n{}", self.describe());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn describe(&self) -> String {
        let (recorder, player) = (self.recorder.status(), self.player.status());
        format!("recorder: {recorder:#}\nplayer: {player:#}")
    }
}

/// What `/api/status` of both nodes says of the recorder's only life.
#[derive(Debug, PartialEq, Eq)]
struct Books {
    captured: u64,
    unsent: u64,
    dropped: u64,
    /// What the player was told of drops.
    told: u64,
    stored: u64,
    missing: u64,
    lost: u64,
}

impl Books {
    fn of(recorder: &Node, player: &Node) -> Self {
        let recorder = &recorder.status()["ledger"]["recorder"];
        let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
        let by_reason = recorder["dropped"].as_object().unwrap();
        let player = player.status();
        let lives = player["ledger"]["player"]["recorders"].as_array().unwrap();
        let sum = |key| lives.iter().map(|life| number(life, key)).sum();
        Self {
            captured: number(recorder, "captured"),
            unsent: number(recorder, "unsent"),
            dropped: by_reason
                .values()
                .map(|count| count.as_u64().unwrap())
                .sum(),
            told: sum("dropped"),
            stored: sum("stored"),
            missing: sum("missing"),
            lost: sum("lost"),
        }
    }

    fn balance(&self) -> bool {
        let settled = (self.unsent, self.missing, self.lost) == (0, 0, 0);
        settled && self.told == self.dropped && self.captured == self.stored + self.dropped
    }
}

/// Waits until `count` more requests were answered.
pub(super) fn wait_for(traffic: &Traffic, count: u64) {
    let before = traffic.answered.load(Ordering::Relaxed);
    until("traffic flows", || {
        (traffic.answered.load(Ordering::Relaxed) >= before + count).then_some(())
    });
}

/// Lets traffic flow for a while.
pub(super) fn flow_for(traffic: &Traffic, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        wait_for(traffic, 1);
    }
}

pub(super) fn numbers(answered: &[(u64, Instant)]) -> Vec<u64> {
    answered.iter().map(|(number, _)| *number).collect()
}
