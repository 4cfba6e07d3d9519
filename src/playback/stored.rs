//! A recorded body as a stream: one inline piece, or chunk after chunk from the store.
//!
//! The next chunk is read when the one before was taken, so a body of any size costs one chunk of memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _, stream};

use crate::record::{Body, RecordId, Side};
use crate::store::{self, Store};

/// How often a chunk that may still arrive is looked for.
const CHUNK_POLL: Duration = Duration::from_millis(50);

/// Why a body could not be given whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// A chunk has not arrived, or is gone.
    #[error("chunk {index} of record {record} is missing")]
    Missing {
        /// The record.
        record: RecordId,
        /// Which chunk, from 0.
        index: u32,
    },
    /// Fewer bytes were kept than passed.
    #[error("of record {record} only a part of the body was kept")]
    Truncated {
        /// The record.
        record: RecordId,
    },
    /// The pieces are more or fewer bytes than the record says.
    #[error("the pieces of record {record} are not the {bytes} bytes that it had")]
    Length {
        /// The record.
        record: RecordId,
        /// What the record says.
        bytes: u64,
    },
    /// The store failed.
    #[error("could not read a chunk")]
    Store(#[from] store::Error),
    /// The live service behind a pass-through failed.
    #[error("the service broke off")]
    Upstream(#[source] hyper::Error),
}

impl BodyError {
    /// The name used in metrics.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_chunk",
            Self::Truncated { .. } => "truncated",
            Self::Length { .. } => "length",
            Self::Store(_) => "store",
            Self::Upstream(_) => "upstream",
        }
    }
}

/// One kept body.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) store: Arc<dyn Store>,
    pub(super) record: RecordId,
    pub(super) side: Side,
    pub(super) body: Body,
    /// How long to wait for a chunk that has not arrived.
    pub(super) patience: Duration,
}

impl Stored {
    /// The kept bytes, piece by piece; a truncated body just ends early.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
        stream::try_unfold((self, 0, 0), |(stored, index, before)| async move {
            let piece = match (stored.body.chunks, index) {
                (0, 0) => stored.body.inline.clone(),
                (chunks, index) if index < chunks => stored.chunk(index).await?,
                _ if before < stored.body.bytes && !stored.body.truncated => {
                    return Err(stored.wrong_length());
                }
                _ => return Ok(None),
            };
            let given = before + piece.len() as u64;
            if given > stored.body.bytes {
                return Err(stored.wrong_length());
            }
            Ok(Some((piece, (stored, index + 1, given))))
        })
    }

    const fn wrong_length(&self) -> BodyError {
        BodyError::Length {
            record: self.record,
            bytes: self.body.bytes,
        }
    }

    /// All kept bytes at once; `None` where they are more than `limit`.
    pub(super) async fn read(self, limit: u64) -> Result<Option<Bytes>, BodyError> {
        if self.body.chunks == 0 {
            let inline = self.body.inline;
            return Ok((inline.len() as u64 <= limit).then_some(inline));
        }
        let mut whole = BytesMut::new();
        let mut pieces = std::pin::pin!(self.stream());
        while let Some(piece) = pieces.try_next().await? {
            if (whole.len() + piece.len()) as u64 > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.freeze()))
    }

    async fn chunk(&self, index: u32) -> Result<Bytes, BodyError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            if let Some(bytes) = self.store.chunk(self.record, self.side, index).await? {
                return Ok(bytes);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(BodyError::Missing {
                    record: self.record,
                    index,
                });
            }
            tokio::time::sleep(CHUNK_POLL).await;
        }
    }
}
