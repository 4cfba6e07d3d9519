//! `store`: one of the two backends.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use crate::config::Environment;
use crate::config::file::Store;
use crate::config::settings::{RedisOptions, StoreSettings};

use super::{DATA, Resolver};

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
        match (form.path, redis, form.redis_cluster) {
            (path, None, None) => StoreSettings::Embedded {
                path: path.unwrap_or_else(|| PathBuf::from(DATA)),
            },
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
                }
            }
        }
    }
}
