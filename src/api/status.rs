//! How the node fares: for people (`/api/status`), for collectors (`/metrics`), for supervisors (`/healthz`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::dto::{self, Counts};
use super::error::{Error, chain};
use super::params;
use super::router::Shared;
use crate::metrics;
use crate::record::NodeId;

/// What the other modules tell; see the fields of [`dto::Status`] that have the same names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sections {
    /// How many records are where. `records` is filled in from the store where there is one.
    pub counts: Counts,
    /// Seconds, by direction: `publish`, `commit`.
    pub lag: BTreeMap<String, f64>,
    /// `{"recorder": …, "player": …}`.
    pub ledger: Value,
    /// The connection to the broker.
    pub broker: Value,
}

/// What the API asks of the rest of the node. `app` implements it.
#[async_trait]
pub trait StatusSource: Send + Sync + 'static {
    /// This node's name.
    fn node(&self) -> &NodeId;

    /// This node's mode, as written in the configuration.
    fn mode(&self) -> &str;

    /// How its parts fare now.
    async fn sections(&self) -> Sections;

    /// What keeps the node from its work; empty where nothing does.
    async fn health(&self) -> Vec<String>;
}

/// `GET /api/status`.
pub(super) async fn status(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<dto::Status>, Error> {
    params::none(query.as_deref())?;
    let source = &shared.parts.status;
    let Sections {
        mut counts,
        lag,
        ledger,
        broker,
    } = source.sections().await;
    let store = store_status(&shared).await;
    if let Some(records) = store.as_ref().and_then(|store| store.records) {
        counts.records = records;
    }
    Ok(Json(dto::Status {
        node: source.node().to_string(),
        mode: source.mode().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: format!("{:.3}", shared.started_at),
        uptime_s: shared.started.elapsed().as_secs(),
        counts,
        resources: shared.resources.usage(),
        store,
        lag,
        ledger,
        broker,
    }))
}

/// A store that fails must not hide the rest of the status.
async fn store_status(shared: &Shared) -> Option<dto::StoreStatus> {
    let store = shared.parts.store.as_ref()?;
    Some(match store.stats().await {
        Ok(stats) => dto::StoreStatus {
            records: Some(stats.records),
            bytes: Some(stats.bytes),
            oldest: stats.oldest_us.and_then(dto::time),
            error: None,
        },
        Err(error) => dto::StoreStatus {
            records: None,
            bytes: None,
            oldest: None,
            error: Some(chain(&error)),
        },
    })
}

/// `GET /metrics`.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    shared.parts.metrics.set_usage(&shared.resources.usage());
    let page = shared.parts.registry.text();
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response()
}

/// `GET /healthz`.
pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let reasons = shared.parts.status.health().await;
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "failing")
    };
    let health = dto::Health {
        status: status.to_owned(),
        reasons,
    };
    (code, Json(health)).into_response()
}
