//! One lane for each recorded connection (or client): its requests go one after the other, over one
//! connection to the target, so that a follow-up never overtakes its login. A stream has a connection of its own.
//!
//! Requests of one HTTP/2 connection, which may have been on their way together, keep the order in which they
//! started, too. How many records wait in all lanes together is bounded by `room`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Context, KeepOrder};
use crate::record::{ConnectionId, Epoch, NodeId, Record};

/// How many records may wait for each one that is on its way.
const WAITING_PER_PERMIT: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Connection(NodeId, Epoch, ConnectionId),
    Client(String),
}

impl Key {
    fn of(record: &Record, order: KeepOrder) -> Self {
        let (connection, client) = match record {
            Record::Exchange(exchange) => (exchange.connection, &exchange.client),
            Record::Stream(stream) => (stream.connection, &stream.client),
        };
        match order {
            KeepOrder::PerConnection => {
                let origin = record.origin();
                Self::Connection(origin.node.clone(), origin.epoch, connection)
            }
            KeepOrder::PerClient => {
                let ip = client.rsplit_once(':').map_or(&**client, |(ip, _)| ip);
                Self::Client(ip.to_owned())
            }
        }
    }
}

/// A record in a lane, and the room that it takes.
struct Job {
    /// Counts up over all lanes, in the order in which records were read.
    ticket: u64,
    record: Arc<Record>,
    _room: OwnedSemaphorePermit,
}

struct Open {
    jobs: mpsc::UnboundedSender<Job>,
    waiting: Arc<AtomicUsize>,
    used: u64,
}

impl Open {
    fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0 || self.jobs.is_closed()
    }
}

/// The lanes of one replay.
pub(in crate::playback) struct Lanes {
    context: Arc<Context>,
    room: Arc<Semaphore>,
    open: HashMap<Key, Open>,
    tasks: JoinSet<()>,
    idle: Arc<Notify>,
    clock: u64,
}

impl Lanes {
    pub(in crate::playback) fn new(context: Arc<Context>) -> Self {
        let sending = &context.sending;
        let permits = sending.concurrency.unwrap_or(context.config().concurrency);
        Self {
            room: Arc::new(Semaphore::new(permits * WAITING_PER_PERMIT)),
            context,
            open: HashMap::new(),
            tasks: JoinSet::new(),
            idle: Arc::default(),
            clock: 0,
        }
    }

    /// Waits until one more record may be held; `None` once the replay is cancelled.
    pub(in crate::playback) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            room = self.room.clone().acquire_owned() => Some(room.expect("is never closed")),
            () = self.context.cancel.cancelled() => None,
        }
    }

    /// Puts a record into its lane.
    pub(in crate::playback) async fn dispatch(
        &mut self,
        record: Arc<Record>,
        room: OwnedSemaphorePermit,
    ) {
        self.clock += 1;
        let ticket = self.clock;
        if let Record::Exchange(exchange) = &*record {
            self.context.expect(ticket, exchange);
        }
        let key = Key::of(&record, self.context.sending.keep_order);
        if !self.open.contains_key(&key) {
            self.make_way().await;
            let lane = self.start();
            self.open.insert(key.clone(), lane);
        }
        let lane = self.open.get_mut(&key).expect("was made above");
        lane.used = ticket;
        lane.waiting.fetch_add(1, Ordering::AcqRel);
        let job = Job {
            ticket,
            record,
            _room: room,
        };
        if let Err(returned) = lane.jobs.send(job) {
            // Only a lane that was cancelled, or broke, does not listen.
            self.open.remove(&key);
            self.context
                .skip(returned.0.record.id(), "the replay was ending");
        }
    }

    /// Waits until every lane has done its work, and closes them.
    pub(in crate::playback) async fn drain(&mut self) {
        self.open.clear();
        while let Some(ended) = self.tasks.join_next().await {
            report_panic(ended);
        }
    }

    fn start(&mut self) -> Open {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (context, idle, left) = (self.context.clone(), self.idle.clone(), waiting.clone());
        self.tasks.spawn(async move {
            let mut lane = context.lane();
            while let Some(job) = queue.recv().await {
                match &*job.record {
                    record if context.cancel.is_cancelled() => {
                        context.skip(record.id(), "cancelled before it was sent");
                    }
                    Record::Exchange(exchange) => {
                        context.perform(job.ticket, &mut lane, exchange).await;
                    }
                    Record::Stream(stream) => context.perform_stream(stream).await,
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    idle.notify_one();
                }
            }
        });
        Open {
            jobs,
            waiting,
            used: 0,
        }
    }

    /// Closes the idle lane that was not used for longest, where there are as many lanes as allowed.
    async fn make_way(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            report_panic(ended);
        }
        while self.open.len() >= self.context.config().max_lanes {
            let idle = self
                .open
                .iter()
                .filter(|(_, lane)| lane.is_idle())
                .min_by_key(|(_, lane)| lane.used)
                .map(|(key, _)| key.clone());
            match idle {
                Some(key) => {
                    self.open.remove(&key);
                }
                None => self.idle.notified().await,
            }
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a replay lane panicked");
    }
}
