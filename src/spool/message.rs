//! A message and the entry of the log that holds it.

use bytes::Bytes;

use crate::record::{
    Epoch, Gap, GapReason, Item, NodeId, Origin, Sequence, SequenceRange, Subject, wire,
};
use crate::segment::{Entry, Found, Ids, Write};

/// The kind of entry that holds a gap; apart from the rest, so that gaps are found without reading all.
pub(super) const GAP: u8 = 2;
/// The kind of entry that holds anything else.
pub(super) const ITEM: u8 = 1;

/// A place in the spool's order: epoch, then number.
pub(super) type Key = (u64, u64);

/// One item on its way to the players.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The recorder's life.
    pub epoch: Epoch,
    /// Its place in it; of a gap, the first.
    pub seq: Sequence,
    /// How many places it takes: 1, or the count of a gap.
    pub span: u64,
    /// By what players subscribe to it.
    pub subject: Subject,
    /// The item as [`wire::encode`] wrote it.
    pub payload: Bytes,
}

impl Message {
    /// The last place it takes, by which it is acknowledged.
    #[must_use]
    pub const fn last(&self) -> Sequence {
        Sequence(self.seq.0.saturating_add(self.span.saturating_sub(1)))
    }

    pub(super) const fn key(&self) -> Key {
        (self.epoch.0, self.seq.0)
    }

    /// The place behind it.
    pub(super) const fn next_key(&self) -> Key {
        (self.epoch.0, self.last().0.saturating_add(1))
    }

    /// A gap where the spool dropped what was not sent.
    pub(super) fn spool_limit(node: &NodeId, epoch: u64, range: SequenceRange) -> Self {
        let (epoch, seq) = (Epoch(epoch), Sequence(range.first));
        let gap = Item::Gap(Gap {
            origin: Origin {
                node: node.clone(),
                epoch,
                seq,
            },
            count: range.count(),
            reason: GapReason::SpoolLimit,
        });
        let mut payload = Vec::new();
        wire::encode(&gap, &mut payload);
        Self {
            epoch,
            seq,
            span: range.count(),
            subject: Subject::Gap,
            payload: payload.into(),
        }
    }

    /// What stands beside the payload: the span, then the subject.
    pub(super) fn meta(&self) -> Vec<u8> {
        let subject = self.subject.to_bytes();
        let mut meta = Vec::with_capacity(8 + subject.len());
        meta.extend_from_slice(&self.span.to_le_bytes());
        meta.extend_from_slice(&subject);
        meta
    }

    pub(super) fn entry<'a>(&'a self, meta: &'a [u8]) -> Entry<'a> {
        Entry {
            kind: match self.subject {
                Subject::Gap => GAP,
                _ => ITEM,
            },
            write: Write::Insert,
            id: id(self.key()),
            fingerprint: 0,
            meta,
            payload: &self.payload,
        }
    }

    /// The message in an entry; `None` where it is none of ours.
    pub(super) fn of(entry: &Found) -> Option<Self> {
        let (epoch, seq) = key(entry.id);
        let (span, subject) = entry.meta.split_first_chunk::<8>()?;
        Some(Self {
            epoch: Epoch(epoch),
            seq: Sequence(seq),
            span: u64::from_le_bytes(*span),
            subject: Subject::from_bytes(subject)?,
            payload: entry.payload.clone(),
        })
    }
}

/// The span in an entry's meta.
pub(super) fn span_of(meta: &[u8]) -> u64 {
    let span = meta.first_chunk::<8>();
    span.map_or(1, |span| u64::from_le_bytes(*span))
}

pub(super) const fn id((epoch, seq): Key) -> u128 {
    (epoch as u128) << 64 | seq as u128
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "taking the halves of a number"
)]
pub(super) const fn key(id: u128) -> Key {
    ((id >> 64) as u64, id as u64)
}

/// The ids of these numbers of an epoch.
pub(super) const fn ids(epoch: u64, range: SequenceRange) -> Ids {
    id((epoch, range.first))..=id((epoch, range.last))
}

/// All numbers.
pub(super) const ALL: SequenceRange = SequenceRange {
    first: 0,
    last: u64::MAX,
};
