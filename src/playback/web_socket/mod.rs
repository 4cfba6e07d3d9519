//! Recorded WebSocket streams: read as messages, spoken again as the server that was recorded, or as its client.
//!
//! ```text
//! segments --> dialogue (whole messages, inflated) --> conversation (we are the server) <--> a client
//!                                                  `-> replay::web_socket (we are the client) <--> the target
//! ```
//!
//! What counts is text and binary messages, each as a whole: how they were cut into frames or compressed is not repeated, and
//! pings and pongs are each connection's own. The only place that knows of the crate that makes frames.

mod conversation;
mod dialogue;
mod others;
mod peer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::script::{Shelf, Unfit};
use super::talk::Mismatch;
use super::{Delay, Disclosure, Metrics, TalkStatus};
use crate::record::{RecordId, Stream};
use crate::store::Store;

pub use conversation::Conversation;
pub(super) use dialogue::{Dialogue, Event, Kind, Said, fit};
pub(super) use others::Others;
pub(super) use peer::{Heard, Lost, Peer};

/// How many mismatches are remembered.
const REMEMBERED: usize = 10;

/// How WebSocket clients are answered.
#[derive(Debug, Clone)]
pub struct Config {
    /// The largest message, of either side, in bytes; a recorded conversation with a larger one does not answer.
    pub max_message: usize,
    /// How long a client may say nothing, or take nothing of what it is told.
    pub idle_timeout: Duration,
    /// How much of the streams is kept in memory, for all clients together.
    pub shelf_bytes: usize,
    /// Whether what was said is shown where it does not fit.
    pub disclosure: Disclosure,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message: 16 << 20,
            idle_timeout: Duration::from_secs(3600),
            shelf_bytes: 8 << 20,
            disclosure: Disclosure::default(),
        }
    }
}

/// What all conversations with clients share.
pub(super) struct Conversations {
    config: Config,
    delay: Delay,
    max_delay: Duration,
    shelf: Arc<Shelf>,
    /// The newest last.
    mismatches: Mutex<VecDeque<Mismatch>>,
    metrics: Metrics,
}

impl Conversations {
    pub(super) fn new(
        store: Arc<dyn Store>,
        config: Config,
        (delay, max_delay): (Delay, Duration),
        metrics: Metrics,
    ) -> Self {
        Self {
            shelf: Arc::new(Shelf::new(store, config.shelf_bytes)),
            config,
            delay,
            max_delay,
            mismatches: Mutex::default(),
            metrics,
        }
    }

    /// How clients fare, by service.
    pub(super) fn status(&self) -> Vec<TalkStatus> {
        let mut by_service: Vec<TalkStatus> = Vec::new();
        for mismatch in self.mismatches.lock().iter() {
            let known = by_service
                .iter_mut()
                .find(|status| status.service == mismatch.service);
            match known {
                Some(status) => status.mismatches.push(mismatch.clone()),
                None => by_service.push(TalkStatus {
                    service: mismatch.service.clone(),
                    mismatches: vec![mismatch.clone()],
                }),
            }
        }
        by_service
    }

    fn remember(&self, mismatch: Mismatch) {
        mismatch.log();
        let mut last = self.mismatches.lock();
        if last.len() >= REMEMBERED {
            last.pop_front();
        }
        last.push_back(mismatch);
    }

    /// The stream with this id.
    pub(super) async fn stream(&self, id: RecordId) -> Result<Arc<Stream>, Unfit> {
        self.shelf.stream(id).await
    }

    /// The recorded messages of a stream.
    pub(super) fn dialogue(&self, stream: Arc<Stream>) -> Dialogue {
        let source = self.shelf.clone();
        Dialogue::new(stream, source, self.config.max_message, Duration::ZERO)
    }
}
