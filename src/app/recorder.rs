//! The recording half of a node: capture in front of the spool, and the proxies that use it.

use std::sync::Arc;

use super::Listening;
use super::error::Error;
use super::limits;
use super::metrics::Metrics;
use super::outlet::SpoolOutlet;
use crate::capture::Capture;
use crate::config::{Balance, Settings};
use crate::proxy::{self, Running};
use crate::record::{Keyring, NodeId};
use crate::spool::Spool;

/// The spool, and capture in front of it.
pub(super) struct Recorder {
    pub(super) spool: Spool,
    pub(super) capture: Capture,
}

impl Recorder {
    /// Opens the spool and starts capture.
    pub(super) async fn open(
        settings: &Settings,
        node: &NodeId,
        keys: &Arc<Keyring>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let limits = limits::spool(node.clone(), &settings.spool);
        let spool_metrics = metrics.spool.clone();
        let spool = tokio::task::spawn_blocking(move || Spool::open(limits, spool_metrics))
            .await
            .expect("opening the spool does not panic")?;
        let mut limits = limits::capture(
            node.clone(),
            &settings.capture,
            settings.mqtt.max_message_bytes,
        )?;
        limits.keys = Arc::clone(keys);
        let outlet = Box::new(SpoolOutlet(spool.clone()));
        let capture = Capture::start(limits, metrics.capture.clone(), outlet)?;
        Ok(Self { spool, capture })
    }
}

/// A proxy that is bound and does not accept yet.
pub(super) enum Bound {
    Http(Box<proxy::http::Bound>),
    Tcp(Box<proxy::tcp::Bound>),
}

impl Bound {
    pub(super) fn serve(self) -> Running {
        match self {
            Self::Http(bound) => bound.serve(),
            Self::Tcp(bound) => bound.serve(),
        }
    }
}

/// Binds every proxy of the configuration.
pub(super) async fn bind_proxies(
    settings: &Settings,
    capture: &Capture,
    metrics: &Metrics,
    listening: &mut Vec<Listening>,
) -> Result<Vec<Bound>, Error> {
    let mut bound = Vec::new();
    let label = if settings.mode.records() {
        "record"
    } else {
        "forward"
    };
    if let Some(http) = &settings.http {
        let mut limits = limits::http(http, limits::resolve("http", &http.listen).await?);
        limits.routes = limits::routes(http, &metrics.service_discovery)?;
        let scheme = if limits.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let pool = (!http.downstream.is_empty()).then(|| {
            let metrics = &metrics.service_discovery;
            limits::pool("http", &http.downstream, Balance::RoundRobin, metrics)
        });
        let pool = pool.transpose()?;
        let proxy = proxy::http::bind(limits, pool, capture.clone(), metrics.proxy.clone())
            .map_err(|error| Error::proxy("http", error))?;
        let address = format!("{scheme}://{}", proxy.local_addr());
        listening.push(Listening::new(
            label,
            address,
            format!("-> {}", http.leads_to().join(", ")),
        ));
        bound.push(Bound::Http(Box::new(proxy)));
    }
    let single = settings.tcp.len() == 1;
    for (at, tcp) in settings.tcp.iter().enumerate() {
        let key = if single {
            "tcp".to_owned()
        } else {
            format!("tcp[{at}]")
        };
        let limits = limits::tcp(tcp, limits::resolve(&key, &tcp.listen).await?);
        let pool = limits::pool(
            &key,
            &tcp.downstream,
            tcp.balance,
            &metrics.service_discovery,
        )?;
        let proxy = proxy::tcp::bind(
            limits,
            Arc::clone(&pool),
            capture.clone(),
            metrics.proxy.clone(),
        )
        .map_err(|error| Error::proxy(key, error))?;
        let address = proxy.local_addr().to_string();
        let downstream: Vec<_> = tcp.downstream.iter().map(ToString::to_string).collect();
        listening.push(Listening::new(
            "tcp",
            address,
            format!("-> {}", downstream.join(", ")),
        ));
        bound.push(Bound::Tcp(Box::new(proxy)));
    }
    Ok(bound)
}
