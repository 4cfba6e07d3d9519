//! The compact form in which both backends keep a record's [`Summary`] beside it.
//!
//! A MessagePack array that starts with its version. Filters run over the borrowed form, so that a listing
//! allocates only for what it returns.

use serde::{Deserialize, Serialize};

use super::{Filter, Query, Summary, query::View};
use crate::record::{Epoch, Fingerprint, NodeId, Origin, RecordId, Sequence};

/// The version that this program writes.
const VERSION: u8 = 1;

/// A summary as it is kept, without the id; the order of the fields is the format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    version: u8,
    fingerprint: Option<(u64, u64)>,
    node: &'a str,
    epoch: u64,
    seq: u64,
    service: &'a str,
    protocol: &'a str,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    status: Option<u16>,
    outcome: &'a str,
    started_us: i64,
    duration_us: u64,
    request_bytes: u64,
    response_bytes: u64,
}

/// Why bytes are no summary.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// No such MessagePack.
    #[error("the summary is malformed")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// A version from the future.
    #[error("the summary has version {0}, this program reads {VERSION}")]
    Version(u8),
    /// A node name that cannot be.
    #[error("the summary names no node")]
    Node(#[from] crate::record::InvalidNode),
}

/// Encodes a summary and the fingerprint under which the record is looked up.
pub(super) fn encode(summary: &Summary, fingerprint: Option<Fingerprint>) -> Vec<u8> {
    let stored = Stored {
        version: VERSION,
        fingerprint: fingerprint.map(|print| halves(print.0)),
        node: summary.origin.node.as_str(),
        epoch: summary.origin.epoch.0,
        seq: summary.origin.seq.0,
        service: &summary.service,
        protocol: &summary.protocol,
        method: &summary.method,
        host: &summary.host,
        target: &summary.target,
        status: summary.status,
        outcome: &summary.outcome,
        started_us: summary.started_us,
        duration_us: summary.duration_us,
        request_bytes: summary.request_bytes,
        response_bytes: summary.response_bytes,
    };
    rmp_serde::to_vec(&stored).expect("writing to memory cannot fail, and every type is ours")
}

impl<'a> Stored<'a> {
    /// Reads what [`encode`] wrote.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let stored: Self = rmp_serde::from_slice(bytes)?;
        if stored.version == VERSION {
            Ok(stored)
        } else {
            Err(Unreadable::Version(stored.version))
        }
    }

    /// The fingerprint under which the record is looked up.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
            .map(|(high, low)| Fingerprint(u128::from(high) << 64 | u128::from(low)))
    }

    /// Whether a query wants it; the window counts by the exact start.
    pub(super) fn wanted(&self, query: &Query) -> bool {
        query.start_us.is_none_or(|start| start <= self.started_us)
            && query.end_us.is_none_or(|end| self.started_us < end)
            && self.matches(&query.filter)
    }

    fn matches(&self, filter: &Filter) -> bool {
        filter.accepts(&View {
            node: self.node,
            service: self.service,
            protocol: self.protocol,
            method: self.method,
            host: self.host,
            target: self.target,
            status: self.status,
            outcome: self.outcome,
        })
    }

    /// Where the record comes from.
    pub(super) fn origin(&self) -> Result<Origin, Unreadable> {
        Ok(Origin {
            node: NodeId::new(self.node)?,
            epoch: Epoch(self.epoch),
            seq: Sequence(self.seq),
        })
    }

    /// The summary itself.
    pub(super) fn summary(&self, id: RecordId) -> Result<Summary, Unreadable> {
        Ok(Summary {
            id,
            origin: self.origin()?,
            service: self.service.into(),
            protocol: self.protocol.into(),
            method: self.method.into(),
            host: self.host.into(),
            target: self.target.into(),
            status: self.status,
            outcome: self.outcome.into(),
            started_us: self.started_us,
            duration_us: self.duration_us,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        })
    }
}

fn halves(value: u128) -> (u64, u64) {
    let low = value & u128::from(u64::MAX);
    let half = |part| u64::try_from(part).expect("half of 128 bits");
    (half(value >> 64), half(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            id: RecordId::from_u128(9),
            origin: Origin {
                node: NodeId::new("az1").unwrap(),
                epoch: Epoch(u64::MAX),
                seq: Sequence(3),
            },
            service: "shop".into(),
            protocol: "http".into(),
            method: "GET".into(),
            host: "shop".into(),
            target: "/é?x=1".into(),
            status: None,
            outcome: "ok".into(),
            started_us: -5,
            duration_us: 7,
            request_bytes: 0,
            response_bytes: u64::MAX,
        }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let print = Fingerprint(u128::MAX - 77);
        let bytes = encode(&summary(), Some(print));
        let stored = Stored::read(&bytes).unwrap();
        assert_eq!(stored.fingerprint(), Some(print));
        assert_eq!(stored.summary(RecordId::from_u128(9)).unwrap(), summary());
    }

    #[test]
    fn refuses_the_future_and_what_is_cut_short() {
        let mut bytes = encode(&summary(), None);
        for end in 0..bytes.len() {
            assert!(
                matches!(Stored::read(&bytes[..end]), Err(Unreadable::Malformed(_))),
                "{end}"
            );
        }
        // An array of 16 has a head of three bytes; the version follows.
        assert_eq!(bytes[3], VERSION);
        bytes[3] = VERSION + 1;
        assert!(matches!(Stored::read(&bytes), Err(Unreadable::Version(2))));
    }
}
