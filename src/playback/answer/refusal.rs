//! Answers that are not from a record: why, with which status, and what the client is told.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::json;

use super::AnswerBody;
use crate::playback::link::SendError;
use crate::playback::miss::Explanation;
use crate::playback::script::Unfit;
use crate::playback::{Error, described};
use crate::record::{Grpc, RecordId};
use crate::store;

/// Why a request was not answered from a record.
pub(super) enum Refusal {
    Miss(Box<Explanation>),
    BodyTooLarge(u64),
    BodyTimeout(Duration),
    BodyBroken(Box<dyn std::error::Error + Send + Sync>),
    /// A recorded status that is none.
    Status(u16),
    /// A handshake without a key that is one.
    WebSocketKey,
    /// A handshake of another version than 13.
    WebSocketVersion,
    /// What followed this recorded handshake cannot be played back.
    Conversation(RecordId, Unfit),
    Store(Error),
    PassThrough(SendError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        Self::PassThrough(error)
    }
}

impl Refusal {
    /// Why what followed this recorded handshake is not there: it, or the store.
    pub(super) fn conversation(record: RecordId, why: Unfit) -> Self {
        match why {
            Unfit::Store(error) if !matches!(error, store::Error::Sealed { .. }) => {
                Self::Store(error.into())
            }
            why => Self::Conversation(record, why),
        }
    }

    /// The name used in metrics.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Miss(_) => "miss",
            Self::BodyTooLarge(_)
            | Self::BodyTimeout(_)
            | Self::BodyBroken(_)
            | Self::WebSocketKey
            | Self::WebSocketVersion => "refused",
            Self::Conversation(..) | Self::Status(_) | Self::Store(_) | Self::PassThrough(_) => {
                "failed"
            }
        }
    }

    pub(super) fn log(&self) {
        match self {
            Self::Store(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "no answer");
            }
            Self::PassThrough(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "no answer");
            }
            Self::Conversation(record, why) => {
                let error = why as &dyn std::error::Error;
                tracing::warn!(%record, error, "a recorded WebSocket cannot answer");
            }
            _ => tracing::debug!(kind = self.kind(), "no answer from the records"),
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Miss(_) => StatusCode::NOT_FOUND,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken(_) | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Status(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::PassThrough(SendError::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Conversation(..) | Self::PassThrough(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The code that a gRPC client is told.
    const fn grpc_status(&self) -> u32 {
        match self {
            Self::Miss(_) => 5,
            Self::BodyTooLarge(_) => 8,
            Self::BodyTimeout(_) | Self::PassThrough(SendError::Timeout) => 4,
            Self::BodyBroken(_) => 1,
            Self::WebSocketKey | Self::WebSocketVersion => 3,
            Self::Status(_) => 13,
            Self::Conversation(..) | Self::Store(_) | Self::PassThrough(_) => 14,
        }
    }

    /// The answer to whoever asked: a gRPC client takes a status, everyone else a text.
    pub(super) fn response(&self, asked: &Parts) -> Response<AnswerBody> {
        let kind = asked.headers.get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| Grpc::is_content_type(kind.as_bytes()));
        if grpc && asked.version == Version::HTTP_2 {
            self.grpc()
        } else {
            self.json(&asked.method)
        }
    }

    /// Trailers alone, as gRPC calls a response that is nothing but a status.
    fn grpc(&self) -> Response<AnswerBody> {
        let message = match self {
            Self::Miss(_) => "no recorded call fits this one",
            Self::BodyTooLarge(_) => {
                "no recorded call fits, and the request is too large to be passed on"
            }
            Self::BodyTimeout(_) => "the request did not arrive in time",
            Self::BodyBroken(_) => "the request broke off",
            Self::Status(_) => "the recorded status is none",
            Self::WebSocketKey | Self::WebSocketVersion | Self::Conversation(..) => {
                "gRPC is not WebSocket"
            }
            Self::Store(_) => "the records cannot be read",
            Self::PassThrough(_) => "the service behind did not answer",
        };
        let body = Empty::new().map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert("grpc-status", self.grpc_status().into());
        headers.insert("grpc-message", HeaderValue::from_static(message));
        response
    }

    /// The answer, in JSON; without content for HEAD.
    fn json(&self, method: &Method) -> Response<AnswerBody> {
        let text = match self {
            Self::Miss(explanation) => serde_json::to_string_pretty(explanation),
            Self::BodyTooLarge(limit) => serde_json::to_string_pretty(&json!({
                "error": "no recorded answer, and the request's body is too large to be passed on",
                "limit_bytes": limit,
            })),
            Self::BodyTimeout(limit) => serde_json::to_string_pretty(&json!({
                "error": "the request's body paused for too long",
                "limit_ms": limit.as_millis(),
            })),
            Self::BodyBroken(error) => explained("the request's body broke off", &**error),
            Self::Status(status) => serde_json::to_string_pretty(&json!({
                "error": "the recorded status is none", "status": status,
            })),
            Self::WebSocketKey => serde_json::to_string_pretty(&json!({
                "error": "the handshake's Sec-WebSocket-Key is not 16 bytes in Base64",
            })),
            Self::WebSocketVersion => serde_json::to_string_pretty(&json!({
                "error": "the handshake's Sec-WebSocket-Version is not 13",
            })),
            Self::Conversation(record, why) => serde_json::to_string_pretty(&json!({
                "error": "what followed the recorded handshake cannot be played back",
                "record": record.to_string(),
                "because": described(why),
            })),
            Self::Store(error) => explained("the records cannot be read", error),
            Self::PassThrough(error) => explained("the service behind did not answer", error),
        };
        let mut text = text.expect("strings and numbers have a JSON form");
        text.push('\n');
        let length = text.len();
        let content = if *method == Method::HEAD {
            String::new()
        } else {
            text
        };
        let body = Full::new(Bytes::from(content)).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CONTENT_LENGTH, length.into());
        if matches!(self, Self::WebSocketVersion) {
            let version = HeaderValue::from_static("13");
            headers.insert(header::SEC_WEBSOCKET_VERSION, version);
        }
        if matches!(
            self,
            Self::BodyTooLarge(_) | Self::BodyTimeout(_) | Self::BodyBroken(_)
        ) {
            // What is left of the body would be read as the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn explained(
    what: &str,
    error: &(dyn std::error::Error + 'static),
) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&json!({ "error": what, "because": described(error) }))
}
