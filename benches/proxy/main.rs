//! What passing and recording cost, against a bare hyper reverse proxy, nginx and a bare `copy_bidirectional` in
//! the same run.
//!
//! Three parts, each with the others' servers asleep:
//! - *recording*: HTTP/1.1 keep-alive, 1 KiB answers, 32 connections, every exchange stored by a player in another
//!   process over Mosquitto at QoS 1; then at a fixed rate, with the broker stopped, and a body of 1 GiB.
//! - *passing*: each protocol with capture off and on: HTTP/1.1 with 1 KiB, 64 KiB and 1 MiB, HTTP/2 with prior
//!   knowledge and under TLS, HTTP/1.1 under TLS.
//! - *tcp*: throughput of one connection, spliced, and copied with a record.
//!
//! Load, origin, broker and player share the machine's cores with the proxy under test, as they do in every
//! figure here. Prints lines `RATIO name value target`; `cargo bench --bench proxy`. Needs wrk, h2load, nginx,
//! mosquitto and curl. Rounds alternate, so that a busy machine is as hard on one as on the other. `BENCH_ROUNDS`
//! and `BENCH_SECONDS` make it longer, `BENCH_ONLY` names a part of the cases (`passing/h2`).
//!
//! What bounds it: with two cores the throughput of the recording proxy is that of everything on the way to
//! the player's disk; the CPU per exchange of the recorder alone is the fairer figure for larger machines.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails where it stands"
)]

#[path = "../support/mod.rs"]
mod support;
mod peers;
mod load;
mod stage;
mod recording;
mod passing;
mod tcp;

use std::net::SocketAddr;

use support::Scratch;

/// The allocator of `qproxy`, so that the bare proxy is not measured with a slower one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("an argument of a child");
    // Cargo passes `--bench`.
    match next().as_str() {
        "--origin" => serve(peers::origin()),
        "--bare-http1" => serve(peers::bare_http1(next())),
        "--bare-http2" => serve(peers::bare_http2(next())),
        "--bare-tls" => serve(peers::bare_tls(next(), next().into())),
        "--source" => tcp::source(),
        "--bare-tcp" => serve(tcp::bare(next())),
        _ => compare(),
    }
}

fn serve(server: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(server);
}

/// A name for `BENCH_ONLY`, and what is measured.
type Part = (&'static str, fn(&Scratch));

fn compare() {
    let scratch = Scratch::new();
    let parts: [Part; 3] = [
        ("recording", recording::compare),
        ("passing", passing::compare),
        ("tcp", tcp::compare),
    ];
    let only = only();
    let wanted = only.split('/').next().unwrap_or_default();
    let mut chosen = parts
        .iter()
        .filter(|(name, _)| name.starts_with(wanted))
        .peekable();
    assert!(chosen.peek().is_some(), "no part is called {wanted}");
    chosen.for_each(|(_, part)| part(&scratch));
}

/// What `BENCH_ONLY` says: a part, and after a slash how its cases begin.
fn only() -> String {
    std::env::var("BENCH_ONLY").unwrap_or_default()
}

/// Whether a case of a part was asked for.
fn asked(part: &str, case: &str) -> bool {
    format!("{part}/{case}").starts_with(&only())
}

/// A number from the environment, for longer or shorter runs.
fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

fn ratio(name: &str, value: f64, target: &str) {
    println!("RATIO {name} {value:.2} {target}");
}

async fn bind() -> tokio::net::TcpListener {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    support::listens_on(listener.local_addr().unwrap());
    listener
}
