//! What the tests share: real servers and clients as processes, and waiting without sleeping blindly.

pub mod curl;
pub mod httpbin;
pub mod node;
pub mod numbered;
pub mod process;

use std::time::{Duration, Instant};

/// How long a test waits for what must happen, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `check` until it gives a value; panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago, for a server that must come back on the same one.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
