//! `store`: one of the two backends.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::config::Environment;
use crate::config::file::Store;
use crate::config::settings::{RedisOptions, StoreSettings};

use super::{DATA, Resolver};

/// In the folder of the store.
const BACKUPS: &str = "backups";

impl Resolver {
    pub(super) fn store(&mut self, form: Store, environment: &Environment) -> StoreSettings {
        let redis = environment.redis_url.clone().or(form.redis);
        let options = RedisOptions {
            prefix: form.redis_prefix.unwrap_or_else(|| "qproxy".to_owned()),
            ca: form.redis_ca,
        };
        let url = |resolver: &mut Self, key: &str, url: &SecretString| {
            let text = url.expose_secret();
            if !["redis://", "rediss://"]
                .iter()
                .any(|scheme| text.starts_with(scheme))
            {
                resolver.wrong(key, "must start with redis:// or rediss://");
            }
        };
        if form.backups.is_some() && (redis.is_some() || form.redis_cluster.is_some()) {
            self.wrong(
                "store.backups",
                "is for records in `store.path`: back up Redis with its own tools",
            );
        }
        match (form.path, redis, form.redis_cluster) {
            (path, None, None) => {
                let path = path.unwrap_or_else(|| PathBuf::from(DATA));
                StoreSettings::Embedded {
                    backups: form.backups.unwrap_or_else(|| path.join(BACKUPS)),
                    path,
                }
            }
            (None, Some(redis), None) => {
                url(self, "store.redis", &redis);
                StoreSettings::Redis {
                    url: redis,
                    options,
                }
            }
            (None, None, Some(urls)) => {
                if urls.is_empty() {
                    self.wrong("store.redis_cluster", "is empty: name at least one node");
                }
                urls.iter()
                    .for_each(|node| url(self, "store.redis_cluster", node));
                StoreSettings::RedisCluster { urls, options }
            }
            _ => {
                self.wrong(
                    "store",
                    "only one of `path`, `redis` and `redis_cluster` can be given",
                );
                StoreSettings::Embedded {
                    path: PathBuf::new(),
                    backups: PathBuf::new(),
                }
            }
        }
    }
}
