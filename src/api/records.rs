//! Records: listed, shown, deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::dto;
use super::error::Error;
use super::params::{self, Params};
use super::router::Shared;
use crate::record::{Record, RecordId};
use crate::store::{self, Completeness, Summary};

/// Records of a listing that are looked at together.
const AT_ONCE: usize = 16;
/// Batches of segments on one page, at most.
const MAX_BATCHES: u32 = 64;
/// Batches of segments on one page, unless asked otherwise.
const DEFAULT_BATCHES: u32 = 8;

/// `GET /api/records`.
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<dto::Listing>, Error> {
    let query = params::records_query(query.as_deref())?;
    let page = shared.store()?.list(&query).await?;
    let records = stream::iter(page.items).map(|summary| {
        let shared = Arc::clone(&shared);
        async move { line(&shared, &summary).await }
    });
    Ok(Json(dto::Listing {
        records: records.buffered(AT_ONCE).try_collect().await?,
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// `GET /api/records/{id}`.
pub(super) async fn show(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<dto::Record>, Error> {
    params::none(query.as_deref())?;
    let record = find(&shared, params::record_id(&id)?).await?;
    let mut shown = dto::Record::from(&record);
    shown.completeness = Some(completeness(&shared, &record).await?);
    Ok(Json(shown))
}

/// One line of a listing. Only what may have pieces is read for it.
async fn line(shared: &Shared, summary: &Summary) -> Result<dto::Summary, Error> {
    let mut line = dto::Summary::from(summary);
    if summary.sealed.is_some() {
        return Ok(line);
    }
    let record = match summary.may_have_pieces() {
        false => None,
        // What cannot be read is told to who asks for it; a listing shows the rest.
        true => match shared.store()?.get(summary.id).await {
            Ok(Some(record)) => Some(record),
            Ok(None) | Err(store::Error::Corrupt { .. } | store::Error::Sealed { .. }) => {
                return Ok(line);
            }
            Err(error) => return Err(error.into()),
        },
    };
    line.completeness = Some(match &record {
        Some(record) => completeness(shared, record).await?,
        None => Completeness::Complete,
    });
    Ok(line)
}

async fn completeness(shared: &Shared, record: &Record) -> Result<Completeness, Error> {
    let (store, now) = (shared.store()?, Timestamp::now().as_microsecond());
    Ok(store::completeness(&**store, record, now, shared.incomplete_after).await?)
}

/// `DELETE /api/records/{id}`.
pub(super) async fn delete(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Error> {
    params::none(query.as_deref())?;
    let id = params::record_id(&id)?;
    if shared.store()?.delete(id).await? {
        tracing::info!(record = %id, "a record was deleted through the API");
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_record(id))
    }
}

/// `GET /api/records/{id}/segments`.
pub(super) async fn segments(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<dto::Segments>, Error> {
    let params = Params::read(query.as_deref(), &[&["batch", "limit"]])?;
    let first = params.number("batch", 0, u32::MAX)?.unwrap_or(0);
    let limit = params
        .number("limit", 1, MAX_BATCHES)?
        .unwrap_or(DEFAULT_BATCHES);
    let id = params::record_id(&id)?;
    let Record::Stream(stream) = find(&shared, id).await? else {
        return Err(Error::NotFound {
            kind: "stream with the id",
            id: id.to_string(),
        });
    };
    let end = stream.batches.min(first.saturating_add(limit));
    let mut page = dto::Segments {
        segments: Vec::new(),
        missing: Vec::new(),
        next: (end < stream.batches).then_some(end),
    };
    for index in first..end {
        match shared.store()?.segments(id, index).await? {
            Some(batch) => page
                .segments
                .extend(batch.segments.iter().map(dto::Segment::from)),
            None => page.missing.push(index),
        }
    }
    Ok(Json(page))
}

/// The record with this id.
pub(super) async fn find(shared: &Shared, id: RecordId) -> Result<Record, Error> {
    shared.store()?.get(id).await?.ok_or_else(|| no_record(id))
}

fn no_record(id: RecordId) -> Error {
    Error::NotFound {
        kind: "record",
        id: id.to_string(),
    }
}
