//! Removing records: one by one, by age, and the oldest where memory runs short; and how full it is.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Pipeline, Value, cmd, pipe};

use super::Redis;
use super::keys::{Shard, hour, id_from_hex, source_member, split_entry};
use crate::record::RecordId;
use crate::store::stored::Stored;
use crate::store::{Error, Expired, Stats};

/// Records removed in one transaction.
const STEP: usize = 256;

/// Records removed, over all shards, before memory is measured again.
const ROOM_STEP: usize = 64;

/// Takes an hour off the list if nothing is left in it, in one step, so that no writer comes between.
const FORGET_HOUR: &str = "\
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('EXISTS', KEYS[3]) == 0 then \
return redis.call('ZREM', KEYS[1], ARGV[1]) end return 0";

/// How long a deleted record is remembered, so that a late duplicate does not bring it back.
const MEMORY: Duration = Duration::from_hours(24);

/// What stays in the place of what is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Nothing,
    /// An empty string, for [`MEMORY`] or as long as records are kept.
    Tombstone,
}

/// A record that is to go.
struct Doomed {
    id: RecordId,
    /// How the listing has it; several where two versions of this program wrote it.
    entries: Vec<Vec<u8>>,
}

impl Redis {
    pub(super) async fn remove_one(&self, id: RecordId) -> Result<bool, Error> {
        let shard = self.keys.shard(id);
        let digits = format!("{:032x}", id.as_u128());
        let mut range = cmd("ZRANGE");
        range
            .arg(self.keys.listing(shard, hour(id)))
            .arg(format!("[{digits}"));
        range
            .arg([b"[", digits.as_bytes(), b"\xff"].concat())
            .arg("BYLEX");
        let entries = self.ask(&range).await?;
        let doomed = [Doomed { id, entries }];
        let removed = self
            .remove(shard, hour(id), &doomed, Leaves::Tombstone)
            .await?;
        Ok(removed.records > 0)
    }

    pub(super) async fn apply_retention(&self, now_us: i64) -> Result<Expired, Error> {
        let by_age = self.expire_old(now_us).await?;
        self.metrics.expired("age", by_age.records);
        let by_bytes = self.make_room().await?;
        self.metrics.expired("bytes", by_bytes.records);
        let all = sum(by_age, by_bytes);
        self.metrics.expired_bytes.inc_by(all.bytes);
        Ok(all)
    }

    async fn expire_old(&self, now_us: i64) -> Result<Expired, Error> {
        let Some(age) = self.config.max_age else {
            return Ok(Expired::default());
        };
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let oldest = RecordId::floor_at(now_us.saturating_sub(age));
        let mut expired = Expired::default();
        for shard in self.keys.shards() {
            let mut range = cmd("ZRANGE");
            range
                .arg(self.keys.hours(shard))
                .arg("-inf")
                .arg(hour(oldest))
                .arg("BYSCORE");
            let hours: Vec<u64> = self.ask(&range).await?;
            for hour in hours {
                while let Some(step) = self.trim(shard, hour, Some(oldest)).await? {
                    expired = sum(expired, step);
                }
            }
        }
        Ok(expired)
    }

    /// Removes the oldest until memory in use is under 90 % of what is allowed.
    async fn make_room(&self) -> Result<Expired, Error> {
        let mut expired = Expired::default();
        let Some(max) = self.config.max_bytes else {
            return Ok(expired);
        };
        while self.used_memory().await? > max / 10 * 9 {
            let Some(hour) = self.oldest_hour().await? else {
                break;
            };
            let firsts = self
                .keys
                .shards()
                .map(|shard| self.first_entries(shard, hour, "+", ROOM_STEP));
            let lists = try_join_all(firsts).await?;
            // The oldest of all shards go, however they are spread.
            let mut oldest: Vec<_> = lists.iter().flatten().collect();
            oldest.sort_unstable();
            let end = oldest.get(ROOM_STEP - 1).map(|entry| (*entry).clone());
            let none_listed = oldest.is_empty();
            for (shard, mut list) in self.keys.shards().zip(lists) {
                if none_listed {
                    let step = self.trim(shard, hour, None).await?;
                    expired = sum(expired, step.unwrap_or_default());
                } else {
                    list.retain(|entry| end.as_ref().is_none_or(|end| entry <= end));
                    expired = sum(expired, self.remove_entries(shard, hour, list).await?);
                }
            }
        }
        Ok(expired)
    }

    async fn oldest_hour(&self) -> Result<Option<u64>, Error> {
        let asked = self.keys.shards().map(async |shard| {
            let mut range = cmd("ZRANGE");
            range.arg(self.keys.hours(shard)).arg(0).arg(0);
            self.ask::<Vec<u64>>(&range).await
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().min())
    }

    /// Removes some of an hour's records, oldest first, those under `below` only; `None` where none is left.
    async fn trim(
        &self,
        shard: Shard,
        hour: u64,
        below: Option<RecordId>,
    ) -> Result<Option<Expired>, Error> {
        let end = below.map_or_else(|| "+".to_owned(), |id| format!("({:032x}", id.as_u128()));
        let entries = self.first_entries(shard, hour, &end, STEP).await?;
        if !entries.is_empty() {
            return self.remove_entries(shard, hour, entries).await.map(Some);
        }
        let orphans = self.orphans(shard, hour, below).await?;
        if orphans.is_empty() {
            self.forget_hour(shard, hour).await?;
            return Ok(None);
        }
        let removed = self.remove(shard, hour, &orphans, Leaves::Nothing).await;
        removed.map(Some)
    }

    /// The oldest entries of an hour's listing, up to `end` as `ZRANGE` has it.
    async fn first_entries(
        &self,
        shard: Shard,
        hour: u64,
        end: &str,
        count: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut range = cmd("ZRANGE");
        range.arg(self.keys.listing(shard, hour)).arg("-").arg(end);
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(count);
        self.ask(&range).await
    }

    /// Removes the records that entries of a listing name.
    async fn remove_entries(
        &self,
        shard: Shard,
        hour: u64,
        entries: Vec<Vec<u8>>,
    ) -> Result<Expired, Error> {
        let mut doomed: Vec<Doomed> = Vec::with_capacity(entries.len());
        let mut unreadable = Vec::new();
        for entry in entries {
            match (split_entry(&entry).map(|(id, _)| id), doomed.last_mut()) {
                (Some(id), Some(last)) if last.id == id => last.entries.push(entry),
                (Some(id), _) => doomed.push(Doomed {
                    id,
                    entries: vec![entry],
                }),
                (None, _) => unreadable.push(entry),
            }
        }
        if !unreadable.is_empty() {
            let mut remove = cmd("ZREM");
            remove.arg(self.keys.listing(shard, hour)).arg(unreadable);
            self.ask::<()>(&remove).await?;
        }
        self.remove(shard, hour, &doomed, Leaves::Nothing).await
    }

    /// Ids of an hour that have pieces, but no record in the listing any more.
    async fn orphans(
        &self,
        shard: Shard,
        hour: u64,
        below: Option<RecordId>,
    ) -> Result<Vec<Doomed>, Error> {
        let owners = self.keys.owners(shard, hour);
        let ids: Vec<Vec<u8>> = match below {
            // The hour is cut in the middle: all have to be looked at.
            Some(limit) if super::keys::hour(limit) == hour => {
                self.ask(cmd("SMEMBERS").arg(owners)).await?
            }
            _ => self.ask(cmd("SRANDMEMBER").arg(owners).arg(STEP)).await?,
        };
        let ids = ids.iter().filter_map(|hex| id_from_hex(hex));
        let old = ids.filter(|id| below.is_none_or(|limit| *id < limit));
        let doomed = |id| Doomed {
            id,
            entries: Vec::new(),
        };
        Ok(old.take(STEP).map(doomed).collect())
    }

    async fn forget_hour(&self, shard: Shard, hour: u64) -> Result<(), Error> {
        let mut script = cmd("EVAL");
        script.arg(FORGET_HOUR).arg(3).arg(self.keys.hours(shard));
        script
            .arg(self.keys.listing(shard, hour))
            .arg(self.keys.owners(shard, hour));
        self.ask(script.arg(hour)).await
    }

    /// Removes records of one hour with all that belongs to them.
    async fn remove(
        &self,
        shard: Shard,
        hour: u64,
        doomed: &[Doomed],
        leaves: Leaves,
    ) -> Result<Expired, Error> {
        if doomed.is_empty() {
            return Ok(Expired::default());
        }
        let mut lists = pipe();
        for record in doomed {
            lists.cmd("SMEMBERS").arg(self.keys.pieces(record.id));
        }
        let pieces: Vec<Vec<String>> = self.run(&lists).await?;
        let mut all = pipe();
        all.atomic();
        for (record, pieces) in doomed.iter().zip(&pieces) {
            self.add_removal(&mut all, (shard, hour), record, pieces, leaves);
        }
        let replies: Vec<u64> = self.run(&all).await?;
        let mut lengths = replies.into_iter();
        let mut expired = Expired::default();
        for pieces in &pieces {
            let record = lengths.next().unwrap_or(0);
            expired.records += u64::from(record > 0);
            expired.bytes += record + lengths.by_ref().take(pieces.len()).sum::<u64>();
        }
        self.forget_fingerprints(doomed).await?;
        Ok(expired)
    }

    /// The commands that remove one record; they answer with the lengths of the record and its pieces.
    fn add_removal(
        &self,
        all: &mut Pipeline,
        (shard, hour): (Shard, u64),
        record: &Doomed,
        pieces: &[String],
        leaves: Leaves,
    ) {
        let id = record.id;
        let names = pieces.iter().map(|name| self.keys.named_piece(id, name));
        let keys: Vec<_> = std::iter::once(self.keys.record(id)).chain(names).collect();
        for key in &keys {
            all.cmd("STRLEN").arg(key);
        }
        let memory = self.config.max_age.map_or(MEMORY, |age| age.min(MEMORY));
        for key in &keys {
            match leaves {
                Leaves::Nothing => all.cmd("DEL").arg(key),
                Leaves::Tombstone => {
                    let command = all.cmd("SET").arg(key).arg("").arg("PX");
                    command.arg(memory.as_millis().max(1).to_string())
                }
            };
            all.ignore();
        }
        all.cmd("DEL").arg(self.keys.pieces(id)).ignore();
        if !record.entries.is_empty() {
            let listing = self.keys.listing(shard, hour);
            all.cmd("ZREM").arg(listing).arg(&record.entries).ignore();
        }
        let owners = self.keys.owners(shard, hour);
        let command = all.cmd("SREM").arg(owners);
        command.arg(format!("{:032x}", id.as_u128())).ignore();
    }

    async fn forget_fingerprints(&self, doomed: &[Doomed]) -> Result<(), Error> {
        let mut by_shard = std::collections::BTreeMap::new();
        for record in doomed {
            let summaries = record.entries.iter().filter_map(|entry| split_entry(entry));
            for stored in summaries.filter_map(|(_, summary)| Stored::read(summary).ok()) {
                let (Some(print), Ok(origin)) = (stored.fingerprint(), stored.origin()) else {
                    continue;
                };
                let shard = self.keys.fingerprint_shard(print);
                let pipeline = by_shard.entry(shard).or_insert_with(pipe);
                let command = pipeline.cmd("ZREM").arg(self.keys.fingerprint(print));
                command.arg(source_member(&origin, record.id)).ignore();
            }
        }
        let sent = by_shard.values().map(|pipeline| self.run::<()>(pipeline));
        try_join_all(sent).await.map(drop)
    }

    pub(super) async fn measure(&self) -> Result<Stats, Error> {
        let asked = self.keys.shards().map(|shard| self.measure_shard(shard));
        let shards = try_join_all(asked).await?;
        Ok(Stats {
            records: shards.iter().map(|(records, _)| records).sum(),
            bytes: self.used_memory().await?,
            oldest_us: shards.iter().filter_map(|(_, oldest)| *oldest).min(),
        })
    }

    async fn measure_shard(&self, shard: Shard) -> Result<(u64, Option<i64>), Error> {
        let hours: Vec<u64> = self
            .ask(cmd("ZRANGE").arg(self.keys.hours(shard)).arg(0).arg(-1))
            .await?;
        let mut pipeline = pipe();
        for hour in &hours {
            pipeline.cmd("ZCARD").arg(self.keys.listing(shard, *hour));
        }
        if hours.is_empty() {
            return Ok((0, None));
        }
        let counts: Vec<u64> = self.run(&pipeline).await?;
        let Some(first) = counts.iter().position(|count| *count > 0) else {
            return Ok((0, None));
        };
        let listing = self.keys.listing(shard, hours[first]);
        let entries: Vec<Vec<u8>> = self.ask(cmd("ZRANGE").arg(listing).arg(0).arg(0)).await?;
        let stored = entries.first().and_then(|entry| split_entry(entry));
        let oldest = stored.and_then(|(id, summary)| {
            let stored = Stored::read(summary).ok()?;
            Some(stored.summary(id).ok()?.started_us)
        });
        Ok((counts.iter().sum(), oldest))
    }

    /// Bytes of memory in use, over all masters of a cluster.
    async fn used_memory(&self) -> Result<u64, Error> {
        let info: Value = self.ask(cmd("INFO").arg("memory")).await?;
        let texts: Vec<String> = match info {
            Value::Map(nodes) => nodes.into_iter().map(|(_, text)| text_of(text)).collect(),
            other => vec![text_of(other)],
        };
        let used = |text: &String| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("used_memory:"));
            line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
        };
        texts
            .iter()
            .map(used)
            .sum::<Option<u64>>()
            .ok_or_else(|| Error::Unavailable {
                address: self.address.clone(),
                source: "its answer to INFO memory does not name used_memory".into(),
            })
    }
}

fn text_of(value: Value) -> String {
    redis::from_redis_value(value).unwrap_or_default()
}

fn sum(one: Expired, other: Expired) -> Expired {
    Expired {
        records: one.records + other.records,
        bytes: one.bytes + other.bytes,
    }
}
