//! The recording half of a node: capture in front of the spool, and the proxies that use it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Listening;
use super::error::Error;
use super::limits;
use super::metrics::Metrics;
use super::outlet::SpoolOutlet;
use crate::capture::Capture;
use crate::config::{Balance, HttpSettings, Settings};
use crate::proxy::{self, Running};
use crate::record::{Keyring, NodeId};
use crate::service_discovery::{self, Pool};
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
        let limits = limits::capture(node.clone(), settings, keys)?;
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
        let listen = limits::resolve("http", &http.listen).await?;
        let (limits, pool) = http_config(http, listen, &metrics.service_discovery)?;
        let scheme = if limits.tls.is_some() {
            "https"
        } else {
            "http"
        };
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
    for (at, tcp) in settings.tcp.iter().enumerate() {
        let key = tcp_key(settings, at);
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

/// The HTTP proxy's limits, and where its requests go unless they name their target.
pub(super) fn http_config(
    http: &HttpSettings,
    listen: SocketAddr,
    metrics: &service_discovery::Metrics,
) -> Result<(proxy::http::Config, Option<Arc<Pool>>), Error> {
    let mut limits = limits::http(http, listen);
    limits.routes = limits::routes(http, metrics)?;
    let pool = (!http.downstream.is_empty())
        .then(|| limits::pool("http", &http.downstream, Balance::RoundRobin, metrics));
    Ok((limits, pool.transpose()?))
}

/// The section of one of `tcp`.
pub(super) fn tcp_key(settings: &Settings, at: usize) -> String {
    match settings.tcp.len() {
        1 => "tcp".to_owned(),
        _ => format!("tcp[{at}]"),
    }
}
