//! The proxies on real sockets: what passes, what is refused, what is recorded, and how they end.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test says by a panic that it failed"
)]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/http2.rs"]
mod http2_support;

mod bodies;
mod crowds;
mod edge;
mod failures;
mod framing;
mod http;
mod http2;
mod interim;
mod lifecycle;
mod limits;
mod routes;
mod slow;
mod storm;
mod tcp;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qproxy::capture::Capture;
use qproxy::proxy::{Metrics, Running, http as http_proxy};
use qproxy::service_discovery::Pool;

use origin::{Kept, Peer};

/// Any free port of this machine.
fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// An HTTP proxy under test with its records.
struct Proxy {
    running: Running,
    kept: Kept,
    capture: Capture,
}

impl Proxy {
    fn start(pool: Arc<Pool>) -> Self {
        Self::with(pool, |_| {})
    }

    fn with(pool: Arc<Pool>, change: impl FnOnce(&mut http_proxy::Config)) -> Self {
        let (capture, kept) = origin::capture();
        let mut config = http_proxy::Config::new(local(), "shop");
        config.head_timeout = Duration::from_secs(30);
        change(&mut config);
        let bound = http_proxy::bind(config, pool, capture.clone(), Metrics::default()).unwrap();
        Self {
            running: bound.serve(),
            kept,
            capture,
        }
    }

    async fn client(&self) -> Peer {
        Peer::connect(self.running.local_addr()).await
    }
}
