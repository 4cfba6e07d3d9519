//! `kill -9`, each in turn.

use std::time::{Duration, Instant};

use super::stage::{Stage, numbers, wait_for};
use crate::support::until;

/// What a recorder may hold in memory when it is killed: exchanges younger than this are not yet on its disk.
const UNSPOOLED: Duration = Duration::from_millis(500);

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
    assert_eq!(stage.expect_balance(), 0);
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
    assert_eq!(stage.expect_balance(), 0);
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
fn traffic_does_not_notice_that_there_is_no_broker() {
    let mut stage = Stage::set();
    stage.broker.kill();
    let before = stage.served();
    let traffic = stage.traffic(0);
    wait_for(&traffic, 500);
    let answered = traffic.finish();
    let seen = stage.served() - before;
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
