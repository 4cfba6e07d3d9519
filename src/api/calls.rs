//! What was spoken on a stream, as JSON: part of the record's.

use serde::{Deserialize, Serialize};

use crate::record;

/// What was spoken on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    missing_docs,
    reason = "named as the fields of `record::Application` and `record::Facts`"
)]
pub struct Application {
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_version: Option<String>,
    pub encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub alpn: Vec<String>,
    pub count: u64,
    pub calls: Vec<Call>,
    pub broken: bool,
}

/// One thing that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Microseconds from the stream's start to its first byte.
    pub offset_us: u64,
    /// What was asked, secrets masked.
    pub text: String,
    /// `ok`, `error`, or `unanswered`.
    pub outcome: String,
    /// Microseconds from its first byte to the answer's; `null` where none was seen.
    pub answer_us: Option<u64>,
    /// What the server said went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl From<&record::Application> for Application {
    fn from(application: &record::Application) -> Self {
        let facts = &application.facts;
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            protocol: application.protocol.to_string(),
            user: text(&facts.user),
            database: text(&facts.database),
            server_version: text(&facts.server_version),
            encrypted: facts.encrypted,
            server_name: text(&facts.server_name),
            alpn: facts.alpn.iter().map(ToString::to_string).collect(),
            count: application.count,
            calls: application.calls.iter().map(Into::into).collect(),
            broken: application.broken,
        }
    }
}

impl From<&record::Call> for Call {
    fn from(call: &record::Call) -> Self {
        let error = call
            .answer
            .as_ref()
            .and_then(|answer| answer.error.as_deref());
        let outcome = match (&call.answer, error) {
            (None, _) => "unanswered",
            (Some(_), None) => "ok",
            (Some(_), Some(_)) => "error",
        };
        Self {
            offset_us: call.offset_us,
            text: call.text.to_string(),
            outcome: outcome.to_owned(),
            answer_us: call.answer.as_ref().map(|answer| answer.after_us),
            error: error.map(str::to_owned),
        }
    }
}
