//! One client in front of a service: a downstream is found for it, and what passes is copied.
//!
//! Each side's close is passed on as it comes, so half-closed connections work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::dial::{Dialer, Offer};
use super::super::drain::Drain;
use super::super::entry::Opened;
use super::super::listener::next_connection;
use super::super::stream::Stream;
use super::super::{Error, Metrics, tls};
use super::{Config, pump};
use crate::capture::{Capture, Connection};
use crate::record::{Outcome, Protocol};
use crate::service_discovery::{InUse, Pool};

/// The way to a service, and the copy of what goes there.
pub(super) struct Forwarder {
    service: Arc<str>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    dialer: Dialer,
    pool: Arc<Pool>,
    capture: Capture,
}

impl Forwarder {
    pub(super) fn new(config: &Config, pool: Arc<Pool>, capture: Capture) -> Result<Self, Error> {
        let trust = tls::Trust {
            ca: config.upstream_ca.as_ref(),
            identity: config.upstream_identity.as_ref(),
            verify: config.upstream_verify,
        };
        Ok(Self {
            service: Arc::clone(&config.service),
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            dialer: Dialer::new(&pool, trust)?,
            pool,
            capture,
        })
    }

    /// Carries a connection until it ends, or the drain closes it.
    pub(super) async fn carry(&self, opened: Opened, drain: &Drain, metrics: &Metrics) {
        let Opened {
            mut stream,
            client,
            tls,
        } = opened;
        metrics.open.inc();
        metrics.streams.inc();
        let connection = Arc::new(Connection {
            id: next_connection(),
            service: Arc::clone(&self.service),
            client: client.to_string().into(),
            protocol: Protocol::Tcp,
            tls,
        });
        let mut tee = self.capture.begin_stream(&connection);
        let (outcome, name) = match self.connect(metrics).await {
            Ok((mut downstream, name, _in_use)) => {
                let pumped = pump::run(
                    &mut stream,
                    &mut downstream,
                    tee.as_mut(),
                    self.idle_timeout,
                    metrics,
                );
                let outcome = tokio::select! {
                    outcome = pumped => outcome,
                    () = drain.closing() => {
                        Outcome::ProxyClosed("the proxy is shutting down".into())
                    }
                };
                (outcome, Some(name))
            }
            Err(error) => {
                tracing::warn!(%client, error = error.chain(), "no downstream for a client");
                (error.outcome(), None)
            }
        };
        if let Outcome::UpstreamFailed(failure, _) = &outcome {
            metrics.upstream_failed(*failure);
        }
        tracing::debug!(%client, outcome = outcome.as_str(), "stream ended");
        if let Some(tee) = tee {
            tee.end(outcome, name.as_ref());
        }
        metrics.open.dec();
    }

    /// A connection to the downstream whose turn it is, or to the next that takes one.
    async fn connect(&self, metrics: &Metrics) -> Result<(Stream, Arc<str>, InUse), Error> {
        let mut tries = self.pool.members().len();
        loop {
            let member = self.pool.pick(Instant::now());
            let name: Arc<str> = member.endpoint().authority().into();
            let in_use = member.in_use();
            let dialed = self.dialer.dial(member.endpoint(), &name, Offer::Raw);
            let opened = tokio::time::timeout(self.connect_timeout, dialed);
            let error = match opened.await {
                Ok(Ok((stream, _))) => {
                    self.pool.connected(member);
                    metrics.upstream_connections.inc();
                    return Ok((stream, name, in_use));
                }
                Ok(Err(error)) => error,
                Err(_) => Error::Timeout {
                    upstream: name,
                    what: "accept a connection",
                },
            };
            self.pool.failed(member, Instant::now());
            tries -= 1;
            if tries == 0 {
                return Err(error);
            }
        }
    }
}
