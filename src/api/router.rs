//! Which path goes where, and what holds for every one of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::guard::{self, Guard};
use super::resources::Resources;
use super::{Config, Parts, backups, bodies, events, pages, records, replays, status};
use crate::store::Store;

/// What every handler can reach.
pub(super) type Shared = Arc<Inner>;

/// The inside of [`Shared`].
pub(super) struct Inner {
    pub(super) parts: Parts,
    pub(super) guard: Guard,
    pub(super) resources: Resources,
    pub(super) started: Instant,
    pub(super) started_at: jiff::Timestamp,
    pub(super) streams: Arc<Semaphore>,
    pub(super) max_streams: usize,
    pub(super) max_body_bytes: usize,
    pub(super) closing: CancellationToken,
    pub(super) incomplete_after: Duration,
    request_timeout: Duration,
}

impl Inner {
    /// The store, or who else has one.
    pub(super) fn store(&self) -> Result<&Arc<dyn Store>, Error> {
        self.parts.store.as_ref().ok_or_else(|| Error::NoStore {
            node: self.parts.status.node().to_string(),
            mode: self.parts.status.mode().to_owned(),
        })
    }
}

/// The whole API of one node.
pub(super) fn build(config: &Config, parts: Parts, closing: CancellationToken) -> Router {
    let listen = config.listen.ip().to_canonical();
    let shared: Shared = Arc::new(Inner {
        parts,
        guard: Guard::new(config.token.clone(), &config.allowed_hosts, listen),
        resources: Resources::new(),
        started: Instant::now(),
        started_at: jiff::Timestamp::now(),
        streams: Arc::new(Semaphore::new(config.max_event_streams)),
        max_streams: config.max_event_streams,
        max_body_bytes: config.max_body_bytes,
        closing,
        incomplete_after: config.incomplete_after,
        request_timeout: config.request_timeout,
    });
    guarded()
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            guard::api,
        ))
        .route("/healthz", get(status::health))
        .fallback(fallback)
        .method_not_allowed_fallback(async |method: Method| {
            let method = method.to_string();
            Error::Method { method }
        })
        .layer(DefaultBodyLimit::max(config.max_body_bytes))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), observe))
        .with_state(shared)
}

/// What wants the token.
fn guarded() -> Router<Shared> {
    Router::new()
        .route("/api/records", get(records::list))
        .route(
            "/api/records/{id}",
            get(records::show).delete(records::delete),
        )
        .route("/api/records/{id}/segments", get(records::segments))
        .route("/api/records/{id}/request/body", get(bodies::request))
        .route("/api/records/{id}/response/body", get(bodies::response))
        .route("/api/status", get(status::status))
        .route("/api/events", get(events::stream))
        .route("/api/replays", post(replays::start).get(replays::list))
        .route(
            "/api/replays/{id}",
            get(replays::show).delete(replays::cancel),
        )
        .route("/api/backups", post(backups::make).get(backups::list))
        .route("/metrics", get(status::metrics))
}

/// The dashboard's files; everything else is not there.
async fn fallback(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
) -> Response {
    let answer = match pages::find(uri.path()) {
        Some(_) if method != Method::GET && method != Method::HEAD => Err(Error::Method {
            method: method.to_string(),
        }),
        Some(page) => shared
            .guard
            .admits_to_page(&headers)
            .map(|()| page.answer(&headers)),
        // A stranger learns nothing of what is there and what is not.
        None => shared
            .guard
            .admits(&method, &headers)
            .and(Err(Error::Route(uri.path().to_owned()))),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Bounds the time until an answer begins, counts it, and sets the fields that every answer has.
async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let mut response = tokio::time::timeout(shared.request_timeout, next.run(request))
        .await
        .unwrap_or_else(|_| Error::Timeout(shared.request_timeout.as_secs()).into_response());
    let metrics = &shared.parts.metrics;
    metrics.observe(route, response.status().as_u16(), start.elapsed());
    let not_modified = response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    let resources = HeaderValue::from_static("same-origin");
    headers.insert("cross-origin-resource-policy", resources);
    if !headers.contains_key(header::CACHE_CONTROL) && !not_modified {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
