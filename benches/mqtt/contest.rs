//! What is measured, by whom, and how a contestant's process hands its figures over: one line of numbers.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::{ours, rumqtt};

/// Publishes in flight, for everybody.
pub(crate) const WINDOW: u16 = 100;
/// Published and not yet received, on the way through Mosquitto: enough to keep all three busy, few enough for
/// nobody to drop.
pub(crate) const UNDER_WAY: usize = 1000;
/// Sizes of payloads.
pub(crate) const BYTES: [usize; 3] = [64, 1024, 16 << 10];
/// Messages a second where latency is measured.
pub(crate) const PACE: u64 = 1000;
/// Before the measurement starts.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// Publisher alone, towards a broker that only acknowledges.
    Acknowledging,
    /// Publisher and subscriber, through Mosquitto.
    Mosquitto,
    /// The same at a fixed pace.
    Latency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) path: Path,
    pub(crate) bytes: usize,
    pub(crate) qos: u8,
}

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let paths = [Path::Acknowledging, Path::Mosquitto, Path::Latency].into_iter();
        paths.flat_map(|path| {
            let sizes = BYTES
                .into_iter()
                .filter(move |&bytes| path != Path::Latency || bytes == BYTES[0]);
            sizes.flat_map(move |bytes| (0..=2).map(move |qos| Self { path, bytes, qos }))
        })
    }

    pub(crate) fn size(self) -> String {
        if self.bytes < 1024 {
            format!("{}B", self.bytes)
        } else {
            format!("{}KiB", self.bytes >> 10)
        }
    }

    pub(crate) fn qos(self) -> String {
        format!("QoS{}", self.qos)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path {
            Path::Acknowledging => "acknowledging",
            Path::Mosquitto => "mosquitto",
            Path::Latency => "latency",
        };
        formatter.pad(&format!("{path}/{}/{}", self.size(), self.qos()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contestant {
    Ours,
    Rumqttc,
    /// Polled by the program.
    Libmosquitto,
    /// With its own threads.
    Threaded,
}

impl fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ours => "qproxy-mqtt",
            Self::Rumqttc => "rumqttc",
            Self::Libmosquitto => "libmosquitto",
            Self::Threaded => "libmosquitto-threads",
        })
    }
}

/// What one run found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    /// Of the contestant's process, per message.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Figures {
    /// Messages, seconds, seconds of CPU, p50 and p99 in microseconds: what each contestant prints. Nothing where there
    /// were no messages.
    fn parse(line: &str) -> Option<Self> {
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map(|it| it.parse().unwrap())
            .collect();
        let [messages, seconds, cpu, p50_us, p99_us] = numbers[..] else {
            panic!("a contestant printed {line:?}");
        };
        (messages > 0.0).then(|| Self {
            per_second: messages / seconds,
            cpu_us: cpu * 1e6 / messages,
            p50_us,
            p99_us,
        })
    }
}

/// Who can take part on this machine.
pub(crate) struct Rivals {
    libmosquitto: Option<PathBuf>,
}

impl Rivals {
    /// Compiles libmosquitto's program; says so where that fails.
    pub(crate) fn prepare(folder: &FilePath) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mqtt/libmosquitto.c");
        let program = folder.join("libmosquitto");
        let compiled = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .args([source, "-lmosquitto"])
            .stderr(Stdio::piped())
            .output();
        let why = match compiled {
            Ok(output) if output.status.success() => {
                return Self {
                    libmosquitto: Some(program),
                };
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("MISSING the column of libmosquitto: cc and libmosquitto-dev are needed: {why}");
        Self { libmosquitto: None }
    }

    /// Those we are compared with at a case. Whoever only publishes polls, for a second thread would only take from it.
    pub(crate) fn others(&self, case: Case) -> impl Iterator<Item = Contestant> {
        let polled = self.libmosquitto.as_ref().map(|_| Contestant::Libmosquitto);
        let threaded = self.libmosquitto.as_ref().map(|_| Contestant::Threaded);
        let threaded = threaded.filter(|_| case.path != Path::Acknowledging);
        std::iter::once(Contestant::Rumqttc)
            .chain(polled)
            .chain(threaded)
    }

    /// Another one begins in each round.
    pub(crate) fn in_turn(&self, case: Case, round: u64) -> Vec<Contestant> {
        let mut all: Vec<_> = std::iter::once(Contestant::Ours)
            .chain(self.others(case))
            .collect();
        let first = usize::try_from(round).unwrap() % all.len();
        all.rotate_left(first);
        all
    }

    /// Nothing where the contestant delivered nothing.
    pub(crate) fn run(
        &self,
        contestant: Contestant,
        case: Case,
        port: u16,
        seconds: u64,
    ) -> Option<Figures> {
        let own = std::env::current_exe().unwrap();
        let mut command = match (contestant, &self.libmosquitto) {
            (Contestant::Libmosquitto | Contestant::Threaded, Some(program)) => {
                let polled = contestant == Contestant::Libmosquitto;
                let mut command = Command::new(program);
                command.arg(if polled { "polled" } else { "threads" });
                command
            }
            _ => {
                let mut command = Command::new(own);
                command.args(["--contestant", &contestant.to_string()]);
                command
            }
        };
        let path = match case.path {
            Path::Acknowledging => "publish",
            Path::Mosquitto => "through",
            Path::Latency => "paced",
        };
        command.arg(path);
        let numbers = [
            u64::from(port),
            case.bytes as u64,
            u64::from(case.qos),
            seconds,
        ];
        let output = command
            .args(numbers.map(|number| number.to_string()))
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{contestant} failed at {case}");
        Figures::parse(&String::from_utf8_lossy(&output.stdout))
    }
}

/// What a contestant's process counts while it works.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: AtomicU64,
    /// In nanoseconds; only where they are asked for.
    pub(crate) latencies: std::sync::Mutex<Vec<u64>>,
}

impl Tally {
    pub(crate) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// Ticks at the pace. Of the kernel, as tokio's own timers go by milliseconds: rounded up, they would fall behind and then
/// tick twice at once.
pub(crate) struct Pacer(AsyncFd<OwnedFd>);

impl Pacer {
    pub(crate) fn new() -> Self {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).unwrap();
        let period = Timespec {
            tv_sec: 0,
            tv_nsec: i64::try_from(1_000_000_000 / PACE).unwrap(),
        };
        let setting = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting).unwrap();
        // SAFETY: an `OwnedFd` gives the same descriptor for as long as it lives.
        #[allow(
            unsafe_code,
            reason = "there is no safe way to wait for a timer of the kernel"
        )]
        let timer = unsafe { AsyncFd::register(timer) };
        Self(timer.unwrap())
    }

    /// How often it has ticked since; waits until it has.
    pub(crate) async fn ticks(&self) -> u64 {
        loop {
            let mut ready = self.0.readable().await.unwrap();
            let mut ticks = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut ticks)?));
            if let Ok(read) = read {
                read.unwrap();
                // What it read is all there was.
                ready.clear_ready();
                return u64::from_ne_bytes(ticks);
            }
        }
    }
}

/// The stamp in the first eight bytes of a paced message, in nanoseconds of this process.
pub(crate) fn stamp() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

pub(crate) fn latency(payload: &[u8]) -> u64 {
    stamp() - u64::from_le_bytes(payload[..8].try_into().unwrap())
}

#[allow(clippy::cast_precision_loss, reason = "two weeks of nanoseconds fit")]
fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// The life of a contestant written in Rust: starts the work, lets it get warm, measures, and ends the process.
pub(crate) fn run_as_child(mut arguments: impl Iterator<Item = String>) {
    let contestant = arguments.next().unwrap();
    let path = match arguments.next().unwrap().as_str() {
        "publish" => Path::Acknowledging,
        "through" => Path::Mosquitto,
        _ => Path::Latency,
    };
    let numbers: Vec<u64> = arguments.map(|text| text.parse().unwrap()).collect();
    let [port, bytes, qos, seconds] = numbers[..] else {
        panic!("{numbers:?}")
    };
    let case = Case {
        path,
        bytes: bytes.try_into().unwrap(),
        qos: qos.try_into().unwrap(),
    };
    let port = port.try_into().unwrap();
    let tally: &'static Tally = Box::leak(Box::default());
    // A publisher alone as `#[tokio::main]` makes it. The way through Mosquitto in one thread, as the polled libmosquitto
    // is, for Mosquitto needs the other core.
    let mut builder = match path {
        Path::Acknowledging => tokio::runtime::Builder::new_multi_thread(),
        Path::Mosquitto | Path::Latency => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        if contestant == Contestant::Ours.to_string() {
            ours::start(case, port, tally).await;
        } else {
            rumqtt::start(case, port, tally).await;
        }
        tokio::time::sleep(WARM_UP).await;
        tally.latencies.lock().unwrap().clear();
        let (started, cpu, done) = (
            Instant::now(),
            cpu_seconds(),
            tally.done.load(Ordering::Relaxed),
        );
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let messages = tally.done.load(Ordering::Relaxed) - done;
        let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let mut latencies = std::mem::take(&mut *tally.latencies.lock().unwrap());
        latencies.sort_unstable();
        #[allow(clippy::cast_precision_loss, reason = "latencies are short")]
        let at = |share: usize| {
            latencies
                .get(latencies.len() * share / 100)
                .map_or(0.0, |&ns| ns as f64 / 1000.0)
        };
        println!("{messages} {elapsed} {cpu} {} {}", at(50), at(99));
    });
    // The work has no end of its own.
    std::process::exit(0);
}
