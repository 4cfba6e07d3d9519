//! Memory while the broker is away: what cannot be sent waits on the disk.
//!
//! The long form wants what a release build does:
//! `QPROXY_LONG=1 QPROXY_BIN=$PWD/target/release/qproxy cargo test --test it outage_under_load`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::stage::{STRIDE, Stage, flow_for, wait_for};
use crate::support::long_run;
use crate::support::numbered::Traffic;

/// Together 2,000 requests a second, or what the machine can do.
const CLIENTS: u64 = 8;
const EVERY: Duration = Duration::from_millis(4);
/// What the long form must reach of that, per second.
const RATE: f64 = 1900.0;
/// What the recorder may take more in the end than after its first seconds.
const GROWTH: u64 = 5 << 20;
/// What it may take in all.
const MOST: u64 = 100 << 20;

#[test]
fn an_outage_under_load_takes_no_memory() {
    let _alone = crate::support::alone();
    let mut stage = Stage::set();
    stage.broker.stop();
    let traffic: Vec<_> = (0..CLIENTS)
        .map(|client| Traffic::start_paced(&stage.address(), client * STRIDE, EVERY))
        .collect();
    // So that every buffer, the part of the spool that is kept in memory and the index of its first file are as full as
    // they get: 64 MiB of small records.
    let filled = if long_run() { 10_000 } else { 1000 };
    for client in &traffic {
        wait_for(client, filled);
    }
    let (before, started) = (stage.recorder.peak_rss(), Instant::now());
    let served = stage.served();
    let time = Duration::from_secs(if long_run() { 600 } else { 10 });
    flow_for(&traffic[0], time);
    let rate = (stage.served() - served) as f64 / started.elapsed().as_secs_f64();
    let after = stage.recorder.peak_rss();
    let failed = |client: &Traffic| client.failed.load(Ordering::Relaxed);
    let failed: u64 = traffic.iter().map(failed).sum();
    traffic.into_iter().for_each(|client| drop(client.finish()));
    let said = format!(
        "{rate:.0} requests/s: {} -> {} KiB",
        before >> 10,
        after >> 10
    );
    println!("{said}");
    assert_eq!(failed, 0, "a request failed while the broker was away");
    assert!(after - before <= GROWTH, "{said}");
    assert!(after <= MOST, "{said}");
    assert!(!long_run() || rate >= RATE, "{said}");
    let ledger = &stage.recorder.status()["ledger"]["recorder"];
    assert_eq!(ledger["captured"], stage.served());
    assert_eq!(ledger["unsent"], ledger["captured"], "{ledger:#}");
}
