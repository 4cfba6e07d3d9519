//! What can go wrong with a request, and the only place where that becomes a status code.

use std::net::SocketAddr;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::replays::ReplayRefused;
use crate::store;
use crate::store::embedded::BackupError;

/// A configuration that is refused before a socket is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Everyone on the network could read and delete records.
    #[error(
        "the API would listen on {0}, which others can reach, without a token: set `api.token` \
         (or QPROXY_API_TOKEN), or listen on 127.0.0.1"
    )]
    PublicWithoutToken(SocketAddr),
    /// No client could send it.
    #[error("`api.token` must be one or more visible ASCII characters without spaces")]
    UnusableToken,
    /// A limit under which nothing works.
    #[error("the API's limit `{0}` is 0: nothing could be served")]
    Zero(&'static str),
    /// Less than the HTTP library's own minimum.
    #[error("the API's limit `max_head_bytes` is {0}: it must be at least 8192")]
    SmallHead(usize),
}

/// Why the API does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The address is taken, not ours, or not allowed.
    #[error("could not listen on {address} for the API")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Why a request is not answered as it was meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter of the query or a key of the JSON content.
    #[error("{message}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// The content is not JSON at all.
    #[error("the content must be JSON with `Content-Type: application/json`: {0}")]
    Content(String),
    /// The content is over the limit.
    #[error("the content is larger than {0} bytes")]
    TooLarge(usize),
    /// No token, or not the right one.
    #[error("this API wants its token: send `Authorization: Bearer <token>`")]
    Unauthorized,
    /// A `Host` that is not this node's name.
    #[error(
        "`{0}` is not a name of this API: use localhost or 127.0.0.1, or add it to `api.allowed_hosts`"
    )]
    Host(String),
    /// A change that a page of another origin asked for.
    #[error("a page of another origin may not change anything here")]
    Origin,
    /// No such thing.
    #[error("there is no {kind} `{id}`")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its name.
        id: String,
    },
    /// No such route.
    #[error("there is nothing at {0}")]
    Route(String),
    /// The route is there, but not for this method.
    #[error("{method} is not possible here")]
    Method {
        /// The method.
        method: String,
    },
    /// This node keeps no records.
    #[error("node `{node}` (mode {mode}) keeps no records: ask the playback node's API")]
    NoStore {
        /// This node.
        node: String,
        /// Its mode.
        mode: String,
    },
    /// This node does not replay.
    #[error("node `{node}` (mode {mode}) replays nothing: ask the playback node's API")]
    NoReplays {
        /// This node.
        node: String,
        /// Its mode.
        mode: String,
    },
    /// The records are not in files of ours.
    #[error("node `{node}` keeps its records in Redis: back that up with its own tools")]
    NoBackups {
        /// This node.
        node: String,
    },
    /// There is no new backup.
    #[error(transparent)]
    Backup(BackupError),
    /// The replay is not possible.
    #[error(transparent)]
    Replay(#[from] ReplayRefused),
    /// A piece of a body has not arrived yet or is gone.
    #[error("piece {index} of {chunks} of this body has not arrived or is gone")]
    MissingChunk {
        /// Which piece, from 0.
        index: u32,
        /// How many there should be.
        chunks: u32,
    },
    /// As many event streams as are allowed.
    #[error("{0} event streams are open, which is the limit: close one and try again")]
    Streams(usize),
    /// Not done in time.
    #[error("not answered within {0} s")]
    Timeout(u64),
    /// The store.
    #[error("{}", chain(.0))]
    Store(#[from] store::Error),
}

impl Error {
    /// A parameter that is not acceptable.
    pub(super) fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self::Parameter {
            name: name.to_owned(),
            message: message.into(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Parameter { .. } | Self::Content(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Host(_) | Self::Origin => StatusCode::FORBIDDEN,
            Self::NotFound { .. }
            | Self::Route(_)
            | Self::NoStore { .. }
            | Self::NoReplays { .. }
            | Self::NoBackups { .. }
            | Self::MissingChunk { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Backup(_) => StatusCode::CONFLICT,
            Self::Streams(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Replay(refused) => match refused {
                ReplayRefused::Invalid { .. } => StatusCode::BAD_REQUEST,
                ReplayRefused::TargetNotAllowed(_) => StatusCode::FORBIDDEN,
                ReplayRefused::TooMany(_) => StatusCode::CONFLICT,
            },
            Self::Store(error) => match error {
                // It is there, and nothing that is tried again here will open it.
                store::Error::Sealed { .. } => StatusCode::CONFLICT,
                store::Error::Corrupt { .. } | store::Error::Io { .. } => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// A name that programs can rely on.
    fn code(&self) -> &'static str {
        match self {
            Self::Parameter { .. } | Self::Replay(ReplayRefused::Invalid { .. }) => {
                "invalid_parameter"
            }
            Self::Content(_) => "invalid_content",
            Self::TooLarge(_) => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Host(_) => "unknown_host",
            Self::Origin => "foreign_origin",
            Self::NotFound { .. } => "not_found",
            Self::Route(_) => "no_route",
            Self::Method { .. } => "method_not_allowed",
            Self::NoStore { .. } => "no_store",
            Self::NoReplays { .. } => "no_replays",
            Self::NoBackups { .. } => "no_backups",
            Self::Backup(BackupError::TooMany(_)) => "too_many_backups",
            Self::Backup(_) => "busy",
            Self::Replay(ReplayRefused::TargetNotAllowed(_)) => "target_not_allowed",
            Self::Replay(ReplayRefused::TooMany(_)) => "too_many_replays",
            Self::MissingChunk { .. } => "incomplete_body",
            Self::Streams(_) => "too_many_streams",
            Self::Timeout(_) => "timeout",
            Self::Store(store::Error::Sealed { .. }) => "sealed",
            Self::Store(_) => "store",
        }
    }

    fn parameter_name(&self) -> Option<&str> {
        match self {
            Self::Parameter { name, .. } => Some(name),
            Self::Replay(ReplayRefused::Invalid { parameter, .. }) => Some(parameter),
            Self::Replay(ReplayRefused::TargetNotAllowed(_)) => Some("target"),
            _ => None,
        }
    }
}

impl From<BackupError> for Error {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Store(error) => Self::Store(error),
            other => Self::Backup(other),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self {
            tracing::warn!(
                error = chain(error),
                "the store failed a request of the API"
            );
        }
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if let Some(name) = self.parameter_name() {
            error["parameter"] = name.into();
        }
        let mut response = (self.status(), Json(json!({ "error": error }))).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized => {
                let challenge = HeaderValue::from_static("Bearer realm=\"qproxy\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Streams(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

/// An error with all its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
