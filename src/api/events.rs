//! What was stored just now, for those who watch: server-sent events (HTML Standard, section 9.2).
//!
//! A view, not a ledger: a client that cannot keep up is told how many it missed, one that reads nothing is
//! cut off. Nothing is kept for nobody, so that a node without watchers pays one atomic load per record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::dto;
use super::error::Error;
use super::metrics::Metrics;
use super::params;
use super::router::Shared;
use crate::store::{Filter, Summary};

/// Events that may wait for the slowest client.
const CAPACITY: usize = 1024;
/// Summaries in one event.
const MAX_BATCH: usize = 100;
/// How long a comment keeps an idle stream alive through proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where new records are announced. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Arc<Summary>>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }
}

impl Events {
    /// Whether somebody watches; if not, nothing need be announced.
    #[must_use]
    pub fn watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Announces a record. Never waits.
    pub fn publish(&self, summary: Summary) {
        if self.watched() {
            // It fails where the last watcher left just now.
            let _ = self.0.send(Arc::new(summary));
        }
    }
}

/// `GET /api/events`: events `records` (an array of summaries) and `skipped` (`{"count": …}`).
pub(super) async fn stream(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let filter = params::events_filter(query.as_deref())?;
    shared.store()?;
    let permit = Arc::clone(&shared.streams).try_acquire_owned();
    let permit = permit.map_err(|_| Error::Streams(shared.max_streams))?;
    let watcher = Watcher::new(&shared, filter, permit);
    let closing = shared.closing.clone();
    let hello = stream::once(std::future::ready(Event::default().comment("watching")));
    let events = stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|event| (event, watcher))
    });
    let events = hello
        .chain(events)
        .take_until(closing.cancelled_owned())
        .map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// One client's view.
struct Watcher {
    arrivals: broadcast::Receiver<Arc<Summary>>,
    filter: Filter,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    fn new(shared: &Shared, filter: Filter, permit: OwnedSemaphorePermit) -> Self {
        let metrics = shared.parts.metrics.clone();
        metrics.event_streams.inc();
        Self {
            arrivals: shared.parts.events.0.subscribe(),
            filter,
            metrics,
            _permit: permit,
        }
    }

    /// The next event; what has arrived meanwhile goes into one. `None` when nobody announces any more.
    async fn next(&mut self) -> Option<Event> {
        let mut found = Vec::new();
        while found.is_empty() {
            match self.arrivals.recv().await {
                Ok(summary) => self.keep(&summary, &mut found),
                Err(RecvError::Lagged(count)) => return Some(self.skipped(count)),
                Err(RecvError::Closed) => return None,
            }
            while found.len() < MAX_BATCH {
                match self.arrivals.try_recv() {
                    Ok(summary) => self.keep(&summary, &mut found),
                    // Told by the next call, after what was found.
                    Err(TryRecvError::Lagged(_) | TryRecvError::Empty | TryRecvError::Closed) => {
                        break;
                    }
                }
            }
        }
        Some(json_event("records", &found))
    }

    fn keep(&self, summary: &Summary, found: &mut Vec<dto::Summary>) {
        if self.filter.matches(summary) {
            found.push(summary.into());
        }
    }

    fn skipped(&self, count: u64) -> Event {
        self.metrics.events_skipped.inc_by(count);
        json_event("skipped", &serde_json::json!({ "count": count }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.event_streams.dec();
    }
}

fn json_event(name: &str, data: &impl serde::Serialize) -> Event {
    let data = serde_json::to_string(data).expect("our types have string keys only");
    Event::default().event(name).data(data)
}
