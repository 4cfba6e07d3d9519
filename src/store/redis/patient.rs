//! A store in a Redis that may be away when the node starts: the node starts all the same, and says what it waits for.
//!
//! Until there is a connection each call tries once, though not more often than once a second, and fails as it does
//! when Redis leaves later: nothing is acknowledged, `/healthz` says why. A Redis that answers and refuses us, or
//! holds what this program cannot read, is an error at the start: waiting would not help.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::{Config, OpenError, Redis};
use crate::record::{Fingerprint, Record, RecordId, SegmentBatch, Side};
use crate::store::{
    Batch, Error, Expired, Metrics, Page, Pieces, Query, Receipt, Settled, Stats, Store,
};

/// How long a failed attempt speaks for the next calls.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A [`Redis`] that is opened when it can be.
#[derive(Debug)]
pub struct Patient {
    config: Config,
    metrics: Metrics,
    store: OnceCell<Redis>,
    /// When the last attempt failed, and why.
    failed: Mutex<Option<(Instant, String)>>,
}

impl Patient {
    /// Opens the store, or begins to wait for it.
    ///
    /// # Errors
    /// [`OpenError`] where waiting cannot help: the config is not usable, Redis refuses us, or a newer program wrote
    /// there.
    pub async fn open(config: Config, metrics: Metrics) -> Result<Self, OpenError> {
        let patient = Self {
            config,
            metrics,
            store: OnceCell::new(),
            failed: Mutex::default(),
        };
        match patient.store.get_or_try_init(|| patient.attempt()).await {
            Ok(_) => {}
            Err(OpenError::Store(error @ (Error::Unavailable { .. } | Error::Full(_)))) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "Redis is away; nothing is stored until it is there");
            }
            Err(error) => return Err(error),
        }
        Ok(patient)
    }

    async fn attempt(&self) -> Result<Redis, OpenError> {
        if let Some((at, why)) = &*self.failed.lock()
            && at.elapsed() < RETRY_AFTER
        {
            return Err(self.away(why.clone()).into());
        }
        let opening = Redis::open(self.config.clone(), self.metrics.clone());
        let limit = self.config.connection_timeout;
        let opened = timeout(limit, opening).await.unwrap_or_else(|_| {
            let why = format!("there was no connection within {limit:?}");
            Err(self.away(why).into())
        });
        if let Err(error) = &opened {
            let source = std::error::Error::source(error);
            let why = source.map_or_else(|| error.to_string(), ToString::to_string);
            *self.failed.lock() = Some((Instant::now(), why));
        }
        opened
    }

    fn away(&self, why: String) -> Error {
        Error::Unavailable {
            address: self.config.server.to_string(),
            source: why.into(),
        }
    }

    async fn store(&self) -> Result<&Redis, Error> {
        let opened = self.store.get_or_try_init(|| self.attempt()).await;
        opened.map_err(|error| {
            let error = match error {
                OpenError::Store(error) | OpenError::Refused(error) => error,
                OpenError::Config(error) => self.away(error.to_string()),
            };
            self.metrics.failed(error)
        })
    }
}

#[async_trait]
impl Store for Patient {
    async fn put(&self, batch: Batch) -> Result<Receipt, Error> {
        self.store().await?.put(batch).await
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, Error> {
        self.store().await?.get(id).await
    }

    async fn delete(&self, id: RecordId) -> Result<bool, Error> {
        self.store().await?.delete(id).await
    }

    async fn list(&self, query: &Query) -> Result<Page, Error> {
        self.store().await?.list(query).await
    }

    async fn lookup(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.store().await?.lookup(fingerprint, limit).await
    }

    async fn newest(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.store().await?.newest(fingerprint, limit).await
    }

    async fn chunk(&self, id: RecordId, side: Side, index: u32) -> Result<Option<Bytes>, Error> {
        self.store().await?.chunk(id, side, index).await
    }

    async fn segments(&self, id: RecordId, index: u32) -> Result<Option<SegmentBatch>, Error> {
        self.store().await?.segments(id, index).await
    }

    async fn first_missing(
        &self,
        id: RecordId,
        of: Pieces,
        count: u32,
    ) -> Result<Option<u32>, Error> {
        self.store().await?.first_missing(id, of, count).await
    }

    async fn settled(&self) -> Result<Vec<Settled>, Error> {
        self.store().await?.settled().await
    }

    async fn expire(&self, now_us: i64) -> Result<Expired, Error> {
        self.store().await?.expire(now_us).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.store().await?.stats().await
    }

    async fn close(&self) -> Result<(), Error> {
        match self.store.get() {
            Some(store) => store.close().await,
            None => Ok(()),
        }
    }
}
