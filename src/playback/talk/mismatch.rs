//! What is told of a client that said what no recorded stream has.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::candidates::{Expected, Strayed};
use crate::playback::report::display;
use crate::playback::script::dump;
use crate::record::RecordId;

/// Whether bytes of records and of clients are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disclosure {
    /// A few, around the place that differs.
    #[default]
    Shown,
    /// None: records are sealed here.
    Withheld,
}

/// A client that said what no recorded stream has.
#[derive(Debug, Clone, Serialize)]
pub struct Mismatch {
    /// When, RFC 3339.
    pub at: String,
    /// The client's address.
    pub client: String,
    /// The service.
    pub service: Arc<str>,
    /// The stream that it had followed for longest.
    #[serde(serialize_with = "display")]
    pub record: RecordId,
    /// Where in all that the client says the first other byte stands, from 0.
    pub offset: u64,
    /// What the stream has there: offset, hexadecimal, text; the place itself in a bracket.
    pub expected: String,
    /// What the client said.
    pub got: String,
}

impl Mismatch {
    pub(super) fn new(
        client: SocketAddr,
        service: &Arc<str>,
        strayed: &Strayed,
        got: &[u8],
        disclosure: Disclosure,
    ) -> Self {
        let first = strayed.offset - strayed.at as u64;
        let (expected, got) = match (&strayed.expected, disclosure) {
            (Expected::Close, _) => ("the client closes".to_owned(), None),
            (Expected::Nothing, _) => ("the connection is gone".to_owned(), None),
            (Expected::Bytes(..), Disclosure::Withheld) => ("(withheld)".to_owned(), None),
            (Expected::Bytes(bytes, at), Disclosure::Shown) => {
                (dump(bytes, *at, strayed.offset - *at as u64), Some(got))
            }
        };
        Self {
            at: Timestamp::now().to_string(),
            client: client.to_string(),
            service: service.clone(),
            record: strayed.record,
            offset: strayed.offset,
            expected,
            got: match (got, disclosure) {
                (Some(got), _) => dump(got, strayed.at, first),
                (None, Disclosure::Withheld) => "(withheld)".to_owned(),
                (None, Disclosure::Shown) => "more bytes".to_owned(),
            },
        }
    }

    pub(in crate::playback) fn log(&self) {
        tracing::warn!(
            client = self.client,
            service = &*self.service,
            record = %self.record,
            offset = self.offset,
            expected = self.expected,
            got = self.got,
            "a client said what no recorded stream has: closed"
        );
    }
}
