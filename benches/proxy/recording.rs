//! What recording costs where everything that passes is stored by a player: throughput, CPU, p99 and memory.

use std::process::Command;

use super::load::{Load, steady, wrk};
use super::peers::LARGE_BYTES;
use super::stage::{Measured, Recorder, nginx};
use super::support::{self, Running, Scratch, ask, free_port, median, mosquitto, own, wait};
use super::{asked, number, ratio};

/// What is asked for at a fixed rate: about an eighth of what two cores can do.
const STEADY: u64 = 4_800;

struct Setup<'a> {
    scratch: &'a Scratch,
    origin: u16,
    bare: (Running, u16),
    nginx: (Running, u16),
    broker: (Running, u16),
    player: Running,
    player_api: u16,
    forward: Recorder,
    recorder: Recorder,
    _origin: Running,
}

impl<'a> Setup<'a> {
    fn new(scratch: &'a Scratch) -> Self {
        let folder = scratch.path();
        let (running, origin) = own(folder, "origin", &["--origin"]);
        let bare = own(folder, "bare", &["--bare-http1", &origin.to_string()]);
        let nginx = nginx(folder, origin);
        let broker = mosquitto(folder);
        let player_api = free_port();
        let player = support::player(folder, "player", broker.1, player_api);
        let start = |name, mode| Recorder::http(folder, name, mode, origin, broker.1, None);
        Self {
            forward: start("forward", "Forward"),
            recorder: start("recorder", "Record"),
            origin,
            bare,
            nginx,
            broker,
            player,
            player_api,
            _origin: running,
            scratch,
        }
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

fn saturate(port: u16) -> Load {
    wrk(&local(port))
}

struct Round {
    bare: Measured,
    nginx: Measured,
    forward: Measured,
    recording: Measured,
    player_us: f64,
    broker_us: f64,
    rss_mib: f64,
}

impl Round {
    fn run(setup: &Setup<'_>, load: impl Fn(u16) -> Load) -> Self {
        let Setup {
            bare,
            nginx,
            forward,
            recorder,
            ..
        } = setup;
        let bare = Measured::of(&bare.0, || load(bare.1), || ());
        let nginx = Measured::of(&nginx.0, || load(nginx.1), || ());
        let forward = Measured::of(&forward.process, || load(forward.port), || ());
        let (player, broker) = (setup.player.cpu(), setup.broker.0.cpu());
        let before = recorder.captured();
        let recording = Measured::of(
            &recorder.process,
            || load(recorder.port),
            || {
                recorder.drained();
            },
        );
        let exchanges = recorder.captured() - before;
        Self {
            bare,
            nginx,
            forward,
            recording,
            player_us: (setup.player.cpu() - player) / exchanges * 1e6,
            broker_us: (setup.broker.0.cpu() - broker) / exchanges * 1e6,
            rss_mib: recorder.process.rss_mib(),
        }
    }

    fn show(&self, what: &str) {
        println!("{what}");
        self.bare.show("bare hyper");
        self.nginx.show("nginx");
        self.forward.show("forwarding");
        self.recording.show("recording");
        let Self {
            player_us,
            broker_us,
            rss_mib,
            ..
        } = self;
        println!(
            "  player {player_us:.1} us, broker {broker_us:.1} us per exchange; recorder {rss_mib:.0} MiB"
        );
    }
}

/// The median over the rounds.
fn middle(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(of).collect())
}

/// A name for `BENCH_ONLY`, and what is measured.
type Part = (&'static str, fn(&Setup<'_>));

pub(super) fn compare(scratch: &Scratch) {
    let setup = Setup::new(scratch);
    // Nobody is measured while its connections are made and its first pages touched.
    for port in [
        setup.bare.1,
        setup.nginx.1,
        setup.forward.port,
        setup.recorder.port,
    ] {
        saturate(port);
    }
    setup.recorder.drained();
    let parts: [Part; 4] = [
        ("saturated", saturated),
        ("steady", at_a_fixed_rate),
        ("broker_away", broker_away),
        ("large_body", large_body),
    ];
    for (name, part) in parts {
        if asked("recording", name) {
            part(&setup);
            ledgers(&setup);
        }
    }
}

fn saturated(setup: &Setup<'_>) {
    let mut rounds = Vec::new();
    for at in 1..=number("BENCH_ROUNDS", 5) {
        let round = Round::run(setup, saturate);
        round.show(&format!("saturated, round {at}"));
        rounds.push(round);
    }
    let figure = |of: &dyn Fn(&Round) -> f64| middle(&rounds, of);
    ratio(
        "recording_throughput_vs_bare_hyper",
        figure(&|r| r.recording.per_second / r.bare.per_second),
        ">=0.5",
    );
    ratio(
        "forwarding_cpu_vs_bare_hyper",
        figure(&|r| r.forward.cpu_us / r.bare.cpu_us),
        "-",
    );
    ratio(
        "recorder_cpu_vs_bare_hyper",
        figure(&|r| r.recording.cpu_us / r.bare.cpu_us),
        "<=1.6",
    );
    ratio(
        "recording_p99_vs_nginx",
        figure(&|r| r.recording.p99_ms / r.nginx.p99_ms),
        "<=1.25",
    );
    ratio(
        "recording_p99_vs_forwarding",
        figure(&|r| r.recording.p99_ms / r.forward.p99_ms),
        "-",
    );
    ratio(
        "recording_exchanges_per_second",
        figure(&|r| r.recording.per_second),
        "-",
    );
    ratio("recorder_rss_mib", figure(&|r| r.rss_mib), "<=100");
    let growth = rounds.last().unwrap().rss_mib - rounds[0].rss_mib;
    ratio("recorder_rss_growth_mib", growth, "<=5");
}

/// What recording adds to each request where no core is full.
fn at_a_fixed_rate(setup: &Setup<'_>) {
    let load = |port: u16| steady(setup.scratch.path(), &local(port), STEADY);
    let mut rounds = Vec::new();
    for at in 1..=number("BENCH_ROUNDS", 5) {
        let round = Round::run(setup, load);
        round.show(&format!("{STEADY} a second, round {at}"));
        rounds.push(round);
    }
    for (name, of) in [
        ("bare_hyper", (|r| r.bare.p99_ms) as fn(&Round) -> f64),
        ("nginx", |r| r.nginx.p99_ms),
        ("forwarding", |r| r.forward.p99_ms),
    ] {
        let value = middle(&rounds, |round| round.recording.p99_ms / of(round));
        ratio(&format!("steady_recording_p99_vs_{name}"), value, "-");
    }
    let cpu = middle(&rounds, |round| round.recording.cpu_us / round.bare.cpu_us);
    ratio("steady_recorder_cpu_vs_bare_hyper", cpu, "-");
}

/// Both ends' books: nothing may be dropped, missing or lost.
fn ledgers(setup: &Setup<'_>) {
    let recorder = setup.recorder.status();
    println!(
        "recorder: captured {} dropped {}",
        recorder["captured"], recorder["dropped"]
    );
    // The player looks at its ledger several times a second.
    let all = wait("the player's ledger", || {
        let status = ask(setup.player_api, "/api/status");
        let lives = status["ledger"]["player"]["recorders"].as_array()?.clone();
        let highest = |life: &serde_json::Value| life["watermark"] == recorder["captured"];
        lives.iter().any(highest).then_some(lives)
    });
    for life in all {
        println!(
            "player:   stored {} dropped {} missing {} lost {}",
            life["stored"], life["dropped"], life["missing"], life["lost"]
        );
    }
}

/// A broker that stands still: traffic goes on as before, the spool grows, and drains when it is back.
fn broker_away(setup: &Setup<'_>) {
    let recorder = &setup.recorder;
    let forward = saturate(setup.forward.port);
    let there = saturate(recorder.port);
    recorder.drained();
    setup.broker.0.signal("STOP");
    let away = saturate(recorder.port);
    let status = recorder.status();
    let rss = recorder.process.rss_mib();
    setup.broker.0.signal("CONT");
    let took = recorder.drained().as_secs_f64();
    println!(
        "broker stopped: {:.0}/s p99 {:.2} ms (broker there: {:.0}/s p99 {:.2} ms; forwarding: {:.0}/s p99 {:.2} ms)",
        away.per_second,
        away.p99_ms,
        there.per_second,
        there.p99_ms,
        forward.per_second,
        forward.p99_ms
    );
    println!(
        "broker stopped: {} of {} unsent, player lag {}, spool {:.0} MiB, recorder {rss:.0} MiB; drained in {took:.1} s",
        status["unsent"],
        status["captured"],
        status["players"][0]["lag"],
        status["spool_bytes"].as_f64().unwrap_or(0.0) / 1048576.0,
    );
    let kept = away.per_second / there.per_second;
    ratio("throughput_broker_stopped_vs_there", kept, ">=1.0");
    ratio("recorder_rss_broker_stopped_mib", rss, "<=100");
}

/// A gigabyte through a recorder that has just started.
fn large_body(setup: &Setup<'_>) {
    let (folder, broker) = (setup.scratch.path(), setup.broker.1);
    let recorder = Recorder::http(folder, "large", "Record", setup.origin, broker, None);
    let get = |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", recorder.port);
        let arguments = [
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download} %{time_total}",
        ];
        let output = Command::new("curl")
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    get("/");
    recorder.drained();
    let before = recorder.process.rss_mib();
    recorder.process.forget_peak();
    let got = get("/large");
    let peak = recorder.process.peak_mib();
    assert!(got.starts_with(&LARGE_BYTES.to_string()), "{got}");
    recorder.drained();
    println!(
        "a body of 1 GiB: bytes and seconds {got}; recorder {before:.0} MiB before, {peak:.0} MiB at most"
    );
    ratio("large_body_adds_mib", peak - before, "<=20");
    println!("recorder: {}", recorder.status());
}
