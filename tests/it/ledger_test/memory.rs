//! Memory while the broker is away: what cannot be sent waits on the disk.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::stage::{STRIDE, Stage, flow_for, wait_for};
use crate::support::long_run;
use crate::support::numbered::Traffic;

/// Together at most 2,000 requests a second.
const CLIENTS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(4);
/// What the recorder may take more in the end than after its first seconds: its spool's index grows, the rest does not.
const GROWTH: u64 = 16 << 20;

#[test]
fn an_outage_under_load_takes_no_memory() {
    let _alone = crate::support::alone();
    let mut stage = Stage::set();
    stage.broker.stop();
    let traffic: Vec<_> = (0..CLIENTS)
        .map(|client| Traffic::start(&stage.address(), client * STRIDE, PAUSE))
        .collect();
    // So that every buffer and the part of the spool that is kept in memory are as full as they get.
    for client in &traffic {
        wait_for(client, 1000);
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
        "{rate:.0} requests/s: {} -> {} MiB",
        before >> 20,
        after >> 20
    );
    println!("{said}");
    assert_eq!(failed, 0, "a request failed while the broker was away");
    assert!(after - before <= GROWTH, "{said}");
    let ledger = &stage.recorder.status()["ledger"]["recorder"];
    assert_eq!(ledger["captured"], stage.served());
    assert_eq!(ledger["unsent"], ledger["captured"], "{ledger:#}");
}
