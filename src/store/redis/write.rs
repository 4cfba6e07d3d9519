//! Putting a batch: one transaction per shard, coverage last.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use redis::{Pipeline, Value, pipe};

use super::Redis;
use super::keys::{Keys, Piece, Shard, entry, hour, source_member};
use crate::record::{Item, Keyring, Outside, RecordId};
use crate::store::stored::{self, Beside};
use crate::store::{Arrival, Batch, Error, Receipt};

/// What a reply to a `SET NX` counts as.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Record,
    Piece,
}

/// The commands for one shard.
struct Part {
    pipeline: Pipeline,
    counted: Vec<Counted>,
    /// Keys of indexes, whose expiry moves on with each batch.
    touched: BTreeSet<String>,
}

impl Part {
    fn new() -> Self {
        let mut pipeline = pipe();
        pipeline.atomic();
        Self {
            pipeline,
            counted: Vec::new(),
            touched: BTreeSet::new(),
        }
    }
}

/// A batch cut into shards.
struct Parts<'a> {
    keys: &'a Keys,
    max_age_ms: Option<u64>,
    /// Records and pieces.
    data: BTreeMap<Shard, Part>,
    /// Lists by fingerprint.
    prints: BTreeMap<Shard, Part>,
}

impl Redis {
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Receipt, Error> {
        let mut parts = Parts {
            keys: &self.keys,
            max_age_ms: self
                .config
                .max_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            data: BTreeMap::new(),
            prints: BTreeMap::new(),
        };
        for arrival in &batch.arrivals {
            parts.add(arrival, &self.config.keys);
        }
        let Parts {
            mut data,
            mut prints,
            ..
        } = parts;
        for part in data.values_mut().chain(prints.values_mut()) {
            self.extend_life(part);
        }
        if self.keys.shards().count() == 1 {
            // All in one transaction.
            let mut all = data.remove(&Shard::LAST).unwrap_or_else(Part::new);
            for (_, part) in prints {
                all.append(part);
            }
            self.add_coverage(&mut all.pipeline, batch);
            let (receipt, replies) = self.send(all).await?;
            return Ok(Receipt {
                behind: Self::is_behind(batch, &replies),
                ..receipt
            });
        }
        let receipts = try_join_all(data.into_values().map(|part| self.send(part))).await?;
        try_join_all(prints.into_values().map(|part| self.send(part))).await?;
        let mut last = Part::new();
        self.add_coverage(&mut last.pipeline, batch);
        let (_, replies) = self.send(last).await?;
        let none = Receipt {
            behind: Self::is_behind(batch, &replies),
            ..Receipt::default()
        };
        Ok(receipts.into_iter().fold(none, |sum, (one, _)| Receipt {
            records: sum.records + one.records,
            pieces: sum.pieces + one.pieces,
            duplicates: sum.duplicates + one.duplicates,
            behind: sum.behind,
        }))
    }

    /// Index keys live an hour longer than what they name.
    fn extend_life(&self, part: &mut Part) {
        if let Some(age) = self.config.max_age {
            let millis = age.as_millis().saturating_add(3_600_000).min(MAX_TTL_MS);
            for key in std::mem::take(&mut part.touched) {
                let command = part.pipeline.cmd("PEXPIRE").arg(key);
                command.arg(millis.to_string()).ignore();
            }
        }
    }

    /// What was counted, and the replies to what comes behind.
    async fn send(&self, part: Part) -> Result<(Receipt, Vec<Value>), Error> {
        if part.pipeline.is_empty() {
            return Ok(Default::default());
        }
        let mut replies: Vec<Value> = self.run(&part.pipeline).await?;
        let mut receipt = Receipt::default();
        for (counted, reply) in part.counted.iter().zip(&replies) {
            match (reply, counted) {
                (Value::Nil, _) => receipt.duplicates += 1,
                (_, Counted::Record) => receipt.records += 1,
                (_, Counted::Piece) => receipt.pieces += 1,
            }
        }
        let behind = replies.split_off(part.counted.len().min(replies.len()));
        Ok((receipt, behind))
    }
}

/// Redis refuses an expiry that does not fit 63 bits once it has added the present; a thousand years do.
const MAX_TTL_MS: u128 = 1000 * 366 * 86_400_000;

impl Part {
    fn append(&mut self, other: Self) {
        for command in other.pipeline.cmd_iter() {
            self.pipeline.add_command(command.clone()).ignore();
        }
    }

    fn set_once(&mut self, key: String, raw: &[u8], max_age_ms: Option<u64>, counted: Counted) {
        let command = self.pipeline.cmd("SET").arg(key).arg(raw).arg("NX");
        if let Some(millis) = max_age_ms {
            let millis = u128::from(millis).clamp(1, MAX_TTL_MS);
            command.arg("PX").arg(millis.to_string());
        }
        self.counted.push(counted);
    }
}

impl Parts<'_> {
    fn add(&mut self, arrival: &Arrival, sealing: &Keyring) {
        let raw = &arrival.decoded.raw;
        if let Some(beside) = stored::beside(arrival, sealing) {
            return self.add_record(&beside, raw);
        }
        match &arrival.decoded.item {
            Item::Chunk(chunk) => {
                self.add_piece(chunk.record, Piece::Body(chunk.side), chunk.index, raw);
            }
            Item::Segments(batch) => {
                self.add_piece(batch.record, Piece::Segments, batch.index, raw);
            }
            Item::Sealed(sealed) => match sealed.outside {
                Outside::Chunk { side, index } => {
                    self.add_piece(sealed.id, Piece::Body(side), index, raw);
                }
                Outside::Segments { index } => {
                    self.add_piece(sealed.id, Piece::Segments, index, raw);
                }
                Outside::Record(_) => {}
            },
            // A gap holds nothing but its place, which the coverage has; records are in already.
            Item::Gap(_) | Item::Record(_) => {}
        }
    }

    fn add_record(&mut self, beside: &Beside, raw: &[u8]) {
        let id = beside.id;
        let shard = self.keys.shard(id);
        let listing = self.keys.listing(shard, hour(id));
        let part = self.data.entry(shard).or_insert_with(Part::new);
        part.set_once(self.keys.record(id), raw, self.max_age_ms, Counted::Record);
        let command = part.pipeline.cmd("ZADD").arg(&listing).arg(0);
        command.arg(entry(id, &beside.summary)).ignore();
        part.touched.insert(listing);
        self.add_hour(shard, id);
        if let Some(print) = beside.fingerprint {
            let list = self.keys.fingerprint(print);
            let shard = self.keys.fingerprint_shard(print);
            let part = self.prints.entry(shard).or_insert_with(Part::new);
            let command = part.pipeline.cmd("ZADD").arg(&list).arg(0);
            command.arg(source_member(&beside.origin, id)).ignore();
            part.touched.insert(list);
        }
    }

    fn add_piece(&mut self, id: RecordId, piece: Piece, index: u32, raw: &[u8]) {
        let shard = self.keys.shard(id);
        let (pieces, owners) = (self.keys.pieces(id), self.keys.owners(shard, hour(id)));
        let part = self.data.entry(shard).or_insert_with(Part::new);
        let key = self.keys.piece(id, piece, index);
        part.set_once(key, raw, self.max_age_ms, Counted::Piece);
        let command = part.pipeline.cmd("SADD").arg(&pieces);
        command.arg(Keys::piece_member(piece, index)).ignore();
        let command = part.pipeline.cmd("SADD").arg(&owners);
        command.arg(format!("{:032x}", id.as_u128())).ignore();
        part.touched.extend([pieces, owners]);
        self.add_hour(shard, id);
    }

    fn add_hour(&mut self, shard: Shard, id: RecordId) {
        let hours = self.keys.hours(shard);
        let part = self.data.entry(shard).or_insert_with(Part::new);
        let command = part.pipeline.cmd("ZADD").arg(&hours);
        command.arg(hour(id)).arg(hour(id)).ignore();
        part.touched.insert(hours);
    }
}
