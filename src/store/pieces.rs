//! Whether all of a record is there: bodies over a recorder's inline limit and the segments of streams come in pieces,
//! before, with or after the record that says how many there are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Store};
use crate::record::{Record, RecordId, Side};

/// What stands apart from its record, in pieces that are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// The chunks of a body.
    Body(Side),
    /// The batches of a stream's segments.
    Segments,
}

/// How much of a record is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// All of it.
    Complete,
    /// A piece is missing that may yet arrive.
    Pending,
    /// A piece is missing and late: it is not waited for any more, though it would still be taken.
    Incomplete,
}

/// The pieces of a record, and how many there are of each kind.
#[must_use]
pub fn pieces_of(record: &Record) -> Vec<(Pieces, u32)> {
    let mut pieces = match record {
        Record::Exchange(exchange) => {
            let response = exchange.response.as_ref().map_or(0, |r| r.body.chunks);
            vec![
                (Pieces::Body(Side::Request), exchange.request.body.chunks),
                (Pieces::Body(Side::Response), response),
            ]
        }
        Record::Stream(stream) => vec![(Pieces::Segments, stream.batches)],
    };
    pieces.retain(|(_, count)| *count > 0);
    pieces
}

/// Whether these pieces of a record are all there. Looks no further than the first that is not, so that a record which
/// claims any number of them costs no more than what is stored of it.
///
/// # Errors
/// [`Error`] where the store cannot tell.
pub async fn all_there(
    store: &dyn Store,
    id: RecordId,
    pieces: &[(Pieces, u32)],
) -> Result<bool, Error> {
    for (of, count) in pieces {
        if store.first_missing(id, *of, *count).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How much of a record is there at `now_us` (microseconds since the Unix epoch), where pieces are waited for until `patience`
/// after its end by its recorder's clock.
///
/// # Errors
/// [`Error`] where the store cannot tell.
pub async fn completeness(
    store: &dyn Store,
    record: &Record,
    now_us: i64,
    patience: Duration,
) -> Result<Completeness, Error> {
    if all_there(store, record.id(), &pieces_of(record)).await? {
        return Ok(Completeness::Complete);
    }
    let timing = match record {
        Record::Exchange(exchange) => &exchange.timing,
        Record::Stream(stream) => &stream.timing,
    };
    let took = i64::try_from(timing.end_us).unwrap_or(i64::MAX);
    let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
    let until = timing
        .started_us
        .saturating_add(took)
        .saturating_add(patience);
    Ok(match now_us < until {
        true => Completeness::Pending,
        false => Completeness::Incomplete,
    })
}
