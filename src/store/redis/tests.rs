//! The contract on a single server and on a cluster, and what only Redis does.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Config, InvalidConfig, OpenError, Redis, Server};
use crate::record::RecordId;
use crate::store::contract::{self, Bench, Retention, contract};
use crate::store::{Batch, Error, Metrics, Store};

#[path = "../../../tests/it/support/redis.rs"]
mod servers;

use self::servers::{RedisCluster, RedisServer};

fn config(server: Server, retention: Retention) -> Config {
    Config {
        max_age: retention.max_age,
        max_bytes: retention.max_bytes,
        ..Config::new(server)
    }
}

async fn open(config: Config) -> Arc<dyn Store> {
    Arc::new(Redis::open(config, Metrics::default()).await.unwrap())
}

struct Single(RedisServer);

#[async_trait]
impl Bench for Single {
    async fn open(&self, retention: Retention) -> Arc<dyn Store> {
        open(config(Server::single(&self.0.url()).unwrap(), retention)).await
    }

    async fn spoil(&self, id: RecordId, _marker: &str) {
        let key = super::Keys::new("qproxy", 1).record(id);
        self.0
            .command::<()>(&["SET", &key, "no record", "XX"])
            .await;
    }
}

mod single {
    use super::{RedisServer, Single, contract};

    contract!(async { Single(RedisServer::start(&[]).await) });
}
