//! Runs the parts on the bus again when they end by themselves: a server that refuses one today may let it in tomorrow.
//!
//! Until the part has a connection again `/healthz` says why it ended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::chain;
use super::status::NodeStatus;
use crate::metrics::{Counter, Family, label};
use crate::sync::{self, Publisher, Roles, Station, Subscriber};

/// The first pause before a part runs again; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. Two clients of one name that take the session from each other do so no more often than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A part that ran for so long starts over with the first pause.
const STEADY: Duration = Duration::from_secs(120);

/// A part that runs until it is told to stop, or fails and can be run again.
#[async_trait]
pub(super) trait Part: Send {
    /// What it is called in `/healthz`.
    fn name(&self) -> &'static str;

    async fn run(&mut self, stop: CancellationToken) -> Result<(), sync::Error>;
}

#[async_trait]
impl Part for (Station, Roles) {
    fn name(&self) -> &'static str {
        "control"
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), sync::Error> {
        self.0.run(self.1.clone(), stop).await
    }
}

#[async_trait]
impl Part for Publisher {
    fn name(&self) -> &'static str {
        "publisher"
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), sync::Error> {
        self.run(stop).await
    }
}

#[async_trait]
impl Part for Subscriber {
    fn name(&self) -> &'static str {
        "subscriber"
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), sync::Error> {
        Self::run(self, stop).await
    }
}

/// Runs a part until `stop`, with growing pauses where it fails.
pub(super) async fn keep_running(
    mut part: impl Part,
    status: Arc<NodeStatus>,
    restarts: Family<label::Part, Counter>,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ended = part.run(stop.clone()).await;
        if stop.is_cancelled() {
            if let Err(error) = ended {
                status.failed(part.name(), &chain(&error));
            }
            return;
        }
        let why = ended.map_or_else(
            |error| chain(&error),
            |()| "its connection ended".to_owned(),
        );
        if began.elapsed() >= STEADY {
            pause = FIRST_PAUSE;
        }
        status.failed(part.name(), &why);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        restarts.get_or_create(&part.name().into()).inc();
        tracing::info!(part = part.name(), "a part of the node starts again");
    }
}
