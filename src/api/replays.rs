//! Replays: started, watched, cancelled. Who replays stands behind [`Replays`].

use async_trait::async_trait;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Error;
use super::params;
use super::router::Shared;
use crate::store::Filter;

/// Requests under way at once, unless asked otherwise.
const DEFAULT_CONCURRENCY: usize = 16;
/// Requests under way at once, at most.
const MAX_CONCURRENCY: usize = 1024;
/// The fastest pace in times of the original.
const MAX_SPEED: f64 = 1000.0;
/// The slowest pace in times of the original.
const MIN_SPEED: f64 = 0.01;
/// Requests per second, at most.
const MAX_RATE: f64 = 1_000_000.0;

/// How fast recorded requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// With the recorded distances divided by this.
    Times(f64),
    /// This many per second.
    PerSecond(f64),
    /// As fast as the concurrency allows.
    Max,
}

/// A replay as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayRequest {
    /// Where to: an `http`, `https`, `tcp` or `tls` URL.
    pub target: url::Url,
    /// Records that started at or after this, microseconds since the Unix epoch.
    pub start_us: Option<i64>,
    /// Records that started before this, microseconds since the Unix epoch.
    pub end_us: Option<i64>,
    /// Which records.
    pub filter: Filter,
    /// How fast.
    pub pace: Pace,
    /// How many at once.
    pub concurrency: usize,
    /// Whether requests say the recorded `Host`, not the target's.
    pub keep_host: bool,
    /// Response header fields that may differ, by name.
    pub ignore_headers: Vec<String>,
    /// JSON pointers into response bodies that may differ with all beneath them; `*` is any name or index.
    pub ignore_json: Vec<String>,
    /// Regular expressions: what they find in what a stream's server said may be anything.
    pub ignore_bytes: Vec<String>,
}

/// Why a replay is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefused {
    /// The configuration does not name the target.
    #[error(
        "`{0}` is not in `playback.allowed_targets`: replay sends only where the configuration allows"
    )]
    TargetNotAllowed(String),
    /// As many as may run at once.
    #[error("{0} replays are running, which is the limit: cancel one or wait")]
    TooMany(usize),
    /// A key's value is not possible.
    #[error("{message}")]
    Invalid {
        /// The key.
        parameter: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// Who replays. `app` implements it with the playback module.
#[async_trait]
pub trait Replays: Send + Sync + 'static {
    /// Starts one; answers its id at once.
    ///
    /// # Errors
    /// [`ReplayRefused`] where it may not or cannot run.
    async fn start(&self, request: ReplayRequest) -> Result<String, ReplayRefused>;

    /// One short object for each that runs or ran lately, newest first.
    async fn list(&self) -> Vec<Value>;

    /// The report so far; `None` for an unknown id.
    async fn report(&self, id: &str) -> Option<Value>;

    /// Cancels one; false for an unknown id. To cancel what has ended changes nothing.
    async fn cancel(&self, id: &str) -> bool;
}

/// The JSON of `POST /api/replays`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    target: String,
    start: Option<String>,
    end: Option<String>,
    #[serde(default)]
    filter: FilterForm,
    speed: Option<Speed>,
    rate: Option<f64>,
    concurrency: Option<usize>,
    #[serde(default)]
    keep_host: bool,
    #[serde(default)]
    ignore_headers: Vec<String>,
    #[serde(default)]
    ignore_json: Vec<String>,
    #[serde(default)]
    ignore_bytes: Vec<String>,
}

/// The parameters of a listing, as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterForm {
    node: Option<String>,
    service: Option<String>,
    protocol: Option<String>,
    method: Option<String>,
    status: Option<StatusForm>,
    host: Option<String>,
    path: Option<String>,
    q: Option<String>,
    outcome: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a status such as 404, or a class such as \"5xx\""
)]
enum StatusForm {
    Number(u16),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number such as 2.0, or \"max\"")]
enum Speed {
    Times(f64),
    Named(String),
}

/// `POST /api/replays`.
pub(super) async fn start(
    State(shared): State<Shared>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    content: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    params::none(query.as_deref())?;
    let replays = replays(&shared)?;
    let content = content.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge(shared.max_body_bytes),
        _ => Error::Content(rejection.body_text()),
    })?;
    let form: Form = json_content(&headers, &content)?;
    let id = replays.start(form.try_into()?).await?;
    let location = format!("/api/replays/{id}");
    let accepted = (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(json!({ "id": id })),
    );
    Ok(accepted.into_response())
}

/// `GET /api/replays`.
pub(super) async fn list(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Error> {
    params::none(query.as_deref())?;
    Ok(Json(json!({ "replays": replays(&shared)?.list().await })))
}

/// `GET /api/replays/{id}`.
pub(super) async fn show(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Error> {
    params::none(query.as_deref())?;
    let report = replays(&shared)?.report(&id).await;
    report
        .map(Json)
        .ok_or(Error::NotFound { kind: "replay", id })
}

/// `DELETE /api/replays/{id}`.
pub(super) async fn cancel(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Error> {
    params::none(query.as_deref())?;
    if replays(&shared)?.cancel(&id).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::NotFound { kind: "replay", id })
    }
}

fn replays(shared: &Shared) -> Result<&dyn Replays, Error> {
    shared
        .parts
        .replays
        .as_deref()
        .ok_or_else(|| Error::NoReplays {
            node: shared.parts.status.node().to_string(),
            mode: shared.parts.status.mode().to_owned(),
        })
}

/// Reads JSON content; an error names the key. The media type is asked for because a page of another origin
/// can send any other without asking the browser first.
fn json_content<T: for<'de> Deserialize<'de>>(
    headers: &HeaderMap,
    content: &[u8],
) -> Result<T, Error> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err(Error::Content(format!(
            "its type is `{}`",
            media_type.trim()
        )));
    }
    let mut reader = serde_json::Deserializer::from_slice(content);
    let form = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        match error.inner().classify() {
            serde_json::error::Category::Data if path != "." => {
                Error::parameter(&path, error.inner().to_string())
            }
            serde_json::error::Category::Data => match missing_field(error.inner()) {
                Some(name) => Error::parameter(&name, "is missing"),
                None => Error::Content(error.inner().to_string()),
            },
            _ => Error::Content(error.inner().to_string()),
        }
    })?;
    reader
        .end()
        .map_err(|error| Error::Content(error.to_string()))?;
    Ok(form)
}

/// The name in serde's "missing field `…`", which has no path of its own.
fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let name = text.strip_prefix("missing field `")?.split('`').next()?;
    Some(name.to_owned())
}

impl TryFrom<Form> for ReplayRequest {
    type Error = Error;

    fn try_from(form: Form) -> Result<Self, Error> {
        let time = |name, text: &Option<String>| {
            text.as_deref()
                .map(|text| params::micros(name, text))
                .transpose()
        };
        let (start_us, end_us) = (time("start", &form.start)?, time("end", &form.end)?);
        if let (Some(start), Some(end)) = (start_us, end_us)
            && start >= end
        {
            return Err(Error::parameter("end", "must be later than `start`"));
        }
        let concurrency = form.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
        if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
            let message = format!("`{concurrency}` must be from 1 to {MAX_CONCURRENCY}");
            return Err(Error::parameter("concurrency", message));
        }
        Ok(Self {
            target: target(&form.target)?,
            start_us,
            end_us,
            filter: form.filter.try_into()?,
            pace: pace(form.speed, form.rate)?,
            concurrency,
            keep_host: form.keep_host,
            ignore_headers: form.ignore_headers,
            ignore_json: pointers(form.ignore_json)?,
            ignore_bytes: form.ignore_bytes,
        })
    }
}

fn pointers(texts: Vec<String>) -> Result<Vec<String>, Error> {
    match texts.iter().find(|text| !text.starts_with('/')) {
        Some(text) => {
            let message = format!("`{text}` must be a JSON pointer such as /items/*/id");
            Err(Error::parameter("ignore_json", message))
        }
        None => Ok(texts),
    }
}

fn target(text: &str) -> Result<url::Url, Error> {
    let parsed = url::Url::parse(text).ok();
    let spoken = ["http", "https", "tcp", "tls"];
    let usable = parsed.filter(|url| spoken.contains(&url.scheme()) && url.has_host());
    usable.ok_or_else(|| {
        let message = format!(
            "`{text}` must be a URL such as http://127.0.0.1:9000, or tcp://127.0.0.1:6379 for streams"
        );
        Error::parameter("target", message)
    })
}

fn pace(speed: Option<Speed>, rate: Option<f64>) -> Result<Pace, Error> {
    match (speed, rate) {
        (Some(_), Some(_)) => Err(Error::parameter("rate", "cannot stand beside `speed`")),
        (None, Some(rate)) if rate > 0.0 && rate <= MAX_RATE => Ok(Pace::PerSecond(rate)),
        (None, Some(rate)) => Err(Error::parameter(
            "rate",
            format!("`{rate}` must be over 0 and at most {MAX_RATE} requests per second"),
        )),
        (None, None) => Ok(Pace::Times(1.0)),
        (Some(Speed::Named(name)), None) if name == "max" => Ok(Pace::Max),
        (Some(Speed::Times(times)), None) if (MIN_SPEED..=MAX_SPEED).contains(&times) => {
            Ok(Pace::Times(times))
        }
        (Some(speed), None) => {
            let seen = match speed {
                Speed::Named(name) => name,
                Speed::Times(times) => times.to_string(),
            };
            let message = format!("`{seen}` must be from {MIN_SPEED} to {MAX_SPEED}, or \"max\"");
            Err(Error::parameter("speed", message))
        }
    }
}

impl TryFrom<FilterForm> for Filter {
    type Error = Error;

    /// Goes by way of a query string, so that both spellings obey one set of rules.
    fn try_from(form: FilterForm) -> Result<Self, Error> {
        let status = form.status.map(|status| match status {
            StatusForm::Number(number) => number.to_string(),
            StatusForm::Text(text) => text,
        });
        let parts = [
            ("node", form.node),
            ("service", form.service),
            ("protocol", form.protocol),
            ("method", form.method),
            ("status", status),
            ("host", form.host),
            ("path", form.path),
            ("q", form.q),
            ("outcome", form.outcome),
        ];
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in parts {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        params::events_filter(Some(&query.finish())).map_err(|error| match error {
            Error::Parameter { name, message } => Error::Parameter {
                name: format!("filter.{name}"),
                message,
            },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StatusFilter;

    fn read(text: &str) -> Result<ReplayRequest, Error> {
        let headers = [(
            header::CONTENT_TYPE,
            "application/json; charset=utf-8".parse().unwrap(),
        )];
        let form: Form = json_content(&headers.into_iter().collect(), text.as_bytes())?;
        form.try_into()
    }

    #[test]
    fn a_whole_request_is_read() {
        let request = read(
            r#"{"target": "http://127.0.0.1:9000", "start": "2026-01-31T12:00:00Z", "speed": 2,
                "filter": {"status": 404, "path": "/a&b"}, "concurrency": 4}"#,
        )
        .unwrap();
        assert_eq!(request.target.as_str(), "http://127.0.0.1:9000/");
        assert_eq!((request.pace, request.concurrency), (Pace::Times(2.0), 4));
        assert_eq!(request.filter.status, Some(StatusFilter::Exactly(404)));
        assert_eq!(request.filter.path_prefix.as_deref(), Some("/a&b"));
        let fast = read(r#"{"target": "https://h", "speed": "max"}"#).unwrap();
        assert_eq!(
            (fast.pace, fast.concurrency),
            (Pace::Max, DEFAULT_CONCURRENCY)
        );
    }

    #[test]
    fn each_bad_key_is_named() {
        let cases = [
            (r#"{}"#, "target"),
            (r#"{"target": 7}"#, "target"),
            (r#"{"target": "file:///etc/passwd"}"#, "target"),
            (r#"{"target": "localhost:80"}"#, "target"),
            (r#"{"target": "http://h", "start": "x"}"#, "start"),
            (
                r#"{"target": "http://h", "start": "2026-01-31T12:00:00Z", "end": "2026-01-31T12:00:00Z"}"#,
                "end",
            ),
            (r#"{"target": "http://h", "speed": 0}"#, "speed"),
            (r#"{"target": "http://h", "speed": "fast"}"#, "speed"),
            (r#"{"target": "http://h", "speed": []}"#, "speed"),
            (r#"{"target": "http://h", "rate": 0}"#, "rate"),
            (r#"{"target": "http://h", "rate": 1, "speed": 1}"#, "rate"),
            (r#"{"target": "http://h", "concurrency": 0}"#, "concurrency"),
            (
                r#"{"target": "http://h", "concurrency": -1}"#,
                "concurrency",
            ),
            (
                r#"{"target": "http://h", "filter": {"status": 7}}"#,
                "filter.status",
            ),
            (
                r#"{"target": "http://h", "filter": {"colour": "red"}}"#,
                "filter.colour",
            ),
            (r#"{"target": "http://h", "spede": 1}"#, "spede"),
            (
                r#"{"target": "http://h", "ignore_json": ["id"]}"#,
                "ignore_json",
            ),
        ];
        for (text, name) in cases {
            match read(text) {
                Err(Error::Parameter { name: named, .. }) => assert_eq!(named, name, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(read("{"), Err(Error::Content(_))));
        assert!(matches!(
            read(r#"{"target": "http://h"} x"#),
            Err(Error::Content(_))
        ));
    }
}
