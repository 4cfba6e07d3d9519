//! `kill -9` in the midst of publishing, against a real broker. The process that is killed is this test binary again,
//! at [`publisher`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::Backoff;
use qproxy::mqtt_client::persistence::{Journal, JournalOptions};
use tempfile::TempDir;

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::process::Process;
use crate::support::soon;

/// `PORT JOURNAL FROM COUNT`: publishes so many numbers. Without it the test tries the publisher by itself.
const TASK: &str = "QPROXY_TEST_PUBLISHER";

fn config(port: u16, path: &Path) -> MqttConfig {
    let pause = Duration::from_millis(20);
    MqttConfig {
        client_id: "killed".to_string(),
        host: "127.0.0.1".to_string(),
        port,
        clean_session: false,
        reconnect: Backoff {
            initial: pause,
            max: pause,
        },
        persistence: Some(Arc::new(
            Journal::open(path, JournalOptions::default()).unwrap(),
        )),
        ..Default::default()
    }
}

/// Says `accepted N` of each number that the client has taken over.
#[allow(clippy::print_stdout, reason = "the parent reads it")]
async fn publish_numbers(port: u16, path: &Path, numbers: std::ops::Range<u32>) -> usize {
    let client = MqttClient::new(config(port, path));
    client.start().await.unwrap();
    let mut accepted = 0;
    for number in numbers {
        match client
            .publish_deferred("numbers", number.to_string(), QoS::ExactlyOnce)
            .await
        {
            Ok(token) => drop(token),
            Err(error) => {
                println!("refused {number}: {}", super::chain(&error));
                return accepted;
            }
        }
        println!("accepted {number}");
        accepted += 1;
    }
    while client.stats().queued + client.stats().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("delivered");
    client.disconnect().await.unwrap();
    accepted
}

#[tokio::test]
async fn publisher() {
    if let Ok(task) = std::env::var(TASK) {
        let mut words = task.split(' ');
        let mut word = || words.next().unwrap();
        let (port, path) = (word().parse().unwrap(), word().to_string());
        let (from, count): (u32, u32) = (word().parse().unwrap(), word().parse().unwrap());
        publish_numbers(port, Path::new(&path), from..from + count).await;
        return;
    }
    let broker = Mosquitto::start(Options::default()).await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("session");
    let published = soon("all of it", publish_numbers(broker.port(), &path, 0..50));
    assert_eq!(published.await, 50);
}

fn start(port: u16, path: &Path, from: u32, count: u32, limit: Option<u32>) -> Process {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("bash");
    // A file that may not grow is what a full disk is to the one who writes.
    let limit = limit.map_or(String::new(), |kib| {
        format!("trap '' XFSZ; ulimit -f {kib}; ")
    });
    let script = format!("{limit}exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(program);
    command.args([
        "--exact",
        "mqtt_persistence_test::killed::publisher",
        "--nocapture",
    ]);
    command.env(TASK, format!("{port} {} {from} {count}", path.display()));
    Process::start(&mut command, "nothing: it is this program")
}

#[tokio::test]
async fn nothing_accepted_is_lost_and_nothing_arrives_twice_when_the_process_is_killed() {
    const ROUNDS: u32 = 8;
    let broker = Mosquitto::start(Options {
        drops_nothing: true,
        ..Options::default()
    })
    .await;
    let receiver = MqttClient::new(MqttConfig {
        inbound_messages: 1_000_000,
        ..broker.config("receiver")
    });
    let mut messages = receiver.messages();
    receiver.connect().await.unwrap();
    receiver
        .subscribe("numbers", QoS::ExactlyOnce)
        .await
        .unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("session");
    let mut accepted = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut process = start(broker.port(), &path, round * 100_000, 100_000, None);
        let enough = 20 + 137 * round as usize;
        let before = accepted.len();
        let said = tokio::task::spawn_blocking(move || {
            let mut accepted = Vec::new();
            process.expect_line("that enough is accepted", |line| {
                accepted.extend(number_in(line));
                (accepted.len() >= enough).then_some(())
            });
            process.kill();
            // What it had said before the end counts too.
            accepted.extend(process.said().lines().filter_map(number_in));
            accepted
        });
        accepted.extend(said.await.unwrap());
        assert!(accepted.len() >= before + enough);
    }
    let mut last = start(broker.port(), &path, ROUNDS * 100_000, 1, None);
    let delivered = tokio::task::spawn_blocking(move || {
        last.expect_line("`delivered`", |line| {
            line.ends_with("delivered").then_some(())
        });
    });
    let mut arrived = BTreeMap::<u32, usize>::new();
    let end = ROUNDS * 100_000;
    while !arrived.contains_key(&end) {
        let message = soon("a message", messages.recv()).await.unwrap();
        let number = std::str::from_utf8(&message.payload)
            .unwrap()
            .parse()
            .unwrap();
        *arrived.entry(number).or_default() += 1;
    }
    delivered.await.unwrap();
    receiver.disconnect().await.unwrap();
    while let Some(message) = messages.try_recv() {
        let number = std::str::from_utf8(&message.payload)
            .unwrap()
            .parse()
            .unwrap();
        *arrived.entry(number).or_default() += 1;
    }
    let lost: Vec<_> = accepted
        .iter()
        .filter(|it| !arrived.contains_key(it))
        .collect();
    assert!(lost.is_empty(), "lost {lost:?} of {}", accepted.len());
    let twice: Vec<_> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "arrived more than once: {twice:?}");
}

fn number_in(line: &str) -> Option<u32> {
    line.split_once("accepted ")?.1.parse().ok()
}

#[test]
fn a_full_disk_is_told_with_the_name_of_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("session");
    // Nobody listens there: what is accepted stays in the journal.
    let nowhere = crate::support::free_port();
    let mut process = start(nowhere, &path, 0, 100_000, Some(64));
    let said = process.expect_line("that it is refused", |line| {
        line.contains("refused ").then(|| line.to_owned())
    });
    assert!(said.contains("could not append to"), "{said}");
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains("File too large"), "{said}");
    process.kill();
    // What was accepted before is there.
    let accepted = process.said().lines().filter_map(number_in).count();
    let journal = Journal::open(&path, JournalOptions::default()).unwrap();
    let saved = qproxy::mqtt_client::persistence::Persistence::load(&journal, "killed").unwrap();
    assert!(
        saved.queued().count() >= accepted && accepted > 100,
        "{accepted}"
    );
}
