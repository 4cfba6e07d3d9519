//! Replays records as they arrive against a local target.
//!
//! Arrivals never wait: a full queue drops the copy for replay (the record itself is stored all the same) and
//! counts it. Where the target is down, the record answers in its place, and a connection is tried at most
//! once in each interval.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::generations::Generations;
use super::replay::{Circuit, Context, Lanes};
use super::report::{Report, Totals};
use super::{Error, Metrics, ReplayConfig, ResultSink, RunId, RunState, Sending};
use crate::record::{Record, RecordId};
use crate::store::Store;

/// How many ids are remembered, so that a record that arrives twice is not sent twice.
const REMEMBERED: usize = 100_000;
/// How long they are.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// How arriving records are replayed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where they go and what is compared.
    pub sending: Sending,
    /// How many arrivals may wait.
    pub queue: usize,
    /// How often a target that is down is tried.
    pub retry_every: Duration,
    /// How long to wait for the chunks of a large body, which may arrive after their record.
    pub chunk_patience: Duration,
}

impl Config {
    /// Sends to the target that `sending` names, all else by default.
    #[must_use]
    pub const fn new(sending: Sending) -> Self {
        Self {
            sending,
            queue: 1000,
            retry_every: Duration::from_secs(1),
            chunk_patience: Duration::from_secs(2),
        }
    }

    /// Looks whether [`Live`] could start with it.
    ///
    /// # Errors
    /// As for [`Live::start`].
    pub fn check(&self, replay: &ReplayConfig) -> Result<(), Error> {
        replay.way_to(&self.sending.target).map(drop)
    }
}

/// A replay that lasts as long as the node does.
pub struct Live {
    context: Arc<Context>,
    arrivals: mpsc::Sender<Arc<Record>>,
    seen: Mutex<Generations<RecordId, ()>>,
    driver: JoinHandle<()>,
    metrics: Metrics,
}

impl Live {
    /// Starts; needs a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Refused`] where the target is not allowed, [`Error::Tls`] or [`Error::Setting`] where it
    /// cannot be set up.
    pub fn start(
        store: Arc<dyn Store>,
        config: Config,
        replay: &ReplayConfig,
        sink: Arc<dyn ResultSink>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let context = Context::new(store, replay, config.sending, sink, metrics.clone())?
            .live(Circuit::new(config.retry_every), config.chunk_patience);
        let context = Arc::new(context);
        let (arrivals, queue) = mpsc::channel(config.queue.max(1));
        let driver = tokio::spawn(drive(Lanes::new(context.clone()), queue));
        Ok(Self {
            context,
            arrivals,
            seen: Mutex::new(Generations::new(REMEMBERED, REMEMBERED_FOR)),
            driver,
            metrics,
        })
    }

    /// The name under which results are published.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.context.run
    }

    /// Hands over a record that has arrived; never waits.
    pub fn offer(&self, record: Arc<Record>) {
        let (id, now) = (record.id(), Instant::now());
        if self.seen.lock().touch(id, now).is_some() {
            return Metrics::count(&self.metrics.live_dropped, "duplicate");
        }
        match self.arrivals.try_send(record) {
            Ok(()) => {
                self.seen.lock().put(id, (), now);
            }
            Err(_) => Metrics::count(&self.metrics.live_dropped, "queue_full"),
        }
    }

    /// What came of the records so far, in numbers.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.context.totals()
    }

    /// What came of the records so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.context.report(RunState::Running, None)
    }

    /// Stops: what waits is dropped, what is on its way is given up.
    pub async fn stop(self) {
        self.context.cancel.cancel();
        drop(self.arrivals);
        if let Err(error) = self.driver.await {
            tracing::error!(%error, "live replay ended abnormally");
        }
    }
}

async fn drive(mut lanes: Lanes, mut queue: mpsc::Receiver<Arc<Record>>) {
    while let Some(room) = lanes.room().await {
        let Some(record) = queue.recv().await else {
            break;
        };
        lanes.dispatch(record, room).await;
    }
    lanes.drain().await;
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("run", &self.context.run)
            .finish_non_exhaustive()
    }
}
