//! Sends recorded requests to a target and compares what comes back.
//!
//! ```text
//! feed (pages through the store, keeps the pace) --> lanes (one per recorded connection, in order)
//!     --> trial (carry over, send, read, compare), or stream, web_socket (turn by turn) --> report, result sink
//! ```
//!
//! Memory is bounded by the number of prefetched records, of lanes, and of bytes of a body that are looked
//! into. Nothing is sent twice, but for a request that cannot have had an effect (see `link`).

mod request;
mod reply;
mod stand_in;
mod circuit;
mod trial;
mod stream;
mod web_socket;
mod lanes;
mod feed;
mod runs;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::diff::{self, Difference};
use super::link::Connector;
use super::report::{Report, Totals, display};
use super::{AllowedTargets, CarryRules, Error, Ignore, Speed, Target};
use crate::record::{Exchange, RecordId, Stream};
use crate::store::Query;

pub(super) use circuit::Circuit;
pub(super) use lanes::Lanes;
pub use runs::Runs;
pub use stand_in::StandIn;
pub(super) use trial::Context;

/// The name of one replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Uuid);

impl RunId {
    /// A new name, later than every one before.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which records are replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each run")]
pub enum Selection {
    /// Those that a query lists, oldest first; its order, cursor and limit do not matter.
    Window(Query),
    /// These, in this order.
    Ids(Vec<RecordId>),
}

/// Which requests are sent one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepOrder {
    /// Those that came on one connection.
    #[default]
    PerConnection,
    /// Those that came from one IP address.
    PerClient,
}

/// What the `Host` field of a replayed request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The target.
    #[default]
    Target,
    /// What was recorded.
    Recorded,
}

/// Whether streams are sent. They carry no marker, and are bytes that only their own service understands; so towards an
/// HTTP target they have to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// They are.
    Sent,
    /// They are not.
    Skipped,
}

/// How requests are sent and answers compared.
#[derive(Debug, Clone)]
pub struct Sending {
    /// Where they go; checked against the allowed targets.
    pub target: Target,
    /// What `Host` says.
    pub host: HostHeader,
    /// Which requests keep their order.
    pub keep_order: KeepOrder,
    /// How many requests are on their way at the same time; `None` for the configured number.
    pub concurrency: Option<usize>,
    /// Fields that are set in every request, after what was recorded was taken out.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields that are taken out of every request.
    pub remove_headers: Vec<HeaderName>,
    /// Which tokens are carried over.
    pub carry: CarryRules,
    /// What is compared.
    pub diff: diff::Rules,
    /// Whether streams are sent, not only requests.
    pub streams: Streams,
    /// What of the server's bytes in a stream may be anything.
    pub ignore_bytes: Ignore,
}

impl Sending {
    /// Sends to `target`, all else by default: streams where the target speaks no HTTP.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Self {
            streams: match target.scheme().is_http() {
                true => Streams::Skipped,
                false => Streams::Sent,
            },
            ignore_bytes: Ignore::default(),
            target,
            host: HostHeader::default(),
            keep_order: KeepOrder::default(),
            concurrency: None,
            set_headers: Vec::new(),
            remove_headers: Vec::new(),
            carry: CarryRules::default(),
            diff: diff::Rules::default(),
        }
    }
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which records.
    pub selection: Selection,
    /// How they are sent and compared.
    pub sending: Sending,
    /// How fast.
    pub speed: Speed,
    /// How often the whole selection is replayed, one round after the other.
    pub rounds: u32,
    /// At most this many records per round.
    pub max_records: Option<u64>,
}

impl Plan {
    /// Replays `selection` once against `target`, as fast as it goes. Streams take part where the selection names its
    /// records, their service or their protocol, or the target speaks no HTTP.
    #[must_use]
    pub fn new(selection: Selection, target: Target) -> Self {
        let mut sending = Sending::to(target);
        let named = match &selection {
            Selection::Ids(_) => true,
            Selection::Window(Query { filter, .. }) => {
                filter.service.is_some() || filter.protocol.as_deref() == Some("tcp")
            }
        };
        if named {
            sending.streams = Streams::Sent;
        }
        Self {
            selection,
            sending,
            speed: Speed::default(),
            rounds: 1,
            max_records: None,
        }
    }
}

/// What holds for every replay.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where requests may be sent to.
    pub allowed_targets: AllowedTargets,
    /// TLS towards https targets; `None` trusts what the platform trusts.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Requests on their way at the same time, where a plan does not say.
    pub concurrency: usize,
    /// How much a plan may ask for.
    pub max_concurrency: usize,
    /// How many recorded connections are held open at the same time.
    pub max_lanes: usize,
    /// From sending a request to the end of its answer.
    pub request_timeout: Duration,
    /// For a connection to the target, with TLS.
    pub connect_timeout: Duration,
    /// Bodies up to this size are looked into, larger ones compared by digest.
    pub max_compared_body: u64,
    /// A run gives up after this many failed connections in a row.
    pub give_up_after: u64,
    /// How many runs may be under way.
    pub max_running: usize,
    /// How many runs, ended ones included, are remembered.
    pub history: usize,
    /// How many ids a plan may list.
    pub max_ids: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allowed_targets: AllowedTargets::default(),
            tls: None,
            concurrency: 32,
            max_concurrency: 1024,
            max_lanes: 256,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_compared_body: 1 << 20,
            give_up_after: 100,
            max_running: 4,
            history: 100,
            max_ids: 10_000,
        }
    }
}

impl Config {
    /// How a target is connected to, where it is allowed.
    pub(super) fn way_to(&self, target: &Target) -> Result<Connector, Error> {
        self.allowed_targets.check(target)?;
        Connector::new(target.clone(), self.tls.clone(), self.connect_timeout)
    }

    /// The concurrency of a plan, checked.
    fn concurrency_of(&self, sending: &Sending) -> Result<usize, Error> {
        let wanted = sending.concurrency.unwrap_or(self.concurrency);
        if (1..=self.max_concurrency).contains(&wanted) {
            return Ok(wanted);
        }
        Err(Error::Setting {
            key: "concurrency",
            value: wanted.to_string(),
            rule: "it lies from 1 to the configured maximum",
        })
    }
}

/// What came of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Answered as recorded.
    Same,
    /// Answered in another way.
    Different,
    /// Not answered.
    Failed,
    /// Not sent, for a reason in the record.
    Skipped,
    /// Not sent because the target is down: the recorded answer stands.
    AnsweredFromRecord,
}

impl Verdict {
    /// The name used in topics, JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::AnsweredFromRecord => "answered_from_record",
        }
    }
}

/// What came of one record, in full.
#[derive(Debug, Clone, Serialize)]
pub struct ReplayResult {
    /// The run.
    pub run: RunId,
    /// The record, which holds the recorded answer.
    #[serde(serialize_with = "display")]
    pub record: RecordId,
    /// What came of it.
    pub verdict: Verdict,
    /// The request's method; `TCP` of a stream.
    pub method: Arc<str>,
    /// The request's path, without the query; the service of a stream.
    pub path: Arc<str>,
    /// Whether the request went out.
    pub sent: bool,
    /// How many values were carried over into it.
    pub carried: u64,
    /// The recorded status.
    pub recorded_status: Option<u16>,
    /// The status that came.
    pub replayed_status: Option<u16>,
    /// Time to the first byte as recorded, microseconds.
    pub recorded_first_byte_us: Option<u64>,
    /// Time to the first byte as replayed, microseconds.
    pub replayed_first_byte_us: Option<u64>,
    /// What differs.
    pub differences: Vec<Difference>,
    /// How many differences over the limit are not listed.
    pub more_differences: usize,
    /// What could not be compared.
    pub notes: Vec<String>,
    /// Why it failed or was not sent.
    pub reason: Option<String>,
    /// The recorded answer, where it stands in for the target's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Box<StandIn>>,
}

impl ReplayResult {
    /// Nothing has come of it so far.
    fn pending(run: RunId, exchange: &Exchange) -> Self {
        Self {
            run,
            record: exchange.id,
            verdict: Verdict::Failed,
            method: exchange.request.method.clone(),
            path: exchange.request.path().into(),
            sent: false,
            carried: 0,
            recorded_status: exchange.response.as_ref().map(|r| r.status),
            replayed_status: None,
            recorded_first_byte_us: exchange.timing.first_byte_us,
            replayed_first_byte_us: None,
            differences: Vec::new(),
            more_differences: 0,
            notes: Vec::new(),
            reason: None,
            answer: None,
        }
    }

    /// Nothing has come of it so far.
    fn of_stream(run: RunId, stream: &Stream) -> Self {
        Self {
            method: "TCP".into(),
            path: stream.service.clone(),
            verdict: Verdict::Failed,
            reason: None,
            ..Self::skipped(run, stream.id, "")
        }
    }

    /// One more difference; at most so many are listed.
    fn differs(&mut self, difference: Difference, most: usize) {
        if self.differences.len() < most {
            self.differences.push(difference);
        } else {
            self.more_differences += 1;
        }
    }

    /// A record that could not even be read.
    fn skipped(run: RunId, record: RecordId, reason: &str) -> Self {
        Self {
            run,
            record,
            verdict: Verdict::Skipped,
            method: "-".into(),
            path: "-".into(),
            sent: false,
            carried: 0,
            recorded_status: None,
            replayed_status: None,
            recorded_first_byte_us: None,
            replayed_first_byte_us: None,
            differences: Vec::new(),
            more_differences: 0,
            notes: Vec::new(),
            reason: Some(reason.to_owned()),
            answer: None,
        }
    }
}

/// Takes results as they come; neither method may wait.
pub trait ResultSink: Send + Sync + 'static {
    /// One record is done.
    fn result(&self, result: &ReplayResult);

    /// A run has ended.
    fn finished(&self, report: &Report);
}

/// A sink that takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl ResultSink for Discard {
    fn result(&self, _: &ReplayResult) {}

    fn finished(&self, _: &Report) {}
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It is under way.
    Running,
    /// Every record of the selection is done.
    Finished,
    /// It was told to stop.
    Cancelled,
    /// It stopped by itself, because of this.
    Failed(String),
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Finished => f.write_str("finished"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// The run.
    pub run: RunId,
    /// Where the requests go.
    pub target: String,
    /// How it stands.
    pub state: RunState,
    /// When it started, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: Option<String>,
    /// What came of the records that are done.
    pub totals: Totals,
}
