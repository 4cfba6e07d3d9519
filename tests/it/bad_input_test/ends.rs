//! How a node ends: in order and with all it captured, or at once where it is told twice.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{expect_stored, player, recorder, send};
use crate::support::curl::try_curl;
use crate::support::free_port;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::Origin;

/// An end in order takes no longer where nothing holds it up; the longest grace period inside is twice this.
const SECONDS: Duration = Duration::from_secs(5);

fn signal(node: &mut Node, name: &str) {
    let id = node.process().id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn sigterm_ends_a_recorder_without_its_broker_in_seconds_and_keeps_what_it_captured() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start();
    let home = folder.path().join("recorder");
    let mut node = Node::start(&home, &recorder(free_port(), &origin.url()));
    send(&node, 0..30);
    let asked = Instant::now();
    assert_eq!(node.process().terminate(), Some(0));
    assert!(asked.elapsed() < SECONDS, "it took {:?}", asked.elapsed());

    let broker = Mosquitto::start_now(&Options::default());
    let _again = Node::start(&home, &recorder(broker.port(), &origin.url()));
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    expect_stored(&player, 0..30);
}

#[test]
fn sigterm_ends_a_player_in_seconds_and_it_has_its_records_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let mut player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = recorder(broker.port(), &origin.url());
    let mut recorder = Node::start(&folder.path().join("recorder"), &recorder);
    send(&recorder, 0..10);
    expect_stored(&player, 0..10);
    recorder.kill();
    let asked = Instant::now();
    assert_eq!(player.process().terminate(), Some(0));
    assert!(asked.elapsed() < SECONDS, "it took {:?}", asked.elapsed());
    player.kill_and_restart();
    expect_stored(&player, 0..10);
}

#[test]
fn a_second_signal_ends_at_once_what_waits_for_a_slow_exchange() {
    let folder = tempfile::tempdir().unwrap();
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", silent.local_addr().unwrap());
    let mut node = Node::start(folder.path(), &recorder(free_port(), &upstream));
    let url = format!("{}/slow", node.url("record"));
    let client = std::thread::spawn(move || try_curl(&url, &[]));
    let _exchange = silent.accept().unwrap();

    signal(&mut node, "-TERM");
    let process = node.process();
    process.expect_line("that it is stopping", |line| {
        line.contains("a second signal stops at once").then_some(())
    });
    let asked = Instant::now();
    signal(&mut node, "-INT");
    assert_eq!(node.process().exit_code(), Some(1));
    assert!(asked.elapsed() < SECONDS, "it took {:?}", asked.elapsed());
    assert!(client.join().unwrap().is_err(), "the exchange was cut off");
}

#[test]
fn sigterm_ends_a_node_that_is_still_starting() {
    let folder = tempfile::tempdir().unwrap();
    // Takes connections and never answers, so that the start waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = player(free_port());
    config["store"] = json!({ "redis": format!("redis://{}", silent.local_addr().unwrap()) });
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut node = Node::spawn(&path);
    let _connection = silent.accept().unwrap();
    let asked = Instant::now();
    assert_eq!(node.process().terminate(), Some(0));
    assert!(asked.elapsed() < SECONDS, "it took {:?}", asked.elapsed());
}
