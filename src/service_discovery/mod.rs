//! A service name -> the endpoints that are alive, for the proxies and for replay.
//!
//! Lists are fixed at start; health is passive: who uses an endpoint says whether the connection came about.
//! Nothing here opens a socket or reads a clock, and choosing takes no lock, so it may stand on the hot path.

mod endpoint;
mod pool;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

pub use endpoint::{Endpoint, InvalidEndpoint, Scheme};
pub use pool::{Balance, Config, Health, InUse, InvalidConfig, Member, Metrics, Pool};

/// Every service of a node with its pool of endpoints.
#[derive(Debug, Default)]
pub struct Endpoints(HashMap<Arc<str>, Arc<Pool>>);

/// A service that cannot be reached as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service `{service}` cannot be used")]
pub struct InvalidService {
    /// Its name.
    pub service: String,
    /// What is wrong with it.
    #[source]
    pub source: InvalidConfig,
}

impl Endpoints {
    /// A pool for each service; `now` is the moment from which the pools count time.
    ///
    /// # Errors
    /// [`InvalidService`] where a list is empty or the config is not usable.
    pub fn new(
        services: impl IntoIterator<Item = (Arc<str>, Vec<Endpoint>)>,
        config: &Config,
        metrics: &Metrics,
        now: Instant,
    ) -> Result<Self, InvalidService> {
        let pool = |(service, endpoints): (Arc<str>, Vec<Endpoint>)| match Pool::new(
            endpoints,
            config,
            metrics.clone(),
            now,
        ) {
            Ok(pool) => Ok((service, Arc::new(pool))),
            Err(source) => Err(InvalidService {
                service: service.to_string(),
                source,
            }),
        };
        services
            .into_iter()
            .map(pool)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The endpoints of a service; `None` where there is no such service.
    #[must_use]
    pub fn pool(&self, service: &str) -> Option<&Arc<Pool>> {
        self.0.get(service)
    }

    /// Every service and its endpoints, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Pool>)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_services_by_name_and_names_the_one_without_endpoints() {
        let shop = vec!["localhost:8081".parse().unwrap()];
        let make = |services: Vec<(Arc<str>, Vec<Endpoint>)>| {
            Endpoints::new(
                services,
                &Config::default(),
                &Metrics::default(),
                Instant::now(),
            )
        };
        let endpoints = make(vec![("shop".into(), shop)]).unwrap();
        assert_eq!(endpoints.pool("shop").unwrap().members().len(), 1);
        assert!(endpoints.pool("bank").is_none());
        let error = make(vec![("bank".into(), Vec::new())]).unwrap_err();
        assert_eq!(error.service, "bank");
        assert_eq!(error.source, InvalidConfig::NoEndpoint);
    }
}
