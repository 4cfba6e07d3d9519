//! The playing half of a node: the store, and what answers and replays from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use super::Listening;
use super::error::Error;
use super::lag::Lag;
use super::limits;
use super::metrics::Metrics;
use super::recorder::Bound;
use super::responder::{FromRecords, FromStreams};
use super::results::Results;
use crate::api::Events;
use crate::config::{self, Settings};
use crate::playback::{Answerer, Live, LiveConfig, Runs, Sending, Talker};
use crate::proxy;
use crate::record::Keyring;
use crate::store::embedded::{Backups, Embedded};
use crate::store::redis::{Patient, Server};
use crate::store::{self, Store, Summary};
use crate::sync::{Feed, Heard};

/// Beside the spool, where one folder serves both.
const RECORDS_FOLDER: &str = "records";
/// How often retention is applied.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// The store and its users.
pub(super) struct Player {
    pub(super) store: Arc<dyn Store>,
    pub(super) backups: Option<Arc<Backups>>,
    pub(super) runs: Runs,
    pub(super) live: Option<Arc<Live>>,
    /// Where there is a listener that answers requests.
    pub(super) answerer: Option<Arc<Answerer>>,
    /// One for each of `playback.tcp`.
    pub(super) talkers: Vec<Arc<Talker>>,
}

/// The store, and who makes backups of it.
pub(super) type Opened = (Arc<dyn Store>, Option<Arc<Backups>>);

/// The limits of the store that the configuration names.
pub(super) enum StoreConfig {
    /// With the folder of its backups.
    Embedded(store::embedded::Config, PathBuf),
    Redis(Box<store::redis::Config>),
}

impl StoreConfig {
    pub(super) fn new(settings: &Settings, keys: &Arc<Keyring>) -> Result<Self, Error> {
        let retention = &settings.retention;
        let (server, options) = match &settings.store {
            config::StoreSettings::Embedded { path, backups } => {
                let mut limits = limits::embedded(path.join(RECORDS_FOLDER), retention);
                limits.keys = Arc::clone(keys);
                return Ok(Self::Embedded(limits, backups.clone()));
            }
            config::StoreSettings::Redis { url, options } => {
                (Server::single(url.expose_secret()), options)
            }
            config::StoreSettings::RedisCluster { urls, options } => {
                let urls = urls.iter().map(ExposeSecret::expose_secret);
                (Server::cluster(urls), options)
            }
        };
        let server = server.map_err(|error| Error::Redis(error.into()))?;
        let mut limits = limits::redis(server, options, retention)?;
        limits.keys = Arc::clone(keys);
        Ok(Self::Redis(Box::new(limits)))
    }
}

/// Opens the store that the configuration names.
pub(super) async fn open_store(
    settings: &Settings,
    keys: &Arc<Keyring>,
    metrics: &Metrics,
) -> Result<Opened, Error> {
    let metrics = metrics.store.clone();
    match StoreConfig::new(settings, keys)? {
        StoreConfig::Embedded(limits, backups) => {
            let opened = tokio::task::spawn_blocking(move || Embedded::open(limits, metrics)).await;
            let store = opened.expect("opening the store does not panic")?;
            let backups = Backups::new(store.clone(), backups);
            Ok((Arc::new(store), Some(Arc::new(backups))))
        }
        StoreConfig::Redis(limits) => Ok((Arc::new(Patient::open(*limits, metrics).await?), None)),
    }
}

/// How records are replayed as they arrive, where they are.
pub(super) fn live_config(settings: &Settings) -> Result<Option<LiveConfig>, Error> {
    let Some(config::Auto(url)) = &settings.playback.auto else {
        return Ok(None);
    };
    let target = limits::target("playback.auto", url)?;
    Ok(Some(LiveConfig::new(Sending::to(target))))
}

impl Player {
    /// Sets up replay, and live replay where it is configured.
    pub(super) fn new(
        settings: &Settings,
        (store, backups): Opened,
        results: Arc<Results>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let replay = limits::replay(&settings.playback);
        let live = match live_config(settings)? {
            None => None,
            Some(limits) => {
                let live = Live::start(
                    store.clone(),
                    limits,
                    &replay,
                    results.clone(),
                    metrics.playback.clone(),
                )?;
                Some(Arc::new(live))
            }
        };
        let runs = Runs::new(store.clone(), replay, results, metrics.playback.clone());
        let answerer = match &settings.playback.answer {
            None => None,
            Some(_) => {
                let limits = limits::answerer(settings)?;
                let answerer = Answerer::new(store.clone(), limits, metrics.playback.clone())?;
                Some(Arc::new(answerer))
            }
        };
        let mut talkers = Vec::new();
        for (at, tcp) in settings.playback.tcp.iter().enumerate() {
            let limits = limits::talker(&tcp_key(settings, at), tcp, settings)?;
            let talker = Talker::new(store.clone(), limits, metrics.playback.clone());
            talkers.push(Arc::new(talker));
        }
        Ok(Self {
            store,
            backups,
            runs,
            live,
            answerer,
            talkers,
        })
    }

    /// Binds the listeners that answer from the records.
    pub(super) async fn bind(
        &self,
        settings: &Settings,
        listening: &mut Vec<Listening>,
    ) -> Result<Vec<Bound>, Error> {
        let http = self.bind_http(settings, listening).await?;
        let mut bound: Vec<_> = http
            .into_iter()
            .map(|http| Bound::Http(Box::new(http)))
            .collect();
        for (at, (tcp, talker)) in settings.playback.tcp.iter().zip(&self.talkers).enumerate() {
            let key = tcp_key(settings, at);
            let limits = limits::talking(tcp, limits::resolve(&key, &tcp.listen).await?);
            let talker = Arc::new(FromStreams(talker.clone()));
            // Counted apart, as for HTTP.
            let listener = proxy::tcp::bind_talker(limits, talker, proxy::Metrics::default())
                .map_err(|error| Error::proxy(key, error))?;
            listening.push(Listening::new(
                "answer-tcp",
                listener.local_addr().to_string(),
                format!("as {}, from its recorded streams", tcp.service),
            ));
            bound.push(Bound::Tcp(Box::new(listener)));
        }
        Ok(bound)
    }

    /// Binds the listener that answers requests.
    async fn bind_http(
        &self,
        settings: &Settings,
        listening: &mut Vec<Listening>,
    ) -> Result<Option<proxy::http::Bound>, Error> {
        let (Some(answer), Some(answerer)) = (&settings.playback.answer, &self.answerer) else {
            return Ok(None);
        };
        let key = answer_key(settings);
        let limits = limits::answering(limits::resolve(key, &answer.listen).await?, answer);
        let scheme = if limits.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let responder = Arc::new(FromRecords(Arc::clone(answerer)));
        // Counted apart: the proxy's own figures are those of recorded traffic.
        let bound = proxy::http::bind_responder(limits, responder, proxy::Metrics::default())
            .map_err(|error| Error::proxy(key, error))?;
        let address = format!("{scheme}://{}", bound.local_addr());
        listening.push(Listening::new(
            "answer",
            address,
            "from the records".to_owned(),
        ));
        Ok(Some(bound))
    }
}

/// The section of the listener that answers requests.
pub(super) const fn answer_key(settings: &Settings) -> &'static str {
    match settings.mode.proxies() {
        true => "playback.http",
        false => "http",
    }
}

/// The section of one of `playback.tcp`.
pub(super) fn tcp_key(settings: &Settings, at: usize) -> String {
    match settings.playback.tcp.len() {
        1 => "playback.tcp".to_owned(),
        _ => format!("playback.tcp[{at}]"),
    }
}

/// Hands what was stored to live replay, for as long as the feed lasts.
pub(super) async fn feed_live(live: Arc<Live>, feed: Feed, shutdown: CancellationToken) {
    let mut listener = feed.listen();
    drop(feed);
    loop {
        let heard = tokio::select! {
            heard = listener.next() => heard,
            () = shutdown.cancelled() => return,
        };
        match heard {
            Some(Heard::Record(record)) => live.offer(record),
            // The feed counts what a slow listener misses.
            Some(Heard::Missed(missed)) => tracing::warn!(missed, "live replay is too slow"),
            None => return,
        }
    }
}

/// Tells the dashboard what was stored, and how late that was.
pub(super) async fn announce(feed: Feed, events: Events, lag: Lag, shutdown: CancellationToken) {
    let mut listener = feed.listen();
    drop(feed);
    loop {
        let heard = tokio::select! {
            heard = listener.next() => heard,
            () = shutdown.cancelled() => return,
        };
        match heard {
            Some(Heard::Record(record)) => {
                lag.stored(&record);
                if events.watched() {
                    events.publish(Summary::from(record.as_ref()));
                }
            }
            // The feed counts what a slow listener misses.
            Some(Heard::Missed(_)) => {}
            None => return,
        }
    }
}

/// Applies retention until told to stop.
pub(super) async fn expire(store: Arc<dyn Store>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match store.expire(Timestamp::now().as_microsecond()).await {
            Ok(expired) if expired.records > 0 => {
                tracing::info!(records = expired.records, bytes = expired.bytes, "expired");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = super::chain(&error), "could not expire old records");
            }
        }
    }
}
