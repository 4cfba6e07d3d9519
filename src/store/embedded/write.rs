//! Putting a batch and deleting a record.

use twox_hash::XxHash3_128;

use super::{Open, kind};
use crate::record::{Item, Record, RecordId, Side};
use crate::segment::{Entry, Write};
use crate::store::settled;
use crate::store::stored;
use crate::store::{Batch, Error, Receipt, Settled, Summary};

/// More pieces than this are not looked for when a record that says it has them is deleted.
const MAX_PIECES: u32 = 1 << 16;

/// What an entry of a batch is, with all that it borrows from.
struct Row {
    kind: u8,
    id: u128,
    fingerprint: u128,
    meta: Vec<u8>,
    payload: bytes::Bytes,
}

impl Open {
    pub(super) fn commit(&self, batch: &Batch) -> Result<Receipt, Error> {
        let mut rows: Vec<Row> = Vec::with_capacity(batch.arrivals.len());
        for arrival in &batch.arrivals {
            let payload = arrival.decoded.raw.clone();
            let row = |kind, id, fingerprint, meta| Row {
                kind,
                id,
                fingerprint,
                meta,
                payload,
            };
            match &arrival.decoded.item {
                Item::Record(record) => {
                    let print = arrival.fingerprint.map_or(0, |print| searchable(print.0));
                    let meta = stored::encode(&Summary::from(record), arrival.fingerprint);
                    rows.push(row(kind::RECORD, record.id().as_u128(), print, meta));
                }
                Item::Chunk(chunk) => {
                    let id = chunk_id(chunk.record, chunk.side, chunk.index);
                    rows.push(row(kind::CHUNK, id, 0, Vec::new()));
                }
                Item::Segments(batch) => {
                    let id = segments_id(batch.record, batch.index);
                    rows.push(row(kind::SEGMENTS, id, 0, Vec::new()));
                }
                // A gap holds nothing but its place, which the coverage has.
                Item::Gap(_) => {}
            }
        }
        let items = rows.len();
        rows.extend(batch.settled.iter().map(coverage_row));
        let entry = |(at, row)| {
            entry(
                row,
                if at < items {
                    Write::Insert
                } else {
                    Write::Replace
                },
            )
        };
        let entries: Vec<Entry<'_>> = rows.iter().enumerate().map(entry).collect();
        let appended = self.log.append(&entries).map_err(|e| self.failed(e))?;
        for (node, epoch) in &batch.forgotten {
            let id = coverage_id(&settled::name(node, *epoch));
            let deleted = self.log.delete(kind::COVERAGE, id);
            deleted.map_err(|e| self.failed(e))?;
        }
        let mut receipt = Receipt {
            duplicates: appended.known.len() as u64,
            ..Receipt::default()
        };
        let mut known = appended.known.iter().peekable();
        for (at, row) in rows[..items].iter().enumerate() {
            if known.next_if(|known| **known == at).is_some() {
                continue;
            }
            match row.kind {
                kind::RECORD => receipt.records += 1,
                _ => receipt.pieces += 1,
            }
        }
        Ok(receipt)
    }

    pub(super) fn remove(&self, id: RecordId) -> Result<bool, Error> {
        if self.is_hidden(id) {
            return Ok(false);
        }
        // What cannot be read does not say how many pieces it has; those in a row are found all the same.
        let (request, response, batches) = match self.record(id) {
            Ok(Some(Record::Exchange(exchange))) => {
                let response = exchange.response.as_ref().map_or(0, |r| r.body.chunks);
                (exchange.request.body.chunks, response, 0)
            }
            Ok(Some(Record::Stream(stream))) => (0, 0, stream.batches),
            Ok(None) | Err(Error::Corrupt { .. }) => (0, 0, 0),
            Err(error) => return Err(error),
        };
        let delete = |kind, id| self.log.delete(kind, id).map_err(|e| self.failed(e));
        let removed = delete(kind::RECORD, id.as_u128())?;
        let sides = [(Side::Request, request), (Side::Response, response)];
        for (side, count) in sides {
            for index in 0..MAX_PIECES {
                let there = delete(kind::CHUNK, chunk_id(id, side, index))?;
                if !there && index >= count {
                    break;
                }
            }
        }
        for index in 0..MAX_PIECES {
            if !delete(kind::SEGMENTS, segments_id(id, index))? && index >= batches {
                break;
            }
        }
        Ok(removed)
    }
}

fn coverage_id(name: &str) -> u128 {
    XxHash3_128::oneshot(name.as_bytes())
}

fn coverage_row(settled: &Settled) -> Row {
    let name = settled::name(&settled.node, settled.epoch);
    Row {
        kind: kind::COVERAGE,
        id: coverage_id(&name),
        fingerprint: 0,
        payload: settled::encode(&settled.coverage).into(),
        meta: name.into_bytes(),
    }
}

fn entry(row: &Row, write: Write) -> Entry<'_> {
    Entry {
        kind: row.kind,
        write,
        id: row.id,
        fingerprint: row.fingerprint,
        meta: &row.meta,
        payload: &row.payload,
    }
}

/// The log takes 0 for "no fingerprint"; the one request in 2^128 that has it shares a list with its neighbour.
pub(super) const fn searchable(print: u128) -> u128 {
    if print == 0 { 1 } else { print }
}

pub(super) fn chunk_id(record: RecordId, side: Side, index: u32) -> u128 {
    piece_id(
        record,
        if side == Side::Request { b'q' } else { b's' },
        index,
    )
}

pub(super) fn segments_id(record: RecordId, index: u32) -> u128 {
    piece_id(record, b'g', index)
}

fn piece_id(record: RecordId, side: u8, index: u32) -> u128 {
    let mut name = [0; 21];
    name[..16].copy_from_slice(record.as_bytes());
    name[16] = side;
    name[17..].copy_from_slice(&index.to_be_bytes());
    XxHash3_128::oneshot(&name)
}
