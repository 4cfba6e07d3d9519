//! Reading: by id, by fingerprint, in the order of ids, and in the order of appends.
//!
//! The index's lock is held only to look at the active file; everything else is read after it is given back.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::error::Error;
use super::files::read_full;
use super::frame::{FILE_HEADER, HEAD, Head, TOMBSTONE};
use super::index::{Handle, Place};
use super::log::{Log, Shared};
use super::page::{Metas, Question};
use super::rows::Key;
use super::scan::next_head;
use super::{Found, Header, Ids, Order, Position, Run, Stats};

/// A read for one entry takes this much at first; most are not larger.
const FIRST_READ_BYTES: usize = 8 << 10;
/// How many entries a scan takes from the index at a time.
const SCAN_PAGE: usize = 256;

impl Log {
    /// The entry with this id.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Damaged`] where the file does not hold what was written.
    pub fn get(&self, kind: u8, id: u128) -> Result<Option<Found>, Error> {
        let place = self.shared.place((kind, id));
        place.map(|place| entry_at(&place)).transpose()
    }

    /// Whether there is an entry with this id.
    #[must_use]
    pub fn contains(&self, kind: u8, id: u128) -> bool {
        self.shared.place((kind, id)).is_some()
    }

    /// Where the entry with this id starts.
    #[must_use]
    pub fn position(&self, kind: u8, id: u128) -> Option<Position> {
        let place = self.shared.place((kind, id));
        place.map(|place| place.position())
    }

    /// The ids of at most `limit` entries with this fingerprint, in order; none for 0.
    #[must_use]
    pub fn find(&self, kind: u8, fingerprint: u128, order: Order, limit: usize) -> Vec<u128> {
        if fingerprint == 0 || limit == 0 {
            return Vec::new();
        }
        self.shared.find(kind, fingerprint, order, limit)
    }

    /// Shows the entries of a kind in the order of their ids, without touching the files that hold their
    /// payloads, until `visit` breaks. What is appended or removed meanwhile may or may not be shown.
    pub fn scan(
        &self,
        kind: u8,
        ids: Ids,
        order: Order,
        visit: &mut dyn FnMut(Header<'_>) -> ControlFlow<()>,
    ) {
        let mut rest = Some(ids);
        let mut question = Question {
            kind,
            order,
            // The first page is small: many scans stop at their first entry.
            limit: 8,
            metas: Metas::Copy,
        };
        while let Some(ids) = rest {
            let page = self.shared.page(question, &ids);
            for line in &page.lines {
                let header = Header {
                    id: line.id,
                    fingerprint: line.fingerprint,
                    meta: page.meta(line),
                    position: line.position,
                };
                if visit(header).is_break() {
                    return;
                }
            }
            rest = page.rest;
            question.limit = SCAN_PAGE;
        }
    }

    /// The ids of a kind in `ids`, in order and at most `limit` of them.
    #[must_use]
    pub fn ids(&self, kind: u8, ids: Ids, order: Order, limit: usize) -> Vec<u128> {
        let mut found = Vec::new();
        let mut rest = Some(ids);
        while let Some(ids) = rest.filter(|_| found.len() < limit) {
            let question = Question {
                kind,
                order,
                limit: limit - found.len(),
                metas: Metas::Skip,
            };
            let page = self.shared.page(question, &ids);
            found.extend(page.lines.iter().map(|line| line.id));
            rest = page.rest;
        }
        found
    }

    /// Live entries of all kinds in the order in which they were appended, from a place on: about `max_bytes`
    /// of them, and at least one if there is one. A place that is gone stands for the oldest that is not.
    ///
    /// # Errors
    /// [`Error::Io`]. What is damaged is passed over and counted in [`Run::skipped`].
    pub fn read_from(&self, from: Position, max_bytes: usize) -> Result<Run, Error> {
        let mut run = Run {
            entries: Vec::new(),
            next: from,
            skipped: 0,
        };
        let mut budget = max_bytes;
        while let Some((handle, start, end)) = self.shared.stretch(run.next) {
            run.next = Position {
                segment: handle.number,
                offset: start,
            };
            if start < end {
                self.shared
                    .read_stretch(&handle, end, &mut budget, &mut run)?;
            }
            let done = budget == 0 && !run.entries.is_empty();
            if done || run.next.offset < end || !self.shared.go_to_next(&mut run.next) {
                break;
            }
        }
        Ok(run)
    }

    /// Hides entries of a kind with an id below this from every reader, until the log is closed. The bound
    /// never moves back.
    pub fn hide_below(&self, kind: u8, id: u128) {
        self.shared.index.write().hide_below(kind, id);
    }

    /// How full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        let index = self.shared.index.read();
        let oldest = index.archive.files().first();
        let created_ms = oldest.map_or(index.active.created_ms, |file| file.created_ms);
        Stats {
            segments: index.count() as u64,
            bytes: index.bytes(),
            entries: index.live(),
            oldest: super::recover::time(created_ms),
            sync_failures: self.shared.sync_failures.load(Relaxed),
            seal_failures: self.shared.seal_failures.load(Relaxed),
        }
    }
}

impl Shared {
    fn find(&self, kind: u8, fingerprint: u128, order: Order, limit: usize) -> Vec<u128> {
        let mut ids = BTreeSet::new();
        let index = self.index.read();
        let rows = &index.active.rows;
        match order {
            Order::Oldest => ids.extend(rows.find(kind, fingerprint).take(limit)),
            Order::Newest => ids.extend(rows.find(kind, fingerprint).rev().take(limit)),
        }
        let below = index.hidden_below(kind);
        let archive = index.archive.clone();
        // What the active file overrides is seldom more than a few entries, and of most kinds none.
        let overridden = index.active.rows.overridden(kind);
        drop(index);
        let is_seen = |id: &u128| *id >= below && !overridden.contains(id);
        archive.find((kind, fingerprint), order, limit, is_seen, &mut ids);
        let seen = ids.into_iter().filter(|id| *id >= below);
        match order {
            Order::Oldest => seen.take(limit).collect(),
            Order::Newest => seen.rev().take(limit).collect(),
        }
    }

    /// The file that `from` lies in, or the first one after it; where to start in it, and its end.
    fn stretch(&self, from: Position) -> Option<(Arc<Handle>, u64, u64)> {
        let index = self.index.read();
        let active = &index.active;
        let (handle, end) = match index.archive.from(from.segment) {
            Some(file) => (&file.handle, file.end),
            None if active.number() >= from.segment => (&active.handle, active.end),
            None => return None,
        };
        let start = if handle.number == from.segment {
            from.offset.max(FILE_HEADER as u64)
        } else {
            FILE_HEADER as u64
        };
        Some((Arc::clone(handle), start, end))
    }

    /// Moves to the start of the next file, if there is one.
    fn go_to_next(&self, position: &mut Position) -> bool {
        let after = position.segment + 1;
        let index = self.index.read();
        let sealed = index.archive.from(after).map(|file| file.number());
        let active = Some(index.active.number()).filter(|number| *number >= after);
        let Some(segment) = sealed.or(active) else {
            return false;
        };
        *position = Position {
            segment,
            offset: FILE_HEADER as u64,
        };
        true
    }

    /// Whether the frame at this place is the valid version of its key, and may be seen.
    fn is_valid(&self, key: Key, position: Position) -> bool {
        let index = self.index.read();
        if index.is_hidden(key) {
            return false;
        }
        let here = index.active.rows.get(key);
        if index.active.number() == position.segment {
            return here.is_some_and(|slot| u64::from(slot.offset) == position.offset);
        }
        let archive = index.archive.clone();
        drop(index);
        here.is_none() && archive.is_valid(position.segment, position.offset, key)
    }

    /// Reads entries of one file from `run.next` on, up to `end` or as far as the budget goes.
    fn read_stretch(
        &self,
        handle: &Handle,
        end: u64,
        budget: &mut usize,
        run: &mut Run,
    ) -> Result<(), Error> {
        let mut wanted = (*budget).max(FIRST_READ_BYTES);
        while run.next.offset < end {
            let start = run.next.offset;
            let available = usize::try_from(end - start).unwrap_or(usize::MAX);
            let bytes = read(handle, start, wanted.min(available))?;
            let mut at = 0;
            let needed = loop {
                let (head, frame) = match frame_in(&bytes.slice(at..)) {
                    Piece::Whole(head, frame) => (head, Some(frame)),
                    Piece::BadPayload(head) => (head, None),
                    Piece::Partial(needed) if at + needed <= available => break needed,
                    Piece::Partial(_) | Piece::Damaged => {
                        let broken = run.next.offset;
                        run.next.offset = frame_behind(handle, broken, end)?;
                        run.skipped += run.next.offset - broken;
                        break FIRST_READ_BYTES;
                    }
                };
                let position = run.next;
                at += head.frame_len();
                run.next.offset += head.frame_len() as u64;
                let valid =
                    head.flags & TOMBSTONE == 0 && self.is_valid((head.kind, head.id), position);
                match frame {
                    Some(frame) if valid => {
                        *budget = budget.saturating_sub(head.frame_len());
                        run.entries.push(found(&head, &frame, position));
                    }
                    Some(_) => {}
                    None => run.skipped += head.frame_len() as u64,
                }
                if *budget == 0 && !run.entries.is_empty() || run.next.offset >= end {
                    return Ok(());
                }
            };
            if needed > *budget && !run.entries.is_empty() {
                *budget = 0;
                return Ok(());
            }
            wanted = needed.max(*budget).max(FIRST_READ_BYTES);
        }
        Ok(())
    }
}

/// Where reading goes on behind a frame whose head is damaged: at the next good one, or at `end`.
fn frame_behind(handle: &Handle, broken: u64, end: u64) -> Result<u64, Error> {
    let next = next_head(&*handle.file, broken, end);
    let next = next.map_err(|source| Error::io("read", &handle.path, source))?;
    Ok(next.unwrap_or(end))
}

/// What stands at the start of some bytes of a file.
enum Piece {
    Whole(Head, Bytes),
    /// The head is good, and so it is known where the next frame starts.
    BadPayload(Head),
    /// More bytes are needed: this many in all.
    Partial(usize),
    Damaged,
}

fn frame_in(bytes: &Bytes) -> Piece {
    let Some(start) = bytes.first_chunk::<HEAD>() else {
        return Piece::Partial(HEAD);
    };
    let Some(head) = Head::parse(start) else {
        return Piece::Damaged;
    };
    if bytes.len() < head.frame_len() {
        return Piece::Partial(head.frame_len());
    }
    if Head::checked(bytes).is_none() {
        Piece::Damaged
    } else if head.holds(&bytes[head.head_len()..head.frame_len()]) {
        Piece::Whole(head, bytes.slice(..head.frame_len()))
    } else {
        Piece::BadPayload(head)
    }
}

fn found(head: &Head, frame: &Bytes, position: Position) -> Found {
    Found {
        kind: head.kind,
        id: head.id,
        fingerprint: head.fingerprint,
        meta: frame.slice(HEAD..head.head_len()),
        payload: frame.slice(head.head_len()..),
        position,
    }
}

/// Reads and checks the entry at a place.
pub(super) fn entry_at(place: &Place) -> Result<Found, Error> {
    let position = place.position();
    let mut bytes = read(&place.handle, position.offset, FIRST_READ_BYTES)?;
    if let Piece::Partial(needed) = frame_in(&bytes)
        && needed > FIRST_READ_BYTES
    {
        bytes = read(&place.handle, position.offset, needed)?;
    }
    match frame_in(&bytes) {
        Piece::Whole(head, frame) if head.id == place.id => Ok(found(&head, &frame, position)),
        _ => Err(damaged(place)),
    }
}

fn damaged(place: &Place) -> Error {
    Error::Damaged {
        path: place.handle.path.clone(),
        offset: u64::from(place.slot.offset),
    }
}

/// Up to `wanted` bytes; fewer only where the file ends.
fn read(handle: &Handle, offset: u64, wanted: usize) -> Result<Bytes, Error> {
    let mut bytes = vec![0; wanted];
    let read = read_full(&*handle.file, &mut bytes, offset)
        .map_err(|source| Error::io("read", &handle.path, source))?;
    bytes.truncate(read);
    Ok(bytes.into())
}
