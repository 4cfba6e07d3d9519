//! Each protocol through a bare proxy, through QProxy without capture, and with it: throughput and CPU.

use std::path::Path;

use super::load::{Load, h2load, wrk};
use super::stage::{Measured, Recorder};
use super::support::{self, Running, Scratch, free_port, median, mosquitto, own};
use super::{asked, number, ratio};

/// A kind of traffic.
struct Case {
    name: &'static str,
    /// Which of the bare proxies takes it.
    bare: &'static str,
    scheme: &'static str,
    path: &'static str,
    load: fn(&str) -> Load,
}

const CASES: [Case; 6] = [
    Case {
        name: "http1_1KiB",
        bare: "--bare-http1",
        scheme: "http",
        path: "/",
        load: wrk,
    },
    Case {
        name: "http1_64KiB",
        bare: "--bare-http1",
        scheme: "http",
        path: "/64KiB",
        load: wrk,
    },
    Case {
        name: "http1_1MiB",
        bare: "--bare-http1",
        scheme: "http",
        path: "/1MiB",
        load: wrk,
    },
    Case {
        name: "h2c_1KiB",
        bare: "--bare-http2",
        scheme: "http",
        path: "/",
        load: h2load,
    },
    Case {
        name: "h2_tls_1KiB",
        bare: "--bare-tls",
        scheme: "https",
        path: "/",
        load: h2load,
    },
    Case {
        name: "http1_tls_1KiB",
        bare: "--bare-tls",
        scheme: "https",
        path: "/",
        load: wrk,
    },
];

/// What takes part in a case.
struct Contest {
    bare: (Running, u16),
    forward: Recorder,
    recorder: Recorder,
}

struct Round {
    bare: Measured,
    forward: Measured,
    recording: Measured,
}

pub(super) fn compare(scratch: &Scratch) {
    let folder = scratch.path().join("passing");
    std::fs::create_dir_all(&folder).unwrap();
    let (_origin, origin) = own(&folder, "origin", &["--origin"]);
    let (_mosquitto, broker) = mosquitto(&folder);
    let _player = support::player(&folder, "player", broker, free_port());
    for case in CASES.iter().filter(|case| asked("passing", case.name)) {
        let contest = Contest::new(case, &folder, origin, broker);
        contest.round(case);
        let rounds: Vec<Round> = (0..number("BENCH_ROUNDS", 5))
            .map(|_| contest.round(case))
            .collect();
        case.show(&rounds);
        println!(
            "  recorder: captured {} dropped {}",
            contest.recorder.status()["captured"],
            contest.recorder.status()["dropped"]
        );
    }
}

impl Contest {
    fn new(case: &Case, folder: &Path, origin: u16, broker: u16) -> Self {
        let tls = (case.scheme == "https").then_some(folder);
        let port = origin.to_string();
        // A bare proxy reads the files that the first node makes.
        let node = |mode: &str| {
            let name = format!("{}-{mode}", case.name);
            Recorder::http(folder, &name, mode, origin, broker, tls)
        };
        let (forward, recorder) = (node("Forward"), node("Record"));
        let arguments = [case.bare, &port, folder.to_str().unwrap()];
        let bare = own(folder, &format!("{}-bare", case.name), &arguments);
        Self {
            bare,
            forward,
            recorder,
        }
    }

    fn round(&self, case: &Case) -> Round {
        let load = |port: u16| {
            let url = format!("{}://127.0.0.1:{port}{}", case.scheme, case.path);
            move || (case.load)(&url)
        };
        Round {
            bare: Measured::of(&self.bare.0, load(self.bare.1), || ()),
            forward: Measured::of(&self.forward.process, load(self.forward.port), || ()),
            recording: Measured::of(&self.recorder.process, load(self.recorder.port), || {
                self.recorder.drained();
            }),
        }
    }
}

impl Case {
    fn show(&self, rounds: &[Round]) {
        println!("passing {}", self.name);
        let middle = |of: fn(&Round) -> &Measured| {
            let figure = |figure: fn(&Measured) -> f64| {
                median(rounds.iter().map(|round| figure(of(round))).collect())
            };
            Measured {
                per_second: figure(|it| it.per_second),
                p99_ms: figure(|it| it.p99_ms),
                cpu_us: figure(|it| it.cpu_us),
            }
        };
        middle(|round| &round.bare).show("bare hyper");
        middle(|round| &round.forward).show("forwarding");
        middle(|round| &round.recording).show("recording");
        for (who, of) in [
            (
                "forwarding",
                (|round| &round.forward) as fn(&Round) -> &Measured,
            ),
            ("recording", |round| &round.recording),
        ] {
            let by_round = |figure: fn(&Measured) -> f64| {
                let each = rounds
                    .iter()
                    .map(|round| figure(of(round)) / figure(&round.bare));
                median(each.collect())
            };
            ratio(
                &format!("{who}_throughput_{}", self.name),
                by_round(|it| it.per_second),
                "-",
            );
            ratio(
                &format!("{who}_cpu_{}", self.name),
                by_round(|it| it.cpu_us),
                "-",
            );
        }
    }
}
