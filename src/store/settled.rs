//! The stored form of coverage: a MessagePack array that starts with its version.

use serde::{Deserialize, Serialize};

use super::Settled;
use crate::record::{Coverage, Epoch, NodeId, SequenceRange};

/// The version that this program writes.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    watermark: u64,
    above: Vec<(u64, u64)>,
    dropped: u64,
    lost: u64,
}

/// Node and epoch as one text, which sorts as they do.
pub(super) fn name(node: &NodeId, epoch: Epoch) -> String {
    format!("{node} {:016x}", epoch.0)
}

pub(super) fn encode(coverage: &Coverage) -> Vec<u8> {
    let stored = Stored {
        version: VERSION,
        watermark: coverage.watermark(),
        above: coverage.above().iter().map(|r| (r.first, r.last)).collect(),
        dropped: coverage.dropped(),
        lost: coverage.lost(),
    };
    rmp_serde::to_vec(&stored).expect("writing to memory cannot fail, and every type is ours")
}

/// Reads what [`name`] and [`encode`] wrote; `None` for anything else.
pub(super) fn decode(name: &str, bytes: &[u8]) -> Option<Settled> {
    let (node, epoch) = name.split_once(' ')?;
    let stored: Stored = rmp_serde::from_slice(bytes).ok()?;
    if stored.version != VERSION || stored.above.iter().any(|(first, last)| first > last) {
        return None;
    }
    let range = |(first, last)| SequenceRange { first, last };
    let above: Vec<_> = stored.above.into_iter().map(range).collect();
    Some(Settled {
        node: NodeId::new(node).ok()?,
        epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?),
        coverage: Coverage::restore(stored.watermark, &above, stored.dropped, stored.lost),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_refuses_the_rest() {
        let above = [SequenceRange { first: 9, last: 11 }];
        let settled = Settled {
            node: NodeId::new("az1").unwrap(),
            epoch: Epoch(u64::MAX),
            coverage: Coverage::restore(7, &above, 2, 1),
        };
        let bytes = encode(&settled.coverage);
        assert_eq!(
            decode(&name(&settled.node, settled.epoch), &bytes),
            Some(settled.clone())
        );
        assert_eq!(decode("az1", &bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(
                decode(&name(&settled.node, settled.epoch), &bytes[..end]),
                None,
                "{end}"
            );
        }
    }
}
