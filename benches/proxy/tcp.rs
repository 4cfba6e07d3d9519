//! TCP connections that download as fast as they can, one after the other: `copy_bidirectional`, the TCP proxy where
//! it copies nothing (the kernel splices), and where it records: one long stream, of which `capture.max_stream_bytes`
//! are kept, and short ones that are kept whole, as far as capture keeps up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::stage::Recorder;
use super::support::{self, Running, Scratch, free_port, median, mosquitto, own};
use super::{bind, number, ratio};

/// Sends for as long as somebody reads, on every connection.
pub(super) fn source() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    support::listens_on(listener.local_addr().unwrap());
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        std::thread::spawn(move || {
            let bytes = vec![b'x'; 256 << 10];
            while socket.write_all(&bytes).is_ok() {}
        });
    }
}

/// The least that a TCP proxy can do.
pub(super) async fn bare(port: String) {
    let (listener, address) = (bind().await, format!("127.0.0.1:{port}"));
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(&address).await.unwrap();
        tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// How long the short streams are, and how many there are of them in a round.
const SHORT: (usize, usize) = (16 << 20, 16);

/// What one proxy did in one round.
struct Measured {
    gib_per_second: f64,
    cpu_per_gib: f64,
}

impl Measured {
    #[allow(clippy::cast_precision_loss, reason = "far under 2^53 bytes")]
    fn of(server: &Running, load: impl FnOnce() -> usize, settle: impl FnOnce()) -> Self {
        let (before, start) = (server.cpu(), Instant::now());
        let gib = load() as f64 / f64::from(1 << 30);
        let took = start.elapsed().as_secs_f64();
        settle();
        Self {
            gib_per_second: gib / took,
            cpu_per_gib: (server.cpu() - before) / gib,
        }
    }
}

/// Reads from a new connection until there was enough; tells how much there was.
fn download(port: u16, mut enough: impl FnMut(usize) -> bool) -> usize {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    while !enough(bytes) {
        let got = socket.read(&mut buffer).unwrap();
        assert!(got > 0, "the connection ended");
        bytes += got;
    }
    bytes
}

fn one_long_stream(port: u16) -> usize {
    let end = Instant::now() + Duration::from_secs(number("BENCH_SECONDS", 6));
    download(port, |_| Instant::now() >= end)
}

fn short_streams(port: u16) -> usize {
    let each = |_| download(port, |bytes| bytes >= SHORT.0);
    (0..SHORT.1).map(each).sum()
}

type Round = [Measured; 4];

pub(super) fn compare(scratch: &Scratch) {
    let folder = scratch.path().join("tcp");
    std::fs::create_dir_all(&folder).unwrap();
    let (_source, source) = own(&folder, "source", &["--source"]);
    let bare = own(&folder, "bare-tcp", &["--bare-tcp", &source.to_string()]);
    let (_mosquitto, broker) = mosquitto(&folder);
    let _player = support::player(&folder, "player", broker, free_port());
    let node = |name, mode| Recorder::tcp(&folder, name, mode, source, broker);
    let (forward, recorder) = (
        node("tcp-forward", "Forward"),
        node("tcp-recorder", "Record"),
    );
    let recording = |load: fn(u16) -> usize| {
        Measured::of(
            &recorder.process,
            || load(recorder.port),
            || {
                recorder.drained();
            },
        )
    };
    let mut rounds: Vec<Round> = Vec::new();
    for at in 0..=number("BENCH_ROUNDS", 5) {
        let round = [
            Measured::of(&bare.0, || one_long_stream(bare.1), || ()),
            Measured::of(&forward.process, || one_long_stream(forward.port), || ()),
            recording(one_long_stream),
            recording(short_streams),
        ];
        // The first one warms up.
        if at > 0 {
            rounds.push(round);
        }
    }
    show(&rounds);
    let status = recorder.status();
    println!(
        "  recorder: captured {} dropped {}",
        status["captured"], status["dropped"]
    );
}

fn show(rounds: &[Round]) {
    println!("tcp");
    let names = [
        "copy_bidirectional",
        "spliced",
        "recording_long",
        "recording_short",
    ];
    for (at, name) in names.into_iter().enumerate() {
        let figure = |figure: fn(&Measured) -> f64| {
            median(rounds.iter().map(|round| figure(&round[at])).collect())
        };
        let (rate, cpu) = (figure(|it| it.gib_per_second), figure(|it| it.cpu_per_gib));
        println!("  {name:<18} {rate:>6.2} GiB/s   {cpu:>6.3} s CPU per GiB");
        if at > 0 {
            let by_round = |figure: fn(&Measured) -> f64| {
                let each = rounds
                    .iter()
                    .map(|round| figure(&round[at]) / figure(&round[0]));
                median(each.collect())
            };
            ratio(
                &format!("tcp_{name}_throughput"),
                by_round(|it| it.gib_per_second),
                "-",
            );
            ratio(
                &format!("tcp_{name}_cpu"),
                by_round(|it| it.cpu_per_gib),
                "-",
            );
        }
    }
}
