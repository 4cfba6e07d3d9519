//! What can go wrong with a store, by what the caller can do about it.

use std::path::PathBuf;

/// A failed store operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or a file refused; trying again may help once there is room or the fault is gone.
    #[error("store at {path}: could not {action}")]
    Io {
        /// What was attempted, e.g. `append to the active segment`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The backend has no room (disk full, Redis OOM): do not acknowledge, wait, try again.
    #[error("store is full: {0}")]
    Full(String),
    /// The backend cannot be reached; trying again may help.
    #[error("store at {address} did not answer")]
    Unavailable {
        /// Its address without credentials.
        address: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored under the id cannot be read; the rest can.
    #[error("what is stored under {key} cannot be read")]
    Corrupt {
        /// The record or file.
        key: String,
        /// What the reader found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The batch, or an entry in it, is larger than the backend takes: trying again never helps.
    #[error("store at {path} takes no batch this large")]
    TooLarge {
        /// The directory.
        path: PathBuf,
        /// Which limit.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}
