//! Recorded content as it was, streamed piece by piece.
//!
//! It is somebody else's content under our origin: it goes out as a download, sandboxed and unsniffable, so
//! that a recorded page cannot act as the dashboard.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::error::Error;
use super::router::Shared;
use super::{params, records};
use crate::record::{self, Headers, RecordId, Side};
use crate::store::Store;

/// Content codings that every client can undo or has no use for.
const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// `GET /api/records/{id}/request/body`.
pub(super) async fn request(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    params::none(query.as_deref())?;
    download(&shared, params::record_id(&id)?, Side::Request).await
}

/// `GET /api/records/{id}/response/body`.
pub(super) async fn response(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Error> {
    params::none(query.as_deref())?;
    download(&shared, params::record_id(&id)?, Side::Response).await
}

async fn download(shared: &Shared, id: RecordId, side: Side) -> Result<Response, Error> {
    let store = Arc::clone(shared.store()?);
    let record = records::find(shared, id).await?;
    let found = record.as_exchange().and_then(|exchange| match side {
        Side::Request => Some((&exchange.request.headers, &exchange.request.body)),
        Side::Response => exchange.response.as_ref().map(|r| (&r.headers, &r.body)),
    });
    let (headers, body) = found.ok_or_else(|| Error::NotFound {
        kind: match side {
            Side::Request => "request content for",
            Side::Response => "response content for",
        },
        id: id.to_string(),
    })?;
    let fields = fields(id, side, headers, body);
    Ok((fields, content(store, id, side, body).await?).into_response())
}

/// The kept bytes. What is missing at the start is an error, what is missing later breaks the answer off.
async fn content(
    store: Arc<dyn Store>,
    id: RecordId,
    side: Side,
    body: &record::Body,
) -> Result<Body, Error> {
    if body.chunks == 0 {
        return Ok(Body::from(body.inline.clone()));
    }
    let chunks = body.chunks;
    let first = piece(&store, id, side, 0, chunks).await?;
    let rest = stream::iter(1..chunks).then(move |index| {
        let store = Arc::clone(&store);
        async move { piece(&store, id, side, index, chunks).await }
    });
    let rest = rest.inspect_err(move |error| {
        tracing::warn!(record = %id, %error, "a recorded body could not be read to its end");
    });
    let all = stream::once(std::future::ready(Ok(first))).chain(rest);
    Ok(Body::from_stream(all))
}

async fn piece(
    store: &Arc<dyn Store>,
    id: RecordId,
    side: Side,
    index: u32,
    chunks: u32,
) -> Result<Bytes, Error> {
    let found = store.chunk(id, side, index).await?;
    found.ok_or(Error::MissingChunk { index, chunks })
}

fn fields(id: RecordId, side: Side, recorded: &Headers, body: &record::Body) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let media_type = recorded
        .first("content-type")
        .and_then(|value| HeaderValue::from_bytes(value).ok())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::CONTENT_TYPE, media_type);
    let coding = recorded.first("content-encoding").and_then(|value| {
        CODINGS
            .into_iter()
            .find(|coding| value.eq_ignore_ascii_case(coding.as_bytes()))
    });
    // A truncated coded body cannot be decoded to its end: leave it to the reader.
    if let (Some(coding), false) = (coding, body.truncated) {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let side = match side {
        Side::Request => "request",
        Side::Response => "response",
    };
    let name = format!("attachment; filename=\"{id}-{side}\"");
    let name = HeaderValue::from_str(&name).expect("an id is hexadecimal digits and hyphens");
    fields.insert(header::CONTENT_DISPOSITION, name);
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    fields.insert(header::CONTENT_SECURITY_POLICY, policy);
    if body.truncated {
        fields.insert("qproxy-truncated", HeaderValue::from_static("true"));
    } else if body.chunks > 0 {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.bytes));
    }
    fields
}
