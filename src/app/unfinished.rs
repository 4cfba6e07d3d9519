//! Records of which a piece is missing: watched from their arrival on, so that they can be counted without a scan.
//!
//! Pieces usually arrive before their record, so a record is looked at once when it is stored and then forgotten;
//! only what lacks something is kept here and looked at again. How many that may be is limited. After a
//! restart the newest records are looked at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Counter, Gauge, Registry};
use crate::record::{Record, RecordId};
use crate::store::{Error, Order, Pieces, Query, Store, all_there, pieces_of};
use crate::sync::{Feed, Heard};

/// How many records are watched; of more the oldest is forgotten, and counted.
const MAX_WATCHED: usize = 10_000;
/// How often they are looked at, and how many at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LOOK_AT: usize = 1000;
/// How many of the newest records are looked at when the node starts.
const NEWEST: usize = 1000;

/// How many records lack a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lacking {
    /// One that may yet arrive.
    pub(super) pending: u64,
    /// One that is late.
    pub(super) incomplete: u64,
}

/// What is counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    pending: Gauge,
    incomplete: Gauge,
    unwatched: Counter,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Stored records of which a piece is missing that may yet arrive";
        registry.add("store_records_pending", help, &self.pending);
        let help = "Stored records of which a piece is missing and late";
        registry.add("store_records_incomplete", help, &self.incomplete);
        let help = "Stored records of which a piece is missing, beyond as many as are watched";
        registry.add("store_records_unwatched", help, &self.unwatched);
    }
}

struct Watched {
    id: RecordId,
    pieces: Vec<(Pieces, u32)>,
    since: Instant,
}

/// The records that lack something; clones share them.
#[derive(Clone, Default)]
pub(super) struct Unfinished {
    lacking: Arc<Mutex<Lacking>>,
    metrics: Metrics,
}

/// One run of watching.
struct Watch {
    unfinished: Unfinished,
    store: Arc<dyn Store>,
    patience: Duration,
    watched: VecDeque<Watched>,
}

impl Unfinished {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            lacking: Arc::default(),
            metrics,
        }
    }

    pub(super) fn lacking(&self) -> Lacking {
        *self.lacking.lock()
    }

    /// Watches what is stored until told to stop; a piece is late after `patience`.
    pub(super) async fn watch(
        self,
        store: Arc<dyn Store>,
        feed: Feed,
        patience: Duration,
        shutdown: CancellationToken,
    ) {
        let mut listener = feed.listen();
        drop(feed);
        let mut watch = Watch {
            unfinished: self,
            store,
            patience,
            watched: VecDeque::new(),
        };
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            result = watch.look_at_newest() => report(result),
            () = shutdown.cancelled() => return,
        }
        loop {
            let result = tokio::select! {
                heard = listener.next() => match heard {
                    Some(Heard::Record(record)) => watch.stored(&record).await,
                    // The feed counts what a slow listener misses.
                    Some(Heard::Missed(_)) => Ok(()),
                    None => return,
                },
                _ = ticks.tick() => watch.look_again().await,
                () = shutdown.cancelled() => return,
            };
            report(result);
        }
    }
}

/// The store counts and shows its failures; here they only cost a look.
fn report(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::debug!(
            error = super::chain(&error),
            "could not look for missing pieces"
        );
    }
}

impl Watch {
    async fn look_at_newest(&mut self) -> Result<(), Error> {
        let query = Query {
            limit: NEWEST,
            order: Order::NewestFirst,
            ..Query::default()
        };
        let page = self.store.list(&query).await?;
        for summary in page
            .items
            .iter()
            .rev()
            .filter(|summary| summary.may_have_pieces())
        {
            // What is sealed or damaged does not say what pieces it has.
            if let Ok(Some(record)) = self.store.get(summary.id).await {
                self.stored(&record).await?;
            }
        }
        Ok(())
    }

    async fn stored(&mut self, record: &Record) -> Result<(), Error> {
        let (id, pieces) = (record.id(), pieces_of(record));
        if all_there(&*self.store, id, &pieces).await? {
            return Ok(());
        }
        if self.watched.len() == MAX_WATCHED {
            self.watched.pop_front();
            self.unfinished.metrics.unwatched.inc();
        }
        self.watched.push_back(Watched {
            id,
            pieces,
            since: Instant::now(),
        });
        self.tell();
        Ok(())
    }

    /// Looks at some of the watched again, each in its turn.
    async fn look_again(&mut self) -> Result<(), Error> {
        for _ in 0..self.watched.len().min(LOOK_AT) {
            let Some(watched) = self.watched.pop_front() else {
                break;
            };
            let gone = || async { Ok(self.store.get(watched.id).await?.is_none()) };
            let done = match all_there(&*self.store, watched.id, &watched.pieces).await {
                Ok(true) => Ok(true),
                // Deleted or expired.
                Ok(false) => gone().await,
                Err(error) => Err(error),
            };
            let keeps = !matches!(done, Ok(true));
            if keeps {
                self.watched.push_back(watched);
            }
            done?;
        }
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let late = |watched: &&Watched| watched.since.elapsed() >= self.patience;
        let incomplete = self.watched.iter().filter(late).count() as u64;
        let lacking = Lacking {
            pending: self.watched.len() as u64 - incomplete,
            incomplete,
        };
        *self.unfinished.lacking.lock() = lacking;
        let gauge = |gauge: &Gauge, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.unfinished.metrics.pending, lacking.pending);
        gauge(&self.unfinished.metrics.incomplete, lacking.incomplete);
    }
}
