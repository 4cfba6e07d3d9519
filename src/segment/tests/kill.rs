//! `kill -9` while a child process appends: nothing that it acknowledged is missing, nothing is invented.

use std::io::{BufRead, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{Log, Order};
use super::{all_ids, config, insert, payload};

const DIR: &str = "QPROXY_SEGMENT_KILL_DIR";
const NAME: &str = "segment::tests::kill::killed_process_loses_nothing_that_it_acknowledged";
/// How many kills; more for a longer run.
const KILLS: &str = "QPROXY_KILLS";
const FEW: u64 = 10;
const LARGEST_BATCH: u128 = 7;

fn content(id: u128) -> Vec<u8> {
    let length = usize::try_from(id * 131 % 900).unwrap();
    id.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// The child: appends for ever and says after each batch how far it is.
fn append_for_ever(dir: &Path) -> ! {
    let (log, _) = Log::open(config(dir)).unwrap();
    let mut next = 1;
    let newest = &mut |header: super::super::Header<'_>| {
        next = header.id + 1;
        ControlFlow::Break(())
    };
    log.scan(1, 0..=u128::MAX, Order::Newest, newest);
    let mut out = std::io::stdout();
    loop {
        let count = next % LARGEST_BATCH + 1;
        let contents: Vec<_> = (next..next + count).map(|id| (id, content(id))).collect();
        let batch: Vec<_> = contents.iter().map(|(id, c)| insert(*id, c)).collect();
        log.append(&batch).unwrap();
        next += count;
        writeln!(out, "\nacknowledged {}", next - 1).unwrap();
        out.flush().unwrap();
    }
}

/// Runs a child until it acknowledged `lines` batches, kills it, and returns the last id it acknowledged.
fn run_and_kill(dir: &Path, lines: u64) -> u128 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (mut acknowledged, mut seen) = (0, 0);
    for line in out.lines() {
        let line = line.unwrap();
        let Some(id) = line.strip_prefix("acknowledged ") else {
            continue;
        };
        // The last line may be cut short by the kill; a prefix of a number is only smaller.
        acknowledged = acknowledged.max(id.parse().unwrap_or(0));
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        seen >= lines,
        "the child ended by itself after {seen} batches"
    );
    acknowledged
}

#[test]
fn killed_process_loses_nothing_that_it_acknowledged() {
    if let Some(dir) = std::env::var_os(DIR) {
        append_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let kills = std::env::var(KILLS).map_or(FEW, |kills| kills.parse().unwrap());
    let mut acknowledged_last = 0;
    for round in 0..kills {
        // Short lives and long ones, so that some end while a file is sealed and its sidecar written.
        let acknowledged = run_and_kill(dir.path(), 5 + round * 37 % 60);
        assert!(acknowledged > acknowledged_last);
        acknowledged_last = acknowledged;
        let (log, recovery) = Log::open(config(dir.path())).unwrap();
        assert_eq!(recovery.damage, []);
        let ids = all_ids(&log, 1);
        let last = *ids.last().unwrap();
        assert_eq!(ids, Vec::from_iter(1..=last));
        assert!((acknowledged..=acknowledged + LARGEST_BATCH).contains(&last));
        // The payloads of earlier rounds were looked at then; of the last rounds each is, of the rest every 17th.
        let old = acknowledged.saturating_sub(2000);
        for id in ids.into_iter().filter(|id| *id > old || *id % 17 == 0) {
            assert_eq!(payload(&log, 1, id).unwrap(), content(id));
        }
        if round + 1 == kills {
            println!(
                "{kills} kills, {last} entries, {} files",
                log.stats().segments
            );
        }
    }
}
