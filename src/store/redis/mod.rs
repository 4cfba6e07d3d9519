//! The store for several players: a Redis server or a Redis Cluster.
//!
//! | key, after `{prefix}:{shard}:` | type | holds |
//! |---|---|---|
//! | `r:{id}` | string | a record's wire bytes |
//! | `p:{id}:{q, s or g}{index}` | string | wire bytes of a request chunk, response chunk or segment batch |
//! | `l:{id}` | set | the names of the pieces that have arrived |
//! | `h:{hour}` | sorted set, score 0 | id and summary of each record of the hour |
//! | `o:{hour}` | set | ids with pieces in the hour |
//! | `hours` | sorted set | the hours that have any of these |
//! | `f:{fingerprint}` | sorted set, score 0 | node, epoch, sequence and id of each record that has it |
//! | `coverage` | hash, in shard 0 | node and epoch -> coverage |
//!
//! The shard is a hash tag, so that a transaction stays in one slot. Records and pieces are written first,
//! fingerprints then, coverage last, each transaction idempotent: a batch that broke off half-way is repaired by
//! putting it again. With one shard, as on a single server, a batch is one transaction. An index may
//! name a record that is gone (evicted, expired by key); readers skip it.

mod connection;
mod coverage;
mod keys;
mod patient;
mod read;
mod retention;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, pipe};

use self::connection::{Client, Door, failure, refuses};
use self::keys::Keys;
use super::{Batch, Error, Expired, Metrics, Page, Pieces, Query, Receipt, Settled, Stats, Store};
use crate::record::{Fingerprint, Keyring, Record, RecordId, SegmentBatch, Side};

pub use self::connection::Server;
pub use self::patient::Patient;

/// The version of the schema above.
const SCHEMA: u32 = 1;

/// Which Redis, and how it is used.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is.
    pub server: Server,
    /// What every key starts with, so that several stores fit one Redis.
    pub prefix: String,
    /// Records older than this are removed; keys expire by themselves after it too. `None`: never.
    pub max_age: Option<Duration>,
    /// Where memory in use passes 90 % of this, the oldest records are removed. `None`: never; Redis then
    /// refuses at its own `maxmemory`, and nothing is acknowledged until there is room.
    pub max_bytes: Option<u64>,
    /// How many entries one listing looks at before it hands out a short page.
    pub scan_limit: usize,
    /// How long to wait for a connection.
    pub connection_timeout: Duration,
    /// How long to wait for an answer.
    pub response_timeout: Duration,
    /// The authority that signed the server's certificate, in PEM; `None`: those that the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// The keys that open what is sealed.
    pub keys: Arc<Keyring>,
}

impl Config {
    /// The defaults for a server: prefix `qproxy`, 24 h, no limit in bytes.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self {
            server,
            prefix: "qproxy".to_owned(),
            max_age: Some(Duration::from_hours(24)),
            max_bytes: None,
            scan_limit: 100_000,
            connection_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
            ca_pem: None,
            keys: Arc::default(),
        }
    }
}

impl Config {
    /// Looks whether a store could be opened with it, if Redis is there.
    ///
    /// # Errors
    /// [`InvalidConfig`] where it could not.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        self.client().map(drop)
    }

    fn client(&self) -> Result<Client, InvalidConfig> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.bytes().all(legal) {
            return Err(InvalidConfig::Prefix(self.prefix.clone()));
        }
        Client::new(self).map_err(InvalidConfig::Client)
    }
}

/// A config that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// A URL that is none.
    #[error("the Redis URL number {} cannot be used", at + 1)]
    Url {
        /// Its place in the list, from 0.
        at: usize,
        /// What is wrong with it.
        #[source]
        source: RedisError,
    },
    /// A cluster without a node.
    #[error("no node of the Redis Cluster is given")]
    NoNode,
    /// What the client library does not take, such as an authority for a URL without TLS.
    #[error("a Redis client cannot be set up with this")]
    Client(#[source] RedisError),
    /// A prefix that would break the hash tags, or is not fit to be typed.
    #[error("the key prefix `{0}` is not 1 to 64 of A-Z a-z 0-9 _ - . :")]
    Prefix(String),
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The config is at fault.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Redis is away, or what is there cannot be read.
    #[error(transparent)]
    Store(#[from] Error),
    /// Redis is there and will not let us in.
    #[error(transparent)]
    Refused(Error),
}

/// A store in Redis.
pub struct Redis {
    door: Door,
    address: String,
    keys: Keys,
    config: Config,
    metrics: Metrics,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Redis");
        debug.field("config", &self.config).finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects, and finds out how the store there is cut into shards, or says so if it is new.
    ///
    /// # Errors
    /// [`OpenError`] where the config is not usable, Redis cannot be reached or refuses us, or a newer program wrote there.
    pub async fn open(config: Config, metrics: Metrics) -> Result<Self, OpenError> {
        let client = config.client()?;
        let address = config.server.to_string();
        let door = Door::open(client, &config).await;
        let mut store = Self {
            door: door.map_err(|error| match refuses(&error) {
                true => OpenError::Refused(failure(&address, error)),
                false => OpenError::Store(failure(&address, error)),
            })?,
            keys: Keys::new(&config.prefix, config.server.usual_shards()),
            address,
            config,
            metrics,
        };
        let shards = store.shape().await?;
        store.keys = Keys::new(&store.config.prefix, shards);
        Ok(store)
    }

    /// The number of shards that the store was created with, which stays.
    async fn shape(&self) -> Result<u16, Error> {
        let key = self.keys.shape();
        let new = format!("{SCHEMA} {}", self.config.server.usual_shards());
        let mut both = pipe();
        both.cmd("SETNX").arg(&key).arg(new).ignore();
        both.cmd("GET").arg(&key);
        let (shape,): (String,) = self.run(&both).await?;
        let parsed = shape.split_once(' ').and_then(|(schema, shards)| {
            let known = schema.parse() == Ok(SCHEMA);
            shards.parse().ok().filter(|shards| known && *shards > 0)
        });
        parsed.ok_or_else(|| Error::Corrupt {
            key,
            source: format!("`{shape}` is not the shape of a store that this program reads").into(),
        })
    }

    async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Error> {
        let result = pipeline.query_async(&mut self.door.clone()).await;
        result.map_err(|error| failure(&self.address, error))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let result = command.query_async(&mut self.door.clone()).await;
        result.map_err(|error| failure(&self.address, error))
    }

    /// Counts a failure.
    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| self.metrics.failed(error))
    }
}

#[async_trait]
impl Store for Redis {
    async fn put(&self, batch: Batch) -> Result<Receipt, Error> {
        let receipt = self.counted(self.commit(&batch).await)?;
        self.metrics.committed(&receipt);
        Ok(receipt)
    }

    async fn get(&self, id: RecordId) -> Result<Option<Record>, Error> {
        self.counted(self.read_record(id).await)
    }

    async fn delete(&self, id: RecordId) -> Result<bool, Error> {
        self.counted(self.remove_one(id).await)
    }

    async fn list(&self, query: &Query) -> Result<Page, Error> {
        self.counted(self.read_page(query).await)
    }

    async fn lookup(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.counted(self.find_all(fingerprint, limit).await)
    }

    async fn newest(&self, fingerprint: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        self.counted(self.newest_of_all(fingerprint, limit).await)
    }

    async fn chunk(&self, id: RecordId, side: Side, index: u32) -> Result<Option<Bytes>, Error> {
        self.counted(self.read_chunk(id, side, index).await)
    }

    async fn segments(&self, id: RecordId, index: u32) -> Result<Option<SegmentBatch>, Error> {
        self.counted(self.read_segments(id, index).await)
    }

    async fn first_missing(
        &self,
        id: RecordId,
        of: Pieces,
        count: u32,
    ) -> Result<Option<u32>, Error> {
        self.counted(self.find_first_missing(id, of, count).await)
    }

    async fn settled(&self) -> Result<Vec<Settled>, Error> {
        self.counted(self.read_settled().await)
    }

    async fn expire(&self, now_us: i64) -> Result<Expired, Error> {
        self.counted(self.apply_retention(now_us).await)
    }

    async fn stats(&self) -> Result<Stats, Error> {
        self.counted(self.measure().await)
    }

    async fn close(&self) -> Result<(), Error> {
        // Every answered command is in Redis; the connection ends with the last clone of it.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
