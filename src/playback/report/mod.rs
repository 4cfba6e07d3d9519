//! What came of a replay: counts, latencies, and what differed, grouped by endpoint and path of difference.
//!
//! Everything is bounded: groups, examples, and the memory for percentiles; what is over a limit is counted
//! under one more group.

mod collect;
mod latency;
mod text;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::diff::Part;
use super::{RunId, RunState};
use crate::record::RecordId;

pub(super) use collect::Collector;
pub use latency::Percentiles;

/// What came of one replay.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// Where the requests went.
    pub target: String,
    /// How the run stands.
    pub state: RunState,
    /// What it comes to.
    pub verdict: Overall,
    /// When it started, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: Option<String>,
    /// How many requests had which verdict.
    pub totals: Totals,
    /// Time to the first byte.
    pub latency: Latencies,
    /// By method and path.
    pub endpoints: Vec<Endpoint>,
    /// By endpoint, part and path; the most frequent first.
    pub differences: Vec<DifferenceGroup>,
    /// Why requests failed, the most frequent first.
    pub failures: Vec<ReasonGroup>,
    /// Why records were not sent, the most frequent first.
    pub skips: Vec<ReasonGroup>,
    /// What could not be compared, the most frequent first.
    pub notes: Vec<ReasonGroup>,
}

/// What a replay comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Every answer was as recorded.
    Same,
    /// At least one was not, and none failed.
    Different,
    /// At least one request was not answered, or the run itself failed or was cancelled.
    Failed,
    /// Nothing was compared: no record fitted.
    Nothing,
}

impl Overall {
    /// For CI: 0 same, 1 different, 2 failed, 3 nothing.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Different => 1,
            Self::Failed => 2,
            Self::Nothing => 3,
        }
    }
}

/// How many requests had which verdict; they add up to `records`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records that are done.
    pub records: u64,
    /// Requests that went out.
    pub sent: u64,
    /// Answered as recorded.
    pub same: u64,
    /// Answered in another way.
    pub different: u64,
    /// Not answered.
    pub failed: u64,
    /// Not sent, for a reason in the record.
    pub skipped: u64,
    /// Not sent because the target is down: the recorded answer stands.
    pub answered_from_record: u64,
    /// Values carried over into requests.
    pub carried: u64,
}

/// Time to the first byte, of the requests that were compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// As recorded.
    pub recorded: Percentiles,
    /// As replayed.
    pub replayed: Percentiles,
}

/// The requests of one method and path template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// E.g. `GET /items/{id}`.
    pub endpoint: String,
    /// Answered as recorded.
    pub same: u64,
    /// Answered in another way.
    pub different: u64,
    /// Not answered.
    pub failed: u64,
    /// Not sent.
    pub skipped: u64,
    /// Answered from the record.
    pub answered_from_record: u64,
}

/// Differences at one place of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferenceGroup {
    /// The endpoint.
    pub endpoint: String,
    /// Which part of the response.
    pub part: Part,
    /// Where in it, with `*` for indices.
    pub path: String,
    /// How often.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The record.
    #[serde(serialize_with = "display")]
    pub record: RecordId,
    /// What was recorded.
    pub recorded: Option<String>,
    /// What came.
    pub replayed: Option<String>,
}

/// Something that happened several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReasonGroup {
    /// What.
    pub reason: Arc<str>,
    /// How often.
    pub count: u64,
    /// Some of the records.
    #[serde(serialize_with = "display_all")]
    pub examples: Vec<RecordId>,
}

/// Method and path, with `{id}` for each segment that is a number, a UUID or long hex.
#[must_use]
pub fn endpoint(method: &str, path: &str) -> String {
    let segments = path.split('/').map(|s| if is_id(s) { "{id}" } else { s });
    let path = segments.collect::<Vec<_>>().join("/");
    format!("{method} {path}")
}

fn is_id(segment: &str) -> bool {
    let digits = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit());
    let hex = segment.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    digits || (hex && segment.len() >= 16)
}

pub(super) fn display<T: fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn display_all<S: Serializer>(ids: &[RecordId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_do_not_depend_on_ids() {
        assert_eq!(endpoint("GET", "/items/17/tags"), "GET /items/{id}/tags");
        assert_eq!(
            endpoint("PUT", "/a/0190b5e2-7c1a-7def-8123-456789abcdef"),
            "PUT /a/{id}"
        );
        assert_eq!(endpoint("GET", "/feed/v2/"), "GET /feed/v2/");
        assert_eq!(endpoint("GET", "/deadbeefdeadbeef00"), "GET /{id}");
    }
}
