//! What can go wrong with a spool, by what the caller can do about it.

use std::path::PathBuf;

use crate::record::{Epoch, NodeId, Sequence};
use crate::segment;

/// A failed operation; nothing of it took place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused, or has no room.
    #[error("the spool's log failed")]
    Log(#[from] segment::Error),
    /// The file with the acknowledged place cannot be written.
    #[error("could not {action} {path}")]
    State {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A message that does not follow on the ones before; the caller is at fault.
    #[error("message {} of epoch {} does not come after {}", .seq.0, .epoch.0, .after.0)]
    Order {
        /// The message's epoch.
        epoch: Epoch,
        /// The message's number.
        seq: Sequence,
        /// The last number before it.
        after: Sequence,
    },
    /// The directory holds what another node has not sent; under this one's name it would be wrong.
    #[error("node is `{node}`, but {unsent} unsent items of node `{kept}` wait in {dir}")]
    Node {
        /// This node.
        node: NodeId,
        /// The node that wrote them.
        kept: String,
        /// How many.
        unsent: u64,
        /// The directory.
        dir: PathBuf,
    },
    /// A limit that is too small to work with.
    #[error("max_bytes must be at least {least}, not {given}", least = super::Config::MIN_MAX_BYTES)]
    MaxBytes {
        /// What was set.
        given: u64,
    },
}
