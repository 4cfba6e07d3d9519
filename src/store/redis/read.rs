//! Reading records, pieces, listings and coverage. What an index names and nobody has is skipped.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{cmd, pipe};

use super::Redis;
use super::keys::{Piece, Shard, hour, source_node, split_entry, split_source_member};
use crate::record::{Fingerprint, Item, Record, RecordId, SegmentBatch, Side};
use crate::store::open;
use crate::store::query::behind;
use crate::store::stored::Stored;
use crate::store::{Cursor, Error, Order, Page, Pieces, Query, Summary};

/// Entries fetched at once from one shard's listing, at most.
const FETCH: usize = 1024;

/// Pieces that are asked for at once.
const PIECES_AT_ONCE: u32 = 512;

/// What a round trip counts against the scan limit, however few entries it brought.
const ROUND_TRIP: usize = 64;

/// Some of an hour's entries, in order.
struct Stretch {
    entries: Vec<Vec<u8>>,
    /// Where the next stretch begins; `None` where the hour is done.
    next: Option<RangeInclusive<u128>>,
}

impl Redis {
    pub(super) async fn read_record(&self, id: RecordId) -> Result<Option<Record>, Error> {
        match self
            .read_item(self.keys.record(id), || id.to_string())
            .await?
        {
            None => Ok(None),
            Some(Item::Record(record)) if record.id() == id => Ok(Some(record)),
            Some(_) => Err(misplaced(id.to_string())),
        }
    }

    pub(super) async fn read_chunk(
        &self,
        id: RecordId,
        side: Side,
        index: u32,
    ) -> Result<Option<Bytes>, Error> {
        let name = || format!("{id}, chunk {index}");
        let key = self.keys.piece(id, Piece::Body(side), index);
        match self.read_item(key, name).await? {
            None => Ok(None),
            Some(Item::Chunk(chunk)) => Ok(Some(chunk.bytes)),
            Some(_) => Err(misplaced(name())),
        }
    }

    pub(super) async fn read_segments(
        &self,
        id: RecordId,
        index: u32,
    ) -> Result<Option<SegmentBatch>, Error> {
        let name = || format!("{id}, segments {index}");
        let key = self.keys.piece(id, Piece::Segments, index);
        match self.read_item(key, name).await? {
            None => Ok(None),
            Some(Item::Segments(batch)) => Ok(Some(batch)),
            Some(_) => Err(misplaced(name())),
        }
    }

    /// Asks for lengths, since a piece that was deleted is an empty one for a while.
    pub(super) async fn find_first_missing(
        &self,
        id: RecordId,
        of: Pieces,
        count: u32,
    ) -> Result<Option<u32>, Error> {
        let of = match of {
            Pieces::Body(side) => Piece::Body(side),
            Pieces::Segments => Piece::Segments,
        };
        let mut first = 0;
        while first < count {
            let end = count.min(first.saturating_add(PIECES_AT_ONCE));
            let mut lengths = pipe();
            for index in first..end {
                lengths.cmd("STRLEN").arg(self.keys.piece(id, of, index));
            }
            let lengths: Vec<u64> = self.run(&lengths).await?;
            if let Some(missing) = (first..end).zip(&lengths).find(|(_, length)| **length == 0) {
                return Ok(Some(missing.0));
            }
            first = end;
        }
        Ok(None)
    }

    async fn read_item(
        &self,
        key: String,
        name: impl Fn() -> String,
    ) -> Result<Option<Item>, Error> {
        let raw: Option<Vec<u8>> = self.ask(cmd("GET").arg(key)).await?;
        let Some(raw) = raw.filter(|raw| !raw.is_empty()) else {
            return Ok(None);
        };
        open(&Bytes::from(raw), &self.config.keys, name).map(Some)
    }

    /// What came unsealed first, then what is under the oldest key: that is also the order in time.
    pub(super) async fn find_all(
        &self,
        plain: Fingerprint,
        limit: usize,
    ) -> Result<Vec<RecordId>, Error> {
        let mut found = Vec::new();
        for print in self.config.keys.fingerprints(plain) {
            found.extend(self.find(print, limit - found.len()).await?);
        }
        Ok(found)
    }

    /// The largest ids first, whatever they are sealed under.
    pub(super) async fn newest_of_all(
        &self,
        plain: Fingerprint,
        limit: usize,
    ) -> Result<Vec<RecordId>, Error> {
        let mut found = Vec::new();
        for print in self.config.keys.fingerprints(plain) {
            found.extend(self.find_newest(print, limit).await?);
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(limit);
        Ok(found)
    }

    async fn find(&self, print: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        let key = self.keys.fingerprint(print);
        let mut found = Vec::new();
        let mut from = "-".to_owned();
        while found.len() < limit {
            let wanted = (limit - found.len()).min(FETCH);
            let mut range = cmd("ZRANGE");
            range.arg(&key).arg(&from).arg("+").arg("BYLEX");
            range.arg("LIMIT").arg(0).arg(wanted);
            let members: Vec<String> = self.ask(&range).await?;
            let Some(last) = members.last() else { break };
            from = format!("({last}");
            let exhausted = members.len() < wanted;
            found.extend(self.living(&key, members).await?);
            if exhausted {
                break;
            }
        }
        Ok(found)
    }

    /// The list stands by node, then by time: of each node the last ones are looked at.
    async fn find_newest(&self, print: Fingerprint, limit: usize) -> Result<Vec<RecordId>, Error> {
        let key = self.keys.fingerprint(print);
        let mut found = Vec::new();
        let mut before = "+".to_owned();
        let mut of_node = (String::new(), 0);
        loop {
            let wanted = limit.saturating_sub(of_node.1).clamp(1, FETCH);
            let mut range = cmd("ZRANGE");
            range
                .arg(&key)
                .arg(&before)
                .arg("-")
                .arg("BYLEX")
                .arg("REV");
            range.arg("LIMIT").arg(0).arg(wanted);
            let members: Vec<String> = self.ask(&range).await?;
            let Some(node) = members.first().and_then(|first| source_node(first)) else {
                break;
            };
            if of_node.0 != node {
                of_node = (node.to_owned(), 0);
            }
            // What follows of another node comes again, when it is that node's turn.
            let same = members
                .into_iter()
                .take_while(|member| source_node(member).is_some_and(|node| node == of_node.0));
            let same: Vec<String> = same.collect();
            let last = same.last().cloned().unwrap_or_default();
            let living = self.living(&key, same).await?;
            of_node.1 += living.len();
            found.extend(living);
            before = if of_node.1 < limit {
                format!("({last}")
            } else {
                // Behind this one stand all of the node's.
                format!("({} ", of_node.0)
            };
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(limit);
        Ok(found)
    }

    /// The ids of members whose record is there; members whose record is gone leave the list.
    async fn living(&self, key: &str, members: Vec<String>) -> Result<Vec<RecordId>, Error> {
        let ids: Vec<_> = members.iter().map(|m| split_source_member(m)).collect();
        let present = self.present(ids.iter().flatten().copied()).await?;
        let mut living = Vec::with_capacity(members.len());
        let mut stale = cmd("ZREM");
        stale.arg(key);
        let mut any_stale = false;
        for (member, id) in members.into_iter().zip(ids) {
            match id {
                Some(id) if present.contains(&id) => living.push(id),
                _ => {
                    stale.arg(member);
                    any_stale = true;
                }
            }
        }
        if any_stale {
            self.ask::<()>(&stale).await?;
        }
        Ok(living)
    }

    /// Those of `ids` whose record is there; an empty one was deleted.
    async fn present(
        &self,
        ids: impl Iterator<Item = RecordId>,
    ) -> Result<HashSet<RecordId>, Error> {
        let mut by_shard: BTreeMap<Shard, Vec<RecordId>> = BTreeMap::new();
        for id in ids {
            by_shard.entry(self.keys.shard(id)).or_default().push(id);
        }
        let asked = by_shard.into_values().map(async |ids| {
            let mut strlen = pipe();
            for id in &ids {
                strlen.cmd("STRLEN").arg(self.keys.record(*id));
            }
            let lengths: Vec<u64> = self.run(&strlen).await?;
            let present = ids
                .into_iter()
                .zip(lengths)
                .filter(|(_, length)| *length > 0);
            Ok::<_, Error>(present.map(|(id, _)| id).collect::<Vec<_>>())
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    pub(super) async fn read_page(&self, query: &Query) -> Result<Page, Error> {
        let mut page = Page {
            items: Vec::new(),
            next: query.cursor,
        };
        if query.limit == 0 {
            return Ok(page);
        }
        page.next = None;
        let Some(ids) = query.ids(0) else {
            return Ok(page);
        };
        let mut hours = self.hours(&ids).await?;
        if query.order == Order::NewestFirst {
            hours.reverse();
        }
        let mut looked_at = 0;
        let mut last_seen = None;
        for hour in hours {
            let mut rest = Some(ids.clone());
            while let Some(from) = rest.take() {
                let stretch = self.stretch(hour, from, query).await?;
                looked_at += stretch.entries.len().max(ROUND_TRIP);
                rest = stretch.next;
                let wanted = self.wanted(&stretch.entries, query, &mut last_seen).await?;
                page.items.extend(wanted);
                if page.items.len() > query.limit {
                    page.items.truncate(query.limit);
                    page.next = page.items.last().map(|item| Cursor::after(item.id));
                    return Ok(page);
                }
                if let Some(last) = last_seen.filter(|_| looked_at >= self.config.scan_limit) {
                    page.next = Some(Cursor::after(last));
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The hours of these ids that any shard has, oldest first.
    async fn hours(&self, ids: &RangeInclusive<u128>) -> Result<Vec<u64>, Error> {
        let (first, last) = (
            RecordId::from_u128(*ids.start()),
            RecordId::from_u128(*ids.end()),
        );
        let (first, last) = (hour(first), hour(last));
        let asked = self.keys.shards().map(async |shard| {
            let mut range = cmd("ZRANGE");
            range.arg(self.keys.hours(shard)).arg(first).arg(last);
            range.arg("BYSCORE");
            self.ask::<Vec<u64>>(&range).await
        });
        let all: BTreeSet<u64> = try_join_all(asked).await?.into_iter().flatten().collect();
        Ok(all.into_iter().collect())
    }

    /// The next entries of an hour from all shards, merged.
    async fn stretch(
        &self,
        hour: u64,
        ids: RangeInclusive<u128>,
        query: &Query,
    ) -> Result<Stretch, Error> {
        let newest_first = query.order == Order::NewestFirst;
        let shards = self.keys.shards().count();
        let count = (query.limit.saturating_add(1) / shards + 32).min(FETCH);
        let low = format!("[{:032x}", ids.start());
        // Behind the digits comes a summary, which never starts with 0xff.
        let mut high = format!("[{:032x}", ids.end()).into_bytes();
        high.push(0xff);
        let asked = self.keys.shards().map(async |shard| {
            let mut range = cmd("ZRANGE");
            range.arg(self.keys.listing(shard, hour));
            if newest_first {
                range.arg(&high).arg(&low).arg("BYLEX").arg("REV");
            } else {
                range.arg(&low).arg(&high).arg("BYLEX");
            }
            range.arg("LIMIT").arg(0).arg(count);
            self.ask::<Vec<Vec<u8>>>(&range).await
        });
        let lists = try_join_all(asked).await?;
        // Past the last entry of a list that was cut, another list may lack what the cut one still has.
        let ends = lists
            .iter()
            .filter(|list| list.len() == count)
            .filter_map(|list| list.last());
        let end = if newest_first { ends.max() } else { ends.min() }.cloned();
        let mut entries: Vec<_> = lists.into_iter().flatten().collect();
        if newest_first {
            entries.sort_unstable_by(|a, b| b.cmp(a));
        } else {
            entries.sort_unstable();
        }
        if let Some(end) = &end {
            let within = |entry: &Vec<u8>| {
                if newest_first {
                    entry >= end
                } else {
                    entry <= end
                }
            };
            entries.truncate(entries.partition_point(within));
        }
        let last = end.as_deref().and_then(split_entry).map(|(id, _)| id);
        let next = last.and_then(|last| behind(&ids, last.as_u128(), query.order));
        Ok(Stretch { entries, next })
    }

    /// The summaries among entries that the query wants and whose record is there.
    async fn wanted(
        &self,
        entries: &[Vec<u8>],
        query: &Query,
        last_seen: &mut Option<RecordId>,
    ) -> Result<Vec<Summary>, Error> {
        let mut wanted = Vec::new();
        for entry in entries {
            let Some((id, summary)) = split_entry(entry) else {
                self.metrics.unreadable.inc();
                continue;
            };
            // Another version of this program may have listed the same record in other words.
            if last_seen.replace(id) == Some(id) {
                continue;
            }
            let read = Stored::open(summary, id, &self.config.keys).and_then(|stored| {
                let wanted = stored.wanted(query);
                wanted.then(|| stored.summary(id)).transpose()
            });
            match read {
                Ok(summary) => wanted.extend(summary),
                Err(_) => _ = self.metrics.unreadable.inc(),
            }
        }
        let present = self
            .present(wanted.iter().map(|summary| summary.id))
            .await?;
        wanted.retain(|summary| present.contains(&summary.id));
        Ok(wanted)
    }
}

fn misplaced(key: String) -> Error {
    Error::Corrupt {
        key,
        source: "it is something else".into(),
    }
}
