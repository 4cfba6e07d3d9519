//! What can go wrong with a log, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation; nothing of it took place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another log of this one, has the directory open.
    #[error("{path} is in use by another process: stop it or choose another directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// No room: try again when there is.
    #[error("no space left to {action} {path}")]
    Full {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk or a file refused.
    #[error("could not {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is stored at a place is not what was written; the rest can be read.
    #[error("{path} is damaged at byte {offset}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the entry starts.
        offset: u64,
    },
    /// A later version of this program wrote the file.
    #[error(
        "{path} has format {version}, this program knows {}",
        super::frame::FORMAT
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// More than a batch or an entry may hold.
    #[error("{what} has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A directory for a backup that holds something already.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A setting that cannot be.
    #[error("segment_bytes must be from 4 KiB to 2 GiB, not {0}")]
    SegmentBytes(u64),
}

impl Error {
    /// The error for a refused `action` on `path`.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                action,
                path,
                source,
            },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }
}
