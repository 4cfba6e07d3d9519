//! Asking for records by time and by what they are.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use crate::record::{Clear, Origin, Record, RecordId, Sealed};

/// Which way a listing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest start first.
    #[default]
    NewestFirst,
    /// Oldest start first.
    OldestFirst,
}

/// Where a listing goes on: after this id. Stays valid whatever is added, deleted or expired meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(RecordId);

impl Cursor {
    /// The place behind `id`.
    #[must_use]
    pub const fn after(id: RecordId) -> Self {
        Self(id)
    }

    /// The last id that was listed.
    #[must_use]
    pub const fn id(self) -> RecordId {
        self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.as_u128())
    }
}

/// A text that no listing gave out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no cursor: pass on what `next` of the page before said")]
pub struct InvalidCursor(String);

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = valid.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(|id| Self(RecordId::from_u128(id)))
            .ok_or_else(|| InvalidCursor(text.to_owned()))
    }
}

/// A status, or a class of them such as `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// Just this one.
    Exactly(u16),
    /// Those whose first digit is this one.
    Class(u16),
}

/// What a record must be to be listed; every part that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The recorder's name.
    pub node: Option<String>,
    /// The service's name.
    pub service: Option<String>,
    /// `http`, `h2`, `grpc`, `ws`, `tcp`.
    pub protocol: Option<String>,
    /// The method, compared with case.
    pub method: Option<String>,
    /// The response's status.
    pub status: Option<StatusFilter>,
    /// The `Host`, compared without case.
    pub host: Option<String>,
    /// How the path starts.
    pub path_prefix: Option<String>,
    /// A text that the target contains.
    pub text: Option<String>,
    /// How it ended: `ok`, `client_closed`, `upstream_failed`, `client_error`, `proxy_closed`.
    pub outcome: Option<String>,
}

impl Filter {
    /// Whether a record with this summary is wanted.
    #[must_use]
    pub fn matches(&self, summary: &Summary) -> bool {
        self.accepts(&View {
            node: summary.origin.node.as_str(),
            service: &summary.service,
            protocol: &summary.protocol,
            method: &summary.method,
            host: &summary.host,
            target: &summary.target,
            status: summary.status,
            outcome: &summary.outcome,
        })
    }

    pub(super) fn accepts(&self, view: &View<'_>) -> bool {
        let same = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        same(&self.node, view.node)
            && same(&self.service, view.service)
            && same(&self.protocol, view.protocol)
            && same(&self.method, view.method)
            && same(&self.outcome, view.outcome)
            && self
                .host
                .as_deref()
                .is_none_or(|h| h.eq_ignore_ascii_case(view.host))
            && self
                .path_prefix
                .as_deref()
                .is_none_or(|p| view.target.starts_with(p))
            && self.text.as_deref().is_none_or(|t| view.target.contains(t))
            && self.status.is_none_or(|want| match want {
                StatusFilter::Exactly(status) => view.status == Some(status),
                StatusFilter::Class(class) => view.status.is_some_and(|s| s / 100 == class),
            })
    }
}

/// The parts of a summary that a filter looks at, wherever they stand.
pub(super) struct View<'a> {
    pub(super) node: &'a str,
    pub(super) service: &'a str,
    pub(super) protocol: &'a str,
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) target: &'a str,
    pub(super) status: Option<u16>,
    pub(super) outcome: &'a str,
}

/// A listing's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Started at or after this, microseconds since the Unix epoch.
    pub start_us: Option<i64>,
    /// Started before this, microseconds since the Unix epoch.
    pub end_us: Option<i64>,
    /// What the records must be.
    pub filter: Filter,
    /// Which way.
    pub order: Order,
    /// Go on behind this one.
    pub cursor: Option<Cursor>,
    /// At most this many.
    pub limit: usize,
}

/// How far an id may run ahead of its record's start. Ids of one recorder never go back, so they do after its wall
/// clock was set back; without a bound, each question for an old window would look at everything newer.
const ID_LEAD_US: i64 = 5_000_000;

impl Query {
    /// The ids, from `floor` on, that can lie in the window and behind the cursor; `None` where none can.
    /// The exact start has to be compared as well: ids hold whole milliseconds.
    pub(super) fn ids(&self, floor: u128) -> Option<RangeInclusive<u128>> {
        let bound = |us: i64| RecordId::floor_at(us).as_u128();
        let mut low = self.start_us.map_or(0, bound).max(floor);
        let mut high = match self.end_us {
            None => u128::MAX,
            Some(end) => bound(end.saturating_add(ID_LEAD_US)).checked_sub(1)?,
        };
        if let Some(cursor) = self.cursor {
            let id = cursor.id().as_u128();
            match self.order {
                Order::NewestFirst => high = high.min(id.checked_sub(1)?),
                Order::OldestFirst => low = low.max(id.checked_add(1)?),
            }
        }
        (low <= high).then_some(low..=high)
    }
}

/// The part of `ids` behind `id`; `None` where nothing is left.
pub(super) fn behind(
    ids: &RangeInclusive<u128>,
    id: u128,
    order: Order,
) -> Option<RangeInclusive<u128>> {
    let rest = match order {
        Order::OldestFirst => id.checked_add(1)?..=*ids.end(),
        Order::NewestFirst => *ids.start()..=id.checked_sub(1)?,
    };
    (!rest.is_empty()).then_some(rest)
}

impl Default for Query {
    fn default() -> Self {
        Self {
            start_us: None,
            end_us: None,
            filter: Filter::default(),
            order: Order::default(),
            cursor: None,
            limit: 100,
        }
    }
}

/// What a listing shows of a record; of each text at most [`Summary::TEXT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The record.
    pub id: RecordId,
    /// Its place in its recorder's sequence.
    pub origin: Origin,
    /// The service's name.
    pub service: Arc<str>,
    /// `http`, `h2`, `grpc`, `ws`, `tcp`.
    pub protocol: Arc<str>,
    /// The method; empty for a stream.
    pub method: Arc<str>,
    /// The `Host`; empty for a stream.
    pub host: Arc<str>,
    /// The target; the upstream of a stream.
    pub target: Arc<str>,
    /// The response's status.
    pub status: Option<u16>,
    /// How it ended, by its name.
    pub outcome: Arc<str>,
    /// Start, microseconds since the Unix epoch.
    pub started_us: i64,
    /// How long it took, microseconds.
    pub duration_us: u64,
    /// Bytes from the client: content, or a stream's bytes.
    pub request_bytes: u64,
    /// Bytes to the client: content, or a stream's bytes.
    pub response_bytes: u64,
    /// The name of the key under which the rest of the record is sealed, where that is not open here: then `host` and
    /// `target` are empty.
    pub sealed: Option<Arc<str>>,
}

impl Summary {
    /// How much of any text a summary keeps; so that a summary is small whatever a peer sends.
    pub const TEXT_BYTES: usize = 512;

    /// Whether parts of the record may stand apart from it.
    #[must_use]
    pub fn may_have_pieces(&self) -> bool {
        // A stream has no method, and segments however short it was.
        self.method.is_empty() || self.request_bytes.max(self.response_bytes) > 0
    }
}

impl From<&Record> for Summary {
    fn from(record: &Record) -> Self {
        match record {
            Record::Exchange(exchange) => Self {
                id: exchange.id,
                origin: exchange.origin.clone(),
                service: shortened(&exchange.service),
                protocol: exchange.protocol.as_str().into(),
                method: shortened(&exchange.request.method),
                host: shortened(exchange.request.host()),
                target: shortened(&exchange.request.target),
                status: exchange.response.as_ref().map(|response| response.status),
                outcome: exchange.outcome.as_str().into(),
                started_us: exchange.timing.started_us,
                duration_us: exchange.timing.end_us,
                request_bytes: exchange.request.body.bytes,
                response_bytes: exchange.response.as_ref().map_or(0, |r| r.body.bytes),
                sealed: None,
            },
            Record::Stream(stream) => Self {
                id: stream.id,
                origin: stream.origin.clone(),
                service: shortened(&stream.service),
                protocol: stream.protocol.as_str().into(),
                method: "".into(),
                host: "".into(),
                target: shortened(stream.upstream.as_deref().unwrap_or_default()),
                status: None,
                outcome: stream.outcome.as_str().into(),
                started_us: stream.timing.started_us,
                duration_us: stream.timing.end_us,
                request_bytes: stream.client_bytes,
                response_bytes: stream.server_bytes,
                sealed: None,
            },
        }
    }
}

impl Summary {
    /// What a sealed record shows.
    pub(super) fn of_sealed(sealed: &Sealed, clear: &Clear) -> Self {
        Self {
            id: sealed.id,
            origin: sealed.origin.clone(),
            service: shortened(&clear.service),
            protocol: clear.protocol.as_str().into(),
            method: shortened(&clear.method),
            host: "".into(),
            target: "".into(),
            status: clear.status,
            outcome: shortened(&clear.outcome),
            started_us: clear.timing.started_us,
            duration_us: clear.timing.end_us,
            request_bytes: clear.request_bytes,
            response_bytes: clear.response_bytes,
            sealed: Some(sealed.key.clone()),
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records, in the order asked for.
    pub items: Vec<Summary>,
    /// Where the next page starts; `None` where this is the last. A page may be short of its limit, or even
    /// empty, and still have a next one: one call looks at a bounded number of records.
    pub next: Option<Cursor>,
}

fn shortened(text: &str) -> Arc<str> {
    text[..text.floor_char_boundary(Summary::TEXT_BYTES)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_bounds_ids_and_a_cursor_narrows_them() {
        let second = 1_000_000;
        let query = Query {
            start_us: Some(10 * second + 7),
            end_us: Some(20 * second),
            ..Query::default()
        };
        let at = |ms: u128| ms << 80;
        assert_eq!(query.ids(0), Some(at(10_000)..=at(25_000) - 1));
        assert_eq!(query.ids(at(12_000)), Some(at(12_000)..=at(25_000) - 1));
        assert_eq!(query.ids(at(30_000)), None);
        let id = at(15_000) + 3;
        let cursor = Some(Cursor::after(RecordId::from_u128(id)));
        let newest = Query {
            cursor,
            ..query.clone()
        };
        assert_eq!(newest.ids(0), Some(at(10_000)..=id - 1));
        let order = Order::OldestFirst;
        let oldest = Query { order, ..newest };
        assert_eq!(oldest.ids(0), Some(id + 1..=at(25_000) - 1));
        assert_eq!(behind(&(1..=5), 5, order), None);
        assert_eq!(behind(&(1..=5), 4, order), Some(5..=5));
        assert_eq!(behind(&(1..=5), 1, Order::NewestFirst), None);
        assert_eq!(behind(&(0..=5), 0, Order::NewestFirst), None);
    }

    #[test]
    fn cursor_reads_back_and_refuses_what_it_never_wrote() {
        let cursor = Cursor::after(RecordId::from_u128(77));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "+0000000000000000000000000000077", "xyz", "77"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
