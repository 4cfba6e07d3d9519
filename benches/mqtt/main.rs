//! The MQTT client against rumqttc and libmosquitto: CPU and throughput of a publisher, and the whole way through
//! Mosquitto.
//!
//! Each contestant runs in a process of its own (this program with other arguments; libmosquitto's is a small C program
//! compiled here, which polls, and in the cases through Mosquitto once more with libmosquitto's own threads), so that its CPU
//! time, user and system, is nobody else's. They alternate within each round, in turns, and every figure is the median of
//! the rounds. Prints each case as it is done, then its lines `RATIO name value target`, each the median of the ratios of
//! the rounds; `cargo bench --bench mqtt`. Needs mosquitto; cc and libmosquitto-dev for the columns of libmosquitto.
//! `BENCH_SECONDS` and `BENCH_ROUNDS` make it longer, `BENCH_ONLY` names a part of the cases (`acknowledging/64B/QoS1`).
//! A rival that delivers nothing in a round is said to, and that round counts in none of its ratios.
//!
//! Towards the broker that only acknowledges, processes that take only what is left over (`SCHED_IDLE`) keep the cores from
//! falling asleep. In a virtual machine a core that slept is woken by the host, which takes some 5 to 10 us of whoever wakes
//! it and of whoever wakes up: more than a batch of messages does. A client that keeps up with the broker sleeps between
//! batches and would pay that, one that is behind all the time would not. `BENCH_HALT=1` leaves the cores alone.
//!
//! What bounds each:
//! - *acknowledging*: a broker that reads, acknowledges in batches and keeps nothing, on a core of its own: the publisher
//!   is the limit. At 64 B and QoS 0 that is the work per message: queue, session, encoding, outcome. At QoS 1 and 2 it is
//!   the window: a hundred messages share a write, a read and a look for events per round trip, of which QoS 2 has two.
//!   At 1 KiB two copies (into the client's buffer, and the kernel's) and the kernel's pages are half of it. At 16 KiB the
//!   kernel's copy, which all three pay and no client can avoid, is nearly all: hence a ratio nearer to 1 there.
//! - *mosquitto*: publisher and subscriber are one process, Mosquitto another, and each has a core: in one thread, all but
//!   libmosquitto's own loops. Mosquitto makes some system calls per message and bounds every client that is not slower than
//!   it: equal throughput is the best there is at QoS 0. Less than that is what a client costs Mosquitto: to wake whoever
//!   sleeps is work of the one that wakes, and so is sending what TCP acknowledges in its place.
//! - *latency*: 1,000 messages a second through Mosquitto, far from any limit: wake-ups of two processes, and Mosquitto.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails where it stands"
)]

#[path = "../support/mod.rs"]
mod support;
mod broker;
mod contest;
mod ours;
mod rumqtt;

use std::collections::BTreeMap;

use contest::{BYTES, Case, Contestant, Figures, Path, Rivals, WINDOW};
use support::{Running, Scratch, median};

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--contestant") => contest::run_as_child(arguments),
        // Cargo passes `--bench`.
        _ => compare(),
    }
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// Mosquitto with room for the window of every contestant, and without Nagle's delays of its own.
fn mosquitto(scratch: &Scratch) -> (Running, u16) {
    let port = support::free_port();
    let path = scratch.path().join("mosquitto.conf");
    let conf = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n\
         max_inflight_messages {WINDOW}\nmax_queued_messages 0\n"
    );
    std::fs::write(&path, conf).unwrap();
    let running = Running::start(std::process::Command::new("mosquitto").arg("-c").arg(&path));
    support::listening(port);
    (running, port)
}

/// Of one case; a round has no figures where nothing was delivered.
type Results = BTreeMap<Contestant, Vec<Option<Figures>>>;

/// One for each core, ended with the benchmark.
fn keep_awake() -> Vec<Running> {
    if std::env::var_os("BENCH_HALT").is_some() {
        return Vec::new();
    }
    let spin = ["--idle", "0", "sh", "-c", "while :; do :; done"];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spinning =
        (0..cores).map(|_| Running::start(std::process::Command::new("chrt").args(spin)));
    spinning.collect()
}

fn compare() {
    let scratch = Scratch::new();
    let rivals = Rivals::prepare(scratch.path());
    let acknowledging = broker::start();
    let (_mosquitto, real) = mosquitto(&scratch);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let cases: Vec<Case> = Case::all()
        .filter(|case| case.to_string().contains(&only))
        .collect();
    assert!(!cases.is_empty(), "no case is called {only}");
    let seconds = number("BENCH_SECONDS", 2);
    let rounds = number("BENCH_ROUNDS", 5);
    for case in cases {
        let port = match case.path {
            Path::Acknowledging => acknowledging,
            Path::Mosquitto | Path::Latency => real,
        };
        let _awake = (case.path == Path::Acknowledging).then(keep_awake);
        let mut results = Results::new();
        for round in 0..rounds {
            for contestant in rivals.in_turn(case, round) {
                let figures = rivals.run(contestant, case, port, seconds);
                if figures.is_none() {
                    println!("NOTHING {contestant} delivered nothing at {case}, round {round}");
                    assert_ne!(contestant, Contestant::Ours, "that is not for us to do");
                }
                results.entry(contestant).or_default().push(figures);
            }
        }
        show(case, &results);
        ratios(case, &rivals, &results);
    }
}

fn show(case: Case, results: &Results) {
    for (contestant, rounds) in results {
        let of = |figure: fn(&Figures) -> f64| rounds.iter().flatten().map(figure).collect();
        let figure = |figure| median(of(figure));
        if rounds.iter().flatten().next().is_none() {
            println!("{case:24} {contestant:20} delivered nothing");
            continue;
        }
        let (rate, cpu) = (figure(|it| it.per_second), figure(|it| it.cpu_us));
        print!("{case:24} {contestant:20} {rate:10.0}/s {cpu:8.3} us CPU");
        if case.path == Path::Latency {
            let (p50, p99) = (figure(|it| it.p50_us), figure(|it| it.p99_us));
            print!(" p50 {p50:6.0} us p99 {p99:6.0} us");
        }
        println!();
    }
}

fn ratios(case: Case, rivals: &Rivals, results: &Results) {
    for rival in rivals.others(case) {
        let ratio = |name: &str, figure: fn(&Figures) -> f64, target: &str| {
            // Per round, so that a busy moment of the machine weighs on both sides of a ratio.
            let rounds = results[&Contestant::Ours].iter().zip(&results[&rival]);
            let mut by_round: Vec<f64> = rounds
                .filter_map(|(ours, theirs)| {
                    Some(figure(ours.as_ref()?) / figure(theirs.as_ref()?))
                })
                .collect();
            by_round.sort_by(f64::total_cmp);
            let (size, qos) = (case.size(), case.qos());
            let name = format!("{name}_vs_{rival}_{size}_{qos}");
            let (Some(&least), Some(&most)) = (by_round.first(), by_round.last()) else {
                println!("RATIO {name} - {target} (no round with both)");
                return;
            };
            let value = median(by_round);
            println!("RATIO {name} {value:.2} {target} (rounds: {least:.2} to {most:.2})");
        };
        match (case.path, rival) {
            (Path::Acknowledging, Contestant::Rumqttc) => {
                let cpu = if case.bytes == BYTES[2] {
                    "<=0.7"
                } else {
                    "<=0.25"
                };
                ratio("cpu", |it| it.cpu_us, cpu);
                let throughput = if case.bytes == BYTES[0] { ">=4" } else { "-" };
                ratio("throughput", |it| it.per_second, throughput);
            }
            (Path::Acknowledging, _) => {
                ratio("cpu", |it| it.cpu_us, "-");
                ratio("throughput", |it| it.per_second, "-");
            }
            (Path::Mosquitto, _) => ratio("through_mosquitto", |it| it.per_second, ">=1"),
            (Path::Latency, _) => ratio("p99", |it| it.p99_us, "<=1"),
        }
    }
}
