//! A spool that is too small for an outage: traffic does not notice, and what is given up is counted to the last one.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::stage::{STRIDE, Stage, flow_for, numbers, wait_for};
use crate::support::mosquitto::Options;
use crate::support::numbered::Traffic;
use crate::support::{alone, long_run, until};

/// What makes a record large, so that a spool of the smallest size fills soon.
const PADDING: usize = 4 << 10;

fn stage() -> Stage {
    let recorder = json!({ "spool": { "path": "data/spool", "max_bytes": "1MiB" } });
    Stage::with(&Options::default(), &recorder)
}

/// The recorder's page of the ledger, once it says that all of `captured` is sent, waiting or dropped, and much of it is.
fn full_spool(stage: &Stage, captured: u64) -> Value {
    until("the spool has dropped what it cannot hold", || {
        let ledger = stage.recorder.status()["ledger"]["recorder"].clone();
        let dropped = ledger["dropped"]["spool_limit"].as_u64()?;
        let unsent = ledger["unsent"].as_u64()?;
        let sent = ledger["acknowledged"].as_u64()?;
        // A file more than the limit may stand there for a moment.
        let small = ledger["spool_bytes"].as_u64()? <= (1 << 20) + (1 << 18);
        let all = ledger["captured"] == captured && unsent + dropped + sent == captured;
        (small && all && dropped > 100).then_some(ledger)
    })
}

#[test]
fn drops_are_counted_exactly_on_both_sides() {
    let _alone = alone();
    let mut stage = stage();
    let traffic: Vec<_> = (0..4)
        .map(|client| {
            let (first, pause) = (client * STRIDE, Duration::ZERO);
            Traffic::start_padded(&stage.address(), first, pause, PADDING)
        })
        .collect();
    wait_for(&traffic[0], 100);
    stage.broker.stop();
    flow_for(
        &traffic[0],
        Duration::from_secs(if long_run() { 120 } else { 5 }),
    );
    for client in &traffic {
        wait_for(client, 100);
    }
    let failed: u64 = traffic
        .iter()
        .map(|client| client.failed.load(std::sync::atomic::Ordering::Relaxed))
        .sum();
    let answered: Vec<_> = traffic.into_iter().flat_map(Traffic::finish).collect();
    assert_eq!(failed, 0, "a request failed while the broker was away");
    assert_eq!(stage.served(), answered.len() as u64);

    let before = full_spool(&stage, stage.served());
    let dropped = before["dropped"].as_object().unwrap();
    let others = dropped
        .iter()
        .filter(|(reason, _)| *reason != "spool_limit");
    assert!(
        others.into_iter().all(|(_, count)| *count == 0),
        "{before:#}"
    );
    stage.broker.launch_now();
    let told = stage.expect_balance();
    // More than before only by what was on its way when the broker stopped, and reached nobody.
    assert!(told >= before["dropped"]["spool_limit"].as_u64().unwrap());
    let stored = stage.stored();
    let answered = BTreeSet::from_iter(numbers(&answered));
    assert!(stored.is_subset(&answered));
    assert_eq!((stored.len() as u64) + told, answered.len() as u64);
}

#[test]
fn drops_before_a_kill_are_counted_after_it() {
    let _alone = alone();
    let mut stage = stage();
    stage.broker.stop();
    let traffic = Traffic::start_padded(&stage.address(), 0, Duration::ZERO, PADDING);
    wait_for(&traffic, 1000);
    let answered = traffic.finish();
    let before = full_spool(&stage, answered.len() as u64);
    let dropped = before["dropped"]["spool_limit"].as_u64().unwrap();
    stage.recorder.kill_and_restart();
    stage.broker.launch_now();
    until(
        "the player knows of everything of the life that ended",
        || {
            let player = stage.player.status();
            let lives = player["ledger"]["player"]["recorders"]
                .as_array()
                .unwrap()
                .clone();
            let life = lives.iter().find(|life| life["epoch"] == before["epoch"])?;
            assert_eq!(life["lost"], 0, "{player:#}");
            let told = life["dropped"].as_u64()?;
            let whole = told + life["stored"].as_u64()? == answered.len() as u64;
            // What the publisher held in its memory may have left the disk before it was killed with it: the next
            // life of the recorder counts that.
            let later =
                stage.recorder.status()["ledger"]["recorder"]["dropped"]["spool_limit"].as_u64()?;
            (whole && life["missing"] == 0 && told == dropped + later).then_some(())
        },
    );
}
