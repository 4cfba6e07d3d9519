//! The names of keys and members, and what they sort by.

use crate::record::{Fingerprint, Origin, RecordId, Side};

/// How records are spread: everything of one record, and every hour's list, lies in one hash slot per shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    prefix: String,
    shards: u16,
}

/// Which shard, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shard(u16);

impl Shard {
    /// The shard that is written last and holds the coverage.
    pub(super) const LAST: Self = Self(0);
}

/// What a piece is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Body(Side),
    Segments,
}

const MILLIS_PER_HOUR: u64 = 3_600_000;

impl Keys {
    pub(super) fn new(prefix: &str, shards: u16) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards: shards.max(1),
        }
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.shards).map(Shard)
    }

    /// The shard of a record and its pieces. The low bits of an id are random.
    pub(super) fn shard(&self, id: RecordId) -> Shard {
        self.spread(id.as_u128())
    }

    /// The shard of a fingerprint's list.
    pub(super) fn fingerprint_shard(&self, print: Fingerprint) -> Shard {
        self.spread(print.0)
    }

    fn spread(&self, value: u128) -> Shard {
        let shard = u16::try_from(value % u128::from(self.shards));
        Shard(shard.expect("a remainder is under its divisor"))
    }

    /// String: the version of this schema and the number of shards.
    pub(super) fn shape(&self) -> String {
        format!("{}:shape", self.prefix)
    }

    /// String: the wire bytes of a record.
    pub(super) fn record(&self, id: RecordId) -> String {
        self.of_record(id, "r")
    }

    /// String: the wire bytes of a chunk or a segment batch.
    pub(super) fn piece(&self, id: RecordId, piece: Piece, index: u32) -> String {
        format!(
            "{}:{}",
            self.of_record(id, "p"),
            Self::piece_member(piece, index)
        )
    }

    /// String: a piece by the name that [`Keys::pieces`] lists.
    pub(super) fn named_piece(&self, id: RecordId, name: &str) -> String {
        format!("{}:{name}", self.of_record(id, "p"))
    }

    pub(super) fn piece_member(piece: Piece, index: u32) -> String {
        let side = match piece {
            Piece::Body(Side::Request) => 'q',
            Piece::Body(Side::Response) => 's',
            Piece::Segments => 'g',
        };
        format!("{side}{index}")
    }

    /// Set: the names of the pieces that a record has.
    pub(super) fn pieces(&self, id: RecordId) -> String {
        self.of_record(id, "l")
    }

    /// Sorted set, score = member: the hours that have records or pieces.
    pub(super) fn hours(&self, shard: Shard) -> String {
        self.of_shard(shard, "hours")
    }

    /// Sorted set, score 0: id and summary of every record of an hour, see [`entry`].
    pub(super) fn listing(&self, shard: Shard, hour: u64) -> String {
        self.of_shard(shard, &format!("h:{hour}"))
    }

    /// Set: the ids that have pieces in an hour, whether their record has arrived or not.
    pub(super) fn owners(&self, shard: Shard, hour: u64) -> String {
        self.of_shard(shard, &format!("o:{hour}"))
    }

    /// Sorted set, score 0: the records with a fingerprint, see [`source_member`].
    pub(super) fn fingerprint(&self, print: Fingerprint) -> String {
        self.of_shard(
            self.fingerprint_shard(print),
            &format!("f:{:032x}", print.0),
        )
    }

    /// Hash: `node epoch` -> coverage.
    pub(super) fn coverage(&self) -> String {
        self.of_shard(Shard::LAST, "coverage")
    }

    fn of_record(&self, id: RecordId, kind: &str) -> String {
        format!(
            "{}:{{{}}}:{kind}:{:032x}",
            self.prefix,
            self.shard(id).0,
            id.as_u128()
        )
    }

    fn of_shard(&self, shard: Shard, rest: &str) -> String {
        format!("{}:{{{}}}:{rest}", self.prefix, shard.0)
    }
}

/// The hour, since the Unix epoch, whose listing a record stands in.
pub(super) fn hour(id: RecordId) -> u64 {
    id.unix_millis() / MILLIS_PER_HOUR
}

/// A member of a listing: 32 hex digits of the id, then the summary; sorts by id.
pub(super) fn entry(id: RecordId, summary: &[u8]) -> Vec<u8> {
    let mut member = format!("{:032x}", id.as_u128()).into_bytes();
    member.extend_from_slice(summary);
    member
}

/// The id and the summary of a listing's member.
pub(super) fn split_entry(member: &[u8]) -> Option<(RecordId, &[u8])> {
    let (id, summary) = member.split_at_checked(32)?;
    Some((id_from_hex(id)?, summary))
}

pub(super) fn id_from_hex(hex: &[u8]) -> Option<RecordId> {
    let hex = std::str::from_utf8(hex).ok()?;
    u128::from_str_radix(hex, 16).ok().map(RecordId::from_u128)
}

/// A member of a fingerprint's list: sorts by node, epoch and sequence. A space is under every legal character.
pub(super) fn source_member(origin: &Origin, id: RecordId) -> String {
    let (node, epoch, seq) = (&origin.node, origin.epoch.0, origin.seq.0);
    format!("{node} {epoch:016x} {seq:016x} {:032x}", id.as_u128())
}

/// The node in what [`source_member`] wrote.
pub(super) fn source_node(member: &str) -> Option<&str> {
    Some(member.split_once(' ')?.0)
}

/// The id in what [`source_member`] wrote.
pub(super) fn split_source_member(member: &str) -> Option<RecordId> {
    id_from_hex(member.rsplit_once(' ')?.1.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Epoch, NodeId, Sequence};

    #[test]
    fn all_of_a_record_lies_in_one_slot() {
        let keys = Keys::new("qproxy", 16);
        let id = RecordId::from_u128(0x23);
        let tag = "qproxy:{3}:";
        assert!(keys.record(id).starts_with(tag));
        assert!(keys.piece(id, Piece::Segments, 7).starts_with(tag));
        assert!(keys.pieces(id).starts_with(tag));
        assert!(keys.listing(keys.shard(id), 5).starts_with(tag));
        assert_eq!(
            keys.named_piece(id, "g7"),
            keys.piece(id, Piece::Segments, 7)
        );
    }

    #[test]
    fn members_sort_by_what_they_stand_for_and_read_back() {
        let origin = |node: &str, epoch, seq| Origin {
            node: NodeId::new(node).unwrap(),
            epoch: Epoch(epoch),
            seq: Sequence(seq),
        };
        let id = RecordId::from_u128(0xabc);
        let sorted = [
            origin("a", 1, 9),
            origin("a", 1, 10),
            origin("a", 16, 1),
            origin("a-", 0, 0),
            origin("a0", 0, 0),
        ];
        let members: Vec<_> = sorted.iter().map(|o| source_member(o, id)).collect();
        assert!(members.is_sorted(), "{members:?}");
        assert_eq!(split_source_member(&members[2]), Some(id));
        assert_eq!(split_entry(&entry(id, b"xyz")), Some((id, &b"xyz"[..])));
        assert_eq!(split_entry(b"short"), None);
    }
}
