//! What keeping a record costs: the segment log under both spool and store, against fjall and Redis in the same
//! run, with records of 4 KiB that no compression shrinks, in batches of 64.
//!
//! `cargo bench --bench store`. `BENCH_BYTES` is how much the log holds when it is read (1 GiB by default; suffixes K,
//! M, G), `BENCH_COMPARE_BYTES` how much each engine is given where they are compared (256 MiB). Needs
//! redis-server. Prints lines `RATIO name value target`. CPU is user and system time of the process with all its
//! threads, and of the server where there is one; every engine has what it was given on its way to the disk
//! once a second, and is closed before the clock stops.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails where it stands"
)]

mod support;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qproxy::segment::{Config, Entry, Limits, Log, Order, Write};

use support::{Running, Scratch, free_port, listening, ticks, wait};

/// The allocator of `qproxy`; fjall gets it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: usize = 4096;
const BATCH: u64 = 64;
/// What a stored summary takes.
const META: usize = 130;
/// So many records answer to one fingerprint.
const ALIKE: u64 = 4;
const KIND: u8 = 1;
const READS: u64 = 100_000;

fn size(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    let (number, shift) = match text.trim_end_matches(['K', 'M', 'G']) {
        number if text.ends_with('K') => (number, 10),
        number if text.ends_with('M') => (number, 20),
        number if text.ends_with('G') => (number, 30),
        number => (number, 0),
    };
    number.parse::<u64>().unwrap() << shift
}

/// Well mixed bits that are the same for the same number.
fn mixed(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// As a UUIDv7: time, here two records a millisecond, then chance.
fn id(n: u64) -> u128 {
    let millis = 1_700_000_000_000 + u128::from(n / 2);
    let order = u128::from(n % 2) << 62;
    millis << 80 | order | u128::from(mixed(n) >> 2)
}

fn fingerprint(n: u64) -> u128 {
    let group = n / ALIKE;
    u128::from(mixed(group)) << 64 | u128::from(mixed(!group)) | 1
}

/// Where payloads are cut from.
struct Noise(Vec<u8>);

impl Noise {
    fn new() -> Self {
        Self((0..1 << 17).flat_map(|n| mixed(n).to_le_bytes()).collect())
    }

    fn payload(&self, n: u64) -> &[u8] {
        let room = self.0.len() - PAYLOAD;
        let start = usize::try_from(mixed(n)).unwrap() % room;
        &self.0[start..start + PAYLOAD]
    }

    fn meta(&self, n: u64) -> [u8; META] {
        let mut meta = [0; META];
        meta.copy_from_slice(&self.payload(!n)[..META]);
        meta[0] = u8::try_from(n % 100).unwrap();
        meta
    }
}

/// CPU time of this process so far, in seconds.
fn cpu() -> f64 {
    ticks("/proc/self/stat")
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--append") {
        append_for_ever(Path::new(&args.next().expect("a directory")));
    }
    let scratch = Scratch::new();
    let noise = Noise::new();
    compare(scratch.path(), &noise);
    alone(scratch.path(), &noise);
}

fn ratio(name: &str, value: f64, target: &str) {
    println!("RATIO {name} {value:.3} {target}");
}

fn append(log: &Log, noise: &Noise, first: u64) {
    let metas: Vec<_> = (first..first + BATCH).map(|n| noise.meta(n)).collect();
    let entries: Vec<_> = (first..first + BATCH)
        .zip(&metas)
        .map(|(n, meta)| Entry {
            kind: KIND,
            write: Write::Insert,
            id: id(n),
            fingerprint: fingerprint(n),
            meta,
            payload: noise.payload(n),
        })
        .collect();
    assert!(log.append(&entries).unwrap().known.is_empty());
}

fn open(dir: &Path) -> Log {
    let (log, recovery) = Log::open(Config::new(dir)).unwrap();
    assert_eq!(recovery.damage, []);
    log
}

/// A child that appends until it is killed.
fn append_for_ever(dir: &Path) -> ! {
    let log = open(dir);
    let noise = Noise::new();
    let mut next = log.stats().entries.get(&KIND).copied().unwrap_or_default();
    loop {
        append(&log, &noise, next);
        next += BATCH;
    }
}

// ---- against others -------------------------------------------------------------------------------------

/// Microseconds of CPU, and of time, for each record.
fn cost(name: &str, records: u64, server: impl Fn() -> f64, work: impl FnOnce()) -> f64 {
    let (cpu_before, began) = (cpu() + server(), Instant::now());
    work();
    let each = |seconds: f64| seconds * 1e6 / f64::from(u32::try_from(records).unwrap());
    let used = each(cpu() + server() - cpu_before);
    let took = each(began.elapsed().as_secs_f64());
    println!("{name}: {used:.2} us of CPU and {took:.2} us for each of {records} records");
    used
}

fn compare(folder: &Path, noise: &Noise) {
    let records = size("BENCH_COMPARE_BYTES", 256 << 20) / PAYLOAD as u64 / BATCH * BATCH;
    let batches = || (0..records).step_by(usize::try_from(BATCH).unwrap());
    // What all of them pay: making the records.
    let making = cost(
        "making",
        records,
        || 0.0,
        || {
            for n in 0..records {
                black_box((noise.meta(n), id(n), fingerprint(n), noise.payload(n)));
            }
        },
    );
    let dir = folder.join("log");
    let own = cost(
        "segment log",
        records,
        || 0.0,
        || {
            let log = open(&dir);
            for first in batches() {
                append(&log, noise, first);
            }
            log.sync().unwrap();
        },
    );
    std::fs::remove_dir_all(&dir).unwrap();
    let plain = fjall(folder, noise, records, "fjall", None);
    let apart = Some(fjall::KvSeparationOptions::default());
    let apart = fjall(folder, noise, records, "fjall with values apart", apart);
    let redis = redis(folder, noise, records);
    let of = |other: f64| (own - making) / (other - making);
    ratio("cpu_per_record_us", own - making, "");
    ratio("cpu_vs_fjall", of(plain.min(apart)), "<=0.35");
    ratio("cpu_vs_redis", of(redis), "");
}

/// The same things in fjall: a record with its summary by id, and ids by fingerprint.
fn fjall(
    folder: &Path,
    noise: &Noise,
    records: u64,
    name: &str,
    apart: Option<fjall::KvSeparationOptions>,
) -> f64 {
    let dir = folder.join("fjall");
    let used = cost(
        name,
        records,
        || 0.0,
        || {
            let db = fjall::Database::builder(&dir).open().unwrap();
            let options = || fjall::KeyspaceCreateOptions::default();
            let items = db.keyspace("records", || options().with_kv_separation(apart));
            let items = items.unwrap();
            let metas = db.keyspace("metas", options).unwrap();
            let prints = db.keyspace("prints", options).unwrap();
            let mut synced = Instant::now();
            for first in (0..records).step_by(usize::try_from(BATCH).unwrap()) {
                let mut batch = db.batch();
                for n in first..first + BATCH {
                    let id = id(n).to_be_bytes();
                    let mut print = fingerprint(n).to_be_bytes().to_vec();
                    print.extend_from_slice(&id);
                    batch.insert(&items, id, noise.payload(n));
                    batch.insert(&metas, id, noise.meta(n));
                    batch.insert(&prints, print, []);
                }
                batch.commit().unwrap();
                if synced.elapsed() >= Duration::from_secs(1) {
                    db.persist(fjall::PersistMode::SyncData).unwrap();
                    synced = Instant::now();
                }
            }
            db.persist(fjall::PersistMode::SyncData).unwrap();
        },
    );
    std::fs::remove_dir_all(&dir).unwrap();
    used
}

/// The same things in Redis, one pipeline for each batch, appended to its file and synced once a second.
fn redis(folder: &Path, noise: &Noise, records: u64) -> f64 {
    let port = free_port();
    let server = Running::start(
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "everysec", "--port", &port.to_string()])
            .arg("--dir")
            .arg(folder),
    );
    listening(port);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut connection = client.get_connection().unwrap();
    cost(
        "redis",
        records,
        || server.cpu(),
        || {
            for first in (0..records).step_by(usize::try_from(BATCH).unwrap()) {
                let mut batch = redis::pipe();
                for n in first..first + BATCH {
                    let id = id(n).to_be_bytes();
                    let print = fingerprint(n).to_be_bytes();
                    batch.cmd("SET").arg(&id).arg(noise.payload(n)).ignore();
                    let mut member = id.to_vec();
                    member.extend_from_slice(&noise.meta(n));
                    batch.cmd("ZADD").arg("all").arg(0).arg(member).ignore();
                    batch.cmd("ZADD").arg(&print).arg(0).arg(&id).ignore();
                }
                batch.exec(&mut connection).unwrap();
            }
        },
    )
}

// ---- alone ------------------------------------------------------------------------------------------------

fn microseconds(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let at = ((times.len() - 1) as f64 * share) as usize;
    times[at].as_secs_f64() * 1e6
}

fn timed(count: u64, mut work: impl FnMut(u64)) -> Vec<Duration> {
    let time = |n| {
        let began = Instant::now();
        work(n);
        began.elapsed()
    };
    (0..count).map(time).collect()
}

fn memory(label: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(label)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

fn alone(folder: &Path, noise: &Noise) {
    let records = size("BENCH_BYTES", 1 << 30) / PAYLOAD as u64 / BATCH * BATCH;
    let dir = folder.join("alone");
    let log = open(&dir);
    append(&log, noise, 0);
    // The most in the second quarter and in the last one: what grows with the records on disk shows.
    let mut peaks = [0.0_f64; 4];
    for first in (BATCH..records).step_by(usize::try_from(BATCH).unwrap()) {
        append(&log, noise, first);
        if first % (BATCH * 16) == 0 {
            let peak = &mut peaks[usize::try_from(first * 4 / records).unwrap()];
            *peak = peak.max(memory("RssAnon:"));
        }
    }
    println!("peaks of anonymous memory, MiB by quarter: {peaks:.1?}");
    ratio("memory_growth_mib", peaks[3] - peaks[1], "<=5");
    drop(log);
    let log = open(&dir);
    let stats = log.stats();
    println!(
        "{records} records in {} files, {} bytes",
        stats.segments, stats.bytes
    );
    let payloads = f64::from(u32::try_from(records).unwrap()) * f64::from(4096);
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    ratio(
        "bytes_on_disk_vs_payload",
        stats.bytes as f64 / payloads,
        "<=1.1",
    );
    reading(&log, noise, records);
    drop(log);
    reopening(&dir);
    let log = open(&dir);
    expiry(&log, noise, records * 2);
    drop(log);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn reading(log: &Log, noise: &Noise, records: u64) {
    let any = |n: u64| mixed(n ^ 0x5555) % records;
    // Once for the page cache, as a store that is used has it.
    for round in 0..2 {
        let mut gets = timed(READS, |n| {
            let found = log.get(KIND, id(any(n))).unwrap().unwrap();
            assert_eq!(found.payload.len(), PAYLOAD);
            black_box(found);
        });
        if round == 1 {
            ratio("get_p50_us", microseconds(&mut gets, 0.5), "<=5");
            ratio("get_p99_us", microseconds(&mut gets, 0.99), "<=25");
        }
    }
    let n = any(7);
    assert_eq!(
        log.get(KIND, id(n)).unwrap().unwrap().payload,
        noise.payload(n)
    );
    let mut finds = timed(READS, |n| {
        let found = log.find(KIND, fingerprint(any(n)), Order::Oldest, usize::MAX);
        assert_eq!(found.len() as u64, ALIKE);
        black_box(found);
    });
    ratio("fingerprint_p50_us", microseconds(&mut finds, 0.5), "<=15");
    ratio("fingerprint_p99_us", microseconds(&mut finds, 0.99), "");
    let mut misses = timed(READS, |n| {
        assert!(
            log.find(KIND, fingerprint(n + records * 4), Order::Oldest, 1)
                .is_empty()
        );
    });
    ratio(
        "fingerprint_miss_p50_us",
        microseconds(&mut misses, 0.5),
        "",
    );
    let mut scans = timed(1000, |_| {
        let mut matching = 0;
        log.scan(KIND, 0..=u128::MAX, Order::Newest, &mut |header| {
            // Every other one.
            matching += u32::from(header.meta[0] % 2 == 0);
            match matching {
                1000 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(matching, 1000);
    });
    ratio(
        "newest_1000_filtered_ms",
        microseconds(&mut scans, 0.5) / 1000.0,
        "<=1",
    );
}

/// Opening what a process left that was killed while it appended.
fn reopening(dir: &Path) {
    let mut times = Vec::new();
    for _ in 0..5 {
        let before = written(dir);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let child = Running::start(command.arg("--append").arg(dir));
        wait("the child to append", || {
            (written(dir) > before + (8 << 20)).then_some(())
        });
        drop(child);
        let began = Instant::now();
        let log = open(dir);
        times.push(began.elapsed());
        drop(log);
    }
    ratio(
        "reopen_after_kill_s",
        microseconds(&mut times, 0.5) / 1e6,
        "<=0.2",
    );
}

fn written(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files
        .map(|file| file.unwrap().metadata().map_or(0, |m| m.len()))
        .sum()
}

/// Commits before and while the oldest files go.
fn expiry(log: &Log, noise: &Noise, first: u64) {
    const COMMITS: u64 = 2000;
    let mut next = first;
    let mut commit = |_| {
        append(log, noise, next);
        next += BATCH;
    };
    let mut before = timed(COMMITS, &mut commit);
    let done = AtomicBool::new(false);
    let kept = log.stats().bytes / 2;
    let mut during = Vec::new();
    let mut gone = 0;
    std::thread::scope(|scope| {
        let retention = scope.spawn(|| {
            let mut gone = 0;
            // A file more at every step, from all there is down to half of it.
            let mut max = log.stats().bytes;
            while !done.load(Ordering::Acquire) {
                let limits = Limits {
                    max_bytes: Some(max),
                    older_than: None,
                };
                gone += log.retain(&limits).unwrap().segments;
                max = max.saturating_sub(64 << 20).max(kept);
                std::thread::sleep(Duration::from_millis(50));
            }
            gone
        });
        during = timed(COMMITS, &mut commit);
        done.store(true, Ordering::Release);
        gone = retention.join().unwrap();
    });
    let p99 = microseconds(&mut before, 0.99);
    let p99_during = microseconds(&mut during, 0.99);
    println!(
        "commit of {BATCH} records: p99 {p99:.0} us, {p99_during:.0} us while {gone} files went"
    );
    assert!(gone > 0);
    ratio("commit_p99_during_expiry", p99_during / p99, "<=1.5");
}
