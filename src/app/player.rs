//! The playing half of a node: the store, and what answers and replays from it.

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
use super::responder::FromRecords;
use super::results::Results;
use crate::api::Events;
use crate::config::{self, Mode, Settings};
use crate::playback::{Answerer, Live, LiveConfig, Runs, Sending};
use crate::proxy;
use crate::record::Keyring;
use crate::store::embedded::{Backups, Embedded};
use crate::store::redis::{InvalidConfig, Patient, Server};
use crate::store::{Store, Summary};
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
}

/// The store, and who makes backups of it.
pub(super) type Opened = (Arc<dyn Store>, Option<Arc<Backups>>);

/// Opens the store that the configuration names.
pub(super) async fn open_store(
    settings: &Settings,
    keys: &Arc<Keyring>,
    metrics: &Metrics,
) -> Result<Opened, Error> {
    let redis = async |server: Result<Server, InvalidConfig>, options: &config::RedisOptions| {
        let server = server.map_err(|error| Error::Redis(error.into()))?;
        let mut limits = limits::redis(server, options, &settings.retention)?;
        limits.keys = Arc::clone(keys);
        let store: Arc<dyn Store> = Arc::new(Patient::open(limits, metrics.store.clone()).await?);
        Ok((store, None))
    };
    match &settings.store {
        config::StoreSettings::Embedded { path, backups } => {
            let mut limits = limits::embedded(path.join(RECORDS_FOLDER), &settings.retention);
            limits.keys = Arc::clone(keys);
            let metrics = metrics.store.clone();
            let opened = tokio::task::spawn_blocking(move || Embedded::open(limits, metrics)).await;
            let store = opened.expect("opening the store does not panic")?;
            let backups = Backups::new(store.clone(), backups.clone());
            Ok((Arc::new(store), Some(Arc::new(backups))))
        }
        config::StoreSettings::Redis { url, options } => {
            redis(Server::single(url.expose_secret()), options).await
        }
        config::StoreSettings::RedisCluster { urls, options } => {
            let urls = urls.iter().map(ExposeSecret::expose_secret);
            redis(Server::cluster(urls), options).await
        }
    }
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
        let live = match &settings.playback.auto {
            None => None,
            Some(config::Auto(url)) => {
                let target = limits::target("playback.auto", url)?;
                let live = Live::start(
                    store.clone(),
                    LiveConfig::new(Sending::to(target)),
                    &replay,
                    results.clone(),
                    metrics.playback.clone(),
                )?;
                Some(Arc::new(live))
            }
        };
        let runs = Runs::new(store.clone(), replay, results, metrics.playback.clone());
        Ok(Self {
            store,
            backups,
            runs,
            live,
        })
    }

    /// Binds the listener that answers from the records.
    pub(super) async fn bind(
        &self,
        settings: &Settings,
        metrics: &Metrics,
        listening: &mut Vec<Listening>,
    ) -> Result<Option<proxy::http::Bound>, Error> {
        let Some(answer) = &settings.playback.answer else {
            return Ok(None);
        };
        let key = if settings.mode == Mode::Playback {
            "http"
        } else {
            "playback.http"
        };
        let answerer = limits::answerer(&settings.playback)?;
        let answerer = Answerer::new(self.store.clone(), answerer, metrics.playback.clone())?;
        let limits = limits::answering(
            limits::resolve(key, &answer.listen).await?,
            answer.tls.as_ref(),
        );
        let scheme = if limits.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let responder = Arc::new(FromRecords(Arc::new(answerer)));
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
