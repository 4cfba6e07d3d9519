//! The hosts that clients have asked for and the connections to them: for so many hosts, and no longer than they
//! are used.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::super::super::dial::{Dialer, Offer};
use super::super::super::drain::Drain;
use super::super::super::lru::Lru;
use super::super::super::reach::{Local, Reach};
use super::super::super::stream::Stream;
use super::super::super::{Error, Metrics};
use super::super::Config;
use super::super::upstream::{SWEEP_EVERY, Upstreams, trust};
use super::{ForwardProxy, access::Access};
use crate::capture::Capture;
use crate::service_discovery::{self, Endpoint, Pool};

/// The way out to whatever clients name.
pub(in super::super) struct Outward {
    kept: Mutex<Lru<Destination, Arc<Upstreams>>>,
    access: Arc<Access>,
    dialer: Dialer,
    own: std::net::SocketAddr,
    config: Config,
    service: Option<Arc<str>>,
    pub(super) capture: Capture,
    metrics: Metrics,
    drain: Drain,
}

/// An endpoint, and whom to ask for under TLS where that is not its host.
type Destination = (Endpoint, Option<Arc<str>>);

impl Outward {
    pub(super) fn new(
        config: &Config,
        forward: &ForwardProxy,
        access: Arc<Access>,
        own: std::net::SocketAddr,
        capture: Capture,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, Error> {
        // Who decrypts is the one who has to look at the servers' certificates.
        let secure = forward.authority.is_some().then(|| trust(config));
        Ok(Self {
            kept: Mutex::new(Lru::new(forward.max_hosts)),
            access,
            dialer: Dialer::open(secure)?,
            own,
            config: config.clone(),
            service: forward.service.clone(),
            capture,
            metrics,
            drain,
        })
    }

    /// The connections to a target.
    pub(super) fn upstreams(
        &self,
        target: &Endpoint,
        server_name: Option<&Arc<str>>,
    ) -> Arc<Upstreams> {
        let destination = (target.clone(), server_name.cloned());
        let mut kept = self.kept.lock();
        if let Some(known) = kept.get(&destination) {
            return Arc::clone(known);
        }
        let new = Arc::new(Upstreams::over(
            self.dialer(target, server_name.cloned()),
            &self.config,
            pool(target),
            self.metrics.clone(),
            self.drain.clone(),
        ));
        let forgotten = kept.put(destination, Arc::clone(&new));
        drop(kept);
        if forgotten.is_some() {
            self.metrics.destinations_forgotten.inc();
        }
        new
    }

    /// A connection to a target for bytes that are not looked at.
    pub(super) async fn dial(
        &self,
        target: &Endpoint,
        server_name: Option<Arc<str>>,
        name: &Arc<str>,
    ) -> Result<Stream, Error> {
        let dialer = self.dialer(target, server_name);
        let dialing = dialer.dial(target, name, Offer::Raw);
        let limit = self.config.connect_timeout;
        match tokio::time::timeout(limit, dialing).await {
            Ok(dialed) => {
                let (stream, _) = dialed?;
                self.metrics.upstream_connections.inc();
                Ok(stream)
            }
            Err(_) => Err(Error::Timeout {
                upstream: Arc::clone(name),
                what: "accept a connection",
            }),
        }
    }

    /// The service that traffic to a target belongs to; where the target is an address, `server_name` may tell more.
    pub(super) fn service(&self, target: &Endpoint, server_name: Option<&Arc<str>>) -> Arc<str> {
        if let Some(service) = &self.service {
            return Arc::clone(service);
        }
        let named = target.host().parse::<std::net::IpAddr>().is_err();
        let name = server_name.filter(|_| !named);
        Arc::clone(name.unwrap_or(target.host()))
    }

    /// Looks after idle connections, for ever; a host that has none and is not in use is forgotten.
    pub(in super::super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let all: Vec<_> = self.kept.lock().values().cloned().collect();
            for upstreams in &all {
                upstreams.sweep_once();
            }
            drop(all);
            self.kept
                .lock()
                .retain(|kept| Arc::strong_count(kept) > 1 || !kept.is_idle());
        }
    }

    fn dialer(&self, target: &Endpoint, server_name: Option<Arc<str>>) -> Dialer {
        let granted =
            self.own.ip().to_canonical().is_loopback() || self.access.names_in_full(target);
        let local = match granted {
            true => Local::Granted,
            false => Local::Refused,
        };
        let own = self.own;
        self.dialer.within(Reach { own, local }, server_name)
    }
}

/// A pool of one: whether it is up is for each client to see.
fn pool(target: &Endpoint) -> Arc<Pool> {
    let config = service_discovery::Config::default();
    let metrics = service_discovery::Metrics::default();
    let pool = Pool::new(vec![target.clone()], &config, metrics, Instant::now());
    Arc::new(pool.expect("there is an endpoint, and the defaults are good"))
}
