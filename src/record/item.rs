//! What takes one place (or, for a gap, several) in a recorder's sequence.

use super::{BodyChunk, Origin, Record, Sealed, SegmentBatch};

/// One thing that a recorder sends.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An exchange or a stream's summary.
    Record(Record),
    /// A piece of a large body.
    Chunk(BodyChunk),
    /// A piece of a stream.
    Segments(SegmentBatch),
    /// Places in the sequence that hold nothing, because the copy was dropped.
    Gap(Gap),
    /// A record or a piece that is sealed and was not opened here.
    Sealed(Box<Sealed>),
}

impl Item {
    /// The item's place in its recorder's sequence; a gap's first.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Record(record) => record.origin(),
            Self::Chunk(chunk) => &chunk.origin,
            Self::Segments(batch) => &batch.origin,
            Self::Gap(gap) => &gap.origin,
            Self::Sealed(sealed) => &sealed.origin,
        }
    }

    /// How many places in the sequence the item takes.
    #[must_use]
    pub fn span(&self) -> u64 {
        match self {
            Self::Gap(gap) => gap.count,
            _ => 1,
        }
    }
}

/// Copies that were dropped on the recorder; it takes `count` places from `origin` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first place.
    pub origin: Origin,
    /// How many places, at least 1.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a copy was dropped before it reached the spool, or left it unsent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// More traffic than could be encoded: the capture queue was full.
    CaptureOverload,
    /// Larger than any message may be.
    Oversize,
    /// The spool could not take it: disk full or an I/O error.
    SpoolWrite,
    /// The spool was over its limit and gave up its oldest unsent item.
    SpoolLimit,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::CaptureOverload,
        Self::Oversize,
        Self::SpoolWrite,
        Self::SpoolLimit,
    ];

    /// The name used in JSON, MessagePack and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaptureOverload => "capture_overload",
            Self::Oversize => "oversize",
            Self::SpoolWrite => "spool_write",
            Self::SpoolLimit => "spool_limit",
        }
    }

    /// The inverse of [`GapReason::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}
