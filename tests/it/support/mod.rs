//! What tests share: real servers and clients as processes, and waiting without sleeping blindly.

pub mod broker;
pub mod certificates;
pub mod curl;
pub mod databases;
pub mod httpbin;
pub mod httpbin_requests;
pub mod mosquitto;
pub mod mqtt_peer;
pub mod nats;
pub mod tunnel;
pub mod node;
pub mod numbered;
pub mod process;
pub mod rabbitmq;
pub mod relay;
#[allow(
    dead_code,
    reason = "the store's unit tests use the same file, and more of it"
)]
pub mod redis;
pub mod supervised;

use std::future::Future;
use std::time::{Duration, Instant};

/// Longest wait for what must happen, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Tests that fill the machine take turns: what one of them counts, the load of another would change.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether the long forms of tests were asked for, with `QPROXY_LONG=1`: minutes, gigabytes.
pub fn long_run() -> bool {
    std::env::var_os("QPROXY_LONG").is_some_and(|value| value == "1")
}

/// Polls until `holds` says so; panics with `what` after [`PATIENCE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let polling = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, polling).await;
    assert!(result.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// Awaits a future, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// [`eventually`] for tests of processes, which need no runtime: polls `check` until it gives a value.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago, for a server that must come back on the same one.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// As [`free_port`], below the range that connections take theirs from: for a server that needs seconds to bind it.
pub fn quiet_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    until("a port is free", || {
        let random = RandomState::new().hash_one(0) % 20_000;
        let port = 10_000 + u16::try_from(random).unwrap();
        std::net::TcpListener::bind(("127.0.0.1", port))
            .ok()
            .map(|_| port)
    })
}
