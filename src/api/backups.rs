//! Backups of the store: made, and named.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use jiff::Timestamp;

use super::dto;
use super::error::Error;
use super::params;
use super::router::{Inner, Shared};
use crate::store::embedded::Backups;

impl Inner {
    /// Who makes backups, or why nobody does.
    fn backups(&self) -> Result<&Backups, Error> {
        self.store()?;
        self.parts
            .backups
            .as_deref()
            .ok_or_else(|| Error::NoBackups {
                node: self.parts.status.node().to_string(),
            })
    }
}

/// `POST /api/backups`.
pub(super) async fn make(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<dto::Backup>), Error> {
    params::none(query.as_deref())?;
    let made = shared.backups()?.make(Timestamp::now()).await?;
    tracing::info!(path = %made.path.display(), "a backup was made through the API");
    let backup = dto::Backup {
        path: made.path.display().to_string(),
        name: made.name,
        segments: made.segments,
        bytes: made.bytes,
    };
    Ok((StatusCode::CREATED, Json(backup)))
}

/// `GET /api/backups`.
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<dto::Backups>, Error> {
    params::none(query.as_deref())?;
    let backups = shared.backups()?.list().await?;
    Ok(Json(dto::Backups { backups }))
}
