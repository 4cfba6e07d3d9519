//! The way between recorder and player: a broker that is away, one that drops, a link that is cut or falls silent.

use std::time::Duration;

use serde_json::json;

use super::stage::{PAUSE, STRIDE, Stage, flow_for, numbers, wait_for};
use crate::support::long_run;
use crate::support::mosquitto::Options;
use crate::support::numbered::Traffic;

/// How long something stays away.
fn outage() -> Duration {
    Duration::from_secs(if long_run() { 30 } else { 3 })
}

#[test]
fn nothing_is_missing_after_the_broker_was_away_for_a_while() {
    let mut stage = Stage::set();
    let traffic = stage.traffic(0);
    for _ in 0..2 {
        wait_for(&traffic, 200);
        stage.broker.stop();
        flow_for(&traffic, outage());
        stage.broker.launch_now();
    }
    wait_for(&traffic, 200);
    let answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
    assert_eq!(stage.expect_balance(), 0);
    assert_eq!(stage.served(), answered.len() as u64, "a request failed");
}

#[test]
fn nothing_is_missing_after_the_links_were_cut() {
    let stage = Stage::set();
    let traffic = stage.traffic(0);
    for round in 0..4 {
        wait_for(&traffic, 200);
        let cut = match round {
            0 => vec![&stage.sending],
            1 => vec![&stage.receiving],
            _ => vec![&stage.sending, &stage.receiving],
        };
        cut.iter().for_each(|link| link.cut());
        flow_for(&traffic, outage() / 3);
        cut.iter().for_each(|link| link.mend());
    }
    wait_for(&traffic, 200);
    let answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
    assert_eq!(stage.expect_balance(), 0);
}

#[test]
fn nothing_is_missing_after_the_links_fell_silent() {
    let stage = Stage::set();
    let traffic = stage.traffic(0);
    for link in [&stage.sending, &stage.receiving] {
        wait_for(&traffic, 200);
        // Nothing says so: both ends find out by the keep alive of two seconds.
        link.fall_silent();
        flow_for(&traffic, outage());
        link.mend();
    }
    wait_for(&traffic, 200);
    let answered = traffic.finish();
    stage.expect_stored(&numbers(&answered));
    assert_eq!(stage.expect_balance(), 0);
}

#[test]
fn what_the_broker_drops_without_a_word_is_sent_again() {
    let options = Options {
        lines: &["max_queued_messages 100", "max_inflight_messages 5"],
        ..Options::default()
    };
    // A window over what the broker keeps, and a keep alive that does not end the player's frozen connection.
    let recorder = json!({ "mqtt": { "keep_alive": "60s" }, "sync": { "window_messages": 2000 } });
    let mut stage = Stage::with(&options, &recorder);
    let traffic: Vec<_> = (0..4)
        .map(|client| Traffic::start(&stage.address(), client * STRIDE, PAUSE))
        .collect();
    wait_for(&traffic[0], 100);
    for _ in 0..2 {
        // Under one and a half times its keep alive.
        stage.player.process().freeze();
        flow_for(&traffic[0], Duration::from_millis(2500));
        stage.player.process().thaw();
        wait_for(&traffic[0], 100);
    }
    let answered: Vec<_> = traffic.into_iter().flat_map(Traffic::finish).collect();
    stage.expect_stored(&numbers(&answered));
    assert_eq!(stage.expect_balance(), 0);
    let resent = stage.recorder.metric("sync_resent_items_total");
    assert!(
        resent > 100.0,
        "the broker dropped hardly anything: {resent}"
    );
}
