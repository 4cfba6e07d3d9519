//! What a target answered: read to its end, kept only where it is small enough to be looked into.

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::playback::diff::Content;
use crate::playback::link::SendError;
use crate::record::{Digest, Digester, Headers};

/// What the target answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Headers,
    /// All of the content, where it is small enough to be looked into.
    pub(super) kept: Option<Bytes>,
    digest: Digest,
    bytes: u64,
    /// Whether it was read to its end.
    pub(super) ended: bool,
}

impl Reply {
    pub(super) async fn read(
        response: Response<Incoming>,
        limit: u64,
        enough: Option<u64>,
    ) -> Result<Self, SendError> {
        let status = response.status().as_u16();
        let headers = Headers::from(response.headers());
        let mut body = response.into_body();
        let (mut digester, mut kept, mut bytes) = (Digester::default(), BytesMut::new(), 0);
        let mut ended = true;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(SendError::Broken)?.into_data() else {
                continue;
            };
            bytes += data.len() as u64;
            digester.update(&data);
            if bytes <= limit {
                kept.extend_from_slice(&data);
            } else {
                kept = BytesMut::new();
            }
            if enough.is_some_and(|enough| bytes >= enough) {
                ended = false;
                break;
            }
        }
        Ok(Self {
            status,
            headers,
            kept: (bytes <= limit).then(|| kept.freeze()),
            digest: digester.finish(),
            bytes,
            ended,
        })
    }

    pub(super) const fn summary(&self) -> Content {
        Content::Digest {
            digest: self.digest,
            bytes: self.bytes,
        }
    }
}
